"""Chains of ten operators on 64 MB arrays: arithmetic only, against a copy into an existing array; with a sigmoid and a
tanh, against PyTorch in place.
"""
from __future__ import annotations

import numpy as np

import graphc as gc
from benchmarks.peers import torch_or_none
from benchmarks.protocol import agree, compare

SIZE = 1 << 24                  # f32: 64 MB


def main(threads: int) -> None:
    rng = np.random.default_rng(0)
    xs = [rng.standard_normal(SIZE, np.float32) for _ in range(2)]
    out = np.zeros(SIZE, np.float32)
    torch = torch_or_none(threads)
    engines = {"graphc": native(arithmetic, xs, out, threads), "numpy copy": lambda i: np.copyto(out, xs[i % 2])}
    if torch:
        ts, target = [torch.from_numpy(x) for x in xs], torch.from_numpy(out)
        engines["torch copy"] = lambda i: target.copy_(ts[i % 2])
    print(compare(f"10 arithmetic operators, 64 MB, {threads} threads", engines, work=8.0 * SIZE))
    if torch:
        expected, spare = torch_mixed(ts[0].clone()), ts[0].clone()
        run = gc.compile(mixed, threads=threads)
        agree("mixed", {"graphc": run(xs[0]), "torch": expected}, rtol=1e-4, atol=1e-5)
        print(compare(f"the same with sigmoid and tanh, {threads} threads",
                      {"graphc": lambda i: run(xs[i % 2], out=out), "torch in place": lambda i: torch_mixed(spare)}))


def native(graph, xs, out, threads: int):
    run = gc.compile(graph, threads=threads)
    return lambda i: run(xs[i % 2], out=out)


@gc.graph
def arithmetic(x: gc.f32[SIZE]):
    y = x * 1.5 + 0.25
    y = y * x - 0.5
    y = (y + x) * 0.75
    y = y * y + 1.0
    return (y - x) * 0.125


@gc.graph
def mixed(x: gc.f32[SIZE]):
    y = gc.sigmoid(x * 1.5 + 0.25)
    y = y * 0.5 - 0.125
    y = gc.tanh(y * 2.0 + 0.75)
    return (y * 0.25 + 1.0) * 0.125


def torch_mixed(x):
    x.mul_(1.5).add_(0.25).sigmoid_()
    x.mul_(0.5).sub_(0.125)
    x.mul_(2.0).add_(0.75).tanh_()
    return x.mul_(0.25).add_(1.0).mul_(0.125)
