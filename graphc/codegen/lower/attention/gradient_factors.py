"""How the factors of the five products of attention's gradient reach the micro-kernel: as they are, or as pairs of
bf16."""
from __future__ import annotations

from math import lcm
from typing import NamedTuple

from graphc.codegen.loops.builder import View
from graphc.codegen.loops.index import Ix, as_ix
from graphc.codegen.lower.attention.blocks import Blocks, RowRange, Steps, by_width, product, sub_panel
from graphc.codegen.lower.attention.pairs import (
    halved, pair_features, pair_rows, pairs_of_features, pairs_of_rows, turn_pairs, turned_rows)
from graphc.ir.dims import static_dim, static_shape
from graphc.ir.types import bf16x2
from graphc.records import dataclass


class GradientScratch(NamedTuple):
    """Of one block of keys: panels of keys and values and of the sums of their gradients, keys as rows; of a block of
    queries the probabilities, of one panel, and the gradients of the scores."""
    keys: View
    values: View
    dk: View
    dv: View
    k_rows: View
    p: View
    ds: View


@dataclass(frozen=True)
class QueryBlock:
    """`count` queries from `query` on."""
    query: Ix
    count: Ix


class GradientFactors:
    """Read where they are. q, dout: of all queries. factor: of scores in units of ln 2."""

    def __init__(self, b: Blocks, q: View, dout: View, scratch: GradientScratch, factor: float):
        self.b, self.q, self.dout, self.scratch, self.factor = b, q, dout, scratch, factor

    @property
    def of_panels(self) -> float:
        """What keys are multiplied by in their panels."""
        return self.factor

    @property
    def unit(self) -> int:
        """Of which the first row of a block of scores is a multiple, where the queries before see no key."""
        return self.b.s.mr

    def of_keys(self, panels: Ix | int) -> None:
        """Prepares so many panels of keys and values."""

    def of_queries(self, at: QueryBlock) -> None:
        """Prepares a block of queries."""

    def multiply(self, at: QueryBlock, panel: Ix, start: Ix, made: Ix | int) -> None:
        """Rows of a panel's scores into p and of dout · v into ds, from row `start` on, for the keys that are made."""
        for b in by_width(self.b, made):
            for rows, panels, target in ((self.q, self.scratch.keys, self.scratch.p),
                                         (self.dout, self.scratch.values, self.ds_of(panel))):
                product(b, RowRange(rows, at.count, at.query, start), sub_panel(panels, panel),
                        static_dim(rows.shape[1]), target)

    def ds_of(self, panel: Ix) -> View:
        """The columns of a panel."""
        b, ds = self.b, self.scratch.ds
        return ds.view_at([0, panel * b.s.nr], (b.block_rows, b.s.nr), ds.strides)

    def add_to_keys(self, at: QueryBlock, panel: Ix, start: Ix, made: Ix | int) -> None:
        """dv += p^T dout and dk += ds^T q, of the rows from `start` on."""
        for b in by_width(self.b, made):
            for rows, weights, sums in ((self.dout, self.scratch.p, self.scratch.dv),
                                        (self.q, self.ds_of(panel), self.scratch.dk)):
                turned = b.f.reinterpret(rows, rows.shape[::-1], rows.strides[::-1]).view_at([0, at.query + start])
                product(b, RowRange(turned, as_ix(rows.shape[1])), weights.view_at([start, 0]), at.count - start,
                        sub_panel(sums, panel), add=1)

    def add_to_queries(self, at: QueryBlock, keys: Ix, steps: Steps, dq: View, add: Ix) -> None:
        """The rows of dq (+)= ds k, over `steps` of the block's `keys`."""
        s, k_rows = self.b.s, self.scratch.k_rows
        with self.b.f.loop(0, dq.shape[1], s.nr) as across:
            panel = k_rows.view_at([0, across.index], (s.columns, s.nr), k_rows.strides)
            target = dq.view_at([at.query, across.index], (dq.shape[0], s.nr), dq.strides)
            product(self.b, RowRange(self.scratch.ds, at.count), panel, steps, target, add)


class GradientPairs(GradientFactors):
    """Paired along what each product sums over: features for scores and dout · v, queries for dk and dv, keys for dq.
    Scores are those of the forward pass to the bit: queries are scaled, not keys."""

    def __init__(self, b: Blocks, q: View, dout: View, scratch: GradientScratch, factor: float):
        super().__init__(b, q, dout, scratch, factor)
        rows, columns, (features, width) = b.block_rows, b.s.columns, static_shape((q.shape[1], dout.shape[1]))
        self.keys, self.values = (b.f.scratch(name, bf16x2, (b.panels, -(-n // 2), b.s.nr))
                                  for name, n in (("key_pairs", features), ("value_pairs", width)))
        self.k_rows = pairs_of_rows(b, "key_row_pairs", columns, static_dim(scratch.k_rows.shape[1]))
        self.q_rows, self.dout_rows = (pairs_of_features(b, name, rows, n)
                                       for name, n in (("query_pairs", features), ("dout_pairs", width)))
        self.q_turned, self.dout_turned = (pairs_of_rows(b, name, rows, n, squares=b.matrices)
                                           for name, n in (("query_row_pairs", features), ("dout_row_pairs", width)))
        self.q_columns, self.dout_columns = (
            (turned_rows(b, "turned_queries", features), turned_rows(b, "turned_dout", width)) if b.matrices else
            [b.f.reinterpret(x, x.shape[::-1], x.strides[::-1]) for x in (self.q_turned, self.dout_turned)])
        self.p, self.ds = (pairs_of_rows(b, name, rows, b.s.nr) for name in ("p_pairs", "ds_pairs"))
        self.ds_rows = pairs_of_features(b, "ds_row_pairs", rows, columns)

    @property
    def of_panels(self) -> float:
        return 1.0

    @property
    def unit(self) -> int:
        return lcm(self.b.s.mr, 2)

    def of_keys(self, panels: Ix | int) -> None:
        b, s = self.b, self.b.s
        with b.f.loop(0, panels) as loop:
            for source, target, features in ((self.scratch.keys, self.keys, self.q.shape[1]),
                                             (self.scratch.values, self.values, self.dout.shape[1])):
                pair_rows(b, sub_panel(source, loop.index), Ix(), Ix(features), sub_panel(target, loop.index))
        pair_rows(b, self.scratch.k_rows, Ix(), Ix(s.columns), self.k_rows)

    def of_queries(self, at: QueryBlock) -> None:
        for source, rows, turned, columns, factor in (
                (self.q, self.q_rows, self.q_turned, self.q_columns, self.factor),
                (self.dout, self.dout_rows, self.dout_turned, self.dout_columns, 1.0)):
            pair_features(self.b, source, at.query, at.count, rows, factor)
            pair_rows(self.b, source, at.query, at.count, turned)
            if self.b.matrices:
                turn_pairs(self.b, turned, halved(self.b.f, at.count), columns)

    def multiply(self, at: QueryBlock, panel: Ix, start: Ix, made: Ix | int) -> None:
        for b in by_width(self.b, made):
            for rows, panels, target in ((self.q_rows, self.keys, self.scratch.p),
                                         (self.dout_rows, self.values, self.ds_of(panel))):
                product(b, RowRange(rows, at.count, start=start), sub_panel(panels, panel),
                        static_dim(panels.shape[1]), target)

    def add_to_keys(self, at: QueryBlock, panel: Ix, start: Ix, made: Ix | int) -> None:
        f, left = self.b.f, at.count - start
        first = f.divmod(start, 2)[0]
        steps = f.min_(halved(f, left), self.q_turned.shape[0] - first)         # the latter for the verifier
        for columns, width, weights, pairs, sums in (
                (self.dout_columns, self.dout.shape[1], self.scratch.p, self.p, self.scratch.dv),
                (self.q_columns, self.q.shape[1], self.ds_of(panel), self.ds, self.scratch.dk)):
            pair_rows(self.b, weights, start, left, pairs)
            for b in by_width(self.b, made):
                product(b, RowRange(columns.view_at([0, first]), as_ix(width)), pairs, steps, sub_panel(sums, panel),
                        add=1)

    def add_to_queries(self, at: QueryBlock, keys: Ix, steps: Steps, dq: View, add: Ix) -> None:
        b, f, s = self.b, self.b.f, self.b.s
        self._clear_odd(at, keys)
        pair_features(b, self.scratch.ds, Ix(), at.count, self.ds_rows)
        halves = (lambda row: halved(f, steps(row))) if callable(steps) else halved(f, steps)
        with f.loop(0, dq.shape[1], s.nr) as across:
            panel = self.k_rows.view_at([0, across.index], (self.k_rows.shape[0], s.nr), self.k_rows.strides)
            target = dq.view_at([at.query, across.index], (dq.shape[0], s.nr), dq.strides)
            product(b, RowRange(self.ds_rows, at.count), panel, halves, target, add)

    def _clear_odd(self, at: QueryBlock, keys: Ix) -> None:
        """What makes a pair with the last of an odd number of keys: the probability of a key of zeros, which may be
        infinite."""
        b, f, zero = self.b, self.b.f, self.b.f.const(0, self.b.dtype)
        if isinstance(b.columns, int) and b.columns % 2 == 0:
            return
        with f.loop(keys, f.min_(halved(f, keys) * 2, b.s.columns)) as odd, f.loop(0, at.count) as loop:
            f.store(self.scratch.ds, [loop.index, odd.index], zero)
