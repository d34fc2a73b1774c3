"""Every form of low precision: a sample's bits depend neither on the batch, nor on its place in it, nor on threads."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc import nn

CALIBRATED, BY_NAME = "calibrated", "by name"
STORES = {"bf16": "bf16", "f16": "f16", "int8": "int8", "int4": "int4",
          **{f"{kind} in {size}s{' with minima' * minimum}": gc.IntegerBlocks(kind, size, minimum)
             for kind, size, minimum in (("int4", 16, True), ("int4", 64, False), ("int8", 32, False), ("int8", 16, True))},
          BY_NAME: {"0": "int4", "2": "bf16", "*": "int8"}}
FORMS = {**{f"store {name}": {"store": store} for name, store in STORES.items()},
         **{f"compute {name}": {"compute": name} for name in ("bf16", "int8", CALIBRATED)},
         "int4 in bf16": {"store": "int4", "compute": "bf16"}, "int4 in int8": {"store": "int4", "compute": "int8"},
         "f16 in int8, calibrated": {"store": "f16", "compute": CALIBRATED}}
NETS = {
    "rows": (lambda: nn.Linear(64) >> nn.gelu() >> nn.Linear(32) >> nn.LayerNorm() >> nn.Linear(16), gc.f32["B", 64]),
    "images": (lambda: nn.Conv2d(32, 3, padding=1) >> nn.relu >> nn.Conv2d(32, 2, stride=2) >> nn.relu >> nn.Flatten()
               >> nn.Linear(64) >> nn.Linear(32), gc.f32["B", 16, 8, 8]),
    "steps": (lambda: nn.LSTM(64, batch_first=True) >> nn.GRU(32, batch_first=True) >> nn.Linear(32), gc.f32["B", 5, 64]),
    "tokens": (lambda: nn.Embedding(40, 64) >> nn.TransformerBlock(heads=2, causal=True) >> nn.Linear(48), gc.i32["B", 7])}
LARGEST = 70                        # of the batches: beyond the few rows that kernels of codes take one by one
PARTS = ((0, 1), (LARGEST - 1, 1), (3, 2), (20, 9), (30, 33))


def drawn(shape: tuple[int, ...], is_int: bool) -> np.ndarray:
    rng = np.random.default_rng(shape)
    return rng.integers(0, 40, shape).astype(np.int32) if is_int else rng.standard_normal(shape).astype(np.float32)


SHORT = {("compute int8", "images"), ("store int4", "steps"), (f"compute {CALIBRATED}", "tokens")}      # beside rows
SELDOM = {"store f16", "store int4 in 64s", "store int8 in 32s", "int4 in bf16", "f16 in int8, calibrated"}     # near others


def pairs():
    """All pairs of a form and a network; without `slow`, most forms of rows, and each network once."""
    for form in FORMS:
        for net in NETS:
            if (form, net) == (f"store {BY_NAME}", "images"):       # its first layers have no matrices
                continue
            is_short = net == "rows" and form not in SELDOM or (form, net) in SHORT
            yield pytest.param(form, net, marks=() if is_short else pytest.mark.slow)


@pytest.mark.parametrize("form, name", [*pairs()])
def test_bits_of_a_sample(form, name):
    make, type = NETS[name]
    net, options, (_, *sizes) = make(), dict(FORMS[form]), type.shape
    x = drawn((LARGEST, *sizes), type.dtype.is_int)
    if options.get("compute") == CALIBRATED:
        options["compute"] = gc.calibrate(net, [x[:8]], x=type, seed=0)
    run, other = (gc.compile(net, x=type, seed=0, threads=threads, **options) for threads in (1, 2))
    report = run.quantisation()
    assert any(p.bits < 32 for p in report.products) or any(w.kept for w in report.weights)
    whole = run(x)
    assert other(x).tobytes() == whole.tobytes()
    for start, count in PARTS:
        for each in (run, other):
            assert each(x[start:start + count].copy()).tobytes() == whole[start:start + count].tobytes(), (start, count)
