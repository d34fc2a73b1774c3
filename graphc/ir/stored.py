"""Numbers that are only stored, computed with: operators with other element types in the place of some."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import InternalError
from graphc.ir.graph import Graph, Node, regions
from graphc.ir.op import Arrays, Literal, Op, Opcode, as_tuple
from graphc.ir.ops.blocks import BlockProduct
from graphc.ir.ops.constant import Constant
from graphc.ir.ops.elementwise import COPY, WHERE, BitCast, Cast, StopGradient
from graphc.ir.ops.index import Take, TakeAlongAxis
from graphc.ir.ops.packed import PackFour, PackPair
from graphc.ir.ops.shape import Movement
from graphc.ir.types import DTYPES, DType, TensorType, dtype_of

Types = Mapping[DType, DType]
# the elements of the result are elements of operands, constants or conversions; so with all of Movement
MOVES: frozenset[Opcode] = frozenset((Constant, Cast, BitCast, StopGradient, COPY, WHERE, Take, TakeAlongAxis,
                                      PackFour, PackPair))
READS: frozenset[Opcode] = frozenset((BlockProduct,))      # they convert what they load
COMPUTE: Types = {d: d.compute for d in DTYPES if d.is_storage}


def _no_region(graph: Graph) -> Graph:
    raise InternalError(f"the types inside {graph.name} are its own")


def retyped_op(op: Op, types: Types, region: Callable[[Graph], Graph] = _no_region) -> Op:
    """`op` with other types in its attributes; `region` gives a graph in the place of each that it has."""
    changes = {name: other for name, value in vars(op).items()
               if (other := retyped(value, types, region)) is not value}
    return op.replace(**changes) if changes else op


def retyped(value: Any, types: Types, region: Callable[[Graph], Graph] = _no_region) -> Any:
    """An attribute, or a type, with the other types; itself if there is none in it."""
    if isinstance(value, Graph):
        return region(value)
    if isinstance(value, Literal) and value.dtype in types:
        return Literal.of(value.array.astype(types[value.dtype].np))
    if isinstance(value, TensorType) and value.dtype in types:
        return value.with_dtype(types[value.dtype])
    if isinstance(value, tuple):
        return tuple(retyped(v, types, region) for v in value)
    return types.get(value, value) if isinstance(value, DType) else value


def computes_on_stored(node: Node) -> bool:
    """Whether the node calculates with numbers that are only stored, and not merely moves or converts them."""
    return (not isinstance(node.op, Movement) and node.op.opcode not in MOVES | READS and not regions(node.op)
            and any(v.type.dtype.is_storage for v in (*node.inputs, *node.outputs)))


def node_reference(node: Node, arrays: Sequence[np.ndarray]) -> Arrays:
    """What a node makes of arrays, by numpy. An operator on f16 or bf16 computes in f32, and its results are rounded
    once."""
    if not computes_on_stored(node):
        return as_tuple(node.op.reference(*arrays))
    wide = [a.astype(dtype_of(a).compute.np) for a in arrays]
    results = as_tuple(retyped_op(node.op, COMPUTE).reference(*wide))
    with np.errstate(over="ignore"):
        return tuple(np.asarray(r).astype(v.type.dtype.np) for r, v in zip(results, node.outputs, strict=True))
