"""Checks, early returns and clocks as LLVM text: what a function tells its caller besides results."""
from __future__ import annotations

from graphc.codegen import abi
from graphc.codegen.llvm.body import BodyEmitter
from graphc.codegen.llvm.types import type_of
from graphc.codegen.loops.index import Ix, as_ix
from graphc.codegen.loops.loop_ir import CheckIndex, Commit, FailUnless, ReturnIf, Stamp, Val

STATUS, CANCEL = "status", "cancel"
RETURNS = {"failed": (STATUS, "eq", abi.RETURN_FAILED), "cancelled": (CANCEL, "sle", abi.RETURN_CANCELLED)}


def check_index(b: BodyEmitter, s: CheckIndex) -> None:
    value = _as_i64(b, s.value)
    inside = b.emit(f"icmp ult i64 {value}, {b.wide_value(s.size)}")
    _fail_unless(b, inside, s.node_id, value)
    found = b.emit(f"select i1 {inside}, i64 {value}, i64 0")
    b.define(s.symbol, found if b.ix == "i64" else b.emit(f"trunc i64 {found} to {b.ix}"))


def fail_unless(b: BodyEmitter, s: FailUnless) -> None:
    _fail_unless(b, b.val(s.condition), s.node_id, _as_i64(b, s.value))


def _fail_unless(b: BodyEmitter, holds: str, node_id: Ix | int, value: str) -> None:
    """The least code of all failures wins, so the report does not depend on the number of threads."""
    failed, after = b.label(), b.label()
    # before the branch: what it computes may serve later statements too
    node = b.wide_value(as_ix(node_id))
    b.line(f"br i1 {holds}, label %{after}, label %{failed}, !prof !2")
    b.begin(failed)
    for beyond, bound in (("slt", -abi.INDEX_BIAS), ("sgt", abi.INDEX_BIAS - 1)):
        value = b.emit(f"select i1 {b.emit(f'icmp {beyond} i64 {value}, {bound}')}, i64 {bound}, i64 {value}")
    biased = b.emit(f"add i64 {value}, {abi.INDEX_BIAS}")
    field = b.emit(f"and i64 {biased}, {abi.INDEX_MASK}")
    number = b.emit(f"shl i64 {node}, {abi.INDEX_BITS}")
    code = b.emit(f"or i64 {field}, {number}")
    _keep_least(b, code)
    b.line(f"br label %{after}")
    b.begin(after)


def _keep_least(b: BodyEmitter, code: str) -> None:
    if b.module.target.has_threads:
        b.line(f"{b.name()} = atomicrmw umin ptr {b.field(STATUS)}, i64 {code} monotonic, align 8")
        return
    word = b.field(STATUS)
    before = _load_shared(b, word)
    b.line(f"store volatile i64 {b.emit(f'call i64 @llvm.umin.i64(i64 {before}, i64 {code})')}, ptr {word}, align 8")


def _load_shared(b: BodyEmitter, word: str) -> str:
    """A word that others may write: other threads, or where there are none what interrupts this one. Processors
    without threads may have no atomic instructions of 64 bits."""
    kind, order = ("atomic", " monotonic") if b.module.target.has_threads else ("volatile", "")
    return b.emit(f"load {kind} i64, ptr {word}{order}, align 8")


def _as_i64(b: BodyEmitter, value: Val) -> str:
    text = b.val(value)
    head = "sext" if value.dtype.is_signed else "zext"
    return text if value.dtype.itemsize == 8 else b.emit(f"{head} {type_of(value)} {text} to i64")


def return_if(b: BodyEmitter, s: ReturnIf, after: str | None = None) -> None:
    leave, after = b.label(), after or b.label()
    field, good, code = RETURNS[s.reason]
    word = _load_shared(b, b.field(field))
    b.line(f"br i1 {b.emit(f'icmp {good} i64 {word}, {abi.STATUS_OK if field == STATUS else 0}')}, label %{after}, "
           f"label %{leave}, !prof !2")
    b.begin(leave)
    if b.is_entry:
        b.leave_main(code)
    else:
        b.line("ret void")
    b.begin(after)


def commit(b: BodyEmitter, s: Commit) -> None:
    """From here on the call is not cancelled any more; it returns if it has been before."""
    threads, cancel = b.module.target.has_threads, b.field(CANCEL)
    if threads:
        pair = b.emit(f"cmpxchg ptr {cancel}, i64 0, i64 {abi.COMMITTED} monotonic monotonic, align 8")
        was = b.emit(f"extractvalue {{ i64, i1 }} {pair}, 0")
    else:
        was = _load_shared(b, cancel)
    leave, after = b.label(), b.label()
    b.line(f"br i1 {b.emit(f'icmp sle i64 {was}, 0')}, label %{after}, label %{leave}, !prof !2")
    b.begin(leave)
    b.leave_main(abi.RETURN_CANCELLED)
    b.begin(after)
    if not threads:
        b.line(f"store volatile i64 {abi.COMMITTED}, ptr {cancel}, align 8")


def stamp(b: BodyEmitter, s: Stamp) -> None:
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


def finish_main(b: BodyEmitter) -> None:
    return_if(b, ReturnIf("failed"))
    b.leave_main(abi.RETURN_OK)


def leave_if_cancelled(b: BodyEmitter, after: str | None = None) -> None:
    """The function returns early if the call was cancelled; goes on in the block `after`."""
    return_if(b, ReturnIf("cancelled"), after)
