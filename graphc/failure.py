"""What is said when a kernel finds, at run time, that its data are wrong."""
from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from graphc.errors import GraphError, Loc
from graphc.ir.dims import Dim, evaluate
from graphc.ir.graph import Node
from graphc.ir.ops.embedding_gradients import CheckRows, RowPlaces
from graphc.ir.ops.fused import members
from graphc.ir.ops.index import Indexing
from graphc.ir.types import normalize_axis
from graphc.records import dataclass

WORDS: Mapping[str, tuple[str, str]] = {        # what a user's function calls its indices, and what they number
    "cross_entropy": ("label", "classes"), "embedding": ("id", "rows")}


@dataclass(frozen=True)
class Failure:
    """What to say when a kernel reports a bad index, or a NaN where these are checked: the function that the user
    called, or the operator, the user's line, and how many positions there are.
    """
    op: str
    loc: Loc | None
    nan: bool = False
    positions: Dim | None = None

    @staticmethod
    def of(node: Node, nan: bool = False) -> Failure:
        """Of a node that is checked; of a cluster, the one in it that may fail, or its last."""
        inner = _inner(node)
        if nan:
            return Failure(inner.op.name, node.loc, True)
        loc = inner.loc or node.loc
        return Failure(loc and loc.call or inner.op.name, loc, False, _positions(inner))

    @property
    def words(self) -> tuple[str, str]:
        """What the user's function calls its indices, and what they number."""
        return WORDS.get(self.op, ("index", "positions"))

    def error(self, index: int, sizes: Mapping[str, int] = MappingProxyType({})) -> GraphError:
        """Where the names have these sizes."""
        if self.nan:
            return GraphError(f"{self.op} makes NaN, first in element {index} of its result", self.loc)
        word, many = self.words
        n = None if self.positions is None else evaluate(self.positions, sizes)
        there = "" if n is None else f": there are {n} {many}" + f", 0 … {n - 1}" * (n > 0)
        return GraphError(f"{self.op} got {word} {index}, which is out of range{there}", self.loc)


def _inner(node: Node) -> Node:
    nodes = [n for n, _ in members(node)]
    return next((n for n in nodes if n.op.may_fail), nodes[-1] if nodes else node)


def _positions(node: Node) -> Dim | None:
    """How many positions the indices that the node checks are of."""
    op = node.op
    if isinstance(op, Indexing):
        shape = node.inputs[0].type.shape
        return shape[normalize_axis(op.axis, len(shape))]
    return op.size if isinstance(op, (CheckRows, RowPlaces)) else None
