"""The gradient of attention in blocks (Dao 2023, FlashAttention-2): scores, probabilities and their gradients exist one block at a time.

    for each part of the queries of each head, in parallel: for each block of its queries:
        for each block of keys: probabilities p again, from scores and logsumexp; ds = p (dout · v - delta), delta = dout · out;
            dq += ds k; and into sums of the part's own: dv += p^T dout, dk += ds^T q
    for each block of keys, in parallel: the parts' dk and dv, added in order
"""
from __future__ import annotations

from collections.abc import Sequence
from math import inf, prod

from graphc.codegen.index import Ix, as_ix
from graphc.codegen.loops import Function, Val, View
from graphc.codegen.lower.attention_blocks import Blocks, LN2, copy_rows, exp2, fetch_ahead, in_groups, matrix, product, store_rows, sub_panel, turn, turn_back
from graphc.codegen.lower.attention_mask import Mask
from graphc.codegen.lower.ranges import vector_run
from graphc.codegen.lower.rows import function, unflattened
from graphc.ir.graph import Node
from graphc.ir.ops.attention import AttentionGrad
from graphc.ir.schedule import round_up
from graphc.ir.schedule_attention import AttentionSchedule
from graphc.ir.target import Target
from graphc.ir.types import i32
from graphc.ir.view import ViewType

KEY_ROWS = 64                       # rows of dk and dv that are added up together
TOGETHER = 2                        # keys whose powers are computed together


def lower_attention_grad(name: str, node: Node, ins: Sequence[ViewType], outs: Sequence[ViewType], s: AttentionSchedule, target: Target) -> Function:
    f, inputs, (dq, dk, dv) = function(name, ins, outs)
    b = Blocks(f, s, target.has_fma, dq.dtype, dq.shape[-2], dk.shape[-2], node.op.causal)
    sums = _Sums(b, dk.shape[-1], dv.shape[-1], f.view("sums", dq.dtype, (s.partials,)))
    factor, lead = node.op.factor(dq.shape), dq.shape[:-2]
    share, heads = -(-b.query_blocks // s.parts), prod(dq.shape[:-2])
    with f.parallel(heads * s.parts, "queries", serial=s.serial) as t:
        number, part = f.divmod(t, heads)[::-1] if s.far else f.divmod(t, s.parts)      # large heads one by one: threads share their keys in L3
        part = part * -1 + (s.parts - 1)                    # the last queries see most keys: they begin
        of = _Head(b, number, lead, (*inputs[:3], *inputs[-3:], dq), inputs[3:-3])
        dk_sums, dv_sums = sums.of(number * s.parts + part)
        sums.clear(dk_sums, dv_sums)
        with f.loop(part * share, f.min_(part * share + share, b.query_blocks)) as blocks:
            _Block(b, factor, of, dk_sums, dv_sums, blocks.index * s.queries).run()
    sums.store(dk, dv, factor, lead)
    return f


class _Head:
    """The matrices of one batch entry."""

    def __init__(self, b: Blocks, number: Ix, lead: Sequence[int], views: Sequence[View], masks: Sequence[View]):
        f, (q, k, v, out, lse, dout, dq) = b.f, views
        self.q, self.k, self.v, self.out, self.dout, self.dq = (matrix(f, x, number, lead) for x in (q, k, v, out, dout, dq))
        self.lse = lse.view_at([*unflattened(f, number, lead), 0], lse.shape[-1:], lse.strides[-1:])
        self.mask = next((Mask(b, matrix(f, x, number, lead), -inf) for x in masks), None)


class _Sums:
    """dk and dv of every part of the queries: rows for whole register tiles, features for whole vectors."""

    def __init__(self, b: Blocks, features: int, values: int, memory: View):
        self.b, self.features, self.values, self.memory = b, features, values, memory
        self.rows = b.s.sum_rows(b.tk)
        self.widths = round_up(features, b.s.nr), round_up(values, b.s.nr)

    def of(self, number: Ix) -> tuple[View, View]:
        """Those of part `number`, counted over heads."""
        start = number * (self.rows * sum(self.widths))
        places = start, start + self.rows * self.widths[0]
        return tuple(self.memory.view_at([at], (self.rows, width), (width, 1)) for at, width in zip(places, self.widths))

    def clear(self, *sums: View) -> None:
        f, lanes = self.b.f, self.b.s.lanes
        for view in sums:
            with f.loop(0, view.shape[0]) as loop, f.loop(0, view.shape[1], lanes) as across:
                f.store(view, [loop.index, across.index], f.const(0, self.b.dtype, lanes))

    def store(self, dk: View, dv: View, factor: float, lead: Sequence[int]) -> None:
        """The sums of all parts, in order; dk times `factor`."""
        b, f = self.b, self.b.f
        blocks = -(-b.tk // KEY_ROWS)
        with f.parallel(prod(lead) * blocks, "keys", serial=b.s.serial) as t:
            number, block = f.divmod(t, blocks)
            targets = [matrix(f, x, number, lead) for x in (dk, dv)]
            first = block * KEY_ROWS
            with f.loop(first, f.min_(first + KEY_ROWS, b.tk)) as loop:
                for which, (target, scale) in enumerate(zip(targets, (factor, 1.0))):
                    vector_run(f, as_ix(target.shape[1]), b.s.lanes, lambda j, n, mask: f.store(
                        target, [loop.index, j], f.mul(self._total(which, number, loop.index, j, n, mask), scale), mask))

    def _total(self, which: int, number: Ix, row: Ix, j: Ix, lanes: int, mask: Val | None) -> Val:
        f, parts = self.b.f, self.b.s.parts
        loads = [f.load(self.of(number * parts + p)[which], [row, j], lanes, mask) for p in range(parts)]
        total = loads[0]
        for x in loads[1:]:
            total = f.add(total, x)
        return total


class _Block:
    """One block of queries of one head. Scores are in units of ln 2, transposed: a row for each key."""

    def __init__(self, b: Blocks, factor: float, of: _Head, dk: View, dv: View, first: Ix):
        self.b, self.f, self.factor, self.of, self.dk, self.dv, self.first = b, b.f, factor, of, dk, dv, first
        f, s = b.f, b.s
        self.features, self.values = of.q.shape[1], of.v.shape[1]
        self.q_rows, self.g_rows = b.row_scratch("q_rows", self.features), b.row_scratch("dout_rows", self.values)
        self.queries, self.grads = b.panel_scratch("queries", self.features), b.panel_scratch("douts", self.values)
        self.dq = b.panel_scratch("dq", self.features)
        self.lse, self.delta = (f.scratch(n, b.dtype, (b.panels, s.nr)) for n in ("lse", "delta"))
        self.p, self.ds = (f.scratch(n, b.dtype, (b.key_rows, s.queries)) for n in ("p", "ds"))
        self.k_turned = f.reinterpret(of.k, of.k.shape[::-1], of.k.strides[::-1])

    def run(self) -> None:
        b, f, of = self.b, self.f, self.of
        self._columns()
        copy_rows(b, of.q, self.first, self.q_rows)
        turn(b, self.q_rows, self.features, self.queries, self.factor / LN2)
        limit = f.min_(b.tk, self.first + b.s.queries) if b.causal else as_ix(b.tk)
        with f.loop(0, limit, b.s.keys) as blocks:
            self._keys(blocks.index, f.min_(b.s.keys, limit - blocks.index))
        rows = b.row_scratch("dq_rows", self.features)
        with f.loop(0, b.panels) as loop:
            turn_back(b, self.dq, loop.index, self.features, rows, [f.const(self.factor, b.dtype, b.s.lanes)] * b.s.vectors)
        store_rows(b, rows, self.first, of.dq)

    def _columns(self) -> None:
        """dout and its panels; for each query delta = dout · out, and its logsumexp; dq = 0."""
        b, f, s = self.b, self.f, self.b.s
        outs, rows = b.panel_scratch("outs", self.values), b.row_scratch("out_rows", self.values)
        for source, turned, panels in ((self.of.out, rows, outs), (self.of.dout, self.g_rows, self.grads)):
            copy_rows(b, source, self.first, turned)
            turn(b, turned, self.values, panels, 1.0)
        with f.loop(0, b.panels) as panel:
            for u in range(0, s.nr, s.lanes):
                with f.loop(0, self.values, carry=(f.const(0, b.dtype, s.lanes),)) as loop:
                    at = [panel.index, loop.index, u]
                    loop.next(f.fma(f.load(outs, at, s.lanes), f.load(self.grads, at, s.lanes), loop.carried[0]))
                f.store(self.delta, [panel.index, u], loop.results[0])
                query = self.first + panel.index * s.nr + u
                lse = f.load(self.of.lse, [query], s.lanes, f.tail_mask(b.tq - query, s.lanes))
                f.store(self.lse, [panel.index, u], f.mul(lse, 1 / LN2))
            with f.loop(0, self.dq.shape[1]) as row:
                for u in range(0, s.nr, s.lanes):
                    f.store(self.dq, [panel.index, row.index, u], f.const(0, b.dtype, s.lanes))

    def _keys(self, key: Ix, count: Ix) -> None:
        """The block of `count` keys from `key` on."""
        b, f = self.b, self.f
        first, panels = self._first_panel(key), b.panels_from(self.first)
        zeros = (lambda row: f.min_(self._first_panel(key + row), panels) * b.s.nr) if b.causal else None
        with f.loop(first, panels) as loop:
            if b.s.far:
                fetch_ahead(b, (self.of.k, self.of.v, self.dk, self.dv), key, loop.index)
            self._panel(key, count, loop.index)
        for rows, weights, sums in ((self.g_rows, self.p, self.dv), (self.q_rows, self.ds, self.dk)):
            with f.loop(0, sums.shape[1], b.s.nr) as across:
                panel = rows.view_at([0, across.index], (b.s.queries, b.s.nr), rows.strides)
                target = sums.view_at([key, across.index], (sums.shape[0], b.s.nr), sums.strides)
                product(b, weights, Ix(), count, panel, panels * b.s.nr, target, 1, zeros)

    def _first_panel(self, key: Ix) -> Ix:
        """The first panel of which a query sees the key: queries before it have no part in the gradients of this key and those after it."""
        b, f = self.b, self.f
        return f.max_(f.divmod(key - self.first, b.s.nr)[0], 0) if b.causal else Ix()

    def _panel(self, key: Ix, count: Ix, panel: Ix) -> None:
        """p and ds of one panel of queries; its dq."""
        b, f = self.b, self.f
        p, ds = self._of_panel(panel)
        query = self.first + panel * b.s.nr
        seen = f.min_(count, query + b.s.nr - key) if b.causal else count
        product(b, self.of.k, key, seen, sub_panel(self.queries, panel), self.features, p, 0)
        if self.of.mask is not None:
            self.of.mask.apply(p, query, key, seen)
        product(b, self.of.v, key, seen, sub_panel(self.grads, panel), self.values, ds, 0)
        self._gradients(p, ds, panel, query, key, seen)
        self._clear(p, ds, seen, count)
        keys = self.k_turned.view_at([0, key])
        product(b, keys, Ix(), as_ix(self.features), ds, seen, sub_panel(self.dq, panel), 1)

    def _of_panel(self, panel: Ix) -> list[View]:
        """p and ds of one panel of queries: [key][query]."""
        return [x.view_at([0, panel * self.b.s.nr], (self.b.key_rows, self.b.s.nr), x.strides) for x in (self.p, self.ds)]

    def _gradients(self, p: View, ds: View, panel: Ix, query: Ix, key: Ix, seen: Ix) -> None:
        """p = 2^(score - lse), ds = p (ds - delta) for the first `seen` keys, where p holds scores and ds holds dout · v."""
        b, f, s = self.b, self.f, self.b.s
        places = range(0, s.nr, s.lanes)
        lse, delta = ([f.load(x, [panel, u], s.lanes) for u in places] for x in (self.lse, self.delta))
        clear = f.min_(f.max_(query + 1 - key, 0), seen) if b.causal else seen      # keys that all queries of the panel see

        def rows(keys: Sequence[Ix], hidden: bool) -> None:
            cells = [(i, u, *columns) for i in keys for u, *columns in zip(places, lse, delta)]
            powers = exp2(f, [f.sub(f.load(p, [i, u], s.lanes), top) for i, u, top, _ in cells])
            for (i, u, _, less), power in zip(cells, powers):
                if hidden:
                    sees = f.ge(f.add(f.iota(s.lanes, i32), f.cast(f.value(query + u - key - i), i32)), 0)
                    power = f.select(sees, power, f.const(0, b.dtype, s.lanes))
                f.store(ds, [i, u], f.mul(power, f.sub(f.load(ds, [i, u], s.lanes), less)))
                f.store(p, [i, u], power)
        for start, stop, step in in_groups(f, clear, TOGETHER):
            with f.loop(start, stop, step) as loop:
                rows([loop.index + i for i in range(step)], False)
        if b.causal:
            with f.loop(clear, seen) as loop:
                rows([loop.index], True)

    def _clear(self, p: View, ds: View, seen: Ix, count: Ix) -> None:
        """Zeros for the keys that the panel does not see, up to the last whole register tile."""
        b, f, s = self.b, self.f, self.b.s
        tiles, _ = f.divmod(count + (s.mr - 1), s.mr)
        with f.loop(seen, f.min_(tiles * s.mr, s.keys)) as loop:
            for view in (p, ds):
                for u in range(0, s.nr, s.lanes):
                    f.store(view, [loop.index, u], f.const(0, b.dtype, s.lanes))


ROWS = {AttentionGrad: lower_attention_grad}
