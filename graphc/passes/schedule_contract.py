"""Chooses how a contraction runs: a pure function of shapes, strides and target (no thread count: how a sum is split must not
depend on it). An analytical model in cycles of the register tile and bytes of the caches; nothing is measured.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from math import lcm, prod, sqrt

from graphc.ir.contract_form import Form, Linear, Phase, Tensor, normal_form
from graphc.ir.contraction import Contraction
from graphc.ir.schedule import (
    ContractionSchedule, Cut, DotSchedule, LaneSchedule, LoopSchedule, MAX_TAPS, NarrowSchedule, PhaseSchedule, STEPS, TileSchedule, column_packing,
    group_sizes, round_up)
from graphc.ir.target import LINE_BYTES, Target
from graphc.ir.types import DType

FMA_LATENCY = 4                 # cycles from an fma to one that needs its result
LOADS_PER_CYCLE = 2
L2_VECTORS_PER_CYCLE = 0.75     # that come from L2
STEP_OVERHEAD = 0.5             # cycles of loop control for each step of k
TILE_FLOPS = 6_500_000          # 50 to 70 µs of one core
SMALL_FLOPS = 400_000           # a tile below this is not worth the hand-over to another thread
MANY_TILES = 512                # more would only make worse use of the caches
TILES = 32                      # tiles worth having, whatever the thread count
AWAITED = 8                     # what reading a row that another thread has computed costs, in columns that are asked for ahead
CORES = 4                       # threads that get even shares of the tiles
LITTLE = 1.03                   # how uneven these may be
DEEP_TILE = 32 << 10            # sums of a tile when the sums are long: they stay in L2
TALL = 256                      # rows at most of a tile that packs its own columns
SCARCE = 256                    # rows at most that use columns so few times that these come from memory more than from L2
BROAD = 128                     # columns that a tile of fewer than 96 rows has
WIDE = 512                      # columns of a tile that packs its own rows on the way
LONG = 2048                     # steps of a sum of which tiles pack rows on the way
SHARING = 16                    # register tiles below each other in such a tile
PARTIALS = 4 << 20              # elements of partial results at most
MOST_ROWS = 10                  # of a register tile: each has an address, and there are 16 registers for these
FEW_ROWS = 8                    # whose addresses leave room for all else
LIKELY_ROWS = 6                 # 6×16 with AVX2, 6×64 with AVX-512: more rows take more addresses, fewer more loads of columns
MOST_AHEAD = 4                  # cache lines of packed columns that are asked for every STEPS steps
STREAM_BYTES = 8192             # of one row of b in a tile
STREAM_WORK = 64 << 10          # elements of b that a tile reads, at least
DOT_ROWS = 3                    # rows at most of products whose operands are read once, as they lie
LANE_BLOCK = 16                 # vectors
MOST_COLUMNS = 4
MOST_NARROW = 7
ALIGN = 16                      # elements: parts of the shared scratch start on cache lines


def contraction_schedule(c: Contraction, a_shape: Sequence[int], a_strides: Sequence[int], b_shape: Sequence[int], b_strides: Sequence[int],
                         out_strides: Sequence[int], dtype: DType, target: Target, fused: bool = False,
                         invariant: tuple[bool, bool] = (False, False), gates: int = 0) -> ContractionSchedule:
    """The schedule for operands that lie as given (strides in elements). fused: the sums go through an epilogue.

    invariant: operands that do not change in the loop around the kernel, so that packing them, once before it, costs nothing. gates: in how many
    parts the epilogue reads the columns (0: as they are), each some whole vectors wide.
    """
    lanes = target.lanes(dtype.itemsize)
    out_shape = tuple(m.span(c.sizes)[1] + 1 for m in c.out)
    form = normal_form(c, Tensor(tuple(a_shape), tuple(a_strides)), Tensor(tuple(b_shape), tuple(b_strides)),
                       Tensor(out_shape, tuple(out_strides)), lanes, fused, (True, True) if gates else invariant)
    if gates:
        form = replace(form, phases=(_interleaved(form.phases[0], gates, lanes),))
    free = tuple(invariant[i ^ form.swap] and len(form.phases) == 1 and form.copies[i] is None for i in range(2))
    machine = Machine(target, dtype.itemsize, lanes, free)
    phases = tuple(_gate_schedule(p, machine) if gates else _phase_schedule(p, dtype, machine) for p in form.phases)
    return replace(_placed(form, phases, _prepacked(phases, free)), gates=gates)


def _prepacked(phases: tuple[PhaseSchedule, ...], free: tuple[bool, ...]) -> int | None:
    """The operand, after the swap, that is packed for nothing (b, if both are)."""
    phase = phases[0] if phases else None
    if isinstance(phase, TileSchedule):
        return next((i for i, source in ((1, phase.b), (0, phase.a)) if free[i] and source == "shared"), None)
    return None


@dataclass(frozen=True)
class Machine:
    target: Target
    itemsize: int
    lanes: int
    free: tuple[bool, ...]          # whether packing a, b costs nothing

    def elements(self, nbytes: int) -> int:
        return nbytes // self.itemsize


def _phase_schedule(p: Phase, dtype: DType, machine: Machine) -> PhaseSchedule:
    if not dtype.is_float or p.extent(p.k) == 0:
        return LoopSchedule(max(1, SMALL_FLOPS // max(1, 16 * p.extent(p.k))))
    lane = _lane_dim(p, machine)
    if lane is not None:
        return _lane_schedule(p, lane, machine)
    narrow = _narrow_dim(p, machine)
    if narrow is not None:
        return _narrow_schedule(p, narrow, machine)
    if _is_dots(p, machine):
        return _dot_schedule(p, machine)
    if _is_stream(p, machine):
        return _stream_schedule(p, machine)
    return _tile_schedule(p, machine)


# --- gates ---------------------------------------------------------------------------------------------------------------

def _interleaved(p: Phase, gates: int, lanes: int) -> Phase:
    """The columns as vectors of units × gates × lanes: what an epilogue needs of all gates for some units is side by side."""
    (n,), first = p.n, len(p.sizes)
    width = p.sizes[n] // gates
    steps = (lanes, width, 1)

    def linear(t: Linear) -> Linear:
        return Linear(t.base, t.strides + tuple(t.strides[n] * step for step in steps))
    sizes = tuple(1 if d == n else size for d, size in enumerate(p.sizes)) + (width // lanes, gates, lanes)
    return replace(p, sizes=sizes, n=(first, first + 1, first + 2), a=linear(p.a), b=linear(p.b), out=linear(p.out), parts=p.parts + ((),) * 3)


def _gate_schedule(p: Phase, machine: Machine) -> PhaseSchedule:
    return _dot_schedule(p, machine) if _is_dots(p, machine) else _tile_schedule(p, machine, p.sizes[p.n[1]])


# --- lanes -----------------------------------------------------------------------------------------------------------------

def _lane_dim(p: Phase, machine: Machine) -> int | None:
    """The dim for vectors when sums are short and rows, or columns, are single: the one along which the output is contiguous."""
    if p.extent(p.k) > MAX_TAPS or min(p.extent(p.m), p.extent(p.n)) > 1:
        return None
    found = [d for d in p.batch + p.m + p.n if p.out.strides[d] == 1 and p.sizes[d] > 1]
    return found[0] if found and p.sizes[found[0]] >= machine.lanes // 2 and p.extent(p.batch + p.m + p.n) > p.sizes[found[0]] else None


def _lane_schedule(p: Phase, lane: int, machine: Machine) -> LaneSchedule:
    """The inner loop is along the dim with the next smallest step in the output."""
    others = [d for d in p.batch + p.m + p.n if d != lane and p.sizes[d] > 1]
    inner = min(others, key=lambda d: (abs(p.out.strides[d]), d))
    block = min(p.sizes[lane], LANE_BLOCK * machine.lanes)
    work = 2 * p.extent(p.k) * block * p.sizes[inner]
    return LaneSchedule(lane, inner, machine.lanes, _lane_columns(p, inner, machine), block, max(1, SMALL_FLOPS // 2 // work))


def _lane_columns(p: Phase, inner: int, machine: Machine) -> int:
    """Positions of the inner dim at a time: the fewest cycles for all of them, each vector loaded once."""
    terms = [i for i in product(*[range(p.sizes[d]) for d in p.k])]

    def cycles(columns: int) -> float:
        loads = sum(len({sum(i * t.strides[d] for d, i in zip((*p.k, inner), (*k, j))) for k in terms for j in range(columns)}) for t in (p.a, p.b))
        return max(loads / LOADS_PER_CYCLE, len(terms) * columns / machine.target.fma_per_cycle, len(terms) * FMA_LATENCY) + STEP_OVERHEAD

    def whole(columns: int) -> float:
        count, rest = divmod(p.sizes[inner], columns)
        return count * cycles(columns) + (cycles(rest) if rest else 0)
    return min(range(1, min(MOST_COLUMNS, p.sizes[inner]) + 1), key=whole)


# --- few outputs, long sums --------------------------------------------------------------------------------------------

def _narrow_dim(p: Phase, machine: Machine) -> int | None:
    """The dim for vectors when a batch entry has so few outputs that they stay in registers: a batch dim along which both operands
    are contiguous, or the innermost k dim.
    """
    outputs = p.extent(p.m) * p.extent(p.n)
    if min(p.extent(p.m), p.extent(p.n)) > 1 or outputs > machine.target.vector_registers - 4 or p.extent(p.batch) < 2 or len(p.k) < 2:
        return None
    for d in (*p.batch, p.k[-1]):
        if p.a.strides[d] == 1 and (p.b.strides[d] == 1 or d == p.k[-1]) and p.sizes[d] >= machine.lanes // 2:
            return d
    return None


def _narrow_schedule(p: Phase, dim: int, machine: Machine) -> NarrowSchedule:
    """Tiles of runs of vectors, long enough to be read as streams, and as many parts of the sum as are useful then."""
    one = NarrowSchedule(dim, dim == p.k[-1], machine.lanes, 1)
    groups, steps = one.groups(p), p.extent(p.k[:-1])
    block = even(groups, min(groups, LANE_BLOCK), 1)
    tiles = one.entries(p) // groups * -(-groups // block)
    splits = max(1, min(2 * TILES, p.flops // (SMALL_FLOPS // 2)) // tiles)
    splits = -(-steps // -(-steps // min(steps, splits)))
    pieces = -(-p.sizes[p.k[-1]] // MOST_NARROW)
    return replace(one, splits=splits, block=block, columns=0 if one.along_k else -(-p.sizes[p.k[-1]] // pieces))


# --- dot products ------------------------------------------------------------------------------------------------------

def _is_dots(p: Phase, machine: Machine) -> bool:
    """Few rows, and both operands contiguous along a k worth vectors: packing would cost more than it saves."""
    inner = p.k[-1]
    rows_linear = len(p.k) == 1 and p.a.strides[inner] == 1 and p.b.strides[inner] == 1
    return rows_linear and p.sizes[inner] >= 2 * machine.lanes and min(p.extent(p.m), p.extent(p.n)) <= DOT_ROWS


def _dot_schedule(p: Phase, machine: Machine) -> DotSchedule:
    rows = min(p.extent(p.m), 2)
    columns = min(p.extent(p.n), 4 if rows == 1 else 3)
    vectors = 2 if rows * columns <= 4 and p.sizes[p.k[-1]] >= 4 * machine.lanes else 1
    cost = 2 * p.sizes[p.k[-1]] * p.extent(p.m)
    return DotSchedule(rows, columns, vectors, machine.lanes, max(columns, round_up(SMALL_FLOPS // 2 // cost, columns)))


# --- rows streamed --------------------------------------------------------------------------------------------------------

def _is_stream(p: Phase, machine: Machine) -> bool:
    """Few rows times a matrix that lies along n and is wide enough to be read in long runs."""
    straight = len(p.n) == 1 and len(p.k) == 1 and p.b.strides[p.n[0]] == 1
    return straight and p.extent(p.m) <= DOT_ROWS and p.extent(p.n) >= 8 * machine.lanes and p.extent(p.k) >= 16


def _stream_schedule(p: Phase, machine: Machine) -> TileSchedule:
    """Tiles of some KB of columns and of enough steps that each reads some 100 KB of b."""
    m, n, k = p.extent(p.m), p.extent(p.n), p.extent(p.k)
    columns = Cut(0, even(n, min(n, STREAM_BYTES // machine.itemsize), machine.lanes))
    sums = Cut(0, min(k, 256))
    blocks = sums.count((k,))
    share = -(-STREAM_WORK // (columns.chunk * sums.chunk))
    splits = max(1, min(blocks // share, 2 * TILES // (p.extent(p.batch) * columns.count((n,))), PARTIALS // (p.extent(p.batch) * m * n)))
    return TileSchedule(m, 1, machine.lanes, m, columns, sums, "place", "place", -(-blocks // -(-blocks // splits)), True)


# --- register tiles ------------------------------------------------------------------------------------------------------

def _tile_schedule(p: Phase, machine: Machine, gates: int = 0) -> TileSchedule:
    """gates: columns are interleaved, and those of the same units stay in one tile."""
    m, n = p.extent(p.m), p.extent(p.n)
    turned = _is_turned(p)
    mr, vectors = register_tile(m, n, machine, p.extent(p.k), turned, gates)
    nr = vectors * machine.lanes
    deep = _is_deep(p) and not machine.free[1] and not gates            # with b packed already, narrow tiles cost nothing
    a = _a_source(p, n, nr, deep or turned, machine)
    a = "first" if a in ("tile", "shared") and _packs_on_the_way(p, machine) and not (turned or gates or deep) else a
    b = _b_source(p, m, mr, nr, deep, machine)
    sums = _sum_blocks(p, a, b, mr, nr, machine)
    rows, columns = _deep_tile(p, mr, nr) if deep else _wide_tile(p, mr, nr) if a == "first" else _tile_size(p, mr, nr, b, machine, gates)
    down = _column_cut(group_sizes(p, p.m), rows, mr) if turned else Cut(0, rows)
    rows = down.length(group_sizes(p, p.m)) if turned else rows
    tiles = p.extent(p.batch) * (down.count(group_sizes(p, p.m)) if turned else -(-m // rows)) * columns.count(group_sizes(p, p.n))
    splits = 1 if gates else _splits(p, tiles, sums)
    by_rows = _by_rows(p, turned, rows, machine)
    if splits == 1 and (not turned or len(p.m) == 1):
        rows = _even_rows(p, rows, mr, columns.count(group_sizes(p, p.n)), by_rows)
        down = Cut(0, rows)
    alone = tiles * splits == 1 or columns.count(group_sizes(p, p.n)) == 1 and _are_windows(p, p.a, p.m)
    a = "tile" if a == "shared" and not machine.free[0] and alone else a        # nobody else reads the rows of a tile
    if tiles * splits == 1:
        b = "tile" if b == "shared" and not machine.free[1] and column_packing(p, machine.lanes) != "taps" else b
    cold = machine.free[1] or n * p.extent(p.k) > machine.elements(machine.target.l2 // 2)      # weights: other layers' have passed since
    far = b == "shared" and cold and column_packing(p, machine.lanes) != "runs"
    ahead = _lines_ahead(-(-min(rows, m) // mr), nr, machine) if far and a != "taps" else 0
    return TileSchedule(mr, vectors, machine.lanes, rows, columns, sums, a, b, splits, turned=down if turned else None, by_rows=by_rows, ahead=ahead,
                        rest=0 if turned else _rest(p, m, mr))


def _even_rows(p: Phase, rows: int, mr: int, across: int, by_rows: bool) -> int:
    """Rows of a tile, near so many, of which CORES threads get even shares; `across`: tiles side by side. What would gain little stays."""
    m, batch = p.extent(p.m), p.extent(p.batch)
    tiles = batch * across * -(-m // rows)
    if not 1 < tiles <= MANY_TILES // 4 or p.flops < tiles * SMALL_FLOPS:
        return rows

    def longest(chunk: int) -> int:
        down = [round_up(min(chunk, m - row), mr) for row in range(0, m, chunk)]
        sizes = ([size for size in down for _ in range(across)] if by_rows else down * across) * batch
        ends = [len(sizes) * part // CORES for part in range(CORES + 1)]
        return max(sum(sizes[start:end]) for start, end in zip(ends, ends[1:]))
    shares = {chunk: longest(chunk) for chunk in (rows, *range(max(mr, round_up(rows / 2, mr)), 2 * rows + 1, mr))}
    least = min(shares.values())
    if shares[rows] <= LITTLE * least:
        return rows
    return min(shares, key=lambda chunk: (shares[chunk] > (1 + LITTLE) / 2 * least, abs(chunk - rows)))


def _rest(p: Phase, m: int, mr: int) -> int:
    """Rows of a smaller last register tile: where padding costs so much that another kernel pays."""
    return m % mr if p.flops >= SMALL_FLOPS and (mr - m % mr) * 100 >= m else 0


def _lines_ahead(downs: int, nr: int, machine: Machine) -> int:
    """All register tiles of a panel together ask for the next panel, where that is little beside what they compute."""
    lines = -(-nr * STEPS // (downs * machine.elements(LINE_BYTES)))
    return lines if lines <= MOST_AHEAD else 0


def _by_rows(p: Phase, turned: bool, rows: int, machine: Machine) -> bool:
    """The smaller operand is read again and again: a cache may hold it. Columns packed before all calls are asked for ahead, rows that other threads
    have just computed are not: where threads can have rows of their own in all of a network's products, these count more. Where L2 holds both, the
    output (a weight that is updated) is cut into runs of its memory, of which each thread has one, as in the products that read it."""
    a, b = _memory(p, p.a, p.m + p.k), _memory(p, p.b, p.n + p.k)
    own = machine.free[1] and not turned and p.extent(p.m) > (CORES - 2) * rows
    return a * (AWAITED if own else 1) > b or not turned and a + b <= machine.elements(machine.target.l2) and p.extent(p.m) * p.extent(p.n) > b


def _memory(p: Phase, operand: Linear, dims: Sequence[int]) -> int:
    """Elements of memory that an operand spans along some dims."""
    low, high = Linear(0, operand.strides).span([size if d in dims else 1 for d, size in enumerate(p.sizes)])
    return high - low + 1


def _is_turned(p: Phase) -> bool:
    """Whether the output is contiguous along m although vectors run along n."""
    def step(dims):
        return min((abs(p.out.strides[d]) for d in dims if p.sizes[d] > 1), default=1 << 62)
    return step(p.m) < step(p.n)


def _is_deep(p: Phase) -> bool:
    """Sums much longer than a small output is wide (gradients of weights): tiles take all or half of the output and a part of the sum."""
    m, n, k = p.extent(p.m), p.extent(p.n), p.extent(p.k)
    return k >= 4 * max(m, n) and m * n <= 2 * DEEP_TILE and p.extent(p.batch) * -(-m * n // DEEP_TILE) < TILES // 2


def _packs_on_the_way(p: Phase, machine: Machine) -> bool:
    """Whether register tiles that read rows as they lie pack these for others: where rows lie side by side, of sums so long that it counts little what
    the first block of each tile waits for."""
    return not machine.free[0] and len(p.m) == 1 and len(p.k) == 1 and p.a.strides[p.m[0]] == 1 and p.extent(p.k) >= LONG


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


def _linear_from(t: Linear, p: Phase, dims: Sequence[int]) -> int:
    """The first of the dims such that the operand steps evenly through it and all that are inside it."""
    position = len(dims) - 1
    while position > 0 and t.strides[dims[position - 1]] == t.strides[dims[position]] * p.sizes[dims[position]]:
        position -= 1
    return position


def _a_source(p: Phase, n: int, nr: int, by_tile: bool, machine: Machine) -> str:
    """Rows are read in place, one broadcast an element, when they lie along k, when sums are short, or when each element is used a
    few times only.
    """
    inner = p.k[-1]
    run = prod(group_sizes(p, p.k)[_linear_from(p.a, p, p.k):])
    in_place = run >= 32 or len(p.k) == 1
    step = abs(p.a.strides[inner])
    if in_place and (step <= 1 or n <= 2 * nr or run * 64 <= machine.target.l1 // 2):
        return "place"
    if p.extent(p.k) <= MAX_TAPS and not machine.free[0]:
        return "taps"
    return "tile" if (p.batch or by_tile) and not machine.free[0] else "shared"


def _b_source(p: Phase, m: int, mr: int, nr: int, deep: bool, machine: Machine) -> str:
    """Vectors are read in place when they lie along n and there are too few rows, or too little data, for packing to pay."""
    inner, n, k = p.n[-1], p.extent(p.n), p.extent(p.k)
    straight = len(p.n) == 1 and len(p.k) == 1
    if straight and p.b.strides[inner] == 1:
        span = k * abs(p.b.strides[p.k[0]])
        if m <= 3 * mr or span <= machine.elements(machine.target.l1) * 2:
            return "place"
    if machine.free[1] or column_packing(p, machine.lanes) == "taps":
        return "shared"
    return "tile" if p.batch or deep or _shares_little(m, n, k, nr, machine) or _are_windows(p, p.b, p.n) else "shared"


def _shares_little(m: int, n: int, k: int, nr: int, machine: Machine) -> bool:
    """Whether tall tiles, enough of them, leave nobody else to read their columns, or so few others that packing these again costs less than a
    loop over all of b before.
    """
    times = max(1, round(m / TALL))
    again = times == 1 or n * k * times <= machine.elements(machine.target.l2 // 2)
    return again and m * k <= times * machine.elements(machine.target.l2 // 4) and n * times >= TILES // 2 * nr


def _are_windows(p: Phase, operand: Linear, dims: Sequence[int]) -> bool:
    """Whether rows or columns (`dims`) overlap in memory: an image, which packed whole would be many images."""
    return len(dims) > 1 and p.extent(dims) * p.extent(p.k) > 2 * _memory(p, operand, (*dims, *p.k))


def _sum_blocks(p: Phase, a: str, b: str, mr: int, nr: int, machine: Machine) -> Cut:
    """Blocks of k: the columns of a register tile stream from L2 (where each tile packs them, they stay in L1; where it packs both operands,
    L2 also has room for what it packs next), rows that were packed for all stay in L1 beside that stream, and operands that are read in place step
    evenly through the block. Few rows use columns few times: of these a block is short, as its first register tile waits for memory, and those after
    it ask for the next block.
    """
    sizes = group_sizes(p, p.k)
    k = prod(sizes)
    if a == "taps":
        return Cut(0, sizes[0])
    own = (a in ("tile", "first")) + (b == "tile")
    stream = machine.target.l2 // (16 if b == "shared" and p.extent(p.m) <= SCARCE else 4)
    limit = machine.elements((stream, machine.target.l1 * 2 // 3, machine.target.l1 // 2)[own]) // nr
    limit = min(limit, machine.elements(machine.target.l1 // 4) // mr) if a == "shared" else limit
    first = max([0] + [_linear_from(t, p, p.k) for t, where in ((p.a, a), (p.b, b)) if where == "place"])
    for split in range(first, len(sizes)):
        inner = prod(sizes[split + 1:])
        if inner <= limit or split == len(sizes) - 1:
            blocks = min(sizes[split], -(-sizes[split] * inner // limit))
            return Cut(split, -(-sizes[split] // max(1, blocks)))
    return Cut(0, k)


def _tile_size(p: Phase, mr: int, nr: int, b: str, machine: Machine, gates: int) -> tuple[int, Cut]:
    """Rows and columns worth TILE_FLOPS; more while that leaves TILES tiles, so that enough rows share what is packed. All rows, or about TALL, where
    each tile packs its own columns; half of that where it leaves few tiles and columns are near, which costs little to pack again.
    """
    m, n, k = p.extent(p.m), p.extent(p.n), p.extent(p.k)
    budget = max(min(p.flops / TILES, TILE_FLOPS), SMALL_FLOPS, p.flops / MANY_TILES)
    least = 0 if machine.free[1] else min(32 * mr * nr, p.extent(p.batch) * m * n / TILES)
    area = max(budget / (2 * k), least, 4 * mr * nr)
    near = n * k <= machine.elements(machine.target.l2 // 4)
    tall = TALL // 2 if near and p.extent(p.batch) * round(m / TALL) * n < 2 * TILES * nr else TALL
    tall = min(m, tall) if b == "tile" else min(96, sqrt(area) if machine.free[1] else area / min(n, BROAD))
    rows = even(m, max(mr, tall), mr)
    columns = max(nr, min(area / rows, machine.elements(machine.target.l2 // 4) / rows))
    sizes = group_sizes(p, p.n)
    line = -(-machine.elements(LINE_BYTES) // machine.lanes)           # vectors of units whose results fill cache lines: no two threads share one
    cut = _column_cut(sizes, columns, nr, line if gates else 0)
    few = machine.free[1] and p.extent(p.batch) * -(-m // rows) * cut.count(sizes) < TILES
    rounded = cut.split == len(sizes) - 1 and cut.chunk > max(nr, columns)
    return rows, replace(cut, chunk=cut.chunk - nr) if few and rounded else cut


def _wide_tile(p: Phase, mr: int, nr: int) -> tuple[int, Cut]:
    """So many columns that few of the register tiles read rows that are not packed yet, and rows that share columns while these are in L1."""
    return even(p.extent(p.m), min(p.extent(p.m), SHARING * mr), mr), _column_cut(group_sizes(p, p.n), min(p.extent(p.n), WIDE), nr)


def _deep_tile(p: Phase, mr: int, nr: int) -> tuple[int, Cut]:
    """All rows and columns if their sums fit in L2, else fewer columns, then fewer rows."""
    m = p.extent(p.m)
    rows = even(m, min(m, 256), mr)
    return rows, _column_cut(group_sizes(p, p.n), DEEP_TILE / rows, nr)


def _column_cut(sizes: tuple[int, ...], columns: float, nr: int, unit: int = 0) -> Cut:
    """Tiles of about so many columns: a part of one dim, all of the dims inside it. unit: of the outermost dim, a multiple of this."""
    for split in range(len(sizes)):
        inner = prod(sizes[split + 1:])
        if inner <= columns or split == len(sizes) - 1 or unit > 0:
            return Cut(split, even(sizes[split], max(1, columns / inner), nr if inner == 1 else max(1, unit)))
    raise AssertionError("unreachable")


def even(size: int, part: float, unit: int) -> int:
    """A multiple of `unit`, near `part`, that cuts `size` into pieces of about the same size."""
    pieces = max(1, round(size / part))
    return round_up(-(-size // pieces), unit)


def _splits(p: Phase, tiles: int, sums: Cut) -> int:
    """Parts of the sum: as many as the tiles fall short of keeping the cores busy, each worth its own tile: every part is written and read once more."""
    blocks = sums.count(group_sizes(p, p.k))
    outputs = p.extent(p.batch + p.m + p.n)
    useful = min(TILES // max(1, tiles), p.flops // (2 * SMALL_FLOPS * tiles), blocks, p.extent(p.k) // 128, PARTIALS // outputs)
    if tiles >= TILES // 2 or useful < 2:
        return 1
    return -(-blocks // -(-blocks // useful))


# --- where the shared scratch lies -----------------------------------------------------------------------------------------

def _placed(form: Form, phases: tuple[PhaseSchedule, ...], ready: int | None) -> ContractionSchedule:
    copies, end, packed_size = [], 0, 0
    for copy in form.copies:
        copies.append(None if copy is None else end)
        end += 0 if copy is None else round_up(copy.size + ALIGN, ALIGN)
    top, packed_a, packed_b, partials = end, [], [], []
    for p, s in zip(form.phases, phases):
        sizes = _shared_sizes(p, s)
        if ready is not None:
            packed_size, sizes[ready] = sizes[ready], 0
        offsets = [end + sum(sizes[:i]) for i in range(3)]
        for target, offset, size in zip((packed_a, packed_b, partials), offsets, sizes):
            target.append(offset if size else None)
        top = max(top, end + sum(sizes))
    prepacked = None if ready is None else ready ^ form.swap
    return ContractionSchedule(form, phases, tuple(copies), tuple(packed_a), tuple(packed_b), tuple(partials), top, prepacked, packed_size)


def _shared_sizes(p: Phase, s: PhaseSchedule) -> list[int]:
    """Elements of packed a, packed b and partial results."""
    if isinstance(s, NarrowSchedule) and s.splits > 1:
        return [0, 0, round_up(s.splits * s.entries(p) * p.extent(p.m + p.n) * s.width, ALIGN)]
    if not isinstance(s, TileSchedule):
        return [0, 0, 0]
    batches, k = p.extent(p.batch), p.extent(p.k)
    a = batches * round_up(p.extent(p.m), s.mr) * k if s.a == "shared" else 0
    b = batches * s.columns.count(group_sizes(p, p.n)) * s.width(p) * k if s.b == "shared" else 0
    partial = s.splits * batches * p.extent(p.m) * p.extent(p.n) if s.splits > 1 else 0
    return [round_up(size, ALIGN) for size in (a, b, partial)]

