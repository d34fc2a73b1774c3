"""Functions with a gradient of the user's own."""
from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.dsl.array import Array, as_array, emit_all
from graphc.dsl.context import current_trace
from graphc.dsl.form import formed
from graphc.dsl.shape import zeros_like
from graphc.dsl.trace import Trace
from graphc.dsl.tree import Structure, flatten, tree_map, unflatten
from graphc.errors import GraphError
from graphc.ir.convert import callable_
from graphc.ir.graph import Graph


@formed
def custom_vjp(f: Callable, vjp: Callable) -> Callable:
    """`f` with `vjp` as its gradient rule: vjp(inputs, outputs, gradients) -> the gradient of each float input.

    `f` takes arrays and returns an array or a tuple. `inputs` is the tuple of its arguments, `outputs` and
    `gradients` look like what it returns (gradients of integers are None); `vjp` returns one array for one float
    input, else a tuple, with None for zero. Both are traced at each call and stay one node, so the gradient's
    gradient comes from `vjp` itself. What they use from outside must be passed as an argument.

    Examples:
        >>> straight = gc.custom_vjp(gc.sign, lambda inputs, outputs, gradients: gradients)
        >>> @gc.graph
        ... def f(x: gc.f64[2]):
        ...     return gc.sum(straight(x) * x)
        >>> gc.grad(f)(np.array([0.5, -2.0]))
        array([ 1.5, -3. ])
    """
    callable_(f, "what custom_vjp wraps"), callable_(vjp, "the rule of custom_vjp")

    def call(*args: object) -> Array | tuple:
        arrays = [as_array(a) for a in args]
        forward, tree = _traced("f", arrays, lambda ins: f(*ins))
        outs = [v.type for v in forward.outputs]
        floats = [t for t in outs if t.dtype.is_float]

        def rule(values: Sequence[Array]) -> tuple[Array, ...]:
            n, m = len(arrays), len(arrays) + len(outs)
            gs = iter(values[m:])
            gradients = [next(gs) if t.dtype.is_float else None for t in outs]
            return _gradients(vjp(tuple(values[:n]), unflatten(tree, values[n:m]), unflatten(tree, gradients)),
                              values[:n])
        backward, _ = _traced("vjp", [a.type for a in arrays] + outs + floats, rule)
        results = emit_all("custom_vjp", *arrays, forward=forward, backward=backward)
        return unflatten(tree, results)
    return call


def _traced(name: str, arguments: Sequence, f: Callable) -> tuple[Graph, Structure]:
    """The graph of `f` on inputs of the types of `arguments` (arrays or types), and the structure of its result."""
    with Trace(name, parent=current_trace()) as trace:
        inputs = [trace.input(f"x{i}", getattr(a, "type", a)) for i, a in enumerate(arguments)]
        results, tree = flatten(tree_map(as_array, f(inputs)))
        if not results:
            raise GraphError(f"custom_vjp: {name} returned nothing")
        values = [trace.value(r) for r in results]
        if trace.outer:
            raise GraphError(f"custom_vjp: {name} uses {trace.outer[0]!r} from outside, through which no gradient "
                             "could flow: pass it as an argument")
        return trace.builder.finish(values, ("",) * len(values)), tree


def _gradients(result: object, inputs: Sequence[Array]) -> tuple[Array, ...]:
    """What `vjp` returned as one array per float input, checked."""
    floats = [x for x in inputs if x.dtype.is_float]
    found = list(result) if isinstance(result, (tuple, list)) else [result]
    if len(found) == len(inputs) != len(floats):
        found = [g for g, x in zip(found, inputs) if x.dtype.is_float]
    if len(found) != len(floats):
        raise GraphError(f"custom_vjp: the rule returned {len(found)} gradients for {len(floats)} float inputs")
    gs = [zeros_like(x) if g is None else as_array(g, x.dtype) for g, x in zip(found, floats)]
    for i, (g, x) in enumerate(zip(gs, floats)):
        if g.type != x.type:
            raise GraphError(f"custom_vjp: gradient {i} is {g.type}, its input is {x.type}")
    return tuple(gs)
