"""The gradient of attention in blocks (Dao 2023, FlashAttention-2): scores, probabilities and their gradients exist
one block at a time.

    for each query, in parallel: delta = dout · out
    for each part of the keys of each head, in parallel: for each block of its keys:
        for each block of queries: probabilities p again, from scores and logsumexp; ds = p (dout · v - delta);
            dv += p^T dout, dk += ds^T q; and into sums of the part's own: dq += ds k
    for each block of queries, in parallel: the parts' dq, added in order
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod

from graphc.codegen.loops.builder import LoopFunction, Val, View
from graphc.codegen.loops.index import Ix, as_ix
from graphc.codegen.lower.attention.blocks import (
    Blocks, Steps, blocks_of, copy_rows, fetch_ahead, in_groups, matrix, store_rows, turn, turn_back, vectors_of)
from graphc.codegen.lower.attention.gradient_factors import (
    GradientFactors, GradientPairs, GradientScratch, QueryBlock)
from graphc.codegen.lower.attention.mask import Mask
from graphc.codegen.lower.attention.powers import LN2, exp2
from graphc.codegen.lower.ranges import vector_run
from graphc.codegen.lower.request import KernelRequest
from graphc.codegen.lower.rows import function, unflattened
from graphc.ir.ops.attention import MASKED, AttentionGrad
from graphc.ir.dims import Dims, ceil_div, static_dim
from graphc.ir.types import i32
from graphc.schedule.attention_schedule import AttentionSchedule
from graphc.schedule.contraction_schedule import round_up

QUERY_ROWS = 64                     # rows whose deltas, or parts of dq, one thread adds up
TOGETHER = 4                        # vectors whose exponentials are computed together


def lower_attention_grad(r: KernelRequest[AttentionSchedule, AttentionGrad]) -> LoopFunction:
    """A function of the views q, k, v, the mask if there is one, output, logsumexp, dout, then dq, dk, dv, and one of
    shared scratch.
    """
    f, inputs, (dq, dk, dv) = function(r)
    s, op = r.schedule, r.op
    b = blocks_of(r, f, dk.shape[-2], dq.shape[-2])
    lead = dq.shape[:-2]
    shared = f.view("shared", dq.dtype, (s.deltas + s.partials,))
    deltas = shared.view_at([0], (prod(lead), b.rows), (b.rows, 1))
    sums = shared.view_at([s.deltas], (s.partials,), (1,))
    _compute_deltas(b, inputs[-3], inputs[-1], lead, deltas)
    _gradients(b, op, inputs, (dq, dk, dv), deltas, sums)
    return f


def _gradients(b: Blocks, op: AttentionGrad, inputs: Sequence[View], outs: Sequence[View], deltas: View,
               partials: View) -> None:
    """All blocks of keys, then what they give for the queries."""
    f, s, (dq, dk, dv), lead = b.f, b.s, outs, outs[0].shape[:-2]
    factor = op.factor(dq.shape)
    share, heads, sums = ceil_div(b.column_blocks, s.parts), prod(lead), _Sums(b, static_dim(dq.shape[-1]), partials)
    with f.parallel(heads * s.parts, "keys", serial=b.serial) as t:
        # large heads one by one: threads share their queries in L3
        number, part = f.divmod(t, heads)[::-1] if s.far else f.divmod(t, s.parts)
        of = _GradientHead(b, number, lead, (*inputs[:3], *inputs[-2:], dk, dv), inputs[3:-3], deltas,
                           op.hides_values)
        own, first = sums.of(number * s.parts + part), part * share
        if b.causal:
            sums.clear(own, f.min_(first * s.columns, b.rows))
        with f.loop(first, f.min_(first + share, b.column_blocks)) as blocks:
            _GradientBlock(b, factor, of, own, blocks.index * s.columns, f.min_(blocks.index - first, 1)).run()
    sums.store(dq, factor, lead)


def _compute_deltas(b: Blocks, out: View, dout: View, lead: Dims, deltas: View) -> None:
    """dout · out of each query."""
    f, lanes, width = b.f, b.s.lanes, out.shape[-1]
    with _query_rows(b, lead, "deltas") as (number, row):
        a, g = matrix(f, out, number, lead), matrix(f, dout, number, lead)

        def term(j: Ix, total: Val, mask: Val | None) -> Val:
            return f.fma(f.load(a, [row, j], lanes, mask), f.load(g, [row, j], lanes, mask), total)
        with f.loop(0, width // lanes * lanes, lanes, carry=(f.const(0, b.dtype, lanes),)) as loop:
            loop.next(term(loop.index, loop.carried[0], None))
        total, = loop.results
        if width % lanes:
            total = term(Ix(width // lanes * lanes), total, f.tail_mask(width % lanes, lanes))
        f.store(deltas, [number, row], f.reduce(total, "add"))


@contextmanager
def _query_rows(b: Blocks, lead: Dims, name: str) -> Iterator[tuple[Ix, Ix]]:
    """(head, query), in parallel."""
    f, blocks = b.f, ceil_div(b.rows, QUERY_ROWS)
    with f.parallel(prod(lead) * blocks, name, serial=b.serial) as t:
        number, block = f.divmod(t, blocks)
        with f.loop(block * QUERY_ROWS, f.min_(block * QUERY_ROWS + QUERY_ROWS, b.rows)) as loop:
            yield number, loop.index


class _GradientHead:
    """The matrices of one batch entry. hides: whether its mask hides keys and values, `hiding`."""

    def __init__(self, b: Blocks, number: Ix, lead: Dims, views: Sequence[View], masks: Sequence[View],
                 deltas: View, hides: bool):
        f = b.f
        q, k, v, lse, dout, dk, dv = views
        self.q, self.k, self.v, self.dout, self.dk, self.dv = (matrix(f, x, number, lead)
                                                               for x in (q, k, v, dout, dk, dv))
        self.lse = lse.view_at([*unflattened(f, number, lead), 0], lse.shape[-1:], lse.strides[-1:])
        self.deltas = deltas.view_at([number, 0], (b.rows,), (1,))
        self.mask = next((matrix(f, x, number, lead) for x in masks), None)
        self.hiding = Mask(b, self.mask, MASKED) if hides and self.mask is not None else None


class _Sums:
    """dq of every part of the keys: rows for whole register tiles, features for whole vectors."""

    def __init__(self, b: Blocks, features: int, memory: View):
        self.b, self.memory = b, memory
        self.shape = b.s.sum_rows(b.rows), round_up(features, b.s.nr)

    def of(self, number: Ix) -> View:
        """Those of part `number`, counted over heads."""
        return self.memory.view_at([number * prod(self.shape)], self.shape, (self.shape[1], 1))

    def clear(self, sums: View, rows: Ix) -> None:
        """The first rows, of queries that see no key of a causal part."""
        f, lanes = self.b.f, self.b.s.lanes
        with f.loop(0, rows) as loop, f.loop(0, sums.shape[1], lanes) as across:
            f.store(sums, [loop.index, across.index], f.const(0, self.b.dtype, lanes))

    def store(self, dq: View, factor: float, lead: Dims) -> None:
        """The sums of all parts, in order, times `factor`."""
        b, f = self.b, self.b.f
        with _query_rows(b, lead, "queries") as (number, row):
            target = matrix(f, dq, number, lead)
            vector_run(f, as_ix(target.shape[1]), b.s.lanes, lambda j, n, mask: f.store(
                target, [row, j], f.mul(self._total(number, row, j, n, mask), factor), mask))

    def _total(self, number: Ix, row: Ix, j: Ix, lanes: int, mask: Val | None) -> Val:
        f, parts = self.b.f, self.b.s.parts
        total, *others = [f.load(self.of(number * parts + p), [row, j], lanes, mask) for p in range(parts)]
        for x in others:
            total = f.add(total, x)
        return total


class _GradientBlock:
    """One block of keys of one head. Scores are in units of ln 2: a row for each query. `add`: whether dq has sums
    already (0 or 1).
    """

    def __init__(self, b: Blocks, factor: float, of: _GradientHead, dq: View, first: Ix, add: Ix):
        self.b, self.f, self.factor, self.of, self.dq, self.first, self.add = b, b.f, factor, of, dq, first, add
        self.features, self.width = static_dim(of.k.shape[1]), static_dim(of.v.shape[1])
        self.k_rows, self.rows = b.matrix_scratch("k_rows", self.features), b.matrix_scratch("rows", max(self.features,
                                                                                                         self.width))
        self.keys, self.values = b.panel_scratch("keys", self.features), b.panel_scratch("values", self.width)
        self.dk, self.dv = b.panel_scratch("dk", self.features), b.panel_scratch("dv", self.width)
        self.p, self.ds = (b.f.scratch(n, b.dtype, (b.block_rows, columns))
                           for n, columns in (("p", b.s.nr), ("ds", b.s.columns)))
        scratch = GradientScratch(self.keys, self.values, self.dk, self.dv, self.k_rows, self.p, self.ds)
        self.factors = (GradientPairs if b.in_pairs else GradientFactors)(b, of.q, of.dout, scratch, factor / LN2)

    def run(self) -> None:
        b, f, of = self.b, self.f, self.of
        for source, rows, panels, factor in ((of.k, self.k_rows, self.keys, self.factors.of_panels),
                                             (of.v, self.rows, self.values, 1.0)):
            copy_rows(b, source, self.first, rows)
            self._hide(rows)
            turn(b, rows, Ix(), static_dim(source.shape[1]), panels, factor, self.first)
        self.factors.of_keys(b.panels_made(self.first))
        self._clear(self.dk)
        self._clear(self.dv)
        with f.loop(self.first if b.causal else 0, b.rows, b.s.rows) as blocks:
            self._queries(blocks.index, f.min_(b.s.rows, b.rows - blocks.index))
        for panels, factor, width, target in ((self.dk, self.factor, self.features, of.dk),
                                              (self.dv, 1.0, self.width, of.dv)):
            with f.loop(0, b.panels_made(self.first)) as loop:
                turn_back(b, panels, loop.index, width, self.rows, Ix(), factor)
            self._hide(self.rows)
            store_rows(b, self.rows, self.first, target)

    def _hide(self, rows: View) -> None:
        """Of keys and values, and of their gradients, what the mask hides is 0."""
        if self.of.hiding is not None:
            self.of.hiding.clear(rows, self.first, self.f.min_(self.b.s.columns, self.b.columns - self.first))

    def _clear(self, panels: View) -> None:
        f, s = self.f, self.b.s
        with f.loop(0, self.b.panels_made(self.first)) as panel, f.loop(0, panels.shape[1]) as row:
            for u in range(0, s.nr, s.lanes):
                f.store(panels, [panel.index, row.index, u], f.const(0, self.b.dtype, s.lanes))

    def _queries(self, query: Ix, count: Ix) -> None:
        """The block of `count` queries from `query` on."""
        b, f, s = self.b, self.f, self.b.s
        panels, keys = b.panels_from(self.first), f.min_(s.columns, b.columns - self.first)
        steps: Steps = keys
        if b.causal:
            panels = f.min_(panels, f.divmod(query + count - 1 - self.first, s.nr)[0] + 1)
            steps = lambda row: f.min_(keys, query - self.first + f.min_(row + s.mr, count))
        at = QueryBlock(query, count)
        self.factors.of_queries(at)
        with f.loop(0, panels) as loop:
            if s.far:
                fetch_ahead(b, (self.of.q, self.of.dout, self.dq), query, loop.index)
            self._panel(at, loop.index)
        self.factors.add_to_queries(at, keys, steps, self.dq, self.add)

    def _panel(self, at: QueryBlock, panel: Ix) -> None:
        """p and ds of one panel of keys, from the register tile on whose queries see one of them; their part in dk and
        dv.
        """
        b, f, query, count, unit = self.b, self.f, at.query, at.count, self.factors.unit
        key = self.first + panel * b.s.nr
        start = f.min_(f.divmod(f.max_(key - query, 0), unit)[0] * unit, count) if b.causal else Ix()
        made = b.made(self.first, panel)
        self.factors.multiply(at, panel, start, made)
        for places in vectors_of(b, made):
            self._gradients(self.p, self.factors.ds_of(panel), places, query, key, start, count)
        self.factors.add_to_keys(at, panel, start, made)

    def _gradients(self, p: View, ds: View, places: Sequence[Ix | int], query: Ix, key: Ix, start: Ix,
                   count: Ix) -> None:
        """p = 2^(score - lse), ds = p (ds - delta) for the rows from `start` up to `count`, where p holds scores and
        ds holds dout · v: of some vectors of keys.
        """
        b, f, s = self.b, self.f, self.b.s
        # the first query that sees all keys of the panel
        clear = f.min_(f.max_(key + (s.nr - 1) - query, start), count) if b.causal else start

        def rows(numbers: Sequence[Ix], hidden: bool) -> None:
            tops = [f.mul(f.load(self.of.lse, [query + i]), 1 / LN2) for i in numbers]
            cells = [(i, u, top) for i, top in zip(numbers, tops) for u in places]
            powers = exp2(f, b.target, [f.sub(f.load(p, [i, u], s.lanes), top) for i, u, top in cells])
            for (i, u, _), power in zip(cells, powers):
                power = self._seen(power, query + i, key + u)
                if hidden:
                    power = f.select(f.le(f.iota(s.lanes, i32), f.cast(f.value(query + i - key - u), i32)), power, 0.0)
                f.store(ds, [i, u],
                        f.mul(power, f.sub(f.load(ds, [i, u], s.lanes), f.load(self.of.deltas, [query + i]))))
                f.store(p, [i, u], power)
        if b.causal:
            with f.loop(start, clear) as loop:
                rows([loop.index], True)
        for first, stop, step in in_groups(f, clear, count, max(1, TOGETHER // len(places))):
            with f.loop(first, stop, step) as loop:
                rows([loop.index + i for i in range(step)], False)

    def _seen(self, power: Val, query: Ix, key: Ix) -> Val:
        """0 for the keys, from `key` on, that the mask hides from the query."""
        b, f, lanes, mask = self.b, self.f, self.b.s.lanes, self.of.mask
        if mask is None:
            return power
        row = Ix() if mask.shape[0] == 1 else query
        if mask.shape[1] == 1:
            sees = f.splat(f.cast(f.load(mask, [row, 0]), b.dtype), lanes)
        else:
            sees = f.cast(f.load(mask, [row, key], lanes, f.tail_mask(b.columns - key, lanes)), b.dtype)
        return f.select(f.gt(sees, 0.5), power, 0.0)
