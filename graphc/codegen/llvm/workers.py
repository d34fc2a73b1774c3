"""Processes that compile parts of programs beside this one: llvmlite holds one lock during each call of LLVM, so that
threads do not help.

A worker is Python with nothing but llvmlite (`object_code`). It never sees the user's program: it reads texts from a
pipe and writes object code. A thread of this process feeds it, ends it when nothing came for a while or before this
process forks, and takes it for lost when anything goes wrong; what it has not compiled is compiled here then, to the
same bytes. It ends with this process, because its pipe does.
"""
from __future__ import annotations

import os
import re
import select
import signal
import sys
import time
from _thread import start_new_thread
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from threading import Lock

from graphc.codegen.abi import ENTRIES
from graphc.codegen.llvm import jit, object_code
from graphc.codegen.llvm.lazy import llvmlite_folder, llvmlite_version
from graphc.schedule.target import Target

IDLE_SECONDS = 2.0             # after which a worker ends
START_SECONDS = 20.0            # within which it is ready, or never
PATIENCE_SECONDS = 60.0         # how long this process waits for a part, before it compiles that itself
POLL_SECONDS = 0.05
LEAVE_SECONDS = 1.0             # within which an idle worker ends
MOST_FAILURES = 3               # of workers, after which this process starts none
MOST_WORKERS = 64
INTERPRETER = re.compile(r"(python|pypy)[\d.]*t?\Z")


def compile_parts(texts: Sequence[str], target: Target, wanted: Callable[[], int]) -> tuple[bytes, ...]:
    """The object code of each part of a program. `wanted`: how many workers may take part now."""
    with parts_begun(texts, target, wanted) as finished:
        return finished()


@contextmanager
def parts_begun(texts: Sequence[str], target: Target,
                wanted: Callable[[], int]) -> Iterator[Callable[[], tuple[bytes, ...]]]:
    """The same, of which workers do some meanwhile: gives a function that does what is left, and waits for them.
    Workers and this process begin with the largest: one that is begun last would be waited for."""
    if len(texts) == 1:
        yield lambda: (jit.compile_object(texts[0], target),)
        return
    ordered = sorted(texts, key=len, reverse=True)
    jobs = {text: CompileJob(text, jit.machine_of(target)) for text in ordered}
    asked: list[int] = []

    def ask() -> None:
        """Workers begin as soon as there are cores for them, once for each program."""
        if not asked and (count := min(wanted(), len(texts) - 1)) > 0:
            asked.append(count)
            WORKERS.start(count)
            for job in reversed(jobs.values()):
                WORKERS.jobs.put(job)
    WORKERS.programs.add(id(jobs))
    try:
        ask()
        yield lambda: _finished(texts, jobs, target, ask)
    finally:                                        # also after Ctrl-C no worker begins another of them
        for job in jobs.values():
            job.take()
        WORKERS.programs.discard(id(jobs))


def begun(text: str, target: Target, wanted: Callable[[], int]) -> Callable[[], bytes]:
    """A function that gives the object code of one text, which a worker compiles meanwhile if there is a core for it.
    """
    job = CompileJob(text, jit.machine_of(target))
    if wanted() > 0:
        WORKERS.start(1)
        WORKERS.jobs.put(job)
    return lambda: (b"" if job.take() else job.wait()) or jit.compile_object(text, target)


@contextmanager
def expected() -> Iterator[None]:
    """Workers that run stay meanwhile: a program's parts will come."""
    program = object()
    WORKERS.programs.add(id(program))
    try:
        yield
    finally:
        WORKERS.programs.discard(id(program))


def _finished(texts: Sequence[str], jobs: Mapping[str, CompileJob], target: Target,
              ask: Callable[[], None]) -> tuple[bytes, ...]:
    made, last = dict[str, bytes](), min(jobs, key=len)
    for text, job in jobs.items():
        if text is not last:
            ask()
        if job.take():
            made[text] = jit.compile_object(text, target)
    for text, job in jobs.items():
        if text not in made:
            made[text] = job.wait() or jit.compile_object(text, target)
    return tuple([made[text] for text in texts])


class CompileJob:
    """A text on its way to object code. Who takes it compiles it; nobody gives that back."""

    def __init__(self, text: str, machine: object_code.Machine) -> None:
        self.request = text, machine, ENTRIES
        self.code = b""
        self.process = os.getpid()
        self._claim, self._done = Lock(), Lock()
        self._done.acquire()

    def take(self) -> bool:
        return self._claim.acquire(blocking=False)

    def finish(self, code: bytes) -> None:
        """`code` is empty where a worker failed."""
        self.code = code
        self._done.release()

    def wait(self) -> bytes:
        """What `finish` is told. Nothing, if it takes too long, or a signal handler has forked: the worker is the
        parent's."""
        end = time.monotonic() + PATIENCE_SECONDS
        # A signal that another thread took, or that came just before, does not end a wait.
        while not self._done.acquire(timeout=POLL_SECONDS):
            if time.monotonic() > end or os.getpid() != self.process:
                return b""
        return self.code


class CompileWorkers:
    """The workers of this process, and what they are to do. Each has a slot, which its thread holds."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.jobs: SimpleQueue[CompileJob | None] = SimpleQueue()       # None: one worker ends
        self.programs: set[int] = set()             # those that are being compiled
        self.failures = 0
        self.handles: set[int] = set()              # of all pipes
        self._slots = [Lock() for _ in range(MOST_WORKERS)]

    @property
    def running(self) -> int:
        return sum([slot.locked() for slot in self._slots])

    def start(self, count: int) -> None:
        """Sees that so many run, where that is possible."""
        if not _is_python(sys.executable):
            return
        for slot in self._slots[:count]:
            if self.failures < MOST_FAILURES and slot.acquire(blocking=False):
                try:
                    start_new_thread(self._feed, (slot,))
                except BaseException as error:
                    slot.release()
                    if not isinstance(error, RuntimeError):     # no more threads
                        raise

    def _feed(self, slot: Lock) -> None:
        """Gives jobs to one worker until none come any more; then the slot is free."""
        # Signals are for other threads; and a pipe that nobody reads shall not end this process.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        worker = CompileWorker(self.handles)
        try:
            worker.start()
            while job := self._next():
                worker.compile(job)
        except Empty:
            pass
        except (OSError, EOFError, ValueError, MemoryError):
            self.failures += 1
        finally:
            worker.end()
            slot.release()

    def _next(self) -> CompileJob | None:
        """Empty when nothing came for a while, and nothing will."""
        while True:
            try:
                return self.jobs.get(timeout=IDLE_SECONDS)
            except Empty:
                if not self.programs:
                    raise

    def end_idle(self) -> None:
        """Before a fork: `os.wait` shall be about its child. Workers that compile for another thread go on."""
        if self.programs:
            return
        for _ in range(self.running):
            self.jobs.put(None)
        end = time.monotonic() + LEAVE_SECONDS
        while self.running and time.monotonic() < end:
            time.sleep(0.001)

    def forget(self) -> None:
        """In the child of a fork, where the threads are not: the workers go on for the parent alone."""
        for handle in self.handles:
            os.close(handle)
        self.reset()


class CompileWorker:
    """One process. `handles`: where all keep their open pipes."""

    def __init__(self, handles: set[int]) -> None:
        self.handles = handles
        self.process = 0
        self._open: list[int] = []

    def start(self) -> None:
        """OSError when it is not ready in time, EOFError when it ends, ValueError when it is something else."""
        given, self._out = self._pipe()
        self._into, answers = self._pipe()
        program = [sys.executable, "-I", "-S", object_code.__file__, llvmlite_folder()]
        # a group of its own: Ctrl-C of a terminal is for this process
        self.process = os.posix_spawn(program[0], program, os.environ, setpgroup=0, setsigmask=(), file_actions=[
            (os.POSIX_SPAWN_DUP2, given, 0), (os.POSIX_SPAWN_DUP2, answers, 1),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)])
        self._close(given)
        self._close(answers)
        self._expect(object_code.block(object_code.hello(llvmlite_version())))

    def _expect(self, wanted: bytes) -> None:
        """Reads this, and ValueError when anything else comes."""
        said, end = b"", time.monotonic() + START_SECONDS
        ready = select.poll()
        ready.register(self._into, select.POLLIN)
        while said != wanted:
            if not ready.poll(max(0.0, end - time.monotonic()) * 1000):
                os.kill(self.process, signal.SIGKILL)
                raise TimeoutError
            said += object_code.some(self._into, len(wanted) - len(said))
            if not wanted.startswith(said):
                raise ValueError("another program")

    def compile(self, job: CompileJob) -> None:
        """OSError or EOFError when the process has ended."""
        if not job.take():
            return
        code = b""
        try:
            object_code.write(self._out, object_code.request(*job.request))
            code = object_code.read(self._into)
        finally:
            job.finish(code)

    def end(self) -> None:
        for handle in list(self._open):
            self._close(handle)
        if self.process:
            with suppress(OSError):                 # others may have waited for it
                os.waitpid(self.process, 0)

    def _pipe(self) -> tuple[int, int]:
        made = os.pipe()
        self.handles.update(made)
        self._open += made
        return made

    def _close(self, handle: int) -> None:
        self._open.remove(handle)
        self.handles.discard(handle)
        os.close(handle)


def _is_python(executable: str) -> bool:
    """Whether this is an interpreter, and not a program with Python in it."""
    return bool(INTERPRETER.match(os.path.basename(executable or ""))) and "frozen" not in vars(sys)


WORKERS = CompileWorkers()
os.register_at_fork(before=WORKERS.end_idle, after_in_child=WORKERS.forget)
