"""Each way to sort a row gives the same, and what numpy gives."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from native import node_of, run_op, view_of

from graphc.codegen.lower.sort_network import comparators
from graphc.ir.ops.sort import ArgSort, Sort, TopK
from graphc.schedule.choose import schedule_node
from graphc.schedule.sort_schedule import sides_of
from graphc.schedule.target import AVX2


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
@pytest.mark.parametrize("shape, axis", [((19, 2), 1), ((3, 7), 1), ((5, 33), 0), ((2, 5, 9), 1), ((4, 31), 1)],
                         ids=str)
def test_every_way_gives_the_same(shape, axis, dtype):
    rng = np.random.default_rng(0)
    x = values(shape, dtype, rng)
    for op in (Sort(axis, True), Sort(axis, False), ArgSort(axis, False), TopK(min(2, shape[axis]), axis)):
        expect = op.reference(np.ascontiguousarray(x))
        expect = expect if isinstance(expect, tuple) else (expect,)
        chosen = schedule_node(node_of(op, [x]), [view_of(x)], list(map(view_of, expect)), AVX2)
        found = {c.schedule.order: c.schedule for c in chosen.ranking.candidates}
        assert "columns" in found
        for schedule in found.values():
            for y, right in zip(run_op(op, x, schedule=replace(schedule, tile=2)), expect):
                np.testing.assert_array_equal(y, right)


def test_what_lies_beside_an_axis_is_as_few_dims_as_possible():
    x = view_of(np.zeros((4, 3, 5, 6), np.float32))
    assert sides_of(1, (x,), (x,)).sizes == (4, 30) and sides_of(3, (x,), (x,)).sizes == (60,)
    assert sides_of(0, (view_of(np.zeros(7)),), (view_of(np.zeros(7)),)) is None
