"""The elementwise operators that follow a contraction, emitted on its finished sums."""
from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace

from graphc.codegen.loops.builder import Ix, LoopFunction
from graphc.codegen.loops.loop_ir import Val
from graphc.codegen.lower.body import Env, NestBody, Point
from graphc.codegen.lower.contraction.outputs import begins_line
from graphc.codegen.lower.request import KernelRequest
from graphc.errors import InternalError
from graphc.ir.dims import Dims, product_of, static_dim
from graphc.ir.graph import Graph, Node, Value, leading_to
from graphc.ir.op import Op
from graphc.ir.ops.elementwise import Cast
from graphc.ir.ops.fused import Fused, core_of, slices_in
from graphc.ir.types import f32
from graphc.schedule.loop_nest import Nest, Stages, leaf_of, nest_of_epilogue
from graphc.schedule.nest_schedule import NestSchedule
from graphc.schedule.schedule import Schedule
from graphc.schedule.view import ViewType


def epilogue_of(r: KernelRequest[Schedule, Op]) -> "Epilogue | GateEpilogue | None":
    """What follows the contraction of a cluster; None of a contraction alone."""
    if not isinstance(r.node.op, Fused):
        return None
    inner, body = core_of(r.node), r.node.op.body
    return (GateEpilogue if slices_in(body) else Epilogue)(body, inner, r.ins)


def plain_epilogue_of(r: KernelRequest[Schedule, Op]) -> "Epilogue | None":
    """The same for kernels whose sums have no gates."""
    found = epilogue_of(r)
    if isinstance(found, GateEpilogue):
        raise InternalError(f"{r.function_name} has gates, which its kernel does not know", "lower")
    return found


class Epilogue:
    """Called with finished sums: evaluates the body at the element `index`, lanes along output axis `axis`. merged:
    some axes are taken as one, the last."""

    def __init__(self, body: Graph, inner: Node, ins: tuple[ViewType, ...]):
        self.body, self.inner, self.merged = body, inner, False
        self.nest = nest_of_epilogue(body, inner.outputs, tuple(n for n in body.nodes if n is not inner), ins)

    def run_together(self, strides: Dims) -> "Epilogue | None":
        """The same with as many last axes as there are strides taken as one; None unless they have these strides, or
        none, in all operands.
        """
        n, last = self.nest, len(strides)
        if not n.runs_together(strides):
            return None
        leaves = {key: (*s[:-last], s[-1]) for key, s in n.leaves.items()}
        counters = {key: (*s[:-last], s[-1]) for key, s in n.counters.items()}
        merged = copy(self)
        merged.merged = True
        extents = (*n.extents[:-last], product_of(n.extents[-last:]))
        merged.nest = replace(n, extents=extents, leaves=leaves, counters=counters)
        return merged

    def __call__(self, f: LoopFunction, sums: Val, index: Sequence[Ix], lanes: int, mask: Val | None,
                 axis: int) -> list[Val]:
        return self._values(self.body.outputs, f, sums, index, lanes, mask, axis)

    def exact(self, f: LoopFunction, sums: Val, index: Sequence[Ix], lanes: int, mask: Val | None,
              axis: int) -> list[Val]:
        return self._values([_before_rounding(v) for v in self.body.outputs], f, sums, index, lanes, mask, axis)

    def prefetch(self, f: LoopFunction, index: Sequence[Ix], axis: int, column: int = 0) -> None:
        """Prefetches the lines that are read beside the sum at `index`, which is `column` behind the first one of its
        row: where lines begin, of operands that have other lines for other rows."""
        _prefetch(f, self.nest, index, axis, column, self.merged)

    def _values(self, wanted: Sequence[Value], f: LoopFunction, sums: Val, index: Sequence[Ix], lanes: int,
                mask: Val | None, axis: int) -> list[Val]:
        env = _environment(f, self.nest, index, lanes, mask, axis)
        env.values[self.inner.outputs[0]] = sums
        return [f.splat(env.value(v), lanes) for v in wanted]


def _before_rounding(v: Value) -> Value:
    """What the last step rounds to a type in which numbers are only stored; v itself where that is another step."""
    is_last = v.node is not None and isinstance(v.node.op, Cast) and v.type.dtype.is_storage
    return v.node.inputs[0] if v.node is not None and is_last and v.node.inputs[0].type.dtype is f32 else v


def _environment(f: LoopFunction, nest: Nest, index: Sequence[Ix], lanes: int, mask: Val | None, axis: int) -> Env:
    schedule = NestSchedule(vector=axis if lanes > 1 else -1, lanes=lanes)
    body = NestBody(f, nest, Stages(frozenset(), {}, 0), schedule, f.views)
    return Env(body, Point(dict(enumerate(index)), lanes, mask))


def _prefetch(f: LoopFunction, nest: Nest, index: Sequence[Ix], axis: int, column: int = 0,
              merged: bool = False) -> None:
    """merged: rows are on the axis, too."""
    env, seen = _environment(f, nest, index, 1, None, axis), set()
    for (node, k), strides in nest.leaves.items():
        v = leaf_of((node, k))
        differs_by_row = any(step for d, step in enumerate(strides) if d != axis or merged)
        if v in env.body.inputs and (v, strides) not in seen and differs_by_row and begins_line(v.type.dtype, column):
            seen.add((v, strides))
            f.prefetch(*env.body.address(env.body.inputs[v], strides, env.at), level=2)


class GateEpilogue:
    """The same for an epilogue that slices the sums: called with those of all gates and the `index` of a unit, lanes
    along the last axis.
    """

    def __init__(self, body: Graph, inner: Node, ins: tuple[ViewType, ...]):
        self.body, self.inner, self.slices = body, inner, slices_in(body)
        before = leading_to([s.inputs[0] for s in self.slices], [n for n in body.nodes if n is not inner])
        after = leading_to(body.outputs, [n for n in body.nodes if n not in self.slices])
        self.whole = nest_of_epilogue(body, inner.outputs, tuple(before), ins)
        self.part = nest_of_epilogue(body, tuple(s.outputs[0] for s in self.slices), tuple(after), ins)

    def prefetch(self, f: LoopFunction, index: Sequence[Ix], axis: int) -> None:
        """Prefetches the lines that it reads beside the sums of one gate, whose columns `index` counts, where these are
        other lines for each row.
        """
        _prefetch(f, self.whole, index, axis)

    def __call__(self, f: LoopFunction, sums: Sequence[Val], index: Sequence[Ix], lanes: int, mask: Val | None,
                 axis: int) -> list[Val]:
        env = _environment(f, self.part, index, lanes, mask, axis)
        for s in self.slices:
            start = static_dim(s.op.start[axis])
            at = [ix + start if k == axis else ix for k, ix in enumerate(index)]
            of_gate = _environment(f, self.whole, at, lanes, mask, axis)
            of_gate.values[self.inner.outputs[0]] = sums[start // static_dim(self.part.extents[axis])]
            env.values[s.outputs[0]] = of_gate.value(s.inputs[0])
        return [f.splat(env.value(v), lanes) for v in self.body.outputs]
