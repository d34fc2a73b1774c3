"""Numbers as they are after rounding to a few integers, for training that is to bear it."""
from __future__ import annotations

from graphc.dsl.array import Array, as_array, as_float
from graphc.dsl.elementwise import Operand, clip, logical_and, round, stop_gradient, where
from graphc.dsl.form import formed
from graphc.errors import GraphError
from graphc.ir.convert import integer
from graphc.ir.types import normalize_axis


@formed
def fake_quantize(x: Array, scale: Operand, zero_point: Operand = 0, *, low: int = -128, high: int = 127,
                  axis: int | None = None) -> Array:
    """(clip(round(x / scale) + zero_point, low, high) - zero_point) * scale: float x as it comes back from integers of
    `low` to `high` (ONNX's QuantizeLinear and DequantizeLinear; rounding to even). `scale` > 0 and `zero_point` are
    scalars, or have one element for each index of `axis`.

    The gradient is straight-through (Bengio et al. 2013, arXiv:1308.3432), as torch.fake_quantize_per_tensor_affine's:
    that of the result where the integer was within its limits, else 0; none for scale and zero_point.
    """
    x, low, high = as_float(x), integer(low, "fake_quantize: low"), integer(high, "fake_quantize: high")
    if not low < high:
        raise GraphError(f"fake_quantize: low is below high, got {low} and {high}")
    given = scale
    scale, zero = (_spread(as_array(stop_gradient(v) if isinstance(v, Array) else v, x.dtype), x, axis)
                   for v in (scale, zero_point))
    if isinstance(given, (int, float)) and not given > 0:
        raise GraphError(f"fake_quantize: scale is above 0, got {given}")
    fixed = stop_gradient(x)
    whole = round(fixed / scale) + zero
    y = (clip(whole, low, high) - zero) * scale
    # x - fixed is 0 with the gradient 1
    return where(logical_and(whole >= low, whole <= high), x - fixed, 0.0) + y


def _spread(v: Array, x: Array, axis: int | None) -> Array:
    """Numbers of `fake_quantize` in the shape that x broadcasts with."""
    if axis is None:
        if v.ndim:
            raise GraphError(f"fake_quantize: scale and zero_point are scalars, got {v.type}; axis= says for which "
                             "axis of x they have an element each")
        return v
    axis = normalize_axis(axis, x.ndim, "fake_quantize")
    if v.ndim and v.shape != (x.shape[axis],):
        raise GraphError(f"fake_quantize: scale and zero_point have one element for each of axis {axis} of {x.type}, "
                         f"got {v.type}")
    return v.reshape((-1, *(1,) * (x.ndim - axis - 1))) if v.ndim else v
