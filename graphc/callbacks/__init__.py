"""What happens between the steps of `step.fit`: stop early, lower the rate, save, log."""
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from graphc.dsl.other_names import other_name as _other_name
from graphc.callbacks.callback import Callback
from graphc.callbacks.logs import CSVLog
from graphc.callbacks.rate import LearningRate, ReduceOnPlateau
from graphc.callbacks.saving import Checkpoint
from graphc.callbacks.stopping import EarlyStopping
from graphc.once import loaded as _loaded

if _TYPE_CHECKING:
    from graphc.callbacks.tensorboard import TensorBoard

_LATER = {"TensorBoard": "graphc.callbacks.tensorboard"}        # its writer may import torch


def __getattr__(name: str) -> _Any:
    if name not in _LATER:
        return _other_name("callbacks", name)
    return _loaded(_LATER[name], name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
