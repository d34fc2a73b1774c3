"""Chooses blocks of tiles and groups of features of Winograd convolutions, and the tiles of their weights' transform."""
from __future__ import annotations

from math import gcd, prod

from graphc.ir.ops.winograd import grid
from graphc.ir.types import DType
from graphc.schedule.contraction_context import SMALL_FLOPS, TILES, ContractionContext, even
from graphc.schedule.kernel_problem import KernelProblem
from graphc.schedule.register_tiles import register_tile
from graphc.schedule.target import Target
from graphc.schedule.winograd_schedule import WeightsSchedule, WinogradGradSchedule, WinogradSchedule

ROWS = 24                       # tiles per block: the reuse count of each transformed weight once it is in registers
SUMS = 512                      # channels in a block of the sum: a panel of weights stays in L1, or streams from L2
GRADIENT_BLOCK = 64             # channels and features of a task of the gradient towards kernels: its sums stay in L2
GRADIENT_ROWS = 48              # tiles that it transforms at a time
SERIAL_KERNELS = 4096           # fewer kernels than this are not worth waking other threads for their transform


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


def winograd_schedule(p: KernelProblem) -> WinogradSchedule:
    """A pure function of operator, shapes and target."""
    (x, u), y, target = p.ins[:2], p.outs[0].shape, p.target
    n, features, *_ = y
    rows, columns = grid(y, p.core.op.tile)
    tiles, channels, points = n * rows * columns, x.shape[1], u.shape[0]
    lanes = _lanes(u.shape[3], x.dtype, target)
    vectors = u.shape[3] // lanes
    mr = _register_rows(tiles, vectors, target)
    flops = 2 * points * tiles * channels * features
    tasks = max(1, min(TILES, flops // SMALL_FLOPS))
    block = even(tiles, min(tiles, ROWS, max(mr, tiles * u.shape[1] / tasks)), mr)
    blocks = -(-tiles // block)
    local = blocks >= TILES and (_bytes(x.dtype, points, block, channels + features) <= target.l2 or _bytes(x.dtype, points, tiles, channels) > target.l3)
    groups = 1 if local else max(1, min(2 * TILES, flops // SMALL_FLOPS) // blocks)
    panels = even(u.shape[1], max(1, u.shape[1] / groups), 1)
    sums = -(-channels // -(-channels // SUMS))
    return WinogradSchedule(mr, vectors, lanes, block, panels, sums, blocks, -(-u.shape[1] // panels), points, channels,
                            panels < u.shape[1], x.dtype)


def _bytes(dtype: DType, points: int, tiles: int, channels: int) -> int:
    """Of transformed tiles. They stay in L2 while a block is worked on; tiles of all the image are not kept where even L3 would not hold them."""
    return points * tiles * channels * dtype.itemsize


def weights_schedule(p: KernelProblem) -> WeightsSchedule:
    """A pure function of shapes and target."""
    outs, target = p.outs, p.target
    _, panels, channels, width = outs[0].shape
    serial, stream = panels * channels * width < SERIAL_KERNELS, prod(outs[0].shape) * outs[0].dtype.itemsize > target.l3 // 2
    return WeightsSchedule(1, serial, _lanes(width, outs[0].dtype, target), stream=stream)


def gradient_schedule(p: KernelProblem) -> WinogradGradSchedule:
    """A pure function of operator, shapes and target."""
    (x, dy), outs, op, target = p.ins[:2], p.outs, p.core.op, p.target
    lanes = target.lanes(x.dtype.itemsize)
    tiles, points = prod((dy.shape[0], *grid(dy.shape, op.tile))), (op.tile + 2)**2
    mr, vectors = gradient_tile(x.dtype, target)
    rows = -(-tiles // -(-tiles // GRADIENT_ROWS))
    blocks = -(-tiles // rows)
    worth = min(TILES // 4, 2 * points * tiles * x.shape[1] * dy.shape[1] // SMALL_FLOPS)
    most = next((size for size in (GRADIENT_BLOCK, GRADIENT_BLOCK // 2) if blocks * _squares(x.shape[1], dy.shape[1], size) >= worth), GRADIENT_BLOCK // 2)
    channels = even(x.shape[1], min(x.shape[1], most), lanes)
    features = even(dy.shape[1], min(dy.shape[1], most), vectors * lanes)
    tasks = -(-x.shape[1] // channels) * -(-dy.shape[1] // features)
    share = -(-blocks // max(1, min(blocks, TILES // tasks)))
    return WinogradGradSchedule(mr, vectors, lanes, rows, channels, features, blocks, -(-blocks // share), points, prod(outs[0].shape), x.dtype)


def _squares(channels: int, features: int, size: int) -> int:
    return -(-channels // size) * -(-features // size)


def gradient_tile(dtype: DType, target: Target) -> tuple[int, int]:
    """The register tile of large products."""
    vectors = panel_width(1 << 10, 1 << 10, dtype, target) // target.lanes(dtype.itemsize)
    return target.tile_rows(vectors), vectors
