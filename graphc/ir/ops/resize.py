"""Resizing of images, as a composite of reads at constant positions."""
from __future__ import annotations

from typing import ClassVar

import numpy as np

from graphc.ir.image import ImageRoles
from graphc.ir.op import ALL, Composite, Cost, require
from graphc.ir.types import TensorType

MODES = ("nearest", "bilinear")


class Resize(Composite):
    """The last two axes of x [N, C, H, W] brought to `shape`, as torch.nn.functional.interpolate with align_corners=False, antialias=False.

    "nearest": y[i] = x[floor(i H / H')]. "bilinear": y[i] mixes the two neighbours of s = max((i + 1/2) H / H' - 1/2, 0) linearly,
    the last row repeated at the border.
    """
    name: ClassVar[str] = "resize"
    images = ImageRoles((0,), True)
    linear_in = (ALL,)
    shape: tuple[int, int]
    mode: str = "nearest"

    def infer(self, x: TensorType) -> TensorType:
        require(self.mode in MODES, f'resize: mode is "nearest" or "bilinear", got {self.mode!r}')
        require(x.dtype.is_float, f"resize takes float arrays, got {x.dtype}; convert it with .astype(f32)")
        require(x.rank == 4 and len(self.shape) == 2, f"resize takes x [N, C, H, W] and a shape (H, W), got {x} and {self.shape}")
        fits = all(new >= 0 and (new == 0 or old != 0) for old, new in zip(x.shape[2:], self.shape))
        require(fits, f"cannot resize {x} to {self.shape}")
        return x.with_shape(x.shape[:2] + tuple(self.shape))

    def reference(self, x):
        for axis, size in zip((2, 3), self.shape):
            if self.mode == "nearest":
                x = np.take(x, sources(x.shape[axis], size, self.mode)[0], axis)
                continue
            x = np.moveaxis(np.tensordot(x, self._matrix(x.shape[axis], size).astype(x.dtype), (axis, 1)), -1, axis)
        return x

    def decompose(self, b, x):
        for axis, size in zip((2, 3), self.shape):
            x = self._along(b, x, axis, size)
        return x

    def cost(self, x):
        out = self.infer(x)
        return Cost(out.size * (8 if self.mode == "bilinear" else 0), x.nbytes + out.nbytes)

    def _matrix(self, old: int, new: int) -> np.ndarray:
        """The linear map of one axis as a dense matrix [new, old]."""
        first, second, weight = sources(old, new, self.mode)
        eye = np.eye(old)
        return eye[first] * (1 - weight)[:, None] + eye[second] * weight[:, None]

    def _along(self, b, x, axis: int, new: int):
        old = x.type.shape[axis]
        require(isinstance(old, int), f"resize needs the size {old} of axis {axis} as an int; bind it first")
        if new == old:
            return x
        if self.mode == "nearest" and old and new % old == 0:
            return _repeated(b, x, axis, new // old)
        first, second, weight = sources(old, new, self.mode)
        low = b.take(x, b.constant(first), axis=axis)
        if self.mode == "nearest":
            return low
        high = b.take(x, b.constant(second), axis=axis)
        share = b.constant(weight.reshape(-1, *(1,) * (3 - axis)), x.type.dtype)
        return b.add(low, b.mul(b.sub(high, low), share))


def sources(old: int, new: int, mode: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each new position: the two old ones that it mixes (i64), and the weight of the second (f64)."""
    i = np.arange(new, dtype=np.int64)
    if mode == "nearest":
        first = i * old // max(new, 1)
        return first, first, np.zeros(new)
    place = np.maximum((i + 0.5) * (old / max(new, 1)) - 0.5, 0)
    first = np.minimum(np.floor(place).astype(np.int64), old - 1)
    return first, np.minimum(first + 1, old - 1), place - first


def _repeated(b, x, axis: int, times: int):
    """Each element `times` times along `axis`: a broadcast, whose gradient is a sum."""
    shape = x.type.shape
    apart = b.reshape(x, shape=shape[:axis + 1] + (1,) + shape[axis + 1:])
    wide = b.broadcast_to(apart, shape=shape[:axis + 1] + (times,) + shape[axis + 1:])
    return b.reshape(wide, shape=shape[:axis] + (shape[axis] * times,) + shape[axis + 1:])


OPS = (Resize,)
