"""Checkpoints while the network trains."""
from __future__ import annotations

import os
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from graphc.callbacks.callback import Callback, Row, Run, Watch
from graphc.dsl.context import user_loc
from graphc.dsl.form import formed
from graphc.errors import GraphError
from graphc.ir.convert import integer


@formed
class Checkpoint(Callback):
    """Saves the step, with the place in the run, after every epoch, or after every `every` steps: a file from which
    `step.fit(…, resume=path)` goes on as if it had not stopped, bit for bit.

    path may have "{epoch}" in it (epochs done), which keeps all files. monitor: only when this number is the best so
    far, for example "val_loss"; mode as of EarlyStopping.
    """
    last: ClassVar[bool] = True

    def __init__(self, path: str | os.PathLike[str], *, every: int | None = None, monitor: str | None = None,
                 mode: str | None = None):
        self.path, self.done = os.fspath(path), 0
        self.every = None if every is None else integer(every, "every", 1, loc=user_loc())
        self.watch = None if monitor is None else Watch(monitor, mode, 0, 0.0)
        if every is not None and monitor is not None:
            raise GraphError("a checkpoint every so many steps, or of the best epoch: give every= or monitor=",
                             user_loc())

    def on_fit_begin(self, run: Run) -> None:
        self.done = 0
        if self.watch:
            self.watch.restart()

    def on_batch_end(self, run: Run, loss: float) -> None:
        self.done += 1
        if self.every and self.done % self.every == 0:
            self._save(run, run.epoch)

    def on_epoch_end(self, run: Run, row: Row) -> None:
        if not self.every and (self.watch is None or self.watch.improved(run, row)):
            self._save(run, run.epoch + 1)

    def _save(self, run: Run, epochs: int) -> None:
        run.step.save(self.path.replace("{epoch}", str(epochs)))

    def arrays(self) -> dict[str, np.ndarray]:
        return {"done": np.array([self.done], np.int64)} | (self.watch.arrays() if self.watch else {})

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.done = int(arrays["done"][0])
        if self.watch:
            self.watch.restore(arrays)
