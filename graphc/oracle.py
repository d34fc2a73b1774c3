"""Runs a graph with state by the numpy oracle: the reference for native code, and a fallback to find out which of the
two is wrong."""
from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import numpy as np

from graphc.dsl.context import user_loc
from graphc.errors import GraphError
from graphc.ir.graph import Graph
from graphc.ir.interp import evaluate
from graphc.ir.printer import print_graph
from graphc.ir.types import shape_text
from graphc.runtime.lock import StateLock


class OracleExecutable:
    """Callable like compiled code: takes the inputs, writes new state into `state` in place, returns the outputs as the
    graph declares them.

    It computes on a copy of the state, and again if that has changed meanwhile."""
    memory = None

    def __init__(self, graph: Graph, state: Sequence[np.ndarray] = (), lock: StateLock | None = None):
        self.graph, self.state, self.lock = graph, tuple(state), lock or StateLock()

    def __call__(self, *arrays: np.ndarray) -> np.ndarray | tuple[np.ndarray, ...] | dict[str, np.ndarray]:
        outputs = None
        while outputs is None:
            outputs = self._run(arrays)
        names = self.graph.output_names
        if names is None:
            return outputs[0]
        return dict(zip(names, outputs)) if any(names) else outputs

    def _run(self, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...] | None:
        """The outputs; None, and nothing written, if somebody else has written the state."""
        arrays = [np.asarray(a) for a in arrays]
        for v, a in zip(self.graph.inputs, arrays, strict=True):
            if a.shape != v.type.shape or a.dtype != v.type.dtype.np:
                raise GraphError(f"argument {v.name!r} is {v.type}, got {a.dtype}{shape_text(a.shape)}")
        version = self.lock.version
        results = evaluate(self.graph, (*arrays, *self.lock.read(self.state)))
        count = len(self.graph.outputs)
        kept = [s for s, new in zip(self.state, self.graph.updates) if new is not None]
        new = [np.ascontiguousarray(value, array.dtype) for array, value in zip(kept, results[count:], strict=True)]
        return tuple(results[:count]) if not kept or self.lock.write(kept, new, version) else None

    def into(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        """As a call, of which the results are copied to `outputs`."""
        found = self(*inputs)
        results = found.values() if isinstance(found, dict) else found if isinstance(found, tuple) else (found,)
        for array, result in zip(outputs, results, strict=True):
            array[...] = result

    def renew(self) -> None:
        """Nothing is derived."""

    def release(self) -> None:
        """Nothing is kept."""

    def dump(self, stage: str = "graph") -> str:
        if stage != "graph":
            raise GraphError(f"the oracle has no stage {stage!r}, only \"graph\"")
        return print_graph(self.graph)

    @property
    def compilation(self) -> NoReturn:
        raise GraphError("the oracle compiles nothing: compile without the knob oracle", user_loc())

    def explain(self) -> NoReturn:
        raise GraphError("the oracle has no kernels to explain: compile without the knob oracle", user_loc())

    def profile(self, *arrays: np.ndarray, runs: int = 5) -> NoReturn:
        raise GraphError("the oracle has no kernels whose time could be told: compile without the knob oracle",
                         user_loc())
