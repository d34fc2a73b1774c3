"""A loop of a nest as numbers: where it begins and ends, and how long its sums may grow."""
from __future__ import annotations

from graphc.codegen.loops.builder import Ix
from graphc.ir.dims import Dim, upper
from graphc.records import dataclass

BLOCK = 128                     # additions into one lane before the sum so far is added to that of all blocks


@dataclass(frozen=True)
class Trips:
    """A loop over lo, lo + step, … < hi, of `most` trips at most; each adds so many numbers to a sum."""
    name: str
    lo: Ix | Dim
    hi: Ix | Dim
    step: int
    most: Dim
    adds: int = 1

    @property
    def are_few(self) -> bool:
        """Whether a sum need not be taken in blocks."""
        return (most := upper(self.most)) is not None and most * self.adds <= 2 * BLOCK

    @property
    def block(self) -> int:
        """Trips of such a block."""
        return max(1, BLOCK // self.adds)
