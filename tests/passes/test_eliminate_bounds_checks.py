"""Row numbers are checked by the lookup alone, and state is written while the gradients of earlier layers are still to
come.
"""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.interp import evaluate
from graphc.ir.ops.constant import full
from graphc.ir.parser import parse
from graphc.ir.types import f32, i32
from graphc.passes.eliminate_bounds_checks import EliminateBoundsChecks

ROWS, WIDTH, COUNT = 6, 5, 9


def ops(graph: Graph) -> list[str]:
    return [n.op.name for n in graph.nodes]


def failing(graph: Graph) -> int:
    """How many nodes may fail."""
    return sum(n.op.may_fail for n in graph.nodes)


def graph_of(rows: int = ROWS, axis: int = 0, same_ids: bool = True, looks_up: bool = True) -> Graph:
    """A lookup in a table of ROWS rows, and sums of rows and places of a table of `rows` rows (axis 1: of columns)."""
    b = Builder()
    table, ids, others = b.input("table", f32[ROWS, WIDTH]), b.input("ids", i32[COUNT]), b.input("others", i32[COUNT])
    own = ids if same_ids else others
    updates = b.input("updates", f32[COUNT, WIDTH] if axis == 0 else f32[WIDTH, COUNT])
    summed = b.scatter_add(full(b, 0, f32[rows, WIDTH] if axis == 0 else f32[WIDTH, rows]), own, updates, axis=axis)
    results = [summed, b.row_places(own, size=rows), b.check_rows(own, size=rows)]
    return b.finish(results + ([b.take(table, ids, axis=0)] if looks_up else []))


def test_what_a_lookup_checks_is_not_checked_again():
    graph = graph_of()
    found = EliminateBoundsChecks().run(graph)
    assert "add_rows" in ops(found) and "scatter_add" not in ops(found) and "check_rows" not in ops(found)
    assert [n.op.name for n in found.nodes if n.op.may_fail] == ["take"]
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(ROWS, WIDTH)).astype("f"), rng.integers(0, ROWS, COUNT).astype(np.int32),
              np.zeros(COUNT, np.int32),
              rng.normal(size=(COUNT, WIDTH)).astype("f")]
    for mine, true in zip(evaluate(found, arrays), evaluate(graph, arrays), strict=True):
        np.testing.assert_array_equal(mine, true)


@pytest.mark.parametrize("other", [{"rows": ROWS + 1}, {"rows": ROWS - 1}, {"same_ids": False}, {"looks_up": False}])
def test_other_tables_other_ids_and_no_lookup_are_checked(other):
    graph = graph_of(**other)
    assert ops(EliminateBoundsChecks().run(graph)) == ops(graph)
    assert failing(EliminateBoundsChecks().run(graph)) == failing(graph)


def test_columns_are_checked():
    assert "scatter_add" in ops(EliminateBoundsChecks().run(graph_of(axis=1)))


@pytest.mark.parametrize("rows", [30, 600])         # a table; a list of few rows
@pytest.mark.parametrize("optimizer", [optim.SGD(0.1, momentum=0.9), optim.AdamW(1e-2)])
def test_later_layers_are_updated_before_the_embedding_has_its_gradient(rows, optimizer):
    net = nn.Embedding(rows, 32) >> nn.Linear(40) >> nn.relu >> nn.Linear(10)
    step = gc.train_step(net, loss=nn.cross_entropy, optimizer=optimizer, x=gc.i32[3, 7], y=gc.i32[3, 7], seed=0)
    graph = parse(step.dump("fused").partition('\ngraph "prepare ')[0])
    places = {node: i for i, node in enumerate(graph.nodes)}
    embedding = max(i for node, i in places.items() if node.op.name == "add_rows")
    updated = {v.name: places[new.node] for v, new in zip(graph.state, graph.updates) if new is not None}
    assert updated["3.weight"] < embedding and updated["1.weight"] < embedding < updated["0.weight"]
    x, y = np.arange(21, dtype=np.int32).reshape(3, 7), np.zeros((3, 7), np.int32)
    step(x, y)
    before = step.state.copy()
    x[1, 2] = rows
    with pytest.raises(gc.GraphError, match=f"(?s)embedding got id {rows}"):
        step(x, y)
    assert all(np.array_equal(before[name], step.state[name]) for name in before)
