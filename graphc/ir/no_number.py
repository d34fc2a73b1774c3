"""A size that has a name, asked for its number: the error says what would be right, at whatever asks."""
from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from graphc.errors import Unsized

NOT_YET = ("a size that has a name is not known while the graph is traced; give it as an int, or bind it first. Means "
           "are gc.mean, loops gc.scan")
ASKED = ("sqrt", "exp", "log", "log2", "log10")         # numpy calls these functions on objects, by name


def unknown(wanted: str) -> Unsized:
    """The error for what needs the number."""
    return Unsized(f"{wanted}: {NOT_YET}")


class NoNumber:
    """What of arithmetic needs the number: Python and numpy say `TypeError` where an object has no such method."""

    def __index__(self) -> NoReturn:
        raise unknown(f"{self} as a number")

    __int__ = __float__ = __round__ = __trunc__ = __floor__ = __ceil__ = __index__

    def __getattr__(self, name: str) -> Callable[[], NoReturn]:
        if name in ASKED:
            return self.__index__
        raise AttributeError(f"a size has no {name}", name=name, obj=self)

    def __truediv__(self, other: object) -> NoReturn:
        raise unknown(f"{self} / {other}")

    def __rtruediv__(self, other: object) -> NoReturn:
        raise unknown(f"{other} / {self}")

    def __rfloordiv__(self, other: object) -> NoReturn:
        raise unknown(f"{other} // {self}")

    def __rmod__(self, other: object) -> NoReturn:
        raise unknown(f"{other} % {self}")

    def __pow__(self, other: object) -> NoReturn:
        raise unknown(f"{self} ** {other}")

    def __rpow__(self, other: object) -> NoReturn:
        raise unknown(f"{other} ** {self}")
