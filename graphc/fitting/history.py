"""What a training run leaves: a row of numbers for each epoch."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from graphc.dsl.context import user_loc
from graphc.dsl.form import formed_methods
from graphc.errors import GraphError
from graphc.ir.shown import Pictured
from graphc.report import aligned


class History(Mapping[str, list[float]], Pictured):
    """`history["val_loss"]` is a list with a number for each epoch (NaN where there was none); `losses` has the loss of
    every step. `plot()` draws it, `print` shows a table."""

    def __init__(self, rows: Sequence[Mapping[str, float]] = (), losses: Sequence[float] = ()):
        self.rows: list[dict[str, float]] = [dict(row) for row in rows]
        self.losses: list[float] = list(losses)

    @property
    def names(self) -> list[str]:
        """What is known of an epoch, in the order in which it came."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def __getitem__(self, name: str) -> list[float]:
        if name not in self.names:
            raise GraphError(f"the history has no {name!r}; it has {', '.join(self.names) or 'no epoch yet'}",
                             user_loc())
        return [row.get(name, float("nan")) for row in self.rows]

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        if not self.rows:
            return "History of no epoch"
        lines = [(str(i), *(f"{row[n]:.4g}" if n in row else "" for n in self.names))
                 for i, row in enumerate(self.rows, 1)]
        return aligned([("epoch", *self.names), *lines], left=0)

    def plot(self, *names: str) -> Any:
        """A matplotlib figure: a panel for each quantity, with the one of the validation data in it. Shown by a
        notebook; `figure.savefig("a.png")` keeps it. `names`: which panels; all but the time if left out."""
        return import_module("graphc.fitting.figure").figure(self, names)

    def arrays(self) -> dict[str, np.ndarray]:
        """The rows as arrays, for a checkpoint."""
        return {f"history/{name}": np.array(self[name]) for name in self.names} | {"losses": np.array(self.losses)}

    @staticmethod
    def restored(arrays: Mapping[str, np.ndarray]) -> History:
        """From what `arrays` gave."""
        columns = {name.removeprefix("history/"): a for name, a in arrays.items() if name.startswith("history/")}
        count = max((len(a) for a in columns.values()), default=0)
        rows = [{name: float(a[i]) for name, a in columns.items() if not np.isnan(a[i])} for i in range(count)]
        return History(rows, [float(v) for v in arrays.get("losses", ())])


formed_methods(History)
