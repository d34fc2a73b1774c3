"""What loops and branches carry is changed where it lies when nothing else needs the old elements, and only then."""
from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from plan_tags import run_all

import graphc as gc
from graphc.compiled import CompiledGraph
from graphc.compiler import Compilation
from graphc.errors import InternalError
from graphc.ir.builder import Builder
from graphc.ir.graph import Node
from graphc.ir.interp import evaluate
from graphc.memory.plan import Plan, Region
from graphc.memory.verify_plan import verify_plan
from graphc.schedule import in_place

ROWS, WIDTH, STEPS = 12, 8, 7


def put(c, row, at):
    return gc.dynamic_update_slice(c, gc.reshape(row, (1, WIDTH)), (at, 0))


def got(c, at):
    return gc.reshape(gc.dynamic_slice(c, (at, 0), (1, WIDTH)), (WIDTH,))


def over(step, *carries):
    """Carries after a scan of step(carries, number, row)."""
    def whole(v):
        def body(cs, x):
            return step(cs, *x)
        last, ys = gc.scan(body, carries, (gc.arange(STEPS), v))
        return (*last, *(() if ys is None else ys if isinstance(ys, tuple) else (ys,)))
    return whole


def written(c, d, v):
    return over(lambda cs, i, row: ((put(cs[0], row, i),), None), c)(v)


def written_from_itself(c, d, v):
    return over(lambda cs, i, row: ((put(cs[0], got(cs[0], i) * row, i + 1),), None), c)(v)


def read_after(c, d, v):
    """The old elements are read behind the update in the program; the reader does not need the update."""
    def step(cs, i, row):
        new = put(cs[0], row, i)
        return (new, cs[1] + got(cs[0], i + 1)), None
    return over(step, c, d[0])(v)


def read_beside_the_new(c, d, v):
    def step(cs, i, row):
        new = put(cs[0], row, i)
        return (new, cs[1] + got(cs[0], i) * got(new, i)), None
    return over(step, c, d[0])(v)


def whole_read_after(c, d, v):
    def step(cs, i, row):
        new = put(cs[0], row, i)
        return (new, cs[1] + gc.sum(cs[0] * new, axis=0)), None
    return over(step, c, d[0])(v)


def swapped(c, d, v):
    return over(lambda cs, i, row: ((put(cs[1], row, i), put(cs[0], row, i + 1)), None), c, d)(v)


def exchanged(c, d, v):
    return over(lambda cs, i, row: ((cs[1], cs[0], put(cs[2], row, i)), None), c, d, c + d)(v)


def one_by_another(c, d, v):
    return over(lambda cs, i, row: ((put(cs[0], got(cs[1], i), i), put(cs[1], row, i)), None), c, d)(v)


def each_by_the_other(c, d, v):
    """Each update needs the other's old elements, which kernels compute before both."""
    def step(cs, i, row):
        return (put(cs[0], gc.sum(cs[1], axis=0), i), put(cs[1], gc.sum(cs[0], axis=0) + row, i)), None
    return over(step, c, d)(v)


def each_by_a_part_of_the_other(c, d, v):
    """Each update itself reads the other's old elements: one of the two comes first."""
    return over(lambda cs, i, row: ((put(cs[0], cs[1][3], i), put(cs[1], cs[0][4], i)), None), c, d)(v)


def whole_by_whole(c, d, v):
    def step(cs, i, row):
        return (gc.dynamic_update_slice(cs[0], cs[1], (0, 0)), put(cs[1], row, i)), None
    return over(step, c, d)(v)


def updated_by_its_own_part(c, d, v):
    return over(lambda cs, i, row: ((gc.dynamic_update_slice(cs[0], cs[0][2:5], (i, 0)),), None), c)(v)


def emitted(c, d, v):
    def step(cs, i, row):
        new = put(cs[0], row, i)
        return (new,), new
    return over(step, c)(v)


def emitted_before(c, d, v):
    return over(lambda cs, i, row: ((put(cs[0], row, i),), cs[0]), c)(v)


def part_emitted_before(c, d, v):
    return over(lambda cs, i, row: ((put(cs[0], row, i),), cs[0][1:3]), c)(v)


def part_emitted(c, d, v):
    def step(cs, i, row):
        new = put(cs[0], row, i)
        return (new,), new[1:3]
    return over(step, c)(v)


def unchanged(c, d, v):
    return over(lambda cs, i, row: ((cs[0], put(cs[1], gc.sum(cs[0], axis=0), i)), None), c, d)(v)


def twice(c, d, v):
    return over(lambda cs, i, row: ((put(put(cs[0], row, i), row + 1, 0),), None), c)(v)


def one_update_for_two(c, d, v):
    def step(cs, i, row):
        new = put(cs[0], row, i)
        return (new, new), None
    return over(step, c, d)(v)


def same_beginning(c, d, v):
    x = c * 2
    return over(lambda cs, i, row: ((put(cs[0], row, i), put(cs[1], row * 2, i + 1)), None), x, x)(v)


def beginning_is_read_inside(c, d, v):
    x = c * 2
    return over(lambda cs, i, row: ((put(cs[0], row + got(x, i), i + 1),), None), x)(v)


def beginning_is_read_later(c, d, v):
    x = c * 2
    return (*over(lambda cs, i, row: ((put(cs[0], row, i),), None), x)(v), x)


def reshaped(c, d, v):
    def step(cs, i, row):
        flat = gc.reshape(cs[0], (ROWS * WIDTH,))
        return (gc.reshape(gc.dynamic_update_slice(flat, row, (i * 3,)), (ROWS, WIDTH)),), None
    return over(step, c)(v)


def turned(c, d, v):
    """An update of the transposed array: elements in another order."""
    def step(cs, i, row):
        t = gc.dynamic_update_slice(gc.transpose(cs[0]), gc.reshape(row, (WIDTH, 1)), (0, i))
        return (gc.transpose(t),), None
    return over(step, c)(v)


def added(c, d, v):
    def step(cs, i, row):
        at = gc.stack([i, i, i + 1])
        return (gc.scatter_add(cs[0], at, gc.broadcast_to(row, (3, WIDTH))),), None
    return over(step, c)(v)


def scattered(c, d, v):
    def step(cs, i, row):
        return (gc.scatter(cs[0], gc.stack([i, i + 1]), gc.stack([row, row * 2])),), None
    return over(step, c)(v)


def scaled_first(c, d, v):
    return over(lambda cs, i, row: ((put(cs[0] * 0.5, row, i),), None), c)(v)


def branched(c, d, v):
    def step(cs, i, row):
        return (gc.cond(i % 2 == 0, lambda x: put(x, row, i), lambda x: x, cs[0]),), None
    return over(step, c)(v)


def branched_otherwise(c, d, v):
    """One branch makes another array."""
    def step(cs, i, row):
        return (gc.cond(i % 2 == 0, lambda x: put(x, row, i), lambda x: x * 2, cs[0]),), None
    return over(step, c)(v)


def branches_cross(c, d, v):
    def step(cs, i, row):
        return gc.cond(i % 2 == 0, lambda x, y: (put(x, row, i), y), lambda x, y: (y, x), *cs), None
    return over(step, c, d)(v)


def branches_change_both(c, d, v):
    def step(cs, i, row):
        return gc.cond(i % 2 == 0, lambda x, y: (put(x, row, i), y), lambda x, y: (x, put(y, got(x, i), i)), *cs), None
    return over(step, c, d)(v)


def nested(c, d, v):
    def step(cs, i, row):
        inner, _ = gc.scan(lambda x, j: (put(x, row + got(x, j), j + i), None), cs[0], gc.arange(3))
        return (inner,), None
    return over(step, c)(v)


def nested_and_read(c, d, v):
    def step(cs, i, row):
        inner, _ = gc.scan(lambda x, j: (put(x, row + got(cs[0], j), j + i), None), cs[0], gc.arange(3))
        return (inner,), None
    return over(step, c)(v)


def nested_while(c, d, v):
    def step(cs, i, row):
        _, (_, inner) = gc.while_loop(lambda s: s[0] < i, lambda s: (s[0] + 1, put(s[1], row, s[0])), (0, cs[0]), 5)
        return (inner,), None
    return over(step, c)(v)


def whiles(c, d, v):
    _, (_, x) = gc.while_loop(lambda s: (s[0] < STEPS) & (got(s[1], s[0])[0] < 1e3),
                              lambda s: (s[0] + 1, put(s[1], got(s[1], s[0]) * 2, s[0] + 1)), (0, c), 20)
    return x


def while_swaps(c, d, v):
    _, (_, x, y) = gc.while_loop(lambda s: s[0] < STEPS, lambda s: (s[0] + 1, put(s[2], got(s[1], s[0]), s[0]), s[1]), (0, c, d), 20)
    return x, y


def outside(c, d, v):
    x = c * 2
    y = put(put(x, v[0], 3), v[1], 4)
    return y, gc.sum(y)


def branch_of_the_program(c, d, v):
    x = c * 2
    return gc.cond(gc.sum(v) > 0, lambda x: put(x, v[0], 3), lambda x: put(put(x, v[1], 2), v[0], 5), x)


# for each: the number of arrays of the size of `c` that loops and branches change in place, outermost first
CASES = {
    written: [1], written_from_itself: [1], read_after: [1], read_beside_the_new: [1], whole_read_after: [0],
    swapped: [0], exchanged: [1], one_by_another: [2], each_by_the_other: [2], each_by_a_part_of_the_other: [1], whole_by_whole: [2],
    updated_by_its_own_part: [0], emitted: [0], emitted_before: [0], part_emitted_before: [0], part_emitted: [1],
    unchanged: [1], twice: [1], one_update_for_two: [1], same_beginning: [2], beginning_is_read_inside: [1],
    beginning_is_read_later: [1], reshaped: [1], turned: [0], added: [1], scattered: [1], scaled_first: [0],
    branched: [1, 1], branched_otherwise: [0, 0], branches_cross: [0, 0], branches_change_both: [2, 2], nested: [1, 1],
    nested_and_read: [0, 1], nested_while: [1, 1], whiles: [1], while_swaps: [0], outside: [], branch_of_the_program: [1],
}


def graph_of(case) -> gc.GraphFunction:
    @gc.graph
    def f(c: gc.f32[ROWS, WIDTH], d: gc.f32[ROWS, WIDTH], v: gc.f32[STEPS, WIDTH]):
        return case(c, d, v)
    return f


def regions(plan: Plan) -> Iterator[tuple[Node, Region]]:
    for node, region in plan.regions.items():
        yield node, region
        for inner in region.plans.values():
            yield from regions(inner)


def drawn(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(-8, 8, shape).astype(np.float32) for shape in ((ROWS, WIDTH), (ROWS, WIDTH), (STEPS, WIDTH))]


@pytest.mark.parametrize("case", CASES, ids=lambda f: f.__name__)
def test_what_loops_carry(case):
    """The values are those of the graph, in all threads; the plan is sound by two proofs; what could be in place is."""
    f, arrays = graph_of(case), drawn(1)
    expected = [np.asarray(x) for x in evaluate(f.graph, arrays)]
    compiled = [gc.compile(f, threads=n) for n in (1, 2, 3, 4)]
    for run in compiled:
        found = run(*arrays)
        for mine, theirs in zip(found if isinstance(found, tuple) else (found,), expected, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    plan = compiled[0].compilation.plan
    verify_plan(plan)
    run_all(plan)
    large = [sum(node.inputs[i].type.shape == (ROWS, WIDTH) for _, i in region.in_place) for node, region in regions(plan)]
    assert large == CASES[case]


@pytest.mark.parametrize("case", [whole_read_after, updated_by_its_own_part, part_emitted_before,
                                  each_by_a_part_of_the_other, nested_and_read], ids=lambda f: f.__name__)
def test_the_verifier_finds_what_is_changed_too_early(case, monkeypatch):
    """A planner that takes every update for the last reader of its operand."""
    monkeypatch.setattr(in_place._Readers, "ends_at", lambda self, node, operand: True)
    with pytest.raises(InternalError):
        verify_plan(Compilation(graph_of(case).graph).plan)


@pytest.mark.parametrize("read_later", [False, True])
def test_state_that_a_loop_changes(read_later):
    """The loop works on the state itself, unless the old one is read behind it; it cannot be cancelled half way then."""
    inner = Builder("step")
    c, i, row = inner.input("c", gc.f32[ROWS, WIDTH]), inner.input("i", gc.i64[()]), inner.input("row", gc.f32[1, WIDTH])
    body = inner.finish([inner.dynamic_update_slice(c, row, i, inner.constant(np.int64(0)))], ("",))
    b = Builder("program")
    state, rows = b.state_input("cache", gc.f32[ROWS, WIDTH]), b.input("rows", gc.f32[STEPS, 1, WIDTH])
    new = b.scan(state, b.iota(shape=(STEPS,), axis=0, dtype=gc.i64), rows, body=body, carries=1, xs=2, length=STEPS)
    b.update(state, new)
    graph = b.finish([b.sum(b.mul(new, state) if read_later else new, axes=(0,))])
    compilation = Compilation(graph)
    verify_plan(compilation.plan)
    run_all(compilation.plan)
    (node, region), = regions(compilation.plan)
    assert (region.loop[0].buffer.space == "state") == (not read_later)
    assert "commit" in compilation.text("loops").split("main():")[1].split("for step")[0] or read_later
    cache, rows = drawn(3)[0], drawn(4)[2][:, None]
    kept = cache.copy()
    run = CompiledGraph(graph, 1, [kept])
    total = run(rows)
    expected = cache.copy()
    expected[:STEPS] = rows[:, 0]
    np.testing.assert_array_equal(kept, expected)
    np.testing.assert_allclose(total, (expected * cache if read_later else expected).sum(0), rtol=1e-5)
