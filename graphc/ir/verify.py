"""Checks a graph: every value defined once before use, every type what its operator says, only operators legal at the
stage."""
from __future__ import annotations

from collections.abc import Callable

from graphc.errors import GraphError, InternalError, Loc
from graphc.ir.dims import lower
from graphc.ir.graph import Graph, Node, regions
from graphc.ir.op import Composite, Op, result_types
from graphc.ir.ops.fused import Fused
from graphc.ir.room import ROOM, check_room
from graphc.ir.types import TensorType
from graphc.records import dataclass


@dataclass(frozen=True)
class Stage:
    """What is legal at a point of the pipeline."""
    name: str
    allows: Callable[[Op], bool]
    symbolic: bool = False          # named dimensions may remain


DECLARED = Stage("declared", lambda op: not isinstance(op, Fused), symbolic=True)
DIFFERENTIATED = Stage("differentiated", DECLARED.allows, symbolic=True)
BOUND = Stage("bound", DECLARED.allows)
FUSED = Stage("fused", lambda op: not isinstance(op, Composite) or op.has_kernel)
DECOMPOSED = Stage("decomposed", lambda op: not isinstance(op, Fused) and FUSED.allows(op))


def check_compilable(graph: Graph) -> None:
    """GraphError, with the user's line, for a graph that is right but that no machine could run as it is."""
    for v in graph.arguments:
        _check_bound(v.name, v.type)
    for node in graph.nodes:
        if isinstance(node.op, Fused):
            raise GraphError("the operator fused is made when compiling: compile the graph as it was before", node.loc)
        for v in node.outputs:
            _check_bound(f"what {node.op.name} makes", v.type, node.loc)
        for _, region in regions(node.op):
            check_compilable(region)
    values = (*graph.arguments, *(v for node in graph.nodes for v in node.outputs))
    if lower(sum([v.type.nbytes for v in values])) > ROOM:
        raise GraphError(f"{graph.name} needs more memory than there is")


def _check_bound(what: str, t: TensorType, loc: Loc | None = None) -> None:
    if not t.is_known:
        raise GraphError(f"{what} is {t}, but the sizes of {', '.join(sorted(t.names))} are not given, for example "
                         f"{min(t.names)}=64", loc)
    if any(d < 0 for d in t.shape):
        raise GraphError(f"{what} is {t}, which has a negative dimension: a size that was given for a name is too "
                         "small", loc)
    check_room(what, t, loc)


def verify(graph: Graph, stage: Stage) -> None:
    """InternalError, with the offending node, when the graph breaks a rule of `stage`."""
    defined = set(graph.arguments)
    for node in graph.nodes:
        for v in node.inputs:
            if v not in defined:
                raise InternalError(f"input {v} is not defined before it is used", stage.name, repr(node))
        if not stage.allows(node.op):
            raise InternalError(f"operator {node.op.name} is not legal here", stage.name, repr(node))
        _check_types(node, stage)
        defined.update(node.outputs)
        for _, region in regions(node.op):
            verify(region, stage if not isinstance(node.op, Fused) else FUSED)
    for v in graph.results:
        if v not in defined:
            raise InternalError(f"output {v} is not defined", stage.name)
    for state, new in zip(graph.state, graph.updates):
        if new is not None and new.type != state.type:
            raise InternalError(f"state {state.name}: {state.type} is updated by {new.type}", stage.name)


def _check_types(node: Node, stage: Stage) -> None:
    try:
        types = result_types(node.op, [v.type for v in node.inputs])
    except GraphError as error:
        raise InternalError(error.text, stage.name, repr(node)) from error
    actual = tuple(v.type for v in node.outputs)
    if types != actual:
        raise InternalError(f"has types {actual}, its operator says {types}", stage.name, repr(node))
    if not stage.symbolic and not all(t.is_known for t in types):
        raise InternalError(f"a dimension of {types} is not bound", stage.name, repr(node))
