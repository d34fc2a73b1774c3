"""Aligned memory straight from the system: pages appear when they are first touched and are zero then."""
from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Protocol

import numpy as np

from graphc.schedule.target import ALIGNMENT

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

MAP_NORESERVE = 0x4000          # Linux; Python's mmap names it from 3.12 on
HUGE_PAGE = 2 << 20
LARGE = 4 << 20                 # from here on blocks start at a huge page and ask for huge pages
SMALL = 64 << 10                # below this numpy's own allocator serves arrays


def mapped(nbytes: int) -> np.ndarray:
    """`nbytes` zero bytes (uint8), aligned to a page, or to a huge page when large; unmapped with the last view.
    MemoryError."""
    slack = HUGE_PAGE if nbytes >= LARGE else 0
    try:
        block = mmap.mmap(-1, max(nbytes, 1) + slack, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
    except (OSError, OverflowError) as error:
        raise MemoryError(f"the system gives no {nbytes} bytes of memory: {error}") from error
    data = np.frombuffer(block, np.uint8)
    if not slack:
        return data[:nbytes]
    if hasattr(mmap, "MADV_HUGEPAGE"):
        _ask_for_huge_pages(block)
    start = -address(data) % HUGE_PAGE
    return data[start:start + nbytes]


def mapped_parts(sizes: Sequence[int]) -> list[np.ndarray]:
    """Zero bytes in one block of `mapped` memory, cut into parts of these sizes, each aligned to 64 bytes: a huge page
    may hold many of them."""
    starts = list(accumulate(map(round_up, sizes), initial=0))
    block = mapped(starts[-1])
    return [block[start:start + size] for start, size in zip(starts, sizes)]


def aligned_empty(shape: int | tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """An uninitialised C-contiguous array whose data starts at a multiple of 64 bytes."""
    dtype = np.dtype(dtype)
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    nbytes = math.prod(sizes) * dtype.itemsize
    raw = mapped(nbytes) if nbytes >= SMALL else _small(nbytes)
    return raw.view(dtype).reshape(sizes)


class Copying(Protocol):
    """What copies rows of bytes that lie apart, some time."""

    def add(self, target: np.ndarray, source: np.ndarray) -> None: ...


class SharedBlocks:
    """Memory for many arrays that live about as long: one after the other in blocks of huge pages, since each alone
    would be too small for one, and the system provides, and the CPU finds, a large page as fast as a small one."""

    def __init__(self, nbytes: int = 32 << 20, later: Copying | None = None):
        """`nbytes`: of a block. later: what copies rows, some time."""
        self._size, self._rest, self._later = nbytes, np.empty(0, np.uint8), later

    def copy(self, source: np.ndarray) -> np.ndarray:
        """A C-contiguous copy that starts at a multiple of 64 bytes."""
        made = self._room(source.nbytes).view(source.dtype).reshape(source.shape)
        made[...] = source
        return made

    def rows(self, source: np.ndarray) -> np.ndarray:
        """The same of u8 [n, bytes], rows of neighbours; of a copy that is made later, where it will be."""
        made = self._room(source.size).reshape(source.shape)
        if self._later is not None:
            self._later.add(made, source)
        else:           # one element a row, for which numpy has an instruction
            made.view(f"V{source.shape[1]}")[...] = source.view(f"V{source.shape[1]}")
        return made

    def _room(self, nbytes: int) -> np.ndarray:
        size = round_up(nbytes)
        if size > self._rest.size:
            self._rest = mapped(max(self._size, size))
        own, self._rest = self._rest[:nbytes], self._rest[size:]
        return own


def aligned_copy(source: np.ndarray) -> np.ndarray:
    """A C-contiguous copy of `source` in `aligned_empty` memory."""
    source = np.asarray(source)
    copy = aligned_empty(source.shape, source.dtype)
    copy[...] = source
    return copy


def aligned(source: np.ndarray) -> np.ndarray:
    """`source`, which is C-contiguous, or a copy, if it starts elsewhere than at a multiple of 64 bytes."""
    return aligned_copy(source) if address(source) % ALIGNMENT else source


def address(array: np.ndarray) -> int:
    """Where the data of `array` starts."""
    return array.__array_interface__["data"][0]


def round_up(value: int, unit: int = ALIGNMENT) -> int:
    return -(-value // unit) * unit


def _small(nbytes: int) -> np.ndarray:
    raw = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -address(raw) % ALIGNMENT
    return raw[start:start + nbytes]


def _ask_for_huge_pages(block: mmap.mmap) -> None:
    try:
        block.madvise(mmap.MADV_HUGEPAGE)
    except OSError:
        pass                    # a kernel without them: ordinary pages do
