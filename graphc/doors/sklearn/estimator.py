"""What all estimators share: checked data, one training step, predictions."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

import graphc as gc
from graphc import callbacks, nn, optim
from graphc.extra import missing

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, column_or_1d, validate_data
except ImportError as error:
    raise missing("graphc.sklearn", "scikit-learn 1.6 or later", "sklearn", error) from None

SEEDS = 2 ** 31 - 1
PREDICTED = (1, 16, 256, 4096)          # rows of one call: each is compiled once, whatever is predicted later


class TrainedEstimator(BaseEstimator):
    """Base of estimators around a training step, `step_`. A subclass says what the network, the loss and the optimizer
    are, and how long is trained.

    Fitted: `step_` (a training step with its state), `history_` (of the last fit), `n_iter_` (epochs), `t_` (examples
    seen), `n_features_in_`.
    """
    separate_rows: ClassVar[bool] = True            # whether a prediction depends on its own example alone

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Trains on X [n, features …] and y; gives the estimator. sample_weight: one for each example."""
        X, y = self._checked(X, y, True)
        goes_on = self._goes_on()
        self._train(X, self._targets(y, None, not goes_on), sample_weight, self._epochs(), not goes_on)
        return self

    def _goes_on(self) -> bool:
        """Whether `fit` goes on from where the last one ended."""
        return bool(self.warm_start) and "step_" in vars(self)

    # what a subclass says

    def _network(self, outputs: int) -> nn.Module:
        raise NotImplementedError

    def _optimizer(self, batch: float) -> optim.Optimizer:
        raise NotImplementedError

    def _epochs(self) -> int:
        raise NotImplementedError

    def _batch(self, count: int) -> int:
        raise NotImplementedError

    def _callbacks(self, count: int) -> list[Any]:
        raise NotImplementedError

    def _targets(self, y: np.ndarray, classes: Any, first: bool) -> np.ndarray:
        """y as the step takes it; `first`: nothing is known of it yet."""
        raise NotImplementedError

    def _loss(self) -> Any:
        raise NotImplementedError

    def _outputs(self, targets: np.ndarray) -> int:
        raise NotImplementedError

    # training

    def _checked(self, X: Any, y: Any, reset: bool) -> tuple[np.ndarray, np.ndarray]:
        return validate_data(self, X, y, reset=reset, allow_nd=True, dtype=(np.float32, np.float64),
                             multi_output=True, y_numeric=isinstance(self, RegressorMixin))

    def _start(self, X: np.ndarray, targets: np.ndarray, total: float) -> None:
        """A new network and its training step, for examples of so much weight."""
        random = check_random_state(self.random_state)
        self._seed = int(random.randint(SEEDS))
        self.n_outputs_ = self._outputs(targets)
        kind = gc.i32 if targets.dtype == np.int32 else gc.f32
        self.step_ = gc.train_step(self._network(self.n_outputs_), loss=self._loss(),
                                   optimizer=self._optimizer(min(self._batch(len(X)), total)),
                                   x=gc.f32[("B", *X.shape[1:])], y=kind[("B", *targets.shape[1:])], seed=self._seed)
        self.history_: Any = None
        self.n_iter_ = self.t_ = 0

    def _train(self, X: np.ndarray, targets: np.ndarray, sample_weight: Any, epochs: int, first: bool) -> None:
        """Trains for so many epochs at most; `first`: from the beginning."""
        with np.errstate(over="ignore"):
            x = np.ascontiguousarray(X, np.float32)
        if not np.isfinite(x).all():
            raise ValueError("Input X contains values too large for float32")
        x, targets, weights = self._weighed(x, targets, sample_weight)
        if first:
            self._start(x, targets, float(len(x) if weights is None else weights.sum()))
        x, targets, weights, held = self._parted(x, targets, weights)
        self.history_ = self.step_.fit(
            x, targets, epochs=epochs, batch=self._batch(len(x)), validation=held, sample_weight=weights,
            metrics=self._scored() if held is not None else (), callbacks=self._callbacks(len(x)), shuffle=self.shuffle,
            seed=self._seed, progress=bool(self.verbose))
        self.n_iter_ += len(self.history_.rows)
        self.t_ += len(self.history_.rows) * len(x)

    def _weighed(self, x: np.ndarray, targets: np.ndarray,
                 sample_weight: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """The examples that count, and their weights. Where all are one batch, in an order of their own and equal ones
        merged: then a weight of two is the same as two copies, bit for bit."""
        weights = None if sample_weight is None else _check_sample_weight(sample_weight, x, dtype=np.float32)
        if weights is not None:
            if (weights < 0).any() or not weights.any():
                raise ValueError("sample_weight is >= 0, and above 0 for one example at least")
            kept = weights > 0
            x, targets, weights = x[kept], targets[kept], weights[kept]
        if len(x) > self._batch(len(x)) or self.early_stopping:
            return x, targets, weights
        rows = np.concatenate([x.reshape(len(x), -1), targets.reshape(len(x), -1)], axis=1, dtype=np.float64)
        _, chosen, place = np.unique(rows, axis=0, return_index=True, return_inverse=True)
        if weights is None and len(chosen) == len(x):
            return x[chosen], targets[chosen], None
        total = np.bincount(place.reshape(-1), np.ones(len(x)) if weights is None else weights).astype(np.float32)
        return x[chosen], targets[chosen], None if (total == 1).all() else total

    def _scored(self) -> Mapping[str, Any]:
        """The metric that early stopping looks at."""
        raise NotImplementedError

    def _parted(self, X: np.ndarray, targets: np.ndarray,
                weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, Any]:
        """(X, y, weights, held out) where early stopping holds a share of the examples out."""
        if not self.early_stopping:
            return X, targets, weights, None
        order = np.random.default_rng(self._seed).permutation(len(X))
        count = int(round(len(X) * self.validation_fraction))
        if not 0 < count < len(X):
            raise ValueError(f"validation_fraction={self.validation_fraction} of {len(X)} examples holds out {count}")
        held, kept = order[:count], np.sort(order[count:])
        return (X[kept], targets[kept], None if weights is None else weights[kept], (X[held], targets[held]))

    # prediction

    def _raw(self, X: Any) -> np.ndarray:
        """What the network says of each example."""
        check_is_fitted(self, "step_")
        X = validate_data(self, X, reset=False, allow_nd=True, dtype=(np.float32, np.float64))
        x = np.ascontiguousarray(X, np.float32)
        if not self.separate_rows:
            return self.step_.predict(x, batch=max(len(x), 1))
        size = next((n for n in PREDICTED if n >= len(x)), PREDICTED[-1])
        parts = [self._padded(x[i:i + size], size) for i in range(0, len(x), size)]
        return np.concatenate(parts)

    def _padded(self, x: np.ndarray, size: int) -> np.ndarray:
        """Of fewer rows than `size`, filled up with zeros, whose predictions are left out."""
        if len(x) == size:
            return self.step_.predict(x, batch=size)
        filled = np.zeros((size, *x.shape[1:]), np.float32)
        filled[:len(x)] = x
        return self.step_.predict(filled, batch=size)[:len(x)]

    def __sklearn_is_fitted__(self) -> bool:
        return "step_" in vars(self)


class TrainedClassifier(ClassifierMixin, TrainedEstimator):
    """Base of classifiers: class ids, probabilities."""

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Any:
        """One epoch on these examples. classes: all that will come, needed at the first call."""
        first = "step_" not in vars(self)
        if first and classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        if not first and classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise ValueError(f"classes={classes!r} is not the same as on the last call, {self.classes_!r}")
        X, y = self._checked(X, y, first)
        self._train(X, self._targets(y, classes, first), sample_weight, 1, first)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The class of each example."""
        best = self._probabilities(X).argmax(axis=1)
        return self.classes_[best]

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of each class, [n, classes], f64."""
        return self._probabilities(X)

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """log of `predict_proba`."""
        return np.log(self._probabilities(X))

    def _probabilities(self, X: Any) -> np.ndarray:
        logits = self._raw(X).astype(np.float64)
        logits = logits.reshape(len(logits), -1)
        if logits.shape[1] == 1:
            logits = np.concatenate([np.zeros_like(logits), logits], axis=1)[:, -len(self.classes_):]
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return odds / odds.sum(axis=1, keepdims=True)

    def _targets(self, y: np.ndarray, classes: Any, first: bool) -> np.ndarray:
        y = _column(y)
        check_classification_targets(y)
        found = np.unique(y) if classes is None else np.unique(classes)
        if first or "classes_" not in vars(self):
            self.classes_ = found
        place = np.searchsorted(self.classes_, y)
        wrong = (place == len(self.classes_)) | (self.classes_[np.minimum(place, len(self.classes_) - 1)] != y)
        if wrong.any():
            raise ValueError(f"y has classes {np.unique(y[wrong])} that are not in {self.classes_}")
        return place.astype(np.int32)

    def _outputs(self, targets: np.ndarray) -> int:
        return len(self.classes_)

    def _loss(self) -> Any:
        return nn.cross_entropy

    def _scored(self) -> Mapping[str, Any]:
        return {"accuracy": gc.metrics.Accuracy()}


class TrainedRegressor(RegressorMixin, TrainedEstimator):
    """Base of regressors: one number for each example, or several."""

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """One epoch on these examples."""
        first = "step_" not in vars(self)
        X, y = self._checked(X, y, first)
        self._train(X, self._targets(y, None, first), sample_weight, 1, first)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The numbers of each example, [n] or [n, outputs], f64."""
        y = self._raw(X).astype(np.float64)
        return y.reshape(len(y)) if self._flat else y.reshape(len(y), -1)

    def _targets(self, y: np.ndarray, classes: Any, first: bool) -> np.ndarray:
        y = np.asarray(y)
        if first:
            self._flat = y.ndim == 1
        with np.errstate(over="ignore"):
            made = y.reshape(len(y), -1).astype(np.float32)
        if not np.isfinite(made).all():
            raise ValueError("Input y contains values too large for float32")
        return made

    def _outputs(self, targets: np.ndarray) -> int:
        return targets.shape[1]

    def _loss(self) -> Any:
        return halved_mse

    def _scored(self) -> Mapping[str, Any]:
        return {"r2": gc.metrics.R2()}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def halved_mse(y: Any, target: Any, *, reduction: str = "mean") -> Any:
    """(y - target)² / 2, as scikit-learn's MLPRegressor minimises it."""
    return nn.mse(y, target, reduction=reduction) * 0.5


def _column(y: np.ndarray) -> np.ndarray:
    """y [n, 1] as [n], with the warning that scikit-learn has for it."""
    from_column = y.ndim == 2 and y.shape[1] == 1
    return column_or_1d(y, warn=True) if from_column else y


class Settled(callbacks.Callback):
    """Ends a run when the training loss has fallen by less than `tol` for `patience` epochs (scikit-learn's rule)."""

    def __init__(self, tol: float, patience: int):
        self.tol, self.patience = tol, patience
        self.best, self.waited = np.inf, 0

    def on_epoch_end(self, run: Any, row: Mapping[str, float]) -> None:
        loss = row["loss"]
        self.waited = self.waited + 1 if loss > self.best - self.tol else 0
        self.best = min(self.best, loss)
        if self.waited > self.patience:
            self.settle(run)

    def settle(self, run: Any) -> None:
        """What happens then."""
        run.stop(f"the loss fell by less than {self.tol} for {self.patience} epochs")


def stopping(metric: str, patience: int, tol: float) -> Sequence[Any]:
    """The callback of early_stopping=True."""
    return [callbacks.EarlyStopping(f"val_{metric}", patience=patience, min_delta=tol, mode="max")]
