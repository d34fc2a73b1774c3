"""A 32-byte digest of a graph, for cache keys. Arrays are hashed without being printed or copied: they may be large."""
from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from graphc.errors import InternalError
from graphc.ir.dims import Poly
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Literal
from graphc.ir.types import DType, TensorType


def digest(graph: Graph) -> bytes:
    """SHA-256 of all that a compiled graph depends on: operators, types, names of arguments and results, and the user's
    lines and layers, which errors and profiles name. Numbers count by their bits: 0 and -0, and two kinds of NaN,
    are different, as are 1, 1.0 and True."""
    return _Walk().digest(graph)


Thing = TypeVar("Thing")
LARGE = 64                      # bytes of an array whose own digest takes its place


class _Walk:
    def __init__(self) -> None:
        self.done: dict[int, str] = {}              # by identity: lines, types, arrays, regions of many nodes

    def digest(self, graph: Graph) -> bytes:
        number: dict[Value | None, int] = {None: -1}
        for v in graph.arguments:
            number[v] = len(number)
        rows = [repr((graph.name, [(v.name, str(v.type)) for v in graph.inputs],
                      [(v.name, str(v.type)) for v in graph.state]))]
        for node in graph.nodes:
            rows.append(self.row(node, [number[v] for v in node.inputs]))
            for v in node.outputs:
                number[v] = len(number)
        rows.append(repr((graph.output_names, [number[v] for v in graph.outputs], [number[v] for v in graph.updates])))
        return hashlib.sha256("\n".join(rows).encode("utf-8", "surrogatepass")).digest()

    def row(self, node: Node, inputs: list[int]) -> str:
        attributes = [f"{name}={self.attribute(value)}" for name, value in vars(node.op).items()]
        types = [self.known(v.type, str) for v in node.outputs]
        return f"{node.op.name} {attributes} {inputs} {types} {node.scope!r} {self.known(node.loc, repr)}"

    def known(self, thing: Thing, text: Callable[[Thing], str]) -> str:
        """The text of something that many nodes have."""
        if id(thing) not in self.done:
            self.done[id(thing)] = text(thing)
        return self.done[id(thing)]

    def attribute(self, value: object) -> str:
        if type(value) not in _TEXTS:
            raise InternalError(f"attributes of type {type(value).__name__} have no digest", "digest")
        return _TEXTS[type(value)](self, value)

    def graph(self, graph: Graph) -> str:
        return self.known(graph, lambda graph: f"graph {self.digest(graph).hex()}")

    def items(self, values: tuple[object, ...]) -> str:
        return f"({','.join(map(self.attribute, values))})"


def _array(value: Literal) -> str:
    data = value.data.hex() if len(value.data) < LARGE else hashlib.sha256(value.data).hexdigest()
    return f"array {value.type} {data}"


def _number(walk: _Walk, value: np.generic | float) -> str:
    array = np.asarray(value)
    return f"{array.dtype} {array.tobytes().hex()}"


_TEXTS: dict[type, Callable[[_Walk, Any], str]] = {       # each is called with a value of its type
    **dict.fromkeys((int, bool, str, type(None)), lambda walk, value: repr(value)),
    **dict.fromkeys((DType, TensorType, Poly), lambda walk, value: f"type {value}"),
    **dict.fromkeys((float, np.float32, np.float64, np.int32, np.int64, np.bool_), _number),
    Literal: lambda walk, value: _array(value) if len(value.data) < LARGE else walk.known(value, _array),
    Graph: _Walk.graph,
    tuple: _Walk.items,
}
