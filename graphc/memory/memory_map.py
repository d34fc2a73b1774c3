"""What lies where in the arena, and when: rectangles of bytes × time."""
from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.dims import typical
from graphc.ir.graph import Node, Value
from graphc.ir.ops.fused import members
from graphc.memory.plan import Buffer, Plan
from graphc.records import dataclass


@dataclass(frozen=True)
class Rectangle:
    """A buffer of the arena: bytes [low, high), in use from node number `first` to `last`. `made_by`: the first node
    that writes it; `label`: what lies there."""
    low: int
    high: int
    first: int
    last: int
    label: str
    made_by: int


def rectangles(plan: Plan) -> list[Rectangle]:
    """Those of the plan of a whole program; what a loop or a branch needs inside is one of them. Sizes that come with
    the call are taken at their typical values."""
    position = {node: i for i, node in enumerate(plan.graph.nodes)}
    held: dict[Buffer, list[tuple[int, str]]] = {}
    for node in plan.graph.nodes:
        for v in node.outputs:
            held.setdefault(plan.places[v].buffer, []).append((position[node], _label(node, v)))
        for v in node.inputs:
            held.setdefault(plan.places[v].buffer, []).append((position[node], ""))
    for node, buffer in plan.scratch.items():
        held.setdefault(buffer, []).append((position[node], f"scratch of {kernel_name(node)}"))
    for node, buffer in plan.packed.items():
        held.setdefault(buffer, []).append((position[node], f"packed operand of {kernel_name(node)}"))
    for node, region in plan.regions.items():
        for buffer in region.buffers:
            held.setdefault(buffer, []).append((position[node], f"inside of {node.op.name}"))
    return sorted((_rectangle(buffer, uses) for buffer, uses in held.items()
                   if buffer.space == "arena" and typical(buffer.nbytes) > 0), key=lambda r: (r.first, r.low))


def _rectangle(buffer: Buffer, uses: Sequence[tuple[int, str]]) -> Rectangle:
    low, labels = typical(buffer.offset), [label for _, label in uses if label]
    times = [time for time, _ in uses]
    more = f" and {len(set(labels)) - 1} more" if len(set(labels)) > 1 else ""
    return Rectangle(low, low + typical(buffer.nbytes), min(times), max(times), (labels or ["?"])[0] + more, min(times))


def kernel_name(node: Node) -> str:
    """What a kernel computes, in a few words."""
    inner = [n.op.name for n, _ in members(node) if not n.op.is_leaf]
    return " ".join(inner[:4]) + (" …" if len(inner) > 4 else "")


def _label(node: Node, v: Value) -> str:
    return f"{v.name or kernel_name(node)}: {v.type}"
