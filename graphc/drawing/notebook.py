"""What notebooks show of networks, plans, profiles, memory, states, histories and reports: HTML that needs nothing from
a network, and is right on light and on dark ground. What has no picture here is a graph, which `draw` shows."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from html import escape
from typing import Any

from graphc.drawing import draw
from graphc.drawing.charts import bar, curves, memory_map
from graphc.fitting.history import History
from graphc.gradient_check import GradientReport
from graphc.ir.dims import typical
from graphc.memory.usage import Memory, human
from graphc.nn.module import Module
from graphc.profile import Profile
from graphc.report import DEPTH, PlanReport, scaled
from graphc.state import State

MOST_ROWS = 40                      # of a table
PURPOSES = ("arena", "state", "inputs", "outputs", "derived", "consts", "scratch")


def html(shown: Any) -> str:
    """The picture of an object. Never raises: what fails here leaves the text."""
    picture = next((make for kind, make in PICTURES.items() if isinstance(shown, kind)), None)
    if picture is None:
        return draw.html(shown)
    with suppress(Exception):
        return f'<div class="graphc">{picture(shown)}</div>'
    return _text(str(shown))


def _memory(memory: Memory) -> str:
    parts = {name: typical(getattr(memory, name)) for name in PURPOSES}
    return f"{bar(parts)}<div>{escape(str(memory))}</div>"


def _plan(report: PlanReport) -> str:
    rows = [row for row in report.layers if row.depth <= DEPTH]
    table = _table(("layer", "kind", "result", "parameters", "flops"),
                   [("\u2003" * (row.depth - 1) + row.path, row.kind, ", ".join(row.results[:1]),
                     f"{row.parameters:,}" if row.parameters else "", scaled(row.flops) if row.flops != 0 else "")
                    for row in rows], left=3) if rows else ""
    totals = (f"{report.parameters:,} parameters, {scaled(report.flops)} flops a run, {report.kernels} kernel calls, "
              f"{human(report.memory.total)} in all")
    where = memory_map(report.planned())
    return "".join([table, f"<p>{escape(totals)}</p>", _memory(report.memory),
                    f"<details><summary>where values lie, and when</summary>{where}</details>" if where else ""])


def _profile(profile: Profile) -> str:
    total = sum(row.seconds for row in profile.rows) or 1.0
    table = _table(("kernel", "line", "layer", "phase", "calls", "ms", "%", "GFLOP/s", "GB/s", "roofline"),
                   [(row.kernel, row.line, row.scope, row.phase, str(row.calls), f"{1e3 * row.seconds:.3f}",
                     f"{100 * row.seconds / total:.1f}", f"{row.gflops:.1f}", f"{row.gbytes:.1f}",
                     profile.shown_share(row)) for row in profile.rows], left=4)
    return f"{table}<p>{escape(profile.summary)}</p><details><summary>roofline</summary>{profile.svg()}</details>"


def _state(state: State) -> str:
    rows = [(name, str(a.dtype), " × ".join(map(str, a.shape)) or "scalar", human(a.nbytes))
            for name, a in state.copy().items()]
    table = _table(("name", "type", "shape", "bytes"), rows, left=3)
    return f"<p>{len(state)} arrays, {human(state.nbytes)}</p>{table}"


def _history(history: History) -> str:
    rows = [(str(i), *(f"{row[n]:.4g}" if n in row else "" for n in history.names))
            for i, row in enumerate(history.rows, 1)]
    drawn = curves({name: history[name] for name in history.names if name != "seconds"})
    return f"{drawn}{_table(('epoch', *history.names), rows, left=0)}"


def _gradients(report: GradientReport) -> str:
    return f"<div>{'✓' if report.ok else '✗'}</div>{_text(str(report))}"


def _network(net: Module) -> str:
    """The layers, one inside the other, with the parameters that they have so far."""
    return f'<ul style="margin:0;padding-left:1.2em">{_layer("", net)}</ul>'


def _layer(name: str, module: Module) -> str:
    inner = [(n, child) for n, child in module.children() if child is not module]
    label = f"<code>{escape(name)}</code> " if name else ""
    parameters = "".join(f'<br/><span style="opacity:.7">{escape(n)}: {escape(str(p.type))}</span>'
                         for n, p in module._parameters.items())
    if not inner:
        return f"<li>{label}{escape(repr(module))}{parameters}</li>"
    items = "".join(_layer(n, child) for n, child in inner)
    return (f'<li><details open="open"><summary>{label}{escape(module.kind)}{parameters}</summary>'
            f'<ul style="margin:0;padding-left:1.2em">{items}</ul></details></li>')


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int) -> str:
    """Words in the first `left` columns, numbers in the others."""
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f'<{tag} style="text-align:{"left" if i < left else "right"}">{escape(cell)}</{tag}>'
                                for i, cell in enumerate(cells)) + "</tr>"
    every = list(rows)
    more = (f'<tr><td colspan="{len(head)}" style="text-align:left">{len(every) - MOST_ROWS} more</td></tr>'
            if len(every) > MOST_ROWS else "")
    body = "".join(line(row, "td") for row in every[:MOST_ROWS])
    return f"<table><thead>{line(head, 'th')}</thead><tbody>{body}{more}</tbody></table>"


def _text(text: str) -> str:
    return f"<pre>{escape(text)}</pre>"


PICTURES: dict[type, Callable[[Any], str]] = {
    Memory: _memory, PlanReport: _plan, Profile: _profile, State: _state, History: _history,
    GradientReport: _gradients, Module: _network}
