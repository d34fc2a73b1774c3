"""Any network as an estimator."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from sklearn.utils.class_weight import compute_sample_weight

from graphc import nn, optim
from graphc.doors.sklearn.estimator import Settled, TrainedClassifier, TrainedRegressor, stopping

Net = nn.Module | Callable[[int], nn.Module]


class NetworkSettings:
    """The arguments of `NetworkClassifier` and `NetworkRegressor`, and what follows from them."""
    separate_rows: ClassVar[bool] = False
    _scored: Callable[[], Mapping[str, Any]]            # of the estimator that it is a part of

    def __init__(self, net: Net, *, optimizer: optim.Optimizer | None = None, loss: Any = None, epochs: int = 100,
                 batch_size: int = 64, class_weight: Any = None, early_stopping: bool = False,
                 validation_fraction: float = 0.1, n_iter_no_change: int = 10, tol: float = 1e-4, shuffle: bool = True,
                 random_state: Any = None, warm_start: bool = False, verbose: bool = False,
                 callbacks: Any = None):
        self.net, self.optimizer, self.loss, self.epochs = net, optimizer, loss, epochs
        self.batch_size, self.class_weight, self.early_stopping = batch_size, class_weight, early_stopping
        self.validation_fraction, self.n_iter_no_change, self.tol = validation_fraction, n_iter_no_change, tol
        self.shuffle, self.random_state, self.warm_start = shuffle, random_state, warm_start
        self.verbose, self.callbacks = verbose, callbacks

    def _network(self, outputs: int) -> nn.Module:
        """A network of the estimator's own: fitting never changes an argument."""
        return self.net.fresh_copy() if isinstance(self.net, nn.Module) else self.net(outputs)

    def _optimizer(self, batch: float) -> optim.Optimizer:
        return optim.AdamW(1e-3) if self.optimizer is None else self.optimizer

    def _epochs(self) -> int:
        return self.epochs

    def _batch(self, count: int) -> int:
        return min(self.batch_size, count)

    def _loss(self) -> Any:
        return super()._loss() if self.loss is None else self.loss      # type: ignore[misc]

    def _callbacks(self, count: int) -> list[Any]:
        own = list(self.callbacks or ())
        if self.early_stopping:
            name, = self._scored()
            return [*own, *stopping(name, self.n_iter_no_change, self.tol)]
        return [*own, Settled(self.tol, self.n_iter_no_change)]


class NetworkClassifier(NetworkSettings, TrainedClassifier):
    """A classifier around a network that gives a logit for each class (of two classes one logit is not enough).

    net: the network, or a function of the number of classes that makes it, `lambda classes: nn.Linear(64) >> nn.relu >>
    nn.Linear(classes)`; each fit trains a fresh copy. optimizer: of graphc.optim (default AdamW(1e-3)); loss: default
    nn.cross_entropy; epochs: at most so many, fewer if the training loss settles, or, with early_stopping, the accuracy
    on a share of the examples held out, of whose best epoch the weights are kept. class_weight: {class: weight} or
    "balanced". `callbacks`: of gc.callbacks.
    """

    def _train(self, X: Any, targets: Any, sample_weight: Any, epochs: int, first: bool) -> None:
        if self.class_weight is not None:
            own = compute_sample_weight(self.class_weight, self.classes_[targets])
            sample_weight = own if sample_weight is None else own * sample_weight
        super()._train(X, targets, sample_weight, epochs, first)


class NetworkRegressor(NetworkSettings, TrainedRegressor):
    """A regressor around a network that gives a number for each example, [n, 1], or several, [n, outputs]. Arguments as
    of `NetworkClassifier`, where `net` may be a function of the number of outputs; loss: default half the mean squared
    error; early stopping looks at R²."""

    def __init__(self, net: Net, *, optimizer: optim.Optimizer | None = None, loss: Any = None, epochs: int = 100,
                 batch_size: int = 64, early_stopping: bool = False, validation_fraction: float = 0.1,
                 n_iter_no_change: int = 10, tol: float = 1e-4, shuffle: bool = True, random_state: Any = None,
                 warm_start: bool = False, verbose: bool = False, callbacks: Any = None):
        self.net, self.optimizer, self.loss, self.epochs = net, optimizer, loss, epochs
        self.batch_size, self.early_stopping = batch_size, early_stopping
        self.validation_fraction, self.n_iter_no_change, self.tol = validation_fraction, n_iter_no_change, tol
        self.shuffle, self.random_state, self.warm_start = shuffle, random_state, warm_start
        self.verbose, self.callbacks = verbose, callbacks
