"""Products read their operands in the types in which these are stored: micro-kernels convert what they load."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from graphc.ir.builder import Builder, Rewriter
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Op
from graphc.ir.ops.contract import Einsum, Matmul
from graphc.ir.ops.control import Cond, Scan, WhileLoop
from graphc.ir.ops.conv import Conv
from graphc.ir.ops.elementwise import Cast
from graphc.ir.ops.index import Take, TakeAlongAxis
from graphc.ir.types import bf16, includes
from graphc.passes.pipeline import Pass
from graphc.records import dataclass
from graphc.schedule.group_images import is_read_narrow
from graphc.schedule.target import Target

# operators with bodies -> the first operand that stays the same throughout, and which bodies read from there on
CAPTURED: dict[type[Op], Callable[[Any], int]] = {
    Scan: lambda op: op.carries + op.xs, WhileLoop: lambda op: op.carries, Cond: lambda op: 1}


@dataclass(frozen=True)
class ReadStored(Pass):
    """Takes conversions to a type that has every number of the operand's own (bf16 to f32, i8 to i32) into the products
    that read them, behind lookups, through views and into loops. Results stay the same.

    Needs: no dead nodes. Gives products with `dtype`, whose operands have types of their own.
    Stands last of what simplifies: patterns of products do not know these, and loops would give conversions back;
    before `split_derived`, for which a converted weight would be one to keep.
    """
    name: ClassVar[str] = "read_stored"
    target: Target

    def run(self, graph: Graph) -> Graph:
        w = Rewriter(graph)
        changed = False
        for node in graph.nodes:
            rule = RULES.get(type(node.op))
            with w.at(node.loc, node.scope):
                new = rule(w, node, self.target) if rule else None
            if new is None:
                w.keep(node)
            else:
                changed = True
                w.replace(node, new)
        return w.done() if changed else graph


def _product(w: Rewriter, node: Node, target: Target) -> tuple[Value, ...] | None:
    ins = [stored(w, v) for v in node.inputs]
    if all(v is None for v in ins):
        return None
    op = node.op.replace(dtype=node.outputs[0].type.dtype)
    return w.apply(op, [w[old] if new is None else new for old, new in zip(node.inputs, ins)])


def _conv(w: Rewriter, node: Node, target: Target) -> tuple[Value, ...] | None:
    """Of integers, and the images of convolutions in groups where that is faster: others are computed in the type of
    the sums, unless `pack_factors` takes them."""
    if node.outputs[0].type.dtype.is_int:
        return _product(w, node, target)
    op, (image, weights) = node.op, node.inputs
    found = converted(image)
    if not isinstance(op, Conv) or op.groups == 1 or found is None or found[0].type.dtype is not bf16 or (
            not is_read_narrow(op, image.type, weights.type, target, False)):
        return None
    read = stored(w, image)
    return None if read is None else w.apply(op.replace(dtype=node.outputs[0].type.dtype), (read, w[weights]))


def _lookup(w: Rewriter, node: Node, target: Target) -> tuple[Value, ...] | None:
    """Only what is looked up is converted."""
    table, positions = node.inputs
    rows = stored(w, table)
    if rows is None:
        return None
    found, = w.apply(node.op, (rows, w[positions]))
    return (w.cast(found, dtype=table.type.dtype),)


def converted(v: Value) -> tuple[Value, list[Op]] | None:
    """What v converts to a larger type that has all of its numbers, and the views through which it is seen, the last
    first; None if v is no such conversion."""
    views = []
    while v.node is not None and v.node.op.is_view and not isinstance(v.node.op, Cast):
        views.append(v.node.op)
        v = v.node.inputs[0]
    if v.node is None or not isinstance(v.node.op, Cast):
        return None
    source = v.node.inputs[0]
    fits = includes(v.type.dtype, source.type.dtype) and v.type.dtype.itemsize > source.type.dtype.itemsize
    return (source, views) if fits else None


def stored(w: Rewriter, v: Value) -> Value | None:
    """What v converts, seen through the same views; None if v is no such conversion."""
    found = converted(v)
    if found is None:
        return None
    source, views = found
    result = w[source]
    for op in reversed(views):
        result, = w.apply(op, (result,))
    return result


def _region(w: Rewriter, node: Node, target: Target) -> tuple[Value, ...] | None:
    """The conversion of a captured operand, done inside."""
    first = CAPTURED[type(node.op)](node.op)
    found = {i: new for i, v in enumerate(node.inputs) if i >= first and (new := stored(w, v)) is not None}
    if not found:
        return None
    start = int(isinstance(node.op, Cond))              # the predicate is no argument of a body
    changes = {i - start: v for i, v in found.items()}
    bodies = {name: ReadStored(target).run(_converting(getattr(node.op, name), changes)) for name in node.op.REGIONS}
    return w.apply(node.op.replace(**bodies), [found.get(i, w[v]) for i, v in enumerate(node.inputs)])


def _converting(body: Graph, stored: dict[int, Value]) -> Graph:
    """The body of a loop, which converts these arguments itself."""
    b = Builder(body.name)
    mapping = {v: b.input(v.name, stored[i].type if i in stored else v.type) for i, v in enumerate(body.inputs)}
    for i in stored:
        v = body.inputs[i]
        mapping[v] = b.cast(mapping[v], dtype=v.type.dtype)
    return b.finish(b.inline(body, [mapping[v] for v in body.inputs]), body.output_names)


Rule = Callable[[Rewriter, Node, Target], tuple[Value, ...] | None]
RULES: dict[type[Op], Rule] = {
    **dict.fromkeys((Matmul, Einsum), _product), **dict.fromkeys(Conv.every(), _conv),
    **dict.fromkeys((Take, TakeAlongAxis), _lookup),
    **dict.fromkeys(CAPTURED, _region)}
