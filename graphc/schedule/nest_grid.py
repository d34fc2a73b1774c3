"""Chooses the grid of a loop nest: how its rows, columns or sums are divided into tiles.

Candidates are all on one thread, tiles of rows, tiles of columns, and rows that are cut. Each takes tiles of about the
same work, `Machine.tile_cycles`; the cost decides which dims are cut, and whether other threads help at all.

What is decided is numbers, also where sizes come with the call: the order in which a sum is taken must not depend on
them. It is decided with `Loops.values`; how many tiles there are is what the sizes give. """
from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from math import ceil, prod

from graphc.ir.dims import Dim, Sizes, ceil_div, evaluate
from graphc.ir.graph import Node
from graphc.ir.ops.reduce import ArgExtremum
from graphc.ir.types import f32
from graphc.records import dataclass
from graphc.schedule.cost import Candidate, Ranking, ranked
from graphc.schedule.loop_nest import Nest, Stages
from graphc.schedule.machine import Machine
from graphc.schedule.nest_schedule import Partial
from graphc.schedule.tile_cost import PIECE_LOSS, STREAM_RUN_BYTES

# indices of the contiguous dim of an input that is read in another order, so many rows of the result side by side
TRANSPOSE_BLOCKS = (32, 16)
NEAR_PAGES, PAGE_BYTES = 16, 4096       # a core remembers the places of so many pages for stores
FAR_STORE_CYCLES = 6            # of a store to another one; so many operations hide it
MAX_CHUNKS = 192                # of a reduction that is cut
MAX_TILES = 128                 # of a nest with sums across rows: each has a row of accumulators
CROSS_ROWS = 16                 # of a tile of a nest with sums across rows, at least, where rows come with the call
CHAIN_CYCLES = 4                # of a product and a sum in one, which waits for the one before
LANES_CYCLES = 8                # the same of a vector of steps, which waits for the last lane of the one before
STATE_CYCLES = 14               # the same by way of memory
FAR_CYCLES = 8                  # of a step of one vector, whose neighbours in memory are other vectors of the same step
STATE_BYTES = 8                 # of an element that recurrences hand to the next step, and of another one with it
LANE_SUMS = 1024                # additions into one lane of an f32 sum before it is cut


@dataclass(frozen=True)
class Loops:
    """What the grid divides: the nest, its loops, and the cycles of one row: a trip of the outer loops, of one vector
    where columns are among them. `values`: of the names, with which costs are counted. `steps` of recurrences, or
    vectors of them: part of each row."""
    nest: Nest
    values: Mapping[str, int]
    stages: Stages
    outer: tuple[int, ...]
    inner: tuple[int, ...]
    vector: int
    lanes: int
    row: float
    machine: Machine
    steps: int = 1
    flops: int = 0              # of an element
    apart: int = 0              # bytes between the rows of a result that lie side by side in a transposing nest
    squares: int = 0            # the side of squares that are transposed in registers
    moved: int = 0              # bytes of operands and results of recurrences

    @cached_property
    def sizes(self) -> Sizes:
        """The extents; of those that come with the call one at least."""
        return tuple([n if isinstance(n, int) else max(1, evaluate(n, self.values)) for n in self.nest.extents])

    def size(self, dims: Iterable[int]) -> int:
        return prod(self.sizes[d] for d in dims)

    @property
    def rows(self) -> int:
        return self.size(self.outer)

    @property
    def blocks(self) -> int:
        """Vectors of columns in a row; 0 where the inner loop runs along the columns, or lanes are steps."""
        across = self.vector >= 0 and self.vector not in (*self.inner, self.nest.running)
        return ceil(self.sizes[self.vector] / self.lanes) if across else 0

    @property
    def line(self) -> float:
        """Cycles of a row with all its columns."""
        return self.row * max(self.blocks, 1)

    @property
    def total(self) -> float:
        return self.line * self.rows

    @property
    def tile(self) -> float:
        """Cycles of a tile; where sizes come with the call, of one that is short enough for little work too."""
        cycles = self.machine.tile_cycles(self.total)
        return min(cycles, self.machine.short_tile_cycles) if self.nest.is_open else cycles

    @property
    def lane_sums(self) -> int:
        """Additions into one lane of a sum."""
        return self.size(self.inner) // (self.lanes if self.vector in self.inner else 1)

    @property
    def has_long_sums(self) -> bool:
        """Whether sums must be cut to be accurate."""
        return bool(self.nest.reduced) and self.lane_sums > 64 * LANE_SUMS


@dataclass(frozen=True)
class Grid:
    """Fields of a `NestSchedule`."""
    tile: int = 1
    columns: int = 0
    chunk: int = 0
    cut: int = -1
    serial: bool = True
    partials: tuple[Partial, ...] = ()

    def __str__(self) -> str:
        parts = (
            [f"{self.tile} rows"]
            + [f"{self.columns} columns"] * bool(self.columns)
            + [f"{self.chunk} of d{self.cut}"] * bool(self.chunk)
        )
        return " × ".join(parts) + (f", {len(self.partials)} partial results" if self.partials else "")


def grid_ranking(loops: Loops) -> Ranking[Grid]:
    """The grids of a nest, the cheapest first."""
    return ranked(_candidates(loops))


def _candidates(loops: Loops) -> Iterator[Candidate[Grid]]:
    """Those on one thread first: of equals, the one without others."""
    if loops.nest.crossing:
        yield _serial(loops, _crossing(loops, loops.rows))
        for tile in _crossing_tiles(loops):
            yield _parallel("rows", loops, _crossing(loops, tile))
    elif loops.nest.running >= 0:
        yield from _recurrences(loops)
    elif loops.inner[0] == loops.vector and len(loops.inner) > 1:
        yield from _transposing(loops)
    else:
        yield from _divisions(loops)


def _divisions(loops: Loops) -> Iterator[Candidate[Grid]]:
    """Of a nest whose rows are independent of each other."""
    cut = list(dict.fromkeys(_cut(loops, pieces) for pieces in _pieces(loops)))
    for grid in filter(None, cut):
        if loops.has_long_sums:
            yield _serial(loops, grid)
        yield _parallel("rows in parts", loops, grid)
    if not loops.has_long_sums or not any(cut):
        yield _serial(loops, Grid(max(loops.rows, 1)))
        if loops.blocks > 1:
            yield _parallel("columns", loops, Grid(columns=_columns(loops, loops.row)))
        yield _parallel(
            "rows",
            loops,
            Grid(max(1, min(round(loops.tile / loops.line), ceil(loops.rows / 8)))),
        )


def _serial(loops: Loops, grid: Grid) -> Candidate[Grid]:
    return Candidate("one thread", grid, (("work", loops.total),))


def _parallel(name: str, loops: Loops, grid: Grid) -> Candidate[Grid]:
    """Threads take even shares of the tiles, and wait for the last one. Partial results are stored, read, and added
    after another hand-over."""
    machine, cores, tiles = loops.machine, loops.machine.planned_cores, _tiles(loops, grid)
    partials = sum(dtype.itemsize * evaluate(count, loops.values) for dtype, count in grid.partials)
    added = machine.handover_cycles + 2 * partials / machine.l3_bytes_per_cycle / cores if partials else 0.0
    return Candidate(
        name,
        replace(grid, serial=False),
        (
            ("work", loops.total / cores),
            ("hand-over", machine.handover_cycles),
            ("last tile", loops.total / tiles * (1 - 1 / cores)),
            ("partial results", added),
        ),
    )


def _tiles(loops: Loops, grid: Grid) -> int:
    across = ceil(loops.sizes[loops.vector] / grid.columns) if grid.columns else 1
    return (
        ceil(loops.rows / grid.tile) * across * (ceil(loops.sizes[grid.cut] / grid.chunk) if grid.chunk else 1)
    )


def _columns(loops: Loops, block: float) -> int:
    """Elements of the vector dim in a tile; 0 when one tile takes all. block: cycles of one vector of columns."""
    blocks = max(1, round(loops.tile / block))
    return 0 if blocks >= loops.blocks else blocks * loops.lanes


# --- rows that are cut ------------------------------------------------------------------------------------------------

def _pieces(loops: Loops) -> Iterator[int]:
    """Into how many pieces a row may be cut: so that a piece is a tile's work; for few rows of sums, so that all of
    them give tiles enough."""
    machine, others = loops.machine, loops.rows * max(loops.blocks, 1)
    if not loops.inner or loops.stages.count > 1:
        return
    least = (
        ceil(loops.size(loops.inner) / LANE_SUMS / (loops.lanes if loops.vector in loops.inner else 1))
        if loops.has_long_sums
        else 1
    )
    if not loops.nest.reduced:
        yield ceil(loops.row / loops.tile)
        return
    for wanted in (
        loops.row / machine.long_tile_cycles,
        loops.total / machine.long_tile_cycles / max(others / machine.planned_cores, 1),
    ):
        yield min(max(ceil(wanted), least), MAX_CHUNKS)


def _cut(loops: Loops, pieces: int) -> Grid | None:
    """None where the rows stay whole."""
    nest, dim = loops.nest, loops.inner[0]
    # whole vectors, or whole squares
    step = loops.lanes if dim == loops.vector else loops.squares if dim == loops.inner[-1] and loops.squares else 1
    chunk = ceil(loops.sizes[dim] / max(pieces, 1) / step) * step
    if ceil(loops.sizes[dim] / chunk) == 1:
        return None
    chunks = ceil_div(nest.extents[dim], chunk)
    partials = (
        _accumulators(nest, nest.reductions, nest.reduced, lambda n: chunks * nest.size(nest.kept))
        if nest.reduced
        else ()
    )
    return Grid(1, _columns(loops, loops.row / ceil(loops.sizes[dim] / chunk)), chunk, dim, partials=partials)


# --- recurrences ------------------------------------------------------------------------------------------------------

def _recurrences(loops: Loops) -> Iterator[Candidate[Grid]]:
    """Tiles of what runs side by side, each with all steps; nothing cuts these. Without inner loops each vector runs
    alone, and what it carries is in registers. Else a step is one of the whole tile, whose state stays in L1."""
    if not loops.inner:
        found = [_serial(loops, Grid(max(loops.rows, 1))),
                 _parallel("rows", loops, Grid(max(1, min(round(loops.tile / loops.line), loops.rows))))]
        if loops.blocks > 1:
            found.insert(1, _parallel("columns", loops, Grid(columns=_columns(loops, loops.row))))
    else:
        found = list(_side_by_side(loops))
    yield from (_with_chain(candidate, loops) for candidate in found)


def _side_by_side(loops: Loops) -> Iterator[Candidate[Grid]]:
    state = STATE_BYTES * loops.size(loops.inner) * (loops.lanes if loops.blocks else 1)
    held = max(1, loops.machine.l1_bytes // 2 // state)
    if not loops.nest.reduced:
        least = ceil(2 * state / loops.machine.l1_bytes)
        yield _serial(loops, _cut(loops, least) or Grid(min(held, max(loops.rows, 1))))
        runs = loops.size(loops.inner) * f32.itemsize // STREAM_RUN_BYTES
        for pieces in dict.fromkeys((ceil(loops.row / loops.tile), runs)):
            parts = _cut(loops, max(pieces, least))
            if parts:
                yield _parallel("rows in parts", loops, parts)
    columns = min(held, max(1, round(loops.tile / loops.row))) * loops.lanes if loops.blocks > 1 else 0
    most = 1 if columns else min(held, max(loops.rows, 1))
    if loops.nest.reduced:
        yield _serial(loops, Grid(most, columns))
    yield _parallel("columns" if columns else "rows", loops,
                    Grid(max(1, min(round(loops.tile / loops.line), most)), columns))


def _with_chain(candidate: Candidate[Grid], loops: Loops) -> Candidate[Grid]:
    """With what a step waits for the one before it, and for memory that is not next to that of the one before."""
    grid = candidate.schedule
    chains = _tiles(loops, grid) if loops.inner else loops.rows * max(loops.blocks, 1)
    along = loops.vector >= 0 and loops.vector == loops.nest.running
    cycles = STATE_CYCLES if loops.inner else LANES_CYCLES if along else CHAIN_CYCLES
    cores = 1 if grid.serial else loops.machine.planned_cores
    far = 0 if loops.inner or chains == 1 or along else FAR_CYCLES * chains * loops.steps
    waits = max(0.0, cycles * chains * loops.steps - loops.total)
    return replace(candidate, terms=(*candidate.terms, ("chain", waits / cores), ("far lines", far / cores),
                                     ("short runs", _short_runs(loops, grid) / cores)))


def _short_runs(loops: Loops, grid: Grid) -> float:
    """What is fetched in vain behind the pieces of rows that each step of a tile, or of a vector that runs alone, reads
    and writes, where these come from beyond L2."""
    if loops.vector == loops.nest.running or loops.moved <= loops.machine.l2_bytes:
        return 0.0
    columns = loops.lanes if loops.blocks and not loops.inner else grid.columns or loops.lanes * loops.blocks
    elements = grid.chunk or loops.size(loops.inner) * max(1, columns)
    return loops.moved / (elements * f32.itemsize) * PIECE_LOSS / loops.machine.memory_bytes_per_cycle


# --- special nests ----------------------------------------------------------------------------------------------------

def _transposing(loops: Loops) -> Iterator[Candidate[Grid]]:
    """Blocks of the other dim, along which an input is contiguous. A tile has one; or, of matrices that are no larger,
    as many as are its work. Where blocks are one and a rest, a tile has a part of the vectors of all."""
    dim, hidden = loops.inner[1], loops.flops >= FAR_STORE_CYCLES
    # short blocks have nothing to gain where arithmetic hides the stores, and begin more steps along the vectors
    chunks = [b if loops.sizes[dim] > b else 0 for b in TRANSPOSE_BLOCKS[:1 if hidden else None]]
    few = max(1, min(round(loops.tile / loops.line), ceil(loops.rows / 8)))
    for chunk in chunks:
        yield _with_far_stores(_serial(loops, Grid(max(loops.rows, 1), 0, chunk, dim)), loops)
    for chunk in chunks:
        yield _with_far_stores(_parallel("rows", loops, Grid(1 if chunk else few, 0, chunk, dim)), loops)
    part = ceil(loops.sizes[loops.vector] / ceil(loops.line / loops.tile) / loops.lanes) * loops.lanes
    if part < loops.sizes[loops.vector] and loops.sizes[dim] < 2 * TRANSPOSE_BLOCKS[0]:
        yield _with_far_stores(_parallel("rows in parts", loops, Grid(1, 0, part, loops.vector)), loops)


def _with_far_stores(candidate: Candidate[Grid], loops: Loops) -> Candidate[Grid]:
    """With what stores wait for the places of pages, where rows that are written side by side lie in too many."""
    grid, cycles = candidate.schedule, 0.0
    rows = grid.chunk if grid.cut == loops.inner[1] and grid.chunk else loops.sizes[loops.inner[1]]
    if min(rows, rows * loops.apart // PAGE_BYTES) > NEAR_PAGES:
        vectors = loops.rows * loops.size(loops.inner) / loops.lanes
        cycles = max(0, FAR_STORE_CYCLES - loops.flops) * vectors
    cores = 1 if grid.serial else loops.machine.planned_cores
    return replace(candidate, terms=(*candidate.terms, ("far stores", cycles / cores)))


def _crossing_tiles(loops: Loops) -> list[int]:
    """Tiles are long where each has a row of accumulators, which are added up afterwards; or as long as cores have even
    shares of few."""
    least = CROSS_ROWS if loops.nest.is_open else 1
    cycles = loops.machine.long_tile_cycles if loops.nest.wide else loops.tile
    first = max(least, round(cycles / loops.row), ceil(loops.rows / MAX_TILES))
    shares = loops.machine.planned_cores, 2 * loops.machine.planned_cores, loops.machine.planned_tiles
    others = [max(least, ceil(loops.rows / n)) for n in shares] if loops.nest.wide else []
    return list(dict.fromkeys([first, *[n for n in others if n > first]]))


def _crossing(loops: Loops, tile: int) -> Grid:
    """Tiles of rows, each with a row of accumulators of its own."""
    nest, tile = loops.nest, min(tile, LANE_SUMS)
    tiles = ceil_div(nest.size(loops.outer), tile)
    return Grid(
        tile,
        partials=_accumulators(
            nest, nest.crossing, nest.crossed, lambda n: tiles * (nest.size(loops.inner) if n in nest.wide else 1)
        ),
    )


def _accumulators(nest: Nest, reductions: Collection[Node], dims: Iterable[int],
                  size: Callable[[Node], Dim]) -> tuple[Partial, ...]:
    """Buffers of so many elements for the accumulators of reductions over `dims`, in order of the body."""
    result: list[Partial] = []
    for node in nest.body.nodes:
        if node in reductions:
            dtypes = (node.inputs[0].type.dtype,
                      nest.counter(dims)) if isinstance(node.op, ArgExtremum) else (node.outputs[0].type.dtype,)
            result += [(d, size(node)) for d in dtypes]
    return tuple(result)
