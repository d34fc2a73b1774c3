"""Proof that shards which share a program have the bits that they have alone: each kernel that adds numbers up is one
of those of a single shard, or of the update alone, with the same schedule, sizes and strides. What computes each
element by itself may differ, and convolutions by tiles, whose sums are those of one tile.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator

from graphc.errors import Unjoined
from graphc.ir.graph import Node
from graphc.ir.ops.constant import Constant
from graphc.ir.ops.fused import members
from graphc.ir.ops.shape import Movement
from graphc.ir.ops.winograd import WinogradConv2d, WinogradWeights
from graphc.memory.plan import Plan

# whose results do not depend on how the work is cut
FREE = (Movement, Constant, WinogradConv2d, WinogradWeights)


def verify_shards(several: Plan, apart: Iterable[Plan]) -> None:
    """Unjoined where a kernel of the program of several shards is in none of those `apart`, which are asked for as long
    as kernels are missing."""
    missing = dict.fromkeys(_kernels(several))
    for plan in apart:
        for kernel in _kernels(plan):
            missing.pop(kernel, None)
        if not missing:
            return
    raise Unjoined(f"several shards in one program would compute {next(iter(missing))[0]} in another way than one")


def _kernels(plan: Plan) -> Iterator[tuple[object, ...]]:
    for node in plan.graph.nodes:
        if node in plan.schedules and not _is_free(node):
            ins, outs = plan.views(node.inputs), plan.views(node.outputs)
            yield node.op, tuple(ins), tuple(outs), plan.schedules[node]


def _is_free(node: Node) -> bool:
    return all(inner.op.is_elementwise or isinstance(inner.op, FREE) for inner, _ in members(node))
