"""The gradient of a function whose inside is not kept: one operator that computes it again, and then the gradient."""
from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.autodiff.hidden import selected
from graphc.ir.builder import Builder
from graphc.ir.graph import NodeOf, Value
from graphc.ir.op import Gradients, Op
from graphc.ir.ops.remat import Remat

Grads = list[Value | None]


def remat_vjp(backward: Callable[..., Grads], b: Builder, node: NodeOf[Remat], gs: Gradients,
              wanted: Sequence[bool]) -> Grads:
    """Gradients of the operands, by one `remat` of the operands and the gradients of the results; so that of a gradient
    is again one. Where a gradient is chosen by a condition, the condition goes inside with it (see `hidden`)."""
    inner = Builder(f"gradient_of_{node.op.body.name}")
    operands = list(node.inputs)
    inputs = [inner.input(f"x{i}", v.type) for i, v in enumerate(operands)]
    outs = inner.inline(node.op.body, inputs)
    nodes = tuple(inner.nodes)
    seeds: dict[Value, Value] = {}
    for out, g in zip(outs, gs, strict=True):
        if g is not None:
            seed = _seed(inner, g, operands)
            seeds[out] = inner.add(seeds[out], seed) if out in seeds else seed
    targets = [v for v, w in zip(inputs, wanted, strict=True) if w and v.type.dtype.is_float]
    found = dict(zip(targets, backward(inner, nodes, seeds, targets)))
    grads = [found.get(v) for v in inputs]
    results = [g for g in grads if g is not None]
    if not results:
        return grads
    body = inner.finish(results, ("",) * len(results))
    made = iter(b.apply(Remat(body, len(node.inputs)), operands))
    return [None if g is None else next(made) for g in grads]


def _seed(inner: Builder, g: Value, operands: list[Value]) -> Value:
    """The gradient as it comes in, an operand more; the choice by which it is zero is made inside."""
    def taken(v: Value) -> Value:
        operands.append(v)
        return inner.input(f"x{len(operands) - 1}", v.type)
    found = selected(g)
    if found is None:
        return taken(g)
    choice, shown = found
    condition = taken(choice.condition)
    return type(choice)(condition, choice.kept).over(inner, taken(shown))


REMAT_RULES: dict[type[Op], Callable[..., Grads]] = {Remat: remat_vjp}
