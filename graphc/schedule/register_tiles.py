"""The register tile of a product: rows and vectors of columns whose sums stay in registers."""
from __future__ import annotations

from functools import cache

from graphc.schedule.contraction_context import DOT_ROWS, ContractionContext
from graphc.schedule.contraction_schedule import STEPS, round_up
from graphc.schedule.cost import TOLERANCE
from graphc.schedule.target import MATRIX_LANES, Target

# 6×16 with AVX2, 6×64 with AVX-512: more rows take more addresses, fewer more loads of columns
LIKELY_ROWS = 6
APART_SUMS = 2                  # vectors of sums of integers, up to which each of STEPS steps has some of its own
MATRICES_ACROSS = 2             # registers of sums beside each other, at most
# of a kernel that large products do not share: code that no other product has brought into the cache
RARE_LOSS = 1.06


def register_tile(
    m: int, n: int, context: ContractionContext, k: int = 0, padded: bool = False, gates: int = 0, vectors: int = 0,
    multiple: int = 0
) -> tuple[int, int]:
    """Rows and vectors of the register tile that needs the fewest cycles for one step of k over the whole output.
    Columns of more steps than L1 holds come from L2. padded: the last rows take a whole register tile. gates: as wide
    as those of the same units, or a part of that. vectors: if they are settled, how many. multiple: rows come in
    multiples of it, however many there are: register tiles of which these are whole ones need no code for last rows,
    and what is left of the usual number says nothing of others (0: the number is known).

    Large products keep to the tiles with the most accumulators unless another saves a lot: their kernels are shared. Of
    equals it is one that few rows fill once, without a rest of rows or columns, with more sums, nearest to LIKELY_ROWS.
    """
    def rank(shape: tuple[int, int]) -> tuple[float, ...]:
        mr, v = shape
        left = not padded and not multiple and m % mr > 0, -n % (v * context.lanes)
        panels = -(-m // mr) if not multiple and m <= context.machine.easy_rows else 0
        rows = round_up(m, mr) if multiple else m
        cycles = register_cycles(rows, n, context, k, padded, shape) * m / rows
        cycles *= _own_kernels(shape) if multiple else 1
        return cycles, panels, *left, -mr * v, abs(mr - LIKELY_ROWS)
    shapes = [s for s in _tile_shapes(context.target, gates) if vectors in (0, s[1])]
    best = min(shapes, key=rank)
    whole = min([s for s in shapes if multiple and s[0] > 1 and multiple % s[0] == 0], key=rank, default=best)
    return whole if rank(whole)[0] <= TOLERANCE * rank(best)[0] else best


def gates_cost(m: int, n: int, k: int, gates: int, target: Target, itemsize: int) -> float:
    """How many times as long as others the register tiles take whose width suits the gates; few rows need none."""
    if m <= DOT_ROWS:
        return 1
    context = ContractionContext(target, itemsize, target.lanes(itemsize), (False, False))
    suited, best = (
        min(register_cycles(m, n, context, k, False, shape) for shape in _tile_shapes(target, parts))
        for parts in (gates, 0)
    )
    return suited / best


def _own_kernels(shape: tuple[int, int]) -> float:
    """How much faster other register tiles than the likely ones must be: where the number of rows comes with the call
    they have a micro-kernel for each number of last rows, too."""
    return 1 if shape[0] == LIKELY_ROWS else RARE_LOSS


@cache
def _tile_shapes(target: Target, gates: int) -> tuple[tuple[int, int], ...]:
    return tuple(
        (mr, v)
        for v in range(1, 9)
        if gates % v == 0
        for mr in range(1, min(target.tile_rows(v), target.machine.address_rows) + 1)
    )


@cache
def _most_sums(target: Target) -> int:
    """Vectors of sums in the register tiles of large products."""
    return max(mr * v for mr, v in _tile_shapes(target, 0) if 2 <= v <= 4 and mr <= target.machine.easy_rows)


def register_cycles(m: int, n: int, context: ContractionContext, k: int, padded: bool, shape: tuple[int, int]) -> float:
    """For one step of k over the whole output."""
    mr, v = shape
    machine, columns = context.machine, v * context.lanes
    from_l2 = (
        columns * context.itemsize / machine.l2_bytes_per_cycle
        if k * columns > context.elements(machine.l1_bytes)
        else 0
    )

    def step(rows: int) -> float:
        # with fewer sums the units wait for results
        apart = STEPS if context.exact and rows * v <= APART_SUMS else 1
        busy = rows * v * apart > machine.busy_sums
        late = 0 if busy else (machine.fma_latency + 1) / apart
        return (
            max(rows * v / context.sums_per_cycle, (rows + v) / machine.loads_per_cycle, late, from_l2)
            + machine.step_cycles
        )

    whole, rest = divmod(m, mr)
    down = whole * step(mr) + (step(mr if padded else rest) if rest else 0)
    rare = min(m, n) >= 48 and (
        mr * v < _most_sums(context.target) or not 2 <= v <= 4 or mr > context.machine.easy_rows
    )
    return down * -(-n // columns) * (RARE_LOSS if rare else 1)


def matrix_tile(m: int, n: int, gates: int = 0, vectors: int = 0) -> tuple[int, int]:
    """Rows and vectors of the sums that matrix registers hold: two of them beside and below each other, where there is
    that much, so that what is loaded is used twice. gates, vectors: as of `register_tile`."""
    across = vectors or (1 if n <= MATRIX_LANES or gates % 2 else MATRICES_ACROSS)
    return (MATRIX_LANES if m <= MATRIX_LANES else 2 * MATRIX_LANES), across


def matrix_cycles(m: int, n: int, k: int, context: ContractionContext, vectors: int) -> float:
    """For one step of k over the whole output, by matrix registers: each pair of rows of them needs the rows from L2,
    and columns of more steps than L1 holds too."""
    machine, lanes = context.machine, MATRIX_LANES
    dot, line = machine.matrix_dot_cycles / lanes, lanes * context.itemsize
    panels, rows = -(-n // (vectors * lanes)), -(-m // lanes)
    from_l2 = k * vectors * line > machine.l1_bytes

    def step(down: int) -> float:
        loads = (down + vectors + (down - 1) * (vectors - 1)) / machine.loads_per_cycle
        return max(down * vectors * dot, loads, (down + vectors * from_l2) * line / machine.l2_bytes_per_cycle)
    return panels * (rows // 2 * step(2) + rows % 2 * step(1))
