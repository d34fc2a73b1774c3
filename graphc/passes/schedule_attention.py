"""Chooses the blocks of attention."""
from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.graph import Node
from graphc.ir.ops.attention import Attention
from graphc.ir.schedule import round_up
from graphc.ir.schedule_attention import AttentionSchedule
from graphc.ir.target import Target
from graphc.ir.view import ViewType

SERIAL_FLOPS = 400_000          # less work than this is not worth waking other threads
QUERIES = 64                    # columns of a block: its transposed queries and sums stay in L1 and L2
KEYS = 96                       # rows of a block: long enough to pay for rescaling sums, short enough for scores to stay in L1
FEW_REGISTERS = 16


def attention_schedule(node: Node, ins: Sequence[ViewType], outs: Sequence[ViewType], target: Target) -> AttentionSchedule:
    """A pure function of operator, shapes and target."""
    q, k = ins[:2]
    lanes = target.lanes(q.dtype.itemsize)
    vectors = 2 if target.vector_bytes >= 32 or target.vector_registers <= FEW_REGISTERS else 4
    mr = (target.vector_registers - 1 - vectors) // vectors
    queries = min(QUERIES, round_up(q.shape[-2], vectors * lanes))
    keys = min(round_up(KEYS, mr), round_up(k.shape[-2], mr))
    serial = node.op.cost(*(v.type for v in node.inputs)).flops < SERIAL_FLOPS
    return AttentionSchedule(queries, keys, mr, vectors, lanes, serial)


RULES = (Attention,)
