"""Runs a graph with numpy, operator by operator: the oracle of the tests."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.ir.graph import Graph, Node, Value
from graphc.ir.stored import node_reference


def evaluate(graph: Graph, arguments: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """The outputs, then the updated state, for `arguments` (inputs, then state)."""
    env: dict[Value, np.ndarray] = dict(zip(graph.arguments, map(np.asarray, arguments), strict=True))
    for node in graph.nodes:
        results = node_reference(node, [env[v] for v in node.inputs])
        for v, array in zip(node.outputs, results, strict=True):
            env[v] = _checked(array, v, node)
    return tuple(env[v] for v in graph.results)


def _checked(result: np.ndarray, v: Value, node: Node) -> np.ndarray:
    array = np.asarray(result)
    if array.shape != v.type.shape or array.dtype != v.type.dtype.np:
        raise AssertionError(f"reference of {node.op.name} made {array.dtype}{list(array.shape)}, its type says "
                             f"{v.type}")
    return array
