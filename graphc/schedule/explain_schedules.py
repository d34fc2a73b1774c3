"""Why kernels run as they do: for each, the candidates among which its schedule was chosen, with their terms in
cycles."""
from __future__ import annotations

from collections.abc import Callable, Iterable

from graphc.ir.graph import Node
from graphc.ir.ops.constant import Constant
from graphc.ir.ops.fused import Fused
from graphc.schedule.attention_schedule import AttentionSchedule
from graphc.schedule.contraction_schedule import ContractionSchedule, LaneSchedule, TileSchedule
from graphc.schedule.cost import Ranking
from graphc.schedule.nest_schedule import NestSchedule
from graphc.schedule.plain_schedule import PlainSchedule

HEAD = """Candidates of each kernel in cycles of one core, the chosen one first. To the model those within 3 % are equal: the
first of them in the order of declaration is taken. Terms are cycles by cause; they sum to the total."""


def explain_schedules(schedules: Iterable[tuple[Node, object]]) -> str:
    """A table for each kernel that was chosen among several candidates; equal kernels (repeated layers) share one. ""
    if there is none."""
    found: dict[str, list[str]] = {}
    for node, schedule in schedules:
        for ranking in RANKINGS.get(type(schedule), lambda _: ())(schedule):
            if ranking is not None and len(ranking.candidates) > 1:
                found.setdefault(f"{_name(node)}\n{ranking}", []).append(str(node.loc or ""))
    tables = [_headed(text, places) for text, places in found.items()]
    return "\n\n".join([HEAD, *tables]) if tables else ""


def _headed(text: str, places: list[str]) -> str:
    name, table = text.split("\n", 1)
    times = f" ×{len(places)}" if len(places) > 1 else ""
    where = ", ".join(list(dict.fromkeys(filter(None, places)))[:3])
    return f"{name}{times}{f' ({where})' if where else ''}\n{table}"


def _name(node: Node) -> str:
    inner = (
        [n.op.name for n in node.op.body.nodes if not isinstance(n.op, Constant)]
        if isinstance(node.op, Fused)
        else [node.op.name]
    )
    shown = " ".join(inner[:4]) + (" …" if len(inner) > 4 else "")
    operands = ", ".join(str(v.type) for v in node.inputs[:3]) + (" …" if len(node.inputs) > 3 else "")
    return f"{shown}: {operands} -> {', '.join(str(v.type) for v in node.outputs)}"


def _of_phases(schedule: ContractionSchedule) -> tuple[Ranking | None, ...]:
    return tuple(phase.ranking for phase in schedule.phases if isinstance(phase, (TileSchedule, LaneSchedule)))


RANKINGS: dict[type, Callable[..., tuple[Ranking | None, ...]]] = {
    ContractionSchedule: _of_phases,
    NestSchedule: lambda s: (s.ranking,),
    PlainSchedule: lambda s: (s.ranking,),
    AttentionSchedule: lambda s: (s.ranking,),
}
