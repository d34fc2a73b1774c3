"""A contraction: out[batch, m, n] = sum over k of a[batch, m, k] * b[batch, k, n], with an affine map from dims to
every tensor axis.

Matrix products, einsum of two operands, convolutions and both of their gradients are all this; only the maps differ.
"""
from __future__ import annotations

from collections.abc import Sequence
from math import gcd, lcm

import numpy as np

from graphc.errors import InternalError
from graphc.ir.dims import Dim, largest, product_of, static_dim, static_shape
from graphc.records import dataclass


@dataclass(frozen=True)
class AxisMap:
    """Index along one tensor axis: (sum(coefficient * dim) + offset) / divisor.

    `padded`: where the index is outside the axis, or the division leaves a remainder, the element reads as 0.
    """
    terms: tuple[tuple[int, int], ...]      # (coefficient, dim id)
    offset: int = 0
    divisor: int = 1
    padded: bool = False

    @property
    def is_affine(self) -> bool:
        """Every index of the iteration space is inside the axis."""
        return not self.padded and self.divisor == 1

    @property
    def dims(self) -> tuple[int, ...]:
        return tuple(dim for _, dim in self.terms)

    def span(self, sizes: Sequence[Dim]) -> tuple[Dim, Dim]:
        """Smallest and largest undivided index over dims of the given sizes (all > 0)."""
        low: Dim = self.offset
        high: Dim = self.offset
        for c, d in self.terms:
            step = c * (sizes[d] - 1)
            above = largest(0, step)
            low, high = low + (step - above), high + above
        return low, high

    def __str__(self) -> str:
        terms = [f"{c}*d{d}" if c != 1 else f"d{d}" for c, d in self.terms] + [str(self.offset)] * bool(self.offset)
        text = " + ".join(terms) or "0"
        if self.divisor != 1:
            text = f"({text})/{self.divisor}"
        return f"pad {text}" if self.padded else text


def axis(*dims: int) -> AxisMap:
    """The plain map: the index is the sum of the dims (one, usually; none for an axis of size 1)."""
    return AxisMap(tuple((1, d) for d in dims))


Maps = tuple[AxisMap, ...]


@dataclass(frozen=True)
class Contraction:
    """sizes[d] is the extent of dim d; batch, m, n, k part the dims; a, b, out have one map per tensor axis."""
    sizes: tuple[Dim, ...]
    batch: tuple[int, ...]
    m: tuple[int, ...]
    n: tuple[int, ...]
    k: tuple[int, ...]
    a: Maps
    b: Maps
    out: Maps

    def __post_init__(self) -> None:
        groups = self.batch + self.m + self.n + self.k
        if sorted(groups) != list(range(len(self.sizes))):
            raise InternalError(f"contraction: batch, m, n, k must part the {len(self.sizes)} dims, got {groups}")
        _check_dims(self.a, set(self.batch + self.m + self.k), "a")
        _check_dims(self.b, set(self.batch + self.n + self.k), "b")
        _check_dims(self.out, set(self.batch + self.m + self.n), "out")

    def extent(self, dims: Sequence[int]) -> Dim:
        return product_of(self.sizes[d] for d in dims)

    @property
    def flops(self) -> Dim:
        """Multiplications and additions, terms that meet padding included."""
        return 2 * product_of(self.sizes)

    @property
    def residue_steps(self) -> tuple[int, ...]:
        """For each dim the step after which every division that it is in leaves the same remainder."""
        steps = [1] * len(self.sizes)
        for m in (*self.a, *self.b):
            for coefficient, d in m.terms:
                steps[d] = lcm(steps[d], m.divisor // gcd(coefficient, m.divisor))
        return tuple(steps)

    @property
    def swapped(self) -> Contraction:
        """The same sums with the operands' roles exchanged: m and n, a and b."""
        return Contraction(self.sizes, self.batch, self.n, self.m, self.k, self.b, self.a, self.out)

    def reference(self, a: np.ndarray, b: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """The output of the given shape, by numpy. Slow and hungry (it gathers both operands): the oracle of the tests.

        Elements of the output that no dims map to (phases of a strided gradient) are 0.
        """
        sizes = static_shape(self.sizes)
        left = _gather(a, self.a, sizes, self.batch + self.m + self.k)
        right = _gather(b, self.b, sizes, self.batch + self.k + self.n)
        order = self.batch + self.m + self.n
        sums = np.einsum(left, self.batch + self.m + self.k, right, self.batch + self.k + self.n, order, optimize=True)
        out = np.zeros(shape, np.result_type(a, b))
        out[_indices(self.out, sizes, order, shape)[0]] = sums if self.out else sums.reshape(())
        return out

    def __str__(self) -> str:
        named = (("batch", self.batch), ("m", self.m), ("n", self.n), ("k", self.k))
        groups = ", ".join(f"{name}=" + "×".join(f"d{d}:{self.sizes[d]}" for d in dims) for name, dims in named if dims)
        tensors = ", ".join(f"{name}[{', '.join(map(str, maps))}]"
                            for name, maps in (("a", self.a), ("b", self.b), ("out", self.out)))
        return f"contraction({groups}; {tensors})"


def _check_dims(maps: Maps, allowed: set[int], name: str) -> None:
    used = {d for m in maps for d in m.dims}
    if not used <= allowed:
        raise InternalError(f"contraction: {name} uses dims {sorted(used - allowed)} of the wrong group")


def _indices(maps: Maps, sizes: Sequence[int], order: Sequence[int],
             shape: Sequence[int]) -> tuple[tuple[np.ndarray, ...], np.ndarray | None]:
    """Index arrays (one per axis, broadcasting over `order`) and the mask of the elements that are inside (None:
    all)."""
    grid = {d: np.arange(sizes[d]).reshape([-1 if e == d else 1 for e in order]) for d in order}
    indices, mask = [], None
    for position, m in enumerate(maps):
        raw = sum((c * grid[d] for c, d in m.terms), np.zeros([1] * len(order), np.int64)) + m.offset
        index = raw // m.divisor
        if m.padded:
            inside = (raw % m.divisor == 0) & (index >= 0) & (index < shape[position])
            mask = inside if mask is None else mask & inside
            index = np.clip(index, 0, max(shape[position] - 1, 0))
        indices.append(index)
    return tuple(indices), mask


def _gather(t: np.ndarray, maps: Maps, sizes: Sequence[int], order: Sequence[int]) -> np.ndarray:
    extents = [sizes[d] for d in order]
    if 0 in extents or t.size == 0:
        return np.zeros(extents, t.dtype)
    indices, mask = _indices(maps, sizes, order, t.shape)
    values = t[indices] if maps else t[()]
    if mask is not None:
        values = np.where(mask, values, t.dtype.type(0))
    return np.broadcast_to(values, extents)


# --- the usual contractions ---------------------------------------------------------------------------------------

def matmul(a: Sequence[Dim], b: Sequence[Dim]) -> Contraction:
    """a[..., M, K] @ b[..., K, N] -> out[..., M, N]; leading axes broadcast like numpy's (shapes are taken to fit)."""
    rank = max(len(a), len(b)) - 2
    lead = [_broadcast(_lead(a, rank, i), _lead(b, rank, i)) for i in range(rank)]
    m, n, k = rank, rank + 1, rank + 2

    def operand(shape: Sequence[Dim], *last: int) -> Maps:
        own = range(rank - (len(shape) - 2), rank)
        return tuple(axis() if _lead(shape, rank, i) == 1 and lead[i] != 1 else axis(i)
                     for i in own) + tuple(map(axis, last))
    return Contraction((*lead, a[-2], b[-1], a[-1]), tuple(range(rank)), (m,), (n,), (k,),
                       operand(a, m, k), operand(b, k, n), tuple(axis(i) for i in (*range(rank), m, n)))


def _lead(shape: Sequence[Dim], rank: int, i: int) -> Dim:
    """Size of leading axis i of `rank`, 1 where the tensor has fewer."""
    j = i - (rank - (len(shape) - 2))
    return shape[j] if j >= 0 else 1


def _broadcast(a: Dim, b: Dim) -> Dim:
    return b if a == 1 else a


@dataclass(frozen=True)
class Window:
    """How a convolution walks one spatial axis; `pad` is (before, after)."""
    size: Dim
    kernel: int
    stride: int = 1
    dilation: int = 1
    pad: tuple[int, int] = (0, 0)

    @property
    def out(self) -> Dim:
        return (self.size + sum(self.pad) - self.dilation * (self.kernel - 1) - 1) // self.stride + 1

    @property
    def is_padded(self) -> bool:
        return self.pad != (0, 0)

    def image(self, out_dim: int, kernel_dim: int) -> AxisMap:
        """Position in the image of an output position and a kernel position."""
        return AxisMap(((self.stride, out_dim), (self.dilation, kernel_dim)), -self.pad[0], 1, self.is_padded)

    def result(self, image_dim: int, kernel_dim: int) -> AxisMap:
        """Position in the output that an image position reaches through a kernel position."""
        return AxisMap(((1, image_dim), (-self.dilation, kernel_dim)), self.pad[0], self.stride, True)


def conv(batch: Dim, channels: int, features: int, windows: Sequence[Window], groups: int = 1) -> Contraction:
    """x[N, C, *image] * w[F, C/groups, *kernel] -> y[N, F, *out], as torch.nn.Conv: correlation, F and C divided among
    groups."""
    r = len(windows)
    g, n, f, c = 0, 1, 2, 3
    out, kernel = range(4, 4 + r), range(4 + r, 4 + 2 * r)
    sizes = (groups, batch, features // groups, channels // groups, *(w.out for w in windows),
             *(w.kernel for w in windows))
    return Contraction(sizes, (g,), (n, *out), (f,), (c, *kernel),
                       (axis(n), _grouped(g, c, sizes), *(w.image(o, k) for w, o, k in zip(windows, out, kernel))),
                       (_grouped(g, f, sizes), axis(c), *map(axis, kernel)),
                       (axis(n), _grouped(g, f, sizes), *map(axis, out)))


def conv_input_gradient(batch: Dim, channels: int, features: int, windows: Sequence[Window],
                        groups: int = 1) -> Contraction:
    """dy[N, F, *out] and w[F, C/groups, *kernel] -> dx[N, C, *image]."""
    r = len(windows)
    g, n, f, c = 0, 1, 2, 3
    image, kernel = range(4, 4 + r), range(4 + r, 4 + 2 * r)
    sizes = (groups, batch, features // groups, channels // groups, *(w.size for w in windows),
             *(w.kernel for w in windows))
    return Contraction(sizes, (g,), (n, *image), (c,), (f, *kernel),
                       (axis(n), _grouped(g, f, sizes), *(w.result(i, k) for w, i, k in zip(windows, image, kernel))),
                       (_grouped(g, f, sizes), axis(c), *map(axis, kernel)),
                       (axis(n), _grouped(g, c, sizes), *map(axis, image)))


def conv_weight_gradient(batch: Dim, channels: int, features: int, windows: Sequence[Window],
                         groups: int = 1) -> Contraction:
    """dy[N, F, *out] and x[N, C, *image] -> dw[F, C/groups, *kernel]."""
    r = len(windows)
    g, n, f, c = 0, 1, 2, 3
    out, kernel = range(4, 4 + r), range(4 + r, 4 + 2 * r)
    sizes = (groups, batch, features // groups, channels // groups, *(w.out for w in windows),
             *(w.kernel for w in windows))
    return Contraction(sizes, (g,), (f,), (c, *kernel), (n, *out),
                       (axis(n), _grouped(g, f, sizes), *map(axis, out)),
                       (axis(n), _grouped(g, c, sizes), *(w.image(o, k) for w, o, k in zip(windows, out, kernel))),
                       (_grouped(g, f, sizes), axis(c), *map(axis, kernel)))


def _grouped(group: int, dim: int, sizes: Sequence[Dim]) -> AxisMap:
    """Channel axis of a grouped tensor: group * channels per group + channel. Channels are numbers."""
    return AxisMap(((static_dim(sizes[dim]), group), (1, dim))) if static_dim(sizes[group]) > 1 else axis(dim)
