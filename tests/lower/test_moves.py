"""Operators that move elements: blocks as loop nests, rows of changed elements, pads in both forms; stores of some lanes
without masks."""
from __future__ import annotations

import numpy as np
import pytest
from native import node_of, run_op, view_of

from graphc.codegen.llvm import host
from graphc.ir.ops.index import ScatterAdd, ScatterAddAlongAxis
from graphc.ir.ops.shape import Concat, DynamicSlice, DynamicUpdateSlice, Flip, Pad
from graphc.schedule.choose import schedule_node
from graphc.schedule.choose_pad import pad_axes
from graphc.schedule.move_schedule import MoveSchedule
from graphc.schedule.plain_schedule import PlainSchedule
from graphc.schedule.target import AVX2, AVX512, SSE2

SHAPES = (7,), (3, 1), (1, 5), (5, 3), (4, 65), (2, 3, 5), (3, 70, 2), (2, 1, 3, 9)
TYPES = (np.float32, np.float64, np.int8, np.int16, np.bool_)
HOST = host.host_target()
TARGETS = [t for t in (SSE2, AVX2, AVX512) if {*t.features.split(",")} <= {*HOST.features.split(",")}]


def numbers(shape, dtype=np.float32) -> np.ndarray:
    return (np.arange(np.prod(shape)) % 100).reshape(shape).astype(dtype)


def layouts(x: np.ndarray):
    """The array as it is, in the other order of axes, and every second of its elements."""
    yield x
    yield np.ascontiguousarray(x.T).T
    wide = np.repeat(x, 2, -1)
    yield wide[..., ::2]


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("shape, dtype", list(zip(SHAPES, (*TYPES, *TYPES))), ids=str)
def test_flips_and_concatenations(shape, dtype, target):
    for x in layouts(numbers(shape, dtype)):
        for axis in range(x.ndim):
            y, = run_op(Flip((axis,)), x, target=target)
            np.testing.assert_array_equal(y, np.flip(x, axis))
            parts = x, x[(slice(None),) * axis + (slice(1, None),)]
            y, = run_op(Concat(axis), *parts, target=target)
            np.testing.assert_array_equal(y, np.concatenate(parts, axis))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_pads_by_rows_and_by_blocks(shape):
    for x in layouts(numbers(shape)):
        for low, high in (((1,) * x.ndim, (2,) * x.ndim), ((0,) * (x.ndim - 1) + (3,), (0,) * x.ndim),
                          ((2,) + (0,) * (x.ndim - 1), (1,) + (0,) * (x.ndim - 1))):
            op = Pad(low, high, 4.5)
            expect = np.ascontiguousarray(np.pad(x, tuple(zip(low, high)), constant_values=4.5))
            node = node_of(op, [x])
            chosen = schedule_node(node, [view_of(x)], [view_of(expect)], AVX2)
            found = {type(c.schedule): c.schedule for c in chosen.ranking.candidates}
            assert set(found) == {PlainSchedule, MoveSchedule}
            for schedule in found.values():
                y, = run_op(op, x, schedule=schedule)
                np.testing.assert_array_equal(y, expect)


def test_axes_of_a_pad_that_both_arrays_step_through_evenly_are_one():
    x, y = np.zeros((5, 4, 3, 2)), np.zeros((5, 7, 3, 2))
    axes = pad_axes(Pad((0, 1, 0, 0), (0, 2, 0, 0), 0), view_of(x), view_of(y))
    assert (axes.inside.shape, axes.outside.shape, axes.low) == ((5, 24), (5, 42), (0, 6))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_slices_at_positions_of_the_run(shape):
    x, at = numbers(shape), [np.asarray(i, np.int64) for i in range(len(shape))]
    sizes = tuple(max(1, n - 2) for n in shape)
    part = tuple(slice(min(i, n - size), min(i, n - size) + size) for i, n, size in zip(range(9), shape, sizes))
    y, = run_op(DynamicSlice(sizes), x, *at)
    np.testing.assert_array_equal(y, x[part])
    changed = x.copy()
    changed[part] = -1
    y, = run_op(DynamicUpdateSlice(), x, np.full(sizes, -1, np.float32), *at)
    np.testing.assert_array_equal(y, changed)


@pytest.mark.parametrize("shape, axis", [(s, a) for s in SHAPES for a in range(len(s))], ids=str)
def test_sums_at_positions_add_to_a_copy_of_the_base(shape, axis):
    rng = np.random.default_rng(0)
    base = numbers(shape)
    many = rng.integers(0, shape[axis], (*shape[:axis], 9, *shape[axis + 1:]))
    updates = rng.integers(0, 9, many.shape).astype(np.float32)
    expect = base.copy()
    np.add.at(expect, tuple(many if a == axis else g for a, g in enumerate(np.indices(many.shape, sparse=True))), updates)
    y, = run_op(ScatterAddAlongAxis(axis), base, many, updates)
    np.testing.assert_array_equal(y, expect)
    one = many.take(0, -1).ravel()[:4] if many.ndim > 1 else many[:4]
    updates = np.moveaxis(np.broadcast_to(np.float32(1), (len(one), *shape[:axis], *shape[axis + 1:])), 0, axis)
    expect = np.moveaxis(base, axis, 0).copy()
    np.add.at(expect, one, 1)
    y, = run_op(ScatterAdd(axis), base, one, np.ascontiguousarray(updates))
    np.testing.assert_array_equal(y, np.moveaxis(expect, 0, axis))
