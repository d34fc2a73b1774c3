"""Vector clocks: whether the memory orders of atomic accesses order the plain ones."""
from __future__ import annotations

from collections.abc import Mapping

ACQUIRES, RELEASES = ("acquire", "acq_rel", "seq_cst"), ("release", "acq_rel", "seq_cst")


class HappensBefore:
    """Vector clocks: of threads, and of what was released at addresses. AssertionError for two accesses of one word by
    two threads, not both atomic and one a write, that are not ordered."""

    def __init__(self):
        self._clocks: dict[int, dict[int, int]] = {}
        self._released: dict[int, dict[int, int]] = {}
        self._seen: dict[int, dict[int, int]] = {}          # what a thread would acquire with a fence
        # Of each word: (thread, whether it wrote, whether atomically) -> the thread's clock.
        self._accesses: dict[int, dict[tuple[int, bool, bool], int]] = {}

    def started(self, parent: int, child: int) -> None:
        _join(self._clock(child), self._clock(parent))
        self._tick(parent)

    def fence(self, thread: int) -> None:
        _join(self._clock(thread), self._seen.get(thread, {}))

    def read(self, thread: int, address: int, order: str | None) -> None:
        if order is not None:
            released = self._released.get(address, {})
            _join(self._clock(thread) if order in ACQUIRES else self._seen.setdefault(thread, {}), released)
        self._check(thread, address, False, order is not None)

    def write(self, thread: int, address: int, order: str | None) -> None:
        self._check(thread, address, True, order is not None)
        if order is not None:
            self._released[address] = dict(self._clock(thread)) if order in RELEASES else {}
            self._tick(thread)

    def update(self, thread: int, address: int, order: str) -> None:
        """A read and a write at once: what was released before stays released."""
        before = self._released.get(address, {})
        self.read(thread, address, order)
        self.write(thread, address, order)
        _join(self._released[address], before)

    def _check(self, thread: int, address: int, writes: bool, atomic: bool) -> None:
        clock, accesses = self._clock(thread), self._accesses.setdefault(address & ~3, {})
        for (other, wrote, atomically), when in accesses.items():
            if other != thread and (writes or wrote) and not (atomic and atomically) and clock.get(other, 0) < when:
                raise AssertionError(f"threads {other} and {thread} race for the word at {address}")
        accesses[thread, writes, atomic] = clock[thread]

    def _clock(self, thread: int) -> dict[int, int]:
        return self._clocks.setdefault(thread, {thread: 1})

    def _tick(self, thread: int) -> None:
        self._clock(thread)[thread] += 1


def _join(clock: dict[int, int], other: Mapping[int, int]) -> None:
    for thread, time in other.items():
        clock[thread] = max(clock.get(thread, 0), time)
