"""Proves that a finished loop function is sound, or raises InternalError and prints it.

Checked: every operand is defined where it is used; types; every affine access stays inside its view and inside the
memory behind it; parallel loops do not nest; tiles do not all write one place. Bounds come from loop ranges, minima,
remainders, masks' counts and the conditions of enclosing branches.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from graphc.codegen.loops.access import Access, accesses_of
from graphc.codegen.loops.conditions import facts_of
from graphc.codegen.loops.index import ELEMENTS, Ix, Sym, depends_on
from graphc.codegen.loops.index_proofs import IndexFacts, at_least, at_most
from graphc.codegen.loops.loop_ir import (
    Body, Call, CheckIndex, Commit, Compute, Define, FailUnless, For, FunctionIR, If, Load, MatrixDot, MatrixMove,
    MatrixShapes, MatrixZero, Parallel, Prefetch, ReturnIf, Stamp, Store, Val, View, While, control)
from graphc.codegen.loops.matrices import MatrixState, same_everywhere
from graphc.codegen.loops.ops import IRREGULAR, REGULAR, result_dtype
from graphc.codegen.loops.printer import print_function
from graphc.codegen.loops.reach import PROVED, End, Reaches, joined, substituted
from graphc.errors import InternalError
from graphc.ir.dims import Dim, Poly
from graphc.ir.size_proofs import is_nonnegative
from graphc.schedule.target import MATRIX_LANES


def verify(f: FunctionIR, reaches: Reaches | None = None) -> None:
    """InternalError naming the statement if anything about the loop function cannot be proved. reaches: what is known
    already of functions that it calls."""
    checker = Checker(f, Reaches() if reaches is None else reaches)
    try:
        checker.body(f.body)
        same_everywhere([(), checker.matrices.shapes])
    except InternalError as error:
        raise InternalError(f"{f.name}: {error.text}", "loop verifier", print_function(f)) from None
    PROVED.add(f)


class Checker:
    """Walks a function; at each statement it has the symbols, types and bounds that are known there."""

    def __init__(self, f: FunctionIR, reaches: Reaches) -> None:
        self.f, self.reaches = f, reaches
        self.vals: dict[int, Val] = {}
        self.syms: set[Sym] = set(f.params)
        self.definitions: dict[int, Compute] = {}
        self.facts = IndexFacts()
        self.tiles: list[Parallel] = []
        self.matrices = MatrixState()

    def body(self, statements: Body) -> None:
        for s in statements:
            rule = RULES.get(type(s))
            if rule is None:
                raise InternalError(f"unknown statement {type(s).__name__}")
            rule(self, s)

    @contextmanager
    def scope(self, facts: IndexFacts | None = None) -> Iterator[None]:
        """What is defined inside is unknown outside; matrix registers have the same shapes at its end."""
        saved, shapes = (set(self.vals), set(self.syms), self.facts), self.matrices.shapes
        self.facts = self.facts if facts is None else facts
        yield
        same_everywhere([shapes, self.matrices.shapes])
        self.vals = {k: v for k, v in self.vals.items() if k in saved[0]}
        self.syms, self.facts = saved[1], saved[2]

    # ---- definitions and uses
    def define(self, *values: Val) -> None:
        for v in values:
            if v.id in self.vals:
                raise InternalError(f"{v} is defined twice")
            self.vals[v.id] = v

    def use(self, *values: Val) -> None:
        for v in values:
            if v.const is None and self.vals.get(v.id) is not v:
                raise InternalError(f"{v} is used where it is not defined")

    def define_symbol(self, symbol: Sym) -> None:
        self.syms.add(symbol)

    def use_index(self, *indices: Ix) -> None:
        for ix in indices:
            for symbol, _ in ix.terms:
                if symbol not in self.syms:
                    raise InternalError(f"index {symbol} is used where it is not defined")

    # ---- bounds
    def access(self, a: Access) -> None:
        """The index stays in the view, and the address in the memory behind it."""
        self.use_index(*a.index, a.view.start)
        for axis, (ix, size, stride) in enumerate(zip(a.index, a.view.shape, a.view.strides)):
            last = axis == len(a.index) - 1
            if (stride != 0
                and not (at_least(ix, 0, self.facts)
                         and self._reaches_at_most(ix, a.reach if last else (Ix(),), size - 1))):
                raise InternalError(f"cannot prove that index {ix} of axis {axis} of {a} is in [0, {size})")
        self.inside_root(a)

    def inside_root(self, a: Access) -> None:
        root = a.view.root
        low, high = root.low, root.low + root.size - 1
        if a.view.start == 0 and _covered(a.view, low, high):
            return
        if not (self._any_least(a.lows(), low) and self._any_most(a.highs(), high)):
            raise InternalError(f"cannot prove that {a} stays in the elements [{low}, {high}] of {root.name}")

    def _reaches_at_most(self, ix: Ix, reach: tuple[Ix, ...], limit: Dim) -> bool:
        return self._any_most([ix + r for r in reach], limit)

    def _any_most(self, candidates: list[Ix], limit: Dim) -> bool:
        """The last first: those are by the last bounds of symbols, which are mostly the ones that count."""
        return any(at_most(ix, limit, self.facts) for ix in reversed(candidates))

    def _any_least(self, candidates: list[Ix], limit: Dim) -> bool:
        return any(at_least(ix, limit, self.facts) for ix in candidates)

    # ---- tiles
    def written(self, view: View, offset: Ix) -> None:
        """A tile writes memory that other tiles see: where must depend on the tile."""
        tile = self.tiles[-1] if self.tiles else None
        if tile is None or view.root.owner is tile or _runs_once(tile):
            return
        if not depends_on(offset, tile.symbol) and not self._data_dependent(offset):
            raise InternalError(f"every tile of {tile.label!r} writes {view.name} at the same place {offset}")

    def _data_dependent(self, offset: Ix) -> bool:
        return any(s.name.startswith("checked") for s, _ in offset.terms)


def _covered(view: View, low: Dim, high: Dim) -> bool:
    """Whether all of the view's shape, which is not empty, lies in the elements [low, high] of its root."""
    least, greatest = view.span()
    return 0 not in view.shape and is_nonnegative(least - low) and is_nonnegative(high - greatest)


def _runs_once(tile: Parallel) -> bool:
    return tile.serial or at_most(tile.count, 1)


# ---- statements
def _compute(c: Checker, s: Compute) -> None:
    c.use(*s.args)
    if isinstance(s.attr, Ix):
        c.use_index(s.attr)
    if s.op in REGULAR:
        if result_dtype(s.op, s.args) is not s.dst.dtype or s.dst.lanes != s.args[0].lanes:
            raise InternalError(f"{s.op} gives {s.dst.type_text}")
    elif s.op not in IRREGULAR:
        raise InternalError(f"unknown operation {s.op!r}")
    c.define(s.dst)
    c.definitions[s.dst.id] = s


def _define(c: Checker, s: Define) -> None:
    c.use_index(*s.args)
    c.define_symbol(s.symbol)


def _load(c: Checker, s: Load) -> None:
    c.use(*([s.mask] if s.mask is not None else []))
    if s.dst.dtype is not s.view.dtype:
        raise InternalError(f"load of {s.dst.type_text} from {s.view.name} of {s.view.dtype}")
    c.access(accesses_of(s, c.definitions))
    c.define(s.dst)


def _store(c: Checker, s: Store) -> None:
    c.use(s.value, *([s.mask] if s.mask is not None else []))
    if s.value.dtype is not s.view.dtype:
        raise InternalError(f"store of {s.value.type_text} into {s.view.name} of {s.view.dtype}")
    a = accesses_of(s, c.definitions)
    c.access(a)
    c.written(s.view, a.offset())


def _prefetch(c: Checker, s: Prefetch) -> None:
    c.use_index(*s.index, s.view.start)


def _for(c: Checker, s: For) -> None:
    c.use_index(s.lo, s.hi)
    c.use(*s.inits)
    if s.trips() != 0:
        with c.scope():
            c.define_symbol(s.symbol)
            c.define(*s.carried)
            c.body(s.body)
            c.use(*s.nexts)
    c.define(*s.results)


def _while(c: Checker, s: While) -> None:
    c.use_index(s.limit)
    c.use(*s.inits)
    with c.scope():
        c.define_symbol(s.symbol)
        c.define(*s.carried)
        c.body(s.head)
        if s.condition is None:
            raise InternalError(f"the while loop of {s.symbol} has no condition")
        c.use(s.condition)
        with c.scope(facts_of(s.condition, True, c.definitions, c.facts)):
            c.body(s.body)
            c.use(*s.nexts)
    c.define_symbol(s.count)
    c.define(*s.results)


def _if(c: Checker, s: If) -> None:
    c.use(s.condition)
    for statements, holds in ((s.then, True), (s.otherwise, False)):
        with c.scope(facts_of(s.condition, holds, c.definitions, c.facts)):
            c.body(statements)


def _parallel(c: Checker, s: Parallel) -> None:
    c.use_index(s.count)
    c.use(*([s.alone] if s.alone is not None else []))
    if c.tiles:
        raise InternalError(f"parallel {s.label!r} inside parallel {c.tiles[-1].label!r}")
    c.tiles.append(s)
    if s.count != 0:
        with c.scope():
            c.define_symbol(s.symbol)
            c.body(s.body)
    c.tiles.pop()


def _call(c: Checker, s: Call) -> None:
    same_everywhere([(), c.matrices.shapes])
    c.use_index(*s.ints, *[v.start for v in s.views])
    if c.tiles and not _runs_once(c.tiles[-1]) and _has_parallel(s.callee, c.reaches.parallel):
        raise InternalError(f"{s.callee.name} has parallel loops and is called from the parallel loop "
                            f"{c.tiles[-1].label!r}")
    if s.callee not in PROVED and _declares_sizes(s.callee):
        verify(s.callee, c.reaches)
    for symbol, ix in zip(s.callee.params, s.ints):
        _argument(c, s, symbol, ix)
    for given, wanted in zip(s.views, s.callee.views):
        _view_argument(c, s, given, wanted)


def _declares_sizes(f: FunctionIR) -> bool:
    """Whether callers look only at the sizes of some view, not at what is touched of it."""
    return any(map(_declares_size, f.views))


def _declares_size(view: View) -> bool:
    return isinstance(view.root.size, Poly) or view.root.size < ELEMENTS


def _argument(c: Checker, s: Call, symbol: Sym, ix: Ix) -> None:
    (low, _), (high, _) = symbol.lowers[0], symbol.uppers[0]
    if not (at_least(ix, low.const, c.facts)
            and (high.const == ELEMENTS or at_most(ix, high.const, c.facts))
            and ix.divisor() % symbol.multiple == 0):
        raise InternalError(f"call of {s.callee.name}: cannot prove {low} <= {ix} <= {high}, a multiple of "
                            f"{symbol.multiple}, for {symbol}")


def _view_argument(c: Checker, s: Call, given: View, wanted: View) -> None:
    """All that the callee declares lies in the memory given; or, at ragged edges, all that it accesses for these
    integers does."""
    root, (low, high) = given.root, wanted.span()
    fits = (0 in wanted.shape
            or _declares_size(wanted)
            and at_least(given.start + low, root.low, c.facts)
            and at_most(given.start + high, root.low + root.size - 1, c.facts))
    if not fits:
        _CallReach(c, s, given).check(*c.reaches.of(s.callee, wanted.root))
    if wanted.root in s.callee.written and not any(depends_on(ix, c.tiles[-1].symbol) for ix in s.ints if c.tiles):
        c.written(given, given.start)


class _CallReach:
    """What a call touches of the memory that is given for one of its views."""

    def __init__(self, c: Checker, s: Call, given: View):
        self.c, self.s, self.given, self.integers = c, s, given, dict(zip(s.callee.params, s.ints))

    def check(self, lows: tuple[End, ...], highs: tuple[End, ...]) -> None:
        root = self.given.root
        sides = (lows, -1, root.low, at_least), (highs, 1, root.low + root.size - 1, at_most)
        for ends, sign, limit, is_inside in sides:
            for end, parts in joined(self._passed(ends), self.integers, sign):
                if not (self._holds(end, limit, is_inside)
                        or len(parts) > 1 and all(self._holds(part, limit, is_inside) for part in parts)):
                    raise InternalError(f"call of {self.s.callee.name}: cannot prove that {self._text(end)} stays in "
                                        f"the elements [{root.low}, {root.low + root.size - 1}] of {root.name}")

    def _passed(self, ends: tuple[End, ...]) -> tuple[End, ...]:
        """In terms of the caller, but for floors."""
        return tuple([End(tuple([self.given.start + substituted(ix, self.integers) for ix in end.limits]), end.floors)
                      for end in ends])

    def _holds(self, end: End, limit: Dim, is_inside: Callable[[Ix, Dim, IndexFacts], bool]) -> bool:
        """Whether the end is inside, or never reached with these integers."""
        facts = self.c.facts
        for symbol, low in end.floors:
            facts = facts.and_not_positive(low - self.integers[symbol])
        return (any(is_inside(ix, limit, facts) for ix in reversed(end.limits))     # as of `_any_most`
                or any(at_most(self.integers[symbol], low - 1, self.c.facts) for symbol, low in end.floors))

    def _text(self, end: End) -> str:
        return f"{self.given.name}[{end.limits[0] if end.limits else '…'}]"


def _has_parallel(f: FunctionIR, known: dict[FunctionIR, bool]) -> bool:
    """`known`: of the functions that were asked about before."""
    if f not in known:
        known[f] = any(type(s) is Parallel and not _runs_once(s)
                       or type(s) is Call and _has_parallel(s.callee, known) for s in control(f.body))
    return known[f]


def _check_index(c: Checker, s: CheckIndex) -> None:
    c.use(s.value)
    c.use_index(s.size)
    if not at_least(s.size, 1, c.facts):
        raise InternalError(f"check_index needs a size of at least 1, got {s.size}")
    c.define_symbol(s.symbol)


def _fail_unless(c: Checker, s: FailUnless) -> None:
    c.use(s.condition, s.value)


def _return_if(c: Checker, s: ReturnIf | Commit) -> None:
    if c.f.views or c.f.params:
        raise InternalError("only main returns early")


def _stamp(c: Checker, s: Stamp) -> None:
    if c.f.views or c.f.params:
        raise InternalError("only main is instrumented")


def _matrix_shapes(c: Checker, s: MatrixShapes) -> None:
    c.use_index(*s.rows, *s.columns)
    if not all(at_least(ix, 1, c.facts) and at_most(ix, MATRIX_LANES, c.facts) for ix in (*s.rows, *s.columns)):
        raise InternalError(f"cannot prove that matrix registers have 1 to {MATRIX_LANES} rows and columns")
    c.matrices.set(s)


def _matrix_move(c: Checker, s: MatrixMove) -> None:
    c.matrices.move(s)
    a = accesses_of(s, c.definitions)
    c.access(a)
    if s.stores:
        c.written(s.view, a.offset())


RULES: dict[type, Callable[[Checker, Any], None]] = {       # each is called with a statement of its class
    Compute: _compute, Define: _define, Load: _load, Store: _store, Prefetch: _prefetch, For: _for,
    While: _while, If: _if,
    Parallel: _parallel, Call: _call, CheckIndex: _check_index, FailUnless: _fail_unless, ReturnIf: _return_if,
    Commit: _return_if, Stamp: _stamp, MatrixShapes: _matrix_shapes, MatrixMove: _matrix_move,
    MatrixZero: lambda c, s: c.matrices.zero(s), MatrixDot: lambda c, s: c.matrices.dot(s),
}
