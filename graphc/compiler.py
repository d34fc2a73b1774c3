"""The pipeline from a graph to native code, and the object that a compile returns."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter

import numpy as np

from graphc.codegen.llvm import cache, jit
from graphc.codegen.llvm.emit import emit_module, scratch_bytes
from graphc.codegen.llvm.host import host_target
from graphc.codegen.llvm.packing import pack, unpack
from graphc.codegen.loops.printer import print_function
from graphc.codegen.loops.verify import verify as verify_loops
from graphc.codegen.program import LoopProgram, Site, build_program
from graphc.codegen.scratch_layout import callers_first
from graphc.config import Config, config, whole
from graphc.contained import contained
from graphc.dsl.context import user_loc
from graphc.dsl.form import formed_methods
from graphc.errors import GraphError, InternalError
from graphc.failure import Failure
from graphc.ir.digest import digest
from graphc.ir.graph import Graph, Node, regions
from graphc.ir.ops.control import Cond, WhileLoop
from graphc.ir.parser import parse
from graphc.ir.printer import print_graph
from graphc.ir.shown import Shown
from graphc.ir.verify import BOUND, DECOMPOSED, FUSED, check_compilable, verify
from graphc.memory.plan import Packed, Plan
from graphc.memory.planner import plan_memory
from graphc.memory.storage import Constants
from graphc.memory.usage import Memory
from graphc.memory.verify_plan import verify_plan
from graphc.once import once_property
from graphc.passes.canonicalize import Canonicalize
from graphc.passes.cse import EliminateCommonSubexpressions
from graphc.passes.dce import EliminateDeadCode
from graphc.passes.decompose import Decompose
from graphc.passes.eliminate_bounds_checks import EliminateBoundsChecks
from graphc.passes.fold_batch_norm import FoldBatchNorm
from graphc.passes.fold_constants import FoldConstants
from graphc.passes.fold_transposes import FoldTransposes
from graphc.passes.fuse import Fuse, explain
from graphc.passes.fuse_gates import FuseGates
from graphc.passes.fuse_loops import FuseLoops
from graphc.passes.gather_one_hot import GatherOneHot
from graphc.passes.layout import ArrangeImages, storage_orders
from graphc.passes.licm import LoopInvariantCodeMotion
from graphc.passes.materialize_padding import MaterializePadding
from graphc.passes.order import Order
from graphc.passes.pads_to_concat import PadsToConcat
from graphc.passes.pipeline import Pass, Pipeline
from graphc.passes.precompute import Split, split_derived
from graphc.passes.recognize_attention import RecognizeAttention
from graphc.passes.sparse_gradients import SparseGradients
from graphc.passes.winograd import Winograd
from graphc.profile import MOST_RUNS, CallSite, Profile, measure
from graphc.runtime.entry import callable_class
from graphc.runtime.executable import Executable, Program
from graphc.runtime.lock import StateLock
from graphc.runtime.memory import aligned_empty
from graphc.runtime.signature import ArraySpec, Signature
from graphc.schedule.attention_support import is_whole
from graphc.schedule.target import Target

SIMPLIFY = (
    EliminateDeadCode(),                # first: differentiation leaves much that nobody reads
    GatherOneHot(),                     # before decompose, which takes one_hot apart
    RecognizeAttention(),               # before decompose, which takes softmax and tril apart; no dead reader of the scores may be left
    Decompose(is_whole),                # before the rest: composites hide equal and constant parts
    Canonicalize(),                     # before folding and cse: one form of equal things
    FoldConstants(),
    EliminateCommonSubexpressions(),    # after canonicalize: forward and backward meet in the same form
    PadsToConcat(),                     # before licm and fusion: the gradient of a split is then one node
    FuseLoops(),                        # after cse: equal operands are one value then; before licm, which hides that bodies are equal
    LoopInvariantCodeMotion(),          # after cse: what does not depend on the carries is then one node, moved once
    Canonicalize(),                     # hoisting stacks and reshapes
    EliminateCommonSubexpressions(),
    SparseGradients(),                  # after cse, when readers can be counted
    EliminateDeadCode(),                # before fusion: a dead reader would keep a value in memory
    FoldBatchNorm(),                    # after all that makes chains of factors simpler; before `split_derived`, which moves them out of the calls
)
STAGES = ("graph", "simplified", "fused", "planned", "loops", "llvm", "asm")


def fusion(target: Target, check_nan: bool = False) -> tuple[Pass, ...]:
    """The passes that make kernels of operators."""
    return (
        FoldTransposes(),               # before fusion: what follows a product may become its epilogue, what follows a view of it not
        EliminateDeadCode(),            # transposes of operands that were turned back
        EliminateBoundsChecks(),        # after that: a lookup that nobody reads checks nothing
        MaterializePadding(),           # before fusion: it changes what convolutions read
        *((Fuse(max_nodes=1),) if check_nan else (      # a NaN is traced to one operator
            Fuse(),
            FuseGates(target))),        # right after fusion, which makes the clusters that it merges
        ArrangeImages(),                # after fusion, which would take its copies for work to be fused
        Order(),                        # after fusion: an optimizer's update of one parameter is one node then
    )


@dataclass(frozen=True)
class Built:
    """All that a later process needs to run the graph without compiling it."""
    program: Program
    failures: tuple[Failure, ...]
    memory: Memory
    sites: tuple[CallSite, ...] = ()

    def error(self, node: int, index: int) -> GraphError:
        """What to raise when the checking node of this number reports this index."""
        return self.failures[node].error(index)


@dataclass(frozen=True)
class Plans:
    """The plans of what every call computes and of what is derived from state, their constants, and the operands that are packed when the state has
    changed: made together, since the second adds to what the first has made."""
    main: Plan
    prepare: Plan | None
    constants: Constants
    packed: Packed


class Compilation:
    """One graph on its way to machine code. Each stage is computed when first asked for, and kept. `timed`: the instrumented build."""

    def __init__(self, graph: Graph, target: Target | None = None, knobs: Config | None = None, timed: bool = False):
        self.graph, self.target, self.config, self.timed = graph, target or host_target(), knobs or config(), timed
        self.pipeline = Pipeline(self.config)

    @once_property
    def simplified(self) -> Graph:
        check_compilable(self.graph)
        verify(self.graph, BOUND)
        return self.pipeline.run(self.graph, (*SIMPLIFY, *self._winograd), DECOMPOSED)

    @property
    def _winograd(self) -> tuple[Pass, ...]:
        """Last, because it takes the weights as they are then. Not where a NaN is traced to one operator: it makes NaN out of infinity."""
        return (Winograd(self.target),) if self.config.winograd and not self.config.check_nan else ()

    @once_property
    def split(self) -> Split:
        """What every call computes, and what is computed when the state has changed."""
        return self._timed("derive", split_derived, self.simplified)

    @once_property
    def fused(self) -> Graph:
        return self._fuse(self.split.main)

    @once_property
    def prepare(self) -> Graph | None:
        """The fused graph of what is derived from state."""
        return self._fuse(self.split.prepare) if self.split.prepare else None

    @once_property
    def plans(self) -> "Plans":
        constants, packed = Constants(), Packed(len(self.split.main.state))
        plan = self._plan(self.fused, constants, packed)
        return Plans(plan, self._plan(self.prepare, constants, None) if self.prepare else None, constants, packed)

    @property
    def plan(self) -> Plan:
        return self.plans.main

    @property
    def prepare_plan(self) -> Plan | None:
        return self.plans.prepare

    @once_property
    def loops(self) -> LoopProgram:
        program = self._timed("lower", build_program, self.plan, self.target, self.config.check_nan, self.prepare_plan, self.plans.packed, self.timed)
        if self.config.verify:
            self._timed("verify loops", lambda: [verify_loops(f) for f in (*program.kernels, program.main, program.prepare) if f])
        return program

    @once_property
    def llvm(self) -> str:
        return self._timed("llvm text", emit_module, list(self.loops.kernels), self.loops.main, self.target, self.loops.prepare)

    @once_property
    @contained
    def built(self) -> Built:
        """The program, from the disk cache if it is there."""
        store = cache.default()
        found = store.get(self._key, partial(unpack, Built), _memory) if store else None
        self.found = found is not None
        return found or self._built_anew()

    def load(self, start: Callable[[Built], Executable]) -> Executable:
        """`start(self.built)`; what comes from the disk cache and does not load counts as missing."""
        try:
            return start(self.built)
        except InternalError as error:
            if error.stage != "load" or not self.found:
                raise
            self.built = self._built_anew()
            return start(self.built)

    @contained
    def _built_anew(self) -> Built:
        built = self._build()
        if store := cache.default():
            store.put(self._key, *pack(built))
        if self.config.time:
            print(self.pipeline.timings)
        return built

    @once_property
    def _key(self) -> str:
        options = (self.config.check_nan, self.config.winograd, self.timed)
        return cache.make_key("program", digest(self.graph), repr(self.target), repr(options))

    @property
    def memory(self) -> Memory:
        """Bytes by purpose, known before a run."""
        return Memory.of(self.plan, self.plans.constants.nbytes, self._thread_scratch, self.prepare_plan, sum(self._kept), self.graph.state)

    def text(self, stage: str) -> str:
        """The program at a stage: one of STAGES."""
        if stage not in STAGES:
            raise GraphError(f"there is no stage {stage!r}; the stages are {', '.join(STAGES)}")
        return _TEXTS[stage](self)

    def _build(self) -> Built:
        text = self.llvm
        code = self._timed("llvm", jit.compile_object, text, self.target)
        failures = tuple(Failure.of(n, i in self.loops.nan_checks) for i, n in enumerate(self.loops.checked))
        memory = self.memory
        program = Program(code, signature(self.graph), memory.arena, memory.scratch, _joined(self.plans.constants), _work_ns(self.fused),
                          self.target, self._derived, self._passing, self._idle, self.graph.writes, _varies(self.fused))
        return Built(program, failures, memory, tuple(map(_call_site, self.loops.sites)))

    def _fuse(self, graph: Graph) -> Graph:
        fused = self.pipeline.run(graph, fusion(self.target, self.config.check_nan), FUSED)
        if self.config.verify:
            self._timed("verify", verify, fused, FUSED)
        return fused

    def _plan(self, graph: Graph, constants: Constants, packed: Packed | None) -> Plan:
        plan = self._timed("plan_memory", plan_memory, graph, self.target, constants, storage_orders(graph), packed)
        if self.config.verify:
            self._timed("verify plan", verify_plan, plan)
        return plan

    @property
    def _derived(self) -> tuple[int, ...]:
        """Bytes of the arrays that are made from the state: derived values, then packed operands."""
        values = (v.type.nbytes for v in self.split.main.state[len(self.graph.state):])
        return (*values, *(b.nbytes for b in self.plans.packed.buffers.values()))

    @property
    def _passing(self) -> frozenset[int]:
        """Indices of derived values used only as input to packing; they can share one buffer, because each is packed before the next is computed."""
        if not self.prepare_plan:
            return frozenset()
        first, graph = len(self.graph.state), self.prepare_plan.graph
        values = {v for node in graph.nodes for v in node.inputs}
        return frozenset(n for n, v in enumerate(graph.updates[first:]) if first + n not in self._read and v not in values and len(v.node.outputs) == 1)

    @property
    def _idle(self) -> frozenset[int]:
        """Numbers of the state's arrays that calls do not touch."""
        return frozenset(n for n, new in enumerate(self.graph.updates) if n not in self._read and new is None)

    @once_property
    def _read(self) -> frozenset[int]:
        """Numbers of the state table's arrays that calls read."""
        return frozenset(self.plan.read_state())

    @property
    def _kept(self) -> Iterator[int]:
        """Bytes of the derived arrays that stay."""
        passing = self._passing
        return (size for n, size in enumerate(self._derived) if n not in passing)

    @property
    def _thread_scratch(self) -> int:
        return scratch_bytes(list(self.loops.kernels), self.loops.main, self.loops.prepare)

    def _timed(self, name: str, work: Callable, *arguments):
        start = perf_counter()
        result = work(*arguments)
        self.pipeline.timings.add(name, perf_counter() - start)
        return result


class Compiled(Shown):
    """Native code of a graph. Call it with numpy arrays; `dump(stage)`, `memory` and `explain()` tell what it does."""

    def __init__(self, graph: Graph, threads: int = 0, state: Sequence[np.ndarray] = (), lock: StateLock | None = None, quiet: bool = False):
        self.graph = graph
        self.compilation = Compilation(graph)
        self.executable = self.compilation.load(lambda built: Executable(
            built.program, threads or self.compilation.config.threads, state, lock, built.error, user_loc, quiet))
        self.memory = replace(self.compilation.built.memory, state=sum(a.nbytes for a in self.executable.state.arrays))
        self.run = self.executable.call

    def __call__(self, *args, **kwargs):
        return self.run(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<compiled {self.graph.heading}>"

    def dump(self, stage: str = "graph") -> str:
        """The text of a stage: graph, simplified, fused, planned, loops, llvm or asm."""
        return self.compilation.text(stage)

    def explain(self) -> str:
        """Why neighbours in the graph were not fused."""
        return explain(self.compilation.fused)

    def profile(self, *arrays, runs: int = 5) -> Profile:
        """Where the time of a call with these arguments goes: print it, or `save("roofline.svg")`. An instrumented build runs, on a copy of the
        state; this one pays nothing for it."""
        runs = whole(runs, "runs", 1, MOST_RUNS, user_loc())
        timed = Compilation(self.graph, timed=True)
        table = np.zeros((len(timed.built.sites), 2), np.int64)
        mine = self.executable
        state, lock = (mine.state, None) if mine.settled else ((mine.lock or StateLock()).read(mine.state.arrays), StateLock())
        run = timed.load(lambda built: Executable(built.program, mine.threads, state, lock, built.error, user_loc, profile=table))
        return measure(run, table, timed.built.sites, arrays, runs)

    def renew(self) -> None:
        """See `Executable.renew`."""
        self.executable.renew()

    def __reduce__(self):
        if self.graph.state:
            raise GraphError(f"{self.graph.name} has parameters in this process and is not pickled or copied: keep the network and its parameters "
                             "(the file, the seed, or step.save(path)) and compile it again, from the disk cache", user_loc())
        return compiled, (print_graph(self.graph), self.executable.threads)


formed_methods(Compiled)


def compiled(graph: Graph | str, threads: int = 0, state: Sequence[np.ndarray] = (), lock: StateLock | None = None) -> Compiled:
    """Native code of a graph, or of its text; the object itself is the native entry, so that a call costs no Python."""
    made = Compiled(parse(graph) if isinstance(graph, str) else graph, threads, state, lock)
    made.__class__ = callable_class(Compiled, made.run)
    return made


def signature(graph: Graph) -> Signature:
    """How the graph is called."""
    names = graph.output_names or ("",) * len(graph.outputs)
    result = "array" if graph.output_names is None else "dict" if any(graph.output_names) else "tuple"
    outputs = tuple(ArraySpec(n or f"output {i}", v.type) for i, (n, v) in enumerate(zip(names, graph.outputs)))
    return Signature(tuple(ArraySpec(v.name, v.type) for v in graph.inputs), outputs, result, graph.name)


def _memory(nbytes: int) -> memoryview:
    """Where constants may lie."""
    return memoryview(aligned_empty(nbytes, np.uint8))


def _joined(constants: Constants) -> memoryview:
    whole, at = _memory(constants.nbytes), 0
    for part in constants.parts:
        whole[at:at + len(part)] = part
        at += len(part)
    return whole


def _planned_text(c: Compilation) -> str:
    texts = [*_plan_texts(c.plan), *(_plan_texts(c.prepare_plan) if c.prepare_plan else ())]
    return "\n\n".join(texts) + f"\n# {c.memory}"


def _fused_text(c: Compilation) -> str:
    return "\n\n".join(print_graph(g) for g in (c.fused, c.prepare) if g)


def _plan_texts(plan: Plan) -> Iterator[str]:
    """The graph with places and schedules, then the planned bodies of its loops and branches, which may differ by copies."""
    def note(node: Node) -> str:
        places = ", ".join(str(plan.places[v]) for v in node.outputs)
        return f"in {places}; {plan.schedules[node]}" if node in plan.schedules else f"in {places}"
    yield print_graph(plan.graph, note)
    for node, region in plan.regions.items():
        for name, inner in region.plans.items():
            first, *rest = _plan_texts(inner)
            yield f"# {name} of {node.op.name}, {_place(node)}\n{first}"
            yield from rest


def _place(node: Node) -> str:
    return f"{node.scope or 'graph'} at {node.loc}" if node.loc else node.scope


_TEXTS: dict[str, Callable[[Compilation], str]] = {
    "graph": lambda c: print_graph(c.graph),
    "simplified": lambda c: print_graph(c.simplified),
    "fused": _fused_text,
    "planned": _planned_text,
    "loops": lambda c: "\n\n".join(map(print_function, reversed(callers_first([f for f in (c.loops.main, c.loops.prepare, *c.loops.kernels) if f])))),
    "llvm": lambda c: c.llvm,
    "asm": lambda c: jit.assembly(c.llvm, c.target),
}


def _call_site(site: Site) -> CallSite:
    node = site.node
    if node is None:
        return CallSite(site.kernel, None, "", 0, 0)
    cost = node.op.cost(*(v.type for v in node.inputs))
    stays = 2 * node.inputs[0].type.nbytes if site.aliased else 0           # neither read nor written
    return CallSite(site.kernel, node.loc, node.scope, cost.flops, cost.bytes - stays + site.around)


def _work_ns(graph: Graph) -> int:
    """A rough duration on one core: 20 Gflop/s and 10 GB/s."""
    costs = [n.op.cost(*(v.type for v in n.inputs)) for n in graph.nodes]
    return int(sum(max(c.flops / 20, c.bytes / 10) for c in costs))


def _varies(graph: Graph) -> bool:
    """Whether data decide what a call does: which branch, how many steps."""
    return any(isinstance(n.op, Cond | WhileLoop) or any(_varies(body) for _, body in regions(n.op)) for n in graph.nodes)
