"""Loops shared by the lowerings of structured operators: rows in tiles, lanes inside a row."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import prod

from graphc.codegen.loops.builder import Ix, LoopFunction
from graphc.codegen.loops.loop_ir import Val, View
from graphc.codegen.lower.request import KernelRequest
from graphc.ir.dims import Dim, Dims, Poly, ceil_div
from graphc.ir.op import Op
from graphc.ir.types import i64, u64
from graphc.schedule.nest_schedule import last_lanes
from graphc.schedule.plain_schedule import PlainSchedule
from graphc.schedule.schedule import Schedule

Lanes = Callable[[Ix, int, Val | None], None]       # index of the first lane, lanes, mask


def function(r: KernelRequest[Schedule, Op]) -> tuple[LoopFunction, list[View], list[View]]:
    """A function with one view per operand and result."""
    f = LoopFunction(r.function_name)
    xs = [f.view(f"x{i}", v.dtype, v.shape, v.strides) for i, v in enumerate(r.ins)]
    ys = [f.view(f"y{i}", v.dtype, v.shape, v.strides) for i, v in enumerate(r.outs)]
    return f, xs, ys


@contextmanager
def rows(f: LoopFunction, extents: Dims, schedule: PlainSchedule, label: str = "rows") -> Iterator[list[Ix]]:
    """Runs what is inside for every index of `extents`, in tiles."""
    total = prod(extents)
    serial = at_most(f, total, schedule.alone) if schedule.alone else schedule.serial
    with f.parallel(ceil_div(total, schedule.tile), label, serial=serial) as tile:
        with f.loop(tile * schedule.tile, f.min_(tile * schedule.tile + schedule.tile, total), name="row") as loop:
            yield unflattened(f, loop.index, extents)


def clamped(f: LoopFunction, position: Val, size: Dim) -> Ix:
    """The integer as an index in [0, size), whatever it is: it cannot fail, so it reports as no node."""
    if position.dtype is u64:
        position = f.min(position, i64.range[1])
    return f.check_index(f.max(f.min(f.cast(position, i64), number(f, size - 1)), 0), size, 0)


def number(f: LoopFunction, size: Dim) -> Val | int:
    """The size as an operand of arithmetic."""
    return size if isinstance(size, int) else f.value(Ix(size))


def at_most(f: LoopFunction, size: Dim, limit: int) -> bool | Val:
    """Whether the size is at most so large: a bool if that is known."""
    return size <= limit if isinstance(size, int) else f.le(f.value(Ix(size)), limit)


def unflattened(f: LoopFunction, flat: Ix, extents: Dims) -> list[Ix]:
    """The index of each axis in a row-major count."""
    index: list[Ix] = []
    for n in reversed(extents[1:]):
        flat, rest = f.divmod(flat, n) if n != 1 else (flat, Ix())
        index.append(rest)
    return [flat, *reversed(index)] if extents else []


def over_lanes(f: LoopFunction, lo: Ix | Dim, hi: Ix | Dim, lanes: int, body: Lanes, narrow: bool = False) -> None:
    """The body for lo … hi - 1: whole vectors, then one masked vector; narrow: which is no wider than it needs."""
    if lanes == 1:
        with f.loop(lo, hi) as loop:
            body(loop.index, 1, None)
        return
    count = hi - lo
    whole, rest = f.divmod(count, lanes)
    with f.loop(0, whole) as loop:
        body(loop.index * lanes + lo, lanes, None)
    if rest.is_const and rest.const == 0:
        return
    if narrow and rest.is_const and isinstance(rest.const, int):
        width = last_lanes(rest.const, lanes)
        body(whole * lanes + lo, width, f.tail_mask(rest, width) if width != rest.const else None)
        return
    with f.loop(0, f.min_(rest, 1)):
        body(whole * lanes + lo, lanes, f.tail_mask(rest, lanes))


def nested(f: LoopFunction, extents: Dims, body: Callable[[list[Ix]], None],
           index: tuple[Ix, ...] = ()) -> None:
    """Loops over every index of `extents`, in order."""
    if len(index) == len(extents):
        body(list(index))
        return
    with f.loop(0, extents[len(index)]) as loop:
        nested(f, extents, body, (*index, loop.index))


def put(index: Sequence[Ix], axis: int, value: Ix | int) -> list[Ix | int]:
    """The index with one more axis, at position `axis`."""
    return [*index[:axis], value, *index[axis:]]


def permuted(f: LoopFunction, view: View, order: Sequence[int]) -> View:
    """The view with its axes in another order."""
    return f.reinterpret(view, [view.shape[axis] for axis in order], [view.strides[axis] for axis in order])


def divided(f: LoopFunction, tile: Ix, count: Dim, parts: Dim) -> tuple[Ix, Ix]:
    """The number of a tile among `count`, without and with only the part that counts the innermost `parts`."""
    if parts == 1 or isinstance(parts, Poly) and parts == count:
        return (tile, Ix()) if parts == 1 else (Ix(), tile)
    return f.divmod(tile, parts)
