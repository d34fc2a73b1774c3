"""Loops and branches. Bodies are traced once; arrays from outside that they use are passed to them automatically.

Carries and results may be arrays or nested tuples, lists and dicts of them.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.dsl.array import Array, as_array, emit_all
from graphc.dsl.context import current_trace
from graphc.dsl.debug import note
from graphc.dsl.form import formed
from graphc.dsl.shape import iota
from graphc.dsl.trace import Trace
from graphc.dsl.tree import Structure, flatten, tree_map, unflatten
from graphc.errors import GraphError
from graphc.ir.convert import callable_, flag, integer
from graphc.ir.dim_text import as_dim
from graphc.ir.dims import Dim
from graphc.ir.graph import Graph, Value
from graphc.ir.types import TensorType, i64


@formed
def scan(f: Callable, init: Any, xs: Any = None, length: Dim | None = None, reverse: bool = False) -> tuple[Any, Any]:
    """A loop that stays a loop: f(carry, x) -> (carry, y) for each x along axis 0 of the arrays of `xs`.

    Returns (last carry, the ys stacked along axis 0). `y` may be None; without `xs` x is None and `length` counts.
    `reverse`: from the last x to the first, ys in the places of their xs. The carry keeps its structure, shapes and
    dtypes. As jax.lax.scan.

    Examples:
        >>> @gc.graph
        ... def sums(x: gc.f64["T"]):
        ...     def body(carry, x):
        ...         return carry + x, carry + x
        ...     return gc.scan(body, gc.zeros((), gc.f64), x)[1]
        >>> sums(np.array([1.0, 2.0, 3.0]))
        array([1., 3., 6.])
    """
    callable_(f, "the body of scan")
    reverse = flag(reverse, "scan: reverse")
    carries, carry_tree = flatten(tree_map(as_array, init))
    stacked, x_tree = flatten(tree_map(as_array, xs))
    length = _length(stacked, length)
    with Trace("step", parent=current_trace(), loop=True) as body:
        body.prints = None if body.parent is None or body.parent.prints is None else []
        cs = _inputs(body, "carry", [c.type for c in carries])
        elements = _inputs(body, "x", [x.type.with_shape(x.shape[1:]) for x in stacked])
        result = f(unflatten(carry_tree, cs), unflatten(x_tree, elements))
        if not isinstance(result, tuple) or len(result) != 2:
            raise GraphError(f"the body of scan returns (carry, y), y may be None; it returned {_kind(result)}")
        new = _carried("scan", result[0], carry_tree, cs)
        ys, y_tree = flatten(tree_map(as_array, result[1]))
        printed = body.prints or []
        shown = [Array(v, body) for each in printed for v in each.values or (body.value(as_array(0)),)]
    if body.iteration is not None:
        elements, stacked = [*elements, body.iteration], [*stacked, iota(length, dtype=i64)]
    if not new and not ys:
        raise GraphError("scan with no carry and no y computes nothing")
    results = len(new) + len(ys)
    ys += shown                         # what is printed is stacked, too
    captured, (region,) = _regions((body, cs + elements, new + ys))
    outs = emit_all("scan", *carries, *stacked, *captured, body=region, carries=len(carries), xs=len(stacked),
                    length=length, reverse=reverse)
    stacks = (y.value for y in outs[results:])
    for each in printed:
        note(current_trace(), each.in_loop(stacks, reverse))
    return unflatten(carry_tree, outs[:len(new)]), unflatten(y_tree, outs[len(new):results])


@formed
def cond(pred: Array, then: Callable, otherwise: Callable, *args: Any) -> Any:
    """then(*args) if the bool scalar `pred` is true, else otherwise(*args); only one of them runs. Both return the
    same structure and types.

    To choose element by element use `where`.

    Examples:
        >>> @gc.graph
        ... def f(x: gc.f64[2]):
        ...     return gc.cond(gc.sum(x) > 0, lambda x: x, lambda x: -x, x)
        >>> f(np.array([1.0, -3.0]))
        array([-1.,  3.])
    """
    callable_(then, "the branch of cond for True"), callable_(otherwise, "the branch of cond for False")
    if isinstance(pred, (bool, np.bool_)):
        return then(*args) if pred else otherwise(*args)
    args = tuple(tree_map(as_array, a) for a in args)
    yes, yes_results, tree = _branch("then", then, args)
    no, no_results, other = _branch("otherwise", otherwise, args)
    if tree != other:
        raise GraphError(f"the branches of cond return different structures: {_text(tree)} and {_text(other)}")
    captured, bodies = _regions((yes, [], yes_results), (no, [], no_results))
    return unflatten(tree, emit_all("cond", pred, *captured, then_body=bodies[0], else_body=bodies[1]))


@formed
def while_loop(condition: Callable, body: Callable, init: Any, max_trips: int) -> tuple[Array, Any]:
    """Repeats carry = body(carry) while condition(carry) is true, at most `max_trips` times (a gradient has to save
    what each round needs).

    Returns (count, carry): the number of rounds, i64, and the last carry.

    Examples:
        >>> @gc.graph
        ... def halvings(x: gc.f64[()]):
        ...     return gc.while_loop(lambda x: x > 1, lambda x: x / 2, x, max_trips=100)
        >>> halvings(np.float64(10))
        (array(4), array(0.625))
    """
    callable_(condition, "the condition of while_loop"), callable_(body, "the body of while_loop")
    max_trips = integer(max_trips, "while_loop: max_trips", 0)
    carries, tree = flatten(tree_map(as_array, init))
    if not carries:
        raise GraphError("while_loop needs a carry: without one its condition cannot change")
    types = [c.type for c in carries]
    with Trace("condition", parent=current_trace(), loop=True) as test:
        test_inputs = _inputs(test, "carry", types)
        go = as_array(condition(unflatten(tree, test_inputs)))
    with Trace("step", parent=current_trace(), loop=True) as step:
        inputs = _inputs(step, "carry", types)
        new = _carried("while_loop", body(unflatten(tree, inputs)), tree, inputs)
        if test.iteration is not None or step.iteration is not None:
            new.append(step.round() + 1)
    if len(new) > len(carries):
        carries = [*carries, as_array(0)]
        inputs, test_inputs = [*inputs, step.round()], [*test_inputs, test.round()]
    captured, (goes_on, region) = _regions((test, test_inputs, [go]), (step, inputs, new))
    count, *outs = emit_all("while_loop", *carries, *captured, cond_body=goes_on, body=region, carries=len(carries),
                            max_trips=max_trips)
    return count, unflatten(tree, outs)


def _branch(name: str, f: Callable, args: tuple) -> tuple[Trace, list[Array], Structure]:
    with Trace(name, parent=current_trace()) as trace:
        results, tree = flatten(tree_map(as_array, f(*args)))
    return trace, results, tree


def _inputs(trace: Trace, name: str, types: Sequence[TensorType]) -> list[Array]:
    return [trace.input(name if len(types) == 1 else f"{name}{i}", t) for i, t in enumerate(types)]


def _carried(what: str, result: object, tree: Structure, before: Sequence[Array]) -> list[Array]:
    """The new carries; GraphError if they differ from the old ones in structure or type."""
    new, new_tree = flatten(result)
    if new_tree != tree:
        raise GraphError(f"the carry of {what} changes its structure: it starts as {_text(tree)}, the body returns "
                         f"{_text(new_tree)}")
    new = [as_array(x, c.dtype) for x, c in zip(new, before)]
    for i, (x, c) in enumerate(zip(new, before)):
        if x.type != c.type:
            which = f"carry {i} of {what}" if len(new) > 1 else f"the carry of {what}"
            raise GraphError(f"{which} starts as {c.type} and comes back from the body as {x.type}: "
                             "both must agree (astype converts, "
                             "broadcast_to widens the initial value)")
    return new


def _regions(*bodies: tuple[Trace, Sequence[Array], Sequence[Array]]) -> tuple[list[Array], list[Graph]]:
    """The graphs of finished bodies, given by (trace, inputs of its own, outputs), and the outer arrays that all of
    them take after their own inputs.

    Outputs become values of their body before it is asked what it captured: an outer array that a body returns as it
    is is captured only then.
    """
    outputs = [[trace.value(a) for a in arrays] for trace, _, arrays in bodies]
    captured = list({a.value: a for trace, _, _ in bodies for a in trace.outer}.values())
    return captured, [_region(trace, own, captured, values) for (trace, own, _), values in zip(bodies, outputs)]


def _region(trace: Trace, own: Sequence[Array], captured: Sequence[Array], outputs: Sequence[Value]) -> Graph:
    """The graph of a body: its own inputs, then the captured ones in the given order."""
    taken = [trace.value(a) for a in captured]
    trace.builder.inputs = [a.value for a in own] + taken
    return trace.builder.finish(outputs, ("",) * len(outputs))


def _length(stacked: Sequence[Array], length: Dim | None) -> Dim:
    for x in stacked:
        if not x.ndim:
            raise GraphError("scan goes along axis 0 of its xs, a scalar has none")
    sizes = [x.shape[0] for x in stacked] + ([] if length is None else [as_dim(length)])
    if not sizes:
        raise GraphError("scan needs xs, or length= without them")
    if any(s != sizes[0] for s in sizes):
        raise GraphError(f"scan: the xs differ in length along axis 0: {', '.join(map(str, sizes))}")
    return sizes[0]


def _kind(result: object) -> str:
    if isinstance(result, tuple):
        return f"a tuple of {len(result)}"
    return "nothing" if result is None else f"a {type(result).__name__}"


def _text(tree: Structure) -> str:
    if tree.kind == "dict":
        return "{" + ", ".join(f"{k}: {_text(p)}" for k, p in zip(tree.keys, tree.parts)) + "}"
    return {"leaf": "array", "none": "None"}.get(tree.kind) or f"({', '.join(map(_text, tree.parts))})"
