"""Where a kernel polls the cancel word: in loops of one thread that may run long, so rarely that it costs nothing.

The runtime polls between tiles, and main between the steps of its loops. A loop inside one tile,
or in a kernel without tiles, may still take seconds for large data: a sort of one row, a running sum.
Durations are therefore estimated from trip counts, generously, and a long loop leaves its function when the call is
cancelled: it polls after each trip if trips are long, otherwise after a number of trips. Any code after a loop that may
have been left early polls first, so it never reads a value that was not computed. A call cannot be cancelled once main
has begun to write state. Short kernels contain no polling.
"""
from __future__ import annotations

from collections.abc import Iterable, Sequence

from graphc.codegen.loops.index import Ix, Sym
from graphc.codegen.loops.index_proofs import UNBOUNDED, IndexFacts, not_less
from graphc.codegen.loops.loop_ir import (
    Body, Call, CheckIndex, Compute, For, FunctionIR, If, Load, MatrixDot, Parallel, ReturnIf, Statement, Store, While,
    bodies, control)
from graphc.codegen.loops.ops import MATH
from graphc.ir.dims import typical

LONG_NS = 4e6                   # loops that are estimated shorter do not poll
STEP_NS = 2e5                   # about the time between two polls
COST_NS: dict[type[Statement], float] = {Load: 2.0, Store: 2.0, CheckIndex: 2.0, Compute: 1.0, MatrixDot: 8.0}
CHECKED_NS = 20.0               # of an access that data decide: the cache may not have it
MATH_NS = 20.0
CONTROL = (Call, For, While, Parallel, If)


class Looks:
    """What the emission of `functions`, callers first, asks for. `every`: loops that look, and after how many trips;
    `after`: calls and parallel loops that may have been left early. Keys are the ids of statements."""

    def __init__(self, functions: Sequence[FunctionIR]) -> None:
        self.every: dict[int, int] = {}
        self.after: set[int] = set()
        self._costs: dict[FunctionIR | Statement, float] = {}   # of functions, loops and branches
        self._leaving: dict[FunctionIR, bool] = {}
        self._facts = _arguments(functions)
        self._known: dict[Ix, int] = {}                         # see `_most`
        for f in reversed(functions):
            self._costs[f] = self._body(f.body)
            self._leaving[f] = self._look(f.body, last=not _is_main(f))

    def _look(self, body: Body, last: bool) -> bool:
        """Enters what looks in `body`; whether anything in it may be left early. `last`: nothing follows it in its
        function."""
        leaves = False
        for place, s in enumerate(body):
            if type(s) not in CONTROL:
                continue
            ends = last and place == len(body) - 1
            if isinstance(s, Call) and self._leaving[s.callee] or isinstance(s, Parallel) and not _is_serial(s):
                leaves = True
                if not ends:
                    self.after.add(id(s))
            if isinstance(s, Parallel) and not _is_serial(s):
                self._look(s.body, last=True)
            elif isinstance(s, (For, While, Parallel)):
                leaves |= self._loop(s)
            else:
                leaves |= any([self._look(inner, ends) for inner in bodies(s)])
        return leaves

    def _loop(self, s: For | While | Parallel) -> bool:
        trip = sum(self._body(inner) for inner in bodies(s))
        leaves = any([self._look(inner, last=False) for inner in bodies(s)])
        if self._trips(s) * trip < LONG_NS or _is_unrolled(s) or _looks_already(s):
            return leaves
        self.every[id(s)] = max(1, int(STEP_NS / max(trip, 1.0)))
        return True

    def _trips(self, s: For | While | Parallel) -> int:
        if isinstance(s, For):
            return max(0, -(-_most(s.hi - s.lo, self._facts, self._known) // s.step))
        return max(0, _most(s.limit if isinstance(s, While) else s.count, self._facts, self._known))

    def _body(self, body: Body) -> float:
        """Nanoseconds on one thread, about the most."""
        return sum(map(self._statement, body))

    def _statement(self, s: Statement) -> float:
        if isinstance(s, Call):
            return 5.0 + self._costs[s.callee]
        if isinstance(s, Parallel) and not _is_serial(s):
            return 0.0
        if isinstance(s, (For, While, Parallel, If)):
            if s not in self._costs:
                inner = [self._body(b) for b in bodies(s)]
                self._costs[s] = max(inner) if isinstance(s, If) else self._trips(s) * sum(inner)
            return self._costs[s]
        if isinstance(s, Compute) and s.op in MATH:
            return MATH_NS
        if (isinstance(s, (Load, Store))
            and any(symbol.name.startswith("checked") for ix in s.index for symbol, _ in ix.terms)):
            return CHECKED_NS
        return COST_NS.get(type(s), 1.0)


def _arguments(functions: Sequence[FunctionIR]) -> IndexFacts:
    """The greatest integers that functions are called with: their own bounds are for all programs."""
    counting = _counting(functions)
    sites: dict[Sym, int] = {}
    facts = IndexFacts()
    for f in functions:
        for symbol in f.params:
            if symbol in sites:
                facts.limit(symbol, sites[symbol])
        known: dict[Ix, int] = {}
        for s in control(f.body):
            if isinstance(s, Call):
                for symbol, ix in zip(s.callee.params, s.ints):
                    if symbol in counting:
                        sites[symbol] = max(sites.get(symbol, -UNBOUNDED), _most(ix, facts, known))
    return facts


def _counting(functions: Sequence[FunctionIR]) -> set[Sym]:
    """What numbers of trips depend on, also in functions that are called: most other integers are offsets in memory."""
    found: set[Sym] = set()
    for f in reversed(functions):
        for s in control(f.body):
            if isinstance(s, For):
                _add_symbols((s.lo, s.hi), found)
            elif isinstance(s, (While, Parallel)):
                _add_symbols((s.limit if isinstance(s, While) else s.count,), found)
            elif isinstance(s, Call):
                _add_symbols([ix for symbol, ix in zip(s.callee.params, s.ints) if symbol in found], found)
    return found


def _add_symbols(indices: Iterable[Ix], found: set[Sym]) -> None:
    """Those of the indices, and those of their bounds."""
    for ix in indices:
        for symbol, _ in ix.terms:
            if symbol not in found:
                found.add(symbol)
                _add_symbols([bound for bound, _ in (*symbol.lowers, *symbol.uppers)], found)


def _most(ix: Ix, facts: IndexFacts, known: dict[Ix, int]) -> int:
    """`known`: what was found before; different orders of bounds lead to the same expressions."""
    if not ix.terms:
        return typical(ix.const)
    if ix not in known:
        known[ix] = min((_most(simpler, facts, known) for simpler in not_less(ix, facts)), default=UNBOUNDED)
    return known[ix]


def _is_serial(s: Parallel) -> bool:
    return s.serial or s.count == 1


def _is_unrolled(s: Statement) -> bool:
    return isinstance(s, For) and (s.unroll is True or (s.trips() or 2) <= 1)


def _looks_already(s: Statement) -> bool:
    """A loop of main, which begins each step with it."""
    return any(type(first) is ReturnIf for inner in bodies(s) for first in inner[:1])


def _is_main(f: FunctionIR) -> bool:
    return not f.views and not f.params
