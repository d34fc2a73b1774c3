"""Programs in child processes, so that a crash is a finding and not the end."""
from __future__ import annotations

import faulthandler
import os
import pickle
import selectors
import signal
import time
from collections.abc import Callable, Iterator
from gc import freeze

from tests.random.check import Outcome, outcome, poison_memory

# seconds after which a program counts as one that never ends, and in which it is looked at
HANGS, TICK = 60.0, 1.0
RECYCLED = 400                      # programs that one process runs: code that was loaded stays in memory


class Worker:
    """A child process that runs programs first, first + step, … of a seed and sends an outcome for each."""

    def __init__(self, seed: int, first: int, step: int):
        self.step, self.index, self.waited = step, first, 0.0
        self._buffer = b""
        self.pipe, theirs = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(self.pipe)
            _work(theirs, seed, first, step)
        os.close(theirs)

    def read(self) -> Iterator[tuple[int, Outcome]]:
        """What has come: (index, outcome) of programs that ended. At the end of the pipe that of the program which
        killed the worker."""
        data = os.read(self.pipe, 1 << 16)
        self._buffer += data
        while len(self._buffer) >= 8 and len(self._buffer) >= 8 + (size := int.from_bytes(self._buffer[:8], "little")):
            index, result = pickle.loads(self._buffer[8:8 + size])
            self._buffer = self._buffer[8 + size:]
            self.index, self.waited = index + self.step, 0.0
            yield index, result
        if not data:
            yield from self._ended()

    def _ended(self) -> Iterator[tuple[int, Outcome]]:
        os.close(self.pipe)
        status = os.waitpid(self.pid, 0)[1]
        self.pid = 0
        if status:
            yield self.index, killed(status)
            self.index += self.step

    @property
    def ended(self) -> bool:
        return not self.pid

    def wait(self, seconds: float) -> None:
        """So long was waited for it, again; it is stopped when its program has had its time. A machine that stood
        still counts as a moment."""
        self.waited += min(seconds, 2 * TICK)
        if self.waited > HANGS:
            os.kill(self.pid, signal.SIGKILL)

    def stop(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            os.close(self.pipe)
            self.pid = 0


def run_all(seed: int, jobs: int, until: Callable[[], bool], first: int = 0) -> Iterator[tuple[int, Outcome]]:
    """Outcomes of programs first, first + 1, … by `jobs` processes at once until `until()` says so."""
    workers = [Worker(seed, first + i, jobs) for i in range(jobs)]
    try:
        while not until():
            with selectors.DefaultSelector() as ready:
                for i, w in enumerate(workers):
                    ready.register(w.pipe, selectors.EVENT_READ, i)
                start = time.monotonic()
                events = ready.select(timeout=TICK)
                waited = time.monotonic() - start
            for w in workers:
                w.wait(waited)
            for key, _ in events:
                yield from workers[key.data].read()
            for i, w in enumerate(workers):
                if w.ended:
                    workers[i] = Worker(seed, w.index, jobs)
    finally:
        for w in workers:
            w.stop()


def in_child(work: Callable[[], Outcome], seconds: float = HANGS) -> Outcome:
    """The outcome of `work`, done in a child process."""
    pipe, theirs = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(pipe)
        _guarded(lambda: _send(theirs, work()))
    os.close(theirs)
    deadline = time.monotonic() + seconds
    data = b""
    with selectors.DefaultSelector() as ready:
        ready.register(pipe, selectors.EVENT_READ)
        while ready.select(timeout=max(deadline - time.monotonic(), 0)):
            part = os.read(pipe, 1 << 16)
            data += part
            if not part:
                break
        else:
            os.kill(pid, signal.SIGKILL)
    os.close(pipe)
    status = os.waitpid(pid, 0)[1]
    return killed(status) if status else pickle.loads(data[8:])


def killed(status: int) -> Outcome:
    """The outcome of a program that ended its process."""
    name = f"exit {os.waitstatus_to_exitcode(status)}"
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
    text = "does not end" if name == "SIGKILL" else name
    return Outcome("crashed", text, text)


def _work(pipe: int, seed: int, first: int, step: int) -> None:
    """The child: never returns."""
    def programs():
        poison_memory()
        freeze()                        # the garbage collector need not visit all modules again and again
        for index in range(first, first + step * RECYCLED, step):
            _send(pipe, (index, outcome(seed, index)))
    _guarded(programs)


def _guarded(work: Callable[[], None]) -> None:
    code = 1
    faulthandler.disable()              # the parent tells of a crash
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        work()
        code = 0
    except BrokenPipeError:
        pass
    finally:
        os._exit(code)


def _send(pipe: int, what) -> None:
    data = pickle.dumps(what)
    data = len(data).to_bytes(8, "little") + data
    while data:
        data = data[os.write(pipe, data):]
