"""Tiles of an image, transformed a few channels at a time: read directly inside the image, through a copy padded with
zeros at its border.
"""
from __future__ import annotations

from dataclasses import replace
from functools import cache

from graphc.codegen.loops.builder import LoopFunction, Val, View
from graphc.codegen.loops.index import ELEMENTS, Ix, as_ix
from graphc.codegen.lower.contraction.micro_kernel import ANY
from graphc.codegen.lower.ranges import vector_run
from graphc.codegen.lower.winograd.transform import TransformSpec, transform_kernel
from graphc.ir.dims import Dim, typical
from graphc.ir.size_proofs import is_nonnegative
from graphc.records import dataclass
from graphc.schedule.contraction_schedule import round_up
from graphc.schedule.target import LINE_BYTES
from graphc.schedule.view import ViewType

CHANNEL = 1                         # axis of an image


@dataclass(frozen=True)
class Channels:
    """`count` channels from `first` on, `most` at most."""
    first: Ix
    count: Ix
    most: int


def whole_vectors(f: LoopFunction, count: Ix, lanes: int) -> Ix:
    """The least multiple of `lanes` that is not below the count."""
    return count if count.divisor() % lanes == 0 else f.divmod(count + (lanes - 1), lanes)[0] * lanes


@dataclass(frozen=True)
class Tiles:
    """The tiles of image [N, C, H, W], `spec.m` apart, that begin `before` the image's corner. spec: the transform,
    without mask.
    """
    f: LoopFunction
    image: View
    grid: tuple[Dim, Dim]
    before: tuple[int, int]
    spec: TransformSpec

    @property
    def count(self) -> Dim:
        return self.image.shape[0] * self.grid[0] * self.grid[1]

    @property
    def side(self) -> int:
        """Elements along a side of a tile."""
        return len(self.spec.rows[0])

    def position(self, tile: Ix) -> tuple[Ix, Ix, Ix]:
        """Image, row and column of a tile."""
        rest, j = self.f.divmod(tile, self.grid[1])
        n, i = self.f.divmod(rest, self.grid[0])
        return n, i, j

    def transform(self, tile: Ix, channels: Channels, target: View, plane: Ix | int) -> None:
        """Whole vectors of channels to `target`, points `plane` apart."""
        f, m = self.f, self.spec.m
        n, i, j = self.position(tile)
        corner = [i * m - self.before[0], j * m - self.before[1]]
        inside = self._inside(corner)
        if inside is None:
            return self._transform_copy(n, corner, channels, target, plane)
        with f.if_(inside):
            ragged = self.image.shape[CHANNEL] % self.spec.lanes != 0
            down, across = self.image.strides[2:]
            self._call(self.image.view_at([n, channels.first, *corner], (1,), (1,)), (down, across), channels,
                       target, plane, ragged)
        with f.else_():
            self._transform_copy(n, corner, channels, target, plane)

    def prefetch(self, tile: Ix, channels: Channels) -> None:
        """The pixels that a tile does not share with those before it, or the last tile; nothing where neighbours in
        memory are not channels, whose lines hold those of several tiles."""
        f, m, sizes = self.f, self.spec.m, self.image.shape[2:]
        if self.image.strides[CHANNEL] != 1:
            return
        n, *corner = self.position(f.min_(tile, self.count - 1))
        with f.loop(0, m) as down, f.loop(0, m) as across:
            shared = self.side - m
            at = [f.max_(f.min_(i * m - before + shared + step.index, size - 1), 0)
                  for i, before, step, size in zip(corner, self.before, (down, across), sizes)]
            for channel in range(0, channels.most, LINE_BYTES // self.spec.dtype.itemsize):
                f.prefetch(self.image, [n, channels.first + channel, *at], level=2)

    def transform_all(self, tile: Ix, channels: int, target: View, plane: int) -> None:
        """The same of all channels, by a function: loops for few tiles and for many share it, and all convolutions of
        such images."""
        x = ViewType(self.image.dtype, self.image.shape, self.image.strides)
        self.f.call(_all_channels(x, self.grid, self.before, self.spec, channels),
                    [self.image, target, tile, as_ix(plane)])

    def _inside(self, corner: list[Ix]) -> Val | None:
        """Whether a tile can be read in place; None: none can, of images of typical sizes."""
        f, m, sizes = self.f, self.spec.m, self.image.shape[2:]
        some = all(-(-before // m) * m - before + self.side <= typical(size)
                   for before, size in zip(self.before, sizes))
        if not some or self.image.strides[CHANNEL] != 1 or not all(map(is_nonnegative, self.image.strides)):
            return None
        low = [f.ge(f.value(at), 0) for at in corner]
        high = [f.le(f.value(at), f.value(size - self.side)) for at, size in zip(corner, sizes)]
        return f.and_(f.and_(*low), f.and_(*high))

    def _call(self, source: View, steps: tuple[Dim, Dim], channels: Channels, target: View, plane: Ix | int,
              masked: bool = False) -> None:
        whole = whole_vectors(self.f, channels.count, self.spec.lanes)
        self.f.call(transform_kernel(replace(self.spec, masked=masked)),
                    [source, target, whole, *map(as_ix, steps), as_ix(plane), *[channels.count] * masked])

    def _transform_copy(self, n: Ix, corner: list[Ix], channels: Channels, target: View, plane: Ix | int) -> None:
        # with room for a masked vector behind the last whole one
        f, row = self.f, round_up(channels.most + 1, self.spec.lanes)
        copy = f.scratch("border", self.spec.dtype, (self.side, self.side, row))
        with f.loop(0, self.side) as down, f.loop(0, self.side) as across:
            at = [corner[0] + down.index, corner[1] + across.index]
            self._copy_pixel(n, at, channels, copy.view_at([down.index, across.index, 0], (row,), (1,)))
        self._call(f.reinterpret(copy, (1,), (1,)), (self.side * row, row), channels, target, plane)

    def _copy_pixel(self, n: Ix, at: list[Ix], channels: Channels, target: View) -> None:
        f, lanes, sizes = self.f, self.spec.lanes, self.image.shape[2:]
        inside = [test for ix, size in zip(at, sizes)
                  for test in (f.ge(f.value(ix), 0), f.lt(f.value(ix), f.value(size)))]
        place = [f.max_(f.min_(ix, size - 1), 0) for ix, size in zip(at, sizes)]
        pixel = self.image.view_at([n, channels.first, *place], (channels.most,), (self.image.strides[CHANNEL],))
        with f.if_(f.and_(f.and_(*inside[:2]), f.and_(*inside[2:]))):
            vector_run(f, as_ix(channels.count), lanes,
                       lambda c, lanes, mask: f.store(target, [c], f.load(pixel, [c], lanes, mask)))
        with f.else_(), f.loop(0, target.shape[0], lanes) as loop:
            f.store(target, [loop.index], f.const(0, self.spec.dtype, lanes))


@cache
def _all_channels(image: ViewType, grid: tuple[Dim, Dim], before: tuple[int, int], spec: TransformSpec,
                  channels: int) -> LoopFunction:
    """Views: image, target. Integers: number of the tile, elements between points of the target."""
    f = LoopFunction(f"{spec.name}_of_{channels}_{image}_{before}_{grid}")
    x = f.view("x", image.dtype, image.shape, image.strides)
    target = f.view("target", spec.dtype, (ANY,), (1,))
    tiles = Tiles(f, x, grid, before, spec)
    tile, plane = f.param("tile", 0, tiles.count - 1), f.param("plane", 0, ELEMENTS)
    tiles.transform(tile, Channels(Ix(), Ix(channels), channels), target, plane)
    return f
