"""What a user writes as a number, a switch, a word or a list, as Python's own kind of it. Every public function
converts here.

numpy's scalars and its arrays without axes count as the Python numbers that they hold; True and False are no numbers
here. What does not fit is a GraphError that says what was wanted: the objects given may be anything,
so whatever they raise when asked for a number is that error too. (`integer` and `shown` are those of `given.py`.)
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import numpy as np

from graphc.errors import GraphError
from graphc.given import integer as integer
from graphc.given import shown as shown


def is_integer(value: object) -> TypeGuard[int | np.integer]:
    """Whether `value` is a whole number by its type; bools are not."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether `value` is a number of Python or numpy, and no array: what takes the dtype of the array beside it."""
    return isinstance(value, (int, float, np.integer, np.floating, np.bool_))


def real(value: Any, what: str) -> float:
    """`value` as a float (nan and infinities are floats)."""
    if type(value) is float:
        return value
    try:
        if (isinstance(value, (str, bytes, bool, np.bool_))
            or (isinstance(value, (np.generic, np.ndarray)) and not _is_real(value)) or hasattr(value, "mask")):
            raise TypeError
        return float(value)
    except GraphError:
        raise
    except Exception:               # anything: __float__ may be the user's own
        raise GraphError(f"{what} is a number, got {shown(value)}") from None


def number(value: object, what: str) -> int | float:
    """`value` as an int if it is a whole number by its type, else as a float."""
    return integer(value, what) if is_integer(value) or _is_whole(value) else real(value, what)


def flag(value: object, what: str) -> bool:
    """`value` as a bool; 0 and 1 are refused like all else, since a number in the place of a switch is an argument in
    the wrong place."""
    if not isinstance(value, (bool, np.bool_)):
        raise GraphError(f"{what} is True or False, got {shown(value)}")
    return bool(value)


def choice(value: object, what: str, allowed: Sequence[str]) -> str:
    """`value`, which is one of the words `allowed`."""
    if not isinstance(value, str) or value not in allowed:
        raise GraphError(f"{what} is one of {', '.join(allowed)}, got {shown(value)}")
    return value


def items(value: object, what: str) -> list[Any]:
    """The items of a tuple, list, range, or numpy array with axes."""
    if isinstance(value, (tuple, list, range)) or (isinstance(value, np.ndarray) and value.ndim):
        return list(value)
    raise GraphError(f"{what} is a tuple or list, got {shown(value)}")


def is_sequence(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether `items` takes it."""
    return isinstance(value, (tuple, list, range)) or (isinstance(value, np.ndarray) and value.ndim > 0)


def integers(value: object, what: str, count: int, low: int | None = None) -> tuple[int, ...]:
    """`count` ints: so many items, or one int for all."""
    if not is_sequence(value):
        return (integer(value, what, low),) * count
    if len(value) != count:
        raise GraphError(f"{what} is an int{'' if count == 1 else f' or {count} of them'}, got {shown(value)}")
    return tuple(integer(v, what, low) for v in value)


def callable_(value: object, what: str) -> Callable[..., Any]:
    """`value`, which can be called."""
    if not callable(value):
        raise GraphError(f"{what} is a function, got {shown(value)}")
    return value


def _is_real(value: np.generic | np.ndarray) -> bool:
    return value.dtype.kind in "iuf" and value.ndim == 0


def _is_whole(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "iu" and value.ndim == 0
