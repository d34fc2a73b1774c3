"""Functions with a rule of the user's own for directional derivatives."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.dsl.array import Array, as_array
from graphc.dsl.custom import custom_vjp
from graphc.dsl.form import formed
from graphc.dsl.function import trace_function
from graphc.dsl.shape import zeros
from graphc.dsl.signature import Argument
from graphc.dsl.transforms import vjp
from graphc.dsl.tree import flatten, unflatten
from graphc.errors import GraphError
from graphc.ir.convert import callable_


@formed
def custom_jvp(f: Callable, jvp: Callable) -> Callable:
    """`f` with `jvp` as its rule of differentiation: jvp(inputs, outputs, tangents) -> the tangent of each float
    output, linear in the tangents.

    `f` takes arrays and returns an array or a tuple. `inputs` is the tuple of its arguments, `tangents` one for each,
    None of integers; `outputs` look like what `f` returns, and so does what `jvp` returns, without integers. Gradients
    are the transpose of the rule, which the compiler finds: a rule that is not linear in the tangents gives wrong ones
    (gc.check_gradients says so). What both use from outside must be passed as an argument. (JAX's rule returns the
    outputs too; here it is given them.)

    Examples:
        >>> soft = gc.custom_jvp(gc.abs, lambda inputs, outputs, tangents: tangents[0] * gc.tanh(inputs[0]))
        >>> @gc.graph
        ... def f(x: gc.f64[2]):
        ...     return gc.sum(soft(x))
        >>> gc.grad(f)(np.array([0.0, 9.0])).round(3)
        array([0., 1.])
    """
    callable_(f, "what custom_jvp wraps"), callable_(jvp, "the rule of custom_jvp")

    def rule(inputs: tuple[Array, ...], outputs: Any, gradients: Any) -> list[Array | None]:
        results, structure = flatten(outputs)
        seeds = [g for g in flatten(gradients)[0] if g is not None]
        floats = [i for i, x in enumerate(inputs) if x.dtype.is_float]
        n, m = len(inputs), len(inputs) + len(results)

        def pushed(**given: Array) -> tuple[Array, ...]:
            values = list(given.values())
            along = iter(values[m:])
            tangents = tuple(next(along) if i in floats else None for i in range(n))
            found, _ = flatten(jvp(tuple(values[:n]), unflatten(structure, values[n:m]), tangents))
            return _tangents(found, [y for y in results if y.dtype.is_float])
        arguments = [*inputs, *results, *(inputs[i] for i in floats)]
        traced = trace_function(pushed, [Argument(f"x{i}", a.type) for i, a in enumerate(arguments)], "jvp")
        pull = vjp(traced, tuple(f"x{i}" for i in range(m, len(arguments))))
        at_zero = [zeros(inputs[i].shape, inputs[i].dtype) for i in floats]
        found = iter(pull(*inputs, *results, *at_zero, *seeds))
        return [next(found) if i in floats else None for i in range(n)]
    return custom_vjp(f, rule)


def _tangents(found: Sequence[Any], outputs: Sequence[Array]) -> tuple[Array, ...]:
    """What `jvp` returned as one array for each float output, checked."""
    if len(found) != len(outputs):
        raise GraphError(f"custom_jvp: the rule returned {len(found)} tangents for {len(outputs)} float outputs")
    arrays = tuple(as_array(t, y.dtype) for t, y in zip(found, outputs))
    for i, (t, y) in enumerate(zip(arrays, outputs)):
        if t.type != y.type:
            raise GraphError(f"custom_jvp: tangent {i} is {t.type}, its output is {y.type}")
    return arrays
