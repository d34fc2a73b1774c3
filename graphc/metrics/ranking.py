"""The area under the ROC curve, from all scores."""
from __future__ import annotations

from typing import ClassVar

import numpy as np

import graphc as gc
from graphc.dsl.array import Array, as_array
from graphc.dsl.context import user_loc
from graphc.dsl.form import formed
from graphc.errors import GraphError
from graphc.metrics.metric import Metric, Totals
from graphc.records import dataclass


@formed
@dataclass(frozen=True)
class AUC(Metric):
    """The area under the ROC curve: the share of pairs of a positive and a negative example in the right order, equal
    scores counting half. Exact, since it keeps all scores.

    Of one score, [B] or [B, 1], and targets 0 and 1; of two logits, their difference; of more classes the mean over
    classes of each against the rest, by softmax (scikit-learn's multi_class="ovr"). NaN where a class is absent.
    """
    joins: ClassVar[bool] = True

    def counts(self, y: Array, target: Array) -> dict[str, Array]:
        y, target = as_array(y), as_array(target)
        if y.ndim < 2 or y.shape[-1] == 1:
            if y.size != target.size:
                raise GraphError(f"AUC takes a score and a target for each example, got {y.type} and {target.type}",
                                 user_loc())
            scores = y.reshape(-1, 1)
        elif target.shape != y.shape[:-1]:
            raise GraphError(f"AUC takes scores [..., classes] and class ids without that axis, got {y.type} and "
                             f"{target.type}", user_loc())
        else:
            classes = y.shape[-1]
            scores = y.reshape(-1, classes)
            scores = scores[:, 1:] - scores[:, :1] if classes == 2 else gc.softmax(scores)
        return {"scores": scores, "target": target.reshape(-1).astype(gc.f32)}

    def result(self, totals: Totals) -> float:
        scores, target = totals["scores"], totals["target"]
        if scores.shape[1] == 1:
            return area(scores[:, 0], target > 0.5)
        return float(np.mean([area(scores[:, c], target == c) for c in range(scores.shape[1])]))


def area(scores: np.ndarray, positive: np.ndarray) -> float:
    """By the sum of ranks of the positive ones (Mann and Whitney 1947), equal scores sharing their mean rank."""
    n, m = int(positive.sum()), int((~positive).sum())
    if not n or not m or np.isnan(scores).any():
        return float("nan")
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    return float((ranks[place][positive].sum() - n * (n + 1) / 2) / (n * m))
