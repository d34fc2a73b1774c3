"""A cluster of operators that runs as one loop nest, or as one contraction with its epilogue."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, cast

import numpy as np

from graphc.errors import InternalError
from graphc.ir.graph import Graph, Node, NodeOf, Value
from graphc.ir.interp import evaluate
from graphc.ir.op import Arrays, Cost, Gradients, Op, OpBuilder, Values, require
from graphc.ir.ops.shape import Slice
from graphc.ir.types import TensorType

KINDS = ("nest", "contraction")


def contraction_in(body: Graph) -> Node:
    """The contraction of a cluster."""
    return next(n for n in body.nodes if n.op.takes_epilogue)


def core_of(node: Node) -> Node:
    """The node whose operator decides how the kernel of `node` runs: of a cluster with a contraction the contraction,
    whose operands are the first inputs of the cluster; else the node itself.
    """
    if not isinstance(node.op, Fused) or node.op.kind != "contraction":
        return node
    inner = contraction_in(node.op.body)
    if inner.inputs != node.op.body.inputs[:len(inner.inputs)]:
        raise InternalError("the operands of a contraction come first among the inputs of its cluster", "fused",
                            repr(node))
    return inner


def slices_in(body: Graph) -> tuple[NodeOf[Slice], ...]:
    """The gates of a contraction: the slices by which its epilogue reads the columns, all equally wide."""
    return tuple(cast(NodeOf[Slice], n) for n in body.nodes if isinstance(n.op, Slice))


class Fused(Op):
    """The outputs of `body` for its inputs. Made by the fuse pass, after differentiation: it has no gradient of its
    own.

    kind "nest": elementwise operators and reductions over one iteration space (`ir.space`).
    kind "contraction": one contraction and elementwise operators on its result, every output of the contraction's
    shape; or, with gates, of the shape of the slices that the body takes of the result, side by side along its last
    axis.
    """
    name: ClassVar[str] = "fused"
    body: Graph
    kind: str = "nest"

    def infer(self, *ins: TensorType) -> tuple[TensorType, ...]:
        wanted = tuple(v.type for v in self.body.inputs)
        require(not self.body.state and self.kind in KINDS,
                f"a fused body owns no state and its kind is one of {', '.join(KINDS)}, not {self.kind!r}")
        require(ins == wanted, f"fused body takes {wanted}, got {ins}")
        return tuple(v.type for v in self.body.outputs)

    def reference(self, *arrays: np.ndarray) -> Arrays:
        return evaluate(self.body, arrays)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        raise InternalError("a fused node is differentiated before it is fused", "backward")

    def cost(self, *ins: TensorType) -> Cost:
        flops = sum(node.op.cost(*(v.type for v in node.inputs)).flops for node in self.body.nodes)
        return Cost(flops, sum(v.type.nbytes for v in (*self.body.inputs, *self.body.outputs)))


def members(node: Node) -> Iterator[tuple[Node, Mapping[Value, Value]]]:
    """The operators of a node, itself or those of its cluster, and what their operands are called outside of it."""
    if not isinstance(node.op, Fused):
        yield node, {v: v for v in node.inputs}
        return
    outer = dict(zip(node.op.body.inputs, node.inputs))
    for inner in node.op.body.nodes:
        yield inner, outer


OPS = (Fused,)
