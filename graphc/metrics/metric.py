"""What a metric is: counts of a batch, which add up over batches, and what follows from their sums."""
from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

import graphc as gc
from graphc.dsl.array import Array
from graphc.dsl.arguments import Converted
from graphc.dsl.context import user_loc
from graphc.dsl.form import formed, formed_methods
from graphc.dsl.function import trace_types
from graphc.errors import GraphError
from graphc.ir.types import TensorType, dtype_of

Totals = Mapping[str, np.ndarray]


@formed
class Metric(Converted):
    """Base of all metrics; subclasses are frozen dataclasses.

    `counts` is a graph function: what one batch gives, arrays by name. Over batches they are summed, in f64 or i64, or
    where `joins` says so joined along their first axis; `result` makes the value of that. So a value is the one of all
    examples at once, however they were cut into batches: a mean of batches' recalls is no recall.
    `better`: "max" or "min", what early stopping looks for. `called`: its name in a history ("" : the class's).
    """
    better: ClassVar[str] = "max"
    called: ClassVar[str] = ""
    joins: ClassVar[bool] = False

    @classmethod
    def title(cls) -> str:
        """What it is called in a history, and in `metrics=["accuracy"]`."""
        return cls.called or cls.__name__.lower()

    def counts(self, y: Array, target: Array) -> dict[str, Array]:
        """Arrays that add up, from the prediction and the target of a batch."""
        raise GraphError(f"{type(self).__name__} defines no counts(self, y, target)")

    def result(self, totals: Totals) -> float | np.ndarray:
        """The value, from the sums of the counts."""
        raise GraphError(f"{type(self).__name__} defines no result(self, totals)")

    def __call__(self, y: np.ndarray, target: np.ndarray) -> float | np.ndarray:
        """The value for numpy arrays: the predictions (scores, logits) and the targets of all examples."""
        given = {"prediction": np.asarray(y), "target": np.asarray(target)}
        if any(isinstance(a, Array) for a in (y, target)):
            raise GraphError(f"{type(self).__name__} is a metric, which is computed over batches: give it to "
                             "step.evaluate or step.fit, or call it with numpy arrays", user_loc())
        function = trace_types(lambda prediction, target: self.counts(prediction, target),
                               {name: TensorType(dtype_of(a), a.shape) for name, a in given.items()},
                               type(self).__name__.lower())
        counts = function(*given.values())
        return self.result({name: as_total(a) for name, a in counts.items()})


@formed
class MeanMetric(Metric):
    """What metrics share that are a sum over all numbers, divided by how many these are."""

    def terms(self, y: Array, target: Array) -> Array:
        """What is added up: one number each."""
        raise GraphError(f"{type(self).__name__} defines no terms(self, y, target)")

    def counts(self, y: Array, target: Array) -> dict[str, Array]:
        terms = self.terms(y, target)
        return {"sum": gc.sum(terms), "all": gc.sum(gc.ones_like(terms))}

    def result(self, totals: Totals) -> float:
        return float(ratio(totals["sum"], totals["all"]))


formed_methods(Metric, "metric")


def as_total(count: np.ndarray) -> np.ndarray:
    """A count in the dtype that sums are kept in."""
    array = np.asarray(count)
    return array.astype(np.float64 if array.dtype.kind == "f" else np.int64)


def ratio(a: float | np.ndarray, b: float | np.ndarray) -> np.ndarray:
    """a / b; 0 where b is 0."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.divide(a, b, out=np.zeros(np.broadcast_shapes(a.shape, b.shape)), where=b != 0)
