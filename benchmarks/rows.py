"""Softmax and layer norm, forward and backward, on [4096, 1024], against PyTorch eager."""
from __future__ import annotations

import numpy as np

import graphc as gc
from benchmarks.peers import torch_or_none
from benchmarks.protocol import agree, compare

ROWS, COLUMNS = 4096, 1024


def main(threads: int) -> None:
    rng = np.random.default_rng(0)
    xs = [rng.standard_normal((ROWS, COLUMNS), np.float32) for _ in range(2)]
    g = rng.standard_normal((ROWS, COLUMNS), np.float32)
    gamma, beta = rng.standard_normal((2, COLUMNS)).astype(np.float32)
    torch = torch_or_none(threads)
    case(f"softmax forward + backward [4096, 1024], {threads} threads", softmax_step, [(x, g) for x in xs], threads,
         torch and (lambda x, g: torch_backward(torch, torch.softmax(x, 1), (x,), g)), torch, (0,))
    case(f"layer norm forward + backward [4096, 1024], {threads} threads", norm_step, [(x, gamma, beta, g) for x in xs],
         threads,
         torch and (lambda x, gamma, beta, g: torch_backward(torch, torch.layer_norm(x, (COLUMNS,), gamma, beta),
                                                             (x, gamma, beta), g)),
         torch, (0, 1, 2))


@gc.graph
def scaled_softmax(x: gc.f32[ROWS, COLUMNS], g: gc.f32[ROWS, COLUMNS]):
    return gc.sum(gc.softmax(x, axis=1) * g)


@gc.graph
def softmax_step(x: gc.f32[ROWS, COLUMNS], g: gc.f32[ROWS, COLUMNS]):
    return gc.softmax(x, axis=1), gc.grad(scaled_softmax, wrt="x")(x, g)


@gc.graph
def scaled_norm(x: gc.f32[ROWS, COLUMNS], gamma: gc.f32[COLUMNS], beta: gc.f32[COLUMNS], g: gc.f32[ROWS, COLUMNS]):
    return gc.sum(gc.layer_norm(x, gamma, beta) * g)


@gc.graph
def norm_step(x: gc.f32[ROWS, COLUMNS], gamma: gc.f32[COLUMNS], beta: gc.f32[COLUMNS], g: gc.f32[ROWS, COLUMNS]):
    return (gc.layer_norm(x, gamma, beta), *gc.grad(scaled_norm, wrt=("x", "gamma", "beta"))(x, gamma, beta, g))


def torch_backward(torch, y, wrt, g):
    return y.detach(), *torch.autograd.grad(y, wrt, g)


def case(name: str, graph, arguments, threads: int, peer, torch, differentiable) -> None:
    run = gc.compile(graph, threads=threads)
    outs = tuple(np.empty(v.type.shape, np.float32) for v in graph.graph.outputs)
    engines = {"graphc": lambda i: run(*arguments[i % 2]), "graphc, out=": lambda i: run(*arguments[i % 2], out=outs)}
    if peer:
        tensors = [[torch.from_numpy(a) for a in row] for row in arguments]
        for row in tensors:
            for k in differentiable:
                row[k].requires_grad_()
        engines["torch"] = lambda i: peer(*tensors[i % 2])
        for mine, theirs in zip(run(*arguments[0]), peer(*tensors[0])):
            agree(name, {"graphc": mine, "torch": theirs.numpy()}, rtol=1e-3, atol=1e-3)
    print(compare(name, engines))
