"""Reading and writing at positions, embeddings."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import graphc as gc
from graphc.doors.torch.rules.promotion import as_type
from graphc.doors.torch.rules.shapes import axis_of
from graphc.errors import GraphError
from graphc.ir.types import bool_, f64, i64

Array = gc.Array
Rule = Callable[..., Any]
REDUCTIONS = {"sum": "add", "add": "add", "prod": "mul", "multiply": "mul", "mean": "mean", "amax": "max",
              "amin": "min"}


def unknown_size(name: str, instead: str) -> Rule:
    """A rule for what has as many elements as values say."""
    def rule(*_: Any, **__: Any) -> Any:
        raise GraphError(f"{name} has a size that depends on values, and sizes are known before a call: {instead}")
    return rule


def _index(x: Array, indices: Sequence[Array | None]) -> Array:
    """x[i, :, j]: numpy's rules for arrays of positions at any axes."""
    given = [(axis, i) for axis, i in enumerate(indices) if i is not None]
    if any(i.dtype is bool_ for _, i in given):
        raise GraphError("x[mask] has a size that depends on values, and sizes are known before a call: use "
                         "torch.where(mask, x, 0)")
    axes = [axis for axis, _ in given]
    if axes != list(range(axes[0], axes[0] + len(axes))):       # apart: their common axes come first
        rest = [a for a in range(x.ndim) if a not in axes]
        x, axes = x.transpose((*axes, *rest)), list(range(len(axes)))
    key: list[Any] = [slice(None)] * axes[0]
    return x[(*key, *(i for _, i in given))]


def _index_put(x: Array, indices: Sequence[Array | None], values: Array, accumulate: bool = False,
               *_: Any) -> Array:
    given = [(axis, i) for axis, i in enumerate(indices) if i is not None]
    if any(i.dtype is bool_ for _, i in given):
        return _masked_put(x, given, values, accumulate)
    axes = [axis for axis, _ in given]
    rest = [a for a in range(x.ndim) if a not in axes]
    order = (*axes, *rest)
    first = axes == list(range(axes[0], axes[0] + len(axes)))
    moved = x.transpose(order)
    shape: tuple[Any, ...] = ()
    for _axis, i in given:
        shape = _broadcast(shape, i.shape)
    around = tuple(x.shape[a] for a in range(axes[0])) if first else ()
    if first and around:                                        # values lie as x[...] reads: behind the first axes
        behind = tuple(x.shape[a] for a in range(axes[-1] + 1, x.ndim))
        values = gc.broadcast_to(values, (*around, *shape, *behind))
        values = gc.moveaxis(values, tuple(range(len(around), len(around) + len(shape))), tuple(range(len(shape))))
    put = gc.index_put(moved, tuple(i for _, i in given), values.astype(x.dtype), "add" if accumulate else "none")
    back = [0] * x.ndim
    for new, old in enumerate(order):
        back[old] = new
    return put.transpose(tuple(back))


def _broadcast(a: tuple[Any, ...], b: tuple[Any, ...]) -> tuple[Any, ...]:
    n = max(len(a), len(b))
    a, b = (1,) * (n - len(a)) + tuple(a), (1,) * (n - len(b)) + tuple(b)
    return tuple(q if p == 1 else p for p, q in zip(a, b))


def _masked_put(x: Array, given: Sequence[tuple[int, Array]], values: Array, accumulate: bool) -> Array:
    axis, mask = given[0]
    if len(given) > 1 or values.ndim and values.shape != (1,):
        raise GraphError("x[mask] = values: as many values as the mask says; one value, x[mask] = 0, is taken")
    mask = mask.reshape((*mask.shape, *(1,) * (x.ndim - axis - mask.ndim)))
    value = values.reshape(()).astype(x.dtype)
    return gc.where(mask, x + value if accumulate else value, x)


def _masked_fill(x: Array, mask: Array, value: Any) -> Array:
    return gc.where(mask, as_type(value, x.dtype), x)


def _masked_scatter(x: Array, mask: Array, source: Array) -> Array:
    mask = gc.broadcast_to(mask, x.shape)
    at = gc.cumsum(mask.flatten().astype(i64), 0) - 1
    return gc.where(mask, gc.take(source.flatten(), gc.maximum(at, 0), 0).reshape(x.shape), x)


def _lifted(x: Array) -> Array:
    return x if x.ndim else x.reshape(1)


def _gather(x: Array, dim: int, index: Array, **_: Any) -> Array:
    if not index.ndim or not x.ndim:
        return gc.take_along_axis(_lifted(x), _lifted(index), 0).reshape(index.shape)
    axis = axis_of(dim, x.ndim)
    key = tuple(slice(None) if a == axis else slice(0, n) for a, n in enumerate(index.shape))
    same = all(a == axis or n == m for a, (n, m) in enumerate(zip(index.shape, x.shape)))
    return gc.take_along_axis(x if same else x[key], index, axis)


def _scatter(x: Array, dim: int, index: Array, source: Any, *, reduce: str | None = None,
             include_self: bool = True) -> Array:
    rule = "none" if reduce is None else REDUCTIONS[reduce]
    if not isinstance(source, Array) or source.ndim < index.ndim:
        source = gc.broadcast_to(as_type(source, x.dtype), index.shape)
    y = gc.scatter_along_axis(_lifted(x), _lifted(index), _lifted(source.astype(x.dtype)),
                              axis_of(dim, max(x.ndim, 1)), rule, include_self, partial=True)
    return y if x.ndim else y.reshape(())


def _scatter_reduce(x: Array, dim: int, index: Array, source: Array, reduce: str, *,
                    include_self: bool = True) -> Array:
    return _scatter(x, dim, index, source, reduce=reduce, include_self=include_self)


def _index_select(x: Array, dim: int, index: Array) -> Array:
    if not x.ndim:
        return x
    return gc.take(x, _lifted(index), axis_of(dim, x.ndim))


def _index_write(reduction: str) -> Rule:
    def rule(x: Array, dim: int, index: Array, source: Any, *, alpha: Any = 1) -> Array:
        source = as_type(source, x.dtype)
        source = source if alpha == 1 else source * as_type(alpha, x.dtype)
        y = gc.scatter(_lifted(x), _lifted(index), _lifted(source), axis_of(dim, max(x.ndim, 1)), reduction)
        return y.reshape(x.shape)
    return rule


def _index_reduce(x: Array, dim: int, index: Array, source: Array, reduce: str, *,
                  include_self: bool = True) -> Array:
    x, source = _lifted(x), _lifted(source)
    axis = axis_of(dim, x.ndim)
    index = gc.broadcast_to(_lifted(index).reshape((-1, *(1,) * (x.ndim - 1 - axis))), source.shape)
    return _scatter(x, axis, index, source, reduce=reduce, include_self=include_self)


def _take(x: Array, index: Array) -> Array:
    return gc.take(x.flatten(), index, 0)


def _put(x: Array, index: Array, source: Array, accumulate: bool = False) -> Array:
    return gc.scatter(x.flatten(), index.flatten(), source.flatten(), 0, "add" if accumulate else "none").reshape(
        x.shape)


def _embedding(table: Array, ids: Array, padding_idx: int = -1, *_: Any, **__: Any) -> Array:
    """Rows of a table; the row `padding_idx` gets no gradient."""
    rows = gc.embedding(table, ids)
    if padding_idx < 0:
        return rows
    return gc.where(gc.expand_dims(gc.equal(ids, padding_idx), ids.ndim), gc.stop_gradient(rows), rows)


def _embedding_bag(table: Array, ids: Array, offsets: Array, scale_grad: bool = False, mode: int = 0,
                   sparse: bool = False, weights: Array | None = None, include_last_offset: bool = False,
                   padding_idx: int = -1) -> tuple[Array, Array, Array, Array]:
    """Sums (0), means (1) or maxima (2) of rows over bags that begin at `offsets`; then the bag of each row, the sizes
    of bags, and which rows of the table have the maxima, in the shapes that PyTorch's kernels leave them in."""
    bags = offsets.shape[0] - include_last_offset
    offsets = offsets[:bags]
    bag = gc.searchsorted(offsets, gc.iota(ids.shape, 0).astype(offsets.dtype), side="right").astype(i64) - 1
    counted = gc.ones(ids.shape, table.dtype)
    if padding_idx >= 0:
        counted = gc.not_equal(ids, padding_idx).astype(table.dtype)
    rows = gc.embedding(table, ids)
    sizes = gc.scatter_add(gc.zeros((bags,), table.dtype), bag, counted)
    if mode == 2:
        low = gc.where(gc.expand_dims(counted, 1) > 0, rows, as_type(-float("inf"), table.dtype))
        y, at = _bag_maxima(low, ids.astype(i64), bag, bags)
        return gc.where(gc.expand_dims(sizes, 1) > 0, y, as_type(0, table.dtype)), bag, sizes.astype(i64), at
    scale = counted if weights is None else counted * weights
    y = gc.scatter_add(gc.zeros((bags, table.shape[1]), table.dtype), bag, rows * gc.expand_dims(scale, 1))
    y = y / gc.maximum(gc.expand_dims(sizes, 1), 1) if mode == 1 else y
    if mode == 0 and padding_idx < 0 and table.dtype is not f64:        # of a faster kernel, which has no use for them
        bag = gc.zeros((0,), i64)
    return y, bag, sizes.astype(i64), gc.zeros((bags,), i64)


def _bag_maxima(rows: Array, ids: Array, bag: Array, bags: Any) -> tuple[Array, Array]:
    """The maxima of the rows of each bag, and the ids of the rows that have them first."""
    count, shape = as_type(ids.shape[0], i64), (bags, rows.shape[1])
    y = gc.scatter(gc.full(shape, -float("inf"), rows.dtype), bag, rows, 0, "max")
    places = gc.where(gc.equal(rows, gc.take(y, bag, 0)), gc.expand_dims(gc.iota(ids.shape).astype(i64), 1), count)
    first = gc.scatter(gc.full(shape, count, i64), bag, places, 0, "min")
    return y, gc.take(gc.concat([ids, gc.zeros((1,), i64)], 0), first, 0)


def _one_hot(ids: Array, classes: int = -1) -> Array:
    if classes < 0:
        raise GraphError("one_hot without num_classes has a size that depends on values: give num_classes=")
    return gc.one_hot(ids, classes, i64)


RULES: dict[str, Rule] = {
    "index.Tensor": _index, "_unsafe_index.Tensor": _index, "index_put.default": _index_put,
    "_unsafe_index_put.default": _index_put, "_index_put_impl.default": _index_put,
    **{f"masked_fill.{form}": _masked_fill for form in ("Scalar", "Tensor")},
    "masked_scatter.default": _masked_scatter, "gather.default": _gather,
    "scatter.src": _scatter, "scatter.value": _scatter, "scatter.reduce": _scatter, "scatter.value_reduce": _scatter,
    "scatter_add.default": lambda x, dim, index, source: _scatter(x, dim, index, source, reduce="sum"),
    "scatter_reduce.two": _scatter_reduce, "index_select.default": _index_select,
    "index_add.default": _index_write("add"), "index_copy.default": _index_write("none"),
    "index_reduce.default": lambda x, *args, **named: _index_reduce(x, *args, **named).reshape(x.shape),
    "index_fill.int_Scalar": _index_write("none"), "index_fill.int_Tensor": _index_write("none"),
    "take.default": _take, "put.default": _put, "embedding.default": _embedding,
    "_embedding_bag.default": _embedding_bag, "_embedding_bag_forward_only.default": _embedding_bag,
    "one_hot.default": _one_hot,
    "nonzero.default": unknown_size("nonzero", "use torch.where(mask, x, 0)"),
    "masked_select.default": unknown_size("masked_select", "use torch.where(mask, x, 0)"),
    "_local_scalar_dense.default": unknown_size("tensor.item()", "keep it a tensor"),
    "item.default": unknown_size("tensor.item()", "keep it a tensor"),
    "unique_consecutive.default": unknown_size("unique", "count with scatter_add"),
    "_unique2.default": unknown_size("unique", "count with scatter_add"),
}
