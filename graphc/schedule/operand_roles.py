"""Which operand of a contraction gives the rows and which the columns, and which axis of an image comes innermost in
its copy."""
from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from typing import NamedTuple

from graphc.ir.contraction import Contraction, Maps
from graphc.ir.dims import Dim, Dims, typical
from graphc.records import dataclass
from graphc.schedule.machine import Machine
from graphc.schedule.open_sizes import is_many


@dataclass(frozen=True)
class Tensor:
    """What is known of an operand: shape and strides in elements."""
    shape: Dims
    strides: Dims


class Copies(Enum):
    """What comes innermost in copies of images: channels, the groups of a convolution, what sums run along, or what is
    innermost in the image."""
    CHANNELS = auto()
    GROUPS = auto()
    RUNS = auto()
    SAME = auto()


class OperandRoles(NamedTuple):
    """swap: whether a gives the columns. innermost: of a and b (before the swap) the axis that has to be contiguous,
    for which the operand is copied; None where it may be read as it lies."""
    swap: bool
    innermost: list[int | None]


def operand_roles(c: Contraction, a: Tensor, b: Tensor, out: Tensor, lanes: int, invariant: tuple[bool, bool],
                  machine: Machine, copies: Copies = Copies.CHANNELS) -> OperandRoles:
    """The roles with which the output's contiguous dim is among n, or with which less is copied or packed. invariant:
    operands that cost nothing to pack."""
    channels = [None if copies is Copies.SAME else _channel_axis(c, maps, t, lanes)
                for maps, t in ((c.a, a), (c.b, b))]
    apart = [_entry_axis(c, maps, t, out, lanes) for maps, t in ((c.a, a), (c.b, b))]
    swap = _wants_swap(c, out) if channels == [None, None] else _wants_swap_of_image(c, channels)
    if channels == [None, None] and not invariant[0 if swap else 1]:
        straight = (c.swapped, b, a) if swap else (c, a, b)
        swap ^= _packs_less_swapped(*straight, lanes, machine)
    if copies is Copies.GROUPS:
        return OperandRoles(swap, turned_axes(c, (a, b), lanes, invariant))
    return OperandRoles(swap, [own if own is not None else entries for own, entries in zip(channels, apart)])


def turned_axes(c: Contraction, operands: Sequence[Tensor], lanes: int, invariant: Sequence[bool]) -> list[int | None]:
    """Of the operands of a convolution with groups the axis that counts the groups: where both lie channels first,
    copies may have it innermost. None where it is short, or contiguous as it is, or the operand cost nothing to pack.
    """
    batch = [d for d in c.batch if isinstance(c.sizes[d], int)]
    images = any(len(m.dims) > 1 and any(d in c.k for d in m.dims) for maps in (c.a, c.b) for m in maps)
    if not batch or not images or 0 in c.sizes:
        return [None, None]
    entry = max(batch, key=lambda d: typical(c.sizes[d]))
    return [None if free else _turned_axis(maps, t, entry, lanes)
            for maps, t, free in zip((c.a, c.b), operands, invariant)]


def run_axis(c: Contraction, a: Tensor, b: Tensor) -> int | None:
    """The axis of `a` to put innermost in a copy so that sums walk it as they walk the contiguous axis of `b`; None
    where it is so already, or no axis is."""
    walked = {d for m, step in zip(c.b, b.strides) if step == 1 and m.is_affine for d in m.dims
              if d in c.k and is_many(c.sizes[d])}
    axis = next((x for x, m in enumerate(c.a) if m.is_affine and m.dims and walked.issuperset(m.dims)), None)
    return None if axis is None or a.strides[axis] == 1 else axis


def _turned_axis(maps: Maps, t: Tensor, entry: int, lanes: int) -> int | None:
    axis = next((x for x, m in enumerate(maps) if m.is_affine and entry in m.dims), None)
    if axis is None or not isinstance(t.shape[axis], int) or typical(t.shape[axis]) < lanes:
        return None
    return axis if typical(t.strides[axis]) > 1 else None


def _channel_axis(c: Contraction, maps: Maps, t: Tensor, lanes: int) -> int | None:
    """The axis to put innermost in a copy of an image: the nearest one without a window, if it has whole vectors of
    elements, if windows slide over the contiguous axis, and if the other operand has whole vectors of columns too.
    """
    windows = _windows_in_memory(c, maps, t)
    if not windows:
        return None
    plain = [x for x in range(len(maps)) if x not in windows and maps[x].is_affine]
    nearest = min(plain, key=lambda x: (typical(t.strides[x]), -x), default=None)
    if nearest is None or typical(t.strides[nearest]) <= 0:
        return None
    channels = [d for d in maps[nearest].dims if d not in c.batch]
    columns = c.m if maps is c.b else c.n
    summed = any(d in c.k for d in channels)
    wide = typical(c.extent(channels)) >= lanes and (not summed or typical(c.extent(columns)) >= lanes)
    return nearest if wide else None


def _entry_axis(c: Contraction, maps: Maps, t: Tensor, out: Tensor, lanes: int) -> int | None:
    """The axis to put innermost in a copy of an image whose channels are entries of the batch (depthwise convolution):
    that of the output's vectors, if it has whole ones and windows slide over the contiguous axis."""
    if not _windows_in_memory(c, maps, t):
        return None
    inner = [d for m, step in zip(c.out, out.strides) if step == 1 for d in m.dims if is_many(c.sizes[d])]
    axis = next((x for x, m in enumerate(maps)
                 if m.is_affine and inner and [d for d in m.dims if is_many(c.sizes[d])] == inner), None)
    if axis is None or inner[0] not in c.batch:
        return None
    return axis if typical(t.shape[axis]) >= lanes and typical(t.strides[axis]) > 0 else None


def _windows_in_memory(c: Contraction, maps: Maps, t: Tensor) -> list[int]:
    """The axes over which windows slide; none unless one of them is contiguous."""
    many = [d for d, size in enumerate(c.sizes) if d not in c.batch and is_many(size)]
    windows = [x for x, m in enumerate(maps) if len([d for d in m.dims if d in many]) > 1]
    return windows if 0 not in c.sizes and any(t.strides[x] == 1 and is_many(t.shape[x]) for x in windows) else []


def _wants_swap_of_image(c: Contraction, channels: list[int | None]) -> bool:
    """An image whose channels are summed gives the rows; one whose channels are kept gives the columns."""
    axis = next(maps[x] for maps, x in zip((c.a, c.b), channels) if x is not None)
    return any(d in c.k for d in axis.dims) == (channels[0] is None)


def _wants_swap(c: Contraction, out: Tensor) -> bool:
    """Whether the output's smallest step is along m."""
    def step(dims: Sequence[int]) -> int:
        steps = [abs(coefficient * typical(s)) for m, s in zip(c.out, out.strides) for coefficient, d in m.terms
                 if d in dims and is_many(c.sizes[d])]
        return min(steps, default=1 << 62)
    return step(c.m) < step(c.n)


def _packs_less_swapped(c: Contraction, a: Tensor, b: Tensor, lanes: int, machine: Machine) -> bool:
    """Few rows of a against many columns of b, both contiguous along k (a batch against stored weights): rather than
    the columns, the few rows are transposed, and the output.
    """
    left, right = _dim_strides(c.a, a), _dim_strides(c.b, b)
    if left is None or right is None or not any(left.get(d) == right.get(d) == 1 and is_many(c.sizes[d]) for d in c.k):
        return False
    rows = typical(c.extent(c.m) * c.extent([d for d in c.batch if right.get(d, 0) == 0]))
    columns, k = typical(c.extent(c.n)), typical(c.extent(c.k))
    if rows < lanes // 2 or k == 0:
        return False
    fma = rows * columns / (machine.fma_per_cycle * lanes)      # cycles for each step of k
    straight = fma * _waste(rows, min(6, rows)) + machine.transpose_cycles * columns
    store = machine.transposed_store_cycles * rows * columns / k
    swapped = fma * _waste(rows, lanes) + machine.transpose_cycles * rows + store
    return swapped < straight


def _waste(size: int, unit: int) -> float:
    return -(-size // unit) * unit / size


def _dim_strides(maps: Maps, t: Tensor) -> dict[int, Dim] | None:
    """Distance in memory of neighbours along each dim; None if an index is padded or divided."""
    strides: dict[int, Dim] = {}
    for m, stride in zip(maps, t.strides):
        if not m.is_affine:
            return None
        for coefficient, d in m.terms:
            strides[d] = strides.get(d, 0) + coefficient * stride
    return strides
