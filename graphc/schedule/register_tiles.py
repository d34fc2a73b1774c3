"""The register tile of a product: rows and vectors of columns whose sums stay in registers."""
from __future__ import annotations

from functools import cache

from graphc.schedule.machine import DOT_ROWS, FMA_LATENCY, L2_VECTORS_PER_CYCLE, LOADS_PER_CYCLE, STEP_OVERHEAD, Machine
from graphc.schedule.target import Target

MOST_ROWS = 10                  # of a micro-tile: each has an address, and there are 16 registers for addresses
FEW_ROWS = 8                    # of which the addresses leave registers for everything else
LIKELY_ROWS = 6                 # 6×16 with AVX2, 6×64 with AVX-512: more rows take more addresses, fewer more loads of columns


def register_tile(m: int, n: int, machine: Machine, k: int = 0, padded: bool = False, gates: int = 0) -> tuple[int, int]:
    """Rows and vectors of the register tile that needs the fewest cycles for one step of k over the whole output. Columns of more steps
    than L1 holds come from L2. padded: the last rows take a whole register tile. gates: as wide as those of the same units, or a part of that.

    Large products keep to the tiles with the most accumulators unless another saves a lot: their kernels are shared. Of equals it is one without a
    rest of rows or columns, with more sums, nearest to LIKELY_ROWS.
    """
    def rank(shape: tuple[int, int]):
        mr, v = shape
        left = not padded and m % mr > 0, -n % (v * machine.lanes)
        return _tile_cycles(m, n, machine, k, padded, shape), *left, -mr * v, abs(mr - LIKELY_ROWS)
    return min(_tile_shapes(machine.target, gates), key=rank)


def gates_cost(m: int, n: int, k: int, gates: int, target: Target, itemsize: int) -> float:
    """How many times as long as others the register tiles take whose width suits the gates; few rows need none."""
    if m <= DOT_ROWS:
        return 1
    machine = Machine(target, itemsize, target.lanes(itemsize), (False, False))
    suited, best = (min(_tile_cycles(m, n, machine, k, False, shape) for shape in _tile_shapes(target, parts)) for parts in (gates, 0))
    return suited / best


@cache
def _tile_shapes(target: Target, gates: int) -> tuple[tuple[int, int], ...]:
    return tuple((mr, v) for v in range(1, 9) if gates % v == 0 for mr in range(1, min(target.tile_rows(v), MOST_ROWS) + 1))


@cache
def _most_sums(target: Target) -> int:
    """Vectors of sums in the register tiles of large products."""
    return max(mr * v for mr, v in _tile_shapes(target, 0) if 2 <= v <= 4 and mr <= FEW_ROWS)


def _tile_cycles(m: int, n: int, machine: Machine, k: int, padded: bool, shape: tuple[int, int]) -> float:
    mr, v = shape
    target = machine.target
    far = v / L2_VECTORS_PER_CYCLE if k * v * machine.lanes > machine.elements(target.l1) else 0

    def step(rows: int) -> float:
        late = FMA_LATENCY + 1 if rows * v <= 2 * FMA_LATENCY else 0            # so few sums never keep both units busy
        return max(rows * v / target.fma_per_cycle, (rows + v) / LOADS_PER_CYCLE, late, far) + STEP_OVERHEAD
    whole, rest = divmod(m, mr)
    down = whole * step(mr) + (step(mr if padded else rest) if rest else 0)
    rare = min(m, n) >= 48 and (mr * v < _most_sums(target) or not 2 <= v <= 4 or mr > FEW_ROWS)
    return down * -(-n // (v * machine.lanes)) * (1.06 if rare else 1)
