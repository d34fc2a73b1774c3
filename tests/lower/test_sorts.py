"""Each way to sort a row gives the same, and what numpy gives."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from native import node_of, run_op, view_of

from graphc.codegen.loops.loop_ir import Call, statements
from graphc.codegen.lower.sort_network import comparators, sort_kernel
from graphc.ir.ops.sort import ArgSort, Sort, TopK
from graphc.ir.types import f32, i64
from graphc.schedule.choose import schedule_node
from graphc.schedule.choose_sort import LONGEST_COLUMN
from graphc.schedule.sort_schedule import COLUMNS, LISTS, ROWS, SELECTION, sides_of
from graphc.schedule.target import AVX2, AVX512
from graphc.schedule.view import ViewType


@pytest.mark.parametrize("n", range(1, 34))
def test_networks_sort(n):
    """By the zero-one principle, for random zeros and ones."""
    rng = np.random.default_rng(n)
    lines = (rng.random((n, 500)) < rng.random(500)).astype(int)
    for a, b in comparators(n):
        assert a < b < n
        lines[a], lines[b] = np.minimum(lines[a], lines[b]), np.maximum(lines[a], lines[b])
    assert (np.diff(lines, axis=0) >= 0).all()


def values(shape, dtype, rng) -> np.ndarray:
    """Few different ones, and those that are no numbers."""
    x = rng.integers(-3 if np.dtype(dtype).kind != "u" else 0, 4, shape).astype(dtype)
    if x.dtype.kind == "f":
        x[rng.random(shape) < 0.2] = np.nan
        x[x == 0] *= rng.choice([-1, 1], (x == 0).sum())
    return x


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint32, np.int8])
@pytest.mark.parametrize("shape, axis", [((19, 2), 1), ((3, 7), 1), ((5, 33), 0), ((2, 5, 9), 1), ((3, 300), 1)], ids=str)
def test_every_way_gives_the_same(shape, axis, dtype):
    x, n = values(shape, dtype, np.random.default_rng(0)), shape[axis]
    sort = [ROWS, *[COLUMNS] * (n <= LONGEST_COLUMN)]
    for op, ways in ((Sort(axis, True), sort), (ArgSort(axis, False), sort), (TopK(1, axis), [LISTS]),
                     (TopK(min(5, n), axis), [SELECTION, LISTS])):
        expect = op.reference(np.ascontiguousarray(x))
        expect = expect if isinstance(expect, tuple) else (expect,)
        chosen = schedule_node(node_of(op, [x]), [view_of(x)], list(map(view_of, expect)), AVX2)
        for order in ways:
            schedule = replace(chosen, order=order, tile=2, lanes=AVX2.lanes(i64.itemsize))
            for y, right in zip(run_op(op, x, schedule=schedule), expect):
                np.testing.assert_array_equal(y, right)


@pytest.mark.parametrize("shape, k, order", [((74, 113), 1, LISTS), ((8, 50_000), 20, SELECTION), ((8, 700), 600, ROWS),
                                             ((4096, 12), 2, COLUMNS)], ids=str)
def test_the_first_of_a_row_are_found_by_what_costs_least(shape, k, order):
    for target in (AVX2, AVX512):
        x = ViewType(f32, shape, (shape[1], 1))
        result = [ViewType(t, (shape[0], k), (k, 1)) for t in (f32, i64)]
        node = node_of(TopK(k, 1), [np.zeros(shape, np.float32)])
        assert schedule_node(node, [x], result, target).order == order


def test_what_lies_beside_an_axis_is_as_few_dims_as_possible():
    x = view_of(np.zeros((4, 3, 5, 6), np.float32))
    assert sides_of(1, (x,), (x,)).sizes == (4, 30) and sides_of(3, (x,), (x,)).sizes == (60,)
    assert sides_of(0, (view_of(np.zeros(7)),), (view_of(np.zeros(7)),)) is None


def test_the_kernel_of_a_long_row_is_made_at_once():
    """As many merges as runs double: work of the compiler does not grow with the row."""
    merges = [s for s in statements(sort_kernel(1 << 26, 8).body) if isinstance(s, Call)]
    assert len(merges) == 26 - 6
