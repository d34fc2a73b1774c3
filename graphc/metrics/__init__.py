"""Metrics over any number of batches: `step.evaluate(x, y, f1=gc.metrics.F1())`, `fit(…, metrics=["accuracy"])`."""
from graphc.metrics.classification import (
    F1, Accuracy, ConfusionMatrix, Perplexity, Precision, Recall, TopKAccuracy)
from graphc.metrics.metric import Metric
from graphc.metrics.ranking import AUC
from graphc.metrics.regression import R2, MeanAbsoluteError, MeanSquaredError, RootMeanSquaredError
