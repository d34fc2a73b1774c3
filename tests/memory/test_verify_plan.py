"""The verifier of memory plans accepts what the planner gives, and finds each thing that could be wrong with a plan."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from graphc.compiler import Compilation
from graphc.errors import InternalError
from graphc.ir.builder import Builder
from graphc.ir.dims import Dim, ceil_div, size_name
from graphc.ir.graph import Graph, Node
from graphc.ir.parser import parse
from graphc.ir.types import bool_, f32
from graphc.memory.plan import Buffer, Place, Plan
from graphc.memory.planner import plan_memory
from graphc.memory.verify_plan import apart, verify_plan
from graphc.schedule.target import ALIGNMENT, AVX2


def body(build, *types, name="body") -> Graph:
    b = Builder(name)
    outs = build(b, *(b.input(f"v{i}", t) for i, t in enumerate(types)))
    return b.finish(outs, ("",) * len(outs))


def straight(b):
    """Three values that are alive at once, a concatenation, a reduction."""
    x, y = b.input("x", f32[6, 8]), b.input("y", f32[6, 8])
    p, q = b.matmul(x, b.transpose(y, perm=(1, 0))), b.cumsum(y, axis=0)
    whole = b.concat(b.exp(p), b.neg(p), axis=1)
    return [b.matmul(whole, b.concat(q, q, axis=0)), b.cumsum(p, axis=1)]


def loop(length: int):
    def build(b):
        step = body(lambda b, c, x, w: [b.matmul(b.cumsum(c, axis=0), w), b.add(c, x)], f32[4, 4], f32[4, 4], f32[4, 4])
        c, x, w = b.input("c", f32[4, 4]), b.input("x", f32[length, 4, 4]), b.input("w", f32[4, 4])
        last, ys = b.scan(b.exp(c), x, w, body=step, carries=1, xs=1, length=length)
        return [b.neg(last), ys]
    return build


def branch(b):
    yes = body(lambda b, x: [b.mul(x, 2.0)], f32[2, 3, 4, 5])
    no = body(lambda b, x: [b.transpose(b.reshape(x, shape=(2, 3, 5, 4)), perm=(0, 1, 3, 2))], f32[2, 3, 4, 5])
    return [b.exp(b.cond(b.input("p", bool_[()]), b.input("x", f32[2, 3, 4, 5]), then_body=yes, else_body=no))]


def chain(b):
    return [b.sum(b.neg(b.cumsum(b.input("x", f32[6, 8]), axis=1)), axes=(0, 1))]


def checked_update(b):
    w, x = b.state_input("w", f32[8]), b.input("x", f32[8])
    b.update(w, b.sub(w, x))
    return [b.take(x, b.cast(x, dtype=b.constant(np.int64(0)).type.dtype), axis=0)]


def planned(build) -> Plan:
    b = Builder("g")
    outs = build(b)
    return plan_memory(b.finish(outs, ("",) * len(outs)), AVX2).main


def node(plan: Plan, name: str, number: int = 0) -> Node:
    return [n for n in plan.graph.nodes if n.op.name == name][number]


def out(plan: Plan, name: str, number: int = 0):
    return node(plan, name, number).outputs[0]


def moved(plan: Plan, v, **changes) -> Plan:
    """The plan with another place for v."""
    return replace(plan, places={**plan.places, v: replace(plan.places[v], **changes)})


def inner(plan: Plan, control: str, name: str) -> Plan:
    return plan.regions[node(plan, control)].plans[name]


def with_region(plan: Plan, control: str, **changes) -> Plan:
    at = node(plan, control)
    return replace(plan, regions={**plan.regions, at: replace(plan.regions[at], **changes)})


def with_body(plan: Plan, control: str, name: str, body: Plan) -> Plan:
    return with_region(plan, control, plans={**plan.regions[node(plan, control)].plans, name: body})


def a_view_too_far(plan):
    return moved(plan, out(plan, "transpose"), offset=1)


def a_view_before_the_start(plan):
    v = out(plan, "cumsum")
    return moved(plan, v, strides=tuple(-s for s in plan.places[v].strides))


def an_output_elsewhere(plan):
    return moved(plan, plan.graph.outputs[0], buffer=Buffer("output", 1 << 10, 1))


def an_output_in_another_layout(plan):
    return moved(plan, plan.graph.outputs[0], strides=(1, 6))


def two_buffers_in_one_place(plan):
    p, q = plan.places[out(plan, "matmul")].buffer, plan.places[out(plan, "cumsum")].buffer
    over = {q: replace(q, offset=p.offset)}
    return replace(plan, places={v: place.moved(over) for v, place in plan.places.items()})


def an_arena_that_is_too_small(plan):
    return replace(plan, arena_bytes=plan.arena_bytes - 64)


def a_part_elsewhere(plan):
    return moved(plan, out(plan, "neg"), offset=0)


def a_kernel_taken_for_parts_that_are_there(plan):
    return replace(plan, assembled=plan.assembled | {node(plan, "cumsum")})


def a_value_over_one_that_is_read_later(plan):
    return moved(plan, out(plan, "cumsum"), buffer=plan.places[out(plan, "concat")].buffer)


def a_store_into_an_input(plan):
    return moved(plan, out(plan, "cumsum"), buffer=plan.places[plan.graph.inputs[1]].buffer)


def a_slot_too_few(plan):
    carry = plan.regions[node(plan, "scan")].loop[0]
    return with_region(plan, "scan", loop=(carry.elements(0, 1),))


def a_body_result_in_another_layout(plan):
    body = inner(plan, "cond", "then_body")
    return with_body(plan, "cond", "then_body", moved(body, body.graph.outputs[0], strides=(60, 1, 15, 3)))


def a_body_argument_that_grows(plan):
    body = inner(plan, "scan", "body")
    return with_body(plan, "scan", "body", moved(body, body.graph.inputs[0], shape=(4, 4), strides=(8, 1)))


def a_body_larger_than_its_region(plan):
    region = plan.regions[node(plan, "scan")]
    return with_region(plan, "scan", arena=replace(region.arena, nbytes=region.plans["body"].arena_bytes - 64))


def in_place_unasked(plan):
    kernel = node(plan, "neg")
    assert plan.places[kernel.outputs[0]] == plan.places[kernel.inputs[0]]
    return replace(plan, schedules={**plan.schedules, kernel: replace(plan.schedules[kernel], inplace=())})


FAULTS = {
    chain: {in_place_unasked: "is still read"},
    straight: {a_view_too_far: "leaves the bytes", a_view_before_the_start: "leaves the bytes",
               an_output_elsewhere: "has it in output",
               an_output_in_another_layout: "has it in output", two_buffers_in_one_place: "overlaps another",
               an_arena_that_is_too_small: "leaves the arena", a_part_elsewhere: "not where it belongs",
               a_kernel_taken_for_parts_that_are_there: "is not put together",
               a_value_over_one_that_is_read_later: "is still read", a_store_into_an_input: "only read"},
    loop(3): {a_slot_too_few: "carry 0 is in slots", a_body_argument_that_grows: "has it in argument",
              a_body_larger_than_its_region: "its region"},
    branch: {a_body_result_in_another_layout: "has it in result"},
}


@pytest.mark.parametrize("build", [straight, chain, loop(0), loop(1), loop(2), loop(5), branch, checked_update])
def test_plans_of_the_planner_are_sound(build):
    verify_plan(planned(build))


@pytest.mark.parametrize("build, spoil, says",
                         [(build, spoil, says) for build, faults in FAULTS.items() for spoil, says in faults.items()])
def test_every_fault_is_found(build, spoil, says):
    plan = spoil(planned(build))
    with pytest.raises(InternalError, match=f"plan verifier: .*{says}"):
        verify_plan(plan)


def test_state_is_written_after_the_last_check():
    plan = planned(checked_update)
    *others, copy = plan.graph.nodes
    assert copy.op.name == "copy"
    at = max(i for i, n in enumerate(others) if copy.inputs[0] in n.outputs) + 1
    plan = replace(plan, graph=replace(plan.graph, nodes=(*others[:at], copy, *others[at:])))
    with pytest.raises(InternalError, match="before the last check"):
        verify_plan(plan)


def test_a_body_may_take_two_views_of_one_derived_array():
    graph = parse("""
graph f(c: f32[3], x: f32[5, 3]) state(s: f32[20]) {
  %0 = exp(s) : f32[20]
  %1 = slice(%0) {start=(2,), stop=(5,), step=(1,)} : f32[3]
  %2 = slice(%0) {start=(11,), stop=(14,), step=(1,)} : f32[3]
  %3, %4 = scan(c, x, %1, %2) {body={
    graph step(c: f32[3], x: f32[3], v: f32[3], w: f32[3]) {
      %0 = mul(c, v) : f32[3]
      %1 = add(%0, w) : f32[3]
      %2 = add(x, v) : f32[3]
      return (%1, %2)
    }
  }, carries=1, xs=1, length=5} : f32[3], f32[5, 3]
  return (%3, %4)
}""")
    verify_plan(Compilation(graph, AVX2).plan)


def test_a_part_may_lie_where_the_rest_of_a_dying_operand_was():
    graph = parse("""
graph f(d: f32[40], c: bool[40], x: f32[80]) {
  %0 = add(x, x) : f32[80]
  %1 = slice(%0) {start=(0,), stop=(40,), step=(1,)} : f32[40]
  %2 = neg(d) : f32[40]
  %3 = mul(%2, %1) : f32[40]
  %4 = where(c, %2, d) : f32[40]
  %5 = concat(%2, %4) {axis=0} : f32[80]
  %6 = slice(%5) {start=(0,), stop=(40,), step=(1,)} : f32[40]
  %7 = add(%3, %6) : f32[40]
  %8 = sin(%5) : f32[80]
  return (%7, %8)
}""")
    verify_plan(Compilation(graph, AVX2).plan)


def test_places_apart_have_no_element_in_common():
    """Random places of one buffer, their elements written out; the columns of a matrix are apart though their rows
    alternate.
    """
    rng, buffer, apart_ones = np.random.default_rng(0), Buffer("arena", 1 << 12), 0
    for _ in range(4000):
        places = []
        for _ in range(2):
            shape = tuple(int(n) for n in rng.integers(1, 4, rng.integers(0, 4)))
            strides = tuple(int(s) for s in rng.choice([1, 2, 3, 4, 6, 12, 24], len(shape)))
            places.append(Place(buffer, f32, shape, strides, int(rng.integers(0, 12))))
        elements = [{p.offset + int(np.dot(at, p.strides)) for at in np.ndindex(p.shape)} for p in places]
        assert not (apart(*places) and elements[0] & elements[1]), places
        apart_ones += apart(*places) and max(elements[0]) > min(elements[1]) and max(elements[1]) > min(elements[0])
    assert apart_ones > 100
    assert apart(Place(buffer, f32, (4, 1), (3, 1), 0), Place(buffer, f32, (4, 2), (3, 1), 1))


def test_ends_of_buffers_are_aligned():
    """Buffers one behind the other, of images whose sizes come with the call. That the second ends, unaligned, where
    the third begins at an aligned place takes a proof that is not found; of aligned ends it is."""
    n, h, w = (size_name(name) for name in ("B", "H", "W"))
    counts = n * ((h + 1) // 2) * ((w + 1) // 2) + 1, n * h * w, n * (h + 2) * (w + 2)

    def build(b):
        first, second, third = (b.cumsum(b.input(name, f32[count]), axis=0) for name, count in zip("xyz", counts))
        return [b.cumsum(v, axis=0) for v in (first, second, third)]
    plan = planned(build)
    values = [out(plan, "cumsum", number) for number in range(3)]
    ends = [ceil_div(v.type.nbytes, ALIGNMENT) * ALIGNMENT for v in values]

    def at(*offsets: Dim) -> Plan:
        spoilt = replace(plan, arena_bytes=offsets[-1] + ends[2])
        buffers = [plan.places[v].buffer for v in values]
        for v, buffer, offset in zip(values, buffers, offsets):
            spoilt = moved(spoilt, v, buffer=replace(buffer, offset=offset))
        return spoilt
    verify_plan(at(0, ends[0], ends[1] + ends[2]))
    with pytest.raises(InternalError, match="overlaps another buffer"):
        verify_plan(at(0, ends[0], ends[1]))
