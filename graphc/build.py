"""The last stage: machine code and all that a later process needs to run it without compiling."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from graphc.analysis.phases import phases
from graphc.codegen.kernel_calls import Site
from graphc.errors import GraphError, Loc
from graphc.failure import Failure
from graphc.ir.graph import Graph, regions
from graphc.ir.ops.control import Cond, WhileLoop
from graphc.ir.dims import Dim, evaluate, static_shape, typical
from graphc.memory.plan import Constants, ProgramPlan
from graphc.memory.usage import Memory
from graphc.records import dataclass
from graphc.runtime.executable import Program
from graphc.runtime.memory import aligned_empty
from graphc.runtime.signature import ArraySpec, ResultKind, Signature
from graphc.stages import Emitted, FusedGraphs, Lowered


@dataclass(frozen=True)
class CallSite:
    """A kernel call of the program: the user's line and layer, the arithmetic (direct algorithm) and the bytes that one
    call must move, formulas where sizes come with the call; of a training step the phase.
    """
    kernel: str
    loc: Loc | None
    scope: str
    flops: Dim
    bytes: Dim
    phase: str = ""

    def at(self, sizes: Mapping[str, int]) -> CallSite:
        """With the numbers for these sizes."""
        return replace(self, flops=evaluate(self.flops, sizes), bytes=evaluate(self.bytes, sizes))


@dataclass(frozen=True)
class Build:
    """What the disk cache keeps of a compiled graph: the program, whose lines its failures are, its memory, and the
    calls that an instrumented build times."""
    program: Program
    failures: tuple[Failure, ...]
    memory: Memory
    sites: tuple[CallSite, ...] = ()

    @staticmethod
    def of(graph: Graph, fused: FusedGraphs, planned: ProgramPlan, lowered: Lowered, emitted: Emitted,
           objects: Sequence[bytes], timed: bool) -> Build:
        """With the object code of the parts. An instrumented program is `timed`."""
        loops, memory, derived = lowered.program, lowered.memory, lowered.derived
        program = Program(
            objects[-1], signature(graph), memory.arena, memory.scratch,
            _joined(planned.constants), _work_ns(fused.main), emitted.target, static_shape(derived.sizes),
            derived.passing, derived.idle, graph.writes, _varies(fused.main), emitted.sizes, tuple(objects[:-1]),
            planned.anew)
        failures = tuple(Failure.of(n, i in loops.nan_checks) for i, n in enumerate(loops.checked))
        sites = tuple(_call_sites(loops.sites, planned.main.graph)) if timed else ()
        return Build(program, failures, memory, sites)

    def error(self, node: int, index: int, sizes: Mapping[str, int] = MappingProxyType({})) -> GraphError:
        """What to raise when the checking node of this number reports this index, where the names have these sizes."""
        return self.failures[node].error(index, sizes)

    def text(self) -> str:
        return f"{sum(map(len, self.program.objects))} bytes of machine code\n# {self.memory}"


def signature(graph: Graph) -> Signature:
    """How the graph is called."""
    names = graph.output_names or ("",) * len(graph.outputs)
    result: ResultKind = "array" if graph.output_names is None else "dict" if any(graph.output_names) else "tuple"
    outputs = tuple(ArraySpec(n or f"output {i}", v.type) for i, (n, v) in enumerate(zip(names, graph.outputs)))
    return Signature(tuple(ArraySpec(v.name, v.type) for v in graph.inputs), outputs, result, graph.name)


def constant_memory(nbytes: int) -> memoryview:
    """Where constants may lie."""
    return aligned_empty(nbytes, np.uint8).data


def _joined(constants: Constants) -> memoryview:
    whole, at = constant_memory(constants.nbytes), 0
    for part in constants.parts:
        whole[at:at + len(part)] = part
        at += len(part)
    return whole


def _call_sites(sites: Sequence[Site], graph: Graph) -> Iterator[CallSite]:
    of_step = phases(graph)
    for site in sites:
        yield _call_site(site, of_step.get(site.node, "") if site.node else "")


def _call_site(site: Site, phase: str) -> CallSite:
    node = site.node
    if node is None:
        return CallSite(site.kernel, None, "", 0, 0)
    cost = node.op.cost(*(v.type for v in node.inputs))
    stays = 2 * node.inputs[0].type.nbytes if site.aliased else 0           # neither read nor written
    return CallSite(site.kernel, node.loc, node.scope, cost.flops, cost.bytes - stays + site.around, phase)


def _work_ns(graph: Graph) -> int:
    """A rough duration on one core: 20 Gflop/s and 10 GB/s."""
    costs = [n.op.cost(*(v.type for v in n.inputs)) for n in graph.nodes]
    return int(sum(max(typical(c.flops) / 20, typical(c.bytes) / 10) for c in costs))


def _varies(graph: Graph) -> bool:
    """Whether data decide what a call does: which branch, how many steps."""
    return any(isinstance(n.op, Cond | WhileLoop) or any(_varies(body) for _, body in regions(n.op))
               for n in graph.nodes)
