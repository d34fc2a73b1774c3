"""What people do with a training step besides stepping: fit, evaluate, predict."""
from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from graphc import metrics as known_metrics
from graphc.apart import check_apart
from graphc.config import MOST_I64
from graphc.contained import contained
from graphc.dsl.context import user_loc
from graphc.dsl.form import formed_methods
from graphc.dsl.function import GraphFunction
from graphc.errors import GraphError
from graphc.evaluation import Evaluation, evaluation_program, prediction_program
from graphc.execute import Runnable
from graphc.fitting.data import (
    Batch, Examples, Stream, check_first_axes, class_weights, epoch_order, source, weights_of)
from graphc.fitting.history import History
from graphc.fitting.loop import FitRun, FitPlan, as_callbacks
from graphc.ir.convert import flag, integer, is_number, real
from graphc.ir.ops.index import Take
from graphc.ir.dims import Poly
from graphc.ir.types import TensorType, dtype_of
from graphc.metrics.metric import Metric
from graphc.nn.module import Function
from graphc.nn.parameter import Parameter
from graphc.ranks import Ranks, agree_on
from graphc.shards import ShardedProgram, step_program
from graphc.sharded_graph import batch_dim
from graphc.specialised import Specialised, SpecialisedGraph
from graphc.state import State
from graphc.training_graph import Recipe

BATCH, PREDICTED = 32, 256          # examples that a step, or a prediction, takes at once where no size is declared
METRICS = {metric.title(): metric for metric in vars(known_metrics).values()
           if isinstance(metric, type) and issubclass(metric, Metric) and metric is not Metric}


class Trainer:
    """Base of training steps: what is made of steps and of reading the state."""
    state: State
    _recipe: Recipe
    _function: GraphFunction
    _types: Mapping[str, TensorType]
    _threads: int
    _seed: int
    _kept: dict[str, np.ndarray]
    _ranks: Ranks
    _programs: SpecialisedGraph | ShardedProgram

    def __call__(self, *arrays: Any, **named: Any) -> Any:
        raise NotImplementedError

    def load(self, path: str | os.PathLike[str], partial: bool = False) -> None:
        """Takes the state from a file."""
        raise NotImplementedError

    def _begin(self) -> None:
        """The step is about to train, perhaps for the first time."""
        raise NotImplementedError

    def _steps_done(self) -> int:
        """Calls so far."""
        raise NotImplementedError

    def _forget(self) -> None:
        """Without native code: as made, and as copied or pickled. (By functions of what the step has, not by its
        methods: a step that nobody needs is gone at once.)"""
        objective = self._recipe.objective
        self._evaluations: Specialised[Runnable | SpecialisedGraph] = Specialised(
            partial(evaluation_program, objective, self.state, self._seed, self._threads))
        self._predictions: Specialised[Runnable | SpecialisedGraph] = Specialised(
            partial(prediction_program, objective.root, self.state, self._seed, self._threads))
        self._variants: Specialised[SpecialisedGraph | ShardedProgram] = Specialised(
            partial(_variant, self._recipe, self.state, self._threads, self._ranks))
        self._run: FitRun | None = None

    def fit(self, *data: Any, epochs: int = 1, batch: int | None = None, validation: Any = None,
            metrics: Any = (), callbacks: Any = (), class_weight: Mapping[Any, float] | str | None = None,
            sample_weight: Any = None, shuffle: bool = True, drop_last: bool = False, seed: int | None = None,
            resume: bool | str | os.PathLike[str] = False, progress: bool | None = None) -> History:
        """Trains for `epochs` passes over the data; gives the history, a mapping from names to lists over the epochs.

        data: arrays in the order of the inputs, `fit(x, y)`, with one row for each example; or an iterable of batches
        (a list, a torch DataLoader), or a function that gives one, each batch a tuple of arrays or a dict. numpy's
        float64 and int64, tables of pandas and tensors become what the step declares; a number that does not fit is a
        GraphError. batch: rows of a step (default: as declared, else 32); a smaller last batch is trained on too, or
        left out by `drop_last`. The order of examples is drawn anew for every epoch, by `seed` (that of the step), the
        number of steps before, and the epoch.

        validation: data of the same forms, or a share such as 0.1 of the arrays, drawn by the seed; each epoch has its
        loss and `metrics` (names as "accuracy", objects of gc.metrics, functions, or a dict) as "val_loss" ….
        class_weight: {class id: weight} or "balanced"; sample_weight: one for each example; the loss of a batch is the
        weighted mean, which needs a loss with reduction="none". callbacks: of gc.callbacks, or functions f(run, row)
        called after each epoch.

        resume: a checkpoint that `gc.callbacks.Checkpoint` saved: the run goes on in the middle of its epoch with the
        same bits (where there is no such file yet, it begins); True: that of the file loaded last. Data, epochs and
        callbacks are given again. progress: a bar, or lines, on stderr; by default on a terminal.
        """
        where = user_loc()
        seed = self._seed if seed is None else integer(seed, "seed", 0, MOST_I64, where)
        given = self._source(self._types, data, "fit")
        weights = None
        if sample_weight is not None:
            if isinstance(given, Stream):
                raise GraphError("sample_weight= belongs to arrays; with an iterable of batches weigh in a function "
                                 "of your own that returns the loss, or give class_weight=", where)
            weights = weights_of(sample_weight, given.count)
        plan = FitPlan(given, self._batch_size(batch, BATCH), integer(epochs, "epochs", 0, loc=where), seed,
                    self._steps_done(), flag(shuffle, "shuffle"), flag(drop_last, "drop_last"), weights=weights,
                    metrics=as_metrics(metrics), progress=progress,
                    part=partial(self._ranks.part, shards=self._recipe.shards or 1))
        agree_on(self._ranks, {"examples": -1 if isinstance(given, Stream) else given.count, "batch=": plan.batch,
                               "epochs=": plan.epochs, "seed=": seed, "shuffle=": plan.shuffle,
                               "drop_last=": plan.drop_last}, "step.fit")
        self._split(plan, validation)
        self._weigh(plan, class_weight)
        _check(plan)
        return self._fitted(FitRun(self, plan, as_callbacks(callbacks)), resume)

    def _source(self, types: Mapping[str, TensorType], data: tuple[Any, ...], what: str) -> Examples | Stream:
        """The data of a call. GraphError for arrays whose first axis is not that of examples."""
        found = source(types, data, what)
        if not isinstance(found, Examples):
            return found
        check_first_axes({name: self._types[name] for name in types}, what)
        taken = time_first(self._function)
        if taken:
            layer, name = taken
            raise GraphError(f"{layer} takes {name} as [time, batch, …], and {what} cuts arrays along the first axis, "
                             "as examples: make the layers with batch_first=True, or give batches as they are to be, "
                             "[(x, y), …]", user_loc())
        return found

    def _split(self, plan: FitPlan, validation: Any) -> None:
        """Puts the validation data in place."""
        if not is_number(validation):
            plan.validation = None if validation is None else self._source(
                loosened(self._types), validation if isinstance(validation, tuple) else (validation,), "validation")
            return
        share = real(validation, "validation")
        if isinstance(plan.data, Stream) or not 0 < share < 1:
            raise GraphError("validation= as a share is a number between 0 and 1 and belongs to arrays; got "
                             f"{validation!r}", user_loc())
        count = max(1, round(plan.data.count * share))
        order = epoch_order(plan.data.count, plan.seed)
        held, kept = np.sort(order[:count]), np.sort(order[count:])
        if not len(kept):
            raise GraphError(f"validation={validation} leaves no example to train on", user_loc())
        plan.data, plan.validation = plan.data.rows(kept), plan.data.rows(held)
        plan.weights = None if plan.weights is None else plan.weights[kept]

    def _weigh(self, plan: FitPlan, class_weight: Mapping[Any, float] | str | None) -> None:
        """Puts the weights of classes in place."""
        if class_weight is None:
            return
        if isinstance(plan.data, Examples):
            weights = class_weights(class_weight, plan.data.arrays[-1])
            plan.weights = weights if plan.weights is None else weights * plan.weights
        elif isinstance(class_weight, Mapping):
            plan.class_weight = class_weight
        else:
            raise GraphError("class_weight=\"balanced\" counts the classes of arrays; for an iterable of batches give "
                             "{class id: weight}", user_loc())

    def _fitted(self, run: FitRun, resume: bool | str | os.PathLike[str]) -> History:
        for callback in run.callbacks:
            callback.on_fit_begin(run)
        if not isinstance(resume, bool) and self._ranks.from_first(lambda: Path(resume).exists(), "step.fit"):
            self.load(resume)
        kept = self._kept if resume else {}
        if resume is True and not kept:
            raise GraphError("resume=True goes on where the checkpoint loaded last was made, and none of a run has "
                             "been loaded: give its path", user_loc())
        if kept:
            run.restore(kept)
        self._run = run
        try:
            return run.run()
        finally:
            self._run = None

    def evaluate(self, *data: Any, batch: int | None = None, **metrics: Any) -> dict[str, float | np.ndarray]:
        """The loss and `metrics` (name=gc.metrics.F1(), or a function of prediction and target) in inference mode;
        nothing is changed. data: as of `fit`; batches may be of any length, and the result does not depend on how the
        examples are cut.

        The loss, and metrics that are means over targets (nn.accuracy, nn.cross_entropy, nn.mse, nn.bce), are averaged,
        weighted by targets (another loss: by the length of the first array). Any other function, such as recall or R²,
        is computed once, of the predictions and targets of all batches, joined along their first axis. General form:
        of what `f` reports, numbers are averaged, weighted by the length of the first array, which is wrong for what is
        no mean over examples; arrays are joined and returned.
        """
        return self.evaluated(self._source(loosened(self._types), data, "evaluate"),
                              self._batch_size(batch, PREDICTED), metrics)

    def evaluated(self, data: Examples | Stream, batch: int, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """The same of data that are prepared."""
        check_apart(self)           # type: ignore[arg-type]    # a training step
        found = Evaluation(self._recipe.objective, metrics)
        wanted = tuple(found.wanted.items())
        for arrays in data.batches(batch) if isinstance(data, Examples) else data.batches("evaluate"):
            values = self._evaluations.at(types=given_types(self._types, arrays), metrics=wanted)(*arrays)
            found.add(arrays, values)
        return found.results(self.state, self._threads)

    def predict(self, *inputs: Any, batch: int | None = None) -> Any:
        """What the network says of so many examples, in inference mode: arrays, one for each input of the network with
        a row for each example, are cut into batches of `batch` rows, and the results joined."""
        root = self._recipe.objective.root
        if self._recipe.objective.loss is None and isinstance(root, Function):
            raise GraphError("this step trains a function, not a network: compile the network inside with "
                             "state=step.state", user_loc())
        types = dict(islice(self._types.items(), len(self._types) - (self._recipe.objective.loss is not None)))
        data = self._source(loosened(types), inputs, "predict")
        size = self._batch_size(batch, PREDICTED)
        parts = []
        for arrays in data.batches(size) if isinstance(data, Examples) else data.batches("predict"):
            result = self._predictions.at(types=given_types(types, arrays))(*arrays)
            parts.append(result)
        return _joined(parts)

    def weights(self) -> dict[str, np.ndarray]:
        """Copies of the parameters and running statistics, by name: what the network is, without what only its training
        needs. `step.state.load(weights, partial=True)` takes them back."""
        arrays = self.state.copy()
        return {name: arrays[name] for name in self.state.names_of(Parameter)}

    def run_batch(self, arrays: Batch, weighted: bool) -> tuple[Mapping[str, Any], float]:
        """One step on a batch of any number of rows, of which this rank gives its own; with `weighted` its last array
        weighs the examples. What the step reports, and the weight of the batch: its rows, or the sum of their weights.
        """
        declared = next(iter(self._types.values())).shape[0] if isinstance(arrays[0], np.ndarray) else None
        count, rows = len(arrays[0]), None
        if isinstance(declared, int):
            if self._ranks.count > 1:
                count = int(self._ranks.gathered((count,), "a batch of fit").sum())
            rows = count if declared != count else None
        run = self if not weighted and rows is None else self._variants.at(rows=rows, weighted=weighted)
        self._begin()
        result = run(*arrays)
        program = self._programs if run is self else run
        weight = float(arrays[-1].sum(dtype=np.float64)) if weighted else float(count)
        if isinstance(program, ShardedProgram):
            weight = program.weight
        return result if isinstance(result, dict) else {"loss": result}, weight

    def _batch_size(self, given: int | None, default: int) -> int:
        """Rows of a batch: those asked for, else those declared."""
        shape = next(iter(self._types.values())).shape
        declared = shape[0] if shape and isinstance(shape[0], int) else default
        return declared if given is None else integer(given, "batch", 1, loc=user_loc())


formed_methods(Trainer, "TrainStep")


def time_first(function: GraphFunction) -> tuple[str, str] | None:
    """A layer that takes an input, or what is looked up by it, as [time, batch, …], and the input's name."""
    for layer, value, batch_first in function.orders.taken if function.orders else ():
        looked_up = value.node is not None and isinstance(value.node.op, Take)
        origin = value.node.inputs[1] if looked_up and value.node else value
        if not batch_first and origin in function.graph.inputs:
            return layer, origin.name
    return None


def check_shards(function: GraphFunction) -> None:
    """GraphError for a step whose batches cannot be cut into shards along the first axis of its inputs."""
    batch_dim(function.inputs)
    taken = time_first(function)
    if taken:
        layer, name = taken
        raise GraphError(f"{layer} takes {name} as [time, batch, …], and shards= cuts arrays along the first axis, as "
                         "examples: make the layers with batch_first=True", user_loc())


def as_metrics(given: Any) -> dict[str, Any]:
    """Metrics by name: of a dict, or a list of names, metrics and functions."""
    if isinstance(given, Mapping):
        return {str(name): _metric(metric) for name, metric in given.items()}
    listed = list(given) if isinstance(given, (list, tuple)) else [given]
    found = {}
    for metric in listed:
        if not isinstance(metric, str) and not callable(metric):
            raise GraphError(f"metrics= takes names, objects of gc.metrics and functions, got {metric!r}", user_loc())
        plain = metric if isinstance(metric, str) else (
            metric.title() if isinstance(metric, Metric) else metric.__name__)
        found[plain] = _metric(metric)
    return found


def _metric(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    if given.lower() not in METRICS:
        raise GraphError(f"there is no metric {given!r}; there are {', '.join(METRICS)}", user_loc())
    return METRICS[given.lower()]()


def loosened(types: Mapping[str, TensorType]) -> dict[str, TensorType]:
    """The types with their ranks alone: what is evaluated may have any sizes."""
    return {name: type.dtype[tuple(f"axis{i}" for i in range(type.rank))] for name, type in types.items()}


def given_types(types: Mapping[str, TensorType], arrays: Sequence[np.ndarray]) -> tuple[tuple[str, TensorType], ...]:
    """The inputs by name, with the types of these arrays; named sizes stay named, so that one program takes all."""
    return tuple((name, _given_type(type, a)) for (name, type), a in zip(types.items(), arrays))


def _given_type(declared: TensorType, array: np.ndarray) -> TensorType:
    """That of the array, but for the declared names."""
    given = TensorType(dtype_of(array), array.shape)
    if declared.rank != given.rank:
        return given
    return given.with_shape(d if isinstance(d, Poly) else n for d, n in zip(declared.shape, given.shape))


@contained
def _variant(recipe: Recipe, state: State, threads: int, ranks: Ranks, rows: int | None,
             weighted: bool) -> SpecialisedGraph | ShardedProgram:
    """The step on batches of so many rows, with weights or without."""
    recipe = recipe.for_batches(rows, weighted)
    try:
        function, _ = recipe.function()
    except GraphError as error:
        if rows is None:
            raise
        raise GraphError(f"a batch of {rows} rows does not fit this step ({error.text}): declare a name for the size "
                         "of the batch, gc.f32[\"B\", …], or give drop_last=True", user_loc()) from None
    return step_program(recipe, function, state, threads, ranks)


def _check(plan: FitPlan) -> None:
    if plan.metrics and plan.validation is None:
        raise GraphError("metrics= are those of the validation data: give validation=, for example a share, 0.1",
                         user_loc())
    if isinstance(plan.data, Examples) and not plan.rows:
        raise GraphError(f"drop_last leaves nothing of {plan.data.count} examples in batches of {plan.batch}",
                         user_loc())


def _joined(parts: Sequence[Any]) -> Any:
    """The results of all batches as one, along their first axis."""
    if isinstance(parts[0], dict):
        return {name: _joined([p[name] for p in parts]) for name in parts[0]}
    if isinstance(parts[0], tuple):
        return tuple(_joined(column) for column in zip(*parts))
    if len(parts) > 1 and np.ndim(parts[0]) == 0:
        raise GraphError("predict joins the results of batches along their first axis; the network returns a number: "
                         "give batch= as many as there are examples", user_loc())
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
