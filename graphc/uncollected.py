"""Pauses Python's search for cycles of dead objects: while a graph is made, many objects appear that all live, and it would look at each of
them again and again (a fifth of the compile time of 10,000 nodes).
"""
from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Objects that reference counts free are freed as ever; afterwards the search goes on if it was on before."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
