"""Optimizers as graph functions: from parameters, gradients and slots to new parameters and new slots.

The formulas are those of torch.optim, so that twenty steps of either agree. Step numbers, schedules and bias
corrections are computed in f64 scalars, then converted to the parameter's dtype.
"""
from graphc.dsl.other_names import other_name as _other_name
from graphc.optim.adam import LAMB, Adam, Adamax, AdamW, NAdam, RAdam
from graphc.optim.adaptive import Adadelta, Adafactor, Adagrad, Muon
from graphc.optim.base import Group, Item, Optimizer, Schedule, Slots, as_like, group, no_decay
from graphc.optim.descent import ASGD, SGD, Lion, RMSprop, Rprop
from graphc.optim.schedule import (
    constant, cosine, cosine_restarts, cyclic, exponential, inverse_sqrt, linear, multi_step, one_cycle, polynomial,
    sequential, step_decay, warmup)
from graphc.optim.updates import apply, global_norm


def __getattr__(name: str) -> object:
    return _other_name("optim", name)
