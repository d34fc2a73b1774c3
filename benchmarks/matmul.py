"""matmul f32 against numpy and PyTorch, and against the FMA peak measured in the same run."""
from __future__ import annotations

import numpy as np

import graphc as gc
from benchmarks.peers import numpy_threads, torch_or_none
from benchmarks.protocol import agree, compare
from graphc.peak import fma_peak

LARGE = ((512, 512, 512), (1024, 1024, 1024), (2048, 2048, 2048))
SMALL = ((16, 16, 16), (32, 32, 32), (64, 64, 64), (128, 128, 128), (17, 31, 65), (100, 37, 53), (5, 250, 7))


def main(threads: int) -> None:
    for m, k, n in LARGE:
        row(m, k, n, threads, peak=fma_peak(threads))
    for m, k, n in SMALL:
        row(m, k, n, threads)


def row(m: int, k: int, n: int, threads: int, peak: float = 0.0) -> None:
    rng = np.random.default_rng(0)
    xs = [(rng.standard_normal((m, k), np.float32), rng.standard_normal((k, n), np.float32)) for _ in range(4)]
    run = gc.compile(product(m, k, n), threads=threads)
    out = np.empty((m, n), np.float32)
    engines = {"graphc": lambda i: run(*xs[i % 4], out=out) if peak else run(*xs[i % 4]),
               "numpy": lambda i: np.matmul(*xs[i % 4], out=out) if peak else xs[i % 4][0] @ xs[i % 4][1]}
    torch = torch_or_none(threads)
    if torch and not peak:
        ts = [tuple(map(torch.from_numpy, pair)) for pair in xs]
        engines["torch"] = lambda i: torch.mm(*ts[i % 4])
    agree(f"{m}x{k}x{n}", {"graphc": run(*xs[0]), "numpy": xs[0][0] @ xs[0][1]}, rtol=1e-3, atol=1e-3)
    with numpy_threads(threads):
        result = compare(f"matmul {m}x{k}x{n}, {threads} threads", engines, work=2.0 * m * n * k)
    print(result)
    if peak:
        print(f"    {result.rate('graphc'):.1f} GF/s = {100 * result.rate('graphc') / peak:.1f} % of {peak:.1f} GF/s "
              f"(best {100 * result.rate('graphc', True) / peak:.1f} %)")


def product(m: int, k: int, n: int):
    @gc.graph
    def matmul(a: gc.f32[m, k], b: gc.f32[k, n]):
        return a @ b
    return matmul
