"""Factors of attention's products as pairs of bf16: rounded and put together in scratch, block by block. They are few
beside what they are multiplied with."""
from __future__ import annotations

from graphc.codegen.loops.builder import LoopFunction, Val, View
from graphc.codegen.loops.index import Ix, as_ix
from graphc.codegen.lower.attention.blocks import Blocks
from graphc.codegen.lower.ranges import vector_run
from graphc.codegen.lower.transpose import transposed
from graphc.ir.dims import static_dim
from graphc.ir.types import bf16, bf16x2
from graphc.schedule.contraction_schedule import round_up
from graphc.schedule.matrix_registers import copied_row


def halved(f: LoopFunction, steps: Ix | int) -> Ix:
    """Pairs of so many, the last one perhaps with 0."""
    return f.divmod(as_ix(steps) + 1, 2)[0]


def pairs_of_features(b: Blocks, name: str, rows: int, features: int) -> View:
    """Scratch for `pair_features`: whole vectors."""
    return b.f.scratch(name, bf16x2, (rows, round_up(-(-features // 2), b.s.lanes)))


def pairs_of_rows(b: Blocks, name: str, rows: int, features: int, squares: bool = False) -> View:
    """Scratch for `pair_rows`; squares: with room for whole ones, which `turn_pairs` reads."""
    unit = b.s.lanes if squares else 1
    return b.f.scratch(name, bf16x2, (round_up(-(-rows // 2), unit), round_up(features, unit)))


def turned_rows(b: Blocks, name: str, width: int) -> View:
    """Scratch for `turn_pairs`: [feature][pair of a block's rows]."""
    return b.f.scratch(name, bf16x2, (round_up(width, b.s.lanes), copied_row(-(-b.block_rows // 2))))


def turn_pairs(b: Blocks, pairs: View, count: Ix, target: View) -> None:
    """target[j, i] = pairs[i, j] for the first `count` rows: squares, whose last rows and columns are not read."""
    f, lanes, width = b.f, b.s.lanes, static_dim(pairs.shape[1])
    with f.loop(0, count, lanes) as down, f.loop(0, width, lanes) as across:
        for j, column in enumerate(transposed(f, pairs, down.index, across.index, lanes)):
            f.store(target, [across.index + j, down.index], column)


def pair_features(b: Blocks, source: View, first: Ix, count: Ix, target: View, factor: float = 1.0) -> None:
    """target[i, j] = features 2 j and 2 j + 1 of row first + i, times `factor`; zeros up to whole vectors."""
    f, lanes, features = b.f, b.s.lanes, static_dim(source.shape[1])
    whole = features // (2 * lanes) * lanes

    def store(i: Ix, j: Ix, count: int) -> None:
        mask = f.tail_mask(Ix(count), 2 * lanes) if count < 2 * lanes else None
        x = f.load(source, [first + i, j * 2], 2 * lanes, mask)
        f.store(target, [i, j], f.pairs(f.cast(f.mul(x, factor) if factor != 1 else x, bf16)))
    with f.loop(0, count) as loop:
        with f.loop(0, whole, lanes) as across:
            store(loop.index, across.index, 2 * lanes)
        if 2 * whole < features:
            store(loop.index, Ix(whole), features - 2 * whole)


def pair_rows(b: Blocks, source: View, first: Ix, count: Ix, target: View) -> None:
    """target[i, j] = element j of rows first + 2 i and first + 2 i + 1; 0 for one after the last."""
    f = b.f
    whole = f.divmod(count, 2)[0]

    def store(i: Ix, is_whole: bool) -> None:
        def element(j: Ix, lanes: int, mask: Val | None) -> None:
            x = f.load(source, [first + i * 2, j], lanes, mask)
            y = f.load(source, [first + i * 2 + 1, j], lanes, mask) if is_whole else f.const(0, b.dtype, lanes)
            f.store(target, [i, j], f.rounded_pair(x, y), mask)
        vector_run(f, as_ix(source.shape[1]), b.s.lanes, element)
    with f.loop(0, whole) as loop:
        store(loop.index, True)
    with f.loop(whole, halved(f, count)) as loop:
        store(loop.index, False)
