"""Logs that other programs read."""
from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from io import StringIO
from typing import Any

from graphc.callbacks.callback import Callback, Row, Run
from graphc.dsl.context import user_loc
from graphc.dsl.form import formed
from graphc.errors import GraphError
from graphc.ir.convert import integer
from graphc.replacing import write_file

try:
    from tensorboardX import SummaryWriter
except ImportError:                 # an extra, or torch's writer where torch is
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        SummaryWriter = None


@formed
class CSVLog(Callback):
    """A table with a line for each epoch: its number, then the numbers of the row. A run that resumes goes on in the
    file."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = path

    def on_epoch_end(self, run: Run, row: Row) -> None:
        """The whole table again: rows may have got columns, and a run that resumes may repeat an epoch."""
        text, names = StringIO(), run.history.names
        table = csv.writer(text)
        table.writerow(["epoch", *names])
        table.writerows([i, *(known.get(name, "") for name in names)]
                        for i, known in enumerate(run.history.rows, 1))
        write_file(self.path, text.getvalue())


@formed
class TensorBoard(Callback):
    """Scalars for TensorBoard in `folder`: the loss of every `every`-th step, and the numbers of each epoch. Needs
    tensorboardX (the extra `log`) or torch with tensorboard."""

    def __init__(self, folder: str | os.PathLike[str], *, every: int = 1):
        if SummaryWriter is None:
            raise GraphError("TensorBoard needs a writer: pip install tensorboardX, or '.[log]' in a checkout",
                             user_loc())
        self.folder, self.every = os.fspath(folder), integer(every, "every", 1, loc=user_loc())
        self._writer: Any = None

    def on_fit_begin(self, run: Run) -> None:
        self._writer = SummaryWriter(self.folder)

    def on_batch_end(self, run: Run, loss: float) -> None:
        number = len(run.history.losses)
        if number % self.every == 0:
            self._writer.add_scalar("step/loss", loss, number)

    def on_epoch_end(self, run: Run, row: Row) -> None:
        for name, value in row.items():
            self._writer.add_scalar(f"epoch/{name}", value, run.epoch + 1)
        self._writer.flush()

    def on_fit_end(self, run: Run) -> None:
        self._writer.close()

    def __getstate__(self) -> Mapping[str, Any]:
        return vars(self) | {"_writer": None}
