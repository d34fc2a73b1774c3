"""Linear recurrences in clusters: what is computed before and after them is fused, whatever the shape, in every thread the same bits."""
from __future__ import annotations

import numpy as np
import pytest
from native import node_of, run_op, view_of

import graphc as gc
from graphc.compiler import Compilation
from graphc.ir.builder import Builder
from graphc.ir.interp import evaluate
from graphc.ir.ops.fused import members
from graphc.ir.ops.scan_ops import LinearScan
from graphc.schedule.choose import schedule_node
from graphc.schedule.target import AVX2, AVX512
from graphc.schedule.view import ViewType, contiguous_strides


def alone(a, x, w):
    return gc.linear_scan(a, x)


def before_and_after(a, x, w):
    return gc.tanh(gc.linear_scan(gc.sigmoid(a), x * w)) * x


def backwards(a, x, w):
    return gc.linear_scan(gc.sigmoid(a), x * w, reverse=True) + x


def two(a, x, w):
    """Two recurrences side by side, one behind the other."""
    y = gc.linear_scan(gc.sigmoid(a), x)
    return gc.linear_scan(gc.sigmoid(a) * w, y) + gc.linear_scan(gc.tanh(a), y * w)


def both_directions(a, x, w):
    return gc.linear_scan(gc.sigmoid(a), x) + gc.linear_scan(gc.sigmoid(a), x, reverse=True)


def summed(a, x, w):
    """What stands behind the recurrence reduces the last axis."""
    return gc.sum(gc.linear_scan(gc.sigmoid(a), x) * w, axis=-1)


def normed(a, x, w):
    """Two passes over what a step has made."""
    y = gc.linear_scan(gc.sigmoid(a), x)
    return gc.softmax(y, axis=-1) * y


def from_sums(a, x, w):
    """What stands before the recurrence reduces the last axis."""
    return gc.linear_scan(gc.sigmoid(gc.mean(a, axis=-1)), gc.max(x, axis=-1))


def total(a, x, w):
    """A sum along the recurrence."""
    return gc.sum(gc.linear_scan(gc.sigmoid(a), x), axis=0)


def constant_factor(a, x, w):
    return gc.linear_scan(0.9, x) - x


CASES = (alone, before_and_after, backwards, two, both_directions, summed, normed, from_sums, total, constant_factor)
SHAPES = ((1, 5), (2, 1), (9, 3), (7, 16), (6, 37), (5, 4, 6), (4, 3, 64), (3, 200, 16), (5, 3000), (40, 2, 2, 3))


def graph_of(case, shape, dtype=gc.f32):
    @gc.graph
    def f(a: dtype[shape], x: dtype[shape], w: dtype[shape[-1:]]):
        return case(a, x, w)
    return f


def drawn(shape, dtype=np.float32) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [rng.standard_normal(s).astype(dtype) for s in (shape, shape, shape[-1:])]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda f: f.__name__)
def test_fused_recurrences(case, shape):
    f, arrays = graph_of(case, shape), drawn(shape)
    one, *more = [np.asarray(gc.compile(f, threads=n)(*arrays)) for n in (1, 2, 3)]
    assert all(np.array_equal(one, other) for other in more)
    expected, = evaluate(f.graph, arrays)
    np.testing.assert_allclose(one, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("case", CASES, ids=lambda f: f.__name__)
def test_gradients_of_fused_recurrences(case):
    gc.check_gradients(graph_of(case, (5, 4, 3), gc.f64))


@pytest.mark.parametrize("case, kernels", [(before_and_after, 1), (two, 1), (both_directions, 2), (summed, 1), (normed, 1), (from_sums, 1)],
                         ids=lambda c: getattr(c, "__name__", c))
def test_what_is_fused(case, kernels):
    fused = Compilation(graph_of(case, (64, 32, 16)).graph).fused
    nodes = [n for n in fused.nodes if n.op.name == "fused" or n.op.name == "linear_scan"]
    assert len(nodes) == kernels, [[m.op.name for m, _ in members(n)] for n in nodes]


@pytest.mark.parametrize("width, kernels", [(16, 1), (15, 3)])
def test_what_stands_beside_a_recurrence_along_the_innermost_axis_is_fused_where_steps_fill_a_vector(width, kernels):
    """Else it would be computed one element after another."""
    f = graph_of(lambda a, x, w: gc.linear_scan(gc.sigmoid(a), x, axis=-1) * w, (64, width))
    assert len(Compilation(f.graph).fused.nodes) == kernels


def in_lanes(n, reverse, exclusive, dtype=np.float32):
    op, target = LinearScan(-1, reverse, exclusive), AVX2
    node = node_of(op, [np.zeros((3, n), dtype)] * 2)
    view = view_of(np.zeros((3, n), dtype))
    schedule = schedule_node(node, [view, view], [view], target)
    assert schedule.lanes == 32 // np.dtype(dtype).itemsize and schedule.vector == 1 and schedule.inner == ()
    return op, schedule


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda t: t.__name__)
@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("n", [8, 9, 15, 16, 77])
def test_neighbouring_steps_are_lanes(n, reverse, exclusive, dtype):
    op, schedule = in_lanes(n, reverse, exclusive, dtype)
    a, x = np.random.default_rng(n).standard_normal((2, 3, n)).astype(dtype)
    a[:, -1 if reverse else 0] = np.nan
    y, = run_op(op, a, x, schedule=schedule)
    tolerance = 1e-12 if dtype is np.float64 else 1e-4
    np.testing.assert_allclose(y, op.reference(a, x), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_lanes_whose_factors_overflow_take_their_steps_one_after_the_other(reverse, exclusive):
    """The product of factors is infinite where the recurrence itself is 0, small or finite; infinities and NaN stay
    where they begin."""
    op, schedule = in_lanes(29, reverse, exclusive)
    a, x = np.full((3, 29), 1e25, np.float32), np.zeros((3, 29), np.float32)
    a[1, 6:8], x[1, 3:6], x[1, 20] = 1e-30, 1e-20, 2
    a[1, 12:] = 0.5
    a[2], x[2], x[2, 11], a[2, 13], x[2, 17] = 0.5, 1, np.inf, 0, np.nan
    y, = run_op(op, a, x, schedule=schedule)
    np.testing.assert_allclose(y, op.reference(a, x), rtol=1e-6)
    assert not y[0].any() and np.isfinite(y[1]).any() and np.isnan(y[2]).any()


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_the_first_factor_has_no_effect(reverse, exclusive):
    """Whatever it is; and signs of zeros stay."""
    a, x = np.full((4, 3), np.nan, np.float32), np.full((4, 3), -0.0, np.float32)
    order = slice(None, None, -1) if reverse else slice(None)
    a[order][1:] = 1
    b = Builder("g")
    graph = b.finish(b.apply(LinearScan(0, reverse, exclusive), [b.input("a", gc.f32[4, 3]), b.input("x", gc.f32[4, 3])]))
    run = gc.compile(gc.GraphFunction(graph))
    expected, = evaluate(graph, (a, x))
    assert run(a, x).tobytes() == expected.tobytes()


def schedule_of(shape, target, case=alone):
    node = graph_of(case, shape).graph.nodes[-1]
    view = ViewType(gc.f32, shape, contiguous_strides(shape))
    return schedule_node(node, [view, view], [view], target)


@pytest.mark.parametrize("target", [AVX2, AVX512], ids=lambda t: t.name)
def test_few_columns_are_carried_in_registers_and_many_in_memory(target):
    """By cost: without inner loops a vector takes all its steps alone."""
    assert schedule_of((4096, target.lanes(4)), target).inner == ()
    assert schedule_of((4096,), target).inner == ()
    assert schedule_of((512, 4096), target).inner != ()


@pytest.mark.parametrize("target", [AVX2, AVX512], ids=lambda t: t.name)
def test_pieces_of_rows_beyond_l2_are_long_runs(target):
    """Of 512 bytes: what lies behind a piece is fetched in vain."""
    s = schedule_of((1300, 3000), target)
    assert s.inner and 128 <= s.chunk < 3000 // 4


@pytest.mark.parametrize("reverse", [False, True])
def test_a_step_waits_for_one_multiply_add(reverse):
    """What is handed on is its result, with no choice behind it by the number of the step."""
    f = graph_of(lambda a, x, w: gc.linear_scan(a, x, reverse=reverse), (640, 4))
    text = gc.compile(f, threads=1).dump("loops")
    lines = [line.split() for line in text.splitlines() if " = fma" in line]
    assert len(lines) == 1, text
    assert f"next {lines[0][0].rstrip(':')}" in text, text
