"""Whatever a trace or a compile changes outside itself is restored when it ends, also if an exception arrives between
two steps of Python (Ctrl-C may).

It changes two things. Context variables say which trace is running and which layer is called, so each operation gets a
context of its own. And Python's garbage collector is paused: a graph under construction is many objects that all stay
alive, and the collector would visit them again and again (a fifth of the compile time of 10,000 nodes).
"""
from __future__ import annotations

import gc
from collections.abc import Callable
from contextvars import copy_context
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def contained(function: Callable[P, T]) -> Callable[P, T]:
    """Decorator: pauses the garbage collector during a call, if it was on, and restores context variables
    afterwards."""
    @wraps(function)
    def call(*arguments: P.args, **named: P.kwargs) -> T:
        was_on = gc.isenabled()
        try:
            return copy_context().run(_paused, function, arguments, named, was_on)
        finally:
            if was_on:              # again: an exception may have come just before `_paused` did it
                gc.enable()
    return call


def _paused(function: Callable[..., T], arguments: tuple[object, ...], named: dict[str, object], was_on: bool) -> T:
    try:
        gc.disable()
        return function(*arguments, **named)
    finally:
        if was_on:
            gc.enable()
