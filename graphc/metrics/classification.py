"""Metrics of class ids: predictions are logits or probabilities [..., classes], or one logit as for `nn.bce`."""
from __future__ import annotations

from dataclasses import KW_ONLY
from typing import Any, ClassVar

import numpy as np

import graphc as gc
from graphc.dsl.array import Array, as_array
from graphc.dsl.context import user_loc
from graphc.dsl.form import formed
from graphc.errors import GraphError
from graphc.ir.convert import choice
from graphc.ir.dims import static_dim
from graphc.metrics.metric import MeanMetric, Metric, Totals, ratio
from graphc.records import dataclass

AVERAGES = ("binary", "macro", "micro", "weighted", "none")


def predicted(y: Array, target: Array, threshold: float = 0.0) -> tuple[Array, Array, int]:
    """(predicted class ids, class ids, number of classes), both i64 [n]. Of one logit: classes 0 and 1."""
    y, target = as_array(y), as_array(target)
    one = y.ndim < 2 or y.shape[-1] == 1
    if one and target.size == y.size:
        labels = target if target.dtype == gc.bool_ else target.astype(gc.f32) > 0.5
        return ((y.reshape(-1) > threshold).astype(gc.i64), labels.reshape(-1).astype(gc.i64), 2)
    if one or target.shape != y.shape[:-1] or target.dtype.is_float:
        raise GraphError("metrics of classes take scores [..., classes] and class ids without that axis, or one logit, "
                         f"[B, 1] or [B], and targets of 0 and 1; got {y.type} and {target.type}", user_loc())
    return gc.argmax(y, axis=-1).reshape(-1), target.reshape(-1).astype(gc.i64), static_dim(y.shape[-1])


def _counted_from_front(ids: Array, classes: int) -> Array:
    """Class ids, of which a negative one is no class: out of range, so that the run says so."""
    return gc.where(ids < 0, classes, ids)


@formed
@dataclass(frozen=True)
class Accuracy(MeanMetric):
    """The share of targets that are predicted; of one logit: above `threshold` says 1."""
    threshold: float = 0.0

    def terms(self, y: Array, target: Array) -> Array:
        guess, truth, _ = predicted(y, target, self.threshold)
        return gc.equal(guess, truth).astype(gc.i64)


@formed
@dataclass(frozen=True)
class TopKAccuracy(MeanMetric):
    """The share of targets of which fewer than k classes have a greater score."""
    called: ClassVar[str] = "top"
    k: int = 5

    def terms(self, y: Array, target: Array) -> Array:
        _, truth, classes = predicted(y, target)
        if classes < self.k or y.ndim < 2 or y.shape[-1] == 1:
            raise GraphError(f"TopKAccuracy({self.k}) of {classes} classes: k is at most the number of scores",
                             user_loc())
        scores = y.reshape(-1, classes)
        own = gc.take_along_axis(scores, gc.expand_dims(_counted_from_front(truth, classes), 1), axis=1)
        return (gc.sum((scores > own).astype(gc.i64), axis=1) < self.k).astype(gc.i64)


@formed
@dataclass(frozen=True)
class ConfusionMatrix(Metric):
    """i64 [classes, classes]: at [t, p] how often p was predicted for t."""
    called: ClassVar[str] = "confusion"
    threshold: float = 0.0

    def counts(self, y: Array, target: Array) -> dict[str, Array]:
        guess, truth, classes = predicted(y, target, self.threshold)
        place = _counted_from_front(truth, classes) * classes + guess
        cells = gc.scatter_add(gc.zeros((classes * classes,), gc.i64), place, gc.ones_like(guess))
        return {"confusion": cells.reshape(classes, classes)}

    def result(self, totals: Totals) -> np.ndarray:
        return totals["confusion"]


@dataclass(frozen=True)
class FromConfusion(Metric):
    """Base of those that follow from the confusion matrix.

    average: "binary", of class 1 among two (the default there); "macro", the mean over classes; "weighted", by how
    often each is the target; "micro", of all decisions together; "none", an array over the classes. Where nothing was
    to be found or predicted the value is 0.
    """
    _: KW_ONLY
    average: str | None = None
    threshold: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.average is not None:
            choice(self.average, f"{type(self).__name__}: average", AVERAGES)

    def counts(self, y: Array, target: Array) -> dict[str, Array]:
        return ConfusionMatrix(self.threshold).counts(y, target)

    def score(self, hits: Any, guessed: Any, real: Any) -> np.ndarray:
        """From numbers of right predictions, of predictions, and of targets."""
        raise GraphError(f"{type(self).__name__} defines no score")

    def result(self, totals: Totals) -> float | np.ndarray:
        matrix = totals["confusion"]
        hits, guessed, real = np.diag(matrix), matrix.sum(0), matrix.sum(1)
        average = self.average or ("binary" if len(matrix) == 2 else None)
        if average is None or (average == "binary" and len(matrix) != 2):
            raise GraphError(f"{type(self).__name__} of {len(matrix)} classes needs average=\"macro\", \"micro\", "
                             "\"weighted\" or \"none\"", user_loc())
        if average == "micro":
            return float(self.score(hits.sum(), guessed.sum(), real.sum()))
        scores = self.score(hits, guessed, real)
        if average == "none":
            return scores
        if average == "binary":
            return float(scores[1])
        return float(np.mean(scores) if average == "macro" else ratio(np.sum(scores * real), real.sum()))


@formed
@dataclass(frozen=True)
class Precision(FromConfusion):
    """The share of predictions that are right. `average`: as of its base."""

    def score(self, hits: Any, guessed: Any, real: Any) -> np.ndarray:
        return ratio(hits, guessed)


@formed
@dataclass(frozen=True)
class Recall(FromConfusion):
    """The share of targets that are predicted. `average`: as of its base."""

    def score(self, hits: Any, guessed: Any, real: Any) -> np.ndarray:
        return ratio(hits, real)


@formed
@dataclass(frozen=True)
class F1(FromConfusion):
    """2 × hits / (predictions + targets), the harmonic mean of precision and recall. `average`: as of its base."""

    def score(self, hits: Any, guessed: Any, real: Any) -> np.ndarray:
        return ratio(2 * hits, guessed + real)


@formed
@dataclass(frozen=True)
class Perplexity(Metric):
    """exp of the mean cross entropy of logits [..., classes] and class ids, over all that are not `ignore_index`."""
    better: ClassVar[str] = "min"
    ignore_index: int | None = None

    def counts(self, y: Array, target: Array) -> dict[str, Array]:
        counted = gc.ones_like(target) if self.ignore_index is None else (target != self.ignore_index)
        losses = gc.cross_entropy(y, target, axis=-1, ignore_index=self.ignore_index, reduction="none")
        return {"loss": gc.sum(losses.astype(gc.f64)), "all": gc.sum(counted.astype(gc.i64))}

    def result(self, totals: Totals) -> float:
        return float(np.exp(ratio(totals["loss"], totals["all"])))
