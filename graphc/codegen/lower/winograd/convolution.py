"""Convolutions in Winograd's form: a block of tiles is transformed, multiplied at each point, and transformed back,
while it is in the caches.

    (shared: all tiles into shared scratch)
    for each group of features, each block of tiles, in parallel:
        its tiles, if not shared: Bᵀ d B                                  (tiles)
        for each point: products by the micro-kernel of contractions       (contraction/micro_kernel)
        for each tile: Aᵀ p A; epilogue and store
"""
from __future__ import annotations

from dataclasses import replace

from graphc.codegen.loops.builder import LoopFunction, Val, View
from graphc.codegen.loops.index import Ix
from graphc.codegen.lower.contraction.any_rows import call_for_rows
from graphc.codegen.lower.contraction.epilogue import Epilogue, plain_epilogue_of
from graphc.codegen.lower.contraction.micro_kernel import (
    ColumnLayout, ColumnPanel, MicroTileShape, MicroTileSums, RowLayout, RowPanel, call_micro_kernel)
from graphc.codegen.lower.contraction.outputs import along
from graphc.codegen.lower.ranges import vector_run
from graphc.codegen.lower.request import KernelRequest
from graphc.codegen.lower.winograd.tiles import CHANNEL, Channels, Tiles, whole_vectors
from graphc.codegen.lower.winograd.transform import TransformSpec, transform_kernel
from graphc.ir.dims import static_shape
from graphc.ir.ops.winograd import WinogradConv2d, grid
from graphc.records import dataclass
from graphc.schedule.winograd_schedule import WinogradSchedule


def lower_convolution(r: KernelRequest[WinogradSchedule, WinogradConv2d]) -> LoopFunction:
    """A function of the views ins = [x, transformed weights, *extra], outs, and (if shared) one 1-D view of shared
    scratch.
    """
    f, s = LoopFunction(r.function_name), r.schedule
    x, u, *_ = [f.view(f"in{i}", v.dtype, v.shape, v.strides) for i, v in enumerate(r.ins)]
    outputs = tuple(f.view(f"out{i}", v.dtype, v.shape, v.strides) for i, v in enumerate(r.outs))
    shared = f.view("shared", s.dtype, (s.blocks * s.block,)) if s.shared else None
    divides = s.groups > 1 or any(s.of_few(few, r.op.features, s.blocks).groups > 1 for few in s.few)
    _Winograd(f, r.op, s, x, u, outputs, shared, plain_epilogue_of(r), r.target.has_fma, divides).run()
    return f


@dataclass(frozen=True)
class _Winograd:
    """divides: features are, for few tiles at least: then the loops for more have the same form, and are the same code.
    """
    f: LoopFunction
    op: WinogradConv2d
    s: WinogradSchedule
    x: View
    u: View
    outs: tuple[View, ...]
    shared: View | None
    epilogue: Epilogue | None
    fused: bool
    divides: bool

    @property
    def image(self) -> Tiles:
        (above, _), (left, _) = self.op.padding
        return Tiles(self.f, self.x, grid(self.outs[0].shape, self.op.tile), (above, left),
                     TransformSpec(self.s.dtype, self.op.tile, "bt", self.s.lanes, fused=self.fused))

    def run(self) -> None:
        f, s = self.f, self.s
        strips = s.rows // s.mr
        if self.shared is not None:
            with f.parallel(s.blocks * strips, "transform") as t:
                block, strip = f.divmod(t, strips)
                self.transform(block * s.rows, strip * s.mr, self.shared.view_at([block * s.block], (s.block,)))
        self.tasks()

    def tasks(self) -> None:
        """Of few tiles as suits them, where it is known only when the kernel runs how many there are."""
        f, s, count = self.f, self.s, self.image.count
        if not s.few:
            return self.groups_and_blocks()
        few, *others = s.few
        with f.if_(f.le(f.value(count), few.most)):
            replace(self, s=s.of_few(few, self.op.features, count)).tasks()
        with f.else_():
            replace(self, s=replace(s, few=tuple(others))).tasks()

    def groups_and_blocks(self) -> None:
        f, s = self.f, self.s
        with f.parallel(s.groups * s.blocks, "tiles") as t:
            group, block = f.divmod(t, s.blocks) if self.divides or isinstance(s.blocks, int) else (Ix(), t)
            if self.shared is None or not s.shared:
                image = f.scratch("image", s.dtype, (s.block,))
                self.transform_block(block, image)
            else:
                image = self.shared.view_at([block * s.block], (s.block,))
            sums = f.scratch("sums", s.dtype, (s.points * s.sum_plane,))
            features = f.min_(s.width, self.op.features - group * s.width)
            self.products(block, group, features, image, sums)
            self.results(block, group, features, sums)

    def rows(self, block: Ix) -> Ix:
        """Tiles of a block."""
        return self.f.min_(self.s.rows, self.image.count - block * self.s.rows)

    def transform_block(self, block: Ix, image: View) -> None:
        """The tiles of a block; whole register tiles of them, unless the number of tiles comes with the call."""
        f, s = self.f, self.s
        if self.any_rows:
            with f.loop(0, self.rows(block)) as loop:
                self.image.transform_all(block * s.rows + loop.index, s.channels,
                                         image.view_at([loop.index * s.row], (1,)), s.plane)
            return
        with f.loop(0, self.rows(block), s.mr) as loop:
            self.transform(block * s.rows, loop.index, image)

    @property
    def any_rows(self) -> bool:
        """Whether the last register tile of a block may have any number of rows."""
        return not isinstance(self.image.count, int)

    def transform(self, first: Ix, row: Ix, target: View) -> None:
        """mr tiles from `first + row` on; the last tile of all is repeated behind it."""
        f, s = self.f, self.s
        with f.loop(0, s.mr) as loop:
            if s.ahead:
                self.image.prefetch(first + row + loop.index + s.ahead, Channels(Ix(), Ix(s.channels), s.channels))
            tile = f.min_(first + row + loop.index, self.image.count - 1)
            self.image.transform_all(tile, s.channels, target.view_at([(row + loop.index) * s.row], (1,)), s.plane)

    # ---- products at each point

    def products(self, block: Ix, group: Ix, features: Ix, image: View, sums: View) -> None:
        f, s = self.f, self.s
        with f.loop(0, s.points) as point, f.loop(0, s.channels, s.sums) as part:
            steps = f.min_(s.sums, s.channels - part.index)
            add = f.min_(part.index, 1)
            with f.loop(0, features, s.nr) as across:
                panel, _ = f.divmod(group * s.width + across.index, s.nr)
                columns = ColumnPanel(self.u.view_at([point.index, panel, part.index, 0], (1,), (1,)),
                                      ColumnLayout(s.nr, prefetch_lines=s.prefetch_lines, last_lines=s.last_lines),
                                      next=self.next_panel(across.index) if s.prefetch_lines else None)
                source = image.view_at([point.index * s.plane + part.index], (1,))
                target = sums.view_at([point.index * s.sum_plane + across.index], (1,))
                self.column_products(self.rows(block), source, columns, MicroTileSums(target, s.width, add), steps)

    def column_products(self, count: Ix, image: View, columns: ColumnPanel, sums: MicroTileSums, steps: Ix) -> None:
        """Of all tiles of a block, whose first is at `image`, and one panel of columns."""
        f, s = self.f, self.s
        shape = MicroTileShape(s.mr, s.vectors, s.lanes, self.fused)
        layout = RowLayout(1, scattered=True, even=self.any_rows)
        offsets = (Ix(), Ix(s.row)) if self.any_rows else tuple([Ix(i * s.row) for i in range(s.mr)])
        share = -(-s.nr * s.sums // -(-s.rows // s.mr))
        with f.loop(0, count, s.mr) as loop:
            row = loop.index
            a = RowPanel(image.view_at([row * s.row], (1,)), layout, offsets)
            b = columns if columns.next is None else replace(
                columns, next=f.divmod(row, s.mr)[0] * share + columns.next, row=row)
            c = replace(sums, memory=sums.memory.view_at([row * s.width], (1,)))
            if self.any_rows:
                call_for_rows(f, shape, count - row, a, b, c, steps)
            else:
                call_micro_kernel(f, shape, a, b, c, steps)

    def next_panel(self, feature: Ix) -> Ix:
        """Elements from the panel of weights of a feature of a group to that which is read next: of the next features,
        or after the last ones of the first ones for the next channels, or else point."""
        f, s, (point, panel, *_) = self.f, self.s, static_shape(self.u.strides)
        on = f.min_(s.panels - 1 - f.divmod(feature, s.nr)[0], 1)           # 0: the last ones
        back = (s.sums * s.nr if s.sums < s.channels else point) - (s.panels - 1) * panel
        return on * (panel - back) + back

    # ---- and back

    def results(self, block: Ix, group: Ix, features: Ix, sums: View) -> None:
        f, s, m = self.f, self.s, self.op.tile
        tile = f.scratch("tile", s.dtype, (m, m, s.width))
        kernel = transform_kernel(TransformSpec(s.dtype, m, "at", s.lanes, fused=self.fused))
        step = s.sum_plane
        whole = whole_vectors(f, features, s.lanes)
        with f.loop(0, self.rows(block)) as loop:
            f.call(kernel, [sums.view_at([loop.index * s.width], (1,)), f.reinterpret(tile, (1,), (1,)), whole,
                            (m + 2) * step, step, s.width])
            n, i, j = self.image.position(block * s.rows + loop.index)
            height, width = (f.min_(m, size - at * m) for size, at in zip(self.outs[0].shape[2:], (i, j)))
            with f.loop(0, height) as down, f.loop(0, width) as across:
                pixel = [n, group * s.width, i * m + down.index, j * m + across.index]
                vector_run(f, features, s.lanes, lambda c, lanes, mask: self.finish(
                    [pixel[0], pixel[1] + c, *pixel[2:]], f.load(tile, [down.index, across.index, c], lanes,
                                                                 mask), mask))

    def finish(self, at: list[Ix], value: Val, mask: Val | None) -> None:
        f = self.f
        values = [value] if self.epilogue is None else self.epilogue(f, value, at, self.s.lanes, mask, CHANNEL)
        for out, v in zip(self.outs, values, strict=True):
            view, place = along(out, at, CHANNEL)
            f.store(view, place, v, mask)
