"""Reverse-mode differentiation: a graph from outputs' gradients to inputs' gradients, built by each operator's vjp
rule."""
from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from graphc.analysis.attention import Spelled, spelled_out
from graphc.analysis.dependence import float_dependents
from graphc.autodiff.backward_control import CONTROL_RULES
from graphc.autodiff.backward_remat import REMAT_RULES
from graphc.autodiff.hidden import Choices
from graphc.autodiff.sums import added
from graphc.errors import GraphError, InternalError
from graphc.ir.builder import Builder
from graphc.ir.dims import Dim, Dims
from graphc.ir.graph import Node, Value
from graphc.ir.op import Composite, Gradients, Values, as_tuple


REGION_RULES = {**CONTROL_RULES, **REMAT_RULES}


def backward(b: Builder, nodes: Sequence[Node], seeds: Mapping[Value, Value], wrt: Sequence[Value],
             choices: Choices | None = None, in_place: Collection[Value] = ()) -> list[Value | None]:
    """Gradients of `wrt`: the sum over `seeds` of (gradient given to a value) times (Jacobian of that value).

    `nodes` compute the values, in order, and are already in `b`; new nodes carry the line of the node that they
    differentiate. Attention that is spelled out is differentiated as the operator, which compiling will make of it as
    well: the scores are never stored. Where a condition hides a value, its gradient is exactly zero (see `hidden`;
    `choices`: what is known of the seeds). `in_place`: values to whose gradient slices and lookups are added where they
    belong. None where nothing flows. GraphError when a path to `wrt` leads through an
    operator without gradient.
    """
    choices = choices or Choices(b)
    reach = float_dependents(nodes, wrt)
    attentions = {node: found for node, found in spelled_out(nodes, seeds, wrt).items() if not found.biased}
    grads: dict[Value, Value] = dict(seeds)
    for node in reversed(nodes):
        gs = tuple(grads.get(v) for v in node.outputs)
        if all(g is None for g in gs) or not any(v in reach for v in node.outputs):
            continue
        with b.at(node.loc and node.loc.calling(node.op.name), node.scope):
            for v, g in zip(*_pulled(b, node, attentions.get(node), gs, reach, choices), strict=True):
                if g is not None and v in reach:
                    accumulate(b, grads, v, g, choices, v in in_place)
    return [grads.get(v) for v in wrt]


def accumulate(b: Builder, grads: dict[Value, Value], v: Value, g: Value, choices: Choices | None = None,
               in_place: bool = False) -> None:
    """Adds `g`, summed over what broadcasting repeated, to the gradient of `v`."""
    g = unbroadcast(b, g, v.type.shape, choices)
    if v in grads:
        total = added(b, grads[v], g) if in_place else b.add(grads[v], g)
        if choices:
            choices.added(grads[v], g, total)
        g = total
    grads[v] = g


def unbroadcast(b: Builder, g: Value, shape: Dims, choices: Choices | None = None) -> Value:
    """Sums `g` down to `shape`, the reverse of numpy broadcasting."""
    if g.type.shape == shape:
        return g
    extra = g.type.rank - len(shape)
    axes = tuple(i for i, d in enumerate(g.type.shape) if i < extra or (shape[i - extra] == 1 and d != 1))
    total = b.sum(g, axes=axes, keepdims=True) if axes else g
    if total.type.shape != shape:
        total = b.reshape(total, shape=shape) if total.type.size == _size(shape) else b.broadcast_to(total, shape=shape)
    if choices:
        choices.summed(g, total, axes)
    return total


def _size(shape: Dims) -> Dim:
    size: Dim = 1
    for d in shape:
        size = size * d
    return size


def _pulled(b: Builder, node: Node, attention: Spelled | None, gs: Gradients, reach: set[Value],
            choices: Choices) -> tuple[Values, Gradients]:
    """Values that the node's results are made of, and their gradients."""
    if attention is None:
        return node.inputs, _shown(b, node, gs, tuple(v in reach for v in node.inputs), choices)
    return attention.leaves, _through(b, attention.leaves, gs, lambda: attention.build(b, attention.leaves), choices)


def _shown(b: Builder, node: Node, gs: Gradients, wanted: tuple[bool, ...], choices: Choices) -> Gradients:
    """The gradients of the operands, chosen after the node's rule where that of the result was chosen before it."""
    given = [g for g in gs if g is not None]
    found = choices.of_operands(node, given[0]) if len(given) == 1 else None
    if found is None:
        grads = _vjp(b, node, gs, wanted, choices)
        if len(given) == 1:
            choices.passed(node, given[0], grads)
        return grads
    choice, g = found
    ins, over = choices.shown_operands(node, choice)
    grads = _vjp(b, node, tuple(old and g for old in gs), wanted, choices, ins)
    return [choice.over(b, g) if g is not None and w and o else g for g, w, o in zip(grads, wanted, over, strict=True)]


def _vjp(b: Builder, node: Node, gs: Gradients, wanted: tuple[bool, ...], choices: Choices,
         ins: Values = ()) -> Gradients:
    """The node's own rule; a region operator's from its table; a composite without rule is differentiated through its
    decomposition. `ins`: what the node's own rule reads in place of its operands."""
    op = node.op
    try:
        if type(op) in REGION_RULES:
            return REGION_RULES[type(op)](backward, b, node, gs, wanted)
        grads = op.vjp(b, gs, ins or node.inputs, node.outputs)
        if grads is not NotImplemented:
            return grads
        if not isinstance(op, Composite):
            raise InternalError(f"{op.name} has neither a gradient nor a decomposition", "backward")
        return _through(b, node.inputs, gs, lambda: op.decompose(b, *node.inputs), choices)
    except GraphError as error:
        raise error.at(node.loc) from None


def _through(b: Builder, ins: Sequence[Value], gs: Gradients, build: Callable[[], Value | Values],
             choices: Choices) -> list[Value | None]:
    """The gradients of `ins` through nodes that compute the same: what `build` appends."""
    start = len(b.nodes)
    outs = as_tuple(build())
    wrt = list(dict.fromkeys(ins))
    seeds: dict[Value, Value] = {}
    inner = b.nodes[start:]
    for v, g in zip(outs, gs, strict=True):
        if g is not None:
            accumulate(b, seeds, v, g, choices)
    grads = dict(zip(wrt, backward(b, inner, seeds, wrt, choices)))
    return [grads.pop(v, None) for v in ins]      # once for an operand that is used twice
