"""Chooses how an array is padded: row by row, or as blocks: the inside is copied, and what is around it filled."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from graphc.ir.dims import Dim, Dims, typical
from graphc.ir.ops.shape import Pad
from graphc.records import dataclass
from graphc.schedule.choose_move import copy_schedule, fill_schedule
from graphc.schedule.choose_plain import tiled
from graphc.schedule.cost import Candidate, ranked
from graphc.schedule.kernel_problem import KernelProblem
from graphc.schedule.move_schedule import MoveSchedule
from graphc.schedule.parallel_rows import Rows, memory_order, permuted, unit_stride
from graphc.schedule.plain_schedule import PlainSchedule
from graphc.schedule.view import ViewType

PadSchedule = PlainSchedule | MoveSchedule

ROW_CYCLES = 12                 # of a row: whether it lies inside, and three loops
BLOCK_CYCLES = 40               # of a block: its loops


@dataclass(frozen=True)
class PadAxes:
    """A padded array and its inside as few axes as both step through evenly, in the order of memory."""
    inside: ViewType
    outside: ViewType
    low: Dims

    def slabs(self) -> list[tuple[Dims, Dims]]:
        """Corner and shape of what is around the inside: along each axis what comes before and after it, of the inside
        only along the axes around that one."""
        found = []
        sizes, inside = self.outside.shape, self.inside.shape
        for axis, (first, size) in enumerate(zip(self.low, inside)):
            for start, count in ((0, first), (first + size, sizes[axis] - first - size)):
                shape = (*inside[:axis], count, *sizes[axis + 1:])
                if 0 not in shape:
                    found.append(((*self.low[:axis], start, *(0,) * (len(sizes) - axis - 1)), shape))
        return found


def pad_axes(op: Pad, x: ViewType, y: ViewType) -> PadAxes:
    order = memory_order(y)
    inside, outside = permuted(x, order), permuted(y, order)
    groups: list[list[int]] = []
    for axis in range(len(order)):
        if groups and all(_steps_on(v, groups[-1][-1], axis) for v in (inside, outside)) and (
                inside.shape[axis] == outside.shape[axis]):
            groups[-1].append(axis)
        else:
            groups.append([axis])
    low = [op.low[a] for a in order]
    return PadAxes(_grouped(inside, groups), _grouped(outside, groups),
                   tuple(low[g[0]] * _size(outside, g[1:]) for g in groups))


def _steps_on(v: ViewType, outer: int, inner: int) -> bool:
    return v.strides[outer] == v.strides[inner] * v.shape[inner]


def _grouped(v: ViewType, groups: Sequence[Sequence[int]]) -> ViewType:
    return ViewType(v.dtype, tuple(_size(v, g) for g in groups), tuple(v.strides[g[-1]] for g in groups))


def _size(v: ViewType, axes: Sequence[int]) -> Dim:
    size: Dim = 1
    for axis in axes:
        size = size * v.shape[axis]
    return size


def pad_schedule(p: KernelProblem[Pad]) -> PadSchedule:
    """A pure function of shapes, strides and target."""
    axes = pad_axes(p.core.op, p.ins[0], p.outs[0])
    if not axes.outside.shape or 0 in axes.outside.shape:
        return PlainSchedule()
    ranking = ranked([_blocks(p, axes), *_rows(p, axes)])
    return replace(ranking.best.schedule, ranking=ranking)


def _blocks(p: KernelProblem[Pad], axes: PadAxes) -> Candidate[PadSchedule]:
    x, y = axes.inside, axes.outside
    inside = [copy_schedule(x, replace(y, shape=x.shape), p.target)] if 0 not in x.shape else []
    around = [fill_schedule(p.core.op.value, replace(y, shape=shape), p.target) for _, shape in axes.slabs()]
    blocks = (*inside, *around)
    cycles = sum(ranking.best.total for block in blocks for ranking in block.rankings)
    return Candidate("blocks", MoveSchedule(blocks), (("blocks", cycles), ("loops", BLOCK_CYCLES * len(blocks))))


def _rows(p: KernelProblem[Pad], axes: PadAxes) -> Iterator[Candidate[PadSchedule]]:
    *outer, n = axes.outside.shape
    machine, itemsize = p.target.machine, axes.outside.dtype.itemsize
    vector = unit_stride(-1, axes.inside, axes.outside)
    traffic = typical(n + axes.inside.shape[-1]) * itemsize / machine.l3_bytes_per_cycle
    lanes = p.target.lanes(itemsize) if vector else 1
    steps = machine.scalar_element_cycles * typical(n) / lanes
    yield from tiled("rows", PlainSchedule(lanes=lanes), Rows(tuple(outer), n, vector), ROW_CYCLES + steps + traffic,
                     machine)
