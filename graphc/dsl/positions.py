"""Positions along an axis that are known while a graph is traced: those given as numbers, and those of which it is
known where they come from."""
from __future__ import annotations

import numpy as np

from graphc.dsl.literal import numbers
from graphc.errors import GraphError
from graphc.ir.graph import Value
from graphc.ir.types import Dim

COUNTING = frozenset(("argmax", "argmin", "argsort", "topk", "iota", "random_permutation"))     # give numbers from 0 on
SAME_NUMBERS = frozenset(("reshape", "broadcast_to", "transpose", "slice", "flip"))


def constant_positions(indices, size: Dim, axis: int) -> tuple[np.ndarray, bool]:
    """Positions along the axis number `axis`, of `size`, and whether some are negative still. Those of a known size
    are counted from the front, as in numpy."""
    array = indices if isinstance(indices, np.ndarray) else numbers(indices, None)
    if array.size == 0 and not isinstance(indices, np.ndarray):
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        return array, False
    array = array if array.dtype in (np.int32, np.int64) else array.astype(np.int64)
    if isinstance(size, int):
        wrong = array[(array < -size) | (array >= size)]
        if wrong.size:
            raise GraphError(f"index {wrong.flat[0]} is out of range for axis {axis} of size {size}")
        array = np.where(array < 0, array + array.dtype.type(min(size, np.iinfo(array.dtype).max)), array)
    return array, bool((array < 0).any())


def never_negative(value: Value) -> bool:
    """Whether the integers are known to be at least 0, so that none counts from the end."""
    node = value.node
    while node is not None and node.op.name in SAME_NUMBERS:
        node = node.inputs[0].node
    if node is None:
        return False
    bounds = [v.node for v in node.inputs] if node.op.name == "maximum" else [node]         # of which one is enough
    return node.op.name in COUNTING or any(n is not None and n.op.name == "constant" and (n.op.value.array >= 0).all()
                                           for n in bounds)
