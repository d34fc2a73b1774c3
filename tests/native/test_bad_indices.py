"""A bad index is a GraphError that names the operator and its line, wherever it stands; nothing is written, and the next run is good."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim
from graphc.autodiff.backward import backward
from graphc.compiled import CompiledGraph
from graphc.errors import GraphError, Loc
from graphc.ir.builder import Builder
from graphc.ir.ops.control import Scan
from graphc.ir.types import f32, i32, i64

LINE = Loc("model.py", 17, "y = x[i]")
BAD = (-1, 5, 2 ** 31 - 1, -2 ** 31)
FAR = (2 ** 32 + 1, -2 ** 63, 2 ** 63 - 1)


def compiled(make, *types):
    """The graph of `make`, its nodes at LINE."""
    b = Builder("test")
    ins = [b.input(f"x{i}", t) for i, t in enumerate(types)]
    with b.at(LINE):
        out = make(b, *ins)
    outs = out if isinstance(out, tuple) else (out,)
    return CompiledGraph(b.finish(outs, ("",) * len(outs)))


CASES = {
    "take": (lambda b, x, i: b.take(x, i, axis=0), f32[5, 33]),
    "take the last axis": (lambda b, x, i: b.take(x, i, axis=1), f32[33, 5]),
    "take, fused": (lambda b, x, i: b.mul(b.exp(b.take(x, i, axis=0)), 2.0), f32[5, 7]),
    "take, reduced": (lambda b, x, i: b.sum(b.take(x, i, axis=0), axes=(0, 1)), f32[5, 7]),
    "take_along_axis": (lambda b, x, i: b.take_along_axis(x, i, axis=0), f32[5]),
    "scatter_add": (lambda b, x, i: b.scatter_add(x, i, b.broadcast_to(b.constant(1.0, f32), shape=(9, 7)), axis=0), f32[5, 7]),
    "scatter_add_along_axis": (lambda b, x, i: b.scatter_add_along_axis(x, i, b.broadcast_to(b.constant(1.0, f32), shape=(9,)), axis=0), f32[5]),
    "cross_entropy": (lambda b, x, i: b.cross_entropy(x, i), f32[9, 5]),
    "cross_entropy over axis 0": (lambda b, x, i: b.cross_entropy(x, i, axis=0, reduction="none", label_smoothing=0.1), f32[5, 9]),
    "gradient of cross_entropy": (lambda b, x, i: gradient(b, x, b.cross_entropy(x, i)), f32[9, 5]),
    "gradient of take": (lambda b, x, i: gradient(b, x, b.sum(b.exp(b.take(x, i, axis=0)), axes=(0, 1))), f32[5, 7]),
    "in a scan": (lambda b, x, i: looked_up(b, x, i), f32[5, 7]),
}


def gradient(b, x, y):
    return backward(b, list(b.nodes), {y: b.constant(1.0, f32)}, [x])[0]


def looked_up(b, table, ids):
    """The sum of rows, read one after another."""
    body = Builder("body")
    total, at, rows = body.input("total", f32[7]), body.input("at", ids.type.with_shape(())), body.input("rows", table.type)
    body.loc = LINE
    step = body.finish([body.add(total, body.take(rows, at, axis=0))], ("",))
    return b.apply(Scan(step, 1, 1, 9), (b.broadcast_to(b.constant(0.0, f32), shape=(7,)), ids, table))[0]


@pytest.mark.parametrize("dtype", (i32, i64), ids=str)
@pytest.mark.parametrize("name", CASES)
def test_bad_index(name, dtype):
    make, type = CASES[name]
    run = compiled(make, type, dtype[9])
    x, good = np.linspace(-1, 1, type.size, dtype=np.float32).reshape(type.shape), np.array([0, 4, 3, 3, 1, 2, 0, 4, 2], dtype.np)
    expected = run(x, good)
    for bad in BAD + (FAR if dtype == i64 else ()):
        for place in (0, 4, 8):
            ids = good.copy()
            ids[place] = bad
            said = min(max(bad, -2 ** 39), 2 ** 39 - 1)         # the status word has 40 bits for it
            with pytest.raises(GraphError, match=rf"(?s)index {said}\b.*out of range.*model\.py:17"):
                run(x, ids)
    for again, before in zip(run(x, good), expected):
        np.testing.assert_array_equal(again, before)


def test_a_failed_training_step_leaves_the_state_as_it_was():
    def make():
        net = nn.Embedding(11, 8) >> nn.Flatten() >> nn.BatchNorm1d() >> nn.Dropout(0.2) >> nn.Linear(3)
        return gc.train_step(net, loss=nn.cross_entropy, optimizer=optim.AdamW(1e-2), x=gc.i32[6, 4], y=gc.i64[6], seed=0)
    step, twin = make(), make()
    x, y = np.arange(24, dtype=np.int32).reshape(6, 4) % 11, np.array([0, 1, 2, 0, 1, 2])
    for wrong_x, wrong_y in ((x, np.where(y == 2, 3, y)), (np.where(x == 10, 11, x), y), (np.where(x == 10, -1, x), y)):
        assert step(x, y) == twin(x, y)
        before = {name: np.copy(step.state[name]) for name in step.state}
        with pytest.raises(GraphError, match="out of range"):
            step(wrong_x, wrong_y)
        for name, array in before.items():
            np.testing.assert_array_equal(step.state[name], array, err_msg=name)
    assert step(x, y) == twin(x, y)
