"""What schedules of contractions know of the machine, and when work is worth a tile of its own."""
from __future__ import annotations

from dataclasses import dataclass

from graphc.schedule.contraction_schedule import round_up
from graphc.schedule.target import Target

FMA_LATENCY = 4                 # cycles from an fma to one that needs its result
LOADS_PER_CYCLE = 2
L2_VECTORS_PER_CYCLE = 0.75     # that come from L2
STEP_OVERHEAD = 0.5             # cycles of loop control for each step of k
SMALL_FLOPS = 400_000           # a tile below this is not worth the hand-over to another thread
TILES = 32                      # tiles worth having, whatever the thread count
DOT_ROWS = 3                    # most rows of products whose operands are read once, unpacked
LANE_BLOCK = 16                 # vectors


@dataclass(frozen=True)
class Machine:
    target: Target
    itemsize: int
    lanes: int
    free: tuple[bool, ...]          # whether packing a, b costs nothing

    def elements(self, nbytes: int) -> int:
        return nbytes // self.itemsize


def even(size: int, part: float, unit: int) -> int:
    """A multiple of `unit`, near `part`, that cuts `size` into pieces of about the same size."""
    pieces = max(1, round(size / part))
    return round_up(-(-size // pieces), unit)
