"""What a user writes as a number, a switch, a word or a list, as Python's own kind of it. Every public function converts here.

numpy's scalars and its arrays without axes count as the Python numbers that they hold; True and False are no numbers here. What does not fit
is a GraphError that says what was wanted: the objects given may be anything, so whatever they raise when asked for a number is that error too.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import index

import numpy as np

from graphc.errors import GraphError

LARGEST = 2 ** 63 - 1               # sizes, positions and counts are held in 64 bits
SHOWN = 60                          # characters of a wrong value in a message


def is_integer(value) -> bool:
    """Whether `value` is a whole number by its type; bools are not."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_number(value) -> bool:
    """Whether `value` is a number of Python or numpy, and no array: what takes the dtype of the array beside it."""
    return isinstance(value, (int, float, np.integer, np.floating, np.bool_))


def integer(value, what: str, low: int | None = None, high: int = LARGEST) -> int:
    """`value` as an int in [low, high]; `what` begins the message otherwise."""
    if type(value) is not int:
        value = _index(value, what, low)
    if value > high or value < (-LARGEST if low is None else low):
        raise GraphError(f"{what} is {_wanted('an int', low)}{'' if high == LARGEST else f' and <= {high}'}, got {shown(value)}")
    return value


def real(value, what: str) -> float:
    """`value` as a float (nan and infinities are floats)."""
    if type(value) is float:
        return value
    try:
        if isinstance(value, (str, bytes, bool, np.bool_)) or (isinstance(value, (np.generic, np.ndarray)) and not _is_real(value)) or hasattr(value, "mask"):
            raise TypeError
        return float(value)
    except GraphError:
        raise
    except Exception:               # anything: __float__ may be the user's own
        raise GraphError(f"{what} is a number, got {shown(value)}") from None


def number(value, what: str) -> int | float:
    """`value` as an int if it is a whole number by its type, else as a float."""
    return integer(value, what) if is_integer(value) or _is_whole(value) else real(value, what)


def flag(value, what: str) -> bool:
    """`value` as a bool; 0 and 1 are refused like all else, since a number in the place of a switch is an argument in the wrong place."""
    if not isinstance(value, (bool, np.bool_)):
        raise GraphError(f"{what} is True or False, got {shown(value)}")
    return bool(value)


def choice(value, what: str, allowed: Sequence[str]) -> str:
    """`value`, which is one of the words `allowed`."""
    if not isinstance(value, str) or value not in allowed:
        raise GraphError(f"{what} is one of {', '.join(allowed)}, got {shown(value)}")
    return value


def items(value, what: str) -> list:
    """The items of a tuple, list, range, or numpy array with axes."""
    if isinstance(value, (tuple, list, range)) or (isinstance(value, np.ndarray) and value.ndim):
        return list(value)
    raise GraphError(f"{what} is a tuple or list, got {shown(value)}")


def is_sequence(value) -> bool:
    """Whether `items` takes it."""
    return isinstance(value, (tuple, list, range)) or (isinstance(value, np.ndarray) and value.ndim > 0)


def integers(value, what: str, count: int, low: int | None = None) -> tuple[int, ...]:
    """`count` ints: so many items, or one int for all."""
    if not is_sequence(value):
        return (integer(value, what, low),) * count
    if len(value) != count:
        raise GraphError(f"{what} is an int{'' if count == 1 else f' or {count} of them'}, got {shown(value)}")
    return tuple(integer(v, what, low) for v in value)


def callable_(value, what: str) -> Callable:
    """`value`, which can be called."""
    if not callable(value):
        raise GraphError(f"{what} is a function, got {shown(value)}")
    return value


def shown(value, most: int = SHOWN) -> str:
    """`value` as a message shows it, in at most so many characters."""
    try:
        text = repr(value)
    except Exception:               # a repr of the user's own, or an int of more digits than Python prints
        return f"a {type(value).__name__}"
    return text if len(text) <= most else f"{text[:most - 3]}..."


def _index(value, what: str, low: int | None) -> int:
    try:
        if isinstance(value, (bool, np.bool_, str)):
            raise TypeError
        return int.__int__(index(value))
    except GraphError:
        raise
    except Exception:               # anything: __index__ may be the user's own
        raise GraphError(f"{what} is {_wanted('an int', low)}, got {shown(value)}") from None


def _wanted(kind: str, low: int | None) -> str:
    return kind if low is None else f"{kind} >= {low}"


def _is_real(value) -> bool:
    return value.dtype.kind in "iuf" and value.ndim == 0


def _is_whole(value) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "iu" and value.ndim == 0
