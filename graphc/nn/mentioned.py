"""What a plain function refers to, read from its code: layers among it are part of the network."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from types import CellType, CodeType, FunctionType
from typing import Any


def in_same_file(function: Callable[..., Any], value: object) -> bool:
    """Whether `value` is another function of the same file."""
    return isinstance(value, FunctionType) and value is not function and value.__globals__ is function.__globals__


def mentioned_variables(function: Callable[..., Any]) -> dict[str, object]:
    """The values of its closure, of its keyword defaults, and of the globals that it mentions, by name."""
    code = getattr(function, "__code__", None)
    if code is None:
        return {}
    cells = {n: c.cell_contents for n, c in zip(code.co_freevars, function.__closure__ or ()) if _filled(c)}
    names = {n: function.__globals__[n] for n in _names(code) if n in function.__globals__}
    return names | cells | (function.__kwdefaults__ or {})


def _names(code: CodeType) -> Iterator[str]:
    """Global names in the code, and in functions defined within it, in order of mention."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _filled(cell: CellType) -> bool:
    try:
        cell.cell_contents
    except ValueError:
        return False
    return True
