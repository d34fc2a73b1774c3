"""Vectors of elements that lie a few places apart, read by whole vectors: every element, and nothing outside of them."""
from __future__ import annotations

import ctypes
import mmap
from itertools import product

import numpy as np
import pytest
from loop_run import RUNS, run

from graphc.codegen.loops.builder import LoopFunction
from graphc.codegen.loops.loop_ir import View
from graphc.ir.types import DType, f32, f64, u8
from graphc.schedule.machine import Machine
from graphc.schedule.spaced_loads import spaced_cycles, spaced_reads, turned_squares, window_cycles

PAGE = mmap.PAGESIZE
STEPS, LANES = (2, 3, 4, 5, 6, 11, 15, 17), (4, 8, 16, 32)


@pytest.mark.parametrize("lanes", [2, 4, 8, 16])
def test_each_element_is_read_once_and_nothing_outside(lanes):
    for step, count in product(range(2, 20), range(1, lanes + 1)):
        reads = spaced_reads(step, lanes, count)
        assert not reads or [i for _, own in reads for i in own] == list(range(count))
        assert all(0 <= start <= (count - 1) * step + 1 - lanes for start, _ in reads)
        assert all(0 <= i * step - start < lanes for start, own in reads for i in own)
        assert not reads or len(reads) < count


@pytest.mark.parametrize("lanes, step, reads", [(8, 2, 2), (8, 3, 3), (8, 4, 4), (16, 2, 2), (16, 3, 3), (16, 5, 4), (16, 15, 8), (16, 16, 0), (4, 4, 0)])
def test_how_many_vectors(lanes, step, reads):
    assert len(spaced_reads(step, lanes, lanes)) == reads


def test_costs_grow_with_the_distance():
    costs = [spaced_cycles(step, 16, Machine()) for step in (1, 2, 3, 4, 8, 16, 1000)]
    assert costs == sorted(costs)


@pytest.mark.parametrize("target", RUNS)
@pytest.mark.parametrize("dtype", [f32, f64, u8], ids=str)
def test_values_at_the_ends_of_memory(target, dtype: DType, rng):
    """The first, and the last, elements of a page between two that nobody may read."""
    pages = mmap.mmap(-1, 3 * PAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    for page in (0, 2):
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(start + page * PAGE), PAGE, 0) == 0
    size = PAGE // dtype.itemsize
    x = np.frombuffer(pages, dtype.np, size, PAGE)
    x[:] = rng.integers(0, 256, size)
    cases = [(at, step, lanes, count) for step, lanes in product(STEPS, LANES)
             for count in {lanes, lanes - 1, lanes // 2 + 1, 1} if count * step <= size
             for at in (0, size - 1 - (count - 1) * step)]
    f = LoopFunction("spaced")
    a, y = f.view("a", dtype, (size,)), f.view("y", dtype, (len(cases), max(LANES)))
    for row, (at, step, lanes, count) in enumerate(cases):
        mask = None if count == lanes else f.tail_mask(count, lanes)
        line = View(a.root, (count,), (step,), a.start + at, dtype)
        f.store(y, [row, 0], f.load(line, [0], lanes, mask))
    found = np.full((len(cases), max(LANES)), 99, dtype.np)
    assert run(f, [x], found, target=target) == 0
    for (at, step, lanes, count), row in zip(cases, found):
        np.testing.assert_array_equal(row[:count], x[at:at + count * step:step][:count], err_msg=f"{at, step, lanes}")
        assert not row[count:lanes].any()


@pytest.mark.parametrize("step, lanes, count, squares", [(9, 8, 9, (0,)), (9, 16, 9, (0,)), (2, 8, 3, ()), (3, 16, 3, ()),
                                                         (9, 8, 16, (0, 8)), (9, 1, 9, ()), (1, 8, 8, ())])
def test_squares_are_transposed_where_enough_of_them_is_read(step, lanes, count, squares):
    assert turned_squares(step, lanes, range(count)) == squares
    assert window_cycles(count, step, 1, lanes, Machine()) <= count * spaced_cycles(step, lanes, Machine())
