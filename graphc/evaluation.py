"""Losses and metrics over several batches: means are averaged, everything else is computed of all predictions at
once."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from graphc.contained import contained
from graphc.dsl.context import user_loc
from graphc.dsl.function import GraphFunction, finish
from graphc.dsl.trace import Trace
from graphc.errors import GraphError
from graphc.execute import Runnable, on_state
from graphc.ir.types import TensorType, dtype_of
from graphc.nn.loss import accuracy, bce, cross_entropy, mse
from graphc.nn.network import entries, inputs, network_name
from graphc.nn.path import rooted
from graphc.state import State
from graphc.training_graph import Objective

MEANS = (accuracy, bce, cross_entropy, mse)         # over targets: batches are weighted by their targets
Types = tuple[tuple[str, TensorType], ...]
Metrics = tuple[tuple[str, Callable], ...]
PREDICTION = "prediction of the network"            # no metric has this name


def prediction(y, target):
    """What the network says, as a metric: for those that need all of it at once."""
    return y


class MetricTotals:
    """What batches gave so far: sums of numbers with their weights, and arrays that are to be joined."""

    def __init__(self):
        self._sums: dict[str, tuple[float, float]] = {}
        self._arrays: dict[str, list[np.ndarray]] = {}

    def add(self, name: str, value: np.ndarray, weight: float) -> None:
        if np.ndim(value):
            self._arrays.setdefault(name, []).append(np.array(value))
        elif weight:
            total, weights = self._sums.get(name, (0.0, 0.0))
            self._sums[name] = total + weight * float(value), weights + weight

    def results(self) -> dict[str, float | np.ndarray]:
        """The weighted means, and the arrays joined along their first axis."""
        means = {name: total / weights for name, (total, weights) in self._sums.items()}
        return means | {name: joined(name, arrays) for name, arrays in self._arrays.items()}


def weight(function: Callable | None, arrays: Sequence[np.ndarray]) -> int:
    """How much a batch counts in the mean: by its targets for functions that are means over these, else by its
    length."""
    if function in MEANS:
        return arrays[-1].size
    return arrays[0].shape[0] if arrays[0].ndim else 1


def joined(name: str, arrays: Sequence[np.ndarray]) -> np.ndarray:
    """The arrays of all batches as one, along the first axis."""
    if len({a.shape[1:] for a in arrays}) > 1:
        shapes = ", ".join(str(list(a.shape)) for a in arrays[:3])
        raise GraphError(f"evaluate: {name} of the batches cannot be joined along the first axis: {shapes} …; "
                         "give batches that differ in their first axis alone", user_loc())
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


@contained
def evaluation_program(objective: Objective, state: State, seed: int, threads: int, types: Types,
                       metrics: Metrics) -> Runnable:
    """Native code that gives loss and metrics of a batch of these types, in inference mode, and writes nothing.
    Parameters that only inference has get fresh values, by the seed."""
    with Trace("evaluate_" + network_name(objective.root)) as trace, rooted(objective.root):
        loss, values = objective(inputs(trace, dict(types)), dict(metrics))
        function = finish(trace, {"loss": loss, **values}, user_loc())
    for entry in entries(function):
        if not state.holds(entry):
            state.add(entry, entry.initial(seed))
    return on_state(function, state, threads, replace(function.graph, updates=(None,) * len(function.graph.state)))


def metrics_graph(metrics: Mapping[str, Callable], y: np.ndarray, target: np.ndarray) -> GraphFunction:
    """The metrics as one graph, of the predictions and targets of all batches."""
    with Trace("metrics") as trace:
        given = {"prediction": y, "target": target}
        arrays = inputs(trace, {name: TensorType(dtype_of(a), a.shape) for name, a in given.items()})
        values = {name: _applied(name, metric, arrays.values()) for name, metric in metrics.items()}
        return finish(trace, values, user_loc())


def _applied(name: str, metric: Callable, arrays):
    try:
        return metric(*arrays)
    except GraphError:
        raise
    except Exception as error:
        raise GraphError(f"metric {name} cannot work on symbolic arrays ({type(error).__name__}: {error}): metrics "
                         "are functions of prediction and target, written with gc's operators; those of numpy arrays, "
                         "as scikit-learn's, are called with what gc.compile(step.model, …) gives",
                         user_loc()) from error
