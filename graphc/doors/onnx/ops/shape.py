"""Operators that ask for sizes, and that move, join, cut and make arrays."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil, prod
from typing import Any

import numpy as np

import graphc as gc
from graphc.doors.onnx.call import Call, as_known, type_of
from graphc.doors.onnx.hints import multiple_hint
from graphc.doors.onnx.known import computable, count_of
from graphc.doors.onnx.rule import Int, Ints, Known, Operand, Unsupported
from graphc.doors.onnx.size_fractions import exact, quotient, rounded
from graphc.dsl.array import Array
from graphc.errors import GraphError, Unsized
from graphc.ir.convert import choice
from graphc.ir.dim_binding import bind
from graphc.ir.dims import Dim, Poly, ceil_div, smallest
from graphc.ir.quotients import flattened
from graphc.ir.size_atoms import Quotient
from graphc.ir.types import bool_, f32, i64, normalize_axes, normalize_axis

FAR = 1 << 29                       # from here on a bound means "the end": files have INT_MAX, 10^9, …


def shape(x: Operand, *, start: int = 0, end: int | None = None) -> Known:
    dims = type_of(x).shape
    return Known.of(_objects(dims[start:] if end is None else dims[start:end]), i64)


def size(x: Operand) -> Known:
    return Known.of(_objects([prod(type_of(x).shape)]).reshape(()), i64)


def _objects(dims: Sequence[Dim]) -> np.ndarray:
    made = np.empty(len(dims), object)
    made[:] = list(dims)
    return made


def constant(*, value: Known | None = None, value_float: float | None = None, value_int: int | None = None,
             value_floats: Sequence[float] | None = None, value_ints: Sequence[int] | None = None) -> Known:
    if value is not None:
        return value
    for numbers, dtype in ((value_float, f32), (value_floats, f32), (value_int, i64), (value_ints, i64)):
        if numbers is not None:
            return Known.of(np.asarray(numbers, dtype.np), dtype)
    raise Unsupported("strings or sparse values")


def constant_of_shape(shape: Ints, *, value: Known | None = None) -> Array:
    number = as_known(np.zeros(1, np.float32)) if value is None else value
    return gc.broadcast_to(number.array().reshape(()), shape)


def reshape(x: Array, shape: Ints, *, allowzero: int = 0) -> Array:
    """0: the size that x has there; -1: what is left."""
    wanted = tuple(x.shape[i] if d == 0 and not allowzero else d for i, d in enumerate(_as_written(shape, x)))
    try:
        return x.reshape(wanted)
    except GraphError as error:
        if hint := multiple_hint((x.shape, wanted)):
            raise GraphError(error.text + hint, error.loc) from None
        open_ = {str(n) for d in wanted if not isinstance(d, int) for n in d.names}
        names = sorted({str(n) for n in x.type.names} - open_) or sorted(open_)
        if not names:
            raise
        raise GraphError(f"{error.text}; a file that was made for one size of {' or '.join(names)} works with that "
                         f"alone: give it, sizes={{{names[0]!r}: …}}", error.loc) from None


def _as_written(shape: Ints, x: Array) -> tuple[Any, ...]:
    """Sizes as x has them, where a file has the same in one quotient: it computes them from the inputs."""
    own = {flattened(atom): atom for atom in _quotients(x.shape)}
    known: dict[str, Dim] = {atom: Poly((((own[flat],), 1),)) for atom in _quotients(shape)
                             if (flat := flattened(atom)) in own and own[flat] != atom}
    return tuple(bind(d, known) for d in shape) if known else shape


def _quotients(shape: Sequence[Dim]) -> set[Quotient]:
    return {atom for d in shape if isinstance(d, Poly) for atom in d.atoms if isinstance(atom, Quotient)}


def flatten(x: Array, *, axis: int = 1) -> Array:
    axis = axis if axis == x.ndim else normalize_axis(axis, x.ndim)
    return x.reshape((prod(x.shape[:axis]), prod(x.shape[axis:])))


def squeeze(x: Array, axes: Ints | None = None, *, call: Call) -> Array:
    """Without axes all that are 1, of which named ones are taken to be none."""
    axes = tuple([i for i, d in enumerate(x.shape) if call.importer.are_same(d, 1)] if axes is None else axes)
    return gc.squeeze(x, axes) if axes else x


def unsqueeze(x: Array, axes: Ints) -> Array:
    return gc.expand_dims(x, axes)


def transpose(x: Array, *, perm: Sequence[int] | None = None) -> Array:
    return gc.transpose(x, perm)


def expand(x: Array, shape: Ints) -> Array:
    """To the shape that both broadcast to."""
    shape = _as_written(shape, x)
    rank = max(x.ndim, len(shape))
    own, wanted = (1,) * (rank - x.ndim) + x.shape, (1,) * (rank - len(shape)) + tuple(shape)
    return gc.broadcast_to(x, tuple(a if b == 1 else b for a, b in zip(own, wanted)))


def tile(x: Array, repeats: Ints) -> Array:
    if all(isinstance(n, int) for n in repeats):
        return gc.tile(x, repeats)
    for axis, times in enumerate(repeats):
        if times != 1:                          # copies behind one another: a new axis before the old one, merged
            wide = gc.broadcast_to(gc.expand_dims(x, axis), (*x.shape[:axis], times, *x.shape[axis:]))
            x = wide.reshape((*x.shape[:axis], times * x.shape[axis], *x.shape[axis + 1:]))
    return x


def concat(*xs: Array, axis: int) -> Array:
    return xs[0] if len(xs) == 1 else gc.concat(list(xs), axis)


def split(x: Array, split: Ints | None = None, *, axis: int = 0, num_outputs: int | None = None,
          call: Call) -> tuple[Array, ...]:
    """In parts of these sizes, or in equal ones, of which the last may be smaller."""
    if split is None:
        whole, parts = x.shape[normalize_axis(axis, x.ndim)], num_outputs or call.wanted
        part = ceil_div(whole, parts) if isinstance(whole, int) or num_outputs else whole // parts
        split = (*[part] * (parts - 1), whole - part * (parts - 1))
    return tuple(gc.split(x, sizes=split, axis=axis))


def slices(shape: Sequence[Dim], starts: Ints, ends: Ints, axes: Ints | None = None,
           steps: Ints | None = None) -> tuple[slice, ...]:
    """Python's slices of an array of this shape, in numpy's sense."""
    axes = tuple(range(len(starts))) if axes is None else axes
    steps = (1,) * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise GraphError("starts, ends, axes and steps differ in number")
    made = [slice(None)] * len(shape)
    for start, end, axis, step in zip(starts, ends, axes, steps):
        axis = normalize_axis(axis, len(shape))
        made[axis] = _slice(shape[axis], start, end, step)
    return tuple(made)


def _slice(size: Dim, start: Dim, end: Dim, step: Any) -> slice:
    if not isinstance(step, int) or step == 0:
        raise Unsupported(f"the step {step}")
    if step > 0:
        return slice(_clamped(start, size), None if _is_end(end, size) else _clamped(end, size), step)
    stop = None if isinstance(end, int) and (end <= -FAR or isinstance(size, int) and end < -size) else end
    last = isinstance(start, int) and (start == -1 or start >= FAR) or start == size - 1
    return slice(None if last else start, stop, step)


def _is_end(end: Dim, size: Dim) -> bool:
    return end == size or isinstance(end, int) and end >= FAR


def _clamped(bound: Dim, size: Dim) -> Dim:
    """A bound that lies inside where that is not known of it."""
    if isinstance(bound, int) and isinstance(size, int):
        return bound if bound < 0 else min(bound, size)
    if isinstance(bound, int):
        return bound
    try:
        return bound if bound <= size else smallest(bound, size)
    except Unsized:
        return bound


def slice_(x: Array, starts: Ints, ends: Ints, axes: Ints | None = None, steps: Ints | None = None) -> Array:
    return x[slices(x.shape, starts, ends, axes, steps)]


def eye_like(x: Operand, *, dtype: int | None = None, k: int = 0, call: Call) -> Array:
    type = type_of(x)
    wanted = type.dtype if dtype is None else call.importer.dtype(dtype)
    if type.rank != 2:
        raise GraphError(f"a matrix is wanted, got {type}")
    return gc.equal(gc.iota(type.shape, 0) + k, gc.iota(type.shape, 1)).astype(wanted)


def trilu(x: Array, k: Int = 0, *, upper: int = 1) -> Array:
    if isinstance(k, int):
        return gc.triu(x, k) if upper else gc.tril(x, k)
    above = gc.iota(x.shape, -1) - gc.iota(x.shape, -2) - count_of(k)
    return gc.where(above >= 0 if upper else above <= 0, x, gc.zeros((), x.dtype))


def range_(start: Known, limit: Known, delta: Known, *, stash_type: int = 1) -> Array:
    """Of named sizes: as many as there are whole steps."""
    first, last, step = (v.item("Range") for v in (start, limit, delta))
    if start.dtype.is_float and not (start.has_names or limit.has_names):
        computable(int(max(0, (last - first) / step)))
        return Known.of(np.arange(first, last, step), start.dtype).array()
    if not isinstance(step, int | float) or not step:
        raise Unsupported(f"steps of {step}")
    try:
        steps = rounded(ceil)(quotient(exact(last) - exact(first), exact(step)))
    except GraphError:
        raise Unsupported(f"steps of {step} from {first} to {last}") from None
    count = gc.arange(max(steps, 0) if isinstance(steps, int) else steps, dtype=start.dtype)
    count = count if step == 1 else count * step
    return count if first == 0 else count + Known.of(_objects([first]), start.dtype).array()


def depth_to_space(x: Array, *, blocksize: int, mode: str = "DCR") -> Array:
    n, c, h, w = x.shape
    b, deep = blocksize, c // (blocksize * blocksize)
    if choice(mode, "mode", ("DCR", "CRD")) == "CRD":
        return x.reshape((n, deep, b, b, h, w)).transpose(0, 1, 4, 2, 5, 3).reshape((n, deep, h * b, w * b))
    return x.reshape((n, b, b, deep, h, w)).transpose(0, 3, 4, 1, 5, 2).reshape((n, deep, h * b, w * b))


def space_to_depth(x: Array, *, blocksize: int, mode: str = "DCR") -> Array:
    n, c, h, w = x.shape
    b = blocksize
    x = x.reshape((n, c, h // b, b, w // b, b))
    order = (0, 3, 5, 1, 2, 4) if choice(mode, "mode", ("DCR", "CRD")) == "DCR" else (0, 1, 3, 5, 2, 4)
    return x.transpose(*order).reshape((n, c * b * b, h // b, w // b))


def pad(x: Array, pads: Ints, constant_value: Operand = None, axes: Ints | None = None, *, mode: str = "constant",
        value: float = 0.0) -> Array:
    """Negative numbers cut."""
    chosen = range(x.ndim) if axes is None else [normalize_axis(a, x.ndim) for a in axes]
    count = len(chosen)
    if len(pads) != 2 * count:
        raise GraphError(f"{len(pads)} pads for {count} axes")
    widths: list[tuple[Any, ...]] = [(0, 0)] * x.ndim
    for i, axis in enumerate(chosen):
        widths[axis] = (pads[i], pads[count + i])
    cut = [slice(-low if _negative(low) else None, high if _negative(high) else None) for low, high in widths]
    if any(s != slice(None) for s in cut):
        x = x[tuple(cut)]
    widths = [tuple(0 if _negative(width) else width for width in pair) for pair in widths]
    if not any(low or high for low, high in widths):
        return x
    if mode != "constant":
        return gc.pad(x, widths, mode=mode)
    if isinstance(constant_value, Array):
        inside = gc.pad(gc.ones(x.shape, gc.bool_), widths, value=False)
        return gc.where(inside, gc.pad(x, widths, value=x.dtype.kind != "bool" and 0), constant_value.reshape(()))
    number = value if constant_value is None else constant_value.item("constant_value")
    return gc.pad(x, widths, value=number if x.dtype.is_float else bool(number) if x.dtype == bool_ else int(number))


def _negative(width: Dim) -> bool:
    return isinstance(width, int) and width < 0


def center_crop_pad(x: Array, shape: Ints, *, axes: Sequence[int] | None = None) -> Array:
    chosen = range(x.ndim) if axes is None else normalize_axes_in_order(axes, x.ndim)
    for axis, wanted in zip(chosen, shape):
        have, lead = x.shape[axis], (slice(None),) * axis
        if wanted < have:
            start = (have - wanted) // 2
            x = x[(*lead, slice(start, start + wanted))]
        elif wanted > have:
            low = (wanted - have) // 2
            x = gc.pad(x, [(low, wanted - have - low) if i == axis else (0, 0) for i in range(x.ndim)])
    return x


def normalize_axes_in_order(axes: Sequence[int], rank: int) -> list[int]:
    """Counted from the front, in the order given; each once."""
    normalize_axes(tuple(axes), rank)
    return [normalize_axis(a, rank) for a in axes]


RULES: Mapping[str, Callable[..., Any]] = {
    "Shape": shape, "Size": size, "Constant": constant, "ConstantOfShape": constant_of_shape, "Reshape": reshape,
    "Flatten": flatten, "Squeeze": squeeze, "Unsqueeze": unsqueeze, "Transpose": transpose, "Expand": expand,
    "Tile": tile, "Concat": concat, "Split": split, "Slice": slice_, "EyeLike": eye_like, "Trilu": trilu,
    "Range": range_, "DepthToSpace": depth_to_space, "SpaceToDepth": space_to_depth, "Pad": pad,
    "CenterCropPad": center_crop_pad}
