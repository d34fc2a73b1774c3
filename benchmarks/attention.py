"""Attention, forward and forward + backward, 8 heads of 64, against PyTorch's scaled_dot_product_attention."""
from __future__ import annotations

import numpy as np

import graphc as gc
from benchmarks.peers import torch_or_none
from benchmarks.protocol import TURNS, agree, compare

HEADS, SIZE = 8, 64
LENGTHS = (256, 512, 1024, 2048, 4096, 8192)
LONG, LONG_TURNS = 2048, 3          # beyond it a turn takes seconds


def main(threads: int) -> None:
    torch = torch_or_none(threads)
    for causal in (False, True):
        for length in LENGTHS:
            rng = np.random.default_rng(0)
            arrays = [rng.standard_normal((4, 1, HEADS, length, SIZE), np.float32) for _ in range(2)]
            forward, step = graphs(length, causal)
            flops = 4 * HEADS * length * length * SIZE / (2 if causal else 1)
            title = f"T = {length}{', causal' if causal else ''}, {threads} threads"
            peer = torch and Peer(torch, causal)
            case(f"attention {title}", forward, [a[:3] for a in arrays], threads, peer and peer.forward, torch, flops)
            case(f"attention forward + backward {title}", step, arrays, threads, peer and peer.step, torch, 3.5 * flops)


def graphs(length: int, causal: bool):
    """The output, and the output with its gradients."""
    t = gc.f32[1, HEADS, length, SIZE]

    @gc.graph
    def forward(q: t, k: t, v: t):
        return gc.attention(q, k, v, causal=causal)

    @gc.graph
    def product(q: t, k: t, v: t, g: t):
        return gc.sum(gc.attention(q, k, v, causal=causal) * g)

    @gc.graph
    def step(q: t, k: t, v: t, g: t):
        return (gc.attention(q, k, v, causal=causal), *gc.grad(product, wrt=("q", "k", "v"))(q, k, v, g))
    return forward, step


class Peer:
    """PyTorch's fused kernel."""

    def __init__(self, torch, causal: bool):
        self.torch, self.causal = torch, causal

    def attention(self, q, k, v):
        return self.torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)

    def forward(self, q, k, v):
        with self.torch.inference_mode():
            return (self.attention(q, k, v),)

    def step(self, q, k, v, g):
        wrt = [x.detach().requires_grad_() for x in (q, k, v)]
        y = self.attention(*wrt)
        return y.detach(), *self.torch.autograd.grad(y, wrt, g)


def case(name: str, graph, arguments, threads: int, peer, torch, flops: float) -> None:
    run = gc.compile(graph, threads=threads)
    outs = tuple(np.empty(v.type.shape, np.float32) for v in graph.graph.outputs)
    out = outs if len(outs) > 1 else outs[0]
    engines = {"graphc": lambda i: run(*arguments[i % 2], out=out)}
    if peer:
        tensors = [[torch.from_numpy(a) for a in row] for row in arguments]
        engines["torch"] = lambda i: peer(*tensors[i % 2])
        mine = run(*arguments[0])
        for x, y in zip(mine if isinstance(mine, tuple) else (mine,), peer(*tensors[0])):
            agree(name, {"graphc": x, "torch": y.numpy()}, rtol=1e-3, atol=1e-4)
    result = compare(name, engines, flops, turns=LONG_TURNS if arguments[0][0].shape[-2] > LONG else TURNS)
    print(result, *(f"{engine} {result.rate(engine, best=True):.0f} GF/s" for engine in engines), sep="; ")
