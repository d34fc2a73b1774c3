"""Layers whose parameters stay as they are while others are trained in their stead."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

HELD: ContextVar[bool] = ContextVar("graphc held", default=False)


@contextmanager
def held() -> Iterator[None]:
    """Layers that are called inside keep all their parameters and statistics: nobody trains them."""
    token = HELD.set(True)
    try:
        yield
    finally:
        HELD.reset(token)


def is_held() -> bool:
    return HELD.get()
