"""Proof that shards which share a program have the bits that they have alone: each kernel that adds numbers up is one
of those of a single shard, or of the update alone, with the same schedule, sizes and strides. What computes each
element by itself may differ, and convolutions by tiles, whose sums are those of one tile. A kernel that adds up what
each shard gives has the schedule of the kernel of a shard.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from graphc.errors import Unjoined
from graphc.ir.dims import static_dim
from graphc.ir.graph import Node
from graphc.ir.op import Op
from graphc.ir.ops.constant import Constant
from graphc.ir.ops.fused import core_of, members
from graphc.ir.ops.shape import Movement
from graphc.ir.ops.winograd import WinogradConv2d, WinogradWeightGrad, WinogradWeights
from graphc.memory.plan import Plan
from graphc.records import dataclass
from graphc.schedule.schedule import Schedule
from graphc.schedule.view import ViewType, contiguous_strides
from graphc.schedule.winograd_schedule import WinogradGradSchedule

# whose results do not depend on how the work is cut
FREE = (Movement, Constant, WinogradConv2d, WinogradWeights)


@dataclass(frozen=True)
class _Kernel:
    """What the order of the additions in a kernel depends on."""
    op: Op
    ins: tuple[ViewType, ...]
    outs: tuple[ViewType, ...]
    schedule: Schedule


def verify_shards(several: Plan, apart: Iterable[Plan]) -> None:
    """Unjoined where a kernel of the program of several shards is in none of those `apart`, which are asked for as long
    as kernels are missing."""
    missing = dict.fromkeys(_kernels(several))
    for plan in apart:
        for kernel in _kernels(plan):
            missing.pop(kernel, None)
        if not missing:
            return
    raise Unjoined(f"several shards in one program would compute {next(iter(missing)).op} in another way than one")


def _kernels(plan: Plan) -> Iterator[_Kernel]:
    for node in plan.graph.nodes:
        if node in plan.schedules and not _is_free(node):
            kernel = _Kernel(node.op, tuple(plan.views(node.inputs)), tuple(plan.views(node.outputs)),
                             _ordered(plan.schedules[node]))
            yield _of_one_shard(node, kernel)


def _ordered(schedule: Schedule) -> Schedule:
    """Without what no order of additions depends on: how kernels are cut into blocks, and how they are stored."""
    if isinstance(schedule, WinogradGradSchedule):
        return replace(schedule, channels=0, features=0, stream=False)
    return schedule


def _of_one_shard(node: Node, kernel: _Kernel) -> _Kernel:
    """Of a kernel that adds up what each of several shards gives, and then works element by element, that of one."""
    core, schedule = core_of(node), kernel.schedule
    if not (isinstance(core.op, WinogradWeightGrad) and core.op.additions and isinstance(schedule, WinogradGradSchedule)
            and _is_free(node, core)):
        return kernel
    rows = [static_dim(view.shape[0]) // core.op.shards for view in kernel.ins[:2]]
    images = tuple([replace(view, shape=(n, *view.shape[1:])) for view, n in zip(kernel.ins, rows)])
    kernels = core.outputs[0].type
    dense = ViewType(kernels.dtype, kernels.shape, contiguous_strides(kernels.shape))
    return _Kernel(core.op.replace(additions=()), images, (dense,), replace(schedule, shards=1))


def _is_free(node: Node, core: Node | None = None) -> bool:
    return all(inner is core or inner.op.is_elementwise or isinstance(inner.op, FREE) for inner, _ in members(node))
