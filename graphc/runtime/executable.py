"""A compiled function in this process, and how it is called."""
from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import NoReturn

import numpy as np

from graphc.codegen.abi import MAIN, PREPARE, RETURN_CANCELLED, RETURN_OK, read_failure
from graphc.codegen.llvm.host import lacking
from graphc.codegen.llvm.jit import load_object
from graphc.errors import GraphError, InternalError, Loc
from graphc.ir.dims import Dim, Dims, static_dim
from graphc.ir.size_formulas import Formulas, formulas
from graphc.records import dataclass
from graphc.runtime.arguments import bind_arguments, bind_outputs
from graphc.runtime.entry import Descriptor, make_entry
from graphc.runtime.entry_layout import BUSY, NO_FRAME, CallRecord, DerivedVersion
from graphc.runtime.frame import Frame, FrameList, Layout
from graphc.runtime.interrupt import call_interruptibly
from graphc.runtime.lock import StateLock, attempts
from graphc.runtime.memory import address, aligned, round_up
from graphc.runtime.native import native
from graphc.runtime.pool import default_threads, pool
from graphc.runtime.signature import Signature
from graphc.runtime.state_table import StateTable
from graphc.schedule.target import Target

RELEASE_NS = 5_000              # calls shorter than this keep the GIL
# Calls longer than this are made so that Ctrl-C reaches them; below the second that is promised, as machines get busy.
LONG_NS = 200_000_000
COLD = 4                        # how much slower than later ones a first call may be
TRIALS = 2                      # calls that are timed before the native entry takes over
MIN_FRAMES = 4                  # calls in flight at once that one executable allows at least


@dataclass(frozen=True)
class Program:
    """What the compiler makes and a cache may keep: code, signature and sizes in bytes.

    `work_ns`: estimated duration of one call; 0 when unknown. `varies`: it depends on data, and `work_ns` is about the
    greatest. `target`: what the code was made for; when given, a machine that cannot run it refuses to load it.
    `sizes`: of a program that serves all sizes of named dimensions, what its code needs of them; then signature, arena
    and scratch are formulas too, and `at` gives the program for a call.
    `derived`: sizes of the arrays, after those of the state in its table, that `gc_prepare` makes from them; `passing`
    are the numbers of those that nothing else reads, and which may lie in the same memory, one after the other; `idle`
    those of the state's arrays that only `gc_prepare` reads. `writes`: it changes state; `anew`: what it derives
    depends on that.
    """
    object_code: bytes
    signature: Signature
    arena_bytes: Dim = 0
    scratch_bytes: Dim = 0      # per thread
    consts: memoryview = memoryview(b"")        # used where it lies if that is aligned
    work_ns: int = 0
    target: Target | None = None
    derived: tuple[int, ...] = ()
    passing: frozenset[int] = frozenset()
    idle: frozenset[int] = frozenset()
    writes: bool = False
    varies: bool = False
    sizes: Dims = ()
    kernels: tuple[bytes, ...] = ()             # more object code, which `object_code` calls
    anew: bool = False

    @property
    def objects(self) -> tuple[bytes, ...]:
        """All object code."""
        return self.object_code, *self.kernels

    @cached_property
    def _formulas(self) -> Formulas:
        return formulas((self.arena_bytes, self.scratch_bytes, *self.sizes))

    def at(self, sizes: Mapping[str, int]) -> Program:
        """The program where the named dimensions have these sizes."""
        arena, scratch, *needed = self._formulas(sizes)
        return replace(self, signature=self.signature.at(sizes), arena_bytes=arena, scratch_bytes=scratch,
                       sizes=tuple(needed))


class Resident:
    """What the executables of one program share, whatever sizes they are for: code, constants, the table of arrays, and
    memory for calls in flight."""

    def __init__(self, program: Program, state: StateTable, frames: int):
        """`frames`: calls in flight at once, at most."""
        self.state, self.frames = state, FrameList(frames)
        self.loaded = load_object(program.object_code, (MAIN, PREPARE) if program.derived else (MAIN,),
                                  kernels=program.kernels)
        self.consts = aligned(np.frombuffer(program.consts, np.uint8))
        self.passing: np.ndarray | None = None
        self.version = np.full(DerivedVersion.size // 8, -1, np.int64)


class Executable:
    """`Program` loaded. `call(*arrays)` is the callable for users; several Python threads may call at once.

    threads: how many take part in a call, the caller included (0: `default_threads()`); honoured exactly, also beyond
             the cores.
    state:   C-contiguous arrays. With a lock, or when the program writes, they are kept alive, read and written in
             place. Otherwise the executable keeps what its calls need: copies, or what it derives from them now. A
             `StateTable` is one of such an executable.
    lock:    held during each call when given; share it between all executables of one state. A program that derives
             and writes needs it.
    quiet:   no other executable caches values derived from this state, so calls need not bump its version.
    on_failure(node, index): gives the exception to raise when a kernel reports a bad index.
    locate(): the user's line, for errors about arguments.
    profile: where an instrumented program keeps its clocks, i64 [call sites, 2].
    resident: of another executable of this program, for other sizes.
    """

    def __init__(self, program: Program, threads: int = 0, state: Sequence[np.ndarray] | StateTable = (),
                 lock: StateLock | None = None, on_failure: Callable[[int, int], Exception] | None = None,
                 locate: Callable[[], Loc | None] = lambda: None, quiet: bool = False,
                 profile: np.ndarray | None = None, resident: Resident | None = None):
        self.program, self.signature, self.lock = program, program.signature, lock
        self.threads = threads or default_threads()
        self._on_failure, self._locate = on_failure or _unexplained, locate
        self.resident = resident or self._load(state)
        self._profile = profile
        self._durations: list[int] = []
        scratch = round_up(static_dim(program.scratch_bytes))
        self._layout = Layout(static_dim(program.arena_bytes), scratch, self.threads)
        self._descriptor = Descriptor(self.signature, self.resident.loaded.address(MAIN), lock.address if lock else 0,
                                      self.slow, self._raise, lock is not None and program.writes and not quiet)
        self._descriptor.use(self.resident.frames.address, self._layout.arena_bytes, self._layout.scratch_bytes,
                             np.array(program.sizes, np.int64), self.resident.version)
        if program.derived and lock is not None:
            if self.resident.passing is None:
                self.resident.passing = self.state.passing_memory()
            self._descriptor.derive(self.resident.loaded.address(PREPARE), self.resident.passing, program.anew)
        self.call = make_entry(self._descriptor, self)
        if self.settled and resident is None and self.state is not state:
            self._settle()

    def _load(self, state: Sequence[np.ndarray] | StateTable) -> Resident:
        program, lock = self.program, self.lock
        _check_target(program.target)
        if program.derived and program.writes and lock is None:
            raise InternalError("what is derived from state that changes needs the state's lock, which has its version",
                                "load")
        table = state if isinstance(state, StateTable) else StateTable(state, program.derived, program.passing)
        return Resident(program, table, 1 if lock else max(MIN_FRAMES, default_threads()))

    @property
    def state(self) -> StateTable:
        return self.resident.state

    @property
    def record(self) -> int:
        """The address of the `EntryRecord` of its calls; `call` keeps it alive."""
        return self._descriptor.address

    @property
    def settled(self) -> bool:
        """Whether nobody ever writes the state."""
        return self.lock is None and not self.program.writes

    @property
    def memory_bytes(self) -> dict[str, int]:
        """Bytes of one call in flight, and of the constants."""
        return dict(arena=self._layout.arena_bytes, scratch=self._layout.scratch_bytes * self.threads,
                    consts=len(self.program.consts))

    def release(self) -> None:
        """Gives back the memory that calls in flight have used; the next call takes what it needs."""
        self.resident.frames.drop()

    def renew(self) -> None:
        """The next call makes the derived values anew: quiet calls of another program have changed what they depend
        on."""
        self.resident.version[:] = -1

    def slow(self, *args: object, out: object = None, **named: object) -> object:
        """The call in Python: converts arguments (`bind_arguments`), takes `out=` (`bind_outputs`), names and words
        every mistake."""
        try:
            inputs, outputs = self._bound(args, out, named)
        except GraphError as error:
            raise error.at(self._locate()) from None
        self.run(inputs, outputs)
        return self.signature.pack(outputs) if out is None else out

    def _bound(self, args: Sequence[object], out: object,
               named: Mapping[str, object]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Inputs and outputs as the native code takes them."""
        inputs = bind_arguments(self.signature, args, named)
        if out is None:
            return inputs, [np.empty(spec.type.shape, spec.type.dtype.np) for spec in self.signature.outputs]
        outputs, inputs = bind_outputs(self.signature, out, inputs)
        return inputs, outputs

    def run(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray], threads: int | None = None) -> None:
        """Run on arrays that already have exactly the dtypes and shapes of the signature and are C-contiguous; not
        checked."""
        if self._descriptor.enabled and threads in (None, self.threads):
            status = ctypes.c_int64()
            code = native().call(self._descriptor.address, _objects(inputs), _objects(outputs), ctypes.byref(status))
            if code != BUSY:
                return self._finish(code, status.value)
        call = _Call(self, inputs, outputs, threads or self.threads)
        call_interruptibly(call.run, call.cancel)

    @property
    def _may_be_long(self) -> bool:
        measured = min(self._durations)
        return max(measured, self.program.work_ns if self.program.varies else 0) >= LONG_NS

    @property
    def _releases(self) -> bool:
        """Whether other Python threads may go on meanwhile. First calls run cold: they count fully only where nothing
        is estimated."""
        measured = min(self._durations)
        return (self.program.work_ns or measured) > RELEASE_NS or measured > COLD * RELEASE_NS

    def _settle(self) -> None:
        """Derives what is derived, and lets go what only that needs."""
        if self.program.derived:
            frame = self._new_frame(self._layout)
            frame.prepare(0, 0)
            call_interruptibly(lambda: self._derive(frame), lambda: frame.__setitem__("cancel", 1))
        self.state.settle(self.program.idle)

    def _derive(self, frame: Frame) -> None:
        passing = self.state.passing_memory()       # noqa: F841  lives until the code is back
        code = native().run(self.resident.loaded.address(PREPARE), frame.address)
        self._finish(code, frame["status"])

    def _timed(self, nanoseconds: int) -> None:
        """Learn from a call's duration; after TRIALS calls the native entry takes over, unless calls are long."""
        if len(self._durations) < TRIALS:
            self._durations.append(nanoseconds)
        else:
            self._durations[0] = nanoseconds
        if len(self._durations) == TRIALS:
            self._descriptor.switch(enabled=not self._may_be_long, release=self._releases)

    def _finish(self, code: int, status: int) -> None:
        if code != RETURN_OK:
            self._raise(status, code)

    def _raise(self, status: int, code: int) -> NoReturn:
        failure = read_failure(status)
        if code == RETURN_CANCELLED or failure is None:
            raise KeyboardInterrupt
        raise self._on_failure(*failure)

    def _new_frame(self, layout: Layout) -> Frame:
        workers = pool()
        fixed = dict(parallel=workers.parallel, pool=workers.address, consts=address(self.resident.consts),
                     state=address(self.state.words), profile=0 if self._profile is None else address(self._profile),
                     sizes=address(self._descriptor.sizes))
        if self.program.sizes:
            with suppress(MemoryError):             # where address space is scarce there is room for these sizes
                return Frame(layout.with_room, fixed)
        return Frame(layout, fixed)


class _Call:
    """One call that may wait for the lock and a frame, and be cancelled from another thread at any moment. It keeps
    what native code reads and writes; whatever the call takes, native code gives back (`waiting_ir`)."""

    def __init__(self, owner: Executable, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray], threads: int):
        self.owner, self._arrays, self._tables = owner, (inputs, outputs), (_table(inputs), _table(outputs))
        self._frame = owner._new_frame(replace(owner._layout, threads=threads)) if threads != owner.threads else None
        self._job = np.zeros(CallRecord.size // 8, np.int64)
        self._job[CallRecord.own.offset // 8] = self._frame.address if self._frame else 0

    def run(self) -> None:
        owner, words = self.owner, self._job
        inputs, outputs = map(address, self._tables)
        for _ in attempts(lambda: bool(words[CallRecord.cancelled.offset // 8])):
            code = native().call_waiting(owner._descriptor.address, inputs, outputs, address(words))
            if code == NO_FRAME:
                owner.resident.frames.grow(owner._layout, owner._new_frame)
            elif code != BUSY:
                if code == RETURN_OK:           # what left early says nothing of how long calls are
                    owner._timed(int(words[CallRecord.duration.offset // 8]))
                return owner._finish(code, int(words[CallRecord.status.offset // 8]))

    def cancel(self) -> None:
        native().cancel(address(self._job))


def _check_target(target: Target | None) -> None:
    if target and (missing := lacking(target)):
        raise GraphError(f"code for {target.name} does not run on this machine, which lacks {', '.join(missing)}; "
                         "its stages can be printed with dump; unset GRAPHC_TARGET to run")


def _table(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Their addresses."""
    table = np.empty(len(arrays), np.int64)
    native().addresses(_objects(arrays), len(arrays), address(table))
    return table


def _objects(arrays: Sequence[np.ndarray]) -> ctypes.Array[ctypes.c_void_p]:
    """A table of the array objects themselves, which outlive it."""
    return (ctypes.c_void_p * len(arrays))(*map(id, arrays))


def _unexplained(node: int, index: int) -> Exception:
    return InternalError(f"node {node} reports index {index}", "run")
