"""Optimizers as graph functions: from parameters, gradients and slots to new parameters and new slots.

The formulas are those of torch.optim, so that twenty steps of either agree. Step numbers, schedules and bias
corrections are computed in f64 scalars, then converted to the parameter's dtype.
"""
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from graphc.dsl.other_names import other_name as _other_name
from graphc.once import loaded as _loaded
from graphc.optim.adam import Adam, AdamW
from graphc.optim.base import (
    Group, Item, Optimizer, Schedule, Slots, as_like, group, hyperparameters, is_schedule, no_decay)
from graphc.optim.descent import SGD, RMSprop
from graphc.optim.schedule import (
    constant, cosine, cosine_restarts, cyclic, exponential, inverse_sqrt, linear, multi_step, one_cycle, polynomial,
    schedule, sequential, step_decay, warmup)
from graphc.optim.updates import apply, global_norm

if _TYPE_CHECKING:
    from graphc.optim.adaptive import Adadelta, Adafactor, Adagrad, Muon
    from graphc.optim.corrected import LAMB, Adamax, NAdam, RAdam
    from graphc.optim.foreign import from_torch
    from graphc.optim.quasi_newton import LBFGS
    from graphc.optim.schedule_free import ScheduleFreeAdamW, ScheduleFreeSGD, averages
    from graphc.optim.signs import ASGD, Lion, Rprop

_LATER = {name: f"graphc.optim.{file}" for file, names in {           # loaded at the first use
    "adaptive": "Adadelta Adafactor Adagrad Muon", "corrected": "Adamax LAMB NAdam RAdam",
    "schedule_free": "ScheduleFreeAdamW ScheduleFreeSGD averages",
    "quasi_newton": "LBFGS", "foreign": "from_torch", "signs": "ASGD Lion Rprop"}.items() for name in names.split()}


def __getattr__(name: str) -> _Any:
    if name not in _LATER:
        return _other_name("optim", name)
    return globals().setdefault(name, _loaded(_LATER[name], name))


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
