"""The picture of a history. Loaded where one is drawn: matplotlib takes longer to import than graphc."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.dsl.context import user_loc
from graphc.extra import missing

try:
    from matplotlib.figure import Figure
except ImportError:                 # an extra
    Figure = None                   # type: ignore[assignment, misc]


def figure(history: Mapping[str, Sequence[float]], names: Sequence[str]) -> Any:
    """A panel for each quantity, with the one of the validation data in it."""
    if Figure is None:
        raise missing("plot()", "matplotlib", "demo", loc=user_loc())
    panels = list(names) or list(dict.fromkeys(n.removeprefix("val_") for n in history if n != "seconds"))
    made = Figure(figsize=(4 * max(len(panels), 1), 3), layout="constrained")
    for axis, name in zip(np.ravel(made.subplots(1, max(len(panels), 1))), panels):
        for column in (c for c in (name, f"val_{name}") if c in history):
            axis.plot(range(1, len(history[column]) + 1), history[column], marker=".", label=column)
        axis.set(xlabel="epoch", title=name)
        axis.legend()
    return made
