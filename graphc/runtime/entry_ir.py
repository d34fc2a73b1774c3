"""The Python entry: a METH_FASTCALL function that serves every executable by reading its record.

`self` is a tuple whose first item is the record's address. Each argument is checked against its spec through the public
layout of PyArrayObject, or, of other libraries' arrays, through the C functions that DLPack lets their types offer;
whatever is not exactly as expected goes to the Python callable `slow` with the same arguments, which converts or
complains. Frames (context, arena, scratch) are taken and given back while the GIL is held, so that their free list
needs no atomics.
"""
from __future__ import annotations

from graphc.codegen.abi import RETURN_OK, STATUS_OK, Context
from graphc.codegen.routines.routine import RoutineBody, inlined, routine
from graphc.codegen.routines.values import ACQUIRE, I1, I32, I64, Global, Ptr
from graphc.runtime.arrays_ir import (
    Objects, gc_data_pointers, drop, given_outputs, input_pointers, make_outputs, result)
from graphc.runtime.entry_layout import BUSY, EntryRecord, FrameMemory, FreeFrames, LockMemory
from graphc.runtime.float_control import gc_run
from graphc.runtime.lock_ir import FREE, HELD, gc_unlock
from graphc.runtime.python_api import (
    PyEval_RestoreThread,
    PyEval_SaveThread,
    PyLong_AsVoidPtr,
    PyObject_CallFunction,
    PyObject_Vectorcall,
    PyTuple_GetItem,
    Py_IncRef,
)
from graphc.runtime.system import I64s, Pointers

FAILURE_FORMAT = Global("failure.format", b"Li\0")


@routine
def gc_entry(f: RoutineBody, self: Ptr, args: Objects, nargs: I64, names: Ptr) -> Ptr:
    """A call from Python: its result, or null and an exception."""
    d = EntryRecord.of(PyLong_AsVoidPtr(f, PyTuple_GetItem(f, self, 0)))
    is_usual = (nargs == d.n_inputs.value) & (d.enabled.value != 0)
    with f.if_(is_usual):
        inputs = f.array(Ptr, nargs)
        with f.if_(input_pointers(f, d, args, nargs, inputs)):
            _fast(f, d, args, inputs, names)
    return PyObject_Vectorcall(f, d.slow.value, args, nargs, names)


def _fast(f: RoutineBody, d: EntryRecord, args: Objects, inputs: Pointers, names: Ptr) -> None:
    """Returns, unless the outputs are given in an unusual way or the call would have to wait."""
    count = d.n_outputs.value
    outs, tables, status = Objects.of(f.array(Ptr, count)), (inputs, f.array(Ptr, count)), f.array(I64, 1)
    with f.if_(names.is_null()):
        made = make_outputs(f, d, outs, count)
        with f.if_(made != count):
            drop(f, outs, made)
            f.return_(None)
        gc_data_pointers(f, outs, count, tables[1])
        code = gc_call(f, d, *tables, status)
        with f.if_(code == RETURN_OK):
            f.return_(result(f, d, outs, count))
        drop(f, outs, count)
        _raise(f, d, code, status)
    with f.else_():
        out = args[d.n_inputs.value].value
        with f.if_(given_outputs(f, d, out, names, outs, *tables)):
            code = gc_call(f, d, *tables, status)
            with f.if_(code == RETURN_OK):
                Py_IncRef(f, out)
                f.return_(out)
            _raise(f, d, code, status)


def _raise(f: RoutineBody, d: EntryRecord, code: I32, status: I64s) -> None:
    """Raises what a failed call calls for; one that must wait goes on."""
    with f.if_(code != BUSY):
        f.return_(PyObject_CallFunction(f, d.failed.value, FAILURE_FORMAT, status[0].value, code))


@routine
def gc_call(f: RoutineBody, d: EntryRecord, inputs: Pointers, outputs: Pointers, status: I64s) -> I32:
    """One call of compiled code, GIL held: takes lock and frame, gives them back, in one step as far as Python's signal
    handlers can see. Returns gc_main's code, and the status word; or BUSY when another call has the lock or all frames,
    or the derived values are not those of the state as it is now."""
    lock = d.lock.value
    with f.if_(~lock.is_null()):                # as `try_lock`, without a value in between
        f.return_if(lock.word.compare_exchange(FREE, HELD, ACQUIRE) != FREE, BUSY)
    with f.if_(is_current(f, d, lock)):
        ctx = take_frame(f, d)
        with f.if_(~ctx.is_null()):
            fill_context(f, d, ctx, inputs, outputs)
            code = f.variable(I32, 0)
            with f.if_(d.release.value == 0):
                code.value = gc_run(f, d.main.value, ctx)
            with f.else_():
                thread = PyEval_SaveThread(f)
                code.value = gc_run(f, d.main.value, ctx)
                PyEval_RestoreThread(f, thread)
            status[0].value = ctx.status.value
            gc_push_frame(f, d.frames.value, ctx)
            gc_wrote(f, d, lock)
            try_unlock(f, lock)
            f.return_(code.value)
    try_unlock(f, lock)
    return f.given(BUSY, I32)


@routine
def gc_call_arrays(f: RoutineBody, d: EntryRecord, args: Objects, outs: Objects, status: I64s) -> I32:
    """gc_call on arrays that are known to fit."""
    nargs, count = d.n_inputs.value, d.n_outputs.value
    inputs, outputs = f.array(Ptr, nargs), f.array(Ptr, count)
    gc_data_pointers(f, args, nargs, inputs)
    gc_data_pointers(f, outs, count, outputs)
    return gc_call(f, d, inputs, outputs, status)


# ---- steps of a call
@inlined
def fill_context(f: RoutineBody, d: EntryRecord, ctx: Context, inputs: Pointers, outputs: Pointers) -> None:
    """What a call leaves in its context."""
    ctx.inputs.value, ctx.outputs.value, ctx.sizes.value = inputs, outputs, d.sizes.value
    ctx.status.value, ctx.cancel.value = STATUS_OK, 0


@inlined
def is_current(f: RoutineBody, d: EntryRecord, lock: LockMemory) -> I1:
    """Whether what the program derives from the state, if anything, was derived from its present version."""
    f.return_if(d.derives.value == 0, True)
    return lock.version.value == d.derived.value.seen.value


@routine
def gc_wrote(f: RoutineBody, d: EntryRecord, lock: LockMemory) -> None:
    """A program that writes state makes a new version of it. What it derives itself stays current where it depends only
    on what it does not write."""
    f.return_if(d.writes.value == 0)
    version, derived = lock.version.value, d.derived.value
    seen = derived.seen.value
    lock.version.value = version + 1
    derived.seen.value = f.select((version == seen) & (d.anew.value == 0), version + 1, seen)


@inlined
def try_lock(f: RoutineBody, lock: LockMemory) -> I1:
    """Whether the lock, if there is one, could be had at once."""
    f.return_if(lock.is_null(), True)
    return lock.word.compare_exchange(FREE, HELD, ACQUIRE) == FREE


@routine
def try_unlock(f: RoutineBody, lock: LockMemory) -> None:
    """Gives the lock back, if there is one."""
    with f.if_(~lock.is_null()):
        gc_unlock(f, lock)


@inlined
def take_frame(f: RoutineBody, d: EntryRecord) -> FrameMemory:
    """A free frame that has memory enough, or null."""
    free = d.frames.value
    first = free.first.value
    f.return_if(first.is_null(), None)
    is_small = (first.arena_bytes.value < d.arena_bytes.value) | (first.scratch_bytes.value < d.scratch_bytes.value)
    f.return_if(is_small, None)
    free.first.value = FrameMemory.of(first.next.value)
    return first


@routine
def gc_pop_frame(f: RoutineBody, free: FreeFrames) -> FrameMemory:
    """A free frame, or null."""
    first = free.first.value
    with f.if_(~first.is_null()):
        free.first.value = FrameMemory.of(first.next.value)
    return first


@routine
def gc_push_frame(f: RoutineBody, free: FreeFrames, frame: FrameMemory) -> None:
    """A frame is free."""
    frame.next.value = free.first.value
    free.first.value = frame


@routine
def gc_drop_frames(f: RoutineBody, free: FreeFrames, arena_bytes: I64, scratch_bytes: I64) -> None:
    """Free frames with less memory leave the list."""
    kept, at = f.variable(FrameMemory, None), f.variable(FrameMemory, free.first.value)
    with f.while_(lambda: ~at.value.is_null()):
        frame = at.value
        at.value = FrameMemory.of(frame.next.value)
        is_small = (frame.arena_bytes.value < arena_bytes) | (frame.scratch_bytes.value < scratch_bytes)
        with f.if_(is_small):
            frame.dropped.value = 1
            free.made.value = free.made.value - 1
        with f.else_():
            frame.next.value = kept.value
            kept.value = frame
    free.first.value = kept.value
