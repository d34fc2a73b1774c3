"""Chooses the blocks of attention."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod

from graphc.ir.dims import Dim, Poly, static_dim, typical, upper
from graphc.ir.ops.attention import Attention, AttentionGrad
from graphc.schedule.attention_schedule import AttentionSchedule
from graphc.schedule.attention_tiles import ForwardProblem, ForwardTiles, gradient_cycles, gradient_ranking
from graphc.schedule.contraction_schedule import round_up
from graphc.schedule.kernel_problem import KernelProblem
from graphc.schedule.target import ALIGNMENT, Target
from graphc.schedule.view import ViewType

QUERY_BLOCK = 72                # columns of a block, at most: its transposed queries and sums stay in L1 and L2
# its rows: as few as keep scores in L1 beside queries, enough to pay for the sums, which each block adds to
KEY_BLOCK = 72
MATRIX_KEYS = 128               # of a block where matrix registers multiply: sums are stored and loaded for each
GRADIENT_KEYS = (128, 64)       # columns: the first that gives tiles enough, as each block of keys passes over all sums
GRADIENT_QUERIES = 96
WORTH = 1.05                    # how much faster register tiles for few columns must be


def attention_schedule(p: KernelProblem[Attention]) -> AttentionSchedule:
    """A pure function of operator, shapes and target."""
    q, k, v = p.ins[:3]
    op = p.core.op
    return _placed(p, _forward(q, k, v, op.causal, p.target, _by_matrices(p), op.factors is not None))


def attention_grad_schedule(p: KernelProblem[AttentionGrad]) -> AttentionSchedule:
    """The same of the gradient."""
    q, k, v = p.ins[:3]
    return _placed(p, _gradient(q, k, v, p.core.op.causal, p.target, _by_matrices(p)))


def _by_matrices(p: KernelProblem[Attention] | KernelProblem[AttentionGrad]) -> bool:
    """Whether matrix registers multiply."""
    return p.core.op.factors is not None and p.target.multiplies_matrices(p.core.op.factors.name)


def _placed(p: KernelProblem[Attention] | KernelProblem[AttentionGrad], s: AttentionSchedule) -> AttentionSchedule:
    """Little arithmetic stays on the caller; how little is asked at run time where sizes come with the call."""
    flops, small = p.node.op.cost(*(v.type for v in p.node.inputs)).flops, p.target.machine.small_product_flops
    return replace(s, serial=flops < small) if isinstance(flops, int) else replace(s, alone=small)


def _forward(q: ViewType, k: ViewType, v: ViewType, causal: bool, target: Target, matrices: bool,
             pairs: bool) -> AttentionSchedule:
    """Columns are queries; values are rows of a product, too, or columns of one whose rows are queries."""
    lanes, features, values = target.lanes(q.dtype.itemsize), static_dim(k.shape[-1]), static_dim(v.shape[-1])
    keys, reads_rows = typical(k.shape[-2]), not pairs and v.strides[-1] == 1
    problem = ForwardProblem(target, lanes, typical(prod(k.shape[:-2])), q.shape[-2], keys, features, values, causal,
                             reads_rows, matrices)
    ranking = problem.ranking
    tiles = ranking.best.schedule
    far = keys * (features + values) * q.dtype.itemsize > target.machine.l2_bytes
    most_rows = MATRIX_KEYS if matrices else KEY_BLOCK
    s = AttentionSchedule(
        *_block(q.shape[-2], QUERY_BLOCK, k.shape[-2], most_rows, tiles.mr, tiles.vectors * lanes),
        tiles.mr,
        tiles.vectors,
        lanes,
        serial=False,
        far=far,
        itemsize=q.dtype.itemsize,
        any_length=isinstance(k.shape[-2], Poly),
        by_rows=tiles.by_rows,
        ranking=ranking,
    )
    if not isinstance(q.shape[-2], Poly):
        return s

    def cycles(count: int, tile: tuple[int, int]) -> float:
        return replace(problem, queries=count).cycles(ForwardTiles(*tile, s.by_rows))
    return replace(s, fewer=_fewer(s, target, () if s.by_rows else (values,), matrices, cycles), brief=True)


def _fewer(s: AttentionSchedule, target: Target, widths: Sequence[int], matrices: bool,
           cycles: Callable[[int, tuple[int, int]], float]) -> tuple[tuple[int, int], ...]:
    """For the last columns, register tiles of half as many vectors each: of wider ones these would fill a part. Those
    that are worth their code, by what as many columns cost (`cycles`). Of the heights those come first that divide the
    `widths` of what they go through, so that these need no kernels of their own, if they keep the units busy. Matrix
    registers take the same rows: they add up so many terms at once, from the first row of a tile on."""
    busy, code = target.machine.busy_sums, target.machine.handover_cycles / 2

    def rows(vectors: int) -> int:
        most = min(target.tile_rows(vectors), target.machine.address_rows)
        return max((n for n in range(1, most + 1) if s.rows % n == 0),
                   key=lambda n: (n * vectors >= busy and all(width % n == 0 for width in widths), n))
    kept, vectors = [(s.mr, s.vectors)], s.vectors // 2
    while vectors:
        tile, count = (s.mr if matrices else rows(vectors), vectors), vectors * s.lanes
        if cycles(count, kept[0]) > WORTH * cycles(count, tile) + code:
            kept.insert(0, tile)
        vectors //= 2
    return tuple(kept[:-1])


def _gradient(q: ViewType, k: ViewType, v: ViewType, causal: bool, target: Target,
              matrices: bool) -> AttentionSchedule:
    """Columns are keys; features and values are rows of products, features columns of one, too. Few heads are divided:
    each part of the keys has a gradient of all queries, which are added up afterwards. That is a sum whose bits would
    depend on sizes that come with the call, so then heads stay whole."""
    lanes, itemsize = target.lanes(q.dtype.itemsize), q.dtype.itemsize
    (*lead, queries, _), keys = q.shape, v.shape[-2]
    features, values = static_dim(q.shape[-1]), static_dim(v.shape[-1])
    heads, tiles = prod(lead), target.machine.planned_tiles
    usual_heads, usual_keys, usual_queries = typical(heads), typical(keys), typical(queries)
    ranking = gradient_ranking(target, lanes, usual_heads * usual_queries, keys, (features, values), causal, matrices)
    mr, vectors = ranking.best.schedule
    nr = vectors * lanes
    most = next((n for n in GRADIENT_KEYS if usual_heads * -(-usual_keys // n) >= tiles), GRADIENT_KEYS[-1])
    s = AttentionSchedule(
        *_block(keys, most, queries, GRADIENT_QUERIES, mr, nr),
        mr,
        vectors,
        lanes,
        serial=False,
        itemsize=itemsize,
        any_length=isinstance(keys, Poly),
        # several steps of many rows at a time do not fit the registers
        brief=mr > target.machine.easy_rows,
        ranking=ranking,
    )
    parts = 1
    if isinstance(keys, int) and isinstance(heads, int):
        blocks = -(-keys // s.columns)
        parts = -(-blocks // -(-blocks // max(1, min(blocks, tiles // heads))))
    far = usual_queries * (features + values + round_up(features, nr)) * itemsize > target.machine.l2_bytes
    deltas = round_up(heads * queries * itemsize, ALIGNMENT) // itemsize

    partials = heads * parts * s.sum_rows(queries) * round_up(features, nr)
    s = replace(s, parts=parts, deltas=deltas, partials=partials, far=far)
    if not isinstance(keys, Poly):
        return s

    def cycles(count: int, tile: tuple[int, int]) -> float:
        return gradient_cycles(target, lanes, usual_heads * usual_queries, count, (features, values), causal, tile)
    return replace(s, fewer=_fewer(s, target, (features, values), matrices, cycles))


def _block(columns: Dim, most_columns: int, rows: Dim, most_rows: int, mr: int, nr: int) -> tuple[int, int]:
    """Columns and rows of a block, in whole register tiles."""
    return _at_most(columns, max(most_columns // nr, 1) * nr, nr), _at_most(rows, round_up(most_rows, mr), mr)


def _at_most(count: Dim, most: int, unit: int) -> int:
    """The length of a block of up to `most`, or less where there are never so many."""
    limit = upper(count)
    return most if limit is None else min(most, round_up(limit, unit))
