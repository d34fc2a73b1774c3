"""The log that any program reads."""
from __future__ import annotations

import csv
import os
from io import StringIO

from graphc.callbacks.callback import Callback, Row, Run
from graphc.dsl.form import formed
from graphc.replacing import write_file


@formed
class CSVLog(Callback):
    """A table with a line for each epoch: its number, then the numbers of the row. A run that resumes goes on in the
    file. Of a distributed step rank 0 writes it."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = path

    def on_epoch_end(self, run: Run, row: Row) -> None:
        """The whole table again: rows may have got columns, and a run that resumes may repeat an epoch."""
        if run.step.ranks.rank:
            return
        text, names = StringIO(), run.history.names
        table = csv.writer(text)
        table.writerow(["epoch", *names])
        table.writerows([i, *(known.get(name, "") for name in names)]
                        for i, known in enumerate(run.history.rows, 1))
        write_file(self.path, text.getvalue())
