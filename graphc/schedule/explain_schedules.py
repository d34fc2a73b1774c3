"""Why kernels run as they do: for each, the candidates among which its schedule was chosen, with their terms in
cycles."""
from __future__ import annotations

from collections.abc import Iterable

from graphc.ir.graph import Node
from graphc.ir.ops.constant import Constant
from graphc.ir.ops.fused import members
from graphc.schedule.schedule import Schedule

HEAD = """Candidates of each kernel in cycles of one core, the chosen one first. To the model those within 3 % are
equal: the first of them in the order of declaration is taken. Terms are cycles by cause; they sum to the total."""


def explain_schedules(schedules: Iterable[tuple[Node, Schedule]]) -> str:
    """A table for each kernel that was chosen among several candidates; equal kernels (repeated layers) share one. ""
    if there is none."""
    found: dict[str, list[str]] = {}
    for node, schedule in schedules:
        for ranking in schedule.rankings:
            if len(ranking.candidates) > 1:
                found.setdefault(f"{_name(node)}\n{ranking}", []).append(str(node.loc or ""))
    tables = [_headed(text, places) for text, places in found.items()]
    return "\n\n".join([HEAD, *tables]) if tables else ""


def _headed(text: str, places: list[str]) -> str:
    name, table = text.split("\n", 1)
    times = f" ×{len(places)}" if len(places) > 1 else ""
    where = ", ".join(list(dict.fromkeys(filter(None, places)))[:3])
    return f"{name}{times}{f' ({where})' if where else ''}\n{table}"


def _name(node: Node) -> str:
    inner = [n.op.name for n, _ in members(node) if not isinstance(n.op, Constant)]
    shown = " ".join(inner[:4]) + (" …" if len(inner) > 4 else "")
    operands = ", ".join(str(v.type) for v in node.inputs[:3]) + (" …" if len(node.inputs) > 3 else "")
    return f"{shown}: {operands} -> {', '.join(str(v.type) for v in node.outputs)}"
