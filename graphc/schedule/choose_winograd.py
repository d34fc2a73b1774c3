"""Chooses blocks of tiles and groups of features of Winograd convolutions, and the tiles of their weights'
transform.
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import gcd, prod

from graphc.ir.dims import Dim, ceil_div, product_of, static_dim, static_shape, typical
from graphc.ir.ops.winograd import WinogradConv2d, WinogradWeightGrad, WinogradWeights, grid
from graphc.ir.types import DType
from graphc.ir.winograd import TAPS
from graphc.records import dataclass
from graphc.schedule.contraction_context import ContractionContext, even
from graphc.schedule.contraction_schedule import STEPS
from graphc.schedule.cost import Candidate, ranked
from graphc.schedule.kernel_problem import KernelProblem
from graphc.schedule.register_tiles import register_tile
from graphc.schedule.target import LINE_BYTES, Target
from graphc.schedule.view import ViewType, view_bytes
from graphc.schedule.winograd_schedule import FewTiles, WeightsSchedule, WinogradGradSchedule, WinogradSchedule

ROWS = 24                       # tiles per block: the reuse count of each transformed weight once it is in registers
SUMS = 512                      # channels in a block of the sum: a panel of weights stays in L1, or streams from L2
GRADIENT_BLOCK = 64             # channels and features of a task of the gradient towards kernels: its sums stay in L2
GRADIENT_TILES = 48              # tiles that it transforms at a time
AHEAD = 2                       # tiles whose transforms take about as long as memory takes to answer
FURTHER = 4                     # times as many tiles have, perhaps, a division of their own
COUNTS = 8                      # numbers of tiles, about, that are counted with, from none to the most of a division
WORTH = 1.1                     # how much faster few tiles must be that are divided otherwise
OPEN_SHARE = 8                  # blocks of tiles that a task takes of those whose number comes with the call


@dataclass(frozen=True)
class ConvolutionSizes:
    """A convolution at stride 1: channels of the image, features, height and width of the result."""
    channels: int
    features: int
    batch: int
    height: int
    width: int
    dtype: DType

    def tiles(self, m: int) -> int:
        """Tiles of m × m results."""
        return self.batch * -(-self.height // m) * -(-self.width // m)

    @property
    def kernel_elements(self) -> int:
        return self.channels * self.features * TAPS * TAPS

    @property
    def window_elements(self) -> int:
        """What a pixel of the result is made of."""
        return self.channels * TAPS * TAPS


def panel_width(tiles: int, features: int, dtype: DType, target: Target) -> int:
    """Features of a panel of weights: the columns of the register tile."""
    context = ContractionContext(target, dtype.itemsize, target.lanes(dtype.itemsize), (False, False))
    return register_tile(tiles, features, context, padded=True)[1] * context.lanes


def _lanes(width: int, dtype: DType, target: Target) -> int:
    """Of vectors that panels of `width` features are made of: those that `panel_width` chose have the target's."""
    return gcd(width, target.lanes(dtype.itemsize))


def _register_rows(tiles: int, vectors: int, target: Target) -> int:
    """As many as registers hold, but no more than divide few tiles evenly."""
    most = max(1, target.tile_rows(vectors))
    tiles = min(tiles, ROWS)
    return -(-tiles // -(-tiles // most))


def winograd_schedule(p: KernelProblem[WinogradConv2d]) -> WinogradSchedule:
    """A pure function of operator, shapes and target."""
    (x, u), y, target = p.ins[:2], p.outs[0].shape, p.target
    count = product_of((y[0], *grid(y, p.core.op.tile)))
    points, pieces, _, width = static_shape(u.shape)
    tiles, channels, features = typical(count), static_dim(x.shape[1]), static_dim(y[1])
    lanes = _lanes(width, x.dtype, target)
    vectors = width // lanes
    mr = _register_rows(tiles, vectors, target)
    flops = 2 * points * tiles * channels * features
    most, small = target.machine.planned_tiles, target.machine.small_product_flops
    tasks = max(1, min(most, flops // small))
    block = even(tiles, min(tiles, ROWS, max(mr, tiles * pieces / tasks)), mr)
    blocks = -(-tiles // block)
    local = blocks >= most and (_bytes(x.dtype, points, block, channels + features) <= target.machine.l2_bytes
                                or _bytes(x.dtype, points, tiles, channels) > target.machine.l3_bytes)
    groups = 1 if local else max(1, min(2 * most, flops // small) // blocks)
    panels = even(pieces, max(1, pieces / groups), 1)
    sums = -(-channels // -(-channels // SUMS))
    kept = _bytes(x.dtype, points, features, channels) <= target.machine.l2_bytes // 2
    s = WinogradSchedule(mr, vectors, lanes, block, panels, sums, ceil_div(count, block), -(-pieces // panels),
                         points, channels, panels < pieces, x.dtype,
                         0 if kept else _prefetch_lines(width * x.dtype.itemsize, -(-block // mr)),
                         0 if kept else _prefetch_lines(width * x.dtype.itemsize, 1), ahead=_ahead(target, x))
    return s if isinstance(count, int) else replace(s, few=_few_tiles(s, pieces, target))


def _ahead(target: Target, *images: ViewType) -> int:
    """How many tiles ahead of their transform those of images are prefetched, which the hardware does not foresee: the
    rows of a tile are in as many pages."""
    return AHEAD if target.machine.is_worth_fetching(sum(map(view_bytes, images))) else 0


def _few_tiles(s: WinogradSchedule, pieces: int, target: Target) -> tuple[FewTiles, ...]:
    """For one block of tiles, four, sixteen … as long as that gives too few for all planned tasks: how they are divided
    best, as far as that is worth loops of their own. More than a quarter as many are counted with as are meant at
    most."""
    whole = FewTiles(0, s.rows, s.panels)
    panels = dict.fromkeys(-(-pieces // groups) for groups in range(1, pieces + 1))
    found: list[FewTiles] = []
    levels = target.machine.planned_tiles.bit_length() // FURTHER.bit_length() + 1
    for most in [s.rows * FURTHER**i for i in reversed(range(levels))]:
        counts = range(most // FURTHER + 1, most + 1, -(-most // COUNTS))

        def cycles(draft: FewTiles, shared: bool = False) -> float:
            return sum([_few_cycles(s, draft, n, pieces, target, shared) for n in counts])
        best = min([FewTiles(most, rows, n) for rows in range(s.mr, s.rows + 1, s.mr) for n in panels], key=cycles)
        others = cycles(found[0]) if found else cycles(whole, s.shared)
        if WORTH * cycles(best) < others:
            found.insert(0, best)
    return tuple(found)


def _few_cycles(s: WinogradSchedule, few: FewTiles, tiles: int, pieces: int, target: Target,
                shared: bool = False) -> float:
    """What so many tiles cost that are divided so: rounds of tasks on the planned cores. Weights are read for each
    task, from L3, or for a core's next tasks from L2, if it keeps them. shared: tiles are transformed before all tasks.
    """
    machine, rows, width = target.machine, min(few.rows, tiles), few.panels * s.nr
    tasks = -(-tiles // few.rows) * -(-pieces // few.panels)
    transform = machine.transform_point_cycles * s.points / s.lanes
    products = rows * s.points * s.channels * width / s.lanes / machine.fma_per_cycle / machine.micro_kernel_peak
    calls = machine.call_cycles * s.points * -(-rows // s.mr) * few.panels
    own = calls + transform * rows * (width + (0 if shared else s.channels))
    weights = s.points * s.channels * width * s.dtype.itemsize
    kept = weights <= machine.l2_bytes // 2
    first, again = (products + weights / rate + own for rate in (
        machine.l3_bytes_per_cycle, machine.l2_bytes_per_cycle if kept else machine.l3_bytes_per_cycle))
    before = transform * tiles * s.channels / machine.planned_cores + machine.handover_cycles if shared else 0
    return before + first + again * (-(-tasks // machine.planned_cores) - 1)


def _prefetch_lines(row_bytes: int, register_tiles: int) -> int:
    """For each register tile: those of a block together prefetch the next panel of weights, which have so many bytes
    for each channel. Else the first tile of each panel would wait for memory, which would have nothing to do while the
    others compute."""
    return -(-row_bytes * STEPS // (register_tiles * LINE_BYTES))


def _bytes(dtype: DType, points: int, tiles: int, channels: int) -> int:
    """Of transformed tiles. They stay in L2 while a block is worked on; tiles of all the image are not kept where even
    L3 would not hold them.
    """
    return points * tiles * channels * dtype.itemsize


def weights_schedule(p: KernelProblem[WinogradWeights]) -> WeightsSchedule:
    """A pure function of shapes and target."""
    u, machine = p.outs[0], p.target.machine
    shape = static_shape(u.shape)
    lanes, nbytes = _lanes(shape[3], u.dtype, p.target), prod(shape) * u.dtype.itemsize
    total, cores = machine.transform_point_cycles * prod(shape) / lanes, machine.planned_cores
    alone = WeightsSchedule(serial=True, lanes=lanes, stream=nbytes > machine.l3_bytes // 4)
    ranking = ranked((
        Candidate("one thread", alone, (("work", total),)),
        Candidate("tiles of rows", replace(alone, serial=False), (
            ("work", total / cores), ("hand-over", machine.handover_cycles)))))
    return replace(ranking.best.schedule, ranking=ranking)


def gradient_schedule(p: KernelProblem[WinogradWeightGrad]) -> WinogradGradSchedule:
    """A pure function of operator, shapes and target. Each of several shards adds its tiles in the order in which it
    does so alone."""
    (x, dy), outs, op, target = p.ins[:2], p.outs, p.core.op, p.target
    lanes = target.lanes(x.dtype.itemsize)
    number = static_dim(dy.shape[0]) // op.shards if op.additions else dy.shape[0]
    count, points = product_of((number, *grid(dy.shape, op.tile))), (op.tile + 2)**2
    images, height, width = typical(number), typical(dy.shape[2]), typical(dy.shape[3])
    c = ConvolutionSizes(static_dim(x.shape[1]), static_dim(dy.shape[1]), images, height, width, x.dtype)
    tiles, known = typical(count), isinstance(count, int)
    mr, vectors = gradient_tile(x.dtype, target)
    rows = -(-tiles // -(-tiles // GRADIENT_TILES)) if known else GRADIENT_TILES
    ranking = ranked(_gradient_candidates(c, op.tile, -(-tiles // rows), target))
    _, parts = ranking.best.schedule
    if op.additions:
        ranking = ranked(_candidates_at_once(c, op.tile, op.shards, parts, target))
    most, _ = ranking.best.schedule
    channels = even(c.channels, min(c.channels, most), lanes)
    features = even(c.features, min(c.features, most), vectors * lanes)
    blocks = ceil_div(count, rows)
    share = _share(blocks, parts if isinstance(blocks, int) else _most_parts(c, most, target))
    kernels = prod(static_shape(outs[0].shape))
    return WinogradGradSchedule(mr, vectors, lanes, rows, channels, features, blocks, share, points, kernels, x.dtype,
                                4 * kernels * x.dtype.itemsize > target.machine.l3_bytes, op.shards,
                                _ahead(target, x, dy), ranking)


def _share(blocks: Dim, parts: int) -> Dim:
    """Blocks of tiles for each of about so many parts. Of a number of blocks that comes with the call always as many,
    so that sums are added in an order that does not depend on it."""
    if parts == 1:
        return blocks
    if not isinstance(blocks, int):
        return OPEN_SHARE
    share = -(-blocks // min(blocks, parts))
    return -(-blocks // -(-blocks // share))


def _gradient_candidates(c: ConvolutionSizes, m: int, blocks: int,
                         target: Target) -> Iterator[Candidate[tuple[int, int]]]:
    """(channels and features of a task, parts of the tiles). Larger blocks transform less often, smaller ones and more
    parts share the work among more threads; each part makes all kernels, which are written, read and added."""
    made = _made(c, m, target) + _moved(c, target)
    for size, tasks, products, transforms in _in_blocks(c, m, target):
        most = min(blocks, _most_parts(c, size, target))
        for parts in sorted({-(-blocks // -(-blocks // parts)) for parts in range(1, most + 1)}):
            yield _gradient(f"blocks of {size}, tiles in {parts}", (size, parts), (products, transforms, parts * made),
                            tasks * parts, target)


def _candidates_at_once(c: ConvolutionSizes, m: int, shards: int, parts: int,
                        target: Target) -> Iterator[Candidate[tuple[int, int]]]:
    """The same for the sum over several shards, whose parts are those of a shard alone: a task has all of them."""
    made = shards * parts * _made(c, m, target) + _moved(c, target)
    for size, tasks, products, transforms in _in_blocks(c, m, target):
        work = shards * products, shards * transforms, made
        yield _gradient(f"blocks of {size}", (size, parts), work, tasks, target)


def _in_blocks(c: ConvolutionSizes, m: int, target: Target) -> Iterator[tuple[int, int, float, float]]:
    """(channels and features of a task, tasks for all of them, cycles of products and of transforms)."""
    machine, lanes, points = target.machine, target.lanes(c.dtype.itemsize), (m + 2)**2
    multiply_adds = points * c.tiles(m) * c.channels * c.features
    products = multiply_adds / (lanes * machine.fma_per_cycle) / machine.micro_kernel_peak
    for size in (GRADIENT_BLOCK, GRADIENT_BLOCK // 2):
        down, across = -(-c.channels // size), -(-c.features // size)
        passes = -(-c.channels // lanes) * across + -(-c.features // lanes) * down
        yield size, down * across, products, machine.transform_point_cycles * points * c.tiles(m) * passes


def _made(c: ConvolutionSizes, m: int, target: Target) -> float:
    """Cycles of the transform of all kernels."""
    return target.machine.transform_point_cycles * (m + 2)**2 * c.channels * c.features / target.lanes(c.dtype.itemsize)


def _moved(c: ConvolutionSizes, target: Target) -> float:
    """Cycles in which they are written and read."""
    return 2 * c.kernel_elements * c.dtype.itemsize / target.machine.l3_bytes_per_cycle


def _gradient(name: str, choice: tuple[int, int], work: tuple[float, float, float], tasks: int,
              target: Target) -> Candidate[tuple[int, int]]:
    """work: cycles of products, of transforms, and of kernels that are made."""
    cores = target.machine.planned_cores
    terms = tuple(zip(("products", "transforms", "kernels made"), (cycles / cores for cycles in work)))
    return Candidate(name, choice, (*terms, ("last task", (work[0] + work[1]) / tasks * (1 - 1 / cores))))


def _most_parts(c: ConvolutionSizes, size: int, target: Target) -> int:
    """As many as give each of the planned threads its tasks."""
    return max(1, target.machine.planned_tiles // (-(-c.channels // size) * -(-c.features // size)))


def gradient_tile(dtype: DType, target: Target) -> tuple[int, int]:
    """The register tile of large products."""
    vectors = panel_width(1 << 10, 1 << 10, dtype, target) // target.lanes(dtype.itemsize)
    return target.tile_rows(vectors), vectors
