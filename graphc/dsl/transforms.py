"""Derivatives: graph to graph, so they can be applied again, printed and inlined."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn

from graphc.autodiff.backward import accumulate, backward
from graphc.dsl.context import user_loc
from graphc.dsl.form import formed
from graphc.dsl.function import GraphFunction
from graphc.dsl.outputs import named_values
from graphc.errors import GraphError
from graphc.ir.builder import Builder, Rewriter
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.ops.elementwise import WHERE
from graphc.records import dataclass

Wrt = object        # a name, a tuple of names, a network, or None


@formed
def grad(f: GraphFunction, wrt: Wrt = None) -> GraphFunction:
    """The gradient of a graph that returns one float scalar, with respect to float arguments.

    `wrt`: an argument's name (gives one array), a tuple of names (a tuple), a network or list of its parameters (a
    dict by parameter name), the name of an intermediate value or the path of a layer (as `outputs=` of gc.compile),
    or None if there is just one float argument. An argument on which the result does not depend, or only through
    `stop_gradient` or piecewise constant functions, has gradient 0; one that reaches the result only through integers
    or bools is an error, unless `f` is or calls a derivative: a second derivative of max, sort or topk is 0.

    Examples:
        >>> @gc.graph
        ... def cube(x: gc.f64[()]):
        ...     return x ** 3
        >>> gc.grad(cube)(np.float64(2)), gc.grad(gc.grad(cube))(np.float64(2))
        (array(12.), array(12.))
    """
    d = _Derivation(f, "grad", lambda other: grad(other, wrt))
    targets = d.targets(wrt)
    return d.finish("grad", targets.named(d.pull(d.scalar(), targets.values)))


@formed
def value_and_grad(f: GraphFunction, wrt: Wrt = None) -> GraphFunction:
    """As `grad`, with the value: returns (value, gradient, …), or for a network the dict {"value": value, name:
    gradient}.

    Examples:
        >>> @gc.graph
        ... def cube(x: gc.f64[()]):
        ...     return x ** 3
        >>> gc.value_and_grad(cube)(np.float64(2))
        (array(8.), array(12.))
    """
    d = _Derivation(f, "value_and_grad", lambda other: value_and_grad(other, wrt))
    targets = d.targets(wrt)
    outputs, names = targets.named(d.pull(d.scalar(), targets.values))
    if names is not None and any(names):
        return d.finish("value_and_grad", ([*d.outputs, *outputs], ("value", *names)))
    return d.finish("value_and_grad", ([*d.outputs, *outputs], ("",) * (1 + len(outputs))))


@formed
def vjp(f: GraphFunction, wrt: Wrt = None) -> GraphFunction:
    """Vector times Jacobian: a graph of the arguments of `f` and one array per float output (called g, or g0, g1, …
    or g_key), which returns the sum over outputs of g times the derivative with respect to each of `wrt`."""
    d = _Derivation(f, "vjp", lambda other: vjp(other, wrt))
    targets = d.targets(wrt)
    seeds = [(y, d.b.input(name, y.type)) for name, y in d.float_outputs("g")]
    return d.finish("vjp", targets.named(d.pull(seeds, targets.values)))


@formed
def jvp(f: GraphFunction, wrt: Wrt = None) -> GraphFunction:
    """Jacobian times vector: a graph of the arguments of `f` and one array `d_name` for each of `wrt`, which returns
    the directional derivative of each float output. Built as the vjp of the vjp, so it needs no rules of its own."""
    d = _Derivation(f, "jvp", lambda other: jvp(other, wrt))
    targets = d.targets(wrt)
    named = d.float_outputs("g")
    seeds = [(y, _zeros(d.b, y)) for _, y in named]         # any point will do: the vjp is linear in its seed
    tangents = [d.b.input(f"d_{_identifier(n)}", v.type) for n, v in zip(targets.names, targets.values)]
    pulled = d.pull(seeds, targets.values)
    pushed = d.pull(list(zip(pulled, tangents)), [s for _, s in seeds])
    names = d.f.graph.output_names
    kept = tuple(n for n, y in zip(names, d.outputs) if y.type.dtype.is_float) if names else None
    return d.finish("jvp", (pushed, kept))


@formed
def hvp(f: GraphFunction, wrt: Wrt = None) -> GraphFunction:
    """Hessian times vector of a graph that returns one float scalar: a graph of its arguments and one array `d_name`
    for each of
    `wrt`, which returns the derivative of the gradient in that direction (reverse over reverse).

    Examples:
        >>> @gc.graph
        ... def f(x: gc.f64[2]):
        ...     return x[0] ** 2 * x[1]
        >>> gc.hvp(f)(np.array([1.0, 2.0]), np.array([1.0, 0.0]))
        array([4., 2.])
    """
    d = _Derivation(f, "hvp", lambda other: hvp(other, wrt))
    targets = d.targets(wrt)
    first = d.pull(d.scalar(), targets.values)
    tangents = [d.b.input(f"d_{_identifier(n)}", v.type) for n, v in zip(targets.names, targets.values)]
    return d.finish("hvp", targets.named(d.pull(list(zip(first, tangents)), targets.values)))


def follow(made: GraphFunction, f: GraphFunction, again: Callable[[GraphFunction], GraphFunction]) -> GraphFunction:
    """`made`, a derivative of `f`, which in the other mode is that of `f` in the other mode."""
    made.trains, made.follows = f.trains, f.follows
    if f.retrace:
        made.retrace = lambda training, trains: again(f.in_mode(training, trains))
    return made


@dataclass(frozen=True)
class _Targets:
    """What is differentiated for: names and values, and how the results are returned ("one", "tuple" or "dict")."""
    names: tuple[str, ...]
    values: tuple[Value, ...]
    form: str

    def named(self, results: Sequence[Value]) -> tuple[Sequence[Value], tuple[str, ...] | None]:
        return results, {"one": None, "tuple": ("",) * len(self.names), "dict": self.names}[self.form]


class _Derivation:
    """A copy of the graph of `f` that grows by its derivative."""

    def __init__(self, f: GraphFunction, what: str, again: Callable[[GraphFunction], GraphFunction]):
        """`again` makes the same derivative of another function."""
        self.loc, self.again = user_loc(), again
        if not isinstance(f, GraphFunction):
            raise GraphError(f"gc.{what} takes a graph, got {type(f).__name__}: put @gc.graph above the "
                             "function", self.loc)
        self.f, self.what, self.derived = f, what, f.derived
        self.b = Rewriter(f.graph)
        self.b.loc = self.loc
        for node in f.graph.nodes:
            self.b.keep(node)
        self.outputs = [self.b[v] for v in f.graph.outputs]

    def fail(self, text: str) -> NoReturn:
        raise GraphError(f"gc.{self.what} of {self.f.name}: {text}", self.loc)

    def scalar(self) -> list[tuple[Value, Value]]:
        """The seed of a gradient: the one output, which must be a float scalar, with 1."""
        if len(self.outputs) != 1:
            self.fail(f"it returns {len(self.outputs)} arrays, a gradient is that of one scalar; return only the loss")
        y, = self.outputs
        if y.type.rank or not y.type.dtype.is_float:
            self.fail(f"it returns {y.type}, a gradient needs one float scalar; reduce it with gc.sum or gc.mean, "
                      "or use gc.vjp or gc.jacobian")
        return [(y, self.b.constant(1, y.type.dtype))]

    def float_outputs(self, prefix: str) -> list[tuple[str, Value]]:
        """The float outputs with a name for an argument of the same type."""
        names = self.f.graph.output_names
        labels = [prefix] if names is None else [f"{prefix}_{n}" if n else f"{prefix}{i}" for i, n in enumerate(names)]
        found = [(label, y) for label, y in zip(labels, self.outputs) if y.type.dtype.is_float]
        return found or self.fail("none of its outputs is a float array")

    def targets(self, wrt: Wrt) -> _Targets:
        inputs = {v.name: v for v in self.b.inputs}
        if wrt is None:
            floats = tuple(n for n, v in inputs.items() if v.type.dtype.is_float)
            if len(floats) != 1:
                self.fail("say for which argument: wrt= one or several of "
                          f"{', '.join(floats) or '(it has no float argument)'}")
            wrt = floats[0]
        if isinstance(wrt, str):
            return _Targets((wrt,), (self._input(wrt, inputs),), "one")
        if isinstance(wrt, (tuple, list)) and wrt and all(isinstance(n, str) for n in wrt):
            return _Targets(tuple(wrt), tuple(self._input(n, inputs) for n in wrt), "tuple")
        keys = [wrt] if any(k is wrt for k in self.f.keys) else _owned_keys(wrt)
        return self._state_targets(keys or self.fail("wrt= takes a name, a tuple of names, or a network with "
                                                     f"parameters, got {wrt!r}"))

    def _input(self, name: str, inputs: dict[str, Value]) -> Value:
        v = inputs.get(name) or next((s for s in self.b.state if s.name == name), None)
        if v is None:
            known = named_values(self.f)
            if name not in known:
                self.fail(f"wrt={name!r} is not one of its arguments: {', '.join(inputs)}"
                          + f"; nor of its named values: {', '.join(known)}" * bool(known))
            v = self.b[known[name]]
        if not v.type.dtype.is_float:
            self.fail(f"{name!r} is {v.type}, gradients exist for float arrays only")
        return v

    def _state_targets(self, keys: Sequence[object]) -> _Targets:
        owned = {id(k) for k in keys}
        found = [s for s, k in zip(self.b.state, self.f.keys) if id(k) in owned and s.type.dtype.is_float]
        if not found:
            self.fail("the network given as wrt is not used in it")
        return _Targets(tuple(s.name for s in found), tuple(found), "dict")

    def pull(self, seeds: Sequence[tuple[Value, Value]], wrt: Sequence[Value]) -> list[Value]:
        """The gradient of `wrt` given that of some values; zeros where nothing flows."""
        merged: dict[Value, Value] = {}
        for y, g in seeds:
            accumulate(self.b, merged, y, g)
        nodes = tuple(self.b.nodes)
        try:
            found = backward(self.b, nodes, merged, wrt)
        except GraphError as error:
            raise error.at(self.loc) from None
        for v, gradient in zip(wrt, found):
            if gradient is None and not self.derived:
                self._check_cut(v, nodes, merged)
        # from here on integers may be the choices of a derivative, which has none itself
        self.derived = True
        return [_zeros(self.b, v) if g is None else g for v, g in zip(wrt, found)]

    def _check_cut(self, v: Value, nodes: Sequence[Node], seeds: Iterable[Value]) -> None:
        """An error if `v` influences the result, but only through integers or bools (other than conditions of
        `where`)."""
        floats, others = {v}, set[Value]()
        cut: Node | None = None
        for node in nodes:
            through = any(i in floats for i in node.inputs)
            if not through and (node.op is WHERE or not any(i in others for i in node.inputs)):
                # where by a condition that depends on v, as in the gradient of relu: piecewise constant
                continue
            for out in node.outputs:
                smooth = through and out.type.dtype.is_float
                (floats if smooth else others).add(out)
                cut = node if through and not smooth and cut is None else cut
        if cut is not None and any(y in others for y in seeds) and not any(y in floats for y in seeds):
            raise GraphError(f"gc.{self.what} of {self.f.name}: {v.name!r} reaches the result only through "
                             f"{cut.op.name}, which has no gradient",
                             cut.loc or self.loc)

    def finish(self, prefix: str, results: tuple[Sequence[Value], tuple[str, ...] | None]) -> GraphFunction:
        outputs, names = results
        old = self.f.graph
        for state, new in zip(old.state, old.updates):
            if new is not None:
                self.b.update(self.b[state], self.b[new])
        self.b.name = f"{prefix}_{old.name}"
        calls = tuple(call.moved(self.b.map) for call in self.f.calls)
        prints = tuple(each.moved(self.b.map) for each in self.f.prints)
        graph = _pruned(self.b.finish(outputs, names), [v for call in calls for v in call.values]
                        + [v for each in prints for v in each.values])
        orders = self.f.orders and self.f.orders.moved(self.b.map)
        made = GraphFunction(graph, self.f.keys, self.f.loc, self.f.constants, self.f.training, calls=calls,
                             orders=orders, derived=True, prints=prints)
        return follow(made, self.f, self.again)


def _pruned(graph: Graph, layers: Iterable[Value]) -> Graph:
    """The graph without nodes that nothing needs. Results of layers and values with a name stay: they may be asked
    for (see outputs.py)."""
    live, kept = {*graph.results, *layers}, []
    for node in reversed(graph.nodes):
        if any(v in live or v.name for v in node.outputs):
            live.update(node.inputs)
            kept.append(node)
    return Graph(graph.name, graph.inputs, tuple(reversed(kept)), graph.outputs, graph.output_names, graph.state,
                 graph.updates)


def _zeros(b: Builder, like: Value) -> Value:
    return b.broadcast_to(b.constant(0, like.type.dtype), shape=like.type.shape)


def _owned_keys(network: object) -> list[object]:
    """The parameter objects of a network (its `parameters()`), or of a list of networks and parameters."""
    if isinstance(network, (tuple, list)):
        return [k for part in network for k in _owned_keys(part) or [part]]
    parameters: Callable | None = getattr(network, "parameters", None)
    if parameters is None:
        return []
    found = parameters()
    return list(found.values()) if isinstance(found, dict) else [p[1] if isinstance(p, tuple) else p for p in found]


def _identifier(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)
