"""Blocks of elements that are copied, or filled, by loop nests."""
from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen.loops.builder import LoopFunction
from graphc.codegen.loops.loop_ir import View
from graphc.codegen.lower.nest import NestLowering
from graphc.ir.graph import Graph
from graphc.schedule.choose_move import Number, copy_body, fill_body
from graphc.schedule.loop_nest import nest_of
from graphc.schedule.nest_schedule import NestSchedule
from graphc.schedule.target import Target
from graphc.schedule.view import ViewType


def copied(f: LoopFunction, x: View, y: View, schedule: NestSchedule, target: Target) -> None:
    """Copies `x` to `y`, of one shape, as `choose_move.copy_schedule` says for such views."""
    _run(f, copy_body(x.dtype, x.shape), [x], y, schedule, target)


def filled(f: LoopFunction, value: Number, y: View, schedule: NestSchedule, target: Target) -> None:
    """Makes all elements of `y` the same number, as `choose_move.fill_schedule` says."""
    _run(f, fill_body(value, y.dtype, y.shape), [], y, schedule, target)


def _run(f: LoopFunction, body: Graph, xs: Sequence[View], y: View, schedule: NestSchedule, target: Target) -> None:
    ins, outs = (tuple([ViewType(v.dtype, v.shape, v.strides) for v in views]) for views in (xs, [y]))
    NestLowering(f, nest_of(body, ins, outs), schedule, list(xs), [y], [], target.has_fma).run(target.machine.l3_bytes)
