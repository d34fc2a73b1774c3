"""Which values are computed again instead of being kept, so that a graph runs in less memory.

The kernels of the graph, fused and in their final order, are followed one by one while the bytes of what is kept are
counted. Where a kernel's results do not fit, values are dropped that are needed again later: those that cost least to
compute again for the bytes that they leave free, and for how long. A kernel that reads a dropped value first runs the
kernels again that lead to it from what is there. Dynamic tensor rematerialization (Kirisame and others,
arXiv:2006.09616) does this while a program runs, without knowing what comes; here all later readers are known, and the
result is a plan: the same graph, with some nodes more than once. Both find checkpoints at distances of about sqrt(n) in
a chain of n layers where memory is short.

Only whole kernels run again, on the same operands, so the values are the same.
"""
from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field

from graphc.ir.builder import Rewriter
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.ops.constant import Constant
from graphc.records import dataclass

NEVER = 1 << 60                 # a position behind all: that of the caller, who reads the results
SMALL = 1 << 11                 # values this many times smaller than all that is kept together are not worth dropping
MOST_AGAIN = 3                  # kernels that run again, at most so many times the kernels of the graph


@dataclass(frozen=True)
class Costs:
    """What running the kernels of a graph takes. `cycles` of each node; `temporary`: bytes that it needs beside its
    operands and results while it runs; `nbytes` of each value in memory of the call's own; `inplace`: for a value the
    operand in whose memory it may come to lie; `parts`: for each value that is put together in place, what it is made
    of."""
    cycles: dict[Node, float] = field(default_factory=dict)
    temporary: dict[Node, int] = field(default_factory=dict)
    nbytes: dict[Value, int] = field(default_factory=dict)
    inplace: dict[Value, Value] = field(default_factory=dict)
    parts: dict[Value, list[Value]] = field(default_factory=dict)


@dataclass(frozen=True)
class Again:
    """A way to run a graph: which of its kernels run, in order, and which of their results are taken from then on.
    `kept`: bytes in use at the peak, as far as they can be known before offsets are assigned; `cycles`: of kernels that
    run again."""
    runs: tuple[tuple[Node, tuple[Value, ...]], ...]
    kept: int
    cycles: float
    values: Mapping[Value, int]     # what is made again, and how often


class Recomputation:
    """A graph as kernels that read and make arrays; views are the arrays that they show. `within` finds how to run it
    in less memory."""

    def __init__(self, graph: Graph, costs: Costs):
        self.graph, self.costs = graph, costs
        self.kernels = [n for n in graph.nodes if not n.op.is_view and not isinstance(n.op, Constant)]
        self.place = {n: i for i, n in enumerate(self.kernels)}
        results = {root(v) for v in graph.results}
        self.given = results | {v for v in graph.arguments} | {v for n in graph.nodes if isinstance(n.op, Constant)
                                                               for v in n.outputs}
        self.reads = [tuple(dict.fromkeys(r for v in n.inputs for r in roots(v) if r.node in self.place))
                      for n in self.kernels]
        self.makes = [tuple(n.outputs) for n in self.kernels]
        self.needs: dict[Value, list[int]] = {v: [] for made in self.makes for v in made}
        for i, read in enumerate(self.reads):
            for v in read:
                self.needs[v].append(i)
        for v in results & self.needs.keys():
            self.needs[v].append(NEVER)
        self.size = {v: 0 if v in self.given else costs.nbytes[v] for v in self.needs}
        self.cycles = [costs.cycles[n] for n in self.kernels]
        self.clock = [0.0]
        for cycles in self.cycles:
            self.clock.append(self.clock[-1] + cycles)
        self.inplace = {v: root(w) for v, w in costs.inplace.items()}
        self.fixed: set[Value] = set()          # where others are put together: not dropped
        for whole, parts in costs.parts.items():
            self._assemble(whole, sorted({root(v) for v in parts}, key=lambda v: self.place[v.maker]))

    def _assemble(self, whole: Value, parts: Sequence[Value]) -> None:
        """The first part is there with the memory of the whole, the others are free, and the whole takes it over."""
        first, *others = parts
        self.size[first] = max(self.size[first], self.size[whole])
        self.size.update(dict.fromkeys(others, 0))
        self.inplace[whole] = first
        self.fixed.update(parts)

    @property
    def total_cycles(self) -> float:
        """Of the graph as it is."""
        return self.clock[-1]

    def within(self, nbytes: int, patience: float) -> Again | None:
        """A way to run the graph in about so many bytes, or in as little more as is found. `patience`: how much the
        time for which a value is not needed counts (0 to 1). None where it would run far too much again."""
        return RecomputationWalk(self, nbytes, patience).run()

    def graph_of(self, again: Again) -> tuple[Graph, dict[Value, list[Value]]]:
        """The graph that runs so; for each value those that stand for it there."""
        w = Rewriter(self.graph)
        stand: dict[Value, list[Value]] = {}
        views: dict[tuple[Node, tuple[Value, ...]], Value] = {}

        def there(v: Value) -> Value:
            """The value as it is at this point; a view of what is there now."""
            node = v.node
            if node is None or not node.op.is_view:
                return w[v]
            ins = tuple(map(there, node.inputs))
            if (node, ins) not in views:
                new = Node(node.op, ins, [v.type], node.loc, node.scope)
                w.nodes.append(new)
                views[node, ins] = new.outputs[0]
                stand.setdefault(v, []).append(new.outputs[0])
            return views[node, ins]
        for node in self.graph.nodes:
            if isinstance(node.op, Constant):
                w.keep(node)
        for node, taken in again.runs:
            new = Node(node.op, tuple(map(there, node.inputs)), [v.type for v in node.outputs], node.loc, node.scope)
            w.nodes.append(new)
            for old, v in zip(node.outputs, new.outputs):
                stand.setdefault(old, []).append(v)
                if old in taken:
                    w.map[old] = v
        for v in self.graph.results:
            w.map[v] = there(v)
        return w.done(), stand


def root(v: Value) -> Value:
    """The value whose memory a chain of views shows."""
    while v.node is not None and v.node.op.is_view:
        v = v.node.inputs[0]
    return v


def roots(v: Value) -> Iterator[Value]:
    """The value that a chain of views shows, and what else the views need to be there."""
    while v.node is not None and v.node.op.is_view:
        for other in v.node.inputs[1:]:
            yield from roots(other)
        v = v.node.inputs[0]
    yield v


class RecomputationWalk:
    """One walk through the kernels, with so much room."""

    def __init__(self, graph: Recomputation, room: int, patience: float):
        self.g, self.room, self.patience = graph, room, patience
        self.at = 0                                     # the kernel of the graph whose turn it is
        self.there: dict[Value, None] = {}              # in memory, or about to be; in order of being made
        self.locked: dict[Value, int] = {}              # read or made by what is about to run
        self.dropped: dict[Value, None] = {}            # needed again, and not there
        self.used = self.peak = 0
        self.runs: list[tuple[Node, tuple[Value, ...]]] = []
        self.again, self.values = 0.0, dict[Value, int]()
        self.small = max(graph.size.values(), default=0) // SMALL

    def run(self) -> Again | None:
        kernels = self.g.kernels
        for self.at in range(len(kernels)):
            missing = [v for v in self.g.reads[self.at] if v not in self.there]
            self.lock(self.g.reads[self.at])
            self.make_again(missing)
            self.execute(self.at, self.g.makes[self.at])
            self.unlock(self.g.reads[self.at])
            if len(self.runs) > (1 + MOST_AGAIN) * len(kernels):
                return None
        return Again(tuple(self.runs), self.peak, self.again, self.values)

    def make_again(self, wanted: Sequence[Value]) -> None:
        """Runs the kernels again that lead to the values, which are locked, from what is there."""
        todo = sorted(self.leading_to(wanted))
        for i in todo:
            self.lock(self.g.reads[i])
        for i in todo:
            taken = tuple(v for v in self.g.makes[i]
                          if v not in self.there and (v in self.locked or self.later(v) is not None))
            self.execute(i, taken)
            self.again += self.g.cycles[i]
            for v in taken:
                self.values[v] = self.values.get(v, 0) + 1
            self.unlock(self.g.reads[i])

    def leading_to(self, wanted: Iterable[Value]) -> set[int]:
        """The kernels that must run again for these values."""
        found: set[int] = set()
        open_ = [v for v in wanted if v not in self.there]
        while open_:
            i = self.g.place[open_.pop().maker]
            if i not in found:
                found.add(i)
                open_ += [v for v in self.g.reads[i] if v not in self.there]
        return found

    def execute(self, i: int, taken: tuple[Value, ...]) -> None:
        """Kernel number i, whose operands are there, runs; these of its results are there from then on."""
        node, size = self.g.kernels[i], self.g.size
        joined = [v for v in taken if v in self.g.inplace and self.dies(self.g.inplace[v])]
        need = sum(size[v] for v in node.outputs if v not in joined) + self.g.costs.temporary.get(node, 0)
        self.make_room(need)
        self.peak = max(self.peak, self.used + need)
        for v in taken:
            self.there[v] = None
            self.dropped.pop(v, None)
            self.used += size[v]
        self.runs.append((node, taken))
        for v in taken:
            self.free(v)

    def dies(self, v: Value) -> bool:
        """Whether what is about to run is the last to read the value."""
        return v in self.there and self.locked.get(v, 0) <= 1 and self.later(v) is None

    def later(self, v: Value) -> int | None:
        """The next kernel of the graph, after the one whose turn it is, that reads the value."""
        needs = self.g.needs[v]
        i = bisect_right(needs, self.at)
        return needs[i] if i < len(needs) else None

    def free(self, v: Value) -> None:
        """The value is gone if nobody needs it, now or for what is to be made again."""
        if v in self.there and not self.locked.get(v) and self.later(v) is None and not self.pinned(v):
            del self.there[v]
            self.used -= self.g.size[v]

    def pinned(self, v: Value) -> bool:
        """Whether the value, which cannot be made again, is needed for one that must be."""
        return (bool(self.dropped) and self.cost(v) is None
                and any(v in self.g.reads[k] for k in self.leading_to(self.dropped)))

    def repeatable(self, i: int) -> bool:
        """Whether the kernel may run again: one that checks indices would keep all state from being written till
        then."""
        return not self.g.kernels[i].op.may_fail

    def lock(self, values: Iterable[Value]) -> None:
        for v in values:
            self.locked[v] = self.locked.get(v, 0) + 1

    def unlock(self, values: Iterable[Value]) -> None:
        for v in values:
            self.locked[v] -= 1
            if not self.locked[v]:
                del self.locked[v]
                self.free(v)

    def make_room(self, nbytes: int) -> None:
        """Drops values until so many bytes fit, as far as there are such that can be dropped."""
        while self.used + nbytes > self.room:
            for v in [v for v in self.there if self.later(v) is None]:
                self.free(v)            # what was kept for others that are there again
            found = self.cheapest()
            if found is None:
                return
            del self.there[found]
            self.dropped[found] = None
            self.used -= self.g.size[found]

    def cheapest(self) -> Value | None:
        """What costs least to compute again for its bytes and the time for which they are free."""
        best, least = None, 0.0
        now = self.g.clock[self.at]
        for v in self.there:
            size = self.g.size[v]
            if size <= self.small or self.locked.get(v) or v in self.g.fixed:
                continue
            need = self.later(v)
            if need is None or need == NEVER or need <= self.at + 1:
                continue
            time = max(self.g.clock[need] - now, 1.0)
            cost = self.cost(v)
            if cost is None:
                continue
            score = cost / (size * time ** self.patience)
            if best is None or score < least:
                best, least = v, score
        return best

    def cost(self, v: Value) -> float | None:
        """Cycles of all that must run for the value to be there again; None where that cannot be."""
        needed = self.leading_to_one(v)
        if not all(map(self.repeatable, needed)):
            return None
        return sum(self.g.cycles[i] for i in needed)

    def leading_to_one(self, v: Value) -> set[int]:
        """The kernels that must run again if the value, which is there, is dropped."""
        i = self.g.place[v.maker]
        return {i} | self.leading_to(self.g.reads[i])
