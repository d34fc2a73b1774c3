"""Winograd's minimal filtering F(m, 3): m results of a 3-tap filter by m + 2 products (Winograd 1980; Lavin & Gray,
arXiv:1509.09308).

Two-dimensional: Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A for a tile of m × m results, a kernel g [3, 3] and the m + 2 × m + 2
elements d under it. It is linear in g, so that the gradient towards g is Gᵀ [Σ (A dY Aᵀ) ⊙ (Bᵀ d B)] G, summed over
tiles.
"""
from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from math import prod

import numpy as np

from graphc.records import dataclass

TAPS = 3

# Where the polynomials are evaluated, infinity apart. 5/8 and 3/2 are exact in binary and make half the error of 1 and
# 2
# (cf. Barabasz, Anderson, Soodhalter and Gregg, "Error analysis and improving the accuracy of Winograd convolution",
# TOMS 2020).
POINTS = {2: ("0", "1", "-1"), 4: ("0", "5/8", "-5/8", "3/2", "-3/2")}

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Transforms:
    """at [m, n], g [n, 3] and bt [n, n], n = m + 2. All numbers but those of g are exact in f32, and so in f64."""
    at: Matrix
    g: Matrix
    bt: Matrix

    @property
    def a(self) -> Matrix:
        return transposed(self.at)

    @property
    def gt(self) -> Matrix:
        return transposed(self.g)


def transposed(matrix: Matrix) -> Matrix:
    return tuple(zip(*matrix))


@cache
def transforms(m: int) -> Transforms:
    """Toom–Cook: kernel and results as polynomials, evaluated at the points and at infinity, multiplied, interpolated;
    transposed.
    """
    points = [Fraction(p) for p in POINTS[m]]
    at = [[x**i for x in points] + [Fraction(i == m - 1)] for i in range(m)]
    g = [[x**i / prod(x - y for y in points if y != x) for i in range(TAPS)]
         for x in points] + [[Fraction(i == TAPS - 1) for i in range(TAPS)]]
    bt = [_product_of_roots([y for y in points if y != x]) + [Fraction(0)]
          for x in points] + [_product_of_roots(points)]
    return Transforms(*(tuple(tuple(map(float, row)) for row in matrix) for matrix in (at, g, bt)))


def _product_of_roots(roots: Sequence[Fraction]) -> list[Fraction]:
    """Coefficients of prod(x - root), the constant one first."""
    c = [Fraction(1)]
    for root in roots:
        c = [shifted - root * same for shifted, same in zip([Fraction(0), *c], [*c, Fraction(0)])]
    return c


def both_sides(matrix: Matrix, x: np.ndarray) -> np.ndarray:
    """matrix @ x @ matrixᵀ over the last two axes."""
    a = np.array(matrix, x.dtype)
    return a @ x @ a.T


# --- errors -------------------------------------------------------------------------------------------------------

def growth(m: int) -> float:
    """c such that rounding changes a result by at most about c · roundings · eps · sum over channels of max|g| ·
    max|d|: the two-dimensional max-norm of |Aᵀ| ((|G| 1) ⊙ (|Bᵀ| 1)). For the direct algorithm it is 9.
    """
    t = transforms(m)
    at, g, bt = (np.abs(np.array(x)) for x in (t.at, t.g, t.bt))
    return float((at @ (g.sum(1) * bt.sum(1))).max() ** 2)


def roundings(m: int, channels: int) -> int:
    """Roundings on the way of a product into a result, at most: two passes of each transform (a term of a row is
    rounded once by its own coefficient and once by each addition; coefficients of G are rounded too), and the sum
    over channels.
    """
    n = m + 2
    return 2 * (n + (TAPS + 2) + n) + channels + 1


def error_bound(m: int, x: np.ndarray, w: np.ndarray, y_shape: Sequence[int],
                padding: Sequence[tuple[int, int]]) -> np.ndarray:
    """What rounding to the type of x may change in each result of the convolution of x [N, C, H, W] by w [F, C, 3, 3],
    stride 1.

    k · eps / (1 - k · eps) times |Aᵀ| [sum over channels of (|G| |w| |Gᵀ|) ⊙ (|Bᵀ| |d| |B|)] |A|, k the roundings
    (Higham 2002, section 3).
    """
    at, g, bt = _absolute(m)
    u = both_sides(g, np.abs(w).astype(np.float64))
    v = both_sides(bt, tiles(np.abs(x).astype(np.float64), m, y_shape[2:], padding))
    k = roundings(m, x.shape[1]) * _unit_roundoff(x)
    return k / (1 - k) * untiled(both_sides(at, np.einsum("ncijpq,fcpq->nfijpq", v, u, optimize=True)), y_shape)


def gradient_error_bound(m: int, x: np.ndarray, dy: np.ndarray, padding: Sequence[tuple[int, int]]) -> np.ndarray:
    """The same of the gradient towards the kernels, a sum over tiles."""
    at, g, bt = _absolute(m)
    v = both_sides(bt, tiles(np.abs(x).astype(np.float64), m, dy.shape[2:], padding))
    d = both_sides(transposed(at), tiled(np.abs(dy).astype(np.float64), m))
    k = (2 * (m + 2 * (m + 2) + 2) + d.shape[0] * d.shape[2] * d.shape[3] + 3) * _unit_roundoff(x)
    return k / (1 - k) * both_sides(transposed(g), np.einsum("ncijpq,nfijpq->fcpq", v, d, optimize=True))


def _unit_roundoff(x: np.ndarray) -> float:
    return float(np.finfo(x.dtype).eps) / 2


def _absolute(m: int) -> tuple[Matrix, Matrix, Matrix]:
    t = transforms(m)
    at, g, bt = (tuple(tuple(map(abs, row)) for row in matrix) for matrix in (t.at, t.g, t.bt))
    return at, g, bt


# --- tiles --------------------------------------------------------------------------------------------------------

def tiles(x: np.ndarray, m: int, out: Sequence[int], padding: Sequence[tuple[int, int]]) -> np.ndarray:
    """The elements under each tile of m × m results: x [N, C, H, W] -> [N, C, rows, columns, m + 2, m + 2], zeros
    outside of the image.
    """
    count = [-(-n // m) for n in out]
    ends = [max(0, c * m + TAPS - 1 - p[0] - s) for c, p, s in zip(count, padding, x.shape[2:])]
    padded = np.pad(x, ((0, 0), (0, 0), *((p[0], end) for p, end in zip(padding, ends))))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (m + 2, m + 2), axis=(2, 3))
    return windows[:, :, :count[0] * m:m, :count[1] * m:m]


def untiled(y: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Tiles [N, F, rows, columns, m, m] side by side, cut to `shape` [N, F, H, W]."""
    n, f, rows, columns, m, _ = y.shape
    return y.transpose(0, 1, 2, 4, 3, 5).reshape(n, f, rows * m, columns * m)[:, :, :shape[2], :shape[3]]


def tiled(y: np.ndarray, m: int) -> np.ndarray:
    """The inverse: y [N, F, H, W] cut into tiles [N, F, rows, columns, m, m], zeros behind its end."""
    n, f, h, w = y.shape
    rows, columns = -(-h // m), -(-w // m)
    padded = np.pad(y, ((0, 0), (0, 0), (0, rows * m - h), (0, columns * m - w)))
    return padded.reshape(n, f, rows, m, columns, m).transpose(0, 1, 2, 4, 3, 5)
