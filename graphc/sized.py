"""One program for all sizes of the named dimensions of a graph."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import numpy as np

from graphc.build import Build
from graphc.compiled import CompiledGraph, with_code
from graphc.codegen.llvm import cache
from graphc.codegen.llvm.packing import pack
from graphc.compiler import Compilation, kept
from graphc.config import config
from graphc.dsl.context import user_loc
from graphc.errors import InternalError, Unsized
from graphc.ir.dims import Dims, evaluate
from graphc.ir.graph import Graph
from graphc.ir.open import Bounds, open_graph, size_conditions, tightened
from graphc.memory.budget import Budget
from graphc.once import once_property
from graphc.records import dataclass
from graphc.runtime.executable import Executable, Resident
from graphc.runtime.lock import StateLock
from graphc.schedule.target import Target


PROOFS = ("loop verifier", "plan verifier")     # stages that prove what holds for all sizes
T = TypeVar("T")


def for_all_sizes(make: Callable[[], T]) -> T:
    """What is made of an open graph. Unsized where something cannot be proved for all sizes."""
    try:
        return make()
    except InternalError as error:
        if error.stage not in PROOFS or config().verify > 1:
            raise
        raise Unsized(f"the {error.stage} does not find that it is right for all sizes: {error.text}") from error


def text_for_all_sizes(graph: Graph, stage: str, target: Target | None) -> str:
    """The text of a stage of the program for all sizes, or for those for which it can be made. Unsized where it cannot.
    """
    bounds: Mapping[str, Bounds] = {}
    while True:
        opened, bounds = open_graph(graph, bounds)
        try:
            return for_all_sizes(partial(Compilation(opened, target).text, stage))
        except Unsized as reason:
            bounds = tightened(bounds, reason)


@dataclass(frozen=True)
class Opening:
    """What the disk cache keeps of a graph that was opened: the key of the build, the bounds of names, and what must be
    at least 0 besides."""
    key: str
    names: tuple[str, ...]
    bounds: tuple[Bounds, ...]
    conditions: Dims


class SizedGraph:
    """A graph compiled once, for sizes that come with each call: `at(B=8)` makes no code, only what a call with these
    sizes needs besides. What is made from the state exists once for all sizes.

    Unsized where the compiler cannot make such a program of the graph (yet).
    """

    def __init__(self, graph: Graph | Callable[[], Graph], bounds: Mapping[str, Bounds], threads: int = 0,
                 state: Sequence[np.ndarray] = (), lock: StateLock | None = None, quiet: bool = False,
                 budget: Budget | None = None, key: str = ""):
        """`state`, `lock`, `quiet`: as of `Executable`. `budget`: of the largest sizes. key: what the disk cache has
        the program under, where that is known; then `graph` may be what makes it when it is asked for."""
        self._given = graph
        if budget is not None:
            budget = budget.for_sizes(self.graph.name, self.graph.dim_names, {n: b.high for n, b in bounds.items()})
        self.key = key or Compilation(self.graph, budget=budget).key_of("sizes", self.graph,
                                                                        repr(sorted(bounds.items())))
        if not self._found(self.key, budget):
            self._compile(bounds, budget)
            if store := cache.default():
                store.put(self.key, *pack(Opening(self.compilation.key, tuple(self.bounds), tuple(self.bounds.values()),
                                             self._conditions)))
        self._threads, self._state, self._lock, self._quiet = threads, state, lock, quiet
        self._resident: Resident | None = None

    @once_property
    def graph(self) -> Graph:
        return self._given if isinstance(self._given, Graph) else self._given()

    def _found(self, key: str, budget: Budget | None) -> bool:
        """Whether the disk cache has all that calls need; then the graph is opened when somebody wants to see it."""
        opening = kept(key, Opening)
        if opening is None:
            return False
        self.bounds, self._conditions = dict(zip(opening.names, opening.bounds)), opening.conditions
        self.compilation = Compilation(lambda: open_graph(self.graph, self.bounds)[0], budget=budget)
        if found := self.compilation.found_under(opening.key):
            self.memory = self.compilation.build.memory
        return found

    def _compile(self, bounds: Mapping[str, Bounds], budget: Budget | None) -> None:
        """For all sizes, or for those for which a stage finds that its part can be done for all."""
        opened, self.bounds = open_graph(self.graph, bounds)
        self._conditions = size_conditions(opened)
        self.compilation = Compilation(opened, budget=budget)
        try:
            self.memory = for_all_sizes(lambda: self.compilation.build.memory)
        except Unsized as reason:
            self._compile(tightened(self.bounds, reason), budget)

    def serves(self, sizes: Mapping[str, int]) -> bool:
        """Whether the program is right for these sizes."""
        return (all(sizes[name] in bounds for name, bounds in self.bounds.items())
                and all(evaluate(condition, sizes) >= 0 for condition in self._conditions))

    def at(self, **sizes: int) -> CompiledGraph:
        """The program as it is called with arrays of these sizes."""
        def start(build: Build) -> Executable:
            knob = self.compilation.config.threads
            return Executable(build.program.at(sizes), self._threads or knob, self._state, self._lock,
                              partial(build.error, sizes=sizes), user_loc, self._quiet, resident=self._resident)
        executable = self.compilation.load(start) if self._resident is None else start(self.compilation.build)
        self._resident = executable.resident
        return with_code(lambda: self.graph, self.compilation, executable, sizes)

    def release(self) -> None:
        """Gives back the memory that calls have used."""
        if self._resident is not None:
            self._resident.frames.drop()

