"""Values that are computed again: the graph computes the same, in less memory, and no kernel that may fail runs twice."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim
from graphc.compiler import Compilation
from graphc.errors import GraphError
from graphc.ir.graph import Graph
from graphc.ir.interp import evaluate
from graphc.ir.verify import FUSED, verify
from graphc.memory.budget import Budget
from graphc.memory.budget_search import costs
from graphc.memory.planner import plan_memory
from graphc.memory.recompute import Again, Recomputation
from graphc.memory.verify_plan import verify_plan

ALL = 1 << 50
SIZE = 64


def recomputation(graph: Graph) -> tuple[Recomputation, Compilation]:
    made = Compilation(graph)
    return Recomputation(made.fused, costs(made.fused, made.plan, made.target, int)), made


def chain(depth: int) -> Graph:
    """A training step of a chain of products and functions whose results the backward pass needs."""
    net = nn.Linear(SIZE)
    for _ in range(depth):
        net = net >> nn.tanh >> nn.Linear(SIZE)
    return gc.train_step(net, loss=nn.mse, optimizer=optim.SGD(0.1), x=gc.f32[SIZE, SIZE], y=gc.f32[SIZE, SIZE]).graph


def dense(depth: int) -> Graph:
    """Layers that read all before them, side by side in one array that is put together in place."""
    @gc.graph
    def loss(x: gc.f32[SIZE, SIZE], w: gc.f32[SIZE, SIZE]):
        for _ in range(depth):
            a, b = gc.tanh(x @ w), gc.exp(-x)
            x = gc.tanh(gc.concat([a, b], axis=1)) @ gc.concat([w, w], axis=0)
        return gc.mean(x)
    return gc.grad(loss, wrt="w").graph


def tangled(seed: int) -> Graph:
    """A random graph: products, functions, views, several readers of each value, early and late, and lookups, whose
    indices are checked."""
    rng = np.random.default_rng(seed)

    def step(values, ids):
        pick = lambda: values[int(rng.integers(max(0, len(values) - 6), len(values)))]      # noqa: E731
        kind = rng.integers(6)
        if kind == 0:
            return pick() @ values[0]
        if kind == 1:
            return gc.take(pick(), ids)
        if kind == 2:
            return pick().T
        if kind == 3:
            return gc.softmax(pick())
        return gc.tanh(pick()) * values[int(rng.integers(len(values)))]

    @gc.graph
    def f(x: gc.f32[SIZE, SIZE], ids: gc.i32[SIZE]):
        values = [x]
        for _ in range(30):
            values.append(step(values, ids))
        return sum(gc.mean(v @ v) for v in values[::-1])
    return f.graph


def arrays(graph: Graph) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [(rng.normal(size=v.type.shape) / 8).astype(np.float32) if v.type.dtype.is_float
            else rng.integers(0, SIZE, v.type.shape).astype(v.type.dtype.np) for v in graph.arguments]


def peak(again: Again, whole: Recomputation) -> int:
    """Bytes in use at the peak, counted anew: every array from its last making before a reader to that reader."""
    graph, _ = whole.graph_of(again)
    return int(plan_memory(graph, Compilation(graph).target).main.arena_bytes)


@pytest.mark.parametrize("graph", [chain(12), dense(4), *map(tangled, range(6))],
                         ids=["chain", "dense", *map(str, range(6))])
@pytest.mark.parametrize("part", [0.7, 0.4, 0.1])
def test_computes_the_same(graph, part):
    whole, made = recomputation(graph)
    room = int(part * whole.within(ALL, 1.0).kept)
    again = whole.within(room, 1.0)
    if again is None:
        pytest.skip("nothing fits")
    new, _ = whole.graph_of(again)
    verify(new, FUSED)
    verify_plan(plan_memory(new, made.target).main)
    for a, b in zip(evaluate(made.fused, arrays(made.fused)), evaluate(new, arrays(made.fused)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert sum(n.op.may_fail for n in new.nodes) == sum(n.op.may_fail for n in made.fused.nodes)
    extra = len([n for n in new.nodes if not n.op.is_view]) - len([n for n in made.fused.nodes if not n.op.is_view])
    assert (extra > 0) == bool(again.values) == (again.cycles > 0)


def test_all_room_changes_nothing():
    whole, made = recomputation(chain(6))
    again = whole.within(ALL, 1.0)
    assert again.cycles == 0 and not again.values
    assert [n.op for n in whole.graph_of(again)[0].nodes if not n.op.is_view] == [n.op for n in whole.kernels]


@pytest.mark.parametrize("part", [0.8, 0.6, 0.4])
def test_memory_is_what_was_asked_for(part):
    """Of a chain the plan needs what the walk counted, within what alignment and gaps add."""
    whole, made = recomputation(chain(24))
    wanted = int(part * whole.within(ALL, 1.0).kept)
    again = whole.within(wanted, 1.0)
    assert again.kept <= wanted
    assert peak(again, whole) <= 1.1 * wanted


def test_a_deep_chain_needs_its_square_root():
    """With room for 4 sqrt(n) arrays a chain of n layers runs again once at most, not once for each layer."""
    depth = 64
    whole, _ = recomputation(chain(depth))
    kept = whole.within(ALL, 1.0).kept
    again = whole.within(4 * 8 * SIZE * SIZE * 4 + kept // 16, 1.0)
    assert again is not None and again.cycles <= 1.0 * whole.total_cycles
    assert again.kept < 0.8 * kept


def test_cheap_values_go_first():
    """What tanh makes costs less than a product of the same size."""
    @gc.graph
    def loss(x: gc.f32[256, 256], w: gc.f32[256, 256], v: gc.f32[256, 256]):
        for _ in range(4):
            x = gc.exp(-gc.tanh(x @ w)) @ v
        return gc.mean(x)
    whole, _ = recomputation(gc.grad(loss, wrt=("w", "v")).graph)
    again = whole.within(int(0.85 * whole.within(ALL, 1.0).kept), 1.0)
    assert again.values and again.cycles < 0.2 * whole.total_cycles


def test_the_same_every_time():
    whole, _ = recomputation(chain(16))
    again, other = (recomputation(chain(16))[0].within(whole.within(ALL, 1.0).kept // 2, 1.0) for _ in range(2))
    assert [n.op for n, _ in again.runs] == [n.op for n, _ in other.runs] and again.cycles == other.cycles > 0


@pytest.mark.parametrize("given, nbytes", [("300 MB", 300 << 20), ("1.5GB", 3 << 29), (4096, 4096), ("64 KiB", 65536),
                                           (np.int64(10), 10), ("12 b", 12)])
def test_budgets(given, nbytes):
    assert Budget.of(given).nbytes == nbytes


@pytest.mark.parametrize("given", ["much", "-3 MB", 0, -1, True, 1.5, "MB", "3 XB", None and "", (), "1 MB more", "9" * 400 + " PB", 10 ** 30])
def test_what_is_no_budget(given):
    if given is None:
        assert Budget.of(given) is None
    else:
        with pytest.raises(GraphError, match="memory= takes"):
            Budget.of(given)
