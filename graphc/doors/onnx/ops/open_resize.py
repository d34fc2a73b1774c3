"""Resize where a size has a name: places and weights of the elements are computed when it runs, axis after axis."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import graphc as gc
from graphc.doors.onnx.known import count_of
from graphc.doors.onnx.rule import Unsupported
from graphc.dsl.array import Array
from graphc.ir.convert import choice
from graphc.ir.dims import Dim
from graphc.ir.interpolation import COORDINATES
from graphc.records import dataclass


@dataclass(frozen=True)
class OpenAxis:
    """How the elements of a resized axis lie among the old ones, as Resize has it. `scale` None: the ratio of sizes."""
    coordinates: str
    scale: float | None
    mode: str
    rounding: str
    cubic: float
    exclude_outside: bool


def along(x: Array, axis: int, new: Dim, how: OpenAxis) -> Array:
    """One axis of a named size, or brought to one: places and weights are computed in each call, in f64."""
    last, tail = count_of(x.shape[axis], gc.f64) - 1.0, (1,) * (x.ndim - 1 - axis)
    places = _places(count_of(x.shape[axis], gc.f64), new, how)

    def read(at: Array) -> Array:
        return gc.take(x, gc.minimum(gc.maximum(at, 0.0), last).astype(gc.i64), axis)
    if how.mode == "nearest":
        return read(ROUNDED[choice(how.rounding, "nearest_mode", tuple(ROUNDED))](places))
    if not x.dtype.is_float:
        raise Unsupported(f"mode {how.mode} of {x.dtype}")
    reach, weight_of = WEIGHTS[choice(how.mode, "mode", tuple(WEIGHTS))]
    taps = [gc.floor(places) + float(t) for t in range(1 - reach, reach + 1)]
    weights = [weight_of(gc.abs(tap - places), how.cubic) for tap in taps]
    if how.exclude_outside:
        weights = [gc.where((tap >= 0.0) & (tap <= last), w, 0.0) for tap, w in zip(taps, weights)]
        total = reduce(gc.add, weights)
        weights = [w / total for w in weights]
    return reduce(gc.add, [read(tap) * w.astype(x.dtype).reshape((-1, *tail)) for tap, w in zip(taps, weights)])


def _places(old: Array, new: Dim, how: OpenAxis) -> Array:
    """Where each new element lies among the old ones (`ir.interpolation`)."""
    i, count = gc.arange(new).astype(gc.f64), count_of(new, gc.f64)
    scale: Any = count / old if how.scale is None else how.scale
    if how.coordinates == "align_corners":
        end = count - 1.0 if how.scale is None else old * scale - 1.0
        return gc.where(count > 1.0, i * ((old - 1.0) / gc.maximum(end, 1e-30)), i)
    if how.coordinates == "asymmetric":
        return i / scale
    if how.coordinates == "tf_half_pixel_for_nn":
        return (i + 0.5) / scale
    choice(how.coordinates, "coordinate_transformation_mode", COORDINATES)
    centres = (i + 0.5) / scale - 0.5
    if how.coordinates == "half_pixel_symmetric":
        return centres + old * 0.5 * (1.0 - count / (old * scale))
    return gc.where(count > 1.0, centres, 0.0) if how.coordinates == "pytorch_half_pixel" else centres


def _linear(d: Array, a: float) -> Array:
    return gc.maximum(1.0 - d, 0.0)


def _keys(d: Array, a: float) -> Array:
    """Keys' kernel (1981)."""
    near = ((a + 2) * d - (a + 3)) * d * d + 1.0
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return gc.where(d <= 1.0, near, gc.where(d < 2.0, far, 0.0))


ROUNDED: Mapping[str, Callable[[Array], Array]] = {
    "floor": gc.floor, "ceil": gc.ceil, "round_prefer_floor": lambda x: gc.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: gc.floor(x + 0.5)}
# how many elements to each side count, and their weights by distance
WEIGHTS: Mapping[str, tuple[int, Callable[[Array, float], Array]]] = {"linear": (1, _linear), "cubic": (2, _keys)}
