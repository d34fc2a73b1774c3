"""What a tiled contraction costs on the planned cores: a term for each thing that takes time."""
from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from math import prod
from operator import sub

from graphc.ir.dims import Dim, content, static_dim, typical
from graphc.records import dataclass
from graphc.schedule.blocking import ColumnPacking, Cut, PackingMode, RowShares
from graphc.schedule.contraction_context import ContractionContext
from graphc.schedule.contraction_form import LinearMap, Phase
from graphc.schedule.contraction_schedule import TileSchedule, column_packing, group_sizes, round_up
from graphc.schedule.open_phase import last_open
from graphc.schedule.register_tiles import matrix_cycles, matrix_tile, register_cycles, register_tile
from graphc.schedule.target import LINE_BYTES, MATRIX_LANES

EXACT_TILES = 128               # from which on the last share of tiles is as long as the others
COPY_CYCLES = 3                 # for a vector that is copied into a panel: load, store, address
GATHER_CYCLES = 2               # for an element that is copied by itself
STREAM_RUN_BYTES = 512          # from which on the hardware sees a run of memory coming
SHORT_RUN_LOSS = 2              # how many times as long as those of longer runs bytes of shorter ones take
PIECE_LOSS = 40                 # bytes that are fetched in vain behind each piece of a line
PAGE_LOSS = 0.3                 # of the time of bytes of which each line's are in another page than those before
FREE_SWEEPS = 3                 # panels of rows, at most, that read unpacked columns while these arrive


def longest_share(rows: tuple[int, int, int], across: int, batch: int, by_rows: bool, cores: int) -> int:
    """The most rows that one core has of tiles in order, a tile's rows counted for each tile side by side. rows: how
    many tiles are below each other, the rows of each, and those of the last."""
    down, each, last = rows
    tiles = down * across

    def before(end: int) -> int:
        """Rows of the first `end` tiles."""
        entries, rest = divmod(end, tiles)
        lasts = entries * across + (max(0, rest - (down - 1) * across) if by_rows else rest // down)
        return (end - lasts) * each + lasts * last
    ends = [before(batch * tiles * part // cores) for part in range(cores + 1)]
    return max(map(sub, ends[1:], ends))


def tile_rows(m: int, mc: int, mr: int) -> tuple[int, int, int]:
    """How many tiles are below each other, the rows of each, and those of the last, in whole micro-tiles."""
    down = -(-m // mc)
    return down, round_up(min(mc, m), mr), round_up(m - (down - 1) * mc, mr)


@dataclass(frozen=True)
class Agreement:
    """What several schedules of one phase, for different numbers of rows, have in common: the blocks of the sum, added
    one after the other, and the vectors of a micro-tile (0: each has its own). mr: its rows, if they are settled
    too. columns: the cut of the columns, and how these are read: what the panels depend on in which they are packed
    once for all schedules. packed: each packs its columns, so that all call the same micro-kernels. matrices: whether
    the sums are computed in matrix registers, which add in another order (None: as is best)."""
    kc: Cut | None = None
    vectors: int = 0
    mr: int = 0
    columns: tuple[Cut, PackingMode] | None = None
    packed: bool = False
    matrices: bool | None = None


class TiledProblem:
    """A phase, its context, and what all its candidates have in common: the micro-tile, sizes, how far operands reach
    in memory.

    form: the phase with the sizes that are known only when it runs; `p` has typical ones for them, which decide what is
    best, while what is possible is asked of `form`. agreed: what is settled already. matrices: by matrix registers,
    of which two stand below each other: a micro-tile of the problem is one kernel's step, that of the schedule all
    rows of a tile.
    """

    def __init__(self, p: Phase[int], context: ContractionContext, gates: int = 0, form: Phase[Dim] | None = None,
                 agreed: Agreement | None = None, matrices: bool = False):
        self.p, self.context, self.gates, self.machine = p, context, gates, context.machine
        self.matrices = matrices
        self.form: Phase[Dim] = form or p
        self.agreed = agreed
        self.m_split, self.n_split, self.k_split = (last_open(self.form, dims) for dims in (p.m, p.n, p.k))
        self.m, self.n, self.k, self.batch = p.extent(p.m), p.extent(p.n), p.extent(p.k), p.extent(p.batch)
        self.m_sizes, self.n_sizes, self.k_sizes = (group_sizes(p, dims) for dims in (p.m, p.n, p.k))
        # the output is contiguous along m although vectors run along n
        self.transposed = _step(p, p.m) < _step(p, p.n)
        vectors = agreed.vectors if agreed else 0
        self.mr, self.vectors = (matrix_tile(self.m, self.n, gates, vectors) if matrices else register_tile(
            self.m, self.n, context, self.k, self.transposed, gates, vectors, self._multiple))
        self.mr = agreed.mr if agreed and agreed.mr and not matrices else self.mr
        self.nr = self.vectors * context.lanes
        self.packing = column_packing(self.form, context.lanes)
        self.a_span, self.b_span = _span(p, p.a, p.m + p.k), _span(p, p.b, p.n + p.k)
        self.stored = self.machine.old_byte_cycles
        # cycles of a byte that another core has written
        self.remote = self.machine.remote_byte_cycles
        # cycles of a line that is read again, but that no stream brings into L2: in another page than the one before
        self.scattered = LINE_BYTES / self.machine.l3_bytes_per_cycle

    @property
    def _multiple(self) -> int:
        """Of which the number of rows is one, where it is not known; else 0."""
        rows = self.form.extent(self.form.m)
        return 0 if isinstance(rows, int) else content(rows)

    @cached_property
    def sums(self) -> float:
        """Cycles of all micro-kernels."""
        if self.matrices:
            return self.batch * self.k * matrix_cycles(self.m, self.n, self.k, self.context, self.vectors)
        return (
            self.batch
            * self.k
            * register_cycles(self.m, self.n, self.context, self.k, self.transposed, (self.mr, self.vectors))
        )

    @cached_property
    def holds_columns(self) -> bool:
        """Whether half of L2 holds all columns."""
        return self.n * self.k <= self.context.elements(self.machine.l2_bytes // 2)


@dataclass(frozen=True)
class Tiling:
    """How outputs and sums are divided into tiles, of mc rows and the columns of `nc`, and in which order. down: how m
    is cut where the output is stored transposed. by_lines: the order inside of a tile."""
    mc: int
    nc: Cut
    by_rows: bool = False
    down: Cut | None = None
    splits: int = 1
    by_lines: bool = False
    shares: RowShares | None = None


class TileCost:
    """The terms of one tiling, in cycles of one of the planned cores, which take the tiles in order, each an even
    share."""

    def __init__(self, problem: TiledProblem, tiling: Tiling):
        self.problem, self.tiling, self.machine = problem, tiling, problem.machine
        self.down = (tiling.down.count(problem.m_sizes) if tiling.down else
                     static_dim(tiling.shares.down(problem.m, problem.mr, tiling.mc)) if tiling.shares else
                     -(-problem.m // tiling.mc))
        mc = round_up(-(-problem.m // self.down), problem.mr) if tiling.shares else tiling.mc
        self.across = tiling.nc.count(problem.n_sizes)
        self.tiles = problem.batch * self.down * self.across * tiling.splits
        self.cores = min(self.machine.planned_cores, self.tiles)
        # tiles of a core; parts of a sum are parts of a tile
        self.each = self.tiles / tiling.splits / self.cores
        self.mc = mc
        self.rows, self.columns = min(mc, problem.m), tiling.nc.length(problem.n_sizes)
        # cycles of all micro-kernels: each range begins with a panel of its own
        self.sums = problem.sums * _made(tiling.nc, problem.n_sizes, problem.nr)
        self.sums *= _made(tiling.down, problem.m_sizes, problem.mr) if tiling.down else 1.0
        self.handover = self.machine.handover_cycles if self.cores > 1 else 0.0     # of one parallel loop

    def shared_terms(self) -> tuple[tuple[str, float], ...]:
        """Those that do not depend on how operands reach the micro-kernel. Threads start late: on average half a tile
        is waited for."""
        sums = self.sums
        return (("sums", sums / self.cores), ("imbalance", sums * (self._share() - 1 / self.cores)),
                ("last tile", sums / self.tiles * (1 - 1 / self.cores) / 2), ("store", self._store()),
                *[("far lines", self.far_lines)] * (self.far_lines > 0),
                ("hand-over", self.handover * (1 + (self.tiling.splits > 1))),
                *([("set-up", self._setup())] if self.problem.matrices else []))

    def _setup(self) -> float:
        """Of matrix registers, by each micro-kernel; edges are another."""
        problem, edge = self.problem, self.problem.m % MATRIX_LANES > 0
        calls = problem.batch * (self.down + edge) * -(-problem.n // problem.nr) * self.tiling.splits
        return calls * self.machine.matrix_setup_cycles / self.cores

    def a_terms(self, mode: PackingMode) -> tuple[tuple[str, float], ...]:
        problem = self.problem
        size = problem.m * problem.k
        part = 1.0 if mode is PackingMode.ONCE else min(1.0, problem.a_span / size)  # windows overlap
        loads = self._loads(
            part * self.rows, self._touched(self.across, self.down, self.tiling.by_rows), problem.context.old[0]
        )
        if mode is PackingMode.UNPACKED and abs(problem.p.a.strides[problem.p.k[-1]]) > 1:
            many = problem.k * LINE_BYTES > self.machine.l1_bytes / 2
            loads += self._scattered_rows() + self._awaited_rows() if many else 0.0
        cycles = self._copied_rows if problem.matrices else self.machine.transpose_cycles
        return ("load a", loads), ("pack a", self._pack(0, mode, self.rows, size, cycles))

    def b_terms(self, mode: PackingMode) -> tuple[tuple[str, float], ...]:
        problem = self.problem
        size = problem.n * problem.k
        part = 1.0 if mode is PackingMode.ONCE else min(1.0, problem.b_span / size)
        if problem.context.codes:
            part *= problem.context.codes.bits / (8 * problem.context.itemsize)
        narrow = mode is PackingMode.PER_TILE and self.columns * problem.context.itemsize < STREAM_RUN_BYTES
        loads = self._loads(
            part * self.columns,
            self._touched(self.down, self.across, not self.tiling.by_rows),
            problem.context.old[1],
            SHORT_RUN_LOSS if narrow else 1,
        )
        loads += self._scattered_columns() if mode is PackingMode.UNPACKED else 0.0
        loads += self._short_runs(mode) if mode is not PackingMode.ONCE else 0.0
        loads += self._columns_again() if self.tiling.by_lines else 0.0
        straight = (
            problem.packing is ColumnPacking.PANELS
            or problem.packing is ColumnPacking.RUNS
            and problem.n_sizes[-1] >= problem.context.lanes
        )
        return ("load b", loads), (
            "pack b",
            self._pack(1, mode, self.columns, size, self._decode if problem.context.codes else self._copy if straight
                       else self.machine.transpose_cycles),
        )

    def _share(self) -> float:
        """Of all work, the busiest core's."""
        tiling, mr = self.tiling, self.problem.mr
        if self.tiles > EXACT_TILES or self.cores == 1:
            return 1 / self.cores
        if tiling.splits > 1 or tiling.down:
            return -(-self.tiles // self.cores) / self.tiles
        down, each, last = rows = tile_rows(self.problem.m, self.mc, mr)
        work = self.problem.batch * self.across * ((down - 1) * each + last)
        return longest_share(rows, self.across, self.problem.batch, tiling.by_rows, self.cores) / work

    # ---- operands
    @property
    def _copy(self) -> float:
        """Cycles for an element that is copied into a panel."""
        return COPY_CYCLES / self.problem.context.lanes

    @property
    def _copied_rows(self) -> float:
        """Cycles for an element of rows that are copied for matrix registers."""
        p = self.problem.form
        squares = rows_lie_across(p) and self.problem.m >= MATRIX_LANES
        return (self._copy if p.a.strides[p.k[-1]] == 1 else self.machine.transpose_cycles if squares
                else GATHER_CYCLES)

    @property
    def _decode(self) -> float:
        """Cycles for an element that is made of a code."""
        codes = self.problem.context.codes
        return codes.decode_cycles / self.problem.context.lanes if codes else 0.0

    def _touched(self, run: int, blocks: int, shares: bool) -> float:
        """How many blocks of an operand a core reads, of `blocks` in each batch entry. shares: `run` consecutive tiles
        read the same; otherwise each tile reads the next."""
        if shares:
            return max(self.each / run, min(1.0, self.each))
        return max(1.0, self.each / (self.down * self.across)) * min(blocks, self.each)

    def _loads(self, size: float, touched: float, ready: bool, slow: float = 1) -> float:
        """Of blocks of so many rows or columns: first from the core that wrote them (`ready`: long ago), later
        from L2 if all that is touched stays there."""
        machine = self.machine
        nbytes = size * self.problem.k * self.problem.context.itemsize
        first = self.problem.stored if ready else slow * self.problem.remote
        again = machine.l2_bytes_per_cycle if nbytes * touched <= machine.l2_bytes / 2 else machine.l3_bytes_per_cycle
        return nbytes * (touched * first + max(0.0, self.each - touched) / again)

    def _scattered_rows(self) -> float:
        """Broadcasts each of which is in a line of its own, of more than L1 holds: all panels of columns but one read
        them again."""
        problem = self.problem
        panels = self.columns / problem.nr * max(0.0, 1 - problem.nr / problem.n)
        return self.each * problem.k * max(1.0, self.rows / problem.mr) * panels * problem.scattered

    def _awaited_rows(self) -> float:
        """Until broadcasts of a line that L2 has not kept have it, beyond what the sums of a step hide: neighbours
        along the sum lie so far apart that the hardware does not see it coming."""
        problem, p, machine = self.problem, self.problem.p, self.machine
        nbytes = problem.context.itemsize
        if abs(p.a.strides[p.k[-1]]) * nbytes < machine.prefetch_reach_bytes:
            return 0.0
        missed = max(0.0, 1 - machine.l2_bytes / (problem.batch * problem.m * problem.k * nbytes))
        line = min(LINE_BYTES, abs(p.a.strides[p.m[-1]]) * nbytes) / LINE_BYTES     # of a row
        lines = problem.k * max(1.0, self.rows * line) * self._touched(self.across, self.down, self.tiling.by_rows)
        hidden = problem.mr * problem.vectors / problem.context.sums_per_cycle
        return lines * missed * max(0.0, machine.l3_latency - machine.remote_line_cycles - hidden)

    def _scattered_columns(self) -> float:
        """Unpacked columns: each step of the sum reads other lines, and vectors that cross lines are two loads."""
        problem = self.problem
        step, line = abs(problem.p.b.strides[problem.p.k[0]]), problem.context.elements(LINE_BYTES)
        far = (
            problem.k * step > problem.context.elements(2 * self.machine.l1_bytes)
            and problem.m > FREE_SWEEPS * problem.mr
        )
        cycles = far * problem.scattered + (1 / self.machine.loads_per_cycle if step % line else 0)
        return self.each * max(1.0, self.rows / problem.mr) * problem.k * self.columns / line * cycles

    def _short_runs(self, mode: PackingMode) -> float:
        """Columns of which one panel of rows reads a piece of each line after the other, beyond what sums hide: each
        is in another page, and some of what is fetched behind the pieces of a panel is gone before it is read."""
        problem, machine, nbytes = self.problem, self.machine, self.problem.context.itemsize
        straight = problem.packing is ColumnPacking.PANELS and len(problem.p.k) == 1
        lines = problem.k * abs(problem.p.b.strides[problem.p.k[0]]) * nbytes
        if not straight or problem.m > problem.mr or problem.n <= problem.nr or lines <= machine.l2_bytes:
            return 0.0
        first = problem.stored if problem.context.old[1] else problem.remote
        loss = PAGE_LOSS + (PIECE_LOSS / (problem.nr * nbytes) if mode is PackingMode.UNPACKED else 0)
        waits = loss * first * problem.batch * problem.n * problem.k * nbytes
        return max(0.0, waits - problem.sums) / self.cores

    def _columns_again(self) -> float:
        """Columns that each panel of rows reads from L2, beyond what its sums hide."""
        problem, machine = self.problem, self.machine
        if self.columns * problem.k <= problem.context.elements(machine.l1_bytes / 2):
            return 0.0
        read = problem.nr * problem.context.itemsize / machine.l2_bytes_per_cycle
        panels = max(1.0, self.rows / problem.mr) * self.columns / problem.nr
        hidden = problem.mr * problem.vectors / problem.context.sums_per_cycle
        return self.each * problem.k * panels * max(0.0, read - hidden)

    def _pack(self, operand: int, mode: PackingMode, size: float, total: int, cycles: float) -> float:
        """cycles: of one element. What is packed once is read, written, and waited for."""
        machine, context = self.machine, self.problem.context
        if mode is PackingMode.ONCE and not context.free[operand]:
            cores = machine.planned_cores if self.cores > 1 else 1
            rate = (
                machine.l3_bytes_per_cycle
                if total * context.itemsize <= machine.l3_bytes
                else machine.memory_bytes_per_cycle
            )
            return self.problem.batch * total * (cycles + 2 * context.itemsize / rate) / cores + self.handover
        if mode is PackingMode.PER_TILE:
            return self.each * size * self.problem.k * cycles
        return self.each * size * self.problem.k * self._copy if mode is PackingMode.BY_FIRST_USE else 0.0

    # ---- results
    @property
    def far_lines(self) -> float:
        """What is waited for lines that no cache near holds, where so little of a row is stored at a time that the
        hardware does not see the next ones coming, beyond what sums hide. An epilogue mostly reads as much, too."""
        problem, p, machine = self.problem, self.problem.p, self.machine
        columns = self.columns if self.tiling.by_lines else min(problem.nr, self.columns)
        run, nbytes = min(columns, problem.n_sizes[-1]), problem.context.itemsize
        stored = problem.batch * problem.m * problem.n * nbytes
        if (problem.transposed or self.tiling.splits > 1 or abs(p.out.strides[p.m[-1]]) <= run
                or run * nbytes >= STREAM_RUN_BYTES or stored / self.cores <= machine.l2_bytes / 2):
            return 0.0
        waits = stored * (1 + problem.context.fused) * (problem.remote - 1 / machine.l3_bytes_per_cycle)
        return max(0.0, waits - problem.sums) / self.cores

    def _store(self) -> float:
        """The result, and partial sums, which other cores add."""
        problem, splits, machine = self.problem, self.tiling.splits, self.machine
        rate = 1 / machine.l3_bytes_per_cycle
        each = problem.context.itemsize * (rate + (splits * (rate + problem.remote) if splits > 1 else 0))
        return (
            problem.batch
            * problem.m
            * problem.n
            * (each + (machine.transposed_store_cycles if problem.transposed else 0))
            / self.cores
        )


def schedule_cycles(problem: TiledProblem, s: TileSchedule) -> float:
    """Of a schedule that was perhaps chosen for another number of rows."""
    tiling = Tiling(s.blocking.mc, s.blocking.nc, s.by_rows, s.transposed_store, typical(s.splits), s.by_lines,
                    s.blocking.shares)
    cost = TileCost(problem, tiling)
    return sum(cycles for _, cycles in (*cost.shared_terms(), *cost.a_terms(s.a), *cost.b_terms(s.b)))


def rows_lie_across(p: Phase[Dim]) -> bool:
    """Whether the rows of each step of the sum are a run of memory."""
    return p.a.strides[p.m[-1]] == 1 and p.a.steps_evenly(p.m, p.sizes)


def _made(cut: Cut, sizes: tuple[int, ...], unit: int) -> float:
    """How many times as much as in units of the whole is computed in units of each range."""
    whole, rest = divmod(sizes[cut.split], cut.chunk)
    inner = cut.inner(sizes)
    ranges = whole * round_up(cut.chunk * inner, unit) + round_up(rest * inner, unit)
    return prod(sizes[:cut.split]) * ranges / round_up(prod(sizes), unit)


def _span(p: Phase[int], operand: LinearMap[int], dims: Sequence[int]) -> int:
    """Elements of memory that an operand spans along some dims."""
    low, high = LinearMap(0, operand.strides).span([size if d in dims else 1 for d, size in enumerate(p.sizes)])
    return high - low + 1


def _step(p: Phase[int], dims: Sequence[int]) -> int:
    """Of the output."""
    return min((abs(p.out.strides[d]) for d in dims if p.sizes[d] > 1), default=1 << 62)
