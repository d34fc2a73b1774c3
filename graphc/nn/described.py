"""A network as text that says all that its graph depends on, where that can be said: of graphc's own layers and plain
values."""
from __future__ import annotations

from dataclasses import fields, is_dataclass

from graphc.errors import Loc
from graphc.ir.types import DType
from graphc.nn.module import Module

PLAIN = (type(None), bool, int, float, str)
OWN = "graphc."
IGNORED = {"_parameters", "_original"}          # what calls have made, and where first values come from


class _Unknown(Exception):
    """A value of which nobody knows what a layer makes of it."""


def description(root: Module) -> str | None:
    """Equal texts: equal graphs for equal arguments, of this version of graphc. None where something in the network is
    a function, an array, or of a class that is not graphc's."""
    try:
        return _Walk().text(root)
    except _Unknown:
        return None


class _Walk:
    """What occurs twice has a number from then on: that a layer is shared matters."""

    def __init__(self) -> None:
        self.numbers: dict[int, int] = {}

    def text(self, value: object) -> str:
        if type(value) in PLAIN:
            return repr(value)
        if isinstance(value, (list, tuple)):
            return f"{type(value).__name__}({','.join(map(self.text, value))})"
        if isinstance(value, dict):
            return f"{{{','.join(f'{self.text(k)}:{self.text(v)}' for k, v in value.items())}}}"
        kind = type(value)
        if not kind.__module__.startswith(OWN):
            raise _Unknown
        if id(value) in self.numbers:
            return f"#{self.numbers[id(value)]}"
        self.numbers[id(value)] = len(self.numbers)
        if isinstance(value, (DType, Loc)):
            return repr(value)
        return f"{kind.__module__}.{kind.__qualname__}({','.join(self._parts(value))})"

    def _parts(self, value: object) -> list[str]:
        if isinstance(value, Module):
            return [f"{name}={self.text(own)}" for name, own in vars(value).items() if name not in IGNORED]
        if is_dataclass(value):
            return [self.text(getattr(value, field.name)) for field in fields(value)]
        raise _Unknown
