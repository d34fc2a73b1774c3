"""Metrics over any number of batches: `step.evaluate(x, y, f1=gc.metrics.F1())`, `fit(…, metrics=["accuracy"])`."""
from typing import Any as _Any

from graphc.dsl.other_names import other_name as _other_name
from graphc.metrics.classification import (
    F1, Accuracy, ConfusionMatrix, Perplexity, Precision, Recall, TopKAccuracy)
from graphc.metrics.metric import Metric
from graphc.metrics.ranking import AUC
from graphc.metrics.regression import R2, MeanAbsoluteError, MeanSquaredError, RootMeanSquaredError


def __getattr__(name: str) -> _Any:
    return _other_name("metrics", name)
