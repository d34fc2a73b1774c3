"""Operators that move, join, cut or make arrays."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

import graphc as gc
from graphc.doors.torch.rules.promotion import as_type, promoted_type, size_array
from graphc.dsl.array import as_array
from graphc.errors import GraphError
from graphc.ir.dims import Dim

Array = gc.Array
Rule = Callable[..., Any]
END = 1 << 62                   # PyTorch writes the greatest integer for "to the end"


def axis_of(dim: int, rank: int) -> int:
    """A dimension counted from the end as PyTorch counts, from the front."""
    return dim + max(rank, 1) if dim < 0 else dim


def axes_of(dims: Any, rank: int) -> tuple[int, ...]:
    """The dimensions of a reduction: None and () are all of them."""
    if dims is None or (isinstance(dims, Sequence) and not dims):
        return tuple(range(rank))
    return tuple(axis_of(d, rank) for d in ((dims,) if isinstance(dims, int) else dims))


def cut(x: Array, axis: int, start: Any, stop: Any, step: Any = 1) -> Array:
    """x[start:stop:step] along an axis, with sizes that may be named."""
    size = x.shape[axis]
    start = _bound(0 if start is None else start, size)
    stop = _bound(size if stop is None else stop, size)
    if isinstance(start, int) and isinstance(stop, int) and stop < start:
        stop = start
    key: list[Any] = [slice(None)] * x.ndim
    key[axis] = slice(start, stop, step)
    return x[tuple(key)]


def _bound(place: Any, size: Dim) -> Any:
    if not isinstance(place, int):
        return place
    if place >= END or (isinstance(size, int) and place > size):
        return size
    if place < 0:
        place = size + place
        return max(place, 0) if isinstance(place, int) else place
    return place


def _shape(x: Array, sizes: Sequence[Any]) -> tuple[Any, ...]:
    """The sizes of a view, the one -1 computed also where others are named."""
    sizes = list(sizes)
    if -1 in [s for s in sizes if isinstance(s, int)]:
        at = next(i for i, s in enumerate(sizes) if isinstance(s, int) and s == -1)
        rest = prod(s for i, s in enumerate(sizes) if i != at)
        whole = prod(x.shape)
        sizes[at] = 0 if isinstance(rest, int) and rest == 0 else whole // rest
    return tuple(sizes)


def view(x: Array, sizes: Sequence[Any]) -> Array:
    """The same elements in another shape."""
    wanted = _shape(x, sizes)
    return x if wanted == x.shape else x.reshape(wanted)


def expand(x: Array, sizes: Sequence[Any], *, implicit: bool = False) -> Array:
    """x repeated along axes of size 1 and new first axes; -1 keeps a size."""
    new = len(sizes) - x.ndim
    wanted = tuple(x.shape[i - new] if isinstance(s, int) and s == -1 else s for i, s in enumerate(sizes))
    return x if wanted == x.shape else gc.broadcast_to(x, wanted)


def permute(x: Array, dims: Sequence[int]) -> Array:
    """Axes in another order."""
    return x.transpose(tuple(axis_of(d, x.ndim) for d in dims)) if x.ndim else x


def _transpose(x: Array, first: int, second: int) -> Array:
    return x.swapaxes(axis_of(first, x.ndim), axis_of(second, x.ndim)) if x.ndim else x


def _select(x: Array, dim: int, index: Any) -> Array:
    axis = axis_of(dim, x.ndim)
    if isinstance(index, Array):
        return gc.take(x, index, axis)
    if isinstance(index, int):
        key: list[Any] = [slice(None)] * x.ndim
        key[axis] = index
        return x[tuple(key)]
    return cut(x, axis, index, index + 1).squeeze(axis)


def _slice(x: Array, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Array:
    return cut(x, axis_of(dim, x.ndim), start, end, step)


def _split(x: Array, sizes: Any, dim: int = 0) -> tuple[Array, ...]:
    axis = axis_of(dim, x.ndim)
    if not isinstance(sizes, Sequence):
        sizes = _equal_parts(x.shape[axis], sizes)
    starts, at = [], 0
    for size in sizes:
        starts.append((at, at + size))
        at = at + size
    return tuple(cut(x, axis, start, stop) for start, stop in starts)


def _equal_parts(size: Dim, part: Any) -> list[Any]:
    if not isinstance(size, int) or not isinstance(part, int):
        count = size // part
        if not isinstance(count, int):
            raise GraphError(f"split into parts of {part} along a dimension {size}, whose number of parts is not known")
        return [part] * count
    return [min(part, size - at) for at in range(0, size, part)] if size else [0]


def _chunk(x: Array, chunks: int, dim: int = 0) -> tuple[Array, ...]:
    size = x.shape[axis_of(dim, x.ndim)]
    part = -(-size // chunks) if isinstance(size, int) else size // chunks
    return _split(x, part, dim)


def _tensor_split(x: Array, parts: Any, dim: int = 0) -> tuple[Array, ...]:
    axis = axis_of(dim, x.ndim)
    size: Any = x.shape[axis]
    if isinstance(parts, int):
        each, more = divmod(size, parts)
        return _split(x, [each + (i < more) for i in range(parts)], dim)
    ends = [*parts, size]
    return tuple(cut(x, axis, start, stop) for start, stop in zip([0, *parts], ends))


def concat(arrays: Sequence[Array], dim: int = 0) -> Array:
    """Joined along an axis; empty arrays of one axis do not count, as in PyTorch."""
    rank = max(a.ndim for a in arrays)
    kept = [a for a in arrays if not (a.ndim == 1 and a.shape == (0,) and rank > 1)] or list(arrays[:1])
    dtype = kept[0].dtype
    for a in arrays:
        dtype = promoted_type(dtype, a.dtype)
    kept = [as_type(a, dtype) for a in kept]
    return kept[0] if len(kept) == 1 else gc.concat(kept, axis_of(dim, rank))


def _stack(arrays: Sequence[Array], dim: int = 0) -> Array:
    rank = arrays[0].ndim + 1
    return concat([gc.expand_dims(a, axis_of(dim, rank)) for a in arrays], dim)


def _squeeze(x: Array, dims: Any = None) -> Array:
    dims = range(x.ndim) if dims is None else (dims,) if isinstance(dims, int) else dims
    axes = tuple(a for a in (axis_of(d, x.ndim) for d in dims) if x.ndim and x.shape[a] == 1)
    return x.squeeze(axes) if axes else x


def _repeat(x: Array, repeats: Sequence[Any]) -> Array:
    """x as a tile, with sizes that may be named."""
    shape = (*(1,) * (len(repeats) - x.ndim), *x.shape)
    pairs = [(r, s) for r, s in zip(repeats, shape)]
    x = x.reshape(tuple(d for _, s in pairs for d in (1, s)))
    x = gc.broadcast_to(x, tuple(d for pair in pairs for d in pair))
    return x.reshape(tuple(r * s for r, s in pairs))


def _pad(x: Array, widths: Sequence[Any], value: Any = 0) -> Array:
    """Numbers before and after, the last axis first; negative ones cut off."""
    pairs = [(widths[i], widths[i + 1]) for i in range(0, len(widths), 2)]
    for k, (before, after) in enumerate(pairs):
        axis = x.ndim - 1 - k
        if any(isinstance(n, int) and n < 0 for n in (before, after)):
            x = cut(x, axis, max(-before, 0), x.shape[axis] - max(-after, 0))
    around = [(0, 0)] * (x.ndim - len(pairs)) + [tuple(max(n, 0) if isinstance(n, int) else n for n in pair)
                                                 for pair in reversed(pairs)]
    return gc.pad(x, around, value) if any(n != 0 for pair in around for n in pair) else x


# which element of n is at a place before or behind them
BEYOND: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "edge": lambda at, n: np.clip(at, 0, n - 1),
    "reflect": lambda at, n: np.where(at < 0, -at, np.where(at < n, at, 2 * (n - 1) - at))}


def _mirror(mode: str) -> Rule:
    def rule(x: Array, widths: Sequence[int]) -> Array:
        pairs = [(widths[i], widths[i + 1]) for i in range(0, len(widths), 2)]
        around = [(0, 0)] * (x.ndim - len(pairs)) + [(0, 0) if min(pair) < 0 else pair for pair in reversed(pairs)]
        for k, (before, after) in enumerate(pairs):
            axis = x.ndim - 1 - k
            size: Any = x.shape[axis]
            if min(before, after) < 0:              # what is cut off on one side is still repeated on the other
                x = gc.take(x, as_array(BEYOND[mode](np.arange(-before, size + after), size)), axis)
        return gc.pad(x, around, mode=mode) if any(pair != (0, 0) for pair in around) else x
    return rule


def _roll(x: Array, shifts: Any, dims: Any = ()) -> Array:
    shifts = (shifts,) if isinstance(shifts, int) else tuple(shifts)
    dims = (dims,) if isinstance(dims, int) else tuple(dims)
    if not dims:
        return gc.roll(x.flatten(), shifts[0], 0).reshape(x.shape)
    for shift, dim in zip(shifts, dims):
        x = gc.roll(x, shift, axis_of(dim, x.ndim))
    return x


def _slice_scatter(x: Array, source: Array, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Array:
    axis = axis_of(dim, x.ndim)
    size = x.shape[axis]
    start, end = _bound(0 if start is None else start, size), _bound(size if end is None else end, size)
    if step == 1:
        return concat([cut(x, axis, 0, start), source.astype(x.dtype), cut(x, axis, end, size)], axis)
    places = gc.arange(start, end, step)
    return gc.scatter(x, places, source, axis)


def _select_scatter(x: Array, source: Array, dim: int, index: int) -> Array:
    axis = axis_of(dim, x.ndim)
    at: Any = x.shape[axis] + index if index < 0 else index
    return _slice_scatter(x, gc.expand_dims(source, axis), axis, at, at + 1)


def _diagonal_scatter(x: Array, source: Array, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Array:
    first, second = axis_of(dim1, x.ndim), axis_of(dim2, x.ndim)
    moved = gc.moveaxis(x, (first, second), (x.ndim - 2, x.ndim - 1))
    rows, columns = (gc.iota(moved.shape[-2:], a) for a in (0, 1))
    count, top, left = source.shape[-1], max(-offset, 0), max(offset, 0)
    placed = _pad(gc.expand_dims(source, source.ndim), (0, moved.shape[-1] - 1, top, moved.shape[-2] - top - count))
    shifted = gc.take_along_axis(placed, gc.broadcast_to(gc.expand_dims(gc.iota((moved.shape[-1],)) * 0, 0),
                                                         placed.shape), -1)
    found = gc.where(gc.equal(columns - rows, left - top), shifted.astype(x.dtype), moved)
    return gc.moveaxis(found, (x.ndim - 2, x.ndim - 1), (first, second))


def _diagonal(x: Array, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Array:
    return gc.diagonal(x, offset, axis_of(dim1, x.ndim), axis_of(dim2, x.ndim))


def _places(x: Array, size: Sequence[int], stride: Sequence[int], offset: int | None) -> Array:
    """The positions in a flat x that a view by places in memory has."""
    if not all(isinstance(n, int) for n in (*size, *stride, *x.shape)):
        raise GraphError("as_strided needs known sizes")
    places = np.full(tuple(size), offset or 0, np.int64)
    for place, (count, step) in enumerate(zip(size, stride)):
        places += (np.arange(count) * step).reshape(-1, *(1,) * (len(size) - place - 1))
    return as_array(places)


def _as_strided(x: Array, size: Sequence[int], stride: Sequence[int], offset: int | None = None) -> Array:
    """Elements by their places in memory, as PyTorch stores a contiguous x."""
    return gc.take(x.flatten(), _places(x, size, stride, offset), 0)


def _as_strided_scatter(x: Array, source: Array, size: Sequence[int], stride: Sequence[int],
                        offset: int | None = None) -> Array:
    """x with the elements of such a view replaced."""
    places = _places(x, size, stride, offset)
    return gc.scatter(x.flatten(), places.flatten(), source.astype(x.dtype).flatten(), 0).reshape(x.shape)


def _unfold(x: Array, dim: int, size: int, step: int) -> Array:
    axis = axis_of(dim, x.ndim)
    if not x.ndim:
        return x.reshape(1)
    count: Any = (x.shape[axis] - size) // step + 1
    places = np.arange(count)[:, None] * step + np.arange(size)
    y = gc.take(x, as_array(places), axis)              # [..., count, size, ...]
    return gc.moveaxis(y, axis + 1, y.ndim - 1)


def _meshgrid(arrays: Sequence[Array], indexing: str = "ij") -> tuple[Array, ...]:
    return gc.meshgrid(*(a.reshape(-1) for a in arrays), indexing=indexing)


def _repeat_each(x: Array, repeats: Any, dim: int | None = None, **_: Any) -> Array:
    if isinstance(repeats, Array):
        raise GraphError("repeat_interleave with different numbers of repeats has a size that depends on values")
    x, axis = (x.flatten(), 0) if dim is None else (x, axis_of(dim, x.ndim))
    return gc.repeat(x, repeats, axis)


def _diag_embed(x: Array, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Array:
    n = x.shape[-1] + abs(offset)
    rows, columns = gc.iota((n, n), 0), gc.iota((n, n), 1)
    padded = _pad(x, (max(offset, 0), max(-offset, 0)))
    y = gc.where(gc.equal(columns - rows, offset), gc.expand_dims(padded, x.ndim - 1), as_type(0, x.dtype))
    rank = x.ndim + 1
    return gc.moveaxis(y, (-2, -1), (axis_of(dim1, rank), axis_of(dim2, rank)))


def _flatten(x: Array, start: int = 0, end: int = -1) -> Array:
    if not x.ndim:
        return x.reshape(1)
    start, end = axis_of(start, x.ndim), axis_of(end, x.ndim)
    return x.reshape((*x.shape[:start], prod(x.shape[start:end + 1]), *x.shape[end + 1:]))


def _unflatten(x: Array, dim: int, sizes: Sequence[Any]) -> Array:
    axis = axis_of(dim, x.ndim)
    inner = list(sizes)
    if -1 in [s for s in inner if isinstance(s, int)]:
        rest = prod(s for s in inner if not (isinstance(s, int) and s == -1))
        inner[inner.index(-1)] = x.shape[axis] // rest
    return x.reshape((*x.shape[:axis], *inner, *x.shape[axis + 1:]))


RULES: dict[str, Rule] = {
    **{name: view for name in ("view.default", "_unsafe_view.default", "reshape.default")},
    "_reshape_alias.default": lambda x, size, stride: view(x, size), "view_copy.default": view,
    "view_as.default": lambda x, other: view(x, other.shape), "flatten.using_ints": _flatten,
    "reshape_as.default": lambda x, other: view(x, other.shape), "unflatten.int": _unflatten,
    "expand.default": expand, "expand_as.default": lambda x, other: expand(x, other.shape),
    "broadcast_to.default": expand, "permute.default": permute, "transpose.int": _transpose,
    "t.default": lambda x: x.transpose(), "numpy_T.default": lambda x: x.transpose(),
    "swapaxes.default": _transpose, "swapdims.default": _transpose,
    "movedim.intlist": lambda x, a, b: gc.moveaxis(x, tuple(a), tuple(b)), "movedim.int": gc.moveaxis,
    "select.int": _select, "slice.Tensor": _slice, "narrow.default": lambda x, dim, start, length: cut(
        x, axis_of(dim, x.ndim), start, start + length if not (isinstance(start, int) and start < 0)
        else x.shape[axis_of(dim, x.ndim)] + start + length),
    "split.Tensor": _split, "split_with_sizes.default": _split, "split.sizes": _split, "chunk.default": _chunk,
    "unsafe_split.Tensor": _split, "unsafe_chunk.default": _chunk, "tensor_split.sections": _tensor_split,
    "tensor_split.indices": _tensor_split, "unbind.int": lambda x, dim=0: tuple(
        _select(x, dim, i) for i in range(x.shape[axis_of(dim, x.ndim)])),
    "cat.default": concat, "concat.default": concat, "stack.default": _stack, "squeeze.default": _squeeze,
    "squeeze.dim": _squeeze, "squeeze.dims": _squeeze,
    "unsqueeze.default": lambda x, dim: gc.expand_dims(x, axis_of(dim, x.ndim + 1)),
    "repeat.default": _repeat, "tile.default": lambda x, dims: _repeat(x, (1,) * (x.ndim - len(dims)) + tuple(dims)),
    "repeat_interleave.self_int": _repeat_each, "repeat_interleave.self_Tensor": _repeat_each,
    "constant_pad_nd.default": _pad, "flip.default": lambda x, dims: gc.flip(x, axes_of(dims, x.ndim)) if dims else x,
    "fliplr.default": gc.fliplr, "flipud.default": gc.flipud, "rot90.default": lambda x, k=1, dims=(0, 1): gc.rot90(
        x, k, tuple(dims)),
    **{f"reflection_pad{n}d.default": _mirror("reflect") for n in (1, 2, 3)},
    **{f"replication_pad{n}d.default": _mirror("edge") for n in (1, 2, 3)},
    "roll.default": _roll, "slice_scatter.default": _slice_scatter, "select_scatter.default": _select_scatter,
    "diagonal.default": _diagonal, "diagonal_scatter.default": _diagonal_scatter,
    "diag_embed.default": _diag_embed, "as_strided.default": _as_strided,
    "as_strided_scatter.default": _as_strided_scatter,
    "unfold.default": _unfold,
    "resize_.default": lambda x, size, **_: view(x, size) if prod(size) == prod(x.shape) else
    x.flatten()[:prod(size)].reshape(tuple(size)),
    "pixel_shuffle.default": lambda x, factor: gc.pixel_shuffle(x, factor),
    "pixel_unshuffle.default": lambda x, factor: gc.pixel_unshuffle(x, factor),
    "channel_shuffle.default": lambda x, groups: gc.channel_shuffle(x, groups),
    "native_channel_shuffle.default": lambda x, groups: gc.channel_shuffle(x, groups),
    "meshgrid.default": _meshgrid, "meshgrid.indexing": lambda arrays, *, indexing: _meshgrid(arrays, indexing),
    "sym_size.int": lambda x, dim: x.shape[axis_of(dim, x.ndim)], "sym_numel.default": lambda x: prod(x.shape),
    "sym_stride.int": lambda x, dim: prod(x.shape[axis_of(dim, x.ndim) + 1:]),
    "sym_storage_offset.default": lambda x: 0, "sym_is_contiguous.default": lambda x, *_: True,
    "numel.default": lambda x: size_array(prod(x.shape)),
}
# copies of what are views otherwise: arrays here are both
RULES |= {f"{name}_copy.{form}": RULES[f"{name}.{form}"] for name, form in (
    ("as_strided", "default"), ("diagonal", "default"), ("expand", "default"), ("narrow", "default"),
    ("permute", "default"), ("select", "int"), ("slice", "Tensor"), ("split", "Tensor"),
    ("split_with_sizes", "default"), ("squeeze", "default"), ("squeeze", "dim"), ("squeeze", "dims"), ("t", "default"),
    ("transpose", "int"), ("unbind", "int"), ("unfold", "default"), ("unsqueeze", "default"))}
