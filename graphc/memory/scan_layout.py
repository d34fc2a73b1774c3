"""How a scan keeps its carries in memory: what the memory plan and the generated loop must agree on."""
from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple, Protocol, Self, TypeVar, overload

from graphc.ir.dims import Dim, Dims
from graphc.ir.ops.control import Scan
from graphc.records import dataclass


class LoopIndex(Protocol):
    """The number of a trip that is known when the program runs."""
    def __add__(self, other: Dim, /) -> Self: ...
    def __mul__(self, other: int, /) -> Self: ...


Index = TypeVar("Index", bound=LoopIndex)


class CarryWindow(NamedTuple):
    """Where a stacked output lies: in the slots of a carry, from one of them on."""
    carry: int
    first: int


@dataclass(frozen=True)
class ScanLayout:
    """Carry c has `slots[c]` slots in memory, one of which is read and another written in each trip.

    Two slots alternate. A carry that the body changes where it lies has one. Where a per-step output is the carry
    itself, before or after the step, there are length + 1 slots and stacked output j is the window `windows[j]` of
    them; None for an output with memory of its own.
    """
    length: Dim
    reverse: bool
    slots: Dims
    windows: tuple[CarryWindow | None, ...]
    single: frozenset[int] = frozenset()

    def first(self, carry: int) -> Dim:
        """The slot of the initial value."""
        return self.length if self._history(carry) and self.reverse else 0

    def last(self, carry: int) -> Dim:
        """The slot of the final value."""
        if self._history(carry):
            return 0 if self.reverse else self.length
        return 0 if self.in_place(carry) else self.length % 2

    def in_place(self, carry: int) -> bool:
        return carry in self.single

    def _history(self, carry: int) -> bool:
        return any(w is not None and w.carry == carry for w in self.windows)

    @overload
    def slot(self, carry: int, trip: Dim, parity: Dim, after: bool) -> Dim: ...

    @overload
    def slot(self, carry: int, trip: Index, parity: Index, after: bool) -> Index | int: ...

    def slot(self, carry: int, trip: Dim | Index, parity: Dim | Index, after: bool) -> Dim | Index:
        """The slot read (or, `after`, written) in a trip; `parity` is trip modulo 2. Works on ints and on loop
        indices."""
        if self.in_place(carry):
            return 0
        if not self._history(carry):
            return parity * -1 + 1 if after else parity
        step = trip + 1 if after else trip
        return step * -1 + self.length if self.reverse else step


def scan_layout(op: Scan, in_place: Collection[tuple[int, int]] = ()) -> ScanLayout:
    """`in_place`: pairs (result, argument) of the body that are carries changed where they lie."""
    old = {v: c for c, v in enumerate(op.body.inputs[:op.carries])}
    new = {v: c for c, v in reversed(list(enumerate(op.body.outputs[:op.carries])))}
    windows: list[CarryWindow | None] = []
    for v in op.body.outputs[op.carries:]:
        if v in new:
            windows.append(CarryWindow(new[v], 0 if op.reverse else 1))
        elif v in old:
            windows.append(CarryWindow(old[v], 1 if op.reverse else 0))
        else:
            windows.append(None)
    kept = {w.carry for w in windows if w}
    single = frozenset(c for c, _ in in_place)
    slots = tuple(op.length + 1 if c in kept else 1 if c in single else 2 for c in range(op.carries))
    return ScanLayout(op.length, op.reverse, slots, tuple(windows), single)
