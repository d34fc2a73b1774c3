"""Masks of attention on a block of transposed scores (keys × queries, in units of ln 2)."""
from __future__ import annotations

from graphc.codegen.loops.builder import Val, View
from graphc.codegen.loops.index import Ix
from graphc.codegen.lower.attention.blocks import Blocks
from graphc.codegen.lower.attention.powers import LN2
from graphc.codegen.lower.ranges import vector_run
from graphc.codegen.lower.transpose import transposed
from graphc.ir.types import DType, bool_
from graphc.schedule.contraction_schedule import round_up


def lowest(dtype: DType) -> float:
    """The least finite number."""
    return dtype.range[0]


class Mask:
    """What one batch entry's mask, [Tq or 1, Tk or 1], does to scores: a bool one sets what it hides to `hidden`, a
    float one is added.
    """

    def __init__(self, b: Blocks, view: View, hidden: float):
        self.b, self.f, self.view, self.hidden = b, b.f, view, hidden
        self.is_bool = view.dtype is bool_

    def apply(self, scores: View, query: Ix, key: Ix, count: Ix) -> None:
        """To the first `count` rows of a panel's scores, of keys from `key` and queries from `query` on."""
        if self.view.shape[0] == 1:
            self._same_for_queries(scores, key, count)
        else:
            self._own_of_queries(scores, query, key, count)

    def show(self, source: View, key: Ix, count: Ix, target: View) -> None:
        """Rows of `count` keys from `key` on, 0 for those that are hidden from all queries."""
        f, lanes = self.f, self.b.s.lanes
        with f.loop(0, count) as loop:
            seen = f.gt(f.splat(self._of_key(key + loop.index), lanes), 0.5)
            vector_run(f, Ix(source.shape[1]), lanes, lambda j, n, mask: f.store(target, [loop.index, j], f.select(
                seen, f.load(source, [key + loop.index, j], n, mask), f.const(0, self.b.dtype, n)), mask))

    def clear(self, rows: View, key: Ix, count: Ix) -> None:
        """Of the rows of `count` keys from `key` on those that are hidden from all queries become 0, in whole vectors.
        """
        f, lanes = self.f, self.b.s.lanes
        with f.loop(0, count) as loop, f.if_(f.le(self._of_key(key + loop.index), 0.5)):
            with f.loop(0, rows.shape[1], lanes) as across:
                f.store(rows, [loop.index, across.index], f.const(0, self.b.dtype, lanes))

    def _of_key(self, key: Ix) -> Val:
        """The number of a key, for all queries."""
        return self._number(self.f.load(self.view, [0, Ix() if self.view.shape[1] == 1 else key]))

    def _same_for_queries(self, scores: View, key: Ix, count: Ix) -> None:
        f, s = self.f, self.b.s
        with f.loop(0, count) as loop:
            number = f.splat(self._of_key(key + loop.index), s.lanes)
            for u in range(0, s.nr, s.lanes):
                self._change(scores, loop.index, u, number)

    def _own_of_queries(self, scores: View, query: Ix, key: Ix, count: Ix) -> None:
        """Rows of the mask as floats, zero for queries past the last; turned, they stand as the scores do."""
        f, s = self.f, self.b.s
        # the tail of whole vectors lies behind them
        rows = f.scratch("mask_rows", self.b.dtype, (s.nr, round_up(s.rows, s.lanes) + s.lanes))
        here = f.min_(s.nr, self.b.columns - query)
        with f.loop(0, here) as loop:
            self._copy_row(rows, loop.index, query, key, count)
        with f.loop(here, s.nr) as loop, f.loop(0, rows.shape[1], s.lanes) as across:
            f.store(rows, [loop.index, across.index], f.const(0, self.b.dtype, s.lanes))
        with f.loop(0, count, s.lanes) as loop:
            for u in range(0, s.nr, s.lanes):
                for i, number in enumerate(transposed(f, rows, u, loop.index, s.lanes)):
                    self._change(scores, loop.index + i, u, number)

    def _copy_row(self, rows: View, row: Ix, query: Ix, key: Ix, count: Ix) -> None:
        f, lanes = self.f, self.b.s.lanes
        if self.view.shape[1] == 1:
            number = f.splat(self._number(f.load(self.view, [query + row, 0])), lanes)
            with f.loop(0, rows.shape[1], lanes) as across:
                f.store(rows, [row, across.index], number)
            return

        def copy(j: Ix, n: int, mask: Val | None) -> None:
            f.store(rows, [row, j], self._number(f.load(self.view, [query + row, key + j], n, mask)))
        vector_run(f, count, lanes, copy)

    def _number(self, x: Val) -> Val:
        """bool as 0 or 1; floats in units of ln 2, where what is finite stays so."""
        f, dtype = self.f, self.b.dtype
        if self.is_bool:
            return f.cast(x, dtype)
        low = f.const(lowest(dtype), dtype, x.lanes)
        scaled = f.mul(x, 1 / LN2)
        return f.select(f.lt(x, low), x, f.select(f.lt(scaled, low), low, scaled))

    def _change(self, scores: View, row: Ix, u: int, number: Val) -> None:
        f, lanes = self.f, self.b.s.lanes
        score = f.load(scores, [row, u], lanes)
        hidden = f.const(self.hidden, self.b.dtype, lanes)
        f.store(scores, [row, u], f.select(f.gt(number, 0.5), score, hidden) if self.is_bool else f.add(score, number))
