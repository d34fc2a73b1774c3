"""What integers stand behind arrays of floats that a file dequantises.

QuantizeLinear and DequantizeLinear around an operator say that its floats are integers times scales. Products of such
arrays are products of the integers, which are exact and faster: sum (qa - za) sa (qb - zb) sb = sa sb sum (qa - za)
(qb - zb). The floats are made as well; where nobody reads them they are dead code.
"""
from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from graphc.doors.onnx.known import Known
from graphc.dsl.array import Array, emit
from graphc.ir.graph import Value
from graphc.ir.ops.activation import Relu
from graphc.records import dataclass
from graphc.ir.ops.shape import Reshape, Transpose


@dataclass(frozen=True, eq=False)
class Codes:
    """An array that is (integers - zero) * scale. `scale`, `zero`: of the file, or arrays; one number, or one for each
    index of `axis`. `zero` None: 0. `lasting`: the integers are those of the file."""
    integers: Array
    scale: Known | Array
    zero: Known | Array | None
    axis: int | None
    lasting: bool

    def has_scale(self, scale: object, zero: object) -> bool:
        """Whether these are its scale and zero point, both one number that is known."""
        return self.axis is None and _same(self.scale, scale) and (self.zero is zero is None or _same(self.zero, zero))


def fixed(value: object) -> np.ndarray | None:
    """The numbers of a scale or zero point that nothing can change; None of what is an array or a parameter."""
    return value.numbers.reshape(-1) if isinstance(value, Known) and not value.is_weight else None


def _same(a: object, b: object) -> bool:
    x, y = fixed(a), fixed(b)
    return x is not None and y is not None and x.dtype == y.dtype and np.array_equal(x, y)


@dataclass(frozen=True, eq=False)
class ScaledSums:
    """An array that is sums in i32 times a scale, an f32 array that meets them; `fixed`: its numbers, where nothing can
    change them. `rectified`: at least 0."""
    integers: Array
    scale: Array
    fixed: np.ndarray | None
    rectified: bool = False


class Origins:
    """The integers behind the arrays of one walk over a model."""

    def __init__(self) -> None:
        self._known: dict[Value, Codes | ScaledSums] = {}

    def note(self, array: Array, origin: Codes | ScaledSums) -> Array:
        """The array, of which this is known from now on."""
        self._known[array.value] = origin
        return array

    def of(self, array: Array) -> Codes | ScaledSums | None:
        """What stands behind an array; also behind one that only has another shape, and behind sums that are rectified.
        """
        return self._of(array.value)

    def _of(self, value: Value) -> Codes | ScaledSums | None:
        if value in self._known or value.node is None:
            return self._known.get(value)
        op = value.node.op
        if not isinstance(op, Reshape | Transpose | Relu):
            return None
        found = self._of(value.node.inputs[0])
        if isinstance(op, Relu):
            return replace(found, rectified=True) if isinstance(found, ScaledSums) else None
        if not isinstance(found, Codes) or found.axis is not None:
            return None
        attributes: dict[str, Any] = dict(op.attributes)
        return replace(found, integers=emit(op.name, found.integers, **attributes))
