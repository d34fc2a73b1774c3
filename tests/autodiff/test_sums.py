"""Gradients of loops that read and write parts of large arrays touch those parts alone."""
from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import graphc as gc
from graphc.compiler import Compilation
from graphc.ir.graph import Node
from graphc.ir.interp import evaluate
from graphc.memory.plan import Plan

ROWS, WIDTH, STEPS = 9, 5, 6
AT = np.array([[2, 2], [0, 5], [8, 1], [3, 3], [2, 7], [5, 0]])


def put(c, row, at):
    return gc.dynamic_update_slice(c, gc.reshape(row, (1, WIDTH)), (at, 0))


def got(c, at):
    return gc.reshape(gc.dynamic_slice(c, (at, 0), (1, WIDTH)), (WIDTH,))


def steps(step, c, *more):
    return gc.scan(lambda c, x: (step(c, *x), None), c, (gc.arange(STEPS), *more))[0]


def written(c, v):
    return steps(lambda c, i, row: put(c, gc.tanh(row), i + 1), c, v)


def from_the_row_before(c, v):
    return steps(lambda c, i, row: put(c, gc.tanh(got(c, i) * row), i + 1), c, v)


def from_two_rows(c, v):
    return steps(lambda c, i, row: put(c, gc.sin(got(c, i)) * got(c, i + 2) + row, i + 1), c, v)


def rows_added(c, v):
    return steps(lambda c, i, row, at: gc.scatter_add(c, at, gc.stack([row, row * row])), c, v, AT)


def rows_replaced(c, v):
    return steps(lambda c, i, row, at: gc.scatter(c, at, gc.sin(gc.take(c, (at + 1) % ROWS)) * row), c, v, AT)


def through_a_view(c, v):
    def step(c, i, row):
        flat = gc.reshape(c, (c.size,))
        return put(c, gc.tanh(gc.dynamic_slice(flat, (i * 4,), (WIDTH,)) * row), i)
    return steps(step, c, v)


def in_a_branch(c, v):
    return steps(lambda c, i, row: gc.cond(i % 2 == 0, lambda c: put(c, gc.tanh(row) * got(c, i + 1), i), lambda c: c, c), c, v)


def of_a_captured_array(c, v):
    """The slices of `c` that the steps read: sums over all steps."""
    return steps(lambda h, i, row: gc.tanh(h * row + got(c, i) * got(c, i + 1)), v[0], v)


def in_a_while(c, v):
    return gc.while_loop(lambda s: s[0] < 4, lambda s: (s[0] + 1, put(s[1], gc.sin(got(s[1], s[0])) * v[0], s[0] + 1)), (0, c), 5)[1][1]


CASES = (written, from_the_row_before, from_two_rows, rows_added, rows_replaced, through_a_view, in_a_branch, of_a_captured_array, in_a_while)


def loss_of(case, dtype, rows=ROWS):
    @gc.graph
    def loss(c: dtype[rows, WIDTH], v: dtype[STEPS, WIDTH]):
        y = case(c, v)
        return gc.sum(y * y * 0.5 + gc.sin(y))
    return loss


@pytest.mark.parametrize("case", CASES, ids=lambda f: f.__name__)
def test_gradients_are_differences(case):
    gc.check_gradients(loss_of(case, gc.f64))


@pytest.mark.parametrize("case", CASES, ids=lambda f: f.__name__)
def test_native_gradients_are_those_of_the_graph(case):
    """In any number of threads, to the bit."""
    rng = np.random.default_rng(3)
    c, v = rng.standard_normal((ROWS, WIDTH)).astype(np.float32), rng.standard_normal((STEPS, WIDTH)).astype(np.float32)
    gradient = gc.grad(loss_of(case, gc.f32), wrt=("c", "v"))
    runs = [gc.compile(gradient, threads=n)(c, v) for n in (1, 2, 4)]
    for mine, *others, theirs in zip(*runs, evaluate(gradient.graph, (c, v)), strict=True):
        assert all(np.array_equal(mine, other) for other in others)
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES, ids=lambda f: f.__name__)
def test_a_step_makes_nothing_as_large_as_the_array(case):
    """Except by changing it where it lies, in the loop and in that of its gradient. Nor is it kept for each step."""
    rows = 1000
    plan = Compilation(gc.grad(loss_of(case, gc.f32, rows), wrt=("c", "v")).graph).plan
    made = [(node, v) for node, schedule, values in kernels_in_loops(plan) for v in values
            if v.type.size >= rows * WIDTH and not schedule.aliased]
    assert not made and plan.arena_bytes < 3 * rows * WIDTH * 4


def kernels_in_loops(plan: Plan, inside: bool = False) -> Iterator[tuple[Node, object, tuple]]:
    if inside:
        yield from ((node, schedule, node.outputs) for node, schedule in plan.schedules.items())
    for region in plan.regions.values():
        for inner in region.plans.values():
            yield from kernels_in_loops(inner, True)
