"""Resizing of images, as a composite of reads at constant positions."""
from __future__ import annotations

from typing import ClassVar

import numpy as np

from graphc.errors import GraphError
from graphc.ir.dims import Dim
from graphc.ir.graph import Value
from graphc.ir.image import ImageRoles
from graphc.ir.interpolation import (
    COORDINATES, ROUNDINGS, Axis, Taps, cubic_weight, filtered, linear_weight, nearest)
from graphc.ir.op import ALL, Composite, Cost, OpBuilder, Operands, require
from graphc.ir.ops.constant import number
from graphc.ir.types import TensorType

CROPPED = "tf_crop_and_resize"
INFINITY = float("inf")

MODES = ("nearest", "bilinear", "bicubic")
MOST_PLACES = 1 << 24               # of an axis whose elements are looked up: where each comes from is a constant
MOST_TAPS = 4                       # beyond it an axis is a product with a dense matrix


class Resize(Composite):
    """The last two axes of x [N, C, H, W] brought to `shape`; by default as torch.nn.functional.interpolate with
    align_corners=False, antialias=False.

    "nearest": y[i] = x[floor(i H / H')]. "bilinear": y[i] mixes the two neighbours of s = max((i + 1/2) H / H' - 1/2,
    0) linearly, the last row repeated at the border. "bicubic": four neighbours, Keys' kernel with the parameter
    `cubic`. All else as in ONNX's Resize (`interpolation`): `coordinates` ("": asymmetric of "nearest", else
    half_pixel), `rounding` of "nearest", `scales` of both axes ((): the ratio of sizes), `antialias`,
    `exclude_outside`; with "tf_crop_and_resize" `crop`, the starts and then the ends of the part shown, and `fill`
    beyond the image.
    """
    name: ClassVar[str] = "resize"
    images = ImageRoles((0,), True)
    shape: tuple[int, int]
    mode: str = "nearest"
    coordinates: str = ""
    rounding: str = "floor"
    antialias: bool = False
    exclude_outside: bool = False
    cubic: float = -0.75
    scales: tuple[float, ...] = ()
    crop: tuple[float, ...] = ()
    fill: float = 0.0

    @property
    def linear_in(self) -> tuple[Operands, ...]:
        return (ALL,) if self.fill == 0 or self.coordinates != CROPPED else ()

    def infer(self, x: TensorType) -> TensorType:
        require(self.mode in MODES, f'resize: mode is one of {", ".join(MODES)}, got {self.mode!r}')
        require(self.coordinates in ("", *COORDINATES),
                f"resize: coordinates are one of {', '.join(COORDINATES)}, got {self.coordinates!r}")
        require(self.rounding in ROUNDINGS, f"resize: rounding is one of {', '.join(ROUNDINGS)}, got {self.rounding!r}")
        require(len(self.scales) in (0, 2) and all(0 < scale < INFINITY for scale in self.scales),
                f"resize: scales are two numbers above 0, got {self.scales}")
        require(len(self.crop) == (4 if self.coordinates == CROPPED else 0) and not self.is_blurred_nearest,
                f"resize: crop has four numbers with {CROPPED} and none else, antialias a mode that mixes elements")
        require(x.dtype.is_float or self.mode == "nearest",
                f"resize takes float arrays, got {x.dtype}; convert it with .astype(f32)")
        require(x.rank == 4 and len(self.shape) == 2,
                f"resize takes x [N, C, H, W] and a shape (H, W), got {x} and {self.shape}")
        fits = all(new >= 0 and (new == 0 or old != 0) for old, new in zip(x.shape[2:], self.shape))
        require(fits, f"cannot resize {x} to {self.shape}")
        for old, new in zip(x.shape[2:], self.shape):
            require(new <= MOST_PLACES or self._repeats(old, new),
                    f"resize brings an axis to at most {MOST_PLACES} elements, got {new}; it may have more where each "
                    'of the old ones is repeated as often (mode "nearest")')
        return x.with_shape(x.shape[:2] + tuple(self.shape))

    @property
    def is_blurred_nearest(self) -> bool:
        return self.antialias and self.mode == "nearest"

    @property
    def is_plain(self) -> bool:
        """Whether nothing but shape and mode is asked for: the same arithmetic as ever."""
        return not self.coordinates and not self.scales and not self.antialias and self.mode != "bicubic"

    def reference(self, x: np.ndarray) -> np.ndarray:
        axes = [self._axis(i, old) for i, old in enumerate(x.shape[2:])]
        for axis, taps in zip((2, 3), map(self._taps, axes)):
            if taps.indices.shape[1] == 1:
                x = np.take(x, taps.indices[:, 0], axis)
                continue
            x = np.moveaxis(np.tensordot(x, taps.matrix(x.shape[axis]).astype(x.dtype), (axis, 1)), -1, axis)
        outside = axes[0].outside()[:, None] | axes[1].outside()
        return np.where(outside, x.dtype.type(self.fill), x) if outside.any() else x

    def decompose(self, b: OpBuilder, x: Value) -> Value:
        axes = [self._axis(i, _known(old, i + 2)) for i, old in enumerate(x.type.shape[2:])]
        for i, axis in enumerate(axes):
            x = self._along(b, x, i + 2, axis)
        outside = axes[0].outside()[:, None] | axes[1].outside()
        return b.where(b.constant(outside), number(b, self.fill, x), x) if outside.any() else x

    def cost(self, x: TensorType) -> Cost:
        out = self.infer(x)
        return Cost(out.size * {"nearest": 0, "bilinear": 8, "bicubic": 16}[self.mode], x.nbytes + out.nbytes)

    def _repeats(self, old: Dim, new: int) -> bool:
        """Whether each element comes as often as every other, in order: no table says where they come from."""
        return self.is_plain and (new == old or self.mode == "nearest" and isinstance(old, int) and old > 0
                                  and new % old == 0)

    def _axis(self, i: int, old: int) -> Axis:
        new = self.shape[i]
        scale = self.scales[i] if self.scales else new / max(old, 1)
        coordinates = self.coordinates or ("asymmetric" if self.mode == "nearest" else "half_pixel")
        return Axis(old, new, coordinates, scale, (self.crop[i], self.crop[i + 2]) if self.crop else (0.0, 1.0))

    def _taps(self, axis: Axis) -> Taps:
        """The old elements that each new one is made of."""
        if self.is_plain and self.mode == "nearest" and self.rounding == "floor":
            return Taps(sources(axis.old, axis.new, self.mode)[0][:, None], np.ones((axis.new, 1)))
        if self.is_plain and self.mode == "bilinear" and not self.exclude_outside:
            first, second, weight = sources(axis.old, axis.new, self.mode)
            return Taps(np.stack([first, second], 1), np.stack([1 - weight, weight], 1))
        if self.mode == "nearest":
            return nearest(axis, self.rounding)
        weight_of, reach = (linear_weight, 1) if self.mode == "bilinear" else (cubic_weight(self.cubic), 2)
        return filtered(axis, weight_of, reach, self.antialias, self.exclude_outside)

    def _along(self, b: OpBuilder, x: Value, axis: int, along: Axis) -> Value:
        same = along.new == along.old and np.array_equal(along.places(), np.arange(along.new))
        if same or (self.is_plain and along.new == along.old):
            return x
        if self._repeats(along.old, along.new):
            return _repeated(b, x, axis, along.new // along.old)
        taps = self._taps(along)
        count = taps.indices.shape[1]
        if count > MOST_TAPS:
            matrix = b.constant(taps.matrix(along.old), x.type.dtype)
            return b.matmul(matrix, x) if axis == 2 else b.matmul(x, b.transpose(matrix, perm=(1, 0)))
        parts = [b.take(x, b.constant(taps.indices[:, t].copy()), axis=axis) for t in range(count)]
        weights = [taps.weights[:, t].reshape(-1, *(1,) * (3 - axis)) for t in range(count)]
        if count == 1:
            return parts[0]
        if count == 2:
            return b.add(parts[0], b.mul(b.sub(parts[1], parts[0]), b.constant(weights[1], x.type.dtype)))
        total = b.mul(parts[0], b.constant(weights[0], x.type.dtype))
        for part, weight in zip(parts[1:], weights[1:]):
            total = b.add(total, b.mul(part, b.constant(weight, x.type.dtype)))
        return total


def _known(old: Dim, axis: int) -> int:
    if not isinstance(old, int):
        raise GraphError(f"resize needs the size {old} of axis {axis} as an int; bind it first")
    return old


def sources(old: int, new: int, mode: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each new position: the two old ones that it mixes (i64), and the weight of the second (f64)."""
    i = np.arange(new, dtype=np.int64)
    if mode == "nearest":
        first = i * old // max(new, 1)
        return first, first, np.zeros(new)
    place = np.maximum((i + 0.5) * (old / max(new, 1)) - 0.5, 0)
    first = np.minimum(np.floor(place).astype(np.int64), old - 1)
    return first, np.minimum(first + 1, old - 1), place - first


def _repeated(b: OpBuilder, x: Value, axis: int, times: int) -> Value:
    """Each element `times` times along `axis`: a broadcast, whose gradient is a sum."""
    shape = x.type.shape
    apart = b.reshape(x, shape=shape[:axis + 1] + (1,) + shape[axis + 1:])
    wide = b.broadcast_to(apart, shape=shape[:axis + 1] + (times,) + shape[axis + 1:])
    return b.reshape(wide, shape=shape[:axis] + (shape[axis] * times,) + shape[axis + 1:])


OPS = (Resize,)
