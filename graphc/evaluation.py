"""Losses and metrics over several batches: means are averaged, everything else is computed of all predictions at
once."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from graphc.contained import contained
from graphc.dsl.array import Array
from graphc.dsl.context import user_loc
from graphc.dsl.function import GraphFunction, finish
from graphc.dsl.trace import Trace
from graphc.errors import GraphError
from graphc.execute import Runnable, on_state, sized_on_state
from graphc.ir.types import TensorType, dtype_of
from graphc.metrics.metric import Metric, as_total
from graphc.nn.loss import accuracy, bce, cross_entropy, mse
from graphc.nn.network import entries, inputs, network_name, trace_network
from graphc.nn.module import Module
from graphc.nn.path import rooted
from graphc.specialised import SpecialisedGraph
from graphc.state import State
from graphc.training_graph import Objective, counted

MEANS = (accuracy, bce, cross_entropy, mse)         # over targets: batches are weighted by their targets
Types = tuple[tuple[str, TensorType], ...]
Measure = Metric | Callable[..., Any]
Metrics = tuple[tuple[str, Callable[..., Any]], ...]
PREDICTION = "prediction of the network"            # no metric has this name


def prediction(y: Array, target: Array) -> Array:
    """What the network says, as a metric: for those that need all of it at once."""
    return y


class Evaluation:
    """The loss and metrics of batches so far: each as it would be of all examples at once.

    A `Metric` keeps sums, or joined arrays, of its counts. MEANS are averaged, weighted by targets. Any other function
    is computed at the end, of all predictions and targets.
    """

    def __init__(self, objective: Objective, metrics: Mapping[str, Measure]):
        self._objective, self._metrics = objective, dict(metrics)
        self._whole = {name: m for name, m in metrics.items() if not isinstance(m, Metric) and m not in MEANS}
        if metrics and objective.loss is None:
            raise GraphError("metrics of a general training step are what its function returns: return loss, "
                             "{name: value}", user_loc())
        for name, metric in metrics.items():
            if not callable(metric) or isinstance(metric, type):
                raise GraphError(f"{name}= takes a metric such as gc.metrics.F1(), or a function of prediction and "
                                 f"target, got {metric!r}", user_loc())
        self._totals, self._targets, self.examples = MetricTotals(), list[np.ndarray](), 0.0
        self._counts: dict[str, dict[str, Any]] = {}

    @property
    def wanted(self) -> dict[str, Callable[..., Any]]:
        """What the graph is to compute of each batch."""
        functions = {name: m.counts if isinstance(m, Metric) else m for name, m in self._metrics.items()
                     if name not in self._whole}
        return functions | ({PREDICTION: prediction} if self._whole else {})

    def add(self, arrays: Sequence[np.ndarray], values: Mapping[str, np.ndarray]) -> None:
        """What the graph gave for a batch."""
        counts = {(name, key): values[counted(name, key)] for name, key in self._keys(values)}
        for (name, key), value in counts.items():
            known, metric = self._counts.setdefault(name, {}), self._metrics[name]
            if isinstance(metric, Metric) and metric.joins:
                known.setdefault(key, []).append(np.array(value))
            else:
                known[key] = known[key] + as_total(value) if key in known else as_total(value)
        for name, value in values.items():
            if name not in {counted(*pair) for pair in counts}:
                function = self._objective.loss if name == "loss" else self.wanted.get(name)
                self._totals.add(name, value, weight(function, arrays))
        self._targets.append(arrays[-1])

    def results(self, state: State, threads: int) -> dict[str, float | np.ndarray]:
        """The loss, then the metrics."""
        if not self._targets:
            raise GraphError("evaluate got no batch: if it is a generator, it may have been used up", user_loc())
        found = self._totals.results()
        for name, counts in self._counts.items():
            metric = self._metrics[name]
            assert isinstance(metric, Metric)
            found[name] = metric.result({key: joined(name, c) if metric.joins else c for key, c in counts.items()})
        if self._whole:
            every = np.asarray(found.pop(PREDICTION)), joined("targets", self._targets)
            function = metrics_graph(self._whole, *every)
            values = on_state(function, state, threads, function.graph)(*every)
            found |= {name: float(v) if np.ndim(v) == 0 else v for name, v in values.items()}
        return {name: found[name] for name in ("loss", *self._metrics) if name in found} | found

    def _keys(self, values: Mapping[str, np.ndarray]) -> list[tuple[str, str]]:
        """(metric, count) of what the counts of metrics are among the values."""
        pairs = [name.rpartition("/")[::2] for name in values if "/" in name]
        return [(name, key) for name, key in pairs if isinstance(self._metrics.get(name), Metric)]


class MetricTotals:
    """What batches gave so far: sums of numbers with their weights, and arrays that are to be joined."""

    def __init__(self) -> None:
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


def weight(function: Callable[..., Any] | None, arrays: Sequence[np.ndarray]) -> int:
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
                       metrics: Metrics) -> Runnable | SpecialisedGraph:
    """Native code that gives loss and metrics of a batch of these types, in inference mode, and writes nothing.
    Parameters that only inference has get fresh values, by the seed."""
    with Trace("evaluate_" + network_name(objective.root)) as trace, rooted(objective.root):
        loss, values = objective(inputs(trace, dict(types)), dict(metrics))
        function = finish(trace, {"loss": loss, **values}, user_loc())
    return reading(function, state, seed, threads)


@contained
def prediction_program(net: Module, state: State, seed: int, threads: int, types: Types) -> Runnable | SpecialisedGraph:
    """Native code of the network for inputs of these types, in inference mode."""
    return reading(trace_network(net, False, **dict(types)), state, seed, threads)


def reading(function: GraphFunction, state: State, seed: int, threads: int) -> Runnable | SpecialisedGraph:
    """`function` on the state, of which it writes nothing. Parameters that the state lacks get fresh values."""
    for entry in entries(function):
        if not state.holds(entry):
            state.add(entry, entry.initial(seed))
    graph = replace(function.graph, updates=(None,) * len(function.graph.state))
    if not graph.dim_names:
        return on_state(function, state, threads, graph)
    return SpecialisedGraph(graph, partial(on_state, function, state, threads),
                            make_sized=partial(sized_on_state, function, state, threads))


def metrics_graph(metrics: Mapping[str, Callable[..., Any]], y: np.ndarray, target: np.ndarray) -> GraphFunction:
    """The metrics as one graph, of the predictions and targets of all batches."""
    with Trace("metrics") as trace:
        given = {"prediction": y, "target": target}
        arrays = inputs(trace, {name: TensorType(dtype_of(a), a.shape) for name, a in given.items()})
        values = {name: _applied(name, metric, arrays.values()) for name, metric in metrics.items()}
        return finish(trace, values, user_loc())


def _applied(name: str, metric: Callable[..., Any], arrays: Iterable[Array]) -> Any:
    try:
        return metric(*arrays)
    except GraphError:
        raise
    except Exception as error:
        raise GraphError(f"metric {name} cannot work on symbolic arrays ({type(error).__name__}: {error}): metrics "
                         "are functions of prediction and target, written with gc's operators; those of numpy arrays, "
                         "as scikit-learn's, are called with what gc.compile(step.model, …) gives",
                         user_loc()) from error
