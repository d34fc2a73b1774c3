"""The seam between a graph with state and what runs it: native code, or the oracle when the knob `oracle` says so."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from graphc.compiled import CompiledGraph
from graphc.compiler import Compilation
from graphc.config import config
from graphc.dsl.function import GraphFunction
from graphc.errors import Unsized
from graphc.ir.graph import Graph
from graphc.ir.open import Bounds
from graphc.memory.budget import Budget
from graphc.memory.usage import Memory
from graphc.nn.network import entries
from graphc.oracle import OracleExecutable
from graphc.runtime.lock import StateLock
from graphc.sized import SizedGraph
from graphc.state import State

if TYPE_CHECKING:
    from graphc.passes.join_shards import Shards
    from graphc.profile import Profile


class Runnable(Protocol):
    """Takes the inputs, writes new state in place, returns the outputs as the graph declares them: an array, a tuple or
    a dict, which a type cannot say."""

    @property
    def memory(self) -> Memory | None: ...

    @property
    def compilation(self) -> Compilation: ...

    def __call__(self, *arrays: np.ndarray) -> Any: ...

    def into(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None: ...

    def dump(self, stage: str = "graph") -> str: ...

    def explain(self) -> str: ...

    def profile(self, *arrays: np.ndarray, runs: int = 5) -> Profile: ...

    def renew(self) -> None: ...

    def release(self) -> None: ...


def make_executable(graph: Graph, state: Sequence[np.ndarray], lock: StateLock, threads: int = 0,
                    quiet: bool = False, budget: Budget | None = None, shards: Shards | None = None) -> Runnable:
    """`graph` (without named dimensions), ready to run on the live arrays of its state, in the order of `graph.state`.
    `quiet`: see `runtime.executable`. `budget`: of memory. `shards`: see `passes.join_shards`."""
    if config().oracle:
        return OracleExecutable(graph, state, lock)
    return CompiledGraph(graph, threads, state, lock, quiet, budget, shards)


def sized_executable(graph: Graph, bounds: Mapping[str, Bounds], threads: int, state: Sequence[np.ndarray] = (),
                     lock: StateLock | None = None, quiet: bool = False, budget: Budget | None = None) -> SizedGraph:
    """One program for all sizes of the named dimensions, on these arrays. Unsized where there is none. `quiet`: see
    `runtime.executable`. `budget`: of memory, for the largest sizes."""
    if config().oracle:
        raise Unsized("the oracle takes each size by itself")
    return SizedGraph(graph, bounds, threads, state, lock, quiet, budget)


def on_state(function: GraphFunction, state: State, threads: int, graph: Graph,
             budget: Budget | None = None, shards: Shards | None = None) -> Runnable:
    """`graph`, which is that of `function` or computes it for some sizes, ready to run on the live arrays of the
    state."""
    return make_executable(graph, state.arrays(entries(function)), state.lock, threads, budget=budget,
                           shards=shards)


def sized_on_state(function: GraphFunction, state: State, threads: int, graph: Graph,
                   bounds: Mapping[str, Bounds], budget: Budget | None = None) -> SizedGraph:
    """As `on_state`, for all sizes of the named dimensions."""
    return sized_executable(graph, bounds, threads, state.arrays(entries(function)), state.lock, budget=budget)
