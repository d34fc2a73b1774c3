"""The gradient towards the kernels of a convolution, in Winograd's form.

    for each block of channels, block of features, part of the tiles, in parallel:
        for each block of tiles: Bᵀ d B and A dY Aᵀ                        (tiles)
            for each point: the sum over tiles of their products, by the micro-kernel of contractions
        Gᵀ S G of each kernel, turned so that those of a feature lie side by side; epilogue and store
    (parts of the tiles: kernels go to shared scratch; they are added in order; epilogue and store;
    of several shards: Gᵀ S G for each, added in the order of their tree as soon as both terms are there)
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod

from graphc.codegen.loops.builder import LoopFunction, Val, View
from graphc.codegen.loops.index import Ix
from graphc.codegen.lower.contraction.epilogue import Epilogue, plain_epilogue_of
from graphc.codegen.lower.contraction.micro_kernel import (
    ColumnLayout, ColumnPanel, MicroTileShape, MicroTileSums, RowLayout, RowPanel, call_micro_kernel)
from graphc.codegen.lower.ranges import vector_run
from graphc.codegen.lower.request import KernelRequest
from graphc.codegen.lower.transpose import transposed, turn
from graphc.codegen.lower.winograd.tiles import Channels, Tiles, whole_vectors
from graphc.codegen.lower.winograd.transform import TransformSpec, transform_kernel
from graphc.ir.dims import Dim, Sizes, static_dim, static_shape
from graphc.ir.ops.winograd import WinogradWeightGrad, grid
from graphc.ir.winograd import TAPS
from graphc.records import dataclass
from graphc.schedule.contraction_schedule import round_up
from graphc.schedule.winograd_schedule import WinogradGradSchedule

KERNEL = TAPS * TAPS
DENSE = (KERNEL, TAPS, 1)           # strides of the kernels of a feature


def lower_weight_gradient(r: KernelRequest[WinogradGradSchedule, WinogradWeightGrad]) -> LoopFunction:
    """A function of the views ins = [x, dy, *extra], outs, and (if the tiles are split) one 1-D view of shared
    scratch.
    """
    f, s = LoopFunction(r.function_name), r.schedule
    x, dy, *_ = [f.view(f"in{i}", v.dtype, v.shape, v.strides) for i, v in enumerate(r.ins)]
    outputs = tuple(f.view(f"out{i}", v.dtype, v.shape, v.strides) for i, v in enumerate(r.outs))
    partials = f.view("shared", s.dtype, (s.splits * s.kernels,)) if s.splits != 1 else None
    _WeightGrad(f, r.op, s, x, dy, outputs, partials, plain_epilogue_of(r), r.target.has_fma).run()
    return f


@dataclass(frozen=True)
class _Task:
    """What a task makes: its channels, its features, its part of the tiles."""
    channels: Channels
    features: Channels
    part: Ix


@dataclass(frozen=True)
class _WeightGrad:
    f: LoopFunction
    op: WinogradWeightGrad
    s: WinogradGradSchedule
    x: View
    dy: View
    outs: tuple[View, ...]
    partials: View | None
    epilogue: Epilogue | None
    fused: bool

    def spec(self, matrix: str) -> TransformSpec:
        return TransformSpec(self.s.dtype, self.op.tile, matrix, self.s.lanes, fused=self.fused)

    @property
    def image(self) -> Tiles:
        (above, _), (left, _) = self.op.padding
        return Tiles(self.f, self.x, grid(self.dy.shape, self.op.tile), (above, left), self.spec("bt"))

    @property
    def result(self) -> Tiles:
        return Tiles(self.f, self.dy, grid(self.dy.shape, self.op.tile), (0, 0), self.spec("a"))

    @property
    def shape(self) -> Sizes:
        return static_shape(self.outs[0].shape)

    def run(self) -> None:
        f, s = self.f, self.s
        features, channels = self.shape[:2]
        down, across = -(-channels // s.channels), -(-features // s.features)
        with f.parallel(down * across * s.splits, "kernels") as t:
            rest, part = f.divmod(t, s.splits)
            i, j = f.divmod(rest, across)
            task = _Task(self._block(i, s.channels, channels), self._block(j, s.features, features), part)
            taps = self.taps(task)
            if self.is_even:
                self.store_turned(task, taps)
            else:
                self.finish(task, self.turned(task, taps))
        partials = self.partials
        if partials is not None:
            with f.parallel(features, "add") as feature:
                self.store(feature, Ix(), Ix(channels), lambda at, lanes, mask: self.added(
                    partials, feature * (channels * KERNEL) + at, lanes, mask))

    def _block(self, number: Ix, size: int, total: int) -> Channels:
        first = number * size
        return Channels(first, self.f.min_(size, total - first), size)

    # ---- sums over tiles, at each point

    def sums(self, task: _Task) -> View:
        f, s = self.f, self.s
        image = f.scratch("image", s.dtype, (s.points * s.image_plane,))
        result = f.scratch("result", s.dtype, (s.points * s.result_plane,))
        sums = f.scratch("sums", s.dtype, (s.points * s.sum_plane,))
        shard, part = f.divmod(task.part, s.parts) if s.shards > 1 else (Ix(), task.part)
        first, tiles = part * s.share, self.tiles
        with f.loop(first, f.min_(first + s.share, s.blocks)) as loop:
            start = loop.index * s.rows
            count = f.min_(s.rows, tiles - start)
            start = shard * tiles + start
            with f.loop(0, count) as tile:
                if s.ahead:
                    self.image.prefetch(start + tile.index + s.ahead, task.channels)
                    self.result.prefetch(start + tile.index + s.ahead, task.features)
                self.image.transform(start + tile.index, task.channels,
                                     image.view_at([tile.index * s.channel_row], (1,)), s.image_plane)
                self.result.transform(start + tile.index, task.features,
                                      result.view_at([tile.index * s.features], (1,)), s.result_plane)
            self.products(task, image, result, sums, count, f.min_(loop.index - first, 1))
        return sums

    def products(self, task: _Task, image: View, result: View, sums: View, tiles: Ix, add: Ix) -> None:
        f, s = self.f, self.s
        shape = MicroTileShape(s.mr, s.vectors, s.lanes, self.fused)
        with f.loop(0, s.points) as point, f.loop(0, task.features.count,
                                                  s.nr) as across, f.loop(0, task.channels.count, s.mr) as down:
            a = image.view_at([point.index * s.image_plane + down.index], (1,))
            b = result.view_at([point.index * s.result_plane + across.index], (1,))
            c = sums.view_at([point.index * s.sum_plane + down.index * s.features + across.index], (1,))
            call_micro_kernel(f, shape, RowPanel(a, RowLayout(s.channel_row)), ColumnPanel(b, ColumnLayout(s.features)),
                              MicroTileSums(c, s.features, add), tiles)

    @property
    def tiles(self) -> Dim:
        """Of a shard."""
        count = self.image.count
        return static_dim(count) // self.s.shards if self.s.shards > 1 else count

    # ---- kernels

    def taps(self, task: _Task) -> View:
        """[channel × tap, feature]: of all shards together."""
        f, s = self.f, self.s
        shape = round_up(s.channels * KERNEL, s.lanes), s.features
        if s.shards == 1:
            taps = f.scratch("taps", s.dtype, shape)
            self.transform_back(task, self.sums(task), taps)
            return taps
        places = _places(self.op.additions, static_dim(s.parts))
        waiting = f.scratch("taps", s.dtype, (1 + max(place for place, _ in places), *shape))
        with f.loop(0, len(places)) as loop:
            sums = self.sums(replace(task, part=loop.index))
            for number, (place, added) in enumerate(places):
                with f.if_(f.eq(f.value(loop.index), number)):
                    self.transform_back(task, sums, waiting.view_at([place, 0, 0], shape, waiting.strides[1:]), added)
        return waiting.view_at([0, 0, 0], shape, waiting.strides[1:])

    def transform_back(self, task: _Task, sums: View, taps: View, added: int = 0) -> None:
        """added: to so many kernels that wait for it, those at `taps` and behind them."""
        f, s = self.f, self.s
        whole = whole_vectors(f, task.features.count, s.lanes)
        step = s.sum_plane
        kernel = transform_kernel(replace(self.spec("gt"), added=added))
        with f.loop(0, task.channels.count) as loop:
            source = sums.view_at([loop.index * s.features], (1,))
            target = taps.view_at([loop.index * KERNEL, 0], (1,), (1,))
            steps = (self.op.tile + 2) * step, step, s.features
            f.call(kernel, [source, target, whole, *steps, *[prod(taps.shape)] * (added > 0)])

    def turned(self, task: _Task, taps: View) -> View:
        """[feature, channel × tap]: the numbers of a feature side by side."""
        f, s = self.f, self.s
        turned = f.scratch("turned", s.dtype, taps.shape[::-1])
        turn(f, taps, turned, task.channels.count * KERNEL, whole_vectors(f, task.features.count, s.lanes), s.lanes)
        return turned

    @property
    def is_even(self) -> bool:
        """Whether vectors of kernels are stored as they are turned: all are whole, and lie like those of a feature."""
        s, (features, channels) = self.s, self.shape[:2]
        whole = all(n % s.lanes == 0 for n in (features, s.features, channels * KERNEL, s.channels * KERNEL))
        return whole and self.partials is None and self.is_dense

    @property
    def is_dense(self) -> bool:
        """Whether all operands of the epilogue lie like the kernels."""
        dense = all(out.strides[1:] == DENSE for out in self.outs)
        return dense and (self.epilogue is None or self.epilogue.run_together(DENSE) is not None)

    def store_turned(self, task: _Task, taps: View) -> None:
        f, lanes, channels, features = self.f, self.s.lanes, task.channels, task.features
        merged = self.epilogue.run_together(DENSE) if self.epilogue else None
        outs = self.rows_of_features()

        def run(hint: str | None) -> None:
            with f.loop(0, features.count, lanes) as across, f.loop(0, channels.count * KERNEL, lanes) as down:
                for j, column in enumerate(transposed(f, taps, down.index, across.index, lanes)):
                    at = [features.first + across.index + j, channels.first * KERNEL + down.index]
                    _apply(f, merged, outs, at, column, None, hint)
        self.streamed(outs, channels.first, run)

    def rows_of_features(self) -> list[View]:
        """The results, [feature, channel × tap]."""
        return [self.f.reinterpret(out, (out.shape[0], out.shape[1] * KERNEL), (out.strides[0], 1))
                for out in self.outs]

    def streamed(self, outs: Sequence[View], channel: Ix, run: Callable[[str | None], None]) -> None:
        """Runs with the hint of stores that go past the caches, or without."""
        f = self.f
        if not self.streams(channel):
            return run(None)
        with f.if_(f.is_aligned(outs[0], self.s.lanes * self.s.dtype.itemsize)):
            run("nontemporal")
        with f.else_():
            run(None)

    def finish(self, task: _Task, turned: View) -> None:
        f, channels, features, partials = self.f, task.channels, task.features, self.partials
        with f.loop(0, features.count) as loop:
            feature = features.first + loop.index
            if partials is None:
                self.store(feature, channels.first, channels.count,
                           lambda at, lanes, mask: f.load(turned, [loop.index, at], lanes, mask))
            else:
                start = task.part * self.s.kernels + (feature * self.shape[1] + channels.first) * KERNEL
                vector_run(f, channels.count * KERNEL, self.s.lanes, lambda at, lanes, mask: f.store(
                    partials, [start + at], f.load(turned, [loop.index, at], lanes, mask), mask))

    def added(self, partials: View, at: Ix, lanes: int, mask: Val | None) -> Val:
        """The parts of some numbers, added in order."""
        f = self.f
        total = f.load(partials, [at], lanes, mask)
        with f.loop(1, self.s.splits, carry=[total]) as loop:
            loop.next(f.add(loop.carried[0], f.load(partials, [at + loop.index * self.s.kernels], lanes, mask)))
        return loop.results[0]

    def store(self, feature: Ix, channel: Ix, count: Ix, source: Callable[[Ix, int, Val | None], Val]) -> None:
        """The numbers of a feature, from a channel on. Vectors run on from kernel to kernel where all operands lie
        like the kernels.
        """
        f = self.f
        merged = self.epilogue.run_together(DENSE) if self.epilogue else None
        if not self.is_dense:
            with f.loop(0, count) as loop, f.loop(0, TAPS) as p, f.loop(0, TAPS) as q:
                at = [feature, channel + loop.index, p.index, q.index]
                number = source(loop.index * KERNEL + p.index * TAPS + q.index, 1, None)
                _apply(f, self.epilogue, self.outs, at, number, None)
            return
        outs = self.rows_of_features()

        def run(hint: str | None) -> None:
            vector_run(f, count * KERNEL, self.s.lanes, lambda at, lanes, mask: _apply(
                f, merged, outs, [feature, channel * KERNEL + at], source(at, lanes, mask), mask,
                hint if mask is None else None))
        self.streamed(outs, channel, run)

    def streams(self, channel: Ix) -> bool:
        """Whether vectors of kernels, those from `channel` on, go past the caches: they all lie as the first one."""
        steps = self.outs[0].strides[0], channel.divisor() * KERNEL
        return self.s.stream and self.epilogue is None and all(step % self.s.lanes == 0 for step in steps)


def _places(additions: Sequence[tuple[int, int, int]], parts: int) -> list[tuple[int, int]]:
    """For all parts of each shard, in order: where its kernels go, among those that wait to be added, and to how many
    from there on they are added."""
    found, waiting = [], 0
    for shard in range(len(additions) + 1):
        complete = sum(high == shard + 1 for _, _, high in additions)
        for part in range(parts):
            added = (part > 0) + complete * (part == parts - 1)
            found.append((waiting - added, added))
            waiting += 1 - added
    return found


def _apply(f: LoopFunction, epilogue: Epilogue | None, outs: Sequence[View], at: list[Ix], value: Val,
           mask: Val | None, hint: str | None = None) -> None:
    """Lanes run along the last axis."""
    values = [value] if epilogue is None else epilogue(f, value, at, value.lanes, mask, len(at) - 1)
    for out, v in zip(outs, values, strict=True):
        f.store(out, at, v, mask, hint)
