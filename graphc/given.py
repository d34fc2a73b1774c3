"""What callers give, as the int that it is and as a message shows it. Whatever they give: asking it may raise
anything."""
from __future__ import annotations

from operator import index

import numpy as np

from graphc.errors import GraphError, Loc

LARGEST = 2 ** 63 - 1               # sizes, positions and counts are held in 64 bits
SHOWN = 60                          # characters of a wrong value in a message


def integer(value: object, what: str, low: int | None = None, high: int = LARGEST, loc: Loc | None = None) -> int:
    """`value` as an int in [low, high]; `what` begins the message otherwise. numpy's integers are integers, bools are
    none."""
    number = value if type(value) is int else _index(value)
    if number is None or number > high or number < (-LARGEST if low is None else low):
        raise GraphError(f"{what} is {_wanted(low, high)}, got {shown(value)}", loc)
    return number


def shown(value: object, most: int = SHOWN) -> str:
    """`value` as a message shows it, in at most so many characters."""
    try:
        text = repr(value)
    except Exception:               # a repr of the user's own, or an int of more digits than Python prints
        return f"a {type(value).__name__}"
    return text if len(text) <= most else f"{text[:most - 3]}..."


def _index(value: object) -> int | None:
    if isinstance(value, (bool, np.bool_, str)):
        return None
    try:
        return int.__int__(index(value))            # type: ignore[arg-type]
    except GraphError:              # of an array of a graph, which says more
        raise
    except Exception:               # __index__ may be the user's own
        return None


def _wanted(low: int | None, high: int) -> str:
    if low is None:
        return "an int" if high == LARGEST else f"an int <= {high}"
    return f"an int >= {low}" if high == LARGEST else f"an int from {low} to {high}"
