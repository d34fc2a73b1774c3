"""The base of callbacks, and what those share that watch a number."""
from __future__ import annotations

from collections.abc import Mapping
from math import inf, isnan
from typing import Any, ClassVar, Protocol

import numpy as np

from graphc.dsl.context import user_loc
from graphc.dsl.form import formed, formed_methods
from graphc.errors import GraphError
from graphc.fitting.history import History
from graphc.ir.convert import choice, integer, real

Row = Mapping[str, float]


class Run(Protocol):
    """The training run that a callback is told of. `epoch` counts from 0, `batches` those done in the epoch."""
    step: Any
    history: History
    epoch: int
    epochs: int
    batches: int

    def stop(self, reason: str = "") -> None: ...

    def better(self, name: str) -> str | None: ...


@formed
class Callback:
    """Base of callbacks: override what is wanted. A plain function serves too: called as f(run, row) after each epoch.

    `row` has the numbers of an epoch, as the history has them. `last`: it comes after all others. `arrays` is what a
    checkpoint in the middle of the run keeps of it, `restore` takes it back.
    """
    last: ClassVar[bool] = False

    def on_fit_begin(self, run: Run) -> None:
        """Before the first epoch."""

    def on_epoch_begin(self, run: Run) -> None:
        """Before each epoch."""

    def on_batch_end(self, run: Run, loss: float) -> None:
        """After each step."""

    def on_epoch_end(self, run: Run, row: Row) -> None:
        """After each epoch and its validation."""

    def on_fit_end(self, run: Run) -> None:
        """At the end, also when it was stopped early."""

    def arrays(self) -> dict[str, np.ndarray]:
        """What a checkpoint keeps."""
        return {}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes back what a checkpoint kept."""


formed_methods(Callback, "callback")


class Watch:
    """The best value so far of one number of the rows, and for how many epochs there was no better one."""

    def __init__(self, monitor: str, mode: str | None, patience: int, min_delta: float):
        self.monitor, self.patience = monitor, integer(patience, "patience", 0, loc=user_loc())
        self.mode = None if mode is None else choice(mode, "mode", ("min", "max"))
        self.min_delta = abs(real(min_delta, "min_delta"))
        if not self.min_delta < inf:
            raise GraphError(f"min_delta is a finite number, got {min_delta}", user_loc())
        self.restart()

    def restart(self) -> None:
        """As before the first epoch."""
        self.best, self.waited = inf, 0

    def improved(self, run: Run, row: Row) -> bool:
        """Whether the number of this epoch is the best so far, by more than `min_delta`."""
        if self.monitor not in row:
            raise GraphError(f"{self.monitor!r} is to be watched, and an epoch has {', '.join(row)}"
                             + ("; give validation=" if self.monitor.startswith("val_") else ""), user_loc())
        mode = self.mode or run.better(self.monitor)
        if mode is None:
            raise GraphError(f"is {self.monitor} better when it is greater or smaller? Give mode=\"max\" or \"min\"",
                             user_loc())
        value = row[self.monitor] if mode == "min" else -row[self.monitor]
        better = not isnan(value) and value < self.best - (self.min_delta if self.best < inf else 0.0)
        self.best, self.waited = (value, 0) if better else (self.best, self.waited + 1)
        return better

    def arrays(self) -> dict[str, np.ndarray]:
        return {"watch": np.array([self.best, self.waited], np.float64)}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.best, self.waited = float(arrays["watch"][0]), int(arrays["watch"][1])
