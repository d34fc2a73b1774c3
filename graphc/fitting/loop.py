"""The loop over epochs and batches. Where it is can be saved at any step, and it goes on from there with the same bits.
"""
from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field
from itertools import islice
from typing import Any, Protocol
from zlib import crc32

import numpy as np

from graphc.callbacks.callback import Callback, Run
from graphc.dsl.context import user_loc
from graphc.errors import GraphError
from graphc.fitting.data import Batch, Examples, Stream, class_weights, epoch_order
from graphc.fitting.history import History
from graphc.metrics.metric import Metric
from graphc.progress import Progress
from graphc.records import dataclass

Values = Mapping[str, Any]


class Trainable(Protocol):
    """What the loop asks of a training step."""
    ranks: Any

    def run_batch(self, arrays: Batch, weighted: bool) -> tuple[Values, float]: ...

    def evaluated(self, data: Examples | Stream, batch: int, metrics: Mapping[str, Any]) -> dict[str, Any]: ...


@dataclass
class FitPlan:
    """How a run is to be. `batch`: rows of a batch of `data`, if that is arrays; `seed` and `start`, the number of
    steps before, decide the order of examples together with the epoch; `weights`, one for each example, or
    `class_weight` for streams; `part`: which rows of a batch of so many this process has."""
    data: Examples | Stream
    batch: int
    epochs: int
    seed: int
    start: int
    shuffle: bool = True
    drop_last: bool = False
    validation: Examples | Stream | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    weights: np.ndarray | None = None
    class_weight: Mapping[Any, float] | None = None
    progress: bool | None = None
    part: Callable[[int], slice] = lambda rows: slice(0, rows)

    @property
    def weighted(self) -> bool:
        return self.weights is not None or self.class_weight is not None

    @property
    def rows(self) -> int:
        """Examples of an epoch; 0 if nobody knows."""
        if isinstance(self.data, Stream):
            return 0
        return self.data.count - (self.data.count % self.batch if self.drop_last else 0)

    def batches(self, epoch: int, skip: int) -> Iterator[Batch]:
        """Those of an epoch from number `skip` on, with their weights as a last array if there are any."""
        if isinstance(self.data, Stream):
            for batch in self.data.batches("fit", skip):
                yield batch if self.class_weight is None else (*batch, class_weights(self.class_weight, batch[-1]))
            return
        order = epoch_order(self.data.count, self.seed, self.start, epoch) if self.shuffle else None
        arrays = self.data.arrays if self.weights is None else (*self.data.arrays, self.weights)
        yield from islice(Examples(arrays).batches(self.batch, order, skip, self.part), (self.length or 0) - skip)

    @property
    def length(self) -> int | None:
        """Batches of an epoch, if known."""
        return self.data.length if isinstance(self.data, Stream) else -(-self.rows // self.batch)


class FitRun:
    """A run of `fit`: what callbacks are told of, and what a checkpoint keeps of it."""

    def __init__(self, step: Any, plan: FitPlan, callbacks: Sequence[Callback]):
        self.step, self.plan, self.epochs = step, plan, plan.epochs
        self.callbacks = sorted(callbacks, key=lambda c: c.last)
        self.history, self.epoch, self.batches = History(), 0, 0
        self.stopped = ""
        self._sums: dict[str, list[float]] = {}             # of the epoch so far: value times weight, weight
        self._at_end = False                                # of an epoch: it is done, and callbacks are told

    def stop(self, reason: str = "asked to") -> None:
        """This epoch is the last."""
        self.stopped = reason

    def better(self, name: str) -> str | None:
        """Whether a number of the rows is better when it is greater ("max") or smaller ("min"), if that is known."""
        plain = name.removeprefix("val_")
        metric = self.plan.metrics.get(plain)
        if isinstance(metric, Metric):
            return metric.better
        return {"loss": "min", "accuracy": "max"}.get(plain)

    def run(self) -> History:
        """All epochs that are left."""
        if self.epoch < self.epochs and not self.batches:
            self._tell(lambda c: c.on_epoch_begin(self))
        try:
            while self.epoch < self.epochs and not self.stopped:
                self._train_epoch()
                self.epoch, self.batches, self._at_end = self.epoch + 1, 0, False
                if self.epoch < self.epochs and not self.stopped:
                    self._tell(lambda c: c.on_epoch_begin(self))
        finally:
            self._tell(lambda c: c.on_fit_end(self))
        return self.history

    def _train_epoch(self) -> None:
        start, shown = time.perf_counter(), self._shows
        batches: Any = self._batches()
        bar = Progress(batches, f"epoch {self.epoch + 1}/{self.epochs}", self.plan.batch, total=self.plan.length)
        for arrays in bar if shown else batches:
            loss = self._count(*self.step.run_batch(arrays, self.plan.weighted))
            bar.loss(loss)
            self.batches += 1
            self._tell(lambda c: c.on_batch_end(self, loss))
        row = {name: total / weight if weight else float("nan") for name, (total, weight) in self._sums.items()}
        if isinstance(self.step.hyper.get("lr"), float):
            row["lr"] = self.step.lr
        row |= self._validated()
        row["seconds"] = time.perf_counter() - start
        self.history.rows.append(row)
        self._sums, self._at_end = {}, True
        if shown:
            print(", ".join(f"{n} {v:.4g}" for n, v in row.items() if n != "seconds"), file=sys.stderr)
        self._tell(lambda c: c.on_epoch_end(self, row))

    def _batches(self) -> Iterator[Batch]:
        """Those of this epoch that are left. Of several ranks, each of which has batches from somewhere, all have one,
        or none; what goes wrong on one where it makes them, goes wrong on all."""
        batches, ranks = self.plan.batches(self.epoch, self.batches), self.step.ranks
        if ranks.count == 1 or not isinstance(self.plan.data, Stream):
            yield from batches
            return
        while True:
            batch: Batch | None = None
            error: Exception | None = None
            try:
                batch = next(batches, None)
            except Exception as wrong:
                error = wrong
            there = ranks.gathered((batch is not None,), "a batch of fit", error)[:, 0]
            if not there.all() and there.any():
                raise GraphError(f"step.fit: rank {int(np.argmin(there))} of {ranks.count} has no more batches after "
                                 f"{self.batches} of this epoch, and rank {int(np.argmax(there))} has: all ranks give "
                                 "as many", user_loc())
            if batch is None:
                return
            yield batch

    @property
    def _shows(self) -> bool:
        wanted = sys.stderr.isatty() if self.plan.progress is None else self.plan.progress
        return wanted and self.step.ranks.rank == 0

    def _count(self, values: Values, weight: float) -> float:
        """Adds the values of a batch to those of the epoch, by its examples or their weights; the loss."""
        for name, value in values.items():
            if np.ndim(value) == 0:
                sums = self._sums.setdefault(name, [0.0, 0.0])
                sums[0], sums[1] = sums[0] + float(value) * weight, sums[1] + weight
        loss = float(values["loss"])
        self.history.losses.append(loss)
        return loss

    def _validated(self) -> dict[str, float]:
        if self.plan.validation is None:
            return {}
        ranks, found = self.step.ranks, {}
        error: Exception | None = None
        try:
            found = self.step.evaluated(self.plan.validation, self.plan.batch, self.plan.metrics)
        except Exception as wrong:          # the other ranks wait for what it is
            error = wrong
        row = {f"val_{name}": float(value) for name, value in found.items() if np.ndim(value) == 0}
        text = repr(row).encode()           # the same float is the same text, and NaN is NaN
        every = ranks.gathered((crc32(text),), "the validation of an epoch", error)[:, 0]
        if (odd := int(np.argmax(every != every[0]))):
            raise GraphError(f"step.fit: the validation of rank {odd} of {ranks.count} gives other numbers than that "
                             f"of rank 0, here {row}: all ranks validate on the same data", user_loc())
        return row

    def _tell(self, what: Callable[[Callback], None]) -> None:
        for callback in self.callbacks:
            what(callback)

    # checkpoints

    def arrays(self) -> dict[str, np.ndarray]:
        """Where the run is, by name."""
        place = (self.epoch + 1, 0) if self._at_end else (self.epoch, self.batches)
        found = {"position": np.array([self.plan.seed, self.plan.start, *place, self.plan.rows], np.int64)}
        found |= {f"sums/{name}": np.array(sums) for name, sums in self._sums.items()} | self.history.arrays()
        for i, callback in enumerate(self.callbacks):
            found |= {f"callback/{i}/{name}": a for name, a in callback.arrays().items()}
        return found

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Goes to the place that `arrays` gave."""
        seed, start, epoch, batches, rows = map(int, arrays["position"])
        if rows != self.plan.rows:
            raise GraphError(f"the run that is to go on had {rows} examples in an epoch, these data have "
                             f"{self.plan.rows}", user_loc())
        if seed != self.plan.seed:
            raise GraphError(f"the run that is to go on had seed={seed}, which decides what is held out and the order; "
                             f"this one has {self.plan.seed}", user_loc())
        self.plan.start, self.epoch, self.batches = start, epoch, batches
        self._sums = {name.removeprefix("sums/"): list(map(float, a)) for name, a in arrays.items()
                      if name.startswith("sums/")}
        self.history = History.restored(arrays)
        for i, callback in enumerate(self.callbacks):
            begin = f"callback/{i}/"
            own = {name.removeprefix(begin): a for name, a in arrays.items() if name.startswith(begin)}
            if own:
                callback.restore(own)


@dataclass
class Told(Callback):
    """A plain function as a callback."""
    function: Callable[[Run, Mapping[str, float]], Any]

    def on_epoch_end(self, run: Run, row: Mapping[str, float]) -> None:
        self.function(run, row)


def as_callbacks(given: Any) -> list[Callback]:
    """Callbacks and plain functions as callbacks."""
    listed = list(given) if isinstance(given, (list, tuple)) else [given]
    wrong = [c for c in listed if not isinstance(c, Callback) and (not callable(c) or isinstance(c, type))]
    if wrong:
        raise GraphError(f"callbacks= takes callbacks such as gc.callbacks.EarlyStopping(), and functions of the run "
                         f"and the row of an epoch; got {wrong[0]!r}", user_loc())
    return [c if isinstance(c, Callback) else Told(c) for c in listed]
