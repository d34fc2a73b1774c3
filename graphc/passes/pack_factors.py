"""Products of bf16 numbers in pairs, where the target multiplies and adds two at a time."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from graphc.ir.builder import Builder, Rewriter
from graphc.ir.dims import exact_quotient
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Op
from graphc.ir.ops.contract import LabelledProduct
from graphc.ir.ops.control import Cond, Scan, WhileLoop
from graphc.ir.ops.packed import Pack
from graphc.ir.ops.shape import Pad, Transpose
from graphc.ir.types import bf16, bf16x2, f32
from graphc.passes.pipeline import Pass

# operators with bodies -> the first operand that stays the same throughout, and how many of the first operands are no
# arguments of a body
CAPTURED: dict[type[Op], Callable[[Op], tuple[int, int]]] = {
    Scan: lambda op: (op.carries + op.xs, 0), WhileLoop: lambda op: (op.carries, 0), Cond: lambda op: (1, 1)}


@dataclass(frozen=True)
class PackFactors(Pass):
    """a [M, K] @ b [K, N] of bf16 in f32 -> a [M, K/2] @ b [K/2, N] of pairs: K is the innermost axis in memory of both
    then, an odd one with a zero more. All that knows of products goes on as for any element type. Factors that loops
    and branches capture are packed before them.

    Needs products with types of their own (after `read_stored`). For targets with such an instruction.
    """
    name: ClassVar[str] = "pack_factors"

    def run(self, graph: Graph) -> Graph:
        w = Rewriter(graph)
        for node in graph.nodes:
            label = _summed(node)
            with w.at(node.loc, node.scope):
                if label is not None:
                    w.replace(node, w.apply(node.op.replace(dtype=f32), _factors(w, node, label)))
                elif type(node.op) in CAPTURED:
                    w.replace(node, _packing_before(w, node))
                else:
                    w.keep(node)
        return w.done()


def _summed(node: Node) -> str | None:
    """The label of the only axis that is summed, of a product of bf16 in f32; None for other nodes, and where the axis
    may be odd or not."""
    op = node.op
    if not isinstance(op, LabelledProduct) or any(v.type.dtype is not bf16 for v in node.inputs) or (
            node.outputs[0].type.dtype is not f32):
        return None
    x, y, out = op.labels(*(v.type.rank for v in node.inputs))
    summed = [label for label in x if label not in out]
    if len(summed) != 1 or y.count(summed[0]) != 1 or set(y) - set(x) - set(out):
        return None
    sizes = [v.type.shape[own.index(summed[0])] for v, own in zip(node.inputs, (x, y))]
    known = all(isinstance(n, int) or exact_quotient(n, bf16x2.numbers) is not None for n in sizes)
    filled = all(0 not in v.type.shape for v in node.inputs)
    return summed[0] if known and filled and sizes[0] == sizes[1] else None


def _factors(w: Rewriter, node: Node, label: str) -> list[Value]:
    labels = node.op.labels(*(v.type.rank for v in node.inputs))
    return [_packed(w, w[v], own.index(label)) for v, own in zip(node.inputs, labels)]


def _packed(w: Rewriter, v: Value, axis: int) -> Value:
    """The numbers along an axis in pairs."""
    rank = v.type.rank
    if exact_quotient(v.type.shape[axis], bf16x2.numbers) is None:
        v = w.pad(v, low=(0,) * rank, high=tuple(int(i == axis) for i in range(rank)))
    order = (*(i for i in range(rank) if i != axis), axis)
    back = tuple(order.index(i) for i in range(rank))
    return w.transpose(w.pack(w.transpose(v, perm=order)), perm=back)


def _packing_before(w: Rewriter, node: Node) -> tuple[Value, ...]:
    """The loop or branch, with what it packs of captured operands as more of these."""
    first, start = CAPTURED[type(node.op)](node.op)
    bodies = {name: getattr(node.op, name) for name in node.op.REGIONS}
    lifted: dict[tuple[int, tuple[Op, ...]], Value] = {}
    for body in bodies.values():
        for _, chain, i in _packs_of_arguments(body):
            if i + start >= first and (i, chain) not in lifted:
                v = w[node.inputs[i + start]]
                for op in chain:
                    v, = w.apply(op, (v,))
                lifted[i, chain] = v
    new = {name: _without_packs(body, lifted) for name, body in bodies.items()} if lifted else {}
    return w.apply(node.op.replace(**new) if new else node.op, [*(w[v] for v in node.inputs), *lifted.values()])


def _packs_of_arguments(body: Graph) -> list[tuple[Node, tuple[Op, ...], int]]:
    """The packs of an argument, transposed, with a zero more, or as it is: the node, the operators from the argument
    on, its number."""
    numbers = {v: i for i, v in enumerate(body.inputs)}
    found = []
    for node in body.nodes:
        if isinstance(node.op, Pack):
            chain, v = [node.op], node.inputs[0]
            while v.node is not None and isinstance(v.node.op, Transpose | Pad):
                chain.insert(0, v.node.op)
                v = v.node.inputs[0]
            if v in numbers:
                found.append((node, tuple(chain), numbers[v]))
    return found


def _without_packs(body: Graph, lifted: dict[tuple[int, tuple[Op, ...]], Value]) -> Graph:
    """The body, which takes these packed operands as its last arguments."""
    b = Builder(body.name)
    mapping = {v: b.input(v.name, v.type) for v in body.inputs}
    packed = {key: b.input(f"packed{n}", v.type) for n, (key, v) in enumerate(lifted.items())}
    ready = {node: packed[i, chain] for node, chain, i in _packs_of_arguments(body) if (i, chain) in packed}
    for node in body.nodes:
        if node in ready:
            mapping[node.outputs[0]] = ready[node]
        else:
            with b.at(node.loc, node.scope):
                mapping.update(zip(node.outputs, b.apply(node.op, [mapping[v] for v in node.inputs])))
    return b.finish([mapping[v] for v in body.outputs], body.output_names)
