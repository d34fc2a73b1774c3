"""Parts of a concatenation are computed where they belong in it; where that cannot be, they are copied."""
import numpy as np
import pytest

import graphc as gc
from graphc.ir.builder import Builder
from graphc.ir.types import f32
from graphc.memory.planner import plan_memory
from graphc.memory.verify_plan import verify_plan
from graphc.schedule.target import AVX2


def planned(build):
    b = Builder("g")
    outputs = build(b)
    return plan_memory(b.finish(outputs, ("",) * len(outputs)), AVX2).main


def whole(plan):
    return next(n for n in plan.graph.nodes if n.op.name == "concat")


@pytest.mark.parametrize("axis, strides, offset", [(0, (5, 1), 20), (1, (10, 1), 5), (-1, (10, 1), 5)])
def test_parts_lie_in_the_whole(axis, strides, offset):
    def build(b):
        x = b.input("x", f32[4, 5])
        return [b.exp(b.concat(b.neg(x), b.exp(x), axis=axis))]
    plan = planned(build)
    node = whole(plan)
    assert node in plan.assembled and node not in plan.schedules
    first, second = (plan.places[v] for v in node.inputs)
    assert first.buffer is second.buffer is plan.places[node.outputs[0]].buffer
    assert (first.strides, first.offset) == (strides, 0) and (second.strides, second.offset) == (strides, offset)


def two_wholes(b, x):
    y = b.exp(x)
    return [b.neg(b.concat(y, b.neg(x), axis=0)), b.neg(b.concat(b.sin(x), y, axis=1))]


REFUSED = {
    "an input": lambda b, x: [b.exp(b.concat(x, b.neg(x), axis=0))],
    "a part twice": lambda b, x: (lambda y: [b.exp(b.concat(y, y, axis=0))])(b.exp(x)),
    "a result": lambda b, x: (lambda y: [y, b.exp(b.concat(y, b.neg(x), axis=0))])(b.exp(x)),
    "a view": lambda b, x: [b.exp(b.concat(b.transpose(b.exp(x), perm=(1, 0)), b.transpose(b.neg(x), perm=(1, 0)),
                                           axis=0))],
}


@pytest.mark.parametrize("case", REFUSED)
def test_parts_that_lie_elsewhere_are_copied(case):
    plan = planned(lambda b: REFUSED[case](b, b.input("x", f32[4, 4])))
    assert not plan.assembled and whole(plan) in plan.schedules


def test_a_value_is_part_of_one_whole():
    plan = planned(lambda b: two_wholes(b, b.input("x", f32[4, 4])))
    assert len(plan.assembled) == 1 and sum(n.op.name == "concat" for n in plan.graph.nodes) == 2


@pytest.mark.parametrize("axis", (0, 1, 2))
def test_values(axis):
    def build(x, w):
        return gc.concat([gc.exp(x) + 1, x @ w, gc.cumsum(x, axis=1) * 2, gc.softmax(x, axis=2)], axis=axis)

    @gc.graph
    def both(x: gc.f32[3, 5, 7], w: gc.f32[7, 7]):
        y = build(x, w)
        return y, gc.sum(y * y, axis=axis)
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((3, 5, 7), np.float32), rng.standard_normal((7, 7), np.float32)
    e = np.exp(x - x.max(2, keepdims=True))
    want = np.concatenate([np.exp(x) + 1, x @ w, np.cumsum(x, 1) * 2, e / e.sum(2, keepdims=True)], axis)
    got, total = gc.compile(both)(x, w)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(total, (want * want).sum(axis), rtol=1e-5, atol=1e-5)
    assert gc.compile(both).dump("planned").count("concat") == 1


def test_a_copy_for_a_view_does_not_take_the_place_of_a_part():
    """Where a part in its slot has to be shown as no view can, there is a copy; the whole is put together of the part
    all the same.
    """
    def build(b):
        y = b.exp(b.input("x", f32[4, 5]))
        flat = b.slice(b.reshape(y, shape=(20,)), start=(3,), stop=(17,), step=(1,))
        again = b.neg(b.reshape(y, shape=(20,)))
        return [b.sin(flat), again, b.exp(b.concat(y, b.neg(y), axis=1))]
    plan = planned(build)
    verify_plan(plan)
    first, second = (plan.places[v] for v in whole(plan).inputs)
    assert first.buffer is second.buffer is plan.places[whole(plan).outputs[0]].buffer
    assert [n.op.name for n in plan.graph.nodes].count("copy") == 1
