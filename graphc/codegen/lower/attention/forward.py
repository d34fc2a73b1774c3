"""Attention with an online softmax (Milakov & Gimelshein 2018; Dao et al. 2022): the scores exist one block at a time.

    for each block of queries, in parallel: transpose it
        for each block of keys, each panel of queries: scores; new maxima; exponentials; sums of the values, rescaled
        divide, store the output and the logsumexp
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from math import inf, prod

from graphc.codegen.loops.builder import LoopFunction, Val, View
from graphc.codegen.loops.index import Ix, as_ix
from graphc.codegen.lower.attention.blocks import (
    TOGETHER, Blocks, blocks_of, copy_rows, fetch_ahead, in_groups, larger, matrix, queries_left, store_rows, turn,
    turn_back, whole_rows)
from graphc.codegen.lower.attention.forward_factors import (
    ForwardFactors, ForwardPairs, ForwardRows, ForwardScratch)
from graphc.codegen.lower.attention.mask import Mask, lowest
from graphc.codegen.lower.attention.powers import LN2, exp2
from graphc.codegen.lower.contraction.micro_kernel import ANY
from graphc.codegen.lower.ranges import vector_run
from graphc.codegen.lower.request import KernelRequest
from graphc.codegen.lower.rows import function, unflattened
from graphc.ir.ops.attention import MASKED, Attention
from graphc.ir.dims import Dim, Dims, static_dim
from graphc.ir.types import DType, i32
from graphc.records import dataclass
from graphc.schedule.attention_schedule import AttentionSchedule
from graphc.schedule.contraction_schedule import round_up
from graphc.schedule.target import Target

def lower_attention(r: KernelRequest[AttentionSchedule, Attention]) -> LoopFunction:
    """A function of the views q, k, v, the mask if there is one, the output and the logsumexp."""
    f, ins, outs = function(r)
    b = blocks_of(r, f, ins[0].shape[-2], ins[1].shape[-2])
    s, q, (out, lse) = b.s, ins[0], outs
    lead = out.shape[:-2]
    with f.parallel(prod(lead) * b.column_blocks, "queries", serial=b.serial) as t:
        number, block = f.divmod(t, b.column_blocks)
        block = _alternating(f, block, b.column_blocks) if b.causal else block
        head = replace(_head(b, number, lead, ins, (out, lse)), hides_values=r.op.hides_values)
        kind = _ForwardBlock if s.by_rows is None else _BlockOfRows
        kind(b, r.op.factor(q.shape) / LN2, head, block * s.columns).run()
    return f


@dataclass(frozen=True)
class _Head:
    """The matrices of one batch entry, its logsumexp, and its mask. hides_values: as of the operator."""
    q: View
    k: View
    v: View
    out: View
    lse: View
    mask: Mask | None
    hides_values: bool = False


def _head(b: Blocks, number: Ix, lead: Dims, ins: Sequence[View], outs: Sequence[View]) -> _Head:
    """Those of entry `number` of the leading dims `lead`."""
    f, (q, k, v, *masks), (out, lse) = b.f, ins, outs
    q, k, v, out = (matrix(f, x, number, lead) for x in (q, k, v, out))
    lse = lse.view_at([*unflattened(f, number, lead), 0], lse.shape[-1:], lse.strides[-1:])
    return _Head(q, k, v, out, lse, next((Mask(b, matrix(f, x, number, lead), MASKED) for x in masks), None))


def _alternating(f: LoopFunction, number: Ix, count: Dim) -> Ix:
    """Last, first, last but one, second, …: the last queries see most keys, the first few, and two that follow each
    other as many as any other two, so that threads have even shares."""
    half, odd = f.divmod(number, 2)
    # 0 and count - 1: for the verifier
    return f.min_(f.max_(half - (1 - odd) * count, (count - 1) - half - odd * count, 0), count - 1)


class _ForwardBlock:
    """One block of queries. Scores are in units of ln 2: powers of 2 are cheaper than powers of e. A row maximum is
    one of vectors: rows are keys.
    """

    def __init__(self, b: Blocks, factor: float, head: _Head, first: Ix):
        self.b, self.f, self.factor, self.first, self.mask = b, b.f, factor, first, head.mask
        hides = head.mask is not None and head.mask.is_bool
        # the first maximum; the score of a later key
        self.least, self.unseen = (MASKED, MASKED) if hides else (lowest(b.dtype), -inf)
        self.q, self.k, self.v, self.out, self.lse = head.q, head.k, head.v, head.out, head.lse
        self.features, self.values = static_dim(self.q.shape[1]), static_dim(self.v.shape[1])
        self.queries, self.sums = b.panel_scratch("queries", self.features), self._sums()
        self.scores = b.f.scratch("scores", b.dtype, (b.block_rows, b.s.nr))
        self.top, self.total = (b.f.scratch(n, b.dtype, (b.panels, b.s.nr)) for n in ("top", "total"))
        self.scales = b.f.scratch("scales", b.dtype, (b.s.nr,))
        factors = ForwardRows if b.s.by_rows is not None else ForwardPairs if b.in_pairs else ForwardFactors
        self.factors = factors(b, self.k, self.v, ForwardScratch(
            self.first, self.queries, self.sums, self.scores, self.scales), head.mask if head.hides_values else None)

    def _sums(self) -> View:
        """[panel][value][query]"""
        return self.b.panel_scratch("sums", self.values)

    def run(self) -> None:
        b, f = self.b, self.f
        in_place = whole_rows(b, self.q), self._stores_in_place()
        rows = None if all(in_place) else b.matrix_scratch("rows", max(self.features, self.values))
        queries = self.q, self.first
        if rows is not None and not in_place[0]:
            copy_rows(b, self.q, self.first, rows)
            queries = rows, Ix()
        turn(b, *queries, self.features, self.queries, self.factor, self.first)
        self.factors.of_queries(b.panels_made(self.first))
        self._start()
        seen, panels = self._seen(), b.panels_from(self.first)
        with f.loop(0, seen, b.s.rows) as blocks:
            self.factors.of_keys(blocks.index)
            with f.loop(self._first_panel(blocks.index), panels) as loop:
                if b.s.far and b.panels > 1:        # in one burst it keeps loads waiting
                    fetch_ahead(b, (self.k, self.v), blocks.index, loop.index)
                self._panel(blocks.index, loop.index)
        results = (self.out, self.first) if rows is None or in_place[1] else (rows, Ix())
        with f.loop(0, panels) as loop:
            self._finish(loop.index, *results)
        if rows is not None and not in_place[1]:
            store_rows(b, rows, self.first, self.out)

    def _stores_in_place(self) -> bool:
        """Whether results go where they belong, not by way of whole register tiles."""
        return whole_rows(self.b, self.out)

    def _seen(self) -> Ix:
        """Keys that a query of the block sees, at most."""
        return self.f.min_(self.b.rows, self.first + self.b.s.columns) if self.b.causal else as_ix(self.b.rows)

    def _start(self) -> None:
        f, s = self.f, self.b.s
        with f.loop(0, self.b.panels_made(self.first)) as panel:
            for u in range(0, s.nr, s.lanes):
                f.store(self.top, [panel.index, u], f.const(self.least, self.b.dtype, s.lanes))
                f.store(self.total, [panel.index, u], f.const(0, self.b.dtype, s.lanes))
            with f.loop(0, self._sum_rows(panel.index)) as row:
                for u in range(0, static_dim(self.sums.shape[2]), s.lanes):
                    f.store(self.sums, [panel.index, row.index, u], f.const(0, self.b.dtype, s.lanes))

    def _sum_rows(self, panel: Ix) -> Ix | Dim:
        """Rows of a panel's sums that are added to."""
        return self.sums.shape[1]

    def _first_panel(self, key: Ix) -> Ix:
        """The first panel of which a query sees the key."""
        if not self.b.causal:
            return Ix()
        return self.f.max_(self.f.divmod(key - self.first, self.b.s.nr)[0], 0)

    def _panel(self, key: Ix, panel: Ix) -> None:
        """Keys from `key` on, for one panel of queries."""
        b, f = self.b, self.f
        query = self.first + panel * b.s.nr
        count = f.min_(b.s.rows, b.rows - key, query + b.s.nr - key) if b.causal else f.min_(b.s.rows, b.rows - key)
        made = b.made(self.first, panel)
        self.factors.multiply(key, count, panel, made)
        if self.mask is not None:
            self.mask.apply(self.scores, query, key, count)
        if b.causal:
            hide(b, self.scores, query, key, count, self.unseen)
        self._probabilities(panel, self._filled(count) if b.s.any_length else count, made)
        self.factors.add_values(key, count, panel, made)

    def _filled(self, count: Ix) -> Ix:
        """Rows of whole groups, those behind the keys with scores of which the exponentials are 0: in which order the
        exponentials of the others are added does not depend on how many keys there are."""
        f, s = self.f, self.b.s
        whole = f.divmod(count + (TOGETHER - 1), TOGETHER)[0] * TOGETHER
        with f.loop(count, whole) as loop:
            for u in range(0, s.nr, s.lanes):
                f.store(self.scores, [loop.index, u], f.const(-inf, self.b.dtype, s.lanes))
        return whole

    def _probabilities(self, panel: Ix, count: Ix, made: Ix | int) -> None:
        """Scores become 2^(score - maximum); `scales` rescale sums so far to the new maximum. Of columns that are not
        made there are others' scores, of which nothing is used."""
        f, s = self.f, self.b.s
        places = range(0, s.nr, s.lanes)
        before = [f.load(self.top, [panel, u], s.lanes) for u in places]
        top = self._maxima(before, count)
        scales = exp2(f, self.b.target, [f.sub(x, t) for x, t in zip(before, top)])
        for u, t, scale in zip(places, top, scales):
            f.store(self.top, [panel, u], t)
            f.store(self.scales, [u], scale)
        with f.loop(0, made, s.lanes) as across:
            at = across.index
            total, scale = f.load(self.total, [panel, at], s.lanes), f.load(self.scales, [at], s.lanes)
            f.store(self.total, [panel, at], f.add(f.mul(total, scale), self._powers(panel, at, count)))

    def _maxima(self, before: Sequence[Val], count: Ix) -> Sequence[Val]:
        """Of the scores and those before. Two for each vector of queries, as a comparison waits for the one before
        it.
        """
        f, s = self.f, self.b.s
        tops: Sequence[Val] = [*before, *before]
        for start, stop, step in in_groups(f, Ix(), count, 2):
            with f.loop(start, stop, step, carry=tops) as loop:
                scores = [f.load(self.scores, [loop.index + i, u], s.lanes) for i in range(step)
                          for u in range(0, s.nr, s.lanes)]
                loop.next(*(larger(f, x, top) for x, top in zip(scores, loop.carried)), *loop.carried[len(scores):])
            tops = loop.results
        return [larger(f, x, y) for x, y in zip(tops, tops[len(before):])]

    def _powers(self, panel: Ix, u: Ix, count: Ix) -> Val:
        """Those of the queries from `u` of the panel on; their sum. By a function where sizes come with the call: it is
        much code, which attention of other forms has, too."""
        b, f, lanes = self.b, self.f, self.b.s.lanes
        if not b.s.any_length:
            top = f.load(self.top, [panel, u], lanes)
            return _powers(f, b.target, self.scores, lambda key: [key, u], top, count)
        added, (groups, _) = f.scratch("added", b.dtype, (lanes,)), f.divmod(count, TOGETHER)
        f.call(_powers_of_groups(b.dtype, lanes, b.s.nr, b.target), [
            self.scores.view_at([0, u], (1,), (1,)), self.top.view_at([panel, u], (1,), (1,)), added, groups])
        return f.load(added, [0], lanes)

    def _finish(self, panel: Ix, target: View, first: Ix) -> None:
        """Sums are divided by the total and go to the rows of `target` from `first` on; the logsumexp is stored."""
        logs = self._shares(panel)
        turn_back(self.b, self.sums, panel, self.values, target, first, self.scales)
        self._store_logs(panel, logs)

    def _shares(self, panel: Ix) -> Sequence[Val]:
        """1 divided by the totals, as `scales`; gives the logsumexps. A query from which a bool mask hides all gets
        0."""
        f, s = self.f, self.b.s
        places = range(0, s.nr, s.lanes)
        tops, totals = ([f.load(x, [panel, u], s.lanes) for u in places] for x in (self.top, self.total))
        shares, logs = [f.div(1.0, t) for t in totals], [f.fma(top, LN2, f.log(t)) for top, t in zip(tops, totals)]
        if self.mask is not None and self.mask.is_bool:
            sees = [f.gt(top, MASKED) for top in tops]
            shares = [f.select(seen, x, f.const(0, self.b.dtype, s.lanes)) for seen, x in zip(sees, shares)]
            logs = [f.select(seen, x, f.const(MASKED, self.b.dtype, s.lanes)) for seen, x in zip(sees, logs)]
        for u, share in zip(places, shares):
            f.store(self.scales, [u], share)
        return logs

    def _store_logs(self, panel: Ix, logs: Sequence[Val]) -> None:
        f, s = self.f, self.b.s
        for u, value in zip(range(0, s.nr, s.lanes), logs):
            query = self.first + panel * s.nr + u
            f.store(self.lse, [query], value, f.tail_mask(self.b.columns - query, s.lanes))


class _BlockOfRows(_ForwardBlock):
    """Sums of values lie as the results do, so that nothing is turned back and no lane stands for a query that is not
    there. They are the same sums in the same order."""

    def _sums(self) -> View:
        """[panel][query][value]"""
        s = self.b.s
        return self.f.scratch("row_sums", self.b.dtype, (self.b.panels, s.nr, round_up(self.values, s.lanes)))

    def _sum_rows(self, panel: Ix) -> Ix | Dim:
        return self.b.made(self.first, panel)

    def _stores_in_place(self) -> bool:
        return True

    def _finish(self, panel: Ix, target: View, first: Ix) -> None:
        f, s = self.f, self.b.s
        self._store_logs(panel, self._shares(panel))
        with f.loop(0, queries_left(self.b, first, panel)) as loop:
            place, share = first + panel * s.nr + loop.index, f.splat(f.load(self.scales, [loop.index]), s.lanes)
            vector_run(f, Ix(self.values), s.lanes, lambda j, n, mask: f.store(
                target, [place, j], f.mul(f.load(self.sums, [panel, loop.index, j], n, mask), share), mask))


def _powers(f: LoopFunction, target: Target, scores: View, place: Callable[[Ix], list[Ix]], top: Val,
            count: Ix) -> Val:
    """The scores of so many keys, each in its place, become 2^(score - top); the sum of these."""
    # two, as an addition waits for the one before it
    totals: Sequence[Val] = [f.const(0, top.dtype, top.lanes)] * 2
    for start, stop, together in in_groups(f, Ix(), count, TOGETHER):
        with f.loop(start, stop, together, carry=totals) as loop:
            places = [place(loop.index + i) for i in range(together)]
            powers = exp2(f, target, [f.sub(f.load(scores, at, top.lanes), top) for at in places])
            sums = list(loop.carried)
            for i, (at, power) in enumerate(zip(places, powers)):
                f.store(scores, at, power)
                sums[i % 2] = f.add(sums[i % 2], power)
            loop.next(*sums)
        totals = loop.results
    return f.add(*totals)


@cache
def _powers_of_groups(dtype: DType, lanes: int, step: int, target: Target) -> LoopFunction:
    """Views: scores of a vector of queries, their maxima, and where the sums of the powers go. Integer: groups of
    TOGETHER keys."""
    f = LoopFunction(f"powers_{dtype}_{lanes}_by_{step}", noalias=True)
    scores, top, added = (f.view(name, dtype, (ANY,), (1,)) for name in ("scores", "top", "added"))
    groups = f.param("groups", 0, 1 << 24)
    f.store(added, [0], _powers(f, target, scores, lambda key: [key * step], f.load(top, [0], lanes),
                                groups * TOGETHER))
    return f


def hide(b: Blocks, scores: View, query: Ix, key: Ix, count: Ix, hidden: float) -> None:
    """Scores of keys that are later than the query become `hidden`. Keys up to the panel's first query are seen by all
    of it.
    """
    f, s = b.f, b.s
    clear = f.max_(query + 1 - key, 0)
    with f.loop(clear, count) as loop:
        for u in range(0, s.nr, s.lanes):
            seen = f.ge(f.add(f.iota(s.lanes, i32), f.cast(f.value(query + u - key - loop.index), i32)), 0)
            f.store(scores, [loop.index, u],
                    f.select(seen, f.load(scores, [loop.index, u], s.lanes), f.const(hidden, b.dtype, s.lanes)))
