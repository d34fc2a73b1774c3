"""The roofline plot: GFLOP/s of kernels over their flops for each byte moved, both axes logarithmic."""
from __future__ import annotations

from collections.abc import Sequence
from math import floor, log10, sqrt
from html import escape

from graphc.records import dataclass

Point = tuple[str, float, float, float]         # name, flops for each byte, GFLOP/s, seconds

WIDTH, HEIGHT, LEFT, TOP, LEGEND = 560, 380, 64, 28, 330
LABELLED = 12                       # points with a number and a line in the legend: those that take the most time
LONGEST = 50                        # letters of a line of the legend
# the colour of the text is that of what is around the picture, in a notebook
STYLE = (".roofline text{font:11px sans-serif;fill:currentColor} "
         ".roofline .roof{stroke:#b33;stroke-width:2;fill:none} "
         ".roofline .grid{stroke:currentColor;stroke-opacity:.15} "
         ".roofline .point{fill:#36c;fill-opacity:.55;stroke:#69c}")


@dataclass(frozen=True)
class PlotAxis:
    """Powers of ten from `low` to `high`, from pixel `start` to `end`."""
    low: int
    high: int
    start: float
    end: float

    @staticmethod
    def of(values: Sequence[float], start: float, end: float) -> "PlotAxis":
        low, high = floor(log10(min(values))), floor(log10(max(values))) + 1
        return PlotAxis(low, high, start, end)

    def at(self, value: float) -> float:
        share = (log10(value) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    @property
    def ticks(self) -> list[int]:
        return list(range(self.low, self.high + 1))


def roofline_svg(points: Sequence[Point], peak: float, bandwidth: float) -> str:
    """An SVG picture; `peak` GFLOP/s, `bandwidth` GB/s. The area of a point is its share of the time; kernels without
    arithmetic are left out.
    """
    drawn = sorted((p for p in points if p[1] > 0 and p[2] > 0), key=lambda p: -p[3])
    ridge = peak / bandwidth
    x = PlotAxis.of([ridge / 10, ridge * 10, *(p[1] for p in drawn)], LEFT, WIDTH)
    y = PlotAxis.of([peak / 100, peak, *(p[2] for p in drawn)], HEIGHT, TOP)
    total = sum(p[3] for p in points) or 1.0
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" class="roofline" viewBox="0 0 {WIDTH + LEGEND} '
             f'{HEIGHT + 48}"><style>{STYLE}</style>', *_grid(x, y),
             _roof(x, y, peak, bandwidth, ridge)]
    for number, point in enumerate(drawn, 1):
        parts += _point(number, point, x, y, point[3] / total)
    return "\n".join([*parts, "</svg>"])


def _grid(x: PlotAxis, y: PlotAxis) -> list[str]:
    lines = [f'<path class="grid" d="M{x.at(10.0 ** t)} {y.start}V{y.end}"/><text x="{x.at(10.0 ** t)}" '
             f'y="{y.start + 16}" text-anchor="middle">{10.0 ** t:g}</text>'
             for t in x.ticks]
    lines += [f'<path class="grid" d="M{x.start} {y.at(10.0 ** t)}H{x.end}"/><text x="{x.start - 6}" '
              f'y="{y.at(10.0 ** t) + 4}" text-anchor="end">{10.0 ** t:g}</text>'
              for t in y.ticks]
    return [*lines, f'<text x="{(x.start + x.end) / 2}" y="{y.start + 36}" text-anchor="middle">FLOP per byte</text>',
            f'<text x="{x.start}" y="{y.end - 12}" text-anchor="middle">GFLOP/s</text>']


def _roof(x: PlotAxis, y: PlotAxis, peak: float, bandwidth: float, ridge: float) -> str:
    """The slope of the bandwidth up to the ridge, then the peak."""
    left = max(10.0 ** x.low, 10.0 ** y.low / bandwidth)
    return (f'<path class="roof" d="M{x.at(left)} {y.at(left * bandwidth)}L{x.at(ridge)} {y.at(peak)}H{x.end}"/>'
            f'<text x="{x.end}" y="{y.at(peak) - 5}" text-anchor="end">{peak:.0f} GFLOP/s, {bandwidth:.0f} GB/s</text>')


def _point(number: int, point: Point, x: PlotAxis, y: PlotAxis, share: float) -> list[str]:
    name, intensity, gflops, _ = point
    cx, cy, full = x.at(intensity), y.at(gflops), f"{name}: {gflops:.1f} GFLOP/s, {100 * share:.1f} %"
    title = escape(full)
    circle = f'<circle class="point" cx="{cx}" cy="{cy}" r="{3 + 30 * sqrt(share):.1f}"><title>{title}</title></circle>'
    if number > LABELLED:
        return [circle]
    return [circle, f'<text x="{cx}" y="{cy + 4}" text-anchor="middle">{number}</text>',
            f'<text x="{WIDTH + 16}" y="{TOP + 22 * number}">{number} {escape(_short(full))}</text>']


def _short(text: str) -> str:
    """A line that fits beside the plot."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST // 2 - 1]}…{text[-LONGEST // 2:]}"
