"""Gradients of tables of which few rows were read: lists of rows, with the numbers of dense updates."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim, simplification
from graphc.errors import GraphError
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.interp import evaluate
from graphc.ir.ops.constant import full
from graphc.ir.types import f32, i32
from graphc.passes.sparse_gradients import SparseGradients

ROWS, WIDTH = 600, 32


def table_of(b: Builder, count: int, rows: int = ROWS):
    ids, updates = b.input("ids", i32[count]), b.input("rows", f32[count, WIDTH])
    return b.scatter_add(full(b, 0, f32[rows, WIDTH]), ids, updates, axis=0)


def ops(graph: Graph) -> list[str]:
    return [n.op.name for n in graph.nodes]


def arrays(count: int, rng=np.random.default_rng(0)):
    return rng.integers(0, ROWS, count).astype(np.int32), rng.normal(size=(count, WIDTH)).astype("f"), rng.normal(size=(ROWS, WIDTH)).astype("f")


@pytest.mark.parametrize("form", ["add", "sub", "factor", "factor first"])
def test_state_that_a_multiple_is_added_to_takes_the_rows(form):
    b = Builder()
    w, rate = b.state_input("w", f32[ROWS, WIDTH]), b.input("rate", f32[()])
    table = table_of(b, 9)
    new = {"add": lambda: b.add(table, w), "sub": lambda: b.sub(w, table), "factor": lambda: b.sub(w, b.mul(table, rate)),
           "factor first": lambda: b.add(w, b.mul(rate, table))}[form]()
    b.update(w, new)
    dense = b.finish(())
    listed = SparseGradients().run(dense)
    assert "add_rows" in ops(listed) and "pick_rows" not in ops(listed)
    ids, rows, start = arrays(9)
    ids[3] = ids[7] = ids[0]
    results = [evaluate(g, [np.float32(0.3), ids, rows, start])[-1] for g in (dense, listed)]
    np.testing.assert_allclose(results[1], results[0], rtol=1e-6, atol=1e-6)


def test_other_readers_pick_rows_with_the_same_bits():
    b = Builder()
    w, table = b.state_input("w", f32[ROWS, WIDTH]), table_of(b, 9)
    b.update(w, b.sub(b.mul(w, b.constant(np.float32(0.5))), table))
    dense = b.finish([b.sum(b.mul(table, table), axes=(0, 1))])
    listed = SparseGradients().run(dense)
    assert "pick_rows" in ops(listed) and "check_rows" not in ops(listed)
    ids, rows, start = arrays(9)
    ids[3] = ids[7] = ids[0]
    for found, expected in zip(*(evaluate(g, [ids, rows, start]) for g in (listed, dense)), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("count, rows", [(301, 600), (4, 100)])
def test_many_rows_and_small_tables_stay(count, rows):
    b = Builder()
    graph = b.finish([table_of(b, count, rows)])
    assert SparseGradients().run(graph) is graph or ops(SparseGradients().run(graph)) == ops(graph)


def test_a_state_that_another_array_updates_is_no_sum():
    b = Builder()
    v, w = b.state_input("v", f32[ROWS, WIDTH]), b.state_input("w", f32[ROWS, WIDTH])
    b.update(w, b.add(v, table_of(b, 9)))
    assert "pick_rows" in ops(SparseGradients().run(b.finish(())))


OPTIMIZERS = {
    "SGD": optim.SGD(0.1), "momentum": optim.SGD(0.1, momentum=0.9), "Nesterov and decay": optim.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "AdamW, clipped": optim.AdamW(1e-2, clip_norm=0.1), "RMSprop": optim.RMSprop(1e-2), "accumulated": optim.AdamW(1e-2, accumulate=2)}


def trained(optimizer: optim.Optimizer, batches, loss=nn.cross_entropy):
    net = nn.Embedding(ROWS, WIDTH) >> nn.Linear(10)
    step = gc.train_step(net, loss=loss, optimizer=optimizer, x=gc.i32[3, 7], y=gc.i32[3, 7], seed=0)
    losses = [step(*batch) for batch in batches]
    return step, losses


def batches():
    rng = np.random.default_rng(1)
    found = [(rng.integers(0, ROWS, (3, 7)).astype(np.int32), rng.integers(0, 10, (3, 7)).astype(np.int32)) for _ in range(6)]
    found[1][0][...] = 5                                # one row many times
    found[2][0][0] = found[0][0][0]
    return found


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_is_that_of_dense_gradients(name, monkeypatch):
    step, losses = trained(OPTIMIZERS[name], batches())
    text = step.dump("simplified")
    assert ("check_rows" in text) == (name == "SGD") and ("pick_rows" in text) == (name != "SGD")
    monkeypatch.setattr(simplification, "SIMPLIFY", tuple(p for p in simplification.SIMPLIFY if not isinstance(p, SparseGradients)))
    dense, expected = trained(OPTIMIZERS[name], batches())
    assert "_rows" not in dense.dump("simplified")
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    for key in step.state:
        np.testing.assert_allclose(step.state[key], dense.state[key], rtol=1e-5, atol=1e-6, err_msg=key)


@pytest.mark.parametrize("name", ["SGD", "AdamW, clipped"])
def test_a_bad_id_leaves_the_state_as_it_was(name):
    step, _ = trained(OPTIMIZERS[name], batches())
    before = {key: step.state[key] for key in step.state}
    x, y = batches()[0]
    x[1, 2] = ROWS
    with pytest.raises(GraphError, match=f"{ROWS}"):
        step(x, y)
    assert all((step.state[key] == before[key]).all() for key in before)


def test_plain_descent_writes_no_row_that_was_not_read():
    step, _ = trained(OPTIMIZERS["SGD"], batches())
    assert any("add_rows" in line and "in state" in line and "in place" in line for line in step.dump("planned").splitlines())
    before, (x, y) = step.state["0.weight"], batches()[3]
    step(x, y)
    changed = (step.state["0.weight"] != before).any(1)
    assert set(np.flatnonzero(changed)) == set(x.ravel())
