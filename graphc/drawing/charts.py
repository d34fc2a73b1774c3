"""Charts as SVG, for notebooks: they take the colour of the text around them, so they are right on light and on dark
ground."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import accumulate
from math import isfinite

from graphc.analysis.phases import BACKWARD, BOTH, FORWARD, LOSS, UPDATE, phases
from graphc.memory.memory_map import Rectangle, rectangles
from graphc.memory.plan import Plan
from graphc.memory.usage import human

WIDTH, HEIGHT, LEFT = 720, 260, 60
PHASE_COLOURS = {FORWARD: "#4a8fd4", LOSS: "#9a6fd0", BACKWARD: "#d07a3c", UPDATE: "#4a9d66", BOTH: "#4a9d66"}
COLOURS = ("#4a8fd4", "#d07a3c", "#4a9d66", "#9a6fd0", "#c05b7a", "#8a8f3c", "#5aa5a5")
PLAIN = "#8a93a3"
MOST_RECTANGLES = 1500              # the largest: more are not told apart


def bar(parts: Mapping[str, int]) -> str:
    """One bar of parts, of which each has a name, with a legend."""
    total, x, drawn, legend = sum(parts.values()) or 1, 0.0, [], []
    shown = [(name, n) for name, n in parts.items() if n > 0]
    for (name, n), colour in zip(shown, COLOURS):
        width = WIDTH * n / total
        title = f"<title>{escape(name)}: {human(n)}, {100 * n / total:.1f} %</title>"
        drawn.append(f'<rect x="{x:.1f}" y="0" width="{max(width, 0.5):.1f}" height="18" fill="{colour}">'
                     f"{title}</rect>")
        legend.append(f'<span style="white-space:nowrap"><span style="color:{colour}">■</span> {escape(name)} '
                      f'{human(n)}</span>')
        x += width
    return f'{_svg(WIDTH, 18, drawn)}<div>{" &nbsp; ".join(legend)}</div>'


def memory_map(plan: Plan) -> str:
    """What lies where in the arena, and when: rectangles of bytes by the order of kernels, the peak marked."""
    found = sorted(rectangles(plan), key=lambda r: (r.low - r.high) * (r.last - r.first + 1))[:MOST_RECTANGLES]
    if not found:
        return ""
    steps, top = len(plan.graph.nodes), max(r.high for r in found)
    phase = [phases(plan.graph).get(node, "") for node in plan.graph.nodes]
    drawn = [_rectangle(r, steps, top, PHASE_COLOURS.get(phase[r.made_by], PLAIN)) for r in found]
    full = [0] * (steps + 1)
    for r in found:
        full[r.first] += r.high - r.low
        full[r.last + 1] -= r.high - r.low
    used = list(accumulate(full))[:steps]
    peak = used.index(max(used))
    x = LEFT + (peak + 0.5) * (WIDTH - LEFT) / steps
    axis = [f'<text x="{LEFT - 6}" y="12" text-anchor="end">{human(top)}</text>',
            f'<text x="{LEFT - 6}" y="{HEIGHT}" text-anchor="end">0</text>',
            f'<path d="M{LEFT} 0V{HEIGHT}H{WIDTH}" fill="none" stroke="currentColor" stroke-opacity=".5"/>',
            f'<path d="M{x:.1f} 0V{HEIGHT}" stroke="currentColor" stroke-dasharray="3 3">'
            f'<title>the peak: {human(max(used))} in use</title></path>',
            f'<text x="{LEFT}" y="{HEIGHT + 14}">first kernel</text>',
            f'<text x="{WIDTH}" y="{HEIGHT + 14}" text-anchor="end">last</text>']
    names = [name for name in PHASE_COLOURS if name in phase and name != BOTH]
    legend = " ".join(f'<span style="color:{PHASE_COLOURS[name]}">■</span> {name}' for name in names)
    return f'{_svg(WIDTH, HEIGHT + 18, [*drawn, *axis])}<div>{legend}</div>'


def curves(series: Mapping[str, Sequence[float]]) -> str:
    """A small curve for each series over its numbers; those that are not finite are left out."""
    return "".join(f'<span style="display:inline-block;margin:4px 12px 4px 0">{_curve(name, numbers)}</span>'
                   for name, numbers in series.items())


def _curve(name: str, numbers: Sequence[float]) -> str:
    width, height = 200, 60
    points = [(i, y) for i, y in enumerate(numbers) if isfinite(y)]
    label = f'<text x="0" y="{height + 14}">{escape(name)} {points[-1][1]:.4g}</text>' if points else ""
    if len(points) < 2:
        return _svg(width, height + 18, [label])
    low, high = min(y for _, y in points), max(y for _, y in points)
    across, up = width / (len(numbers) - 1), (height - 4) / ((high - low) or 1)
    path = " ".join(f"{i * across:.1f},{height - 2 - (y - low) * up:.1f}" for i, y in points)
    return _svg(width, height + 18, [f'<polyline points="{path}" fill="none" stroke="{COLOURS[0]}" stroke-width="1.5">'
                                     f"<title>{low:.4g} to {high:.4g}</title></polyline>", label])


def _rectangle(r: Rectangle, steps: int, top: int, colour: str) -> str:
    across, up = (WIDTH - LEFT) / steps, HEIGHT / top
    title = f"{escape(r.label)}: {human(r.high - r.low)}, kernels {r.first} to {r.last}"
    return (f'<rect x="{LEFT + r.first * across:.1f}" y="{HEIGHT - r.high * up:.1f}" '
            f'width="{max((r.last - r.first + 1) * across, 0.4):.1f}" height="{max((r.high - r.low) * up, 0.4):.1f}" '
            f'fill="{colour}" fill-opacity=".7" stroke="{colour}" stroke-width=".5"><title>{title}</title></rect>')


def _svg(width: int, height: int, parts: Sequence[str]) -> str:
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'style="max-width:100%;font:11px sans-serif" fill="currentColor">{"".join(parts)}</svg>')
