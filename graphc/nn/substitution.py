"""Arrays in the place of a network's parameters: functional calls."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from graphc.dsl.array import Array

if TYPE_CHECKING:
    from graphc.nn.module import Module

PARAMS = "params"                   # the option of a call

# of the functional calls that run: the layer that was called, what stands for its parameters, and the names used so far
CALLS: ContextVar[tuple[tuple[Module, Mapping[str, Array], set[str]], ...]] = ContextVar("graphc params", default=())


@contextmanager
def substituted(root: Module, given: Mapping[str, Array]) -> Iterator[set[str]]:
    """`given`, by path within `root`, stands for its parameters inside; gives the names that were asked for so far."""
    used: set[str] = set()
    token = CALLS.set((*CALLS.get(), (root, given, used)))
    try:
        yield used
    finally:
        CALLS.reset(token)


def substitute(module: Module, name: str) -> Array | None:
    """What stands for the parameter `name` of the layer; None if it is the layer's own."""
    for root, given, used in reversed(CALLS.get()):
        for path, inner in root.named_modules():
            full = f"{path}.{name}" if path else name
            if inner is module and full in given:
                used.add(full)
                return given[full]
    return None
