"""Elements around an array: of one value, or its own."""
from __future__ import annotations

from collections.abc import Sequence

from graphc.dsl.array import Array, as_array, emit
from graphc.dsl.form import formed
from graphc.dsl.literal import fitting
from graphc.dsl.shape import broadcast_to, concat, flip
from graphc.errors import GraphError
from graphc.ir.convert import choice, integer, is_sequence, items, shown
from graphc.ir.dims import Dim, Poly

MODES = ("constant", "reflect", "symmetric", "edge", "wrap")


@formed
def pad(x: Array, widths: int | Sequence, value: float = 0, mode: str = "constant") -> Array:
    """With elements around. widths: one int, (before, after) for every axis, or one such pair per axis, as in numpy
    (torch lists the last axis first).

    mode: "constant" (`value`), "reflect" (mirrored at the edge, which stands once), "symmetric" (the edge twice),
    "edge" (again and again; torch's replicate), "wrap" (from the other end; torch's circular). What is mirrored or
    comes from the other end is there once: at most the size of the axis, less 1 for "reflect" (numpy goes round again).
    """
    x, mode = as_array(x), choice(mode, "pad: mode", MODES)
    pairs = _pairs(widths, x.ndim)
    if mode == "constant":
        return emit("pad", x, low=tuple(a for a, _ in pairs), high=tuple(b for _, b in pairs),
                    value=fitting(value, x.dtype, "pad: the value"))
    for axis, (before, after) in enumerate(pairs):
        size = x.shape[axis]
        most = {"reflect": size - 1, "edge": None}.get(mode, size)
        for width in (before, after):
            over = size == 0 or isinstance(most, int) and isinstance(width, int) and width > most
            if isinstance(width, int) and (width < 0 or width and over):
                raise GraphError(f'pad: "{mode}" gives 0 to {"any number of" if most is None else most} elements '
                                 f"around an axis of size {size}, asked for {width}")
        x = extended_along(x, axis, before, after, mode)
    return x


def extended_along(x: Array, axis: int, before: Dim, after: Dim, mode: str) -> Array:
    """x with so many of its own elements before and behind it along the axis: those that `mode` of `pad` names."""
    parts = (_around(x, axis, before, mode, False), x, _around(x, axis, after, mode, True))
    return concat([part for part in parts if part is not None], axis)


def _around(x: Array, axis: int, count: Dim, mode: str, behind: bool) -> Array | None:
    """The elements that stand before or behind x along the axis."""
    if count == 0:
        return None
    lead, size = (slice(None),) * axis, x.shape[axis]
    if mode == "edge":
        edge = x[(*lead, slice(size - 1, size) if behind else slice(0, 1))]
        return broadcast_to(edge, (*x.shape[:axis], count, *x.shape[axis + 1:]))
    if mode == "wrap":
        return x[(*lead, slice(0, count) if behind else slice(size - count, size))]
    skip = int(mode == "reflect")
    own = slice(size - skip - count, size - skip) if behind else slice(skip, count + skip)
    return flip(x[(*lead, own)], axis)


def _pairs(widths: object, rank: int) -> list[tuple[Dim, ...]]:
    if not is_sequence(widths):
        return [(_width(widths),) * 2] * rank
    given = items(widths, "pad: the widths")
    if len(given) == 2 and not any(is_sequence(w) for w in given):
        return [(_width(given[0]), _width(given[1]))] * rank
    pairs: list[tuple[Dim, ...]] = [tuple(map(_width, w)) if is_sequence(w) else (_width(w),) * 2 for w in given]
    if len(pairs) != rank or any(len(p) != 2 for p in pairs):
        raise GraphError(f"pad: an array with {rank} axes needs {rank} pairs (before, after), got {shown(widths)}")
    return pairs


def _width(value: object) -> Dim:
    return value if isinstance(value, Poly) else integer(value, "pad: a width")
