"""Stopping when the network gets no better, with the best weights back."""
from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from graphc.callbacks.callback import Callback, Row, Run, Watch
from graphc.dsl.form import formed
from graphc.ir.convert import flag


@formed
class EarlyStopping(Callback):
    """Stops after `patience` epochs in which `monitor` got no better by more than `min_delta`.

    restore_best: at the end the network has the parameters and running statistics of the best epoch, also when all
    epochs ran; optimizer arrays stay as they are. mode: "min" or "max"; losses and errors are "min", metrics know it.
    """

    def __init__(self, monitor: str = "val_loss", *, patience: int = 5, min_delta: float = 0.0,
                 restore_best: bool = True, mode: str | None = None):
        self.watch, self.restore_best = Watch(monitor, mode, patience, min_delta), flag(restore_best, "restore_best")
        self.best: dict[str, np.ndarray] = {}

    def on_fit_begin(self, run: Run) -> None:
        self.watch.restart()
        self.best = {}

    def on_epoch_end(self, run: Run, row: Row) -> None:
        if self.watch.improved(run, row):
            self.best = run.step.weights() if self.restore_best else {}
        elif self.watch.waited >= self.watch.patience:
            run.stop(f"{self.watch.monitor} got no better for {self.watch.waited} epochs")

    def on_fit_end(self, run: Run) -> None:
        if self.best:
            run.step.state.load(self.best, partial=True)

    def arrays(self) -> dict[str, np.ndarray]:
        return self.watch.arrays() | {f"best/{name}": a for name, a in self.best.items()}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.watch.restore(arrays)
        self.best = {name.removeprefix("best/"): a for name, a in arrays.items() if name.startswith("best/")}
