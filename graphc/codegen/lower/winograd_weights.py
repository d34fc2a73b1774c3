"""The transformed weights of Winograd convolutions: a vector of features at a time, all numbers of a kernel in registers."""
from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen.index import Ix
from graphc.codegen.loops import Function, Val, View
from graphc.codegen.lower.contract_pack import gathered, transposed
from graphc.codegen.lower.rows import function, rows
from graphc.codegen.lower.winograd_transform import linear_map
from graphc.ir.graph import Node
from graphc.ir.ops.winograd import WinogradWeights
from graphc.ir.schedule_plain import PlainSchedule
from graphc.ir.target import Target
from graphc.ir.view import ViewType
from graphc.ir.winograd import TAPS, transforms

KERNEL = TAPS * TAPS


def lower_weights(name: str, node: Node, ins: Sequence[ViewType], outs: Sequence[ViewType], s: PlainSchedule, target: Target) -> Function:
    """A row is one channel of one panel."""
    f, (w,), (u,) = function(name, ins, outs)
    op, (_, panels, channels, width) = node.op, u.shape
    features, _ = op.roles(w.shape)
    flat = f.reinterpret(w, (1 + sum(step * (n - 1) for n, step in zip(w.shape, w.strides)),), (1,))
    with rows(f, (panels, channels), s) as (panel, channel):
        for v in range(0, width, s.lanes):
            own = [f.min_(panel * width + (v + lane), features - 1) for lane in range(s.lanes)]
            places = [feature * w.strides[op.turned] + channel * w.strides[1 - op.turned] for feature in own]
            taps = _taps(f, flat, places, w.strides[2:], s.lanes)
            _transform(f, op, taps[::-1] if op.turned else taps, u, [panel, channel, v], target.has_fma)
    return f


def _taps(f: Function, w: View, places: Sequence[Ix], steps: Sequence[int], lanes: int) -> list[Val]:
    """The nine taps of a kernel for each lane; those that lie side by side are transposed in registers."""
    if tuple(steps) != (TAPS, 1):
        return [gathered(f, w, [at + (i * steps[0] + j * steps[1]) for at in places]) for i in range(TAPS) for j in range(TAPS)]
    taps: list[Val] = []
    for first in range(0, KERNEL, lanes):
        count = min(lanes, KERNEL - first)
        if count == 1:
            taps.append(gathered(f, w, [at + first for at in places]))
        else:
            mask = f.tail_mask(count, lanes) if count < lanes else None
            taps += transposed(f, [f.load(w, [at + first], lanes, mask) for at in places])[:count]
    return taps


def _transform(f: Function, op: WinogradWeights, taps: Sequence[Val], u: View, at: list, fused: bool) -> None:
    g = transforms(op.tile).g
    columns = [linear_map(f, g, taps[j::TAPS], fused) for j in range(TAPS)]
    for i in range(len(g)):
        for j, value in enumerate(linear_map(f, g, [column[i] for column in columns], fused)):
            f.store(u, [i * len(g) + j, *at], value)
