"""scikit-learn's MLPClassifier and MLPRegressor, with its arguments and rules, as native training steps."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import sqrt
from typing import Any

import numpy as np

import graphc as gc
from graphc import callbacks, nn, optim
from graphc.doors.sklearn.estimator import Settled, TrainedClassifier, TrainedRegressor, stopping
from graphc.errors import GraphError
from graphc.records import dataclass

ACTIVATIONS: dict[str, Callable[..., Any] | None] = {
    "identity": None, "logistic": nn.sigmoid, "tanh": nn.tanh, "relu": nn.relu}
LEAST_RATE = 1e-6                   # below which learning_rate="adaptive" stops


@dataclass(frozen=True)
class FanUniform:
    """Uniform within sqrt(factor / (inputs + outputs)), weights and biases alike (Glorot and Bengio 2010)."""
    bound: float

    def __call__(self, random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return random.uniform(-self.bound, self.bound, shape)


class Fifth(Settled):
    """learning_rate="adaptive": divides the rate by 5 where a constant rate would stop; stops when it is tiny."""

    def settle(self, run: Any) -> None:
        if run.step.lr <= LEAST_RATE:
            super().settle(run)
        run.step.lr, self.waited = run.step.lr / 5, 0


class MLPSettings:
    """The arguments of scikit-learn's MLPs, and what follows from them."""
    # of the estimator that it is a part of
    n_features_in_: int
    t_: int
    step_: Any
    history_: Any
    _scored: Callable[[], Mapping[str, Any]]

    def __init__(self, hidden_layer_sizes: Any = (100,), activation: str = "relu", *, solver: str = "adam",
                 alpha: float = 0.0001, batch_size: int | str = "auto", learning_rate: str = "constant",
                 learning_rate_init: float = 0.001, power_t: float = 0.5, max_iter: int = 200, shuffle: bool = True,
                 random_state: Any = None, tol: float = 1e-4, verbose: bool = False, warm_start: bool = False,
                 momentum: float = 0.9, nesterovs_momentum: bool = True, early_stopping: bool = False,
                 validation_fraction: float = 0.1, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-8,
                 n_iter_no_change: int = 10, max_fun: int = 15000):
        self.hidden_layer_sizes, self.activation = hidden_layer_sizes, activation
        self.solver, self.alpha = solver, alpha
        self.batch_size, self.learning_rate, self.learning_rate_init = batch_size, learning_rate, learning_rate_init
        self.power_t, self.max_iter, self.shuffle, self.random_state = power_t, max_iter, shuffle, random_state
        self.tol, self.verbose, self.warm_start, self.momentum = tol, verbose, warm_start, momentum
        self.nesterovs_momentum, self.early_stopping = nesterovs_momentum, early_stopping
        self.validation_fraction, self.beta_1, self.beta_2 = validation_fraction, beta_1, beta_2
        self.epsilon, self.n_iter_no_change, self.max_fun = epsilon, n_iter_no_change, max_fun

    def _sizes(self) -> list[int]:
        given = self.hidden_layer_sizes
        sizes = [int(n) for n in (given if isinstance(given, (Sequence, np.ndarray)) else [given])]
        if any(n <= 0 for n in sizes):
            raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
        return sizes

    def _network(self, outputs: int) -> nn.Module:
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation={self.activation!r} is not one of {', '.join(ACTIVATIONS)}")
        factor, between = 2.0 if self.activation == "logistic" else 6.0, ACTIVATIONS[self.activation]
        sizes, parts = [*self._sizes(), outputs], list[Callable[..., Any]]()
        for fan_in, fan_out in zip([self._features(), *sizes], sizes):
            start = FanUniform(sqrt(factor / (fan_in + fan_out)))
            parts += [between] if parts and between else []
            parts.append(nn.Linear(fan_out, init=start, bias_init=start))
        return nn.Sequential(*parts)

    def _features(self) -> int:
        return self.n_features_in_

    def _optimizer(self, batch: float) -> optim.Optimizer:
        """alpha / 2 times the squares of the weights is added to the loss of a batch, divided by its examples."""
        decay: dict[str, Any] = {"weight_decay": self.alpha / batch, "groups": [optim.no_decay()]}
        if self.solver == "adam":
            return optim.Adam(self.learning_rate_init, betas=(self.beta_1, self.beta_2), eps=self.epsilon, **decay)
        if self.solver != "sgd":
            raise GraphError(f"solver={self.solver!r}: here are \"adam\" and \"sgd\"; lbfgs is scikit-learn's alone")
        if self.learning_rate not in ("constant", "adaptive", "invscaling"):
            raise ValueError(f"learning_rate={self.learning_rate!r} is not one of constant, adaptive, invscaling")
        return optim.SGD(self.learning_rate_init, momentum=self.momentum, nesterov=self.nesterovs_momentum, **decay)

    def _epochs(self) -> int:
        return self.max_iter

    def _batch(self, count: int) -> int:
        return min(200 if isinstance(self.batch_size, str) else self.batch_size, count)

    def _callbacks(self, count: int) -> list[Any]:
        rate = self.learning_rate if self.solver == "sgd" else "constant"
        seen = self.t_
        own = [InverseScaling(self.learning_rate_init, self.power_t, seen, count)] if rate == "invscaling" else []
        if self.early_stopping:
            name, = self._scored()
            return [*own, *stopping(name, self.n_iter_no_change, self.tol)]
        return [*own, (Fifth if rate == "adaptive" else Settled)(self.tol, self.n_iter_no_change)]

    @property
    def loss_curve_(self) -> list[float]:
        """The loss of every epoch."""
        return self.history_["loss"]

    @property
    def loss_(self) -> float:
        """The loss of the last epoch."""
        return self.loss_curve_[-1]

    @property
    def best_loss_(self) -> float | None:
        """The least loss of an epoch; None with early stopping."""
        return None if self.early_stopping else min(self.loss_curve_)

    @property
    def coefs_(self) -> list[np.ndarray]:
        """The weights of each layer, [inputs, outputs]."""
        weights = self.step_.weights()
        return [a.T for name, a in weights.items() if name.endswith("weight")]

    @property
    def intercepts_(self) -> list[np.ndarray]:
        """The biases of each layer."""
        weights = self.step_.weights()
        return [a for name, a in weights.items() if name.endswith("bias")]

    @property
    def n_layers_(self) -> int:
        """Layers, those of inputs and outputs included."""
        return len(self._sizes()) + 2


def of_one_logit(logits: Any, target: Any, *, reduction: str = "mean") -> Any:
    """Binary cross entropy of logits [n, 1] and classes [n], 0 or 1."""
    return nn.bce(logits[:, 0], target.astype(gc.f32), reduction=reduction)


class InverseScaling(callbacks.Callback):
    """learning_rate="invscaling": in each epoch lr / (examples seen before + 1)^power."""

    def __init__(self, lr: float, power: float, seen: int, count: int):
        self.lr, self.power, self.seen, self.count = lr, power, seen, count

    def on_epoch_begin(self, run: Any) -> None:
        run.step.lr = self.lr / (self.seen + run.epoch * self.count + 1) ** self.power


class MLPClassifier(MLPSettings, TrainedClassifier):
    """scikit-learn's MLPClassifier: same arguments and rules, several times as fast, trained in f32. solver: "adam" or
    "sgd". Two classes have one logit. With sample weights the mean loss of a batch is the weighted one; `loss_` is
    without the penalty of alpha."""

    def _outputs(self, targets: np.ndarray) -> int:
        return 1 if len(self.classes_) == 2 else len(self.classes_)

    def _loss(self) -> Any:
        return of_one_logit if self.n_outputs_ == 1 and len(self.classes_) == 2 else nn.cross_entropy


class MLPRegressor(MLPSettings, TrainedRegressor):
    """scikit-learn's MLPRegressor: as `MLPClassifier`, minimises half the mean squared error."""
