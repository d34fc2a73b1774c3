"""How large an array may be."""
from __future__ import annotations

from graphc.errors import GraphError, Loc
from graphc.ir.types import TensorType

ROOM = 1 << 56                      # bytes: more than a machine has, and what is computed from it fits into 64 bits
MOST_TOGETHER = 1 << 62             # bytes of all arrays of a program, whose sum is computed in 64 bits


def check_room(what: str, t: TensorType, loc: Loc | None = None) -> None:
    """GraphError if no machine has room for `what`, an array of this type; of named sizes nothing is known yet. One
    without elements is as large as if axes of length 0 had length 1: numpy asks so, too."""
    nbytes = t.dtype.itemsize
    for d in t.shape:
        if d.__class__ is int:
            nbytes *= d or 1
    if nbytes > ROOM:
        raise GraphError(f"{what} is {t}, which is larger than any memory", loc)


def check_bytes(what: str, nbytes: int) -> None:
    """GraphError if no machine has room for so many bytes, which are several arrays together."""
    if nbytes > MOST_TOGETHER:
        raise GraphError(f"{what} takes {nbytes} bytes, which is more than any memory has")
