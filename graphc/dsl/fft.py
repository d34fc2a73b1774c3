"""Fourier transforms of known length. A complex array is a real one with a last axis of two, real and imaginary part
(as in ONNX, and torch.view_as_real); `axis` counts the axes before that one.
"""
from __future__ import annotations

from math import sqrt

import numpy as np

from graphc.dsl.array import Array, as_array, as_float, emit
from graphc.dsl.elementwise import Operand
from graphc.dsl.form import formed
from graphc.dsl.index import broadcast
from graphc.errors import GraphError
from graphc.ir.convert import choice, flag, integer
from graphc.ir.types import normalize_axis

NORMS = ("backward", "ortho", "forward")
PADDINGS = ("reflect", "constant")
LONGEST = 1 << 24                   # transform: its constants stand in the graph


@formed
def fft(x: Operand, n: int | None = None, axis: int = -1, norm: str = "backward") -> Array:
    """y[k] = sum over j of x[j] exp(-2 pi i j k / n) along `axis` of complex x [..., 2]. n: so many numbers, the
    first of x, or zeros behind them. norm "backward": the inverse divides by n; "forward": this one does; "ortho":
    both by its root. (numpy.fft.fft; of a real array take rfft, or stack it with zeros.)"""
    return _complex("fft", x, n, axis, norm, False)


@formed
def ifft(x: Operand, n: int | None = None, axis: int = -1, norm: str = "backward") -> Array:
    """The inverse of `fft`."""
    return _complex("ifft", x, n, axis, norm, True)


@formed
def rfft(x: Operand, n: int | None = None, axis: int = -1, norm: str = "backward") -> Array:
    """The first n // 2 + 1 numbers of `fft` of a real x; the others are their conjugates. The result has a last axis of
    two more than x."""
    x = as_float(x)
    axis = normalize_axis(axis, x.ndim)
    length = _length("rfft", x, n, axis)
    y = emit("rdft", _last(_fitted(x, length, axis), axis))
    return _scaled(_back(y, axis), length, norm, False)


@formed
def irfft(x: Operand, n: int | None = None, axis: int = -1, norm: str = "backward") -> Array:
    """The n real numbers (default: 2 (m - 1), of x with m) whose `rfft` is complex x [..., 2]. The imaginary part of
    the first number, and of the one at n / 2, is not read."""
    x = _pairs("irfft", x)
    axis = normalize_axis(axis, x.ndim - 1)
    have = _length("irfft", x, None, axis)
    length = 2 * (have - 1) if n is None else _length("irfft", x, n, axis)
    if length < 1:
        raise GraphError(f"irfft of {have} numbers: give n, how many real ones there are")
    y = emit("irdft", _last(_fitted(x, length // 2 + 1, axis), axis, 1), n=length)
    return _scaled(_moved(y, y.ndim - 1, axis), length, norm, True)


@formed
def stft(x: Operand, n_fft: int, hop: int | None = None, window: Operand | None = None, center: bool = True,
         padding: str = "reflect", onesided: bool = True) -> Array:
    """Spectra of pieces of real x [..., T]: [..., n_fft // 2 + 1, frames, 2], as torch.stft (onesided=False: all n_fft
    numbers). Pieces of n_fft begin every `hop` (default n_fft // 4) and are multiplied by `window`, which is put in
    their middle if it is shorter. center: piece i has its middle at i * hop of x, which is continued by its reflection
    ("reflect") or zeros ("constant")."""
    x = as_float(x)
    n_fft, hop = _framing("stft", n_fft, hop, x)
    length = _length("stft", x, None, x.ndim - 1)
    half = n_fft // 2 if flag(center, "center") else 0
    choice(padding, "padding", PADDINGS)
    if half and padding == "reflect" and half >= length:
        raise GraphError(f"stft: reflection needs more than {half} numbers, x has {length}; use padding=\"constant\"")
    if length + 2 * half < n_fft:
        raise GraphError(f"stft: {length} numbers are less than one piece of {n_fft}")
    if half and padding == "constant":
        low = (0,) * (x.ndim - 1) + (half,)
        x, length, half = emit("pad", x, low=low, high=low), length + 2 * half, 0
    starts = np.arange((length + 2 * half - n_fft) // hop + 1) * hop - half
    places = starts[:, None] + np.arange(n_fft)
    places = np.abs(places)                                 # mirrored at both ends
    places = np.where(places >= length, 2 * (length - 1) - places, places)
    pieces = emit("take", x, as_array(places), axis=x.ndim - 1) * _window("stft", window, n_fft, x)
    y = emit("rdft", pieces)
    if not flag(onesided, "onesided"):
        y = emit("dft", emit("stack", pieces, pieces * 0, axis=pieces.ndim))
    return y.swapaxes(-2, -3)


@formed
def istft(x: Operand, n_fft: int, hop: int | None = None, window: Operand | None = None, center: bool = True,
          length: int | None = None) -> Array:
    """The real numbers [..., T] of which complex x [..., n_fft // 2 + 1, frames, 2] is the `stft`, by least squares:
    pieces times window are added up and divided by the sum of the windows' squares (torch.istft). center as there;
    length: how many numbers (default: what the pieces cover). Where windows leave a number out it is NaN or
    infinite."""
    x = _pairs("istft", x)
    n_fft, hop = _framing("istft", n_fft, hop, x)
    if x.ndim < 3 or x.shape[-3] != n_fft // 2 + 1 or not isinstance(x.shape[-2], int) or x.shape[-2] < 1:
        raise GraphError(f"istft takes x [..., {n_fft // 2 + 1}, frames, 2] for n_fft {n_fft}, got {x.type}")
    frames = x.shape[-2]
    weights = _window("istft", window, n_fft, x)
    pieces = emit("irdft", x.swapaxes(-2, -3), n=n_fft) * (weights / n_fft)
    total = n_fft + hop * (frames - 1)
    places = np.arange(frames)[:, None] * hop + np.arange(n_fft)
    lead = pieces.shape[:-2]
    zero = as_array(0, x.dtype)
    summed = emit("scatter_add", broadcast(zero, (*lead, total)), as_array(places), pieces, axis=len(lead))
    squares = broadcast(weights * weights, (frames, n_fft))
    envelope = emit("scatter_add", broadcast(zero, (total,)), as_array(places), squares, axis=0)
    start = n_fft // 2 if flag(center, "center") else 0
    stop = total - start if length is None else start + integer(length, "length", 1)
    inside = slice(start, min(stop, total))
    y = summed[..., inside] / envelope[inside]
    missing = stop - min(stop, total)
    return y if not missing else emit("pad", y, low=(0,) * y.ndim, high=(0,) * (y.ndim - 1) + (missing,))


def _complex(name: str, x: Operand, n: int | None, axis: int, norm: str, inverse: bool) -> Array:
    x = _pairs(name, x)
    axis = normalize_axis(axis, x.ndim - 1)
    length = _length(name, x, n, axis)
    y = emit("dft", _last(_fitted(x, length, axis), axis, 1), inverse=inverse)
    return _scaled(_back(y, axis), length, norm, inverse)


def _pairs(name: str, x: Operand) -> Array:
    x = as_float(x)
    if x.ndim < 2 or x.shape[-1] != 2:
        raise GraphError(f"{name} takes complex numbers as a last axis of two, real and imaginary part: [..., n, 2]; "
                         f"got {x.type}. Of real numbers take gc.rfft, or gc.stack((x, gc.zeros_like(x)), -1)")
    return x


def _length(name: str, x: Array, n: int | None, axis: int) -> int:
    """How many numbers are transformed."""
    if n is not None:
        return _bounded(name, integer(n, "n", 1))
    size = x.shape[axis]
    if not isinstance(size, int):
        raise GraphError(f"{name} needs the size {size} of axis {axis} as an int; bind it first")
    if size < 1:
        raise GraphError(f"{name} of no numbers: axis {axis} of {x.type} is empty")
    return _bounded(name, size)


def _bounded(name: str, n: int) -> int:
    if n > LONGEST:
        raise GraphError(f"{name} is of {LONGEST} numbers at most, got {n}")
    return n


def _fitted(x: Array, length: int, axis: int) -> Array:
    """The first numbers along the axis, or zeros behind them."""
    size = x.shape[axis]
    if isinstance(size, int) and size < length:
        high = tuple(length - size if i == axis else 0 for i in range(x.ndim))
        return emit("pad", x, low=(0,) * x.ndim, high=high)
    if size == length:
        return x
    stop = tuple(length if i == axis else d for i, d in enumerate(x.shape))
    return emit("slice", x, start=(0,) * x.ndim, stop=stop, step=(1,) * x.ndim)


def _moved(x: Array, source: int, to: int) -> Array:
    order = [i for i in range(x.ndim) if i != source]
    order.insert(to, source)
    return x if order == list(range(x.ndim)) else emit("transpose", x, perm=tuple(order))


def _last(x: Array, axis: int, behind: int = 0) -> Array:
    """The axis moved to the end, but for the last `behind` ones."""
    return _moved(x, axis, x.ndim - 1 - behind)


def _back(x: Array, axis: int) -> Array:
    return _moved(x, x.ndim - 2, axis)


def _scaled(x: Array, n: int, norm: str, inverse: bool) -> Array:
    choice(norm, "norm", NORMS)
    if norm == "ortho":
        return x * (1 / sqrt(n))
    return x * (1 / n) if inverse == (norm == "backward") else x


def _framing(name: str, n_fft: int, hop: int | None, x: Array) -> tuple[int, int]:
    n_fft = _bounded(name, integer(n_fft, "n_fft", 1))
    hop = max(n_fft // 4, 1) if hop is None else integer(hop, "hop", 1)
    if not x.ndim:
        raise GraphError(f"{name} takes arrays [..., T], got {x.type}")
    return n_fft, hop


def _window(name: str, window: Operand | None, n_fft: int, like: Array) -> Array:
    """The window as n_fft numbers; None: ones."""
    if window is None:
        return broadcast(as_array(1, like.dtype), (n_fft,))
    given = as_array(window, like.dtype)
    if not isinstance(window, Array):
        given = given.astype(like.dtype)
    size = given.shape[0] if given.ndim == 1 else None
    if not isinstance(size, int) or not 0 < size <= n_fft or given.dtype != like.dtype:
        raise GraphError(f"{name}: the window has one axis of 1 to {n_fft} numbers of {like.dtype}, got {given.type}")
    low = (n_fft - size) // 2
    return given if size == n_fft else emit("pad", given, low=(low,), high=(n_fft - size - low,))
