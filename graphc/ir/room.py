"""How large an array may be."""
from __future__ import annotations

from graphc.errors import GraphError, Loc
from graphc.ir.types import TensorType

ROOM = 1 << 56                      # bytes: more than a machine has, and what is computed from it fits into 64 bits


def check_room(what: str, t: TensorType, loc: Loc | None = None) -> None:
    """GraphError if no machine has room for `what`, an array of this type; of named sizes nothing is known yet."""
    nbytes = t.dtype.itemsize
    for d in t.shape:
        if d.__class__ is int:
            nbytes *= d
    if nbytes > ROOM:
        raise GraphError(f"{what} is {t}, which is larger than any memory", loc)
