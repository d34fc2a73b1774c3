"""Convolutions by 3 × 3 kernels in Winograd's form (`ir.winograd`). Made by a pass after differentiation: without
gradients of their own.
"""
from __future__ import annotations

from typing import ClassVar

import numpy as np

from graphc.ir.dims import Dim, Dims, ceil_div, static_shape
from graphc.ir.image import ImageRoles
from graphc.ir.op import ALL, Cost, Op, require
from graphc.ir.ops.sliding import Pads
from graphc.ir.types import TensorType, dtype_of, shape_text
from graphc.ir.winograd import POINTS, TAPS, both_sides, tiled, tiles, transforms, untiled


class WinogradWeights(Op):
    """U = G g Gᵀ of each kernel g of w [F, C, 3, 3], as panels of `width` features: [(tile + 2)², F / width rounded up,
    C, width].

    turned: of the kernels of the gradient towards the image: F and C exchanged, and g rotated by half a turn. Panels
    are filled up with repetitions of the last feature.
    """
    name: ClassVar[str] = "winograd_weights"
    linear_in = (ALL,)
    tile: int
    width: int
    turned: bool = False

    def infer(self, w: TensorType) -> TensorType:
        _check_form(self, self.width)
        require(w.dtype.is_float and w.rank == 4 and w.shape[2:] == (TAPS, TAPS),
                f"{self.name} takes kernels [F, C, 3, 3] of floats, got {w}")
        features, channels = self.roles(w.shape)
        return w.with_shape(((self.tile + 2)**2, -(-features // self.width), channels, self.width))

    def reference(self, w: np.ndarray) -> np.ndarray:
        g = np.flip(w.swapaxes(0, 1), (2, 3)) if self.turned else w
        u = both_sides(transforms(self.tile).g, g).reshape(*g.shape[:2], -1)
        panels = -(-g.shape[0] // self.width)
        u = u[np.minimum(np.arange(panels * self.width), g.shape[0] - 1)]
        return u.reshape(panels, self.width, g.shape[1], -1).transpose(3, 0, 2, 1).copy()

    def cost(self, w: TensorType) -> Cost:
        return Cost(0, w.nbytes + self.infer(w).nbytes)

    def roles(self, shape: Dims) -> tuple[Dim, Dim]:
        """How many features the convolution makes, and of how many channels."""
        return (shape[1], shape[0]) if self.turned else (shape[0], shape[1])


class WinogradConv2d(Op):
    """conv2d of x [N, C, H, W] at stride 1, by weights that `winograd_weights` has transformed: y [N, features, OH,
    OW].
    """
    name: ClassVar[str] = "winograd_conv2d"
    takes_epilogue = True
    images = ImageRoles((0,), True)
    linear_in = ((0,), (1,))
    tile: int
    features: int
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))

    def infer(self, x: TensorType, u: TensorType) -> TensorType:
        _check_form(self, self.features, padding=self.padding)
        require(x.rank == 4 and u.rank == 4 and x.dtype == u.dtype and x.dtype.is_float,
                f"{self.name} takes x [N, C, H, W] and transformed weights, of one float type")
        require(isinstance(u.shape[3], int) and u.shape[3] > 0,
                f"{self.name}: the weights {u} have panels of no known width")
        panels = -(-self.features // u.shape[3])
        wanted = ((self.tile + 2)**2, panels, x.shape[1], u.shape[3])
        require(u.shape == wanted,
                f"{self.name}: the weights are {shape_text(u.shape)}, they must be {shape_text(wanted)}")
        return x.with_shape((x.shape[0], self.features,
                             *(n + sum(p) - TAPS + 1 for n, p in zip(x.shape[2:], self.padding))))

    def reference(self, x: np.ndarray, u: np.ndarray) -> np.ndarray:
        t = transforms(self.tile)
        n, (_, panels, channels, width) = self.tile + 2, u.shape
        shape = static_shape(self.infer(*(TensorType(dtype_of(a), a.shape) for a in (x, u))).shape)
        w = u.reshape(n, n, panels, channels,
                      width).transpose(2, 4, 3, 0, 1).reshape(-1, channels, n, n)[:self.features]
        v = both_sides(t.bt, tiles(x, self.tile, shape[2:], self.padding))
        return untiled(both_sides(t.at, np.einsum("ncijpq,fcpq->nfijpq", v, w, optimize=True)), shape)

    def cost(self, x: TensorType, u: TensorType) -> Cost:
        y = self.infer(x, u)
        kernel = x.shape[1] * TAPS * TAPS
        return Cost(2 * y.size * kernel, x.nbytes + y.nbytes + self.features * kernel * x.dtype.itemsize)


class WinogradWeightGrad(Op):
    """conv2d_weight_grad of x [N, C, H, W] and dy [N, F, OH, OW] at stride 1: dw [F, C, 3, 3] = Gᵀ [sum over tiles of
    (A dY Aᵀ) ⊙ (Bᵀ d B)] G.

    additions: the images are those of several shards, as many of each, and dw is the sum of what each gives by itself:
    (low, middle, high) is the sum over the shards low … high - 1, of those below and from `middle` on; the last is dw.
    """
    name: ClassVar[str] = "winograd_weight_grad"
    takes_epilogue = True
    images = ImageRoles((0, 1), False)
    linear_in = ((0,), (1,))
    tile: int
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    additions: tuple[tuple[int, int, int], ...] = ()

    @property
    def shards(self) -> int:
        return len(self.additions) + 1

    def infer(self, x: TensorType, dy: TensorType) -> TensorType:
        _check_form(self, padding=self.padding)
        require(x.rank == 4 and dy.rank == 4 and x.dtype == dy.dtype and x.dtype.is_float,
                f"{self.name} takes x [N, C, H, W] and dy [N, F, OH, OW], of one float type")
        wanted = (x.shape[0], dy.shape[1], *(n + sum(p) - TAPS + 1 for n, p in zip(x.shape[2:], self.padding)))
        require(dy.shape == wanted, f"{self.name}: dy is {shape_text(dy.shape)}, it must be {shape_text(wanted)}")
        images = x.shape[0]
        require(not self.additions or isinstance(images, int) and images % self.shards == 0,
                f"{self.name}: {images} images are not as many of each of {self.shards} shards")
        return x.with_shape((dy.shape[1], x.shape[1], TAPS, TAPS))

    def reference(self, x: np.ndarray, dy: np.ndarray) -> np.ndarray:
        t, sums = transforms(self.tile), dict[tuple[int, int], np.ndarray]()
        for shard, (image, result) in enumerate(zip(np.split(x, self.shards), np.split(dy, self.shards))):
            v = both_sides(t.bt, tiles(image, self.tile, dy.shape[2:], self.padding))
            d = both_sides(t.a, tiled(result, self.tile))
            sums[shard, shard + 1] = both_sides(t.gt, np.einsum("ncijpq,nfijpq->fcpq", v, d, optimize=True))
        for low, middle, high in self.additions:
            sums[low, high] = sums[low, middle] + sums[middle, high]
        return sums[0, self.shards]

    def cost(self, x: TensorType, dy: TensorType) -> Cost:
        w = self.infer(x, dy)
        return Cost(2 * dy.size * x.shape[1] * TAPS * TAPS, x.nbytes + dy.nbytes + w.nbytes)


def _check_form(op: WinogradWeights | WinogradConv2d | WinogradWeightGrad, *counts: int,
                padding: Pads = ()) -> None:
    """Tiles are of a known size; counts are of something."""
    require(op.tile in POINTS and all(n > 0 for n in counts),
            f"{op.name}: tiles of {op.tile} for {counts}; a tile is one of {', '.join(map(str, POINTS))}")
    require(all(n >= 0 for pair in padding for n in pair), f"{op.name}: padding must not be negative")


def grid(y: Dims, tile: int) -> tuple[Dim, Dim]:
    """Rows and columns of tiles in a result of shape y."""
    return ceil_div(y[2], tile), ceil_div(y[3], tile)


OPS = (WinogradWeights, WinogradConv2d, WinogradWeightGrad)
