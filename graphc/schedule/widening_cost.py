"""Whether a factor of a product is read faster in half as many bits, which are widened, than as f32."""
from __future__ import annotations

from graphc.ir.types import f32
from graphc.schedule.target import Target

WIDEN_OPS = 2                       # of a vector of bf16: zeros between its numbers, and a shift
USUAL_VECTORS = 3                   # of columns in a register tile


def is_read_faster_narrow(uses: int, target: Target) -> bool:
    """uses: how many sums each number goes into. Cycles of a vector of numbers: its multiply-adds, or its bytes, where
    these take longer; it is widened once for each register tile of rows."""
    machine, size = target.machine, target.lanes(f32.itemsize) * f32.itemsize
    sums, bytes_ = uses / machine.fma_per_cycle, size * machine.old_byte_cycles
    tiles = -(-uses // min(target.tile_rows(USUAL_VECTORS), machine.address_rows))
    return max(sums + tiles * WIDEN_OPS / machine.fma_per_cycle, bytes_ / 2) < max(sums, bytes_)
