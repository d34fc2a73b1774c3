"""Loops, branches, calls, checks and index definitions as LLVM text; the table of all statements at the end."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.codegen.llvm.body import BodyEmitter, Scope
from graphc.codegen.llvm.checks import check_index, commit, fail_unless, leave_if_cancelled, return_if, stamp
from graphc.codegen.llvm.matrices import matrix_dot, matrix_move, matrix_shapes, matrix_zero
from graphc.codegen.llvm.memory import load, prefetch, store
from graphc.codegen.llvm.neighbours import quotient, remainder
from graphc.codegen.llvm.ops import compute
from graphc.codegen.llvm.share import SMALL, frame_note
from graphc.codegen.llvm.subnormals import PARALLEL
from graphc.codegen.llvm.types import function_symbol, type_of
from graphc.codegen.loops.index import Ix, Sym
from graphc.codegen.loops.index_proofs import at_least, upper
from graphc.codegen.loops.loop_ir import (
    Body, Call, CheckIndex, Commit, Compute, Define, FailUnless, For, If, Load, MatrixDot, MatrixMove, MatrixShapes,
    MatrixZero, Parallel, Prefetch, ReturnIf, Stamp, Store, Val, While)
from graphc.errors import InternalError


Definition = Callable[[BodyEmitter, list[Ix]], str]
DIVISIONS = {"quotient": "udiv", "remainder": "urem"}       # of what is not negative
MOST_REDUCED = 24                   # addresses in a loop: with fewer it may be short, and their steps count then
LOOP = "!llvm.loop !5"              # all loops are as they shall be, and say the same


def run(b: BodyEmitter, body: Body) -> None:
    """Writes the text of statements, in order."""
    for s in body:
        rule = STATEMENTS.get(type(s))
        if rule is None:
            raise InternalError(f"no LLVM translation of statement {type(s).__name__}", "llvm")
        rule(b, s)


def run_compute(b: BodyEmitter, s: Compute) -> None:
    b.set_val(s.dst, compute(b, s, [b.val(a) for a in s.args]))


# ---- indices
def define(b: BodyEmitter, s: Define) -> None:
    args = [b.resolve(a) for a in s.args]
    if all(a.is_const and isinstance(a.const, int) for a in args):
        b.bind(s.symbol, Ix(FOLDS[s.kind](*[a.const for a in args])))
    elif s.kind in DIVISIONS and not isinstance(args[1].const, int) and at_least(args[0], 0):
        b.define(s.symbol, _divided_by_size(b, s, *args))
    else:
        b.define(s.symbol, DEFINITIONS[s.kind](b, args))


def _divided_by_size(b: BodyEmitter, s: Define, ix: Ix, divisor: Ix) -> str:
    instruction = f"{DIVISIONS[s.kind]} {b.ix} {b.value(ix)}, {b.value(divisor)}"
    return (quotient(b, s, ix, divisor, instruction) if s.kind == "quotient" else
            remainder(b, ix, divisor, instruction))


def _extremum(name: str) -> Definition:
    def rule(b: BodyEmitter, args: list[Ix]) -> str:
        text = b.value(args[0])
        for other in args[1:]:
            text = b.emit(f"call {b.ix} @llvm.{name}.{b.ix}({b.ix} {text}, {b.ix} {b.value(other)})")
        return text
    return rule


def _quotient(b: BodyEmitter, args: list[Ix]) -> str:
    """Rounded down: the index is moved up to be positive, where unsigned division is cheap."""
    ix, divisor = args
    if at_least(ix, 0):
        return b.emit(f"udiv {b.ix} {b.value(ix)}, {b.value(divisor)}{_small(ix, divisor)}")
    q = b.emit(f"sdiv {b.ix} {b.value(ix)}, {b.value(divisor)}")
    r = b.emit(f"srem {b.ix} {b.value(ix)}, {b.value(divisor)}")
    return b.emit(f"add {b.ix} {q}, {b.emit(f'ashr {b.ix} {r}, {int(b.ix[1:]) - 1}')}")


def _remainder(b: BodyEmitter, args: list[Ix]) -> str:
    ix, divisor = args
    if at_least(ix, 0):
        return b.emit(f"urem {b.ix} {b.value(ix)}, {b.value(divisor)}{_small(ix, divisor)}")
    r = b.emit(f"srem {b.ix} {b.value(ix)}, {b.value(divisor)}")
    sign = b.emit(f"ashr {b.ix} {r}, {int(b.ix[1:]) - 1}")
    return b.emit(f"add {b.ix} {r}, {b.emit(f'and {b.ix} {sign}, {b.value(divisor)}')}")


def _small(ix: Ix, divisor: Ix) -> str:
    """A note where both have 32 bits at most."""
    return SMALL if max(upper(ix), upper(divisor)) < 1 << 32 else ""


def _product(b: BodyEmitter, args: list[Ix]) -> str:
    return b.emit(f"mul nsw {b.ix} {b.value(args[0])}, {b.value(args[1])}")


FOLDS: dict[str, Callable[..., int]] = {
    "min": min, "max": max, "quotient": lambda a, n: a // n, "remainder": lambda a, n: a % n,
    "product": lambda a, n: a * n}
DEFINITIONS: dict[str, Definition] = {
    "min": _extremum("smin"), "max": _extremum("smax"), "quotient": _quotient, "remainder": _remainder,
    "product": _product}


# ---- counted loops
def for_loop(b: BodyEmitter, s: For) -> None:
    lo, hi = b.resolve(s.lo), b.resolve(s.hi)
    extent = hi - lo
    trips = max(0, -(-extent.const // s.step)) if extent.is_const and isinstance(extent.const, int) else None
    values = [b.val(v) for v in s.inits]
    if trips is not None and (s.unroll is True or trips <= 1):
        values = _copies(b, s, [lo + k * s.step for k in range(trips)], values)
    elif s.unroll is True:
        raise InternalError(f"loop over [{s.lo}, {s.hi}) cannot be unrolled", "llvm")
    else:
        many = s.unroll if s.unroll and s.unroll > 1 else 1
        values = _chunks(b, s, lo, hi, many, trips, values) if many > 1 else _rolled(b, s, lo, hi, 1, values)
    for result, text in zip(s.results, values):
        b.set_val(result, text)


def _copies(b: BodyEmitter, s: For, indices: list[Ix], values: list[str]) -> list[str]:
    """The body once for each index, one after the other."""
    for ix in indices:
        b.bind(s.symbol, ix)
        b.scopes[-1].divisions.clear()              # symbols of the copy before have other values now
        for carried, text in zip(s.carried, values):
            b.set_val(carried, text)
        run(b, s.body)
        values = [b.val(v) for v in s.nexts]
    return values


def _chunks(b: BodyEmitter, s: For, lo: Ix, hi: Ix, many: int, trips: int | None, values: list[str]) -> list[str]:
    """`many` trips at a time while they last, then single trips."""
    if trips is not None:
        middle = lo + trips // many * many * s.step
    else:
        middle = _middle(b, s, lo, hi, many)
    values = _rolled(b, s, lo, middle, many, values)
    return values if middle == hi or trips is not None and trips % many == 0 else _rolled(b, s, middle, hi, 1, values)


def _middle(b: BodyEmitter, s: For, lo: Ix, hi: Ix, many: int) -> Ix:
    """Where the last whole chunk ends, computed at run time."""
    trips = b.value(hi - lo + (s.step - 1))
    if s.step > 1:
        trips = b.emit(f"sdiv {b.ix} {trips}, {s.step}")
    chunks = b.emit(f"sdiv {b.ix} {trips}, {many}")
    extent = b.emit(f"mul nsw {b.ix} {chunks}, {many * s.step}")
    middle = Sym("middle", s.symbol.id)
    b.define(middle, b.emit(f"add nsw {b.ix} {b.value(lo)}, {extent}"))
    return Ix(0, ((middle, 1),))


def _rolled(b: BodyEmitter, s: For, lo: Ix, hi: Ix, copies: int, values: list[str]) -> list[str]:
    """A loop tested at its end, with a test before it unless the first trip is certain."""
    symbol = s.symbol if copies == 1 else Sym(s.symbol.name, s.symbol.id)
    first, last, certain = b.value(lo), b.value(hi), at_least(hi - lo, 1)
    header, leave, index, carried = b.label(), b.label(), b.name(), [b.name() for _ in values]
    before, b.block = b.block, header
    every = b.module.looks.every.get(id(s), 0)
    chunk = _Chunk(b, values) if every // copies > 1 else None
    nests = b.nests
    with b.scope() as scope:
        b.define(symbol, index)
        start = Ix(0, ((symbol, 1),))
        if copies == 1:
            nexts = _one_trip(b, s, carried)
        else:
            nexts = _copies(b, s, [start + k * s.step for k in range(copies)], carried)
        following = b.emit(f"add nsw {b.ix} {index}, {copies * s.step}")
        if b.nests - nests + _addresses(scope) > MOST_REDUCED:
            following = b.emit(_opaque(b, following))
        if every and not chunk:
            leave_if_cancelled(b)
        again = b.emit(f"icmp slt {b.ix} {following}, {chunk.end if chunk else last}")
        b.line(f"br i1 {again}, label %{header}, label %{chunk.look if chunk else leave}, {LOOP}")
    end, b.block = b.block, before
    entry = chunk.header if chunk else header
    if certain:
        b.line(f"br label %{entry}")
    else:
        b.line(f"br i1 {b.emit(f'icmp slt {b.ix} {first}, {last}')}, label %{entry}, label %{leave}")
    starts = (before, first, values)
    if chunk:
        starts = chunk.begin(b, s, starts, nexts, last, every // copies * copies * s.step, header)
    b.begin(header)
    b.line(f"{index} = phi {b.ix} [ {starts[1]}, %{starts[0]} ], [ {following}, %{end} ]")
    for value, name, text, after in zip(s.inits, carried, starts[2], nexts):
        b.line(f"{name} = phi {type_of(value)} [ {text}, %{starts[0]} ], [ {after}, %{end} ]")
    b.append(scope)
    left = chunk.finish(b, following, last, leave) if chunk else end
    b.nests += 1
    b.begin(leave)
    if certain:
        return nexts
    return [b.emit(f"phi {type_of(v)} [ {text}, %{before} ], [ {after}, %{left} ]")
            for v, text, after in zip(s.inits, values, nexts)]


def _opaque(b: BodyEmitter, index: str) -> str:
    """The next index of a loop with many addresses, in a form of which LLVM's strength reduction makes nothing. It
    would take each address of the loops inside for one of this loop too, in time that grows faster than their number,
    and win next to nothing: all that an address owes to an outer loop is computed in that loop already, and in an
    innermost one the units have so much else to do that a step of an index is hidden. No code comes of it."""
    return f"call {b.ix} @llvm.expect.{b.ix}({b.ix} {index}, {b.ix} {index})"


def _addresses(scope: Scope) -> int:
    return sum(["getelementptr" in line for line in scope.lines])


Start = tuple[str, str, list[str]]      # of a loop: the block before it, the first index, the carried values


class _Chunk:
    """A loop around a long loop of short trips: so many at a time, then a look at the cancel word."""

    def __init__(self, b: BodyEmitter, values: list[str]) -> None:
        self.header, self.look, self.more, self.after = [b.label() for _ in range(4)]
        self.index, self.end, self.next, self.values = b.name(), b.name(), b.name(), [b.name() for _ in values]

    def begin(self, b: BodyEmitter, s: For, starts: Start, nexts: list[str], last: str, extent: int,
              inner: str) -> Start:
        """The outer loop's header; gives what the inner loop starts from: block, index, carried values."""
        before, first, values = starts
        b.begin(self.header)
        b.line(f"{self.index} = phi {b.ix} [ {first}, %{before} ], [ {self.next}, %{self.after} ]")
        for value, name, text, then in zip(s.inits, self.values, values, nexts):
            b.line(f"{name} = phi {type_of(value)} [ {text}, %{before} ], [ {then}, %{self.after} ]")
        far = b.emit(f"add nsw {b.ix} {self.index}, {extent}")
        b.line(f"{self.end} = call {b.ix} @llvm.smin.{b.ix}({b.ix} {far}, {b.ix} {last})")
        b.line(f"br label %{inner}")
        return self.header, self.index, self.values

    def finish(self, b: BodyEmitter, following: str, last: str, leave: str) -> str:
        """The look after a chunk; the block that leaves the loop."""
        b.begin(self.look)
        b.line(f"br i1 {b.emit(f'icmp slt {b.ix} {following}, {last}')}, label %{self.more}, label %{leave}")
        b.begin(self.more)
        b.line(f"{self.next} = {_opaque(b, following)}")
        leave_if_cancelled(b, self.after)
        b.line(f"br label %{self.header}")
        return self.look


def _one_trip(b: BodyEmitter, s: For, carried: list[str]) -> list[str]:
    for value, text in zip(s.carried, carried):
        b.set_val(value, text)
    run(b, s.body)
    return [b.val(v) for v in s.nexts]


# ---- parallel loops
def parallel(b: BodyEmitter, s: Parallel) -> None:
    count = b.resolve(s.count)
    if s.serial or count == 1 or not b.module.target.has_threads:
        loop = For(s.symbol, Ix(), s.count, 1, (), (), None)
        loop.body = s.body
        b.module.looks.every[id(loop)] = b.module.looks.every.get(id(s), 0)
        for_loop(b, loop)
        del b.module.looks.every[id(loop)]
        return
    name, tile = _outlined(b, s)
    frame = b.frame(tile.frame_size)
    b.line(frame_note(frame, tile.frame_size, name))
    for ty, text, offset in tile.captured:
        at = b.emit(f"getelementptr i8, ptr {frame}, i64 {offset}")
        b.line(f"store {ty} {text}, ptr {at}, align 8")
    tiles = b.value(count)
    after = _alone(b, s.alone, name, frame, tiles) if s.alone is not None else ""
    run = b.module.mode(PARALLEL) if b.module.flushes else b.emit(f"load ptr, ptr {b.field('parallel')}, align 8")
    b.line(f"call void {run}(ptr %ctx, ptr {name}, ptr {frame}, i64 {tiles})")
    look_after(b, s)
    if after:
        b.line(f"br label %{after}")
        b.begin(after)


def _alone(b: BodyEmitter, condition: Val, name: str, frame: str, tiles: str) -> str:
    """Runs the tiles on the caller where the condition holds, and goes on where it does not; the label behind both."""
    head, tile, others, after = [b.label() for _ in range(4)]
    scratch = b.emit(f"load ptr, ptr {b.field('scratch')}, align 8")
    before, index, following = b.block, b.name(), b.name()
    b.line(f"br i1 {b.val(condition)}, label %{head}, label %{others}")
    b.begin(head)
    b.line(f"{index} = phi i64 [ 0, %{before} ], [ {following}, %{tile} ]")
    b.line(f"br i1 {b.emit(f'icmp slt i64 {index}, {tiles}')}, label %{tile}, label %{after}")
    b.begin(tile)
    b.line(f"call void {name}(ptr %ctx, ptr {frame}, i64 {index}, ptr {scratch})")
    b.line(f"{following} = add nsw i64 {index}, 1")
    b.line(f"br label %{head}")
    b.begin(others)
    return after


def _outlined(b: BodyEmitter, s: Parallel) -> tuple[str, BodyEmitter]:
    """Makes a function of a parallel body: its name, and the body, which knows what its frame must hold."""
    if b.f is None:
        raise InternalError("a parallel loop outside of a loop function", "llvm")
    tile = BodyEmitter(b.module, b.f, b)
    tile.define(s.symbol, "%tile")
    run(tile, s.body)
    tile.line("ret void")
    return b.module.tile(b.f, s.label, tile), tile


# ---- branches
def branch(b: BodyEmitter, s: If) -> None:
    condition, (yes, no, after) = b.val(s.condition), [b.label() for _ in range(3)]
    before = b.block
    arms = []
    for label, body in ((yes, s.then), (no, s.otherwise)):
        b.block = label
        with b.scope() as scope:
            run(b, body)
            b.line(f"br label %{after}")
        arms.append((label, scope))
    b.block = before
    b.line(f"br i1 {condition}, label %{yes}, label %{no}")
    for label, scope in arms:
        b.begin(label)
        b.append(scope)
    b.begin(after)


def while_loop(b: BodyEmitter, s: While) -> None:
    """The results are the carried values at the top of the trip that was not made."""
    limit, values = b.value(b.resolve(s.limit)), [b.val(v) for v in s.inits]
    header, head, body, leave = [b.label() for _ in range(4)]
    index, carried = b.name(), [b.name() for _ in values]
    every, nests = b.module.looks.every.get(id(s), 0), b.nests
    before, b.block = b.block, head
    with b.scope() as scope:
        b.define(s.symbol, index)
        for value, text in zip(s.carried, carried):
            b.set_val(value, text)
        run(b, s.head)
        if s.condition is None:
            raise InternalError(f"the while loop of {s.symbol} has no condition", "llvm")
        b.line(f"br i1 {b.val(s.condition)}, label %{body}, label %{leave}")
        b.begin(body)
        run(b, s.body)
        nexts = [b.val(v) for v in s.nexts]
        if every > 1:
            trips = b.emit(f"and {b.ix} {index}, {(1 << every.bit_length() - 1) - 1}")
            due, on = b.label(), b.label()
            b.line(f"br i1 {b.emit(f'icmp ne {b.ix} {trips}, 0')}, label %{on}, label %{due}, !prof !2")
            b.begin(due)
            leave_if_cancelled(b)
            b.line(f"br label %{on}")
            b.begin(on)
        elif every:
            leave_if_cancelled(b)
        following = b.emit(f"add nsw {b.ix} {index}, 1")
        if b.nests > nests and b.nests - nests + _addresses(scope) > MOST_REDUCED:
            following = b.emit(_opaque(b, following))
        b.line(f"br label %{header}, {LOOP}")
    b.nests += 1
    end, b.block = b.block, before
    b.line(f"br label %{header}")
    b.begin(header)
    b.line(f"{index} = phi {b.ix} [ 0, %{before} ], [ {following}, %{end} ]")
    for value, name, text, after in zip(s.inits, carried, values, nexts):
        b.line(f"{name} = phi {type_of(value)} [ {text}, %{before} ], [ {after}, %{end} ]")
    b.line(f"br i1 {b.emit(f'icmp slt {b.ix} {index}, {limit}')}, label %{head}, label %{leave}")
    b.begin(head)
    b.append(scope)
    b.begin(leave)
    b.define(s.count, index)
    for result, text in zip(s.results, carried):
        b.set_val(result, text)


# ---- calls
def call(b: BodyEmitter, s: Call) -> None:
    parts = ["ptr %ctx"]
    for view in s.views:
        parts.append(f"ptr {b.address(view, (Ix(),) * len(view.shape), b.memory_type(view))}")
    parts += [f"{b.ix} {b.value(b.resolve(ix))}" for ix in s.ints]
    b.line(f"call void {function_symbol(s.callee.name)}({', '.join(parts)}, ptr %scratch)")
    b.nests += MOST_REDUCED
    look_after(b, s)


def look_after(b: BodyEmitter, s: Call | Parallel) -> None:
    """What may have been left early is not read."""
    if id(s) in b.module.looks.after:
        leave_if_cancelled(b)


STATEMENTS: dict[type, Callable[[BodyEmitter, Any], None]] = {       # each is called with a statement of its class
    Compute: run_compute, Define: define, Load: load, Store: store, Prefetch: prefetch, For: for_loop,
    Parallel: parallel,
    If: branch, While: while_loop, Call: call, CheckIndex: check_index, FailUnless: fail_unless, ReturnIf: return_if,
    Commit: commit, Stamp: stamp, MatrixShapes: matrix_shapes, MatrixMove: matrix_move, MatrixZero: matrix_zero,
    MatrixDot: matrix_dot}
