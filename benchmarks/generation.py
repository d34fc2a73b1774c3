"""A token of generation: a small GPT and recurrent language models against PyTorch with key/value caches and states
kept by hand.
"""
from __future__ import annotations

import numpy as np

import graphc as gc
from benchmarks.peers import torch_or_none
from benchmarks.protocol import agree, compare
from graphc import models, nn

VOCABULARY, WIDTH, LAYERS, HEADS, CONTEXT = 256, 384, 6, 6, 256
PROMPT = 8


def main(threads: int) -> None:
    torch = torch_or_none(threads)
    gpt(torch, threads)
    for layer, hidden, layers in (("GRU", 128, 1), ("LSTM", 512, 2)):
        recurrent(torch, threads, layer, hidden, layers)


def gpt(torch, threads: int) -> None:
    """Single sequences and batches, up to the whole context; and a prompt alone."""
    net = models.gpt(VOCABULARY, WIDTH, LAYERS, HEADS, CONTEXT, pre_norm=True)
    generate = gc.Generator(net, seed=0, threads=threads, capacity=CONTEXT)
    for batch, prompt, steps in ((1, PROMPT, CONTEXT - PROMPT), (8, PROMPT, CONTEXT - PROMPT), (1, 192, 1)):
        prompts = prompts_of(batch, prompt)
        engines = {"graphc": lambda i: generate(prompts[i % 4], steps)}
        engines["graphc"](0)
        if torch:
            peer = Gpt(torch, {name: torch.from_numpy(a) for name, a in generate.state.copy().items()}, batch)
            engines["PyTorch"] = lambda i: peer.generate(prompts[i % 4], steps)
        case(f"GPT {LAYERS}x{WIDTH}, batch {batch}, prompt {prompt}, {steps} tokens, {threads} threads", engines, steps)


def recurrent(torch, threads: int, layer: str, hidden: int, layers: int) -> None:
    net = nn.Embedding(VOCABULARY,
                       hidden) >> getattr(nn, layer)(hidden, layers=layers, batch_first=True) >> nn.Linear(VOCABULARY)
    generate, prompts, steps = gc.Generator(net, seed=0, threads=threads), prompts_of(1, PROMPT), 200
    engines = {"graphc": lambda i: generate(prompts[i % 4], steps)}
    engines["graphc"](0)
    if torch:
        peer = Recurrent(torch, generate.state.copy(), layer, hidden, layers)
        engines["PyTorch"] = lambda i: peer.generate(prompts[i % 4], steps)
    case(f"{layer} {layers}x{hidden}, prompt {PROMPT}, {steps} tokens, {threads} threads", engines, steps)


def case(name: str, engines: dict, steps: int) -> None:
    agree(name, {engine: run(0) for engine, run in engines.items()})
    result = compare(name, engines)
    print(f"{result}; " + ", ".join(f"{engine} {t.median / steps * 1e6:.1f} us/token"
                                    for engine, t in result.timings.items()), flush=True)


def prompts_of(batch: int, length: int) -> list[np.ndarray]:
    return [np.random.default_rng(i).integers(0, VOCABULARY, (batch, length)) for i in range(4)]


class Gpt:
    """Weights by graphc's names; the caches are slices of arrays made once."""

    def __init__(self, torch, state: dict, batch: int):
        self.torch, self.state, self.f = torch, state, torch.nn.functional
        self.caches = [[torch.zeros(batch, HEADS, CONTEXT, WIDTH // HEADS) for _ in "kv"] for _ in range(LAYERS)]
        self.layers = [{name.removeprefix(f"3.{i}."): a for name, a in state.items() if name.startswith(f"3.{i}.")}
                       for i in range(LAYERS)]

    def generate(self, prompt: np.ndarray, steps: int) -> np.ndarray:
        with self.torch.inference_mode():
            tokens, at = [self.next(self.torch.from_numpy(prompt), 0)], prompt.shape[1]
            for at in range(at, at + steps - 1):
                tokens.append(self.next(tokens[-1], at))
            return self.torch.cat(tokens, 1).numpy()

    def next(self, ids, at: int):
        f, state, count = self.f, self.state, ids.shape[1]
        x = f.embedding(ids, state["0.weight"]) + state["1.weight"][at:at + count]
        for layer, cache in zip(self.layers, self.caches):
            x = self.block(x, layer, cache, at)
        x = f.layer_norm(x[:, -1:], (WIDTH,), state["4.weight"], state["4.bias"])
        return f.linear(x, state["0.weight"]).argmax(-1)

    def block(self, x, w: dict, cache: list, at: int):
        f, (batch, count, width) = self.f, x.shape
        h = f.layer_norm(x, (width,), w["norm1.weight"], w["norm1.bias"])
        qkv = f.linear(h, w["self_attn.in_proj_weight"],
                       w["self_attn.in_proj_bias"]).view(batch, count, 3, HEADS, width // HEADS)
        q, *new = qkv.permute(2, 0, 3, 1, 4)
        for kept, x_new in zip(cache, new):
            kept[:, :, at:at + count] = x_new
        keys, values = (kept[:, :, :at + count] for kept in cache)
        y = f.scaled_dot_product_attention(q, keys, values,
                                           is_causal=count > 1).transpose(1, 2).reshape(batch, count, width)
        x = x + f.linear(y, w["self_attn.out_proj.weight"], w["self_attn.out_proj.bias"])
        h = f.linear(f.layer_norm(x, (width,), w["norm2.weight"], w["norm2.bias"]), w["linear1.weight"],
                     w["linear1.bias"])
        return x + f.linear(f.gelu(h, approximate="tanh"), w["linear2.weight"], w["linear2.bias"])


class Recurrent:
    """torch.nn layers with graphc's weights; the state goes from call to call."""

    def __init__(self, torch, state: dict, layer: str, hidden: int, layers: int):
        self.torch = torch
        self.parts = [torch.nn.Embedding(VOCABULARY, hidden),
                      getattr(torch.nn, layer)(hidden, hidden, layers, batch_first=True),
                      torch.nn.Linear(hidden, VOCABULARY)]
        for i, part in enumerate(self.parts):
            part.load_state_dict({name[2:]: torch.from_numpy(a)
                                  for name, a in state.items() if name.startswith(f"{i}.")})

    def generate(self, prompt: np.ndarray, steps: int) -> np.ndarray:
        embed, layer, scores = self.parts
        with self.torch.inference_mode():
            ids, state, tokens = self.torch.from_numpy(prompt), None, []
            for _ in range(steps):
                y, state = layer(embed(ids), state)
                ids = scores(y[:, -1:]).argmax(-1)
                tokens.append(ids)
            return self.torch.cat(tokens, 1).numpy()
