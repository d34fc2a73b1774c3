"""Chooses the loop nests of operators that move blocks of elements."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from graphc.ir.builder import Builder
from graphc.ir.dims import Dims
from graphc.ir.graph import Graph
from graphc.ir.op import Op
from graphc.ir.ops import shape
from graphc.ir.ops.elementwise import COPY
from graphc.ir.types import DType, TensorType
from graphc.schedule.choose_nest import cluster_schedule
from graphc.schedule.kernel_problem import KernelProblem
from graphc.schedule.move_schedule import MoveSchedule
from graphc.schedule.nest_schedule import NestSchedule
from graphc.schedule.target import Target
from graphc.schedule.view import ViewType

Views = Sequence[ViewType]
Number = int | float | bool
Block = tuple[ViewType, ViewType]       # how it lies in an operand, and in the result


def move_schedule(p: KernelProblem[Op]) -> MoveSchedule:
    """A pure function of shapes, strides and target."""
    copies = tuple(copy_schedule(x, y, p.target) for x, y in copies_of(p.node.op, p.ins, p.outs))
    if not isinstance(p.node.op, shape.DynamicUpdateSlice) or p.ins[0] != p.outs[0]:
        return MoveSchedule(copies)
    update = copies[1:] if 0 not in p.outs[0].shape else copies
    return MoveSchedule(copies, in_place=MoveSchedule(update, aliased=True))


def copy_schedule(x: ViewType, y: ViewType, target: Target) -> NestSchedule:
    """Of a copy of `x` to `y`, of one shape."""
    return cluster_schedule(copy_body(x.dtype, x.shape), (x,), (y,), target)


@lru_cache(maxsize=256)
def copy_body(dtype: DType, sizes: Dims) -> Graph:
    """The cluster that copies its operand."""
    b = Builder("body")
    return b.finish(b.apply(COPY, (b.input("x0", TensorType(dtype, sizes)),)))


def fill_schedule(value: Number, y: ViewType, target: Target) -> NestSchedule:
    """Of a block all of whose elements are `value`."""
    return cluster_schedule(fill_body(value, y.dtype, y.shape), (), (y,), target)


def fill_body(value: Number, dtype: DType, sizes: Dims) -> Graph:
    """The cluster that repeats a number."""
    b = Builder("body")
    return b.finish(b.apply(COPY, (b.broadcast_to(b.constant(value, dtype), shape=sizes),)))


def copies_of(op: Op, ins: Views, outs: Views) -> list[Block]:
    """The blocks that the operator copies, without empty ones."""
    return [(x, y) for x, y in BLOCKS[type(op)](op, ins, outs[0]) if 0 not in x.shape]


def _concat(op: shape.Concat, ins: Views, out: ViewType) -> list[Block]:
    return [(x, _block(out, x.shape)) for x in ins]


def _flip(op: shape.Flip, ins: Views, out: ViewType) -> list[Block]:
    x, = ins
    return [(replace(x, strides=flipped_strides(op, x.strides)), out)]


def _slice(op: shape.DynamicSlice, ins: Views, out: ViewType) -> list[Block]:
    return [(_block(ins[0], out.shape), out)]


def _update(op: shape.DynamicUpdateSlice, ins: Views, out: ViewType) -> list[Block]:
    return [(ins[0], out), (ins[1], _block(out, ins[1].shape))]


def _block(view: ViewType, sizes: Dims) -> ViewType:
    return replace(view, shape=sizes)


def flipped_strides(op: shape.Flip, strides: Dims) -> Dims:
    """From the last element of the flipped axes on."""
    return tuple(-s if axis in op.axes else s for axis, s in enumerate(strides))


# each takes the operator of its key, which the type of a table cannot say
BLOCKS: dict[type[Op], Callable[[Any, Views, ViewType], list[Block]]] = {
    shape.Concat: _concat, shape.Flip: _flip, shape.DynamicSlice: _slice, shape.DynamicUpdateSlice: _update}
