"""No two values that live at the same time share memory; views and results need no copies."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_tags import run_all

from graphc.compiled import CompiledGraph
from graphc.ir.builder import Builder
from graphc.ir.interp import evaluate
from graphc.ir.op import Op
from graphc.ir.types import f32, i64
from graphc.memory.plan import Buffer
from graphc.memory.planner import assign_offsets, plan_memory
from graphc.schedule import choose_nest as schedule_nest
from graphc.schedule.choose import schedule_node
from graphc.schedule.target import AVX2
from graphc.schedule.view import ViewType

VIEW = ViewType(f32, (12,), (1,))
INTERVALS = st.lists(st.tuples(st.integers(1, 5000), st.integers(0, 30), st.integers(0, 10)), max_size=40)


def overlap(a, b) -> bool:
    return a[0] <= b[1] and b[0] <= a[1]


@given(INTERVALS)
@settings(max_examples=200, deadline=None)
def test_buffers_that_live_together_lie_apart(rows):
    live = {Buffer("arena", size): (start, start + length) for size, start, length in rows}
    offsets, total = assign_offsets(live)
    items = list(live.items())
    for n, (a, life_a) in enumerate(items):
        assert offsets[a] % 64 == 0 and offsets[a] + a.nbytes <= total
        for b, life_b in items[:n]:
            if overlap(life_a, life_b):
                assert offsets[a] + a.nbytes <= offsets[b] or offsets[b] + b.nbytes <= offsets[a]
    peak = max((sum(-(-b.nbytes // 64) * 64 for b, life in items if life[0] <= t <= life[1]) for t in range(41)),
               default=0)
    assert total >= peak


def planned(build):
    b = Builder("g")
    outputs = build(b)
    return plan_memory(b.finish(outputs, ("",) * len(outputs)), AVX2).main


def test_a_chain_runs_in_place_in_the_output():
    def build(b):
        x = b.input("x", f32[1000])
        return [b.exp(b.neg(b.exp(x)))]
    plan = planned(build)
    assert plan.arena_bytes == 4000 // 64 * 64 + 64
    assert str(plan.places[plan.graph.outputs[0]].buffer) == "output[0]"


def test_views_cost_nothing():
    def build(b):
        x = b.input("x", f32[6, 4])
        y = b.reshape(b.transpose(b.slice(x, start=(0, 1), stop=(6, 3), step=(2, 1)), perm=(1, 0)), shape=(2, 3, 1))
        return [b.exp(b.broadcast_to(y, shape=(2, 3, 5)))]
    plan = planned(build)
    node = next(n for n in plan.graph.nodes if n.op.name == "exp")
    place = plan.places[node.inputs[0]]
    assert place.buffer.space == "input" and place.strides == (1, 8, 0) and place.offset == 1
    assert plan.arena_bytes == 0 and not any(n.op.name == "copy" for n in plan.graph.nodes)


@pytest.mark.parametrize("case", ["argument", "view", "twice", "constant"])
def test_results_never_alias(case):
    def build(b):
        x = b.input("x", f32[2, 3])
        y = b.exp(x)
        return {"argument": [x], "view": [b.transpose(y, perm=(1, 0))], "twice": [y, y],
                "constant": [b.constant(np.ones(3, np.float32))]}[case]
    plan = planned(build)
    buffers = [plan.places[v].buffer for v in plan.graph.outputs]
    assert [str(x) for x in buffers] == [f"output[{i}]" for i in range(len(buffers))]
    assert sum(n.op.name == "copy" for n in plan.graph.nodes) == 1


def state_plan(reader_after: bool, checked_after: bool):
    b = Builder("g")
    x, w = b.input("x", f32[8]), b.state_input("w", f32[8])
    new = b.sub(w, b.mul(x, 0.1))
    outputs = [b.sum(b.exp(w) if reader_after else x, axes=(0,))]
    if checked_after:
        outputs.append(b.take(x, b.constant(np.array([1, 2])), axis=0))
    b.update(w, new)
    return plan_memory(b.finish(outputs, ("",) * len(outputs)), AVX2).main


@pytest.mark.parametrize("reader_after, checked_after", [(False, False), (True, False), (False, True)])
def test_state_is_updated_in_place_when_nothing_comes_after(reader_after, checked_after):
    plan = state_plan(reader_after, checked_after)
    copies = [n for n in plan.graph.nodes if n.op.name == "copy"]
    assert len(copies) == (reader_after or checked_after)
    assert str(plan.places[plan.graph.updates[0]].buffer) == "state[0]"


def exchanged(b, a, c, x):
    return {a: c, c: a}, [x]


def turned_round(b, a, c, x):
    return {a: b.reshape(b.reshape(c, shape=(2, 4)), shape=(8,)), c: b.add(a, x)}, [a]


def kept(b, a, c, x):
    return {c: a, a: b.sub(a, x)}, [x]


def kept_and_returned(b, a, c, x):
    return {a: b.sub(a, x), c: a}, [a, c]


def both_of_one(b, a, c, x):
    return {a: c, c: c}, [c]


@pytest.mark.parametrize("case", [exchanged, turned_round, kept, kept_and_returned, both_of_one])
def test_state_that_becomes_what_other_state_was(case):
    """Each is read before it is written, whoever writes it."""
    builder = Builder("g")
    x, a, c = builder.input("x", f32[8]), builder.state_input("a", f32[8]), builder.state_input("c", f32[8])
    updates, outputs = case(builder, a, c, x)
    for state, new in updates.items():
        builder.update(state, new)
    graph = builder.finish(outputs, ("",) * len(outputs))
    arrays = [np.arange(8, dtype=np.float32) * k for k in (1, 10, 100)]
    want = evaluate(graph, arrays)
    run_all(plan_memory(graph, AVX2).main)
    run = CompiledGraph(graph, state=[v.copy() for v in arrays[1:]])
    got = run(arrays[0])
    for got_one, wanted in zip((*got, *run.executable.state.arrays), want, strict=True):
        np.testing.assert_array_equal(got_one, wanted)


@pytest.mark.parametrize("read_later", [False, True])
def test_an_update_of_a_slice_runs_in_place_at_the_last_use(read_later):
    b = Builder("g")
    x, row, at = b.input("x", f32[1000, 8]), b.input("row", f32[1, 8]), b.input("at", i64[()])
    big = b.exp(x)
    zero = b.constant(np.int64(0))
    new = b.dynamic_update_slice(big, row, at, zero)
    outputs = [b.sum(b.mul(new, new), axes=(0,))] + ([b.sum(big, axes=(0,))] if read_later else [])
    plan = plan_memory(b.finish(outputs, ("",) * len(outputs)), AVX2).main
    node = next(n for n in plan.graph.nodes if n.op.name == "dynamic_update_slice")
    assert plan.schedules[node].aliased == (not read_later)
    assert (plan.places[node.outputs[0]] == plan.places[node.inputs[0]]) == (not read_later)


def test_a_slice_of_the_state_is_updated_where_it_lies():
    b = Builder("cache")
    cache, row, at = b.state_input("cache", f32[100, 8]), b.input("row", f32[1, 8]), b.input("at", i64[()])
    new = b.dynamic_update_slice(cache, row, at, b.constant(np.int64(0)))
    b.update(cache, new)
    plan = plan_memory(b.finish([b.sum(new, axes=(0,))]), AVX2).main
    node = next(n for n in plan.graph.nodes if n.op.name == "dynamic_update_slice")
    assert plan.schedules[node].aliased and not any(n.op.name == "copy" for n in plan.graph.nodes)


def test_many_updates_look_at_each_node_once(monkeypatch):
    """Whether state may be written in place depends on later nodes; the work must not grow with updates times nodes."""
    looked = []
    monkeypatch.setattr(Op, "may_fail", property(looked.append))
    b = Builder("g")
    states = [b.state_input(f"w{i}", f32[8]) for i in range(50)]
    for s in states:
        b.update(s, b.exp(s))
    plan = plan_memory(b.finish(()), AVX2).main
    assert len(plan.graph.nodes) == 50 and all(plan.places[v].buffer.space == "state" for n in plan.graph.nodes
                                               for v in n.outputs)
    assert len(looked) == 50


def test_a_nest_remembered_from_an_equal_node_gives_the_same_schedule():
    """Nests and schedules are remembered apart; a nest may belong to another node's body, which is equal and not the
    same.
    """
    def in_place() -> tuple:
        b = Builder("g")
        return schedule_node(b.exp(b.input("x", f32[12])).node, [VIEW], [VIEW], AVX2).inplace
    first = in_place()
    schedule_nest.cluster_schedule.cache_clear()
    assert first == in_place() == ((0, 0),)
