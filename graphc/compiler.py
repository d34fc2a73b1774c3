"""The compilation of one graph, as far as somebody needs it. Where the disk cache has the code, the pipeline is not
even loaded."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from graphc.build import Build, constant_memory
from graphc.codegen.llvm import cache
from graphc.codegen.llvm.host import host_target
from graphc.codegen.llvm.packing import pack, unpack
from graphc.config import Config, config
from graphc.contained import contained
from graphc.errors import GraphError, InternalError
from graphc.ir.digest import digest
from graphc.ir.graph import Graph
from graphc.memory.budget import Budget
from graphc.memory.usage import Memory
from graphc.once import loaded, once_property
from graphc.schedule.target import Target

if TYPE_CHECKING:
    from graphc.codegen.program import LoopProgram
    from graphc.memory.plan import Plan, ProgramPlan
    from graphc.passes.join_shards import Shards
    from graphc.passes.pipeline import Pass
    from graphc.stages import PipelineStage

S = TypeVar("S", bound="PipelineStage")
T = TypeVar("T")
STAGES = ("graph", "simplified", "fused", "planned", "loops", "llvm", "asm")


def pipeline() -> Any:
    """The module of the stages: with passes, schedules and lowerings, which a process that finds all its code on disk
    does without."""
    return loaded("graphc.pipeline")


class Compilation:
    """The pipeline of one graph, as far as it was needed: each stage is made when it is first asked for, and kept; the
    build may come from the disk cache."""

    def __init__(self, graph: Graph | Callable[[], Graph], target: Target | None = None, knobs: Config | None = None,
                 timed: bool = False, budget: Budget | None = None, shards: Shards | None = None):
        """graph: it, or what makes it when it is first asked for, where the build may be known without. shards: the
        program is that of several shards, of which `graph` is that of one."""
        self._given, self.target, self.config, self.budget = graph, target or host_target(), knobs or config(), budget
        self.timed, self.shards = timed, shards

    @once_property
    def graph(self) -> Graph:
        return self._given if isinstance(self._given, Graph) else self._given()

    @once_property
    def tools(self) -> Any:
        """What the stages are made with."""
        return pipeline().Tools.of(self.target, self.config, self.timed, bool(self.graph.dim_names), self.budget,
                                   self.shards)

    @contained
    def stage(self, kind: type[S]) -> S:
        """The stage of this class; of plans and behind them proved."""
        return cast(S, pipeline().stage_of(self.graph, self.tools, kind))

    @property
    def called(self) -> Graph:
        """The graph as the program is called."""
        if self.shards is None or self.shards.own == 1:
            return self.graph
        return cast(Graph, pipeline().called(pipeline().Declared(self.graph), self.tools).graph)

    @property
    def simplified(self) -> Graph:
        return cast(Graph, self.stage(pipeline().Simplified).graph)

    @property
    def fused(self) -> Graph:
        return cast(Graph, self.stage(pipeline().FusedGraphs).main)

    @property
    def planned(self) -> ProgramPlan:
        return cast("ProgramPlan", self.stage(pipeline().ProgramPlan))

    @property
    def plan(self) -> Plan:
        return self.planned.main

    @property
    def loops(self) -> LoopProgram:
        return cast("LoopProgram", self.stage(pipeline().Lowered).program)

    @property
    def llvm(self) -> str:
        return str(self.stage(pipeline().Emitted).llvm)

    @property
    def memory(self) -> Memory:
        """Bytes by purpose, known before a run."""
        return cast(Memory, self.stage(pipeline().Lowered).memory)

    @once_property
    @contained
    def build(self) -> Build:
        """The last stage, from the disk cache if it is there."""
        found = kept(self.key, Build)
        self.found = found is not None
        return found or self._built_anew()

    def found_under(self, key: str) -> bool:
        """Whether the disk cache has the build under this key, which is known to be this graph's: nobody asks for the
        graph then."""
        build = kept(key, Build)
        if build is not None:
            self.key, self.build, self.found = key, build, True
        return build is not None

    def load(self, start: Callable[[Build], T]) -> T:
        """`start(self.build)`; what comes from the disk cache and does not load counts as missing."""
        try:
            return start(self.build)
        except InternalError as error:
            if error.stage != "load" or not self.found:
                raise
            self.build = self._built_anew()
            return start(self.build)

    @contained
    def _built_anew(self) -> Build:
        build = cast(Build, pipeline().built(self.graph, self.tools))
        if store := cache.default():
            store.put(self.key, *pack(build))
        if self.config.time:
            print(self.tools.passes.timings)
        return build

    @once_property
    def key(self) -> str:
        """That of the build in the disk cache."""
        return self.key_of("program", self.graph)

    def key_of(self, what: str, graph: Graph, *more: str) -> str:
        """In the disk cache, of what depends on a graph and on how this one is compiled."""
        options = (self.config.check_nan, self.config.winograd, self.config.flush_subnormals, self.timed,
                   *((self.budget,) if self.budget else ()), *(self.shards.key if self.shards else ()))
        return cache.make_key(what, digest(graph), repr(self.target), repr(options), *more)

    def steps(self) -> Iterator[tuple[Pass, Graph, Graph]]:
        """Each pass, and the graph before and after it, run again: of what every call computes."""
        return cast("Iterator[tuple[Pass, Graph, Graph]]", pipeline().steps(self.graph, self.tools))

    def text(self, stage: str) -> str:
        """The program at a stage: one of STAGES."""
        if stage not in STAGES:
            raise GraphError(f"there is no stage {stage!r}; the stages are {', '.join(STAGES)}")
        return str(pipeline().TEXTS[stage](self))

    def explain(self) -> str:
        """What is computed again, why neighbours were not fused, and what each kernel's schedule won against, with
        cycles by cause."""
        return str(pipeline().explained(self))


def kept(key: str, kind: type[T]) -> T | None:
    """What the disk cache has under a key, if anything."""
    store = cache.default()
    return store.get(key, partial(unpack, kind), constant_memory) if store else None
