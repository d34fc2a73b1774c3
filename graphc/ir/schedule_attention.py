"""The schedule of attention and its gradient taken whole."""
from __future__ import annotations

from dataclasses import dataclass

from graphc.ir.schedule import round_up
from graphc.ir.schedule_nest import ALIGNMENT


@dataclass(frozen=True)
class AttentionSchedule:
    """Blocks of `queries` × `keys`; scores are kept transposed, mr keys × vectors of queries in a register tile.

    serial: all on the caller. far: keys and values of a head (of the gradient: their sums) do not stay in L2. Of the gradient: the queries
    of a head are dealt to so many `parts`, each with sums of its own for the gradients of keys and values: `partials` elements in all.
    """
    queries: int
    keys: int
    mr: int
    vectors: int
    lanes: int
    serial: bool
    far: bool = False
    parts: int = 1
    partials: int = 0
    itemsize: int = 4

    @property
    def shared_scratch(self) -> int:
        """Bytes of memory that the threads share."""
        return round_up(self.partials * self.itemsize, ALIGNMENT)

    def sum_rows(self, keys: int) -> int:
        """Rows of the gradients of `keys` keys, with room for a last register tile."""
        return keys + self.mr - 1

    @property
    def nr(self) -> int:
        return self.vectors * self.lanes

    def __str__(self) -> str:
        parts = f", {self.parts} parts, partials {self.shared_scratch} B" if self.partials else ""
        return f"attention({self.queries} queries × {self.keys} keys, tile {self.mr}×{self.nr}{parts}{', serial' if self.serial else ''}{', far' if self.far else ''})"
