"""The log that TensorBoard reads. Loaded where one is made: a writer may bring torch with it."""
from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from graphc.callbacks.callback import Callback, Row, Run
from graphc.dsl.context import user_loc
from graphc.dsl.form import formed
from graphc.extra import missing
from graphc.ir.convert import integer

try:
    from tensorboardX import SummaryWriter
except ImportError:                 # an extra, or torch's writer where torch is
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        SummaryWriter = None


@formed
class TensorBoard(Callback):
    """Scalars for TensorBoard in `folder`: the loss of every `every`-th step, and the numbers of each epoch. Needs
    tensorboardX (the extra `log`) or torch with tensorboard. Of a distributed step rank 0 writes."""

    def __init__(self, folder: str | os.PathLike[str], *, every: int = 1):
        if SummaryWriter is None:
            raise missing("TensorBoard", "a writer, such as tensorboardX", "log", loc=user_loc())
        self.folder, self.every = os.fspath(folder), integer(every, "every", 1, loc=user_loc())
        self._writer: Any = None

    def on_fit_begin(self, run: Run) -> None:
        self._writer = None if run.step.ranks.rank else SummaryWriter(self.folder)

    def on_batch_end(self, run: Run, loss: float) -> None:
        number = len(run.history.losses)
        if self._writer and number % self.every == 0:
            self._writer.add_scalar("step/loss", loss, number)

    def on_epoch_end(self, run: Run, row: Row) -> None:
        if self._writer is None:
            return
        for name, value in row.items():
            self._writer.add_scalar(f"epoch/{name}", value, run.epoch + 1)
        self._writer.flush()

    def on_fit_end(self, run: Run) -> None:
        if self._writer:
            self._writer.close()

    def __getstate__(self) -> Mapping[str, Any]:
        return vars(self) | {"_writer": None}
