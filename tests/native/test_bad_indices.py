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
from graphc.nn.network import trace_network

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
            with pytest.raises(GraphError, match=rf"(?s)(index|label) {said}\b.*out of range.*model\.py:17"):
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



NAMED = {                           # what the user calls, and what the error calls it
    "take": (lambda x, i: gc.take(x, i), "take got index 7, which is out of range: there are 5 positions, 0 … 4"),
    "indexing": (lambda x, i: x[i], "indexing got index 7, which is out of range: there are 5 positions, 0 … 4"),
    "two at once": (lambda x, i: x[i, i], "indexing got index 7, which is out of range: there are"),
    "embedding": (lambda x, i: gc.embedding(x, i), "embedding got id 7, which is out of range: there are 5 rows, 0 … 4"),
    "layer": (lambda x, i: nn.Embedding(5, 3)(i), "embedding got id 7, which is out of range: there are 5 rows, 0 … 4"),
    "take_along_axis": (lambda x, i: gc.take_along_axis(x, i[:, None], 0), "take_along_axis got index 7, which is out of range: there are 5 pos"),
    "gather": (lambda x, i: gc.gather(x, i[:, None], 0), "gather got index 7, which is out of range: there are 5 positions, 0 … 4"),
    "cross_entropy": (lambda x, i: gc.cross_entropy(x.T, i), "cross_entropy got label 7, which is out of range: there are 5 classes, 0 … 4"),
    "loss": (lambda x, i: nn.cross_entropy(x.T, i, label_smoothing=0.1), "cross_entropy got label 7, which is out of range: there are 5 classes"),
    "sequence_loss": (lambda x, i: nn.sequence_loss(x.T[:, None], i[:, None], batch_first=False), "cross_entropy got label 7, which is out of ra"),
    "log_likelihood": (lambda x, i: nn.log_likelihood(x.T[:, None], i[:, None], batch_first=False), " got label 7, which is out of range: there a"),
    "scatter_add": (lambda x, i: gc.scatter_add(x, i, 1.0), "scatter_add got index 7, which is out of range: there are 5 positions, 0 … 4"),
    "scatter_add_along_axis": (lambda x, i: gc.scatter_add_along_axis(x, i[:, None], 1.0, 0), "scatter_add_along_axis got index 7, which is"),
    "in a loop": (lambda x, i: gc.scan(lambda c, j: (c + x[j], c), x[0], i)[0], "indexing got index 7, which is out of range: there are 5 posit"),
    "in a branch": (lambda x, i: gc.cond(gc.sum(x) < 1e9, lambda: gc.embedding(x, i), lambda: x[:3]), "embedding got id 7, which is out of range"),
}


@pytest.mark.parametrize("mode", ("forward", "gradient"))
@pytest.mark.parametrize("name", NAMED)
def test_the_function_that_the_user_called_is_named(name, mode):
    """At the user's line, with how many there are; a gradient alone says the same."""
    f, says = NAMED[name]

    def body(x, i):
        y = f(x, i)
        return gc.sum(y * y) if mode == "gradient" else y
    traced = trace_network(body, True, x=gc.f32[5, 3], i=gc.i64[3])
    function = traced if mode == "forward" or name == "layer" else gc.grad(traced, "x")
    run = gc.compile(function, **({"seed": 0} if function.graph.state else {}))
    with pytest.raises(GraphError) as caught:
        run(np.ones((5, 3), np.float32), np.array([0, 7, 1]))
    assert says in caught.value.text and caught.value.loc.file == __file__, caught.value


def test_labels_of_a_training_step_are_named():
    step = gc.train_step(nn.Linear(10), loss=nn.cross_entropy, optimizer=optim.SGD(0.1), x=gc.f32[2, 3], y=gc.i64[2])
    with pytest.raises(GraphError, match="cross_entropy got label 10, which is out of range: there are 10 classes, 0 … 9") as caught:
        step(np.ones((2, 3), np.float32), np.array([3, 10]))
    assert caught.value.loc.file == __file__


def test_float_labels_are_told_from_probabilities():
    with pytest.raises(GraphError, match="cross_entropy: targets are class ids, integers .* become integers by .astype") as caught:
        gc.train_step(nn.Linear(10), loss=nn.cross_entropy, optimizer=optim.SGD(0.1), x=gc.f32[2, 3], y=gc.f32[2])
    assert "soft" not in caught.value.text and caught.value.loc.file == __file__
