"""The pipeline: from a graph to machine code, stage by stage."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import field, replace
from types import MappingProxyType
from typing import Any, TypeVar, cast

from graphc.assemble import build_of
from graphc.build import Build
from graphc.codegen.llvm.parts import emit_program
from graphc.codegen.llvm.workers import expected, parts_begun
from graphc.codegen.loops.reach import Reaches
from graphc.codegen.loops.verify import verify as verify_loops
from graphc.codegen.program import build_program
from graphc.compiler import STAGES, Compilation
from graphc.config import Config
from graphc.errors import GraphError
from graphc.ir.graph import Graph, Value
from graphc.ir.verify import BOUND, DECOMPOSED, FUSED, check_compilable, verify
from graphc.memory.budget import Budget
from graphc.memory.budget_search import BudgetSearch, explain_recomputed
from graphc.memory.derived_state import DerivedState
from graphc.memory.plan import Plan, ProgramPlan
from graphc.memory.planner import plan_memory
from graphc.memory.usage import Memory, human
from graphc.memory.verify_plan import verify_plan
from graphc.memory.verify_shards import verify_shards
from graphc.passes.dce import EliminateDeadCode
from graphc.passes.eliminate_bounds_checks import EliminateBoundsChecks
from graphc.passes.fold_transposes import FoldTransposes
from graphc.passes.fuse import Fuse, explain
from graphc.passes.fuse_gates import FuseGates
from graphc.passes.join_shards import Shards, called_with, join_shards
from graphc.passes.layout import ArrangeImages, storage_orders
from graphc.passes.materialize_padding import MaterializePadding
from graphc.passes.order import Order
from graphc.passes.pack_factors import PackFactors
from graphc.passes.pipeline import Pass, Pipeline, apply
from graphc.passes.precompute import Split, split_derived
from graphc.passes.spell_pools import SpellPools
from graphc.passes.spell_products import SpellProducts
from graphc.passes.winograd import Winograd
from graphc.records import dataclass
from graphc.runtime.native import begin
from graphc.schedule.explain_schedules import explain_schedules
from graphc.schedule.target import Target
from graphc.simplification import simplification
from graphc.spare_cores import spare_cores
from graphc.stages import (
    Declared, Emitted, FusedGraphs, Lowered, PipelineStage, Simplified, entries, thread_scratch)

S = TypeVar("S", bound=PipelineStage)
T = TypeVar("T")


def fusion(target: Target, check_nan: bool = False) -> tuple[Pass, ...]:
    """The passes that make kernels of operators."""
    return (
        SpellProducts(target),          # before the rest, which shapes products for their kernels
        SpellPools(target),             # before fusion, which makes one nest of the slices
        FoldTransposes(),               # before fusion: what follows a product may be its epilogue, not behind a view
        EliminateDeadCode(),            # transposes of operands that were turned back
        EliminateBoundsChecks(),        # after that: a lookup that nobody reads checks nothing
        MaterializePadding(),           # before fusion: it changes what convolutions read
        *((Fuse(1, target.machine),) if check_nan else (      # a NaN is traced to one operator
            Fuse(machine=target.machine),
            FuseGates(target))),        # right after fusion, which makes the clusters that it merges
        ArrangeImages(target),          # after fusion, which would take its copies for work to be fused
        Order(),                        # after fusion: an optimizer's update of one parameter is one node then
    )


def winograd(tools: Tools) -> tuple[Pass, ...]:
    """Last, because it takes the weights as they are then. Not where a NaN is traced to one operator: it makes NaN out
    of infinity."""
    shards = tools.shards.count if tools.shards else 1
    return (Winograd(tools.target, shards),) if tools.config.winograd and not tools.config.check_nan else ()


def packing(tools: Tools) -> tuple[Pass, ...]:
    """After the weights are as they stay; before `split_state`: what is made of weights for it is made once."""
    return PackFactors(tools.target), EliminateDeadCode()


@dataclass(frozen=True)
class Tools:
    """What all stages are made with: the target, the knobs, and who takes times, dumps and keeps. `timed`: an
    instrumented build. `shards`: the graph is that of one shard, and the program computes some of them."""
    target: Target
    config: Config
    timed: bool
    passes: Pipeline
    verify: bool                # always of programs for all sizes: what holds for those that come is proved, not tried
    budget: Budget | None = None
    shards: Shards | None = None
    made: dict[Callable[..., Any], Any] = field(default_factory=dict)     # what each step gave

    @staticmethod
    def of(target: Target, config: Config, timed: bool, is_open: bool, budget: Budget | None,
           shards: Shards | None) -> Tools:
        return Tools(target, config, timed, Pipeline(config), bool(config.verify or is_open), budget, shards)

    def once(self, step: Callable[..., S], *stages: object) -> S:
        """`step(*stages, self)`, made once and kept. Threads may ask at the same time, and exceptions come at any
        moment: all get what was there first."""
        if step not in self.made:
            made = self.made.setdefault(step, step(*stages, self))
            if self.config.dump and type(made) in DUMPED:
                self.passes.dump(DUMPED[type(made)], made.text())
        return self.made[step]


def compile_graph(graph: Graph, tools: Tools) -> Iterator[PipelineStage]:
    """The whole way from a graph to machine code. Every stage is a value made of those before it, and yielded as soon
    as it is there: whoever wants an early one runs no later one."""
    yield (declared := Declared(graph))
    yield (simplified := tools.once(simplify, declared))        # fewer operators, of fewer kinds
    yield (split := tools.once(split_state, simplified))        # before fusion: a kernel runs in every call or in none
    yield (fused := tools.once(fuse, split))                    # operators become kernels
    declared = tools.once(called, declared)                     # with the arrays of all shards of the program
    yield (planned := tools.once(plan, declared, fused))        # after fusion: values inside a kernel need no memory
    yield (lowered := tools.once(lower, declared, planned))     # after planning: loops are made for layouts
    yield (emitted := tools.once(emit, lowered))
    yield tools.once(assemble, declared, fused, planned, lowered, emitted)


def stage_of(graph: Graph, tools: Tools, kind: type[S]) -> S:
    """The stage of this class; of plans and behind them proved."""
    for stage in compile_graph(graph, tools):
        for made, proof in PROOFS.items():
            if type(stage) is made and kind is not Build:
                proof(stage, tools)
        if type(stage) is kind:
            break
    return cast(S, stage)


def built(graph: Graph, tools: Tools) -> Build:
    """The last stage. The runtime that it needs is compiled meanwhile, where a core is idle."""
    with expected():
        begin(spare_cores)
        return stage_of(graph, tools, Build)


def simplify(declared: Declared, tools: Tools) -> Simplified:
    check_compilable(declared.graph)
    verify(declared.graph, BOUND)
    passes = (*simplification(tools.target), *winograd(tools), *packing(tools))
    return Simplified(tools.passes.run(declared.graph, passes, DECOMPOSED))


def split_state(simplified: Simplified, tools: Tools) -> Split:
    """What every call computes, and what is computed when the state has changed."""
    return tools.passes.timed("derive", split_derived, simplified.graph)


def fuse(split: Split, tools: Tools) -> FusedGraphs:
    def kernels(graph: Graph) -> Graph:
        fused = tools.passes.run(graph, fusion(tools.target, tools.config.check_nan), FUSED)
        if tools.config.verify:
            tools.passes.timed("verify", verify, fused, FUSED)
        return fused
    main, prepare = kernels(split.main), kernels(split.prepare) if split.prepare else None
    if tools.shards is None or tools.shards.own == 1:
        return FusedGraphs(main, prepare)
    shards = tools.shards
    if update := shards.update:
        simple = tools.passes.run(update.graph, (*simplification(tools.target), *packing(tools)), DECOMPOSED)
        shards = replace(shards, update=replace(update, graph=kernels(simple)))
    joined = tools.passes.timed("join_shards", join_shards, main, prepare, shards, tools.target)
    if tools.config.verify:
        tools.passes.timed("verify", verify, joined.main, FUSED)
    return FusedGraphs(joined.main, joined.prepare, FusedGraphs(main, prepare), joined.stand)


def called(declared: Declared, tools: Tools) -> Declared:
    """The graph as the program is called."""
    shards = tools.shards
    return declared if shards is None or shards.own == 1 else Declared(called_with(declared.graph, shards))


def plan(declared: Declared, fused: FusedGraphs, tools: Tools) -> ProgramPlan:
    """A schedule for every kernel, and a place in memory for every value; kernels run again where a budget asks for it.
    """
    planned = placed(fused, tools)
    if fused.of_one is not None:
        tools.passes.timed("verify shards", verify_shards, planned.main, _apart(fused.of_one, tools))
    if tools.budget is not None:
        def anew(graph: Graph, stand: Mapping[Value, list[Value]]) -> ProgramPlan:
            return placed(replace(fused, main=graph), tools, fused, stand)
        memory = lower(declared, planned, tools).memory         # what threads need besides is known then
        search = BudgetSearch(fused.main, planned, memory, tools.budget, tools.target, anew)
        planned = tools.passes.timed("budget", search.run)
    return planned


def _apart(of_one: FusedGraphs, tools: Tools) -> Iterator[Plan]:
    """The plan of a single shard, and that of the update alone."""
    yield placed(of_one, tools).main
    if tools.shards is not None and tools.shards.update is not None:
        yield Compilation(tools.shards.update.graph, tools.target, tools.config).plan


def placed(fused: FusedGraphs, tools: Tools, before: FusedGraphs | None = None,
           stand: Mapping[Value, list[Value]] = MappingProxyType({})) -> ProgramPlan:
    """The plan of kernels in their final order. Storage orders are those of the graphs `before`; others may
    `stand` for their values."""
    whole, stand = (before or fused).main, stand or fused.stand
    orders = {w: order for graph in (fused.of_one.main if fused.of_one else whole, fused.prepare) if graph
              for v, order in storage_orders(graph, tools.target).items() for w in (v, *stand.get(v, ()))}
    return tools.passes.timed("plan_memory", plan_memory, fused.main, tools.target, fused.prepare, orders,
                              tools.shards is not None and tools.shards.update is not None)


def lower(declared: Declared, planned: ProgramPlan, tools: Tools) -> Lowered:
    program = tools.passes.timed("lower", build_program, planned.main, tools.target, tools.config.check_nan,
                                 planned.prepare, planned.packed, tools.timed)
    derived = DerivedState.of(declared.graph, planned)
    memory = Memory.of(planned, thread_scratch(program), declared.graph.state, derived.kept_bytes)
    check_reach(declared.graph, memory, tools.target)
    return Lowered(program, derived, memory)


def prove_plan(planned: ProgramPlan, tools: Tools) -> None:
    """No two values in use share memory. As late as `prove`."""
    if tools.verify and prove_plan not in tools.made:
        for each in planned.plans:
            tools.passes.timed("verify plan", verify_plan, each)
        tools.made[prove_plan] = planned


def prove(lowered: Lowered, tools: Tools) -> None:
    """What the loops do is right for all sizes; nothing runs before. Last: workers compile meanwhile."""
    if tools.verify and prove not in tools.made:
        reaches = Reaches()
        for function in (*lowered.program.kernels, *entries(lowered.program)):
            tools.passes.timed("verify loops", verify_loops, function, reaches)
        tools.made[prove] = lowered


def check_reach(graph: Graph, memory: Memory, target: Target) -> None:
    """GraphError where one call of the graph needs more memory than this target's pointers reach."""
    if isinstance(memory.total, int) and memory.total > target.reach_bytes:
        raise GraphError(f"a call of {graph.name} takes {human(memory.total)} of memory with its arrays, and "
                         f"{target.name} reaches {human(target.reach_bytes)}")


def emit(lowered: Lowered, tools: Tools) -> Emitted:
    loops = lowered.program
    text, sizes, parts = tools.passes.timed("llvm text", emit_program, list(loops.kernels), loops.main, tools.target,
                                            loops.prepare, tools.config.flush_subnormals)
    return Emitted(text, tools.target, sizes, parts)


def assemble(declared: Declared, fused: FusedGraphs, planned: ProgramPlan, lowered: Lowered, emitted: Emitted,
             tools: Tools) -> Build:
    with parts_begun(emitted.parts, tools.target, spare_cores) as finished:
        prove_plan(planned, tools)
        prove(lowered, tools)
        objects = tools.passes.timed("llvm", finished)
    return build_of(declared.graph, fused, planned, lowered, emitted, objects, tools.timed)


def steps(graph: Graph, tools: Tools) -> Iterator[tuple[Pass, Graph, Graph]]:
    """Each pass, and the graph before and after it, run again: of what every call computes."""
    for each in (*simplification(tools.target), *winograd(tools), *packing(tools)):
        before, graph = graph, apply(each, graph)
        yield each, before, graph
    graph = split_derived(graph).main
    for each in fusion(tools.target, tools.config.check_nan):
        before, graph = graph, apply(each, graph)
        yield each, before, graph


def explained(c: Compilation) -> str:
    """See `Compilation.explain`."""
    planned = c.planned
    again = explain_recomputed(planned.recomputed) if planned.recomputed else ""
    neighbours = explain(c.fused, machine=c.target.machine)
    return "\n\n".join(filter(None, (again, neighbours, explain_schedules(planned.scheduled()))))


TEXTS: dict[str, Callable[[Compilation], str]] = dict(zip(STAGES, (
    lambda c: c.stage(Declared).text(),
    lambda c: c.stage(Simplified).text(),
    lambda c: c.stage(FusedGraphs).text(),
    lambda c: f"{c.stage(ProgramPlan).text()}\n# {c.memory}",         # its scratch is known when it is lowered
    lambda c: c.stage(Lowered).text(),
    lambda c: c.stage(Emitted).text(),
    lambda c: c.stage(Emitted).assembly()), strict=True))
PROOFS: dict[type, Callable[[Any, Tools], None]] = {ProgramPlan: prove_plan, Lowered: prove}
DUMPED: dict[type, str] = {         # as files for GRAPHC_DUMP; where a stage is made by passes, these write theirs
    Split: "split", ProgramPlan: "planned", Lowered: "loops", Emitted: "llvm"}
