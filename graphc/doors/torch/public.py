"""What of the door can be had without PyTorch: functions that load it when they are called."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

from graphc.dsl.context import user_loc
from graphc.dsl.form import formed
from graphc.errors import GraphError
from graphc.nn.module import Module


def door(file: str) -> ModuleType:
    """A file of the door. GraphError without PyTorch."""
    try:
        import_module("graphc.doors.torch.entry")
    except GraphError as absent:
        raise absent.at(user_loc()) from None
    return import_module(f"graphc.doors.torch.{file}")


@formed
def from_torch(module: Any, *example_args: Any, dynamic: Mapping[str, Any] | Sequence[Any] | None = None,
               **example_kwargs: Any) -> Module:
    """A PyTorch module, or a program that torch.export made, as a network: see `graphc.doors.torch.entry`."""
    return door("entry").from_torch(module, *example_args, dynamic=dynamic, **example_kwargs)


@formed
def to_torch(step: Any, module: Any) -> None:
    """Copies parameters and buffers as a training step has them into the module that `gc.from_torch` read: see
    `graphc.doors.torch.transfer`."""
    door("transfer").to_torch(step, module)
