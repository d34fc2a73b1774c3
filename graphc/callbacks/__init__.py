"""What happens between the steps of `step.fit`: stop early, lower the rate, save, log."""
from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from graphc.dsl.other_names import other_name as _other_name
from graphc.callbacks.callback import Callback
from graphc.callbacks.logs import CSVLog
from graphc.callbacks.rate import LearningRate, ReduceOnPlateau
from graphc.callbacks.saving import Checkpoint
from graphc.callbacks.stopping import EarlyStopping

if _TYPE_CHECKING:
    from graphc.callbacks.tensorboard import TensorBoard

_LATER = {"TensorBoard": "graphc.callbacks.tensorboard"}        # its writer may import torch


def __getattr__(name: str) -> _Any:
    if name not in _LATER:
        return _other_name("callbacks", name)
    return getattr(_import_module(_LATER[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
