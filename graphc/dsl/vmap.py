"""A graph for one example as a graph for many."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphc.contained import contained
from graphc.dsl.context import user_loc
from graphc.dsl.control import scan
from graphc.dsl.form import formed
from graphc.dsl.function import GraphFunction, finish
from graphc.dsl.shape import moveaxis
from graphc.dsl.trace import Trace
from graphc.dsl.transforms import follow
from graphc.dsl.tree import tree_map
from graphc.errors import GraphError
from graphc.ir.convert import integer, is_integer, is_sequence, shown
from graphc.ir.dim_text import as_dim
from graphc.ir.dims import Dim
from graphc.ir.graph import Value
from graphc.ir.types import TensorType

Axes = int | None | Sequence[int | None] | Mapping[str, int]


@formed
@contained
def vmap(f: GraphFunction, in_axes: Axes = 0, *, out_axis: int = 0, size: int | str = "B") -> GraphFunction:
    """`f`, a graph for one example, for `size` of them (a number, or a named dimension): every mapped input gets an
    axis of that size, every output one at `out_axis`.

    in_axes: where the axis is, for all inputs; or one for each, None for an input that all examples share; or a dict
    of those that are mapped. The result is that of a loop over the examples, and operators that work on all of them at
    once (products, elementwise ones, reductions) are taken out of it. Gradients of each example:
    `gc.vmap(gc.grad(loss, "w"), {"x": 0, "y": 0})`. Random numbers differ between examples.

    Examples:
        >>> @gc.graph
        ... def loss(w: gc.f64[2], x: gc.f64[2]):
        ...     return gc.sum(w * x) ** 2
        >>> each = gc.vmap(gc.grad(loss, "w"), {"x": 0})
        >>> each(np.array([1.0, 1.0]), np.array([[1.0, 2.0], [0.0, 1.0]]))
        array([[ 6., 12.],
               [ 0.,  2.]])
    """
    if not isinstance(f, GraphFunction):
        raise GraphError(f"gc.vmap takes a graph for one example, got {type(f).__name__}: put @gc.graph above the "
                         "function", user_loc())
    axes, count = _axes(f, in_axes), as_dim(size)
    if isinstance(size, str) and size in f.graph.dim_names:
        raise GraphError(f"{f.name} has a dimension {size!r} already: give vmap another, size=\"N\", say", user_loc())
    out_axis = integer(out_axis, "vmap: out_axis", -8, 8, user_loc())
    with Trace(f"vmap_{f.name}", f.training) as trace:
        inputs = [trace.input(v.name, _widened(v, axis, count)) for v, axis in zip(f.graph.inputs, axes)]
        mapped = tuple(moveaxis(x, axis, 0) for x, axis in zip(inputs, axes) if axis is not None)

        def one(carry: Any, rows: Any) -> Any:
            left = iter(rows)
            return carry, f(*(x if axis is None else next(left) for x, axis in zip(inputs, axes)))
        _, found = scan(one, (), mapped)
        made = finish(trace, tree_map(lambda y: moveaxis(y, 0, out_axis), found), f.loc, f.constants)
    return follow(made, f, lambda other: vmap(other, in_axes, out_axis=out_axis, size=size))


def _axes(f: GraphFunction, given: Any) -> list[int | None]:
    """One for each input: where the axis of examples is; None where there is none."""
    names = [v.name for v in f.graph.inputs]
    if isinstance(given, Mapping):
        unknown = [n for n in given if n not in names]
        if unknown:
            raise GraphError(f"{f.name} has no argument {unknown[0]!r}; it has {', '.join(names)}", user_loc())
        listed: list[Any] = [given.get(name) for name in names]
    else:
        listed = list(given) if is_sequence(given) else [given] * len(names)
    if len(listed) != len(names) or not all(a is None or is_integer(a) for a in listed):
        raise GraphError(f"in_axes is an int, one int or None for each of {', '.join(names)}, or a dict, got "
                         f"{shown(given)}", user_loc())
    if all(a is None for a in listed):
        raise GraphError(f"vmap of {f.name}: no input is mapped, in_axes={shown(given)}", user_loc())
    return [None if a is None else _within(a, v) for a, v in zip(listed, f.graph.inputs)]


def _within(axis: Any, v: Value) -> int:
    rank = v.type.rank + 1
    found = integer(axis, f"in_axes of {v.name}", -rank, rank - 1, user_loc())
    return found % rank


def _widened(v: Value, axis: int | None, count: Dim) -> TensorType:
    if axis is None:
        return v.type
    return TensorType(v.type.dtype, (*v.type.shape[:axis], count, *v.type.shape[axis:]))
