"""The call of a compiled 8-10-7-3 network from Python, numpy in and out; import time; compile time of the examples'
training steps.
"""
from __future__ import annotations

import os
import subprocess
import sys
import time
from statistics import median

import numpy as np

import graphc as gc
from benchmarks.examples import CASES
from benchmarks.peers import torch_or_none
from benchmarks.protocol import compare
from graphc import nn

IMPORTS = 9


def call(threads: int) -> None:
    net = nn.Linear(10) >> nn.sigmoid >> nn.Linear(7) >> nn.sigmoid >> nn.Linear(3)
    run = gc.compile(net, x=gc.f32[1, 8], seed=0, threads=threads)
    xs = [np.random.default_rng(i).standard_normal((1, 8)).astype(np.float32) for i in range(4)]
    engines = {"graphc": lambda i: run(xs[i % 4])}
    torch = torch_or_none(threads)
    if torch:
        layers = torch.nn
        peer = layers.Sequential(layers.Linear(8, 10), layers.Sigmoid(), layers.Linear(10, 7), layers.Sigmoid(),
                                 layers.Linear(7, 3)).eval()
        ts = [torch.from_numpy(x) for x in xs]

        def infer(i):
            with torch.inference_mode():
                return peer(ts[i % 4])
        engines["torch"] = infer
    print(compare("call of an 8-10-7-3 network", engines))


def import_time(threads: int) -> None:
    """Seconds of `import graphc` beyond `import numpy`, each in a fresh process, in alternation."""
    rows = [(_process("import numpy"), _process("import numpy, graphc")) for _ in range(IMPORTS)]
    numpy, both = (median(column) for column in zip(*rows))
    print(f"import: numpy {numpy * 1e3:.0f} ms, with graphc {both * 1e3:.0f} ms, difference {(both - numpy) * 1e3:.0f} "
          f"ms "
          f"(best {1e3 * (min(b for _, b in rows) - min(n for n, _ in rows)):.0f} ms)")


def compile_time(threads: int) -> None:
    """Seconds from the declaration to the first result, nothing cached, each in a fresh process."""
    for name in CASES:
        code = f"from benchmarks.examples import CASES; step, batch = CASES[{name!r}](1); step(*batch)"
        seconds = [_process(code, {"GRAPHC_CACHE": "off"}) - _process("import graphc, benchmarks.examples")
                   for _ in range(3)]
        print(f"{name}: declared, differentiated, compiled and run once in {median(seconds):.2f} s (best "
              f"{min(seconds):.2f} s)")


def _process(code: str, environment: dict[str, str] | None = None) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True,
                   env={**os.environ, "PYTHONDONTWRITEBYTECODE": "", **(environment or {})})
    return time.perf_counter() - start
