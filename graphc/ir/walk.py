"""Walks over deep graphs: without recursion, and each value is visited once, however many paths lead to it."""
from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def resolve(root: K, known: dict[K, V], needs: Callable[[K], Iterable[K]], make: Callable[[K], V]) -> V:
    """`known[root]`; what is missing is made after all that it `needs`, each once, and kept in `known`.

    Recursion with a memory, written as a loop: Python's stack bounds no graph, and a value that many paths reach costs
    no more than one.
    """
    waiting = [root]
    while waiting:
        key = waiting[-1]
        missing = () if key in known else [k for k in needs(key) if k not in known]
        if missing:
            waiting += missing
            continue
        if key not in known:
            known[key] = make(key)
        waiting.pop()
    return known[root]
