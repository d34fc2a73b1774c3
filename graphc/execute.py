"""The seam between a graph with state and what runs it."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from graphc.ir.graph import Graph
from graphc.oracle import OracleExecutable


class Executable(Protocol):
    """Takes the inputs, writes new state in place, returns the tuple of outputs."""
    memory: object

    def __call__(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...]: ...

    def dump(self, stage: str = "graph") -> str: ...


def make_executable(graph: Graph, state: Sequence[np.ndarray], threads: int | None = None) -> Executable:
    """`graph` (without named dimensions), ready to run on the live arrays of its state, in the order of `graph.state`."""
    return OracleExecutable(graph, state)
