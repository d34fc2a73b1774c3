"""Operators as they were in older opsets, where they meant something else: by the rules of the newest.

An attribute that became an operand of the same name needs no row here.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import graphc as gc
from graphc.doors.onnx.ops.norm import hardmax
from graphc.dsl.array import Array

Versions = Sequence[tuple[int, Callable[..., Any]]]        # (below this opset, rule), the lowest first


def of_rows(function: Callable[..., Array]) -> Callable[..., Array]:
    """Softmax and its like before opset 13: of all axes from `axis` on together."""
    def rule(x: Array, *, axis: int = 1) -> Array:
        axis = axis % x.ndim
        rows = x.reshape((prod(x.shape[:axis]), prod(x.shape[axis:])))
        return function(rows, axis=-1).reshape(x.shape)
    return rule


OLDER: Mapping[str, Versions] = {
    "Softmax": ((13, of_rows(gc.softmax)),), "LogSoftmax": ((13, of_rows(gc.log_softmax)),),
    "Hardmax": ((13, of_rows(hardmax)),)}
