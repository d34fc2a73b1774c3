"""What the schedule of a contraction depends on beside its normal form."""
from __future__ import annotations


from graphc.records import dataclass
from graphc.schedule.contraction_schedule import round_up
from graphc.schedule.machine import Machine
from graphc.schedule.target import Target

DOT_ROWS = 3                    # most rows of products whose operands are read once, unpacked


@dataclass(frozen=True)
class ColumnCodes:
    """Columns of b that lie in memory as codes, in blocks of so many steps of k, `bits` each with the block's scale
    and minimum: each tile makes numbers of its own, in so many cycles for a vector of them."""
    block: int
    bits: float
    decode_cycles: float


@dataclass(frozen=True)
class ContractionContext:
    """The target, the elements, and whether packing a, b costs nothing, because it happens before all calls. codes: how
    columns lie that are no numbers yet. matrices: whether matrices of such factors are multiplied by instructions.
    fused: results go through an epilogue. pairs: of bf16, in each element. exact: sums are those of integers, which are
    the same in any order. kept: b never changes, but stays as it lies: a second copy of what few rows read once is not
    worth its memory. widened: whether a, b have fewer bits than the sums."""
    target: Target
    itemsize: int
    lanes: int
    free: tuple[bool, ...]
    codes: ColumnCodes | None = None
    matrices: bool = False
    fused: bool = False
    pairs: bool = False
    exact: bool = False
    kept: bool = False
    widened: tuple[bool, ...] = (False, False)

    @property
    def machine(self) -> Machine:
        return self.target.machine

    @property
    def old(self) -> tuple[bool, bool]:
        """Whether an operand was written long before the call, so that it is in no other core's caches."""
        return self.free[0], self.free[1] or self.kept

    @property
    def sums_per_cycle(self) -> float:
        """Vectors of sums to which a core begins to add in a cycle."""
        return self.machine.bf16_dots_per_cycle if self.pairs else self.machine.fma_per_cycle

    def elements(self, nbytes: float) -> int:
        return int(nbytes // self.itemsize)


def even(size: int, part: float, unit: int) -> int:
    """A multiple of `unit`, near `part`, that cuts `size` into pieces of about the same size."""
    pieces = max(1, round(size / part))
    return round_up(-(-size // pieces), unit)


def stream_steps(rows: int) -> int:
    """Lines of columns that are added in one pass over the sums of so many rows."""
    return 8 if rows == 1 else 4
