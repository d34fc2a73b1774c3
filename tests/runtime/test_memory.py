"""Memory from the system: alignment, zeros, release."""
from __future__ import annotations

import numpy as np
import pytest

from graphc.runtime.copies import LaterCopies
from graphc.runtime.memory import (
    HUGE_PAGE, LARGE, SharedBlocks, address, aligned_copy, aligned_empty, mapped, mapped_parts, round_up)


@pytest.mark.parametrize("nbytes", [0, 1, 100, 4096, 1 << 20])
def test_mapped_is_zero_and_page_aligned(nbytes):
    block = mapped(nbytes)
    assert block.shape == (nbytes,) and not block.any() and address(block) % 4096 == 0 and block.flags.writeable


def test_large_blocks_start_at_huge_pages():
    block = mapped(LARGE)
    assert len(block) == LARGE and address(block) % HUGE_PAGE == 0
    block[[0, -1]] = 7


def test_untouched_memory_is_not_used():
    assert len(mapped(1 << 36)) == 1 << 36


def test_impossible_sizes():
    with pytest.raises(MemoryError, match="bytes of memory"):
        mapped(1 << 60)


@pytest.mark.parametrize("shape", [(), (0,), 3, (5, 7), (1000, 1000)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool"])
def test_aligned_empty(shape, dtype):
    array = aligned_empty(shape, dtype)
    array[...] = 1
    assert array.dtype == dtype and array.shape == np.empty(shape).shape and array.flags.c_contiguous
    assert array.size == 0 or address(array) % 64 == 0


def test_aligned_copy():
    source = np.arange(12, dtype=np.float32).reshape(3, 4).T
    copy = aligned_copy(source)
    np.testing.assert_array_equal(copy, source)
    assert copy.flags.c_contiguous and not np.shares_memory(copy, source)


@pytest.mark.parametrize("nbytes", [1, 2, 3, 16, 18, 32])
def test_rows_that_lie_apart_are_copied_now_or_later(nbytes):
    source = np.random.default_rng(0).integers(0, 256, (37, 40), np.uint8)[:, 5:5 + nbytes]
    copies = LaterCopies()
    now, later = SharedBlocks().rows(source), SharedBlocks(later=copies).rows(source)
    with copies:
        pass
    for made in (now, later):
        np.testing.assert_array_equal(made, source)
        assert made.flags.c_contiguous and address(made) % 64 == 0


def test_round_up():
    assert [round_up(v) for v in (0, 1, 64, 65)] == [0, 64, 64, 128] and round_up(5, 4) == 8


def test_parts_of_one_block_are_aligned_apart_and_zero():
    sizes = [0, 1, 64, 100, LARGE]
    parts = mapped_parts(sizes)
    assert [len(p) for p in parts] == sizes and all(address(p) % 64 == 0 for p in parts if len(p))
    for i, part in enumerate(parts):
        assert not part.any()
        part[...] = i
    assert all((part == i).all() for i, part in enumerate(parts))
