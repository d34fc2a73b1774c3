"""scikit-learn's MLPClassifier and MLPRegressor, with its arguments and rules, as native training steps."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np

from graphc import nn, optim
from graphc.doors.sklearn.estimator import Settled, TrainedClassifier, TrainedRegressor, stopping
from graphc.errors import GraphError

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

    def __init__(self, hidden_layer_sizes: Any = (100,), activation: str = "relu", *, solver: str = "adam",
                 alpha: float = 0.0001, batch_size: int | str = "auto", learning_rate: str = "constant",
                 learning_rate_init: float = 0.001, power_t: float = 0.5, max_iter: int = 200, shuffle: bool = True,
                 random_state: Any = None, tol: float = 1e-4, verbose: bool = False, warm_start: bool = False,
                 momentum: float = 0.9, nesterovs_momentum: bool = True, early_stopping: bool = False,
                 validation_fraction: float = 0.1, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-8,
                 n_iter_no_change: int = 10, max_fun: int = 15000):
        self.hidden_layer_sizes, self.activation, self.solver, self.alpha = hidden_layer_sizes, activation, solver, alpha
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
        factor, between, net = 2.0 if self.activation == "logistic" else 6.0, ACTIVATIONS[self.activation], None
        sizes = [*self._sizes(), outputs]
        for fan_in, fan_out in zip([self._features(), *sizes], sizes):
            start = FanUniform(sqrt(factor / (fan_in + fan_out)))
            layer = nn.Linear(fan_out, init=start, bias_init=start)
            before = net if net is None or between is None else net >> between
            net = layer if before is None else before >> layer
        return net if isinstance(net, nn.Sequential) else nn.Sequential(net)    # so that names are alike: 0.weight

    def _features(self) -> int:
        return self.n_features_in_                                  # type: ignore[attr-defined]

    def _optimizer(self, batch: float) -> optim.Optimizer:
        """alpha / 2 times the squares of the weights is added to the loss of a batch, divided by its examples."""
        decay: dict[str, Any] = {"weight_decay": self.alpha / batch, "groups": [optim.no_decay()]}
        if self.solver == "adam":
            return optim.Adam(self.learning_rate_init, betas=(self.beta_1, self.beta_2), eps=self.epsilon, **decay)
        if self.solver != "sgd":
            raise GraphError(f"solver={self.solver!r}: here are \"adam\" and \"sgd\"; lbfgs is scikit-learn's alone")
        if self.learning_rate not in ("constant", "adaptive", "invscaling"):
            raise ValueError(f"learning_rate={self.learning_rate!r} is not one of constant, adaptive, invscaling")
        rate: Any = self.learning_rate_init
        if self.learning_rate == "invscaling":
            rate = InverseScaling(self.learning_rate_init, batch, self.power_t)
        return optim.SGD(rate, momentum=self.momentum, nesterov=self.nesterovs_momentum, **decay)

    def _epochs(self) -> int:
        return self.max_iter

    def _batch(self, count: int) -> int:
        return min(200 if isinstance(self.batch_size, str) else self.batch_size, count)

    def _callbacks(self) -> list[Any]:
        if self.early_stopping:
            name, = self._scored()                                      # type: ignore[attr-defined]
            return list(stopping(name, self.n_iter_no_change, self.tol))
        adaptive = self.solver == "sgd" and self.learning_rate == "adaptive"
        return [(Fifth if adaptive else Settled)(self.tol, self.n_iter_no_change)]

    @property
    def loss_curve_(self) -> list[float]:
        """The loss of every epoch."""
        return self.history_["loss"]                                    # type: ignore[attr-defined]

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
        weights = self.step_.weights()                                  # type: ignore[attr-defined]
        return [a.T for name, a in weights.items() if name.endswith("weight")]

    @property
    def intercepts_(self) -> list[np.ndarray]:
        """The biases of each layer."""
        weights = self.step_.weights()                                  # type: ignore[attr-defined]
        return [a for name, a in weights.items() if name.endswith("bias")]

    @property
    def n_layers_(self) -> int:
        """Layers, those of inputs and outputs included."""
        return len(self._sizes()) + 2


@dataclass(frozen=True)
class InverseScaling:
    """lr / (examples seen + 1)^power, the learning_rate="invscaling"."""
    lr: float
    batch: float
    power: float

    def __call__(self, step: Any) -> Any:
        return self.lr / (step * float(self.batch) + 1.0) ** self.power


class MLPClassifier(MLPSettings, TrainedClassifier):
    """scikit-learn's MLPClassifier: same arguments and rules, several times as fast, trained in f32. solver: "adam" or
    "sgd". With sample weights the mean loss of a batch is the weighted one."""


class MLPRegressor(MLPSettings, TrainedRegressor):
    """scikit-learn's MLPRegressor: as `MLPClassifier`, minimises half the mean squared error."""
