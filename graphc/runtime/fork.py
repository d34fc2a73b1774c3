"""What must be renewed in the child of a fork: it has one thread, while memory still says what all the parent's threads
were doing."""
from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Protocol


class Renewable(Protocol):
    def after_fork(self) -> None: ...


_things: "weakref.WeakSet[Renewable]" = weakref.WeakSet()
_functions: list[Callable[[], None]] = []


def renew_after_fork(thing: Renewable) -> None:
    """Call `thing.after_fork()` in every child forked while `thing` lives."""
    _things.add(thing)


def call_after_fork(function: Callable[[], None]) -> Callable[[], None]:
    """Decorator: call the module-level `function` in every child."""
    _functions.append(function)
    return function


def _after_fork() -> None:
    for function in _functions:
        function()
    for thing in list(_things):
        thing.after_fork()


os.register_at_fork(after_in_child=_after_fork)
