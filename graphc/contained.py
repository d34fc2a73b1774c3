"""What a trace or a compile changes around it ends with it, also where an exception arrives between two steps of Python (Ctrl-C may, anywhere).

Two things are changed. Context variables say which trace is running, which layer is called: an operation has a context of its own. And Python's
search for cycles of dead objects pauses: while a graph is made, many objects appear that all live, and it would look at each of them again and
again (a fifth of the compile time of 10,000 nodes).
"""
from __future__ import annotations

import gc
from collections.abc import Callable
from contextvars import copy_context
from functools import wraps


def contained(function: Callable) -> Callable:
    """Decorator: the search for cycles pauses during a call, and goes on afterwards if it was on before; context variables are afterwards as
    before."""
    @wraps(function)
    def call(*arguments, **named):
        was_on = gc.isenabled()
        try:
            return copy_context().run(_paused, function, arguments, named, was_on)
        finally:
            if was_on:              # again: an exception may have come just before `_paused` did it
                gc.enable()
    return call


def _paused(function: Callable, arguments: tuple, named: dict, was_on: bool):
    try:
        gc.disable()
        return function(*arguments, **named)
    finally:
        if was_on:
            gc.enable()
