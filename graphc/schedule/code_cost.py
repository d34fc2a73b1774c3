"""What it takes to make numbers of codes in registers, in operations on vectors, counted as kernels have them
(codegen/lower/block_dots.py, contraction/pack_columns.py); what an operation takes is the machine's."""
from __future__ import annotations

from math import log2

from graphc.ir.ops.blocks import BlockProduct
from graphc.records import dataclass
from graphc.schedule.target import Target

NIBBLES = 8                         # codes of four bits in a word


@dataclass(frozen=True)
class CodeCost:
    """parts: scales, and minima."""
    op: BlockProduct
    parts: int
    lanes: int
    target: Target

    @property
    def of_code(self) -> float:
        """To make a vector of codes f32. Of a word, seven of eight nibbles are shifted; then a look-up finds the
        number, or the rest of the word is masked off and the code converted. A byte is widened and converted."""
        if self.op.bits == 8:
            return 2.0
        shift = (NIBBLES - 1) / NIBBLES
        return shift + (1.0 if self.target.has_lookup(self.lanes) else shift + 1)

    @property
    def _scaled_together(self) -> float:
        """Vectors of products that are added up before they are multiplied by a scale."""
        return NIBBLES if self.op.bits == 4 else max(1.0, self.op.block / self.lanes)

    @property
    def dots_of_codes(self) -> float:
        """Of a vector in dot products, once for all rows of the other factor: also, each scale is converted and spread.
        Of the shifts, those by whole bytes are loads."""
        loads = (NIBBLES / 2 - 1) / NIBBLES if self.op.bits == 4 else 0.0
        return self.of_code - loads + 2 * self.parts / self._scaled_together

    @property
    def dots_of_row(self) -> float:
        """The same for each of these rows."""
        return 1 + self.parts / self._scaled_together

    @property
    def dots_of_sum(self) -> float:
        """To add up the lanes of a sum."""
        return 2 * log2(max(2, self.lanes))

    @property
    def decoded(self) -> float:
        """To make a vector of numbers of codes while columns are packed: transposed, as words in blocks of 4 × 4 after
        their rows have been put side by side, or byte by byte; then scaled, shifted, stored."""
        if self.op.bits == 4:
            across = 1 / 4 + (1 - 4 / self.lanes) / 2 if self.lanes >= 4 else 1.0
        else:
            across = log2(max(2, self.lanes))
        less_zero = self.op.zero != 0 and (self.op.bits == 8 or not self.target.has_lookup(self.lanes))
        return across + self.of_code + less_zero + self.parts + 1
