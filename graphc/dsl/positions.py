"""Positions along an axis that are known while a graph is traced: those given as numbers, and those of which it is
known where they come from."""
from __future__ import annotations

import numpy as np

from graphc.dsl.literal import numbers
from graphc.errors import GraphError
from graphc.ir.dims import Dim
from graphc.ir.graph import Value
from graphc.ir.ops.constant import Constant, Iota
from graphc.ir.ops.elementwise import MAXIMUM
from graphc.ir.ops.random import RandomPermutation
from graphc.ir.ops.reduce import ArgMax, ArgMin
from graphc.ir.ops.shape import Flip
from graphc.ir.ops.sort import ArgSort, TopK

COUNTING = (ArgMax, ArgMin, ArgSort, TopK, Iota, RandomPermutation)     # give numbers from 0 on


def constant_positions(indices: object, size: Dim, axis: int) -> tuple[np.ndarray, bool]:
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
    while node is not None and (node.op.is_view or isinstance(node.op, Flip)):
        node = node.inputs[0].node
    if node is None:
        return False
    bounds = [v.node for v in node.inputs] if node.op is MAXIMUM else [node]         # of which one is enough
    return isinstance(node.op, COUNTING) or any(
        n is not None and isinstance(n.op, Constant) and (n.op.value.array >= 0).all() for n in bounds)
