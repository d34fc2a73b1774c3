"""Metrics of numbers. Errors are summed in f64."""
from __future__ import annotations

from typing import ClassVar

import numpy as np

import graphc as gc
from graphc.dsl.array import Array, as_array
from graphc.dsl.context import user_loc
from graphc.dsl.form import formed
from graphc.errors import GraphError
from graphc.metrics.metric import MeanMetric, Metric, Totals, ratio
from graphc.records import dataclass

ROUNDING = 1e-14                    # of what f64 sums of squares leave behind where a column is constant


def errors(y: Array, target: Array) -> tuple[Array, Array]:
    """(prediction - target, target) in f64, of one shape; one number for each example may stand as [B] or [B, 1]."""
    y, target = as_array(y).astype(gc.f64), as_array(target).astype(gc.f64)
    if y.shape != target.shape and y.size == target.size and y.shape[:1] == target.shape[:1]:
        y, target = y.reshape(-1), target.reshape(-1)
    if y.shape != target.shape:
        raise GraphError(f"the prediction is {y.type}, the target {target.type}: they have one shape", user_loc())
    return y - target, target


@formed
@dataclass(frozen=True)
class MeanSquaredError(MeanMetric):
    """The mean of (prediction - target)²."""
    called: ClassVar[str] = "mse"
    better: ClassVar[str] = "min"

    def terms(self, y: Array, target: Array) -> Array:
        return gc.square(errors(y, target)[0])


@formed
@dataclass(frozen=True)
class RootMeanSquaredError(MeanSquaredError):
    """The root of the mean of (prediction - target)²."""
    called: ClassVar[str] = "rmse"

    def result(self, totals: Totals) -> float:
        return float(np.sqrt(super().result(totals)))


@formed
@dataclass(frozen=True)
class MeanAbsoluteError(MeanMetric):
    """The mean of |prediction - target|."""
    called: ClassVar[str] = "mae"
    better: ClassVar[str] = "min"

    def terms(self, y: Array, target: Array) -> Array:
        return gc.abs(errors(y, target)[0])


@formed
@dataclass(frozen=True)
class R2(Metric):
    """1 - Σ (prediction - target)² / Σ (target - mean)², of several columns their mean; NaN where a column is constant.
    """

    def counts(self, y: Array, target: Array) -> dict[str, Array]:
        wrong, target = errors(y, target)
        wrong, target = (a.reshape(a.shape[0] if a.ndim else 1, -1) for a in (wrong, target))
        return {"squares": gc.sum(gc.square(wrong), axis=0), "sum": gc.sum(target, axis=0),
                "square_sum": gc.sum(gc.square(target), axis=0), "all": gc.sum(gc.ones_like(target), axis=0)}

    def result(self, totals: Totals) -> float:
        spread = totals["square_sum"] - ratio(totals["sum"] ** 2, totals["all"])
        with np.errstate(divide="ignore", invalid="ignore"):
            scores = 1 - totals["squares"] / np.where(spread > ROUNDING * totals["square_sum"], spread, np.nan)
        return float(np.mean(scores))
