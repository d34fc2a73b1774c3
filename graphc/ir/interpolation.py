"""Where the elements of a resized axis come from, and how much of each: pure numpy, in f64. The definitions are
those of ONNX's Resize; PyTorch's are among them.
"""
from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphc.records import dataclass

COORDINATES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "tf_half_pixel_for_nn", "align_corners",
               "asymmetric", "tf_crop_and_resize")
ROUNDINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "floor": np.floor, "ceil": np.ceil, "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5)}


@dataclass(frozen=True)
class Axis:
    """An axis of `old` elements brought to `new`; `scale` is new / old, or what the caller says instead; `crop` are the
    ends of the part that is shown, as shares of the axis."""
    old: int
    new: int
    coordinates: str
    scale: float
    crop: tuple[float, float] = (0.0, 1.0)

    def places(self) -> np.ndarray:
        """Where each new element lies among the old ones."""
        i, old, new, scale = np.arange(self.new, dtype=np.float64), self.old, self.new, self.scale
        if self.coordinates == "align_corners":
            last = new - 1 if scale == new / old else scale * old - 1   # ONNX: of the size before it is rounded
            return i * ((old - 1) / last) if new > 1 else i
        if self.coordinates == "asymmetric":
            return i / scale
        if self.coordinates == "tf_half_pixel_for_nn":      # of opsets 11 and 12
            return (i + 0.5) / scale
        if self.coordinates == "tf_crop_and_resize":
            start, end, size = (np.float32(v) for v in (*self.crop, old - 1))       # halves are those of runtimes
            if new <= 1:
                return i + float(np.float32(0.5) * (start + end) * size)
            along = start * size + i.astype(np.float32) * (end - start) * size / np.float32(new - 1)
            return np.asarray(along, np.float64)
        if self.coordinates == "pytorch_half_pixel" and new <= 1:
            return i * 0
        centres = (i + 0.5) / scale - 0.5
        if self.coordinates == "half_pixel_symmetric":
            return centres + old / 2 * (1 - new / (scale * old))
        return centres

    def outside(self) -> np.ndarray:
        """Which new elements show nothing of the axis: only a crop has such."""
        x = self.places()
        return (x < 0) | (x > self.old - 1) if self.coordinates == "tf_crop_and_resize" else np.zeros(self.new, bool)


@dataclass(frozen=True)
class Taps:
    """Element i of the result is the sum over t of weights[i, t] times element indices[i, t]."""
    indices: np.ndarray
    weights: np.ndarray

    def matrix(self, old: int) -> np.ndarray:
        """The same as a dense matrix [new, old]."""
        dense = np.zeros((len(self.indices), old))
        np.add.at(dense, (np.arange(len(self.indices))[:, None], self.indices), self.weights)
        return dense


def nearest(axis: Axis, rounding: str) -> Taps:
    chosen = np.clip(ROUNDINGS[rounding](axis.places()), 0, max(axis.old - 1, 0)).astype(np.int64)
    return Taps(chosen[:, None], np.ones((axis.new, 1)))


def linear_weight(d: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(d), 0)


def cubic_weight(a: float) -> Callable[[np.ndarray], np.ndarray]:
    """Keys' kernel (1981) with the parameter a."""
    def weight(d: np.ndarray) -> np.ndarray:
        d = np.abs(d)
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        return np.where(d <= 1, near, np.where(d < 2, far, 0))
    return weight


def filtered(axis: Axis, weight: Callable[[np.ndarray], np.ndarray], reach: int, antialias: bool,
             exclude: bool) -> Taps:
    """Weights by distance: `reach` old elements to each side, more where an antialiased axis shrinks. Elements beyond
    the ends repeat the last one, or do not count (`exclude`); then, and if antialiased, weights are divided by their
    sum."""
    shrink = min(axis.scale, 1.0) if antialias else 1.0
    x = axis.places()
    span = int(np.ceil(reach / shrink))
    taps = np.floor(x)[:, None].astype(np.int64) + np.arange(1 - span, span + 1)
    weights = weight((taps - x[:, None]) * shrink)
    if exclude:
        weights = np.where((taps >= 0) & (taps < axis.old), weights, 0)
    if exclude or antialias:
        total = weights.sum(1, keepdims=True)
        weights = np.divide(weights, total, out=np.zeros_like(weights), where=total != 0)
    return Taps(np.clip(taps, 0, max(axis.old - 1, 0)), weights)
