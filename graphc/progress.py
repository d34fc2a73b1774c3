"""Progress while something trains: a bar on a terminal (tqdm, when installed), plain lines elsewhere."""
from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any, Generic, TextIO, TypeVar

from graphc.once import loaded

Batch = TypeVar("Batch")
SECONDS_BETWEEN_LINES = 10.0


class Progress(Generic[Batch]):
    """Iterates over batches and shows loss and examples (or another `unit`) per second; `examples`: how many a batch
    has.

    `for batch in (bar := Progress(batches, "epoch 1", examples=64)): bar.loss(step(*batch))`
    """

    def __init__(self, batches: Iterable[Batch], title: str = "", examples: int = 1, unit: str = "examples",
                 total: int | None = None, file: TextIO | None = None) -> None:
        self.batches, self.title, self.examples, self.unit = batches, title, examples, unit
        self.total = len(batches) if total is None and isinstance(batches, Sized) else total
        self.file = file or sys.stderr
        self.done, self.last = 0, float("nan")

    def loss(self, value: float) -> None:
        """The loss of the batch just done."""
        self.last = value

    def __iter__(self) -> Iterator[Batch]:
        bar = _bar_class() if self.file.isatty() else None
        return self._drawn(bar) if bar is not None else self._written()

    @property
    def text(self) -> str:
        """Loss and rate so far."""
        rate = self.done * self.examples / max(time.perf_counter() - self._start, 1e-9)
        return f"loss {self.last:.4f}, {rate:.0f} {self.unit}/s"

    def _drawn(self, bar_class: Any) -> Iterator[Batch]:
        self._start = time.perf_counter()
        with bar_class(total=self.total, desc=self.title, file=self.file, unit="step", mininterval=0.1) as bar:
            for batch in self.batches:
                yield batch
                self.done += 1
                bar.set_postfix_str(self.text, refresh=False)
                bar.update()

    def _written(self) -> Iterator[Batch]:
        self._start = said = time.perf_counter()
        for batch in self.batches:
            yield batch
            self.done += 1
            if time.perf_counter() - said >= SECONDS_BETWEEN_LINES:
                self._say()
                said = time.perf_counter()
        self._say()

    def _say(self) -> None:
        count = f"{self.done}/{self.total}" if self.total else str(self.done)
        print(f"{self.title}: {count} steps, {self.text}", file=self.file, flush=True)


def _bar_class() -> Any:
    """tqdm's; None without it, an extra. It is loaded for the first bar: that takes a third as long as all of graphc.
    """
    try:
        return loaded("tqdm", "tqdm")
    except ImportError:
        return None
