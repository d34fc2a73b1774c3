"""Loops, branches, calls, checks and index definitions as LLVM text; the table of all statements at the end."""
from __future__ import annotations

from collections.abc import Callable

from graphc.codegen import abi
from graphc.codegen.llvm.memory import load, prefetch, store
from graphc.codegen.llvm.ops import compute
from graphc.codegen.llvm.types import function_symbol, type_of
from graphc.codegen.loops.index import Ix, Sym, as_ix, at_least
from graphc.codegen.loops.loop_ir import (
    Call, CheckIndex, Commit, Compute, Define, FailUnless, For, If, Load, Parallel, Prefetch, ReturnIf, Stamp, Store,
    Val, While)
from graphc.errors import InternalError


def run_compute(b, s: Compute) -> None:
    b.set_val(s.dst, compute(b, s, [b.val(a) for a in s.args]))


# ---- indices
def define(b, s: Define) -> None:
    args = [b.resolve(a) for a in s.args]
    if all(a.is_const for a in args):
        b.bind(s.symbol, Ix(FOLDS[s.kind](*[a.const for a in args])))
    else:
        b.define(s.symbol, DEFINITIONS[s.kind](b, args))


def _extremum(name: str) -> Callable:
    def rule(b, args: list[Ix]) -> str:
        text = b.value(args[0])
        for other in args[1:]:
            text = b.emit(f"call i64 @llvm.{name}.i64(i64 {text}, i64 {b.value(other)})")
        return text
    return rule


def _quotient(b, args: list[Ix]) -> str:
    """Rounded down: the index is moved up to be positive, where unsigned division is cheap."""
    ix, divisor = args
    if at_least(ix, 0):
        return b.emit(f"udiv i64 {b.value(ix)}, {divisor.const}")
    q = b.emit(f"sdiv i64 {b.value(ix)}, {divisor.const}")
    r = b.emit(f"srem i64 {b.value(ix)}, {divisor.const}")
    return b.emit(f"add i64 {q}, {b.emit(f'ashr i64 {r}, 63')}")


def _remainder(b, args: list[Ix]) -> str:
    ix, divisor = args
    if at_least(ix, 0):
        return b.emit(f"urem i64 {b.value(ix)}, {divisor.const}")
    r = b.emit(f"srem i64 {b.value(ix)}, {divisor.const}")
    sign = b.emit(f"ashr i64 {r}, 63")
    return b.emit(f"add i64 {r}, {b.emit(f'and i64 {sign}, {divisor.const}')}")


def _product(b, args: list[Ix]) -> str:
    return b.emit(f"mul nsw i64 {b.value(args[0])}, {b.value(args[1])}")


FOLDS = {"min": min, "max": max, "quotient": lambda a, n: a // n, "remainder": lambda a, n: a % n, "product": lambda a, n: a * n}
DEFINITIONS = {"min": _extremum("smin"), "max": _extremum("smax"), "quotient": _quotient, "remainder": _remainder, "product": _product}


# ---- counted loops
def for_loop(b, s: For) -> None:
    lo, hi = b.resolve(s.lo), b.resolve(s.hi)
    extent = hi - lo
    trips = max(0, -(-extent.const // s.step)) if extent.is_const else None
    values = [b.val(v) for v in s.inits]
    if trips is not None and (s.unroll is True or trips <= 1):
        values = _copies(b, s, [lo + k * s.step for k in range(trips)], values)
    elif s.unroll is True:
        raise InternalError(f"loop over [{s.lo}, {s.hi}) cannot be unrolled", "llvm")
    else:
        values = _chunks(b, s, lo, hi, trips, values) if s.unroll and s.unroll > 1 else _rolled(b, s, lo, hi, 1, values)
    for result, text in zip(s.results, values):
        b.set_val(result, text)


def _copies(b, s: For, indices: list[Ix], values: list[str]) -> list[str]:
    """The body once for each index, one after the other."""
    for ix in indices:
        b.bind(s.symbol, ix)
        for carried, text in zip(s.carried, values):
            b.set_val(carried, text)
        b.run(s.body)
        values = [b.val(v) for v in s.nexts]
    return values


def _chunks(b, s: For, lo: Ix, hi: Ix, trips: int | None, values: list[str]) -> list[str]:
    """`unroll` trips at a time while they last, then single trips."""
    if trips is not None:
        middle = lo + trips // s.unroll * s.unroll * s.step
    else:
        middle = _middle(b, s, lo, hi)
    values = _rolled(b, s, lo, middle, s.unroll, values)
    return values if middle == hi or trips is not None and trips % s.unroll == 0 else _rolled(b, s, middle, hi, 1, values)


def _middle(b, s: For, lo: Ix, hi: Ix) -> Ix:
    """Where the last whole chunk ends, computed at run time."""
    trips = b.value(hi - lo + (s.step - 1))
    if s.step > 1:
        trips = b.emit(f"sdiv i64 {trips}, {s.step}")
    chunks = b.emit(f"sdiv i64 {trips}, {s.unroll}")
    extent = b.emit(f"mul nsw i64 {chunks}, {s.unroll * s.step}")
    middle = Sym("middle", s.symbol.id)
    b.define(middle, b.emit(f"add nsw i64 {b.value(lo)}, {extent}"))
    return Ix(0, ((middle, 1),))


def _rolled(b, s: For, lo: Ix, hi: Ix, copies: int, values: list[str]) -> list[str]:
    """A loop tested at its end, with a test before it unless the first trip is certain."""
    symbol = s.symbol if copies == 1 else Sym(s.symbol.name, s.symbol.id)
    first, last, certain = b.value(lo), b.value(hi), at_least(hi - lo, 1)
    header, leave, index, carried = b.label(), b.label(), b.name(), [b.name() for _ in values]
    before, b.block = b.block, header
    every = b.module.looks.every.get(id(s), 0)
    chunk = _Chunk(b, values) if every // copies > 1 else None
    with b.scope() as scope:
        b.define(symbol, index)
        start = Ix(0, ((symbol, 1),))
        if copies == 1:
            nexts = _one_trip(b, s, carried)
        else:
            nexts = _copies(b, s, [start + k * s.step for k in range(copies)], carried)
        following = b.emit(f"add nsw i64 {index}, {copies * s.step}")
        if every and not chunk:
            leave_if_cancelled(b)
        again = b.emit(f"icmp slt i64 {following}, {chunk.end if chunk else last}")
        b.line(f"br i1 {again}, label %{header}, label %{chunk.look if chunk else leave}, {b.module.loop_metadata()}")
    end, b.block = b.block, before
    entry = chunk.header if chunk else header
    if certain:
        b.line(f"br label %{entry}")
    else:
        b.line(f"br i1 {b.emit(f'icmp slt i64 {first}, {last}')}, label %{entry}, label %{leave}")
    starts = (before, first, values)
    if chunk:
        starts = chunk.begin(b, s, starts, (following, nexts), last, every // copies * copies * s.step, header)
    b.begin(header)
    b.line(f"{index} = phi i64 [ {starts[1]}, %{starts[0]} ], [ {following}, %{end} ]")
    for value, name, text, after in zip(s.inits, carried, starts[2], nexts):
        b.line(f"{name} = phi {type_of(value)} [ {text}, %{starts[0]} ], [ {after}, %{end} ]")
    b.append(scope)
    left = chunk.finish(b, following, last, leave) if chunk else end
    b.begin(leave)
    if certain:
        return nexts
    return [b.emit(f"phi {type_of(v)} [ {text}, %{before} ], [ {after}, %{left} ]") for v, text, after in zip(s.inits, values, nexts)]


class _Chunk:
    """A loop around a long loop of short trips: so many at a time, then a look at the cancel word."""

    def __init__(self, b, values: list[str]):
        self.header, self.look, self.more, self.after = [b.label() for _ in range(4)]
        self.index, self.end, self.values = b.name(), b.name(), [b.name() for _ in values]

    def begin(self, b, s: For, starts: tuple, following: tuple, last: str, extent: int, inner: str) -> tuple:
        """The outer loop's header; gives what the inner loop starts from: block, index, carried values."""
        before, first, values = starts
        b.begin(self.header)
        b.line(f"{self.index} = phi i64 [ {first}, %{before} ], [ {following[0]}, %{self.after} ]")
        for value, name, text, then in zip(s.inits, self.values, values, following[1]):
            b.line(f"{name} = phi {type_of(value)} [ {text}, %{before} ], [ {then}, %{self.after} ]")
        far = b.emit(f"add nsw i64 {self.index}, {extent}")
        b.line(f"{self.end} = call i64 @llvm.smin.i64(i64 {far}, i64 {last})")
        b.line(f"br label %{inner}")
        return self.header, self.index, self.values

    def finish(self, b, following: str, last: str, leave: str) -> str:
        """The look after a chunk; the block that leaves the loop."""
        b.begin(self.look)
        b.line(f"br i1 {b.emit(f'icmp slt i64 {following}, {last}')}, label %{self.more}, label %{leave}")
        b.begin(self.more)
        leave_if_cancelled(b, self.after)
        b.line(f"br label %{self.header}")
        return self.look


def leave_if_cancelled(b, after: str | None = None) -> None:
    """The function returns early if the call was cancelled; goes on in the block `after`."""
    return_if(b, ReturnIf("cancelled"), after)


def _one_trip(b, s: For, carried: list[str]) -> list[str]:
    for value, text in zip(s.carried, carried):
        b.set_val(value, text)
    b.run(s.body)
    return [b.val(v) for v in s.nexts]


# ---- parallel loops
def parallel(b, s: Parallel) -> None:
    count = b.resolve(s.count)
    if s.serial or count == 1:
        loop = For(s.symbol, Ix(), s.count, 1, (), (), None)
        loop.body = s.body
        b.module.looks.every[id(loop)] = b.module.looks.every.get(id(s), 0)
        for_loop(b, loop)
        del b.module.looks.every[id(loop)]
        return
    name, tile = b.outline(s.label, s.symbol, s.body)
    frame = b.alloca(max(8, tile.frame_size))
    for ty, text, offset in tile.captured:
        at = b.emit(f"getelementptr i8, ptr {frame}, i64 {offset}")
        b.line(f"store {ty} {text}, ptr {at}, align 8")
    run = b.emit(f"load ptr, ptr {b.field('parallel')}, align 8")
    b.line(f"call void {run}(ptr %ctx, ptr {name}, ptr {frame}, i64 {b.value(count)})")
    look_after(b, s)


# ---- branches
def branch(b, s: If) -> None:
    condition, (yes, no, after) = b.val(s.condition), [b.label() for _ in range(3)]
    before = b.block
    arms = []
    for label, body in ((yes, s.then), (no, s.otherwise)):
        b.block = label
        with b.scope() as scope:
            b.run(body)
            b.line(f"br label %{after}")
        arms.append((label, scope))
    b.block = before
    b.line(f"br i1 {condition}, label %{yes}, label %{no}")
    for label, scope in arms:
        b.begin(label)
        b.append(scope)
    b.begin(after)


def while_loop(b, s: While) -> None:
    """The results are the carried values at the top of the trip that was not made."""
    limit, values = b.value(b.resolve(s.limit)), [b.val(v) for v in s.inits]
    header, head, body, leave = [b.label() for _ in range(4)]
    index, carried = b.name(), [b.name() for _ in values]
    every = b.module.looks.every.get(id(s), 0)
    before, b.block = b.block, head
    with b.scope() as scope:
        b.define(s.symbol, index)
        for value, text in zip(s.carried, carried):
            b.set_val(value, text)
        b.run(s.head)
        b.line(f"br i1 {b.val(s.condition)}, label %{body}, label %{leave}")
        b.begin(body)
        b.run(s.body)
        nexts = [b.val(v) for v in s.nexts]
        if every > 1:
            trips = b.emit(f"and i64 {index}, {(1 << every.bit_length() - 1) - 1}")
            due, on = b.label(), b.label()
            b.line(f"br i1 {b.emit(f'icmp ne i64 {trips}, 0')}, label %{on}, label %{due}, !prof !2")
            b.begin(due)
            leave_if_cancelled(b)
            b.line(f"br label %{on}")
            b.begin(on)
        elif every:
            leave_if_cancelled(b)
        following = b.emit(f"add nsw i64 {index}, 1")
        b.line(f"br label %{header}, {b.module.loop_metadata()}")
    end, b.block = b.block, before
    b.line(f"br label %{header}")
    b.begin(header)
    b.line(f"{index} = phi i64 [ 0, %{before} ], [ {following}, %{end} ]")
    for value, name, text, after in zip(s.inits, carried, values, nexts):
        b.line(f"{name} = phi {type_of(value)} [ {text}, %{before} ], [ {after}, %{end} ]")
    b.line(f"br i1 {b.emit(f'icmp slt i64 {index}, {limit}')}, label %{head}, label %{leave}")
    b.begin(head)
    b.append(scope)
    b.begin(leave)
    b.define(s.count, index)
    for result, text in zip(s.results, carried):
        b.set_val(result, text)


# ---- calls and checks
def call(b, s: Call) -> None:
    parts = ["ptr %ctx"]
    for view in s.views:
        parts.append(f"ptr {b.address(view, (Ix(),) * len(view.shape), b.memory_type(view))}")
    parts += [f"i64 {b.value(b.resolve(ix))}" for ix in s.ints]
    b.line(f"call void {function_symbol(s.callee.name)}({', '.join(parts)}, ptr %scratch)")
    look_after(b, s)


def look_after(b, s: Call | Parallel) -> None:
    """What may have been left early is not read."""
    if id(s) in b.module.looks.after:
        leave_if_cancelled(b)


def check_index(b, s: CheckIndex) -> None:
    value = _as_i64(b, s.value)
    inside = b.emit(f"icmp ult i64 {value}, {b.value(b.resolve(s.size))}")
    _fail_unless(b, inside, s.node_id, value)
    b.define(s.symbol, b.emit(f"select i1 {inside}, i64 {value}, i64 0"))


def fail_unless(b, s: FailUnless) -> None:
    _fail_unless(b, b.val(s.condition), s.node_id, _as_i64(b, s.value))


def _fail_unless(b, holds: str, node_id: Ix | int, value: str) -> None:
    """The least code of all failures wins, so the report does not depend on the number of threads."""
    failed, after = b.label(), b.label()
    node = b.value(b.resolve(as_ix(node_id)))           # before the branch: what it computes may serve later statements too
    b.line(f"br i1 {holds}, label %{after}, label %{failed}, !prof !2")
    b.begin(failed)
    for beyond, bound in (("slt", -abi.INDEX_BIAS), ("sgt", abi.INDEX_BIAS - 1)):
        value = b.emit(f"select i1 {b.emit(f'icmp {beyond} i64 {value}, {bound}')}, i64 {bound}, i64 {value}")
    biased = b.emit(f"add i64 {value}, {abi.INDEX_BIAS}")
    field = b.emit(f"and i64 {biased}, {abi.INDEX_MASK}")
    number = b.emit(f"shl i64 {node}, {abi.INDEX_BITS}")
    code = b.emit(f"or i64 {field}, {number}")
    b.line(f"{b.name()} = atomicrmw umin ptr {b.field('status')}, i64 {code} monotonic, align 8")
    b.line(f"br label %{after}")
    b.begin(after)


def _as_i64(b, value: Val) -> str:
    text = b.val(value)
    return text if value.dtype.itemsize == 8 else b.emit(f"sext {type_of(value)} {text} to i64")


def return_if(b, s: ReturnIf, after: str | None = None) -> None:
    leave, after = b.label(), after or b.label()
    field, good, code = RETURNS[s.reason]
    word = b.emit(f"load atomic i64, ptr {b.field(field)} monotonic, align 8")
    b.line(f"br i1 {b.emit(f'icmp {good} i64 {word}, {abi.STATUS_OK if field == STATUS else 0}')}, label %{after}, label %{leave}, !prof !2")
    b.begin(leave)
    b.line(f"ret i32 {code}" if b.is_entry else "ret void")
    b.begin(after)


def commit(b, s: Commit) -> None:
    """From here on the call is not cancelled any more; it returns if it has been before."""
    pair = b.emit(f"cmpxchg ptr {b.field('cancel')}, i64 0, i64 {abi.COMMITTED} monotonic monotonic, align 8")
    was = b.emit(f"extractvalue {{ i64, i1 }} {pair}, 0")
    leave, after = b.label(), b.label()
    b.line(f"br i1 {b.emit(f'icmp sle i64 {was}, 0')}, label %{after}, label %{leave}, !prof !2")
    b.begin(leave)
    b.line(f"ret i32 {abi.RETURN_CANCELLED}")
    b.begin(after)


def stamp(b, s: Stamp) -> None:
    """Nanoseconds and calls of a site are neighbours in the table `profile`. Only the calling thread runs main."""
    row = b.emit(f"getelementptr i64, ptr {b.emit(f'load ptr, ptr {b.field(PROFILE)}, align 8')}, i64 {2 * s.site}")
    now = b.emit(f"call i64 {b.module.clock()}()")
    spent = b.emit(f"load i64, ptr {row}, align 8")
    b.line(f"store i64 {b.emit(f'{SPENT[s.ends]} i64 {spent}, {now}')}, ptr {row}, align 8")
    if s.ends:
        count = b.emit(f"getelementptr i64, ptr {row}, i64 1")
        calls = b.emit(f"load i64, ptr {count}, align 8")
        b.line(f"store i64 {b.emit(f'add i64 {calls}, 1')}, ptr {count}, align 8")


PROFILE, SPENT = "profile", ("sub", "add")


def finish_main(b) -> None:
    return_if(b, ReturnIf("failed"))
    b.line(f"ret i32 {abi.RETURN_OK}")


STATUS = "status"
RETURNS = {"failed": (STATUS, "eq", abi.RETURN_FAILED), "cancelled": ("cancel", "sle", abi.RETURN_CANCELLED)}

STATEMENTS = {Compute: run_compute, Define: define, Load: load, Store: store, Prefetch: prefetch, For: for_loop, Parallel: parallel,
              If: branch, While: while_loop, Call: call, CheckIndex: check_index, FailUnless: fail_unless, ReturnIf: return_if,
              Commit: commit, Stamp: stamp}
