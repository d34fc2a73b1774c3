"""What x[key] means: one strided slice, a flip, a reshape, then gathers. Pure arithmetic on shapes; `Array` applies
it."""
from __future__ import annotations

from typing import Any

import numpy as np

from graphc.dsl.positions import constant_positions
from graphc.errors import GraphError
from graphc.ir.convert import integer, is_integer, shown
from graphc.ir.dims import Dim, Poly, smallest
from graphc.ir.types import shape_text
from graphc.records import dataclass


@dataclass(frozen=True)
class IndexAxis:
    """What a key does to one axis of the array: elements start, start+step, … before stop, of which `kind` is made.

    kind: "keep" (a slice), "drop" (an int), "new" (None: an axis of size 1), "gather" (`index`, an integer array).
    """
    kind: str
    size: Dim = 1
    start: Dim = 0
    stop: Dim = 1
    step: int = 1
    flip: bool = False
    index: object = None


@dataclass(frozen=True)
class IndexPlan:
    """slice(start, stop, step), then flip `flips`, then reshape to `shape`, then gather along `gathers` (axis,
    index)."""
    start: tuple[Dim, ...]
    stop: tuple[Dim, ...]
    step: tuple[int, ...]
    flips: tuple[int, ...]
    shape: tuple[Dim, ...]
    gathers: tuple[tuple[int, object], ...]


def plan(key: object, shape: tuple[Dim, ...]) -> IndexPlan:
    """The plan of x[key] for x of `shape`; GraphError for keys that graphc does not take."""
    axes = _axes(key if isinstance(key, tuple) else (key,), shape)
    source = [a for a in axes if a.kind != "new"]
    kept = [a for a in axes if a.kind != "drop"]
    gathers = tuple((i, a.index) for i, a in enumerate(kept) if a.kind == "gather")
    _check_adjacent(axes)
    return IndexPlan(tuple(a.start for a in source), tuple(a.stop for a in source), tuple(a.step for a in source),
                tuple(i for i, a in enumerate(source) if a.flip), tuple(a.size for a in kept), gathers)


def _axes(key: tuple, shape: tuple[Dim, ...]) -> list[IndexAxis]:
    given = sum(k is not None and k is not Ellipsis for k in key)
    if given > len(shape):
        raise GraphError(f"too many indices: {given} for an array of shape {shape_text(shape)}")
    dots = [i for i, k in enumerate(key) if k is Ellipsis]
    if len(dots) > 1:
        raise GraphError("an index can hold only one ...")
    at = dots[0] if dots else len(key)
    fill = (slice(None),) * (len(shape) - given)
    sizes = iter(enumerate(shape))
    return [IndexAxis("new") if k is None else _axis(k, *next(sizes)) for k in key[:at] + fill + key[at + 1:]]


def _axis(key: Any, axis: int, size: Dim) -> IndexAxis:
    if isinstance(key, slice):
        return _slice(key, axis, size)
    if isinstance(key, (bool, np.bool_)):
        raise GraphError("True and False are not indices: use None for a new axis, gc.where to choose elements")
    if is_integer(key):
        return _drop(integer(key, "an index"), axis, size)
    if isinstance(key, (list, np.ndarray)):
        key = constant_positions(key, size, axis)[0]
    if not hasattr(key, "dtype") or not hasattr(key, "shape"):
        raise GraphError(f"{shown(key)} is not an index: use ints, slices, None, ... or integer arrays")
    name = str(key.dtype)
    if name == "bool":
        raise GraphError("a boolean mask as index would give a size that depends on numbers: gc.compress(mask, x, "
                         "size=…) gives so many at most and their count; or use gc.where(mask, x, 0)")
    if not name.startswith(("int", "uint", "i", "u")):
        raise GraphError(f"an index must be an integer array, got {name}: use astype(gc.i32)")
    return IndexAxis("gather", size, 0, size, index=key)


def _drop(i: int, axis: int, size: Dim) -> IndexAxis:
    if isinstance(size, int) and not -size <= i < size:
        raise GraphError(f"index {i} is out of range for axis {axis} of size {size}")
    start = i if i >= 0 else size + i
    return IndexAxis("drop", 1, start, start + 1)


def _slice(key: slice, axis: int, size: Dim) -> IndexAxis:
    key = slice(*(_slice_bound(bound) for bound in (key.start, key.stop, key.step)))
    step = 1 if key.step is None else key.step
    if isinstance(step, Poly) or step == 0:
        raise GraphError(f"the step of a slice is an int other than 0, got {step}")
    if not isinstance(size, int) or isinstance(key.start, Poly) or isinstance(key.stop, Poly):
        return _symbolic_slice(key, step, axis, size)
    start, stop, step = key.indices(size)
    count = len(range(start, stop, step))
    if step > 0:
        return IndexAxis("keep", count, start, max(start, stop) if count else start, step)
    first = start + (count - 1) * step          # the same elements from the front, then flipped
    return IndexAxis("keep", count, first, start + 1, -step, flip=True) if count else IndexAxis("keep", 0, 0, 0, 1)


def _slice_bound(bound: Any) -> Dim | None:
    """A bound or step; those far outside are held to 64 bits, as slices of Python take them."""
    if bound is None or isinstance(bound, Poly):
        return bound
    if hasattr(bound, "shape") and bound.shape != () or hasattr(bound, "trace"):
        raise GraphError("the bounds of a slice must be Python ints, they decide the shape: "
                         "use gc.dynamic_slice(x, starts, sizes) for a start that is computed")
    return integer(bound, "a bound of a slice")


def _symbolic_slice(key: slice, step: int, axis: int, size: Dim) -> IndexAxis:
    """Bounds of a named size, or that depend on one. A number at which the slice ends, or with which it begins from
    the end, may lie outside, as in numpy; other bounds are taken as given, and checked when the size is bound."""
    if step == -1 and key.start is None and key.stop is None:
        return IndexAxis("keep", size, 0, size, 1, flip=True)
    if step < 0:
        raise GraphError(f"axis {axis} of size {size} can be reversed as a whole (x[::-1]) only; "
                         "bind the size for other negative steps")
    start = _from_front(_not_before(key.start, size), 0, size)
    stop = _from_front(_not_behind(key.stop, size), size, size)
    return IndexAxis("keep", (stop - start + (step - 1)) // step if step > 1 else stop - start, start, stop, step)


def _not_behind(bound: Dim | None, size: Dim) -> Dim | None:
    """The end of a slice, of a named axis perhaps that of the axis. There is one element at least: programs for all
    sizes take no less."""
    return smallest(bound, size) if isinstance(bound, int) and bound > 1 and isinstance(size, Poly) else bound


def _not_before(bound: Dim | None, size: Dim) -> Dim | None:
    """The beginning of a slice, counted from the end: perhaps that of the axis."""
    return size - smallest(-bound, size) if isinstance(bound, int) and bound < -1 and isinstance(size, Poly) else bound


def _from_front(bound: Dim | None, default: Dim, size: Dim) -> Dim:
    if bound is None:
        return default
    return size + bound if isinstance(bound, int) and bound < 0 else bound


def _check_adjacent(axes: list[IndexAxis]) -> None:
    """numpy moves the axes of index arrays to the front when a slice stands between them: refused, it surprises
    everybody."""
    places = [i for i, a in enumerate(axes) if a.kind in ("gather", "drop")]
    if any(a.kind == "gather" for a in axes) and places != list(range(places[0], places[-1] + 1)):
        raise GraphError("integer arrays and ints with a slice between them: index in two steps, for example x[0][:, "
                         "idx]")
