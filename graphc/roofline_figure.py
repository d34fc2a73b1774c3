"""The roofline plot as a picture of pixels or a PDF. Loaded where one is written: matplotlib takes longer to import
than graphc."""
from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from math import sqrt

from graphc.dsl.context import user_loc
from graphc.errors import GraphError
from graphc.roofline import LABELLED, Point

try:
    from matplotlib.figure import Figure
except ImportError:                 # an extra
    Figure = None                   # type: ignore[assignment, misc]


def roofline_picture(points: Sequence[Point], peak: float, bandwidth: float, format: str) -> bytes:
    """As `roofline_svg`, in a format of matplotlib, such as "png". GraphError where that is not installed."""
    if Figure is None:
        raise GraphError(f"a roofline plot as .{format} needs matplotlib: pip install matplotlib; without it, a name "
                         "that ends in .svg", user_loc())
    drawn = sorted((p for p in points if p[1] > 0 and p[2] > 0), key=lambda p: -p[3])
    figure = Figure(figsize=(11, 5), layout="constrained")
    axis = figure.subplots()
    total, ridge = sum(p[3] for p in points) or 1.0, peak / bandwidth
    across = sorted({ridge / 10, ridge, ridge * 10, *(p[1] for p in drawn)})
    axis.loglog(across, [min(peak, bandwidth * x) for x in across], color="#b33")
    for number, (name, intensity, gflops, seconds) in enumerate(drawn, 1):
        label = f"{number} {name}: {gflops:.1f} GFLOP/s, {100 * seconds / total:.1f} %" if number <= LABELLED else None
        axis.scatter([intensity], [gflops], s=20 + 900 * sqrt(seconds / total), alpha=0.55, label=label)
        if number <= LABELLED:
            axis.annotate(str(number), (intensity, gflops), ha="center", va="center")
    axis.set(xlabel="FLOP per byte", ylabel="GFLOP/s", title=f"{peak:.0f} GFLOP/s, {bandwidth:.0f} GB/s")
    if drawn:
        axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, markerscale=0.3)
    written = BytesIO()
    figure.savefig(written, format=format)
    return written.getvalue()
