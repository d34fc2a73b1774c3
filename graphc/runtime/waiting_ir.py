"""Calls that may wait: what Python does where the fast entry gives up.

All that such a call takes, the state's lock and a frame, is taken and given back by one native function, so that
nothing is left taken when an exception arrives between two steps of Python. It lets other Python threads go on while it
waits and while the program runs; frames and the record of the call change hands while the GIL is held.
"""
from __future__ import annotations

from graphc.codegen.abi import RETURN_CANCELLED, RETURN_OK, Context
from graphc.codegen.routines.routine import RoutineBody, routine
from graphc.codegen.routines.values import I32, I64, RELAXED
from graphc.runtime.entry_ir import (
    fill_context,
    gc_push_frame,
    gc_wrote,
    is_current,
    take_frame,
    try_lock,
    try_unlock,
)
from graphc.runtime.entry_layout import (
    BUSY, NO_FRAME, WAIT_MS, CallRecord, EntryRecord, FrameMemory, FreeFrames, LockMemory)
from graphc.runtime.float_control import gc_run
from graphc.runtime.lock_ir import await_lock, lock_awaited
from graphc.runtime.python_api import PyEval_RestoreThread, PyEval_SaveThread
from graphc.runtime.system import Pointers, madvise, now

MADV_DONTNEED = 4


@routine
def gc_call_waiting(f: RoutineBody, d: EntryRecord, inputs: Pointers, outputs: Pointers, call: CallRecord) -> I32:
    """One call: 0, or why the program left early; BUSY when the lock could not be had for a while, NO_FRAME when no
    frame is free, RETURN_CANCELLED when the call was cancelled. Derived values are made first if the state has
    changed."""
    lock = d.lock.value
    with f.if_(~try_lock(f, lock)):
        waiter = PyEval_SaveThread(f)
        await_lock(f, lock, WAIT_MS)
        PyEval_RestoreThread(f, waiter)
        f.return_if(~lock_awaited(f, lock), BUSY)
    own = call.own.value
    frame = f.variable(FrameMemory, own)
    with f.if_(own.is_null()):
        frame.value = take_frame(f, d)
        with f.if_(frame.value.is_null()):
            try_unlock(f, lock)
            f.return_(NO_FRAME)
    fill_context(f, d, frame.value, inputs, outputs)
    code = f.variable(I32, RETURN_CANCELLED)
    with f.if_(call.cancelled.value == 0):
        code.value = run_cancellable(f, d, lock, frame.value, call)
    with f.if_(own.is_null()):
        gc_push_frame(f, d.frames.value, frame.value)
    try_unlock(f, lock)
    return code.value


@routine
def run_cancellable(f: RoutineBody, d: EntryRecord, lock: LockMemory, ctx: FrameMemory, call: CallRecord) -> I32:
    """The program, derived values first; other Python threads go on meanwhile, and may cancel it."""
    call.context.value = ctx
    thread = PyEval_SaveThread(f)
    code = f.variable(I32, RETURN_OK)
    with f.if_(~is_current(f, d, lock)):
        code.value = derive(f, d, lock, ctx)
    with f.if_(code.value == RETURN_OK):
        start = now(f)
        code.value = gc_run(f, d.main.value, ctx)
        call.duration.value = now(f) - start
        code.value = unless_cancelled(f, ctx, code.value)
    PyEval_RestoreThread(f, thread)
    call.context.value = None
    call.status.value = ctx.status.value
    gc_wrote(f, d, lock)
    return code.value


@routine
def derive(f: RoutineBody, d: EntryRecord, lock: LockMemory, ctx: Context) -> I32:
    """Makes the derived values of the state's present version; the memory of what passes is the system's again."""
    ran = gc_run(f, d.prepare.value, ctx)
    with f.if_(d.passing_bytes.value > 0):
        madvise(f, d.passing.value, d.passing_bytes.value, MADV_DONTNEED)
    code = unless_cancelled(f, ctx, ran)
    with f.if_(code == RETURN_OK):
        d.derived.value.seen.value = lock.version.value
    return code


@routine
def unless_cancelled(f: RoutineBody, ctx: Context, code: I32) -> I32:
    """`code`; or that of a cancelled call, whose last kernel may have left out tiles."""
    was_asked = ctx.cancel.load(RELAXED) > 0
    return f.select(was_asked & (code == RETURN_OK), RETURN_CANCELLED, code)


@routine
def gc_cancel(f: RoutineBody, call: CallRecord) -> None:
    """Asks the call to come back, unless it has begun to write state. GIL held, as when its context comes and goes."""
    call.cancelled.value = 1
    ctx = call.context.value
    with f.if_(~ctx.is_null()):
        ctx.cancel.compare_exchange(0, 1, RELAXED)


@routine
def gc_add_frame(f: RoutineBody, free: FreeFrames, frame: FrameMemory, bound: I64) -> I32:
    """Puts a new frame among the free ones unless there are `bound` already; whether it did."""
    made = free.made.value
    f.return_if(made >= bound, 0)
    free.made.value = made + 1
    gc_push_frame(f, free, frame)
    return f.given(1, I32)
