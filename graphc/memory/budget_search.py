"""A memory budget: the plan that keeps within it, by computing values again (`recompute.py`), or an error that says how
little is possible and what stands in the way."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from graphc.errors import GraphError
from graphc.ir.dims import Dim, static_dim, typical
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.ops.control import Scan
from graphc.memory.budget import Budget
from graphc.memory.memory_map import kernel_name, rectangles
from graphc.memory.plan import Plan, ProgramPlan, Recomputed, RecomputedArray
from graphc.memory.recompute import Again, Costs, Recomputation, root
from graphc.memory.usage import Memory, human
from graphc.passes.order import Order
from graphc.records import dataclass
from graphc.schedule.schedule import Schedule
from graphc.schedule.target import Target

PATIENCE = (1.0, 0.5)           # how much the time counts for which a value is not needed: the cheapest way is taken
CLOSE = 0.97                    # of the budget: a plan that uses so much is good enough
TRIES = 6                       # plans that are made to use the budget well
LADDER = (0.8, 0.6, 0.45, 0.33, 0.25, 0.18, 0.13, 0.09, 0.06, 0.04)     # of the arena, on the way to the least
SHOWN = 5                       # arrays that an error names

Placed = Callable[[Graph, Mapping[Value, list[Value]]], ProgramPlan]


@dataclass(frozen=True)
class _Fit:
    """A way to run the graph, with its plan and the bytes of its arena."""
    again: Again
    planned: ProgramPlan
    arena: int


class BudgetSearch:
    """Looks for the cheapest plan of a graph within a budget. `placed` plans a graph, given for each value of this one
    those that stand for it there; `planned` and `memory` are those of the graph as it is."""

    def __init__(self, graph: Graph, planned: ProgramPlan, memory: Memory, budget: Budget, target: Target,
                 placed: Placed):
        self.graph, self.planned, self.budget, self.placed = graph, planned, budget, placed
        self.memory = memory.at(**dict(budget.largest)) if budget.largest else memory
        self.arena = budget.size(planned.main.arena_bytes)
        self.whole = static_dim(self.memory.total) + budget.beside
        self.room = budget.nbytes - (self.whole - self.arena)       # for the arena
        self.recomputation = Recomputation(graph, costs(graph, planned.main, target, budget.size))
        self.tried: dict[int, _Fit | None] = {}

    def run(self) -> ProgramPlan:
        """The plan. GraphError where none is found, with the least that is."""
        if self.arena <= self.room:
            return self.planned
        found = self._used_well() or self._least()
        if found is None or found.arena > self.room:
            raise GraphError(self._too_little(found))
        return replace(found.planned, recomputed=self._report(found.again))

    def _used_well(self) -> _Fit | None:
        """The cheapest of a few plans that fit: one that fits with room to spare is followed by one for more, one that
        does not by one for less."""
        best: _Fit | None = None
        room = self.room
        for _ in range(TRIES):
            fit = self._try(room) if room > 0 else None
            if fit is None:
                break
            if fit.arena <= self.room and (best is None or fit.again.cycles < best.again.cycles):
                best = fit
            if CLOSE * self.room <= fit.arena <= self.room:
                break
            room += self.room - fit.arena
        return best

    def _least(self) -> _Fit | None:
        """The first plan on the way down that fits, else the smallest of all."""
        smallest: _Fit | None = None
        for part in LADDER:
            fit = self._try(int(part * self.arena))
            if fit is None:
                break
            if smallest is None or fit.arena < smallest.arena:
                smallest = fit
            if fit.arena <= self.room:
                break
        return smallest

    def _try(self, room: int) -> _Fit | None:
        """The cheapest way to run the graph in about so many bytes, planned."""
        if room not in self.tried:
            ways = [way for patience in PATIENCE if (way := self.recomputation.within(room, patience))]
            self.tried[room] = self._planned(min(ways, key=lambda way: (way.kept > room, way.cycles))) if ways else None
        return self.tried[room]

    def _planned(self, again: Again) -> _Fit:
        graph, stand = self.recomputation.graph_of(again)
        planned = self.placed(Order().run(graph), stand)
        return _Fit(again, planned, self.budget.size(planned.main.arena_bytes))

    def _report(self, again: Again) -> Recomputed:
        """What is made again, the largest arrays first."""
        nbytes = {v: times * self.budget.size(v.type.nbytes) for v, times in again.values.items()}
        rows: dict[tuple[str, str, str, str], tuple[int, int]] = {}
        for v in sorted(nbytes, key=lambda v: -nbytes[v]):
            node = v.maker
            key = (kernel_name(node), str(v.type), node.scope, str(node.loc or ""))
            before = rows.get(key, (0, 0))
            rows[key] = before[0] + again.values[v], before[1] + nbytes[v]
        return Recomputed(tuple(RecomputedArray(*key, *amounts) for key, amounts in rows.items()), sum(nbytes.values()),
                          again.cycles / self.recomputation.total_cycles)

    def _too_little(self, found: _Fit | None) -> str:
        """Why the budget does not hold."""
        plan = found.planned.main if found else self.planned.main
        arena = min(self.arena, found.arena) if found else self.arena
        least = self.whole - self.arena + arena
        fixed = [f"{name} {human(nbytes)}" for name in ("state", "derived", "inputs", "outputs", "consts", "scratch")
                 if (nbytes := static_dim(getattr(self.memory, name))) > self.budget.nbytes // 100]
        whole = f" for {', '.join(f'{n} = {size}' for n, size in self.budget.largest)}" if self.budget.largest else ""
        lines = [f"{self.graph.name} does not run in memory={self.budget.given!r}{whole}: the least that is found is "
                 f"{human(least)} ({human(self.whole)} where nothing is computed again)"]
        if self.budget.beside:
            fixed.append(f"the update and the sums of the shards {human(self.budget.beside)}")
        if fixed:
            lines.append(f"always there: {', '.join(fixed)}")
        lines.append(f"at the peak of the rest, {human(arena)}: {'; '.join(_at_peak(plan))}")
        if any(isinstance(n.op, Scan) for n in self.graph.nodes):
            lines.append("what a loop keeps for its backward pass is not taken apart here: wrap its body in gc.remat")
        lines.append("a smaller batch takes less")
        return "\n  ".join(lines)


def explain_recomputed(recomputed: Recomputed) -> str:
    """What is computed again, as a table."""
    head = (f"Computed again to keep within the budget of memory: {human(recomputed.nbytes)}, for "
            f"{100 * recomputed.work:.1f} % more cycles.")
    lines = [f"{human(r.nbytes):>10}  {'' if r.times == 1 else f'{r.times} × '}{r.kernel}: {r.type}"
             + f"  {r.scope}" * bool(r.scope) + f" ({r.line})" * bool(r.line) for r in recomputed.rows]
    return "\n".join([head, *lines])


def costs(graph: Graph, plan: Plan, target: Target, size: Callable[[Dim], int]) -> Costs:
    """What running the kernels of `graph` takes, of which `plan` is the plan; `size`: bytes as a number."""
    found = Costs()
    for node, mine in _matched(graph, plan):
        own = [table[mine] for table in (plan.scratch, plan.packed) if mine in table]
        own += plan.regions[mine].buffers if mine in plan.regions else ()
        found.cycles[node] = _cycles(mine, plan, target)
        found.temporary[node] = sum(size(b.nbytes) for b in own if b.space == "arena")
        found.nbytes.update((v, size(v.type.nbytes) if plan.places[there].buffer.space == "arena" else 0)
                            for v, there in zip(node.outputs, mine.outputs))
        together = [(v, w) for v, there in zip(node.outputs, mine.outputs)
                    for w, theirs in zip(node.inputs, mine.inputs)
                    if plan.places[there].buffer is plan.places[theirs].buffer and root(w).node is not None]
        if mine in plan.assembled:
            found.parts.setdefault(node.outputs[0], []).extend(w for _, w in together)
        elif not node.op.is_view:
            found.inplace.update(together)
    return replace(found, parts={whole: parts for whole, parts in found.parts.items() if parts})


def _matched(graph: Graph, plan: Plan) -> Iterator[tuple[Node, Node]]:
    """The nodes of a graph with those of its plan, which has copies between them."""
    planned = iter(plan.graph.nodes)
    for node in graph.nodes:
        yield node, next(n for n in planned if n.op is node.op and len(n.outputs) == len(node.outputs))


def _cycles(node: Node, plan: Plan, target: Target) -> float:
    """Of one core, for one run of a node of the plan: what its schedule was estimated at, and no less than its
    arithmetic and its memory take."""
    if node in plan.regions:
        trips = typical(node.op.length) if isinstance(node.op, Scan) else 1
        return trips * sum(_cycles(n, inner, target) for inner in plan.regions[node].plans.values()
                           for n in inner.graph.nodes)
    if node.op.is_view or node not in plan.schedules:
        return 0.0
    cost, machine = node.op.cost(*(v.type for v in node.inputs)), target.machine
    lanes = max(1, target.vector_bytes // node.outputs[0].type.dtype.itemsize)
    flops = 2 * lanes * machine.fma_per_cycle * machine.contraction_peak
    schedule: Schedule = plan.schedules[node]
    return max(typical(cost.flops) / flops, typical(cost.bytes) / machine.memory_bytes_per_cycle,
               sum(r.best.total for r in schedule.rankings))


def _at_peak(plan: Plan) -> list[str]:
    """The largest arrays in use where the arena is fullest."""
    found = rectangles(plan)
    if not found:
        return ["nothing"]
    full = [sum(r.high - r.low for r in found if r.first <= t <= r.last) for t in range(len(plan.graph.nodes))]
    peak = full.index(max(full))
    there = sorted((r for r in found if r.first <= peak <= r.last), key=lambda r: r.low - r.high)
    node = plan.graph.nodes[peak]
    where = " ".join(filter(None, (f"layer {node.scope}" if node.scope else "", f"({node.loc})" if node.loc else "")))
    rows = [f"{human(r.high - r.low)} {r.label}" for r in there[:SHOWN]]
    more = [f"{len(there) - SHOWN} more"] if len(there) > SHOWN else []
    return [f"in {kernel_name(node)} {where}".rstrip(), *rows, *more]
