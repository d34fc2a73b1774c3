"""The whole Jacobian: row by row in a loop over one vjp, or column by column over one jvp."""
from __future__ import annotations

from typing import Any

from graphc.contained import contained
from graphc.dsl.array import Array
from graphc.dsl.context import user_loc
from graphc.dsl.control import scan
from graphc.dsl.form import formed
from graphc.dsl.function import GraphFunction, finish
from graphc.dsl.shape import iota, zeros
from graphc.dsl.trace import Trace
from graphc.dsl.transforms import Wrt, follow, grad, jvp, vjp
from graphc.dsl.tree import tree_map
from graphc.errors import GraphError


@formed
@contained
def jacobian(f: GraphFunction, wrt: Wrt = None) -> GraphFunction:
    """The derivative of every element of the one float output y of `f` with respect to every element of `wrt` (as for
    `grad`): arrays of shape y.shape + x.shape. Costs one vjp per element of y; what does not depend on the row is
    computed once.

    Examples:
        >>> @gc.graph
        ... def f(x: gc.f64[2]):
        ...     return gc.stack([x[0] * x[1], x[0] + x[1]])
        >>> gc.jacobian(f)(np.array([2.0, 3.0]))
        array([[3., 2.],
               [1., 1.]])
    """
    pull = vjp(f, wrt)
    if f.graph.output_names is not None:
        raise GraphError(f"gc.jacobian of {f.name}: it returns {len(f.graph.outputs)} arrays, a Jacobian is that of "
                         "one", user_loc())
    y = f.graph.outputs[0].type
    with Trace(f"jacobian_{f.name}", f.training) as trace:
        inputs = [trace.input(v.name, v.type) for v in f.graph.inputs]
        n = y.size
        rows = (iota((n, n), 0) == iota((n, n), 1)).astype(y.dtype).reshape((n, *y.shape))
        _, found = scan(lambda carry, row: (carry, pull(*inputs, row)), (), rows)
        made = finish(trace, tree_map(lambda g: g.reshape((*y.shape, *g.shape[1:])), found), f.loc, f.constants)
    return follow(made, f, lambda other: jacobian(other, wrt))


@formed
def jacrev(f: GraphFunction, wrt: Wrt = None) -> GraphFunction:
    """`jacobian`, by JAX's name: row by row, for outputs of fewer elements than the argument."""
    return jacobian(f, wrt)


@formed
@contained
def jacfwd(f: GraphFunction, wrt: str | tuple[str, ...] | None = None) -> GraphFunction:
    """The Jacobian column by column, for arguments of fewer elements than the output: what `jacobian` gives, for the
    name of an argument or a tuple of names. Costs one jvp per element of the argument.

    Examples:
        >>> @gc.graph
        ... def f(x: gc.f64[2]):
        ...     return gc.stack([x[0] * x[1], x[0] + x[1], x[1]])
        >>> gc.jacfwd(f)(np.array([2.0, 3.0]))
        array([[3., 2.],
               [1., 1.],
               [0., 1.]])
    """
    push = jvp(f, wrt)
    names = wrt if isinstance(wrt, (tuple, list)) else [wrt or push.graph.inputs[-1].name.removeprefix("d_")]
    if not all(isinstance(name, str) for name in names):
        raise GraphError("gc.jacfwd takes the name of an argument, or a tuple of names; of a network take gc.jacobian",
                         user_loc())
    if f.graph.output_names is not None:
        raise GraphError(f"gc.jacfwd of {f.name}: it returns {len(f.graph.outputs)} arrays, a Jacobian is that of "
                         "one", user_loc())
    types = [v.type for v in push.graph.inputs[len(f.graph.inputs):]]
    with Trace(f"jacobian_{f.name}", f.training) as trace:
        inputs = [trace.input(v.name, v.type) for v in f.graph.inputs]
        found = []
        for i, x in enumerate(types):
            n = x.size
            columns = (iota((n, n), 0) == iota((n, n), 1)).astype(x.dtype).reshape((n, *x.shape))

            def column(carry: Any, tangent: Array, i: int = i) -> Any:
                others = [tangent if j == i else zeros(t.shape, t.dtype) for j, t in enumerate(types)]
                return carry, push(*inputs, *others)
            _, stacked = scan(column, (), columns)
            rank = stacked.ndim
            found.append(stacked.transpose((*range(1, rank), 0)).reshape((*stacked.shape[1:], *x.shape)))
        made = finish(trace, tuple(found) if isinstance(wrt, (tuple, list)) else found[0], f.loc, f.constants)
    return follow(made, f, lambda other: jacfwd(other, wrt))


@formed
def hessian(f: GraphFunction, wrt: str | None = None) -> GraphFunction:
    """The second derivatives of a graph that returns one float scalar with respect to one argument x (`wrt`, None if
    there is just one): an array of shape x.shape + x.shape, symmetric. The Jacobian of the gradient; a product with a
    vector is cheaper by `gc.hvp`.

    Examples:
        >>> @gc.graph
        ... def f(x: gc.f64[2]):
        ...     return x[0] ** 2 * x[1]
        >>> gc.hessian(f)(np.array([1.0, 2.0]))
        array([[4., 2.],
               [2., 0.]])
    """
    if wrt is not None and not isinstance(wrt, str):
        raise GraphError("gc.hessian takes the name of one argument; for several take the gc.jacobian of gc.grad, one "
                         "after the other", user_loc())
    return jacobian(grad(f, wrt), wrt)
