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
QUERIES = 64                    # columns of a block: its transposed queries and sums stay in L1 and L2
KEYS = 96                       # rows of a block: long enough to pay for rescaling sums, short enough for scores to stay in L1
FEW_REGISTERS = 16
TASKS = 32                      # pieces of a gradient: parts of the queries of all heads


def attention_schedule(node: Node, ins: Sequence[ViewType], outs: Sequence[ViewType], target: Target) -> AttentionSchedule:
    """A pure function of operator, shapes and target."""
    q, k = ins[:2]
    lanes = target.lanes(q.dtype.itemsize)
    vectors = 2 if target.vector_bytes >= 32 or target.vector_registers <= FEW_REGISTERS else 4
    mr = (target.vector_registers - 1 - vectors) // vectors
    queries = min(QUERIES, round_up(q.shape[-2], vectors * lanes))
    keys = min(round_up(KEYS, mr), round_up(k.shape[-2], mr))
    serial = node.op.cost(*(v.type for v in node.inputs)).flops < SERIAL_FLOPS
    s = AttentionSchedule(queries, keys, mr, vectors, lanes, serial)
    return _in_parts(s, ins) if isinstance(node.op, AttentionGrad) else s


def _in_parts(s: AttentionSchedule, ins: Sequence[ViewType]) -> AttentionSchedule:
    """Few heads are divided: each part of the queries has gradients of all keys and values, which are added up afterwards."""
    q, k, v = ins[:3]
    heads, blocks = prod(q.shape[:-2]), -(-q.shape[-2] // s.queries)
    share = -(-blocks // max(1, min(blocks, TASKS // heads)))
    parts = -(-blocks // share)
    width = round_up(k.shape[-1], s.nr) + round_up(v.shape[-1], s.nr)
    return replace(s, parts=parts, partials=heads * parts * s.sum_rows(k.shape[-2]) * width, itemsize=q.dtype.itemsize)


RULES = (Attention, AttentionGrad)
