"""How the last stage is made of those before it."""
from __future__ import annotations

from collections.abc import Iterator, Sequence

from graphc.analysis.phases import phases
from graphc.build import Build, CallSite, constant_memory, signature
from graphc.codegen.kernel_calls import Site
from graphc.failure import Failure
from graphc.ir.graph import Graph, regions
from graphc.ir.ops.control import Cond, WhileLoop
from graphc.ir.dims import static_shape, typical
from graphc.memory.plan import Constants, ProgramPlan
from graphc.runtime.executable import Program
from graphc.stages import Emitted, FusedGraphs, Lowered


def build_of(graph: Graph, fused: FusedGraphs, planned: ProgramPlan, lowered: Lowered, emitted: Emitted,
             objects: Sequence[bytes], timed: bool) -> Build:
    """What the disk cache keeps, with the object code of the parts. An instrumented program is `timed`."""
    loops, memory, derived = lowered.program, lowered.memory, lowered.derived
    program = Program(
        objects[-1], signature(graph), memory.arena, memory.scratch,
        _joined(planned.constants), _work_ns(fused.main), emitted.target, static_shape(derived.sizes),
        derived.passing, derived.idle, graph.writes, _varies(fused.main), emitted.sizes, tuple(objects[:-1]),
        planned.anew)
    failures = tuple(Failure.of(n, i in loops.nan_checks) for i, n in enumerate(loops.checked))
    sites = tuple(_call_sites(loops.sites, planned.main.graph)) if timed else ()
    return Build(program, failures, memory, sites)


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
