"""Chooses the blocks of attention."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from math import prod

from graphc.ir.dims import Dim, Poly, static_dim, typical, upper
from graphc.ir.ops.attention import Attention, AttentionGrad
from graphc.schedule.attention_schedule import AttentionSchedule
from graphc.schedule.contraction_schedule import round_up
from graphc.schedule.cost import Candidate, Ranking, ranked
from graphc.schedule.kernel_problem import KernelProblem
from graphc.schedule.target import ALIGNMENT, MATRIX_LANES, Target
from graphc.schedule.view import ViewType

QUERY_BLOCK = 72                # columns of a block, at most: its transposed queries and sums stay in L1 and L2
# its rows: as few as keep scores in L1 beside queries, enough to pay for the sums, which each block adds to
KEY_BLOCK = 72
MATRIX_KEYS = 128               # of a block where matrix registers multiply: sums are stored and loaded for each
GRADIENT_KEYS = (128, 64)       # columns: the first that gives tiles enough, as each block of keys passes over all sums
GRADIENT_QUERIES = 96
NARROW_PANELS = 3               # vectors of few columns, at most
LENGTHS = (1, 2, 4, 8)          # quarters of the typical number of columns, of which each may come
BY_ROWS_SUMS = 8                # of values at once, at least: two units wait four cycles for each
EXPOSED_LOADS = 0.25            # of a product's loads, the part that its multiply-adds do not hide


def attention_schedule(p: KernelProblem[Attention]) -> AttentionSchedule:
    """A pure function of operator, shapes and target."""
    q, k, v = p.ins[:3]
    s = _forward(q, k, v, p.core.op.causal, p.target, _by_matrices(p))
    few, reads_rows = s.narrow or s, p.core.op.factors is None and v.strides[-1] == 1
    if reads_rows and not isinstance(q.shape[-2], Poly):
        s = _perhaps_by_rows(s, q, k, v, p.core.op.causal, p.target)
    elif reads_rows and few.vectors == 1:
        s = replace(s, narrow=replace(few, narrow=replace(few, columns=few.lanes, by_rows=True)))
    return _placed(p, s)


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


def _forward(q: ViewType, k: ViewType, v: ViewType, causal: bool, target: Target,
             matrices: bool) -> AttentionSchedule:
    """Columns are queries; values are rows of a product, too."""
    lanes, values = target.lanes(q.dtype.itemsize), static_dim(v.shape[-1])
    keys = typical(k.shape[-2])
    ranking = _register_tiles(
        target,
        lambda mr, nr: _columns(q.shape[-2], nr, causal) * round_up(values, mr),
        lanes,
        typical(prod(k.shape[:-1])),
        matrices,
    )
    mr, vectors = ranking.best.schedule
    far = keys * (static_dim(k.shape[-1]) + values) * q.dtype.itemsize > target.machine.l2_bytes
    s = AttentionSchedule(
        *_block(q.shape[-2], QUERY_BLOCK, k.shape[-2], MATRIX_KEYS if matrices else KEY_BLOCK, mr, vectors * lanes),
        mr,
        vectors,
        lanes,
        serial=False,
        far=far,
        itemsize=q.dtype.itemsize,
        any_length=isinstance(k.shape[-2], Poly),
        ranking=ranking,
    )
    return replace(s, narrow=_narrow(s, target, (values,), matrices)) if isinstance(q.shape[-2], Poly) else s


def _perhaps_by_rows(s: AttentionSchedule, q: ViewType, k: ViewType, v: ViewType, causal: bool,
                     target: Target) -> AttentionSchedule:
    """The schedule, or that of blocks of one vector of queries whose sums are vectors of values, where that takes fewer
    cycles: of wider blocks few queries fill a part, and each value is broadcast."""
    machine, features, values = target.machine, static_dim(q.shape[-1]), static_dim(v.shape[-1])
    mr = min(target.tile_rows(1), machine.address_rows)
    few = replace(s, columns=s.lanes, rows=round_up(min(KEY_BLOCK, s.rows), mr), mr=mr, vectors=1, by_rows=True)
    vectors = -(-values // s.lanes)
    together = min(s.lanes, max(1, BY_ROWS_SUMS // vectors))

    def product(name: str, elements: float, tile: tuple[int, int]) -> tuple[str, float]:
        """elements: multiply-adds of one key; tile: rows and vectors that are added up at a time."""
        sums = typical(prod(k.shape[:-1])) * elements / s.lanes / machine.fma_per_cycle / machine.planned_cores
        waited = (machine.fma_latency + 1) * machine.fma_per_cycle / prod(tile) - 1
        return name, sums * (1 + max(0.0, waited) + EXPOSED_LOADS * sum(1 / n for n in tile))
    wide, one = (_columns(q.shape[-2], nr, causal) for nr in (s.nr, s.lanes))
    by_rows = round_up(typical(q.shape[-2]), together) * vectors * s.lanes
    ranking = ranked((
        Candidate("tiles", s, (product("scores", wide * features, (s.mr, s.vectors)),
                               product("values", wide * round_up(values, s.mr), (s.mr, s.vectors)))),
        Candidate("sums by rows", few, (product("scores", one * features, (mr, 1)),
                                        product("values", by_rows, (together, min(vectors, BY_ROWS_SUMS)))))))
    return replace(few, ranking=ranking) if ranking.best.schedule is few else s


def _narrow(s: AttentionSchedule, target: Target, widths: Sequence[int],
            matrices: bool) -> AttentionSchedule | None:
    """For few columns, with register tiles of one vector: of wider ones they would fill a part. Blocks have the same
    rows, so that sums are those of the other schedule. Of the heights those come first that divide the features, so
    that these need no kernels of their own, if they keep the units busy. Matrix registers take the same rows: they add
    up so many terms at once, from the first row of a tile on."""
    rows = min(target.tile_rows(1), target.machine.address_rows)
    busy = target.machine.busy_sums
    mr = s.mr if matrices else max((n for n in range(1, rows + 1) if s.rows % n == 0),
                                   key=lambda n: (n >= busy and all(width % n == 0 for width in widths), n))
    columns = NARROW_PANELS * s.lanes
    return replace(s, columns=columns, mr=mr, vectors=1, brief=True) if columns < s.columns else None


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
    ranking = _register_tiles(
        target,
        lambda mr, nr: (
            _columns(keys, nr, causal)
            * (features + values + round_up(features, mr) + round_up(values, mr) + round_up(features, nr))
        ),
        lanes,
        usual_heads * usual_queries,
        matrices,
    )
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
        ranking=ranking,
    )
    parts = 1
    if isinstance(keys, int) and isinstance(heads, int):
        blocks = -(-keys // s.columns)
        parts = -(-blocks // -(-blocks // max(1, min(blocks, tiles // heads))))
    far = usual_queries * (features + values + round_up(features, nr)) * itemsize > target.machine.l2_bytes
    deltas = round_up(heads * queries * itemsize, ALIGNMENT) // itemsize
    narrow = _narrow(s, target, (features, values), matrices) if isinstance(keys, Poly) else None
    rows = max(s.sum_rows(0), narrow.sum_rows(0) if narrow is not None else 0) + queries
    s = replace(s, parts=parts, deltas=deltas, partials=heads * parts * rows * round_up(features, nr), far=far)
    return s if narrow is None else replace(s, narrow=_narrow(s, target, (features, values), matrices))


def _columns(count: Dim, nr: int, causal: bool) -> float:
    """Columns that are computed, in whole register tiles; of a triangle twice as many as on average, and one tile that
    crosses its edge. Where their number comes with the call, as many for each as of shorter and longer blocks."""
    usual = typical(count)
    tried = [count] if isinstance(count, int) else [max(1, usual * part // 4) for part in LENGTHS]
    return sum([(round_up(n, nr) + nr * causal) * usual / n for n in tried]) / len(tried)


def _block(columns: Dim, most_columns: int, rows: Dim, most_rows: int, mr: int, nr: int) -> tuple[int, int]:
    """Columns and rows of a block, in whole register tiles."""
    return _at_most(columns, max(most_columns // nr, 1) * nr, nr), _at_most(rows, round_up(most_rows, mr), mr)


def _at_most(count: Dim, most: int, unit: int) -> int:
    """The length of a block of up to `most`, or less where there are never so many."""
    limit = upper(count)
    return most if limit is None else min(most, round_up(limit, unit))


def _register_tiles(
    target: Target, work: Callable[[int, int], float], lanes: int, steps: int, matrices: bool = False
) -> Ranking[tuple[int, int]]:
    """Rows and vectors with the fewest cycles, padding and loads included. As many rows as registers beside a row of
    columns hold, less one for the factor, and as there are for their addresses. steps: of the sums of all heads.
    matrices: two matrix registers each way."""
    machine = target.machine

    def candidates() -> Iterator[Candidate[tuple[int, int]]]:
        for vectors in (2,) if matrices else (2, 3, 4):
            mr = 2 * MATRIX_LANES if matrices else min(target.tile_rows(vectors), machine.address_rows)
            sums = work(mr, vectors * lanes) * steps / (lanes * machine.fma_per_cycle * machine.planned_cores)
            # with few sums, for their results
            waited = (machine.fma_latency + 1) * machine.fma_per_cycle / (mr * vectors) - 1
            yield Candidate(
                f"{mr}×{vectors * lanes}",
                (mr, vectors),
                (
                    ("sums", sums),
                    ("latency", sums * max(0.0, waited)),
                    ("loads", sums * EXPOSED_LOADS * (1 / mr + 1 / vectors)),
                ),
            )

    return ranked(candidates(), 1.0)
