"""Chooses the blocks of attention."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import prod

from graphc.schedule.attention_schedule import AttentionSchedule
from graphc.schedule.contraction_schedule import round_up
from graphc.schedule.kernel_problem import KernelProblem
from graphc.schedule.target import ALIGNMENT, Target
from graphc.schedule.view import ViewType

SERIAL_FLOPS = 400_000          # less work than this is not worth waking other threads
QUERIES = 72                    # columns of a block, at most: its transposed queries and sums stay in L1 and L2
KEYS = 72               # its rows: as few as keep scores in L1 beside queries, enough to pay for the sums, which each block adds to
GRAD_KEYS, GRAD_QUERIES = (128, 64), 96                 # columns and rows: the first that gives enough tasks, as each block of keys passes over all sums
LOAD = 0.25                     # cost of a load, relative to a multiply-add
TASKS = 32                      # pieces of a gradient: parts of the keys of all heads


def attention_schedule(p: KernelProblem) -> AttentionSchedule:
    """A pure function of operator, shapes and target."""
    return _forward(*p.ins[:3], p.node.op.causal, _is_serial(p), p.target)


def attention_grad_schedule(p: KernelProblem) -> AttentionSchedule:
    """The same of the gradient."""
    return _gradient(*p.ins[:3], p.node.op.causal, _is_serial(p), p.target)


def _is_serial(p: KernelProblem) -> bool:
    return p.node.op.cost(*(v.type for v in p.node.inputs)).flops < SERIAL_FLOPS


def _forward(q: ViewType, k: ViewType, v: ViewType, causal: bool, serial: bool, target: Target) -> AttentionSchedule:
    """Columns are queries; values are rows of a product, too."""
    lanes, values = target.lanes(q.dtype.itemsize), v.shape[-1]
    mr, vectors = _register_tile(target, lambda mr, nr: _columns(q.shape[-2], nr, causal) * round_up(values, mr), lanes)
    far = k.shape[-2] * (k.shape[-1] + values) * q.dtype.itemsize > target.machine.l2_bytes
    return AttentionSchedule(*_block(q.shape[-2], QUERIES, k.shape[-2], KEYS, mr, vectors * lanes), mr, vectors, lanes, serial, far, itemsize=q.dtype.itemsize)


def _gradient(q: ViewType, k: ViewType, v: ViewType, causal: bool, serial: bool, target: Target) -> AttentionSchedule:
    """Columns are keys; features and values are rows of products, features columns of one, too. Few heads are divided: each part of the keys has a
    gradient of all queries, which are added up afterwards."""
    lanes, itemsize, (*lead, queries, features), (keys, values) = target.lanes(q.dtype.itemsize), q.dtype.itemsize, q.shape, v.shape[-2:]
    heads = prod(lead)
    mr, vectors = _register_tile(target, lambda mr, nr: _columns(keys, nr, causal) * (
        features + values + round_up(features, mr) + round_up(values, mr) + round_up(features, nr)), lanes)
    nr = vectors * lanes
    most = next((n for n in GRAD_KEYS if heads * -(-keys // n) >= TASKS), GRAD_KEYS[-1])
    s = AttentionSchedule(*_block(keys, most, queries, GRAD_QUERIES, mr, nr), mr, vectors, lanes, serial, itemsize=itemsize)
    blocks = -(-keys // s.columns)
    parts = -(-blocks // -(-blocks // max(1, min(blocks, TASKS // heads))))
    far = queries * (features + values + round_up(features, nr)) * itemsize > target.machine.l2_bytes
    deltas = round_up(heads * queries * itemsize, ALIGNMENT) // itemsize
    return replace(s, parts=parts, deltas=deltas, partials=heads * parts * s.sum_rows(queries) * round_up(features, nr), far=far)


def _columns(count: int, nr: int, causal: bool) -> int:
    """Columns that are computed, in whole register tiles; of a triangle twice as many as on average, and one tile that crosses its edge."""
    return round_up(count, nr) + nr * causal


def _block(columns: int, most_columns: int, rows: int, most_rows: int, mr: int, nr: int) -> tuple[int, int]:
    """Columns and rows of a block, in whole register tiles."""
    return min(max(most_columns // nr, 1) * nr, round_up(columns, nr)), min(round_up(most_rows, mr), round_up(rows, mr))


def _register_tile(target: Target, work: Callable[[int, int], int], lanes: int) -> tuple[int, int]:
    """Rows and vectors with the least work, padding and loads included. As many rows as registers beside a row of columns hold, less one for the factor,
    and as there are for their addresses."""
    def shapes() -> Iterator[tuple[int, int]]:
        for vectors in (2, 3, 4):
            mr = min(target.tile_rows(vectors), target.machine.address_rows)
            if mr * vectors > target.machine.fma_latency * target.machine.fma_per_cycle:      # sums that hide the latency of a multiply-add
                yield mr, vectors
    return min(shapes(), key=lambda s: work(s[0], s[1] * lanes) * (1 + LOAD * (1 / s[0] + 1 / s[1])))
