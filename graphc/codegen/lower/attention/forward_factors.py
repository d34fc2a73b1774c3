"""How the factors of attention's two products reach the micro-kernel: as they are, or as pairs of bf16."""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from graphc.codegen.loops.builder import Val, View
from graphc.codegen.loops.index import Ix, as_ix
from graphc.codegen.lower.attention.blocks import Blocks, RowRange, by_width, product, queries_left, sub_panel
from graphc.codegen.lower.attention.mask import Mask
from graphc.codegen.lower.attention.pairs import (
    halved, pair_features, pair_rows, pairs_of_features, pairs_of_rows, turn_pairs, turned_rows)
from graphc.codegen.lower.contraction.micro_kernel import multiply_add
from graphc.ir.dims import static_dim
from graphc.ir.types import bf16x2
from graphc.schedule.contraction_schedule import round_up


class ForwardScratch(NamedTuple):
    """Of one block of queries, from number `first` on: panels of them, times the scale, and of sums of values; of one
    panel and a block of keys the scores, or what became of them, and what the sums are rescaled by."""
    first: Ix
    queries: View
    sums: View
    scores: View
    scales: View


class ForwardFactors:
    """Read where they are, but for values of which some are hidden: a block at a time, these are copied as zeros, the
    others as they are. k, v: of all keys; hiding: the mask that hides values."""

    def __init__(self, b: Blocks, k: View, v: View, scratch: ForwardScratch, hiding: Mask | None = None):
        self.b, self.k, self.v, self.scratch, self.hiding = b, k, v, scratch, hiding
        if hiding is not None:
            width = round_up(static_dim(v.shape[1]), b.s.lanes)
            memory = b.f.scratch("shown", b.dtype, (b.s.rows, width))
            self.shown = b.f.reinterpret(memory, (b.s.rows, v.shape[1]), (width, 1))

    def of_queries(self, panels: Ix | int) -> None:
        """Prepares so many panels of queries."""

    def of_keys(self, key: Ix) -> None:
        """Prepares the block of keys from `key` on."""
        if self.hiding is not None:
            self.hiding.show(self.v, key, self.b.f.min_(self.b.s.rows, self.b.rows - key), self.shown)

    def values_from(self, key: Ix) -> tuple[View, Ix]:
        """What has the values of the block of keys from `key` on, and from which of its rows on."""
        return (self.v, key) if self.hiding is None else (self.shown, Ix())

    def multiply(self, key: Ix, count: Ix, panel: Ix, made: Ix | int) -> None:
        """Scores of `count` keys from `key` on, the first of the block, for the queries of a panel that are made. Keys
        of more panels are fetched by block."""
        for b in by_width(self.b, made):
            product(b, RowRange(self.k, count, first=key), sub_panel(self.scratch.queries, panel),
                    static_dim(self.k.shape[1]), self.scratch.scores, ahead=b.s.far and b.panels == 1)

    def add_values(self, key: Ix, count: Ix, panel: Ix, made: Ix | int) -> None:
        """Rescales the sums of a panel, and adds the values times the probabilities that stand for the scores."""
        values, first = self.values_from(key)
        turned = self.b.f.reinterpret(values, values.shape[::-1], values.strides[::-1])
        for b in by_width(self.b, made):
            product(b, RowRange(turned.view_at([0, first]), as_ix(self.v.shape[1])), self.scratch.scores, count,
                    sub_panel(self.scratch.sums, panel), factors=self.scratch.scales)


class ForwardRows(ForwardFactors):
    """Sums of values by rows: a vector is of values, a factor one query's probability. `sums`: [panel][query][value]"""

    def add_values(self, key: Ix, count: Ix, panel: Ix, made: Ix | int) -> None:
        """Several queries at once, of which the last may be none. All of them take some columns before others: the
        block's rows of these stay in L1."""
        f, lanes, (rows, vectors) = self.b.f, self.b.s.lanes, self.b.s.by_rows or (1, 1)
        places = range(0, static_dim(self.v.shape[1]), lanes)
        groups = f.divmod(queries_left(self.b, self.scratch.first, panel) + (rows - 1), rows)[0]
        parts = -(-len(places) // vectors)
        for part in range(parts):
            some = places[part * len(places) // parts:(part + 1) * len(places) // parts]
            with f.loop(0, groups) as loop:
                self._add(key, count, [panel, loop.index * rows], some, rows)

    def _add(self, key: Ix, count: Ix, at: list[Ix], places: Sequence[int], rows: int) -> None:
        """For so many queries from panel and row `at` on, the values at `places`."""
        f, lanes, (panel, first), fused = self.b.f, self.b.s.lanes, at, self.b.target.has_fma
        masks = [f.tail_mask(static_dim(self.v.shape[1]) - place, lanes) for place in places]
        zero, (memory, row) = f.const(0, self.b.dtype, lanes), self.values_from(key)
        with f.loop(0, count, carry=[zero] * (rows * len(places))) as loop:
            values = [f.load(memory, [row + loop.index, place], lanes, mask) for place, mask in zip(places, masks)]
            sums, totals = list[Val](), iter(loop.carried)
            for i in range(rows):
                factor = f.splat(f.load(self.scratch.scores, [loop.index, first + i]), lanes)
                sums += [multiply_add(f, value, factor, next(totals), fused) for value in values]
            loop.next(*sums)
        for i in range(rows):
            scale = f.splat(f.load(self.scratch.scales, [first + i]), lanes)
            for n, place in enumerate(places):
                where: Sequence[Ix | int] = (panel, first + i, place)
                before, total = f.load(self.scratch.sums, where, lanes), loop.results[i * len(places) + n]
                f.store(self.scratch.sums, where, multiply_add(f, before, scale, total, fused))


class ForwardPairs(ForwardFactors):
    """Paired along features for the scores, along keys for the sums."""

    def __init__(self, b: Blocks, k: View, v: View, scratch: ForwardScratch, hiding: Mask | None = None):
        super().__init__(b, k, v, scratch, hiding)
        features, width, rows = static_dim(k.shape[1]), static_dim(v.shape[1]), b.block_rows
        self.steps = -(-features // 2)
        self.queries = b.f.scratch("query_pairs", bf16x2, (b.panels, self.steps, b.s.nr))
        self.keys, self.values = (pairs_of_features(b, "key_pairs", rows, features),
                                  pairs_of_rows(b, "value_pairs", rows, width, squares=b.matrices))
        self.probabilities = pairs_of_rows(b, "probability_pairs", rows, b.s.nr)
        self.turned_values = turned_rows(b, "turned_pairs", width) if b.matrices else None

    def of_queries(self, panels: Ix | int) -> None:
        with self.b.f.loop(0, panels) as loop:
            pair_rows(self.b, sub_panel(self.scratch.queries, loop.index), Ix(), Ix(self.k.shape[1]),
                      sub_panel(self.queries, loop.index))

    def of_keys(self, key: Ix) -> None:
        super().of_keys(key)
        count = self.b.f.min_(self.b.s.rows, self.b.rows - key)
        pair_features(self.b, self.k, key, count, self.keys)
        pair_rows(self.b, *self.values_from(key), count, self.values)
        if self.turned_values is not None:
            turn_pairs(self.b, self.values, halved(self.b.f, count), self.turned_values)

    def multiply(self, key: Ix, count: Ix, panel: Ix, made: Ix | int) -> None:
        for b in by_width(self.b, made):
            product(b, RowRange(self.keys, count), sub_panel(self.queries, panel), self.steps, self.scratch.scores)

    def add_values(self, key: Ix, count: Ix, panel: Ix, made: Ix | int) -> None:
        f, values = self.b.f, self.values
        pair_rows(self.b, self.scratch.scores, Ix(), count, self.probabilities)
        sums, width = sub_panel(self.scratch.sums, panel), as_ix(self.v.shape[1])
        if self.turned_values is not None:
            self._rescale(sums, width)
            for b in by_width(self.b, made):
                product(b, RowRange(self.turned_values, width), self.probabilities, halved(f, count), sums, add=1)
            return
        turned = f.reinterpret(values, values.shape[::-1], values.strides[::-1])
        for b in by_width(self.b, made):
            product(b, RowRange(turned, width), self.probabilities, halved(f, count), sums,
                    factors=self.scratch.scales)

    def _rescale(self, sums: View, width: Ix) -> None:
        f, lanes = self.b.f, self.b.s.lanes
        with f.loop(0, self.b.s.nr, lanes) as across:
            scale = f.load(self.scratch.scales, [across.index], lanes)
            with f.loop(0, width, unroll=4) as loop:
                place = [loop.index, across.index]
                f.store(sums, place, f.mul(f.load(sums, place, lanes), scale))
