"""Chooses the blocks of attention."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from graphc.ir.graph import Node
from graphc.ir.ops.attention import Attention, AttentionGrad
from graphc.ir.schedule import round_up
from graphc.ir.schedule_attention import AttentionSchedule
from graphc.ir.target import Target
from graphc.ir.view import ViewType

SERIAL_FLOPS = 400_000          # less work than this is not worth waking other threads
QUERIES = 72                    # columns of a block, at most: its transposed queries and sums stay in L1 and L2
KEYS = 144                      # rows of a block: long enough to pay for rescaling sums, short enough for scores to stay in L1
GRAD_QUERIES, GRAD_KEYS = (128, 64), 96                 # the first that gives enough tasks: each block of queries passes over all sums
SUMS = 8                        # sums in registers that hide how long a multiplication takes
FEW_REGISTERS = 16
TASKS = 32                      # pieces of a gradient: parts of the queries of all heads


def attention_schedule(node: Node, ins: Sequence[ViewType], outs: Sequence[ViewType], target: Target) -> AttentionSchedule:
    """A pure function of operator, shapes and target."""
    q, k = ins[:2]
    gradient = isinstance(node.op, AttentionGrad)
    lanes = target.lanes(q.dtype.itemsize)
    vectors = _gradient_vectors(target) if gradient else _vectors(target, lanes, q.shape[-2], ins[2].shape[-1])
    mr = _rows(target, vectors)
    most, keys = (_gradient_queries(q.shape), GRAD_KEYS) if gradient else (QUERIES, KEYS)
    nr = vectors * lanes
    queries = min(max(most // nr, 1) * nr, round_up(q.shape[-2], nr))
    serial = node.op.cost(*(v.type for v in node.inputs)).flops < SERIAL_FLOPS
    s = AttentionSchedule(queries, min(round_up(keys, mr), round_up(k.shape[-2], mr)), mr, vectors, lanes, serial, itemsize=q.dtype.itemsize)
    if gradient:
        return _in_parts(s, ins, target)
    return replace(s, far=k.shape[-2] * (k.shape[-1] + ins[2].shape[-1]) * s.itemsize > target.l2)


def _gradient_queries(shape: Sequence[int]) -> int:
    *heads, queries, _ = shape
    return next((n for n in GRAD_QUERIES if prod(heads) * -(-queries // n) >= TASKS), GRAD_QUERIES[-1])


def _rows(target: Target, vectors: int) -> int:
    """Keys in a register tile beside so many vectors of queries: the registers that are left, less one for the factor."""
    return (target.vector_registers - 1 - vectors) // vectors


def _gradient_vectors(target: Target) -> int:
    """Few: columns of its tiles are features too, of which heads have few."""
    return 2 if target.vector_bytes >= 32 or target.vector_registers <= FEW_REGISTERS else 4


def _vectors(target: Target, lanes: int, queries: int, values: int) -> int:
    """Vectors of queries in a register tile: least work on padding, of queries to columns and of values to rows; then fewest loads."""
    def cost(vectors: int) -> tuple[int, float]:
        mr = _rows(target, vectors)
        return round_up(queries, vectors * lanes) * round_up(values, mr), 1 / vectors + 1 / mr
    return min((v for v in (2, 3, 4) if _rows(target, v) * v > SUMS), key=cost)


def _in_parts(s: AttentionSchedule, ins: Sequence[ViewType], target: Target) -> AttentionSchedule:
    """Few heads are divided: each part of the queries has gradients of all keys and values, which are added up afterwards."""
    q, k, v = ins[:3]
    heads, blocks = prod(q.shape[:-2]), -(-q.shape[-2] // s.queries)
    share = -(-blocks // max(1, min(blocks, TASKS // heads)))
    parts = -(-blocks // share)
    sums = s.sum_rows(k.shape[-2]) * (round_up(k.shape[-1], s.nr) + round_up(v.shape[-1], s.nr))
    return replace(s, parts=parts, partials=heads * parts * sums, far=sums * s.itemsize > target.l2)


RULES = (Attention, AttentionGrad)
