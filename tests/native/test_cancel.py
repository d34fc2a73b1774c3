"""Ctrl-C inside kernels: loops of one thread that may run long look at the cancel word, and nothing of a cancelled call
is met by the next one.
"""
from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.build import Build
from graphc.codegen import patience
from graphc.codegen.abi import MAIN, RETURN_CANCELLED, RETURN_OK
from graphc.compiler import Compilation
from graphc.dsl.function import trace_types
from graphc.runtime.executable import Executable
from graphc.runtime.memory import address
from graphc.runtime.native import native

sys.path.insert(0, str(Path(__file__).parent.parent / "ops"))
from samples import SAMPLES  # noqa: E402
from test_operators import check, graph_of  # noqa: E402

NAMES = sorted({s.op.name for s in SAMPLES})
SECONDS = 0.25                  # of a CPU, which an answer takes at most: on a busy machine it waits for one, too


@pytest.mark.parametrize("name", NAMES)
def test_every_loop_that_looks(name, monkeypatch):
    """All loops look, short ones after every few trips: results are the same, and a call that was left anywhere leaves
    nothing to the next.
    """
    monkeypatch.setattr(patience, "LONG_NS", 0.0)
    monkeypatch.setattr(patience, "STEP_NS", 30.0)
    samples = [s for s in SAMPLES if s.op.name == name][::3][:3]
    run = Executable(Compilation(graph_of(samples)).stage(Build).program, 2)
    inputs = [np.require(a, requirements="CA") for s in samples for a in s.arrays]
    outputs = [np.empty(spec.type.shape, spec.type.dtype.np) for spec in run.signature.outputs]
    frame = run._new_frame(run._layout)

    def call(cancel: float | None) -> int:
        for a in outputs:
            a.fill(1)
        tables = [np.array([address(a) for a in arrays], np.int64) for arrays in (inputs, outputs)]
        frame.prepare(*map(address, tables))
        if cancel == 0:
            frame["cancel"] = 1
        timer = threading.Timer(cancel, frame.__setitem__, ("cancel", 1)) if cancel else None
        if timer:
            timer.start()
        code = native().run(run.resident.loaded.address(MAIN), frame.address)
        if timer:
            timer.cancel()
            timer.join()
        return code

    for cancel in (0, 1e-5, 0):
        assert call(cancel) in (RETURN_OK, RETURN_CANCELLED)
        assert call(None) == RETURN_OK
        results = iter(outputs)
        for s in samples:
            for expected in s.expected():
                check(s, next(results), np.asarray(expected))


N = 1 << 22
ROW, COUNTED = gc.f32[N], gc.i32[N]


def rows():
    """Name -> (function of one long row, its arrays): what kernels do in one tile."""
    x = np.random.default_rng(0).standard_normal(N).astype("f")
    i = np.random.default_rng(0).integers(0, N, N).astype("i")
    one = {
        "sort": gc.sort, "argsort": gc.argsort, "topk": lambda x: gc.topk(x, 1000)[0], "cumsum": gc.cumsum,
        "cumprod": gc.cumprod,
        "sum": gc.sum, "max": gc.max, "argmax": gc.argmax, "logsumexp": gc.logsumexp, "softmax": gc.softmax,
        "std": gc.std,
        "layer_norm": lambda x: gc.layer_norm(x), "linear_scan": lambda x: gc.linear_scan(x * 0.1, x),
        "dot": lambda x: gc.dot(x, x),
        "median": lambda x: gc.sort(x)[N // 2], "sort_grad": lambda x: SORT_GRAD(x),
        "conv": lambda x: gc.conv1d(x.reshape(1, 1, N), gc.ones((1, 1, 31))), "flip": gc.flip,
        "normal": lambda x: x + gc.normal((N,), key=1),
        "permutation": lambda x: gc.permutation(N, key=1),
        "scan": lambda x: gc.scan(lambda s, x: (s * 0.5 + x, s), gc.zeros(()), x)[0],
        "while": lambda x: gc.while_loop(lambda i: i < N, lambda i: i + 1, (x[0] > 9).astype(gc.i64), max_trips=N)[1],
    }
    two = {
        "take": lambda x, i: gc.take(x, i), "scatter_add": lambda x, i: gc.scatter_add(gc.zeros((N,)), i, x),
        "embedding_grad": lambda x, i: gc.scatter_add(gc.zeros((16, 1)), i % 16, x.reshape(N, 1)),
    }
    return [(name, f, (x,)) for name, f in one.items()] + [(name, f, (x, i)) for name, f in two.items()]


@gc.graph
def twice_sorted(x: ROW):
    return gc.sum(gc.sort(x) * gc.sort(x))


SORT_GRAD = gc.grad(twice_sorted, "x")

ROWS = rows()


@pytest.mark.parametrize("name, f, arrays", ROWS, ids=[r[0] for r in ROWS])
def test_answer_inside_one_long_row(name, f, arrays):
    """Four million elements in one row, one thread: from the cancel word to the return, wherever the kernel is."""
    clock = time.pthread_getcpuclockid(threading.get_ident())
    run = gc.compile(trace_types(f, dict(zip("xi", (ROW, COUNTED))), name) if len(arrays) == 2
                     else trace_types(f, {"x": ROW}, name), threads=1).executable
    outputs = [np.empty(spec.type.shape, spec.type.dtype.np) for spec in run.signature.outputs]
    tables = [np.array([address(a) for a in group], np.int64) for group in (arrays, outputs)]
    frame = run._new_frame(run._layout)
    asked = []

    def ask():
        frame["cancel"] = 1
        asked.append(time.clock_gettime(clock))

    for delay in (0.005, 0.05):
        frame.prepare(*map(address, tables))
        timer = threading.Timer(delay, ask)
        timer.start()
        code = native().run(run.resident.loaded.address(MAIN), frame.address)
        back = time.clock_gettime(clock)
        timer.join()
        assert back - asked[-1] < SECONDS and code in (RETURN_OK, RETURN_CANCELLED)
