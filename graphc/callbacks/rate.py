"""The learning rate between epochs."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf

import numpy as np

from graphc.callbacks.callback import Callback, Row, Run, Watch
from graphc.dsl.context import user_loc
from graphc.dsl.form import formed
from graphc.errors import GraphError
from graphc.ir.convert import callable_, integer, real


@formed
class ReduceOnPlateau(Callback):
    """Multiplies all learning rates by `factor` after `patience` epochs in which `monitor` got no better (torch's
    ReduceLROnPlateau, Keras's ReduceLROnPlateau), not below `min_lr`; then waits `cooldown` epochs before it counts
    again. The step's lr is a number, not a schedule."""

    def __init__(self, monitor: str = "val_loss", *, factor: float = 0.1, patience: int = 10, min_delta: float = 0.0,
                 min_lr: float = 0.0, cooldown: int = 0, mode: str | None = None):
        self.watch = Watch(monitor, mode, patience, min_delta)
        self.factor, self.min_lr = real(factor, "factor"), real(min_lr, "min_lr")
        self.cooldown = integer(cooldown, "cooldown", 0, loc=user_loc())
        if not 0 < self.factor < 1:
            raise GraphError(f"factor is a number between 0 and 1, got {factor}", user_loc())
        if not 0 <= self.min_lr < inf:
            raise GraphError(f"min_lr is a finite number >= 0, got {min_lr}", user_loc())
        self.resting = 0

    def on_fit_begin(self, run: Run) -> None:
        self.watch.restart()
        self.resting = 0

    def on_epoch_end(self, run: Run, row: Row) -> None:
        if self.watch.improved(run, row):
            return
        if self.resting:
            self.resting, self.watch.waited = self.resting - 1, 0
        elif self.watch.waited >= max(self.watch.patience, 1):
            for name in run.step.hyper.rates:
                run.step.hyper[name] = max(run.step.hyper[name] * self.factor, self.min_lr)
            self.resting, self.watch.waited = self.cooldown, 0

    def arrays(self) -> dict[str, np.ndarray]:
        return self.watch.arrays() | {"resting": np.array([self.resting], np.int64)}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.watch.restore(arrays)
        self.resting = int(arrays["resting"][0])


@formed
class LearningRate(Callback):
    """Before each epoch the learning rate becomes `rate(epoch)`, epochs counted from 0 (Keras's
    LearningRateScheduler)."""

    def __init__(self, rate: Callable[[int], float]):
        self.rate = callable_(rate, "LearningRate: rate")

    def on_epoch_begin(self, run: Run) -> None:
        run.step.lr = self.rate(run.epoch)
