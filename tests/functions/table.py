"""Every public function that takes or makes arrays, as rows of a table: how it is called and what numpy gives.

Axes have names, "ab,bc" for the shapes of two operands: a small letter is a size that may be anything, 0 and 1 too;
capital letters are fixed.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import mpmath as mp
import numpy as np
import windows as w

import graphc as gc

SIZES = {"a": 3, "b": 4, "c": 2, "d": 5, "K": 2, "H": 4, "W": 4, "C": 2, "F": 2, "N": 2, "T": 3, "P": 2, "E": 4}
FLOAT, INT, BOOL = "f", "i", "b"

# Public names that take no array: they make or run graphs, or are types, modules and settings.
NOT_OF_ARRAYS = frozenset((
    "Array", "DType", "IntegerBlocks", "TensorType", "GraphFunction", "GraphError", "InternalError", "Generator", "graph", "grad",
    "value_and_grad", "vjp", "jvp",
    "debug_print", "hvp", "jacobian", "jacfwd", "jacrev", "hessian", "vmap", "compile", "plan", "calibrate", "check_gradients", "train_step", "distributed", "batches", "windows", "load_weights",
    "save_weights", "from_onnx", "to_onnx", "from_torch", "to_torch", "from_pretrained", "from_gguf", "export", "generate", "draw", "explore", "parse",
    "nn", "optim", "models", "f32", "f64", "i32", "i64", "bool_"))


@dataclass(frozen=True, eq=False)
class Row:
    """`call(*arrays)` in graphc and `numpy(*arrays)`; `kinds`: of its arrays; `special`: as numpy at NaN and infinity
    too.

    `integers`: operands that are positions or counts, drawn below so much. `smooth`: gradients may be compared with
    differences. `draws`: numbers are random, only shape and dtype are compared.
    """
    name: str
    shapes: tuple[str, ...]
    numpy: Callable
    call: Callable
    kinds: str = FLOAT
    low: float = -2.0
    high: float = 2.0
    special: bool = True
    smooth: bool = True
    integers: tuple[tuple[int, int], ...] = ()
    draws: bool = False
    tag: str = ""

    @property
    def id(self) -> str:
        return f"{self.name}{'-' * bool(self.tag)}{self.tag}"

    @property
    def letters(self) -> list[str]:
        """Sizes that may be anything."""
        return sorted({c for s in self.shapes for c in s if c.islower()})

    def arrays(self, dtype, sizes: dict[str, int] | None = None) -> list[np.ndarray]:
        rng, sizes = np.random.default_rng(len(self.id) + sum(map(ord, self.id))), SIZES | (sizes or {})
        below = dict(self.integers)
        out = []
        for i, labels in enumerate(self.shapes):
            shape = tuple(sizes[c] for c in labels)
            if i in below:
                out.append(rng.integers(0, below[i], shape))
            elif dtype == bool:
                out.append(rng.random(shape) < 0.5)
            elif np.dtype(dtype).kind == "f":
                out.append(rng.uniform(self.low, self.high, shape).astype(dtype))
            else:
                out.append(rng.integers(max(-5, math.floor(self.low)), 6, shape).astype(dtype))
        return out


def row(name: str, shapes: str, numpy: Callable, *args, **options) -> Row:
    """A row that calls gc.<name>(*arrays, *args), options of `Row` apart."""
    known = {k: options.pop(k) for k in tuple(options) if k in Row.__dataclass_fields__}
    known.setdefault("call", lambda *arrays: getattr(gc, name)(*arrays, *args, **options))
    known.setdefault("tag", ",".join(f"{k}={v}" for k, v in options.items()) or ",".join(map(str, args)))
    return Row(name, tuple(shapes.split(",")) if shapes else (), numpy, **known)


def several(names: str, shapes: str, **options) -> list[Row]:
    """Functions that numpy calls by the same name."""
    return [row(n, shapes, getattr(np, n), **options) for n in names.split()]


def erf(x):
    return np.vectorize(math.erf, otypes=[x.dtype])(x) if x.size else x


def by_mpmath(function):
    return lambda x: np.array([float(function(v)) for v in x.ravel().tolist()], x.dtype).reshape(x.shape)


def sigmoid(x):
    return np.where(x >= 0, 1 / (1 + np.exp(-np.abs(x))),
                    np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x)))) + 0 * np.where(np.isnan(x), x, 0)


def softmax(x, axis=-1):
    e = np.exp(x - np.max(x, axis, keepdims=True, initial=-np.inf))
    return e / e.sum(axis, keepdims=True)


def logsumexp(x, axis=None, keepdims=False):
    return np.logaddexp.reduce(x, axis=axis,
                               keepdims=keepdims) if axis is not None else np.logaddexp.reduce(x.reshape(-1))


def standard(x, axes, eps):
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


def batch_norm(x, gamma, beta):
    """As torch, it refuses one number for each channel, whose variance is 0."""
    if x.shape[0] * x.shape[2] == 1:
        raise ValueError("one number for each channel")
    return standard(x, (0, 2), 1e-2) * gamma[:, None] + beta[:, None], x.mean((0, 2)), x.var((0, 2))


def largest(rule, x, axis):
    """Of nothing numpy's max has no value even where none is asked for; here then there is none to give."""
    shape = np.empty(x.shape).sum(axis).shape
    return rule(np.ones((1,) * x.ndim, x.dtype), axis).reshape(-1)[:0].reshape(shape) if 0 in shape else rule(x, axis)


def attention(q, k, v, mask=None):
    s = q @ k.swapaxes(-1, -2) / math.sqrt(max(q.shape[-1], 1))
    s = s if mask is None else np.where(mask, s, -np.inf)
    return np.nan_to_num(softmax(s), nan=0.0) @ v if mask is not None else softmax(s) @ v


def one_of(x, index, axis=0):
    return np.take(x, index, axis)


def added(x, at, updates):
    y = x.copy()
    np.add.at(y, at, updates)
    return y


def definite(x):
    """Symmetric, far from singular, with distinct eigenvalues; of symbolic arrays too."""
    return x @ x.mT / 4 + np.diag(np.arange(3, 3 + x.shape[-1])).astype(np.float32 if str(x.dtype) in ("f32", "float32") else float)


def wide(x):
    return x + np.eye(*x.shape[-2:], dtype=np.float32 if str(x.dtype) in ("f32", "float32") else float) * 3


def eigen(x):
    w, v = np.linalg.eigh(x)
    return w, (v * w[..., None, :]) @ v.mT


def positive(q, r):
    signs = np.sign(np.diagonal(r, 0, -2, -1))
    return q * signs[..., None, :], r * signs[..., None]


def as_complex(x):
    return x[..., 0] + 1j * x[..., 1]


def as_pairs(z):
    return np.stack([z.real, z.imag], -1)


def stft(x, n, hop):
    x = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(n // 2, n // 2)], "reflect")
    pieces = np.lib.stride_tricks.sliding_window_view(x, n, -1)[..., ::hop, :]
    return as_pairs(np.fft.rfft(pieces)).swapaxes(-2, -3)


def istft(x, n, hop):
    pieces = np.fft.irfft(as_complex(x).swapaxes(-1, -2), n)
    total, count = np.zeros((*x.shape[:-3], n + hop * (x.shape[-2] - 1))), np.zeros(n + hop * (x.shape[-2] - 1))
    for i in range(x.shape[-2]):
        total[..., i * hop:i * hop + n] += pieces[..., i, :]
        count[i * hop:i * hop + n] += 1
    return (total / count)[..., n // 2:-(n // 2)].astype(x.dtype)


def corners(dtype):
    """The places of the four corners, for two images."""
    y, x = np.meshgrid([-1, 1], [-1, 1], indexing="ij")
    return np.broadcast_to(np.stack([x, y], -1), (2, 2, 2, 2)).astype(np.float32 if str(dtype) == "f32" else float)


def padded(found, size):
    """What is found, with zeros up to `size`, and how much it is."""
    return np.concatenate([found, np.zeros(size, found.dtype)])[:size], np.asarray(len(found))


def padded_rows(x):
    kept = x[:, [0, 2]]
    return np.concatenate([kept, np.zeros_like(kept)], 1), np.asarray(2)


def distinct(x, size):
    values, indices, inverse, counts = np.unique(x, True, True, True)
    return (*(padded(a, size)[0] for a in (values, indices)), np.minimum(inverse, size - 1), padded(counts, size)[0],
            np.asarray(len(values)))


UFUNCS = {"add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}


def written(x, at, updates, how):
    y = x.copy()
    if how == "none":
        y[at] = updates
    else:
        UFUNCS[how].at(y, at, updates)
    return y


def written_along(x, at, updates, how, axis=1):
    places = list(np.indices(at.shape, sparse=True))
    places[axis] = at
    if how != "mean":
        return written(x, tuple(places), updates, how)
    return written(x, tuple(places), updates, "add") / written(np.ones_like(x), tuple(places), np.ones_like(updates), "add")


def added_along(x, at, updates, axis):
    y = x.copy()
    places = list(np.indices(at.shape, sparse=True))
    places[axis] = at
    np.add.at(y, tuple(places), updates)
    return y


def recurrence(a, x):
    y, last = np.zeros_like(x), np.zeros(x.shape[1:], x.dtype)
    for i in range(len(x)):
        last = y[i] = (a[i] * last if i else 0) + x[i]
    return y


def cross_entropy(x, t, ignore=None):
    losses = (logsumexp(x, 1) - np.take_along_axis(x, t[:, None], 1)[:, 0]) if x.size else np.zeros(len(x), x.dtype)
    kept = np.ones(t.shape, bool) if ignore is None else t != ignore
    return np.where(kept, losses, 0).sum() / kept.sum()


def bce(x, t):
    return np.mean(np.maximum(x, 0) - x * t + np.log1p(np.exp(-np.abs(x))))


IMAGES = {1: "W", 2: "HW", 3: "THW"}                    # spatial axes by their number
ANY, NUMBER = FLOAT + INT + BOOL, FLOAT + INT
UNARY = [
    *several("exp expm1 sin cos tanh floor ceil isnan isfinite", "ab"),
    *several("sinh cosh tan", "ab", special=False), *several("abs sign", "ab", kinds=NUMBER),
    *several("round", "ab", smooth=False),
    row("neg", "ab", np.negative, kinds=NUMBER), row("square", "ab", np.square, kinds=NUMBER),
    row("log", "ab", np.log, low=0.2), row("log1p", "ab", np.log1p, low=-0.8), row("sqrt", "ab", np.sqrt, low=0.2),
    row("rsqrt", "ab", lambda x: 1 / np.sqrt(x), low=0.2), row("sigmoid", "ab", sigmoid), row("erf", "ab", erf),
    row("relu", "ab", lambda x: np.maximum(x, 0), kinds=NUMBER),
    row("leaky_relu", "ab", lambda x: np.where(x > 0, x, 0.1 * x), 0.1),
    row("elu", "ab", lambda x: np.where(x > 0, x, 2 * np.expm1(x)), 2.0), row("silu", "ab", lambda x: x * sigmoid(x)),
    row("gelu", "ab", lambda x: x * (0.5 + 0.5 * erf(x * np.sqrt(0.5).astype(x.dtype)))),
    row("softplus", "ab", lambda x: np.logaddexp(x, x.dtype.type(0))),
    row("relu6", "ab", lambda x: np.clip(x, 0, 6), low=-8, high=8), row("hardtanh", "ab", lambda x: np.clip(x, -1, 1)),
    row("hardtanh", "ab", lambda x: np.clip(x, -1, 0.5), max_val=0.5),
    row("celu", "ab", lambda x: np.where(x > 0, x, 2 * np.expm1(x / 2)), 2.0),
    row("selu", "ab", lambda x: np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)) * 1.0507009873554805),
    row("mish", "ab", lambda x: x * np.tanh(np.logaddexp(x, x.dtype.type(0)))),
    row("logsigmoid", "ab", lambda x: -np.logaddexp(-x, x.dtype.type(0))),
    row("softsign", "ab", lambda x: x / (1 + np.abs(x))), row("tanhshrink", "ab", lambda x: x - np.tanh(x)),
    row("softshrink", "ab", lambda x: np.where(np.isnan(x), x, np.sign(x) * np.maximum(np.abs(x) - 1, 0)), 1.0),
    row("hardshrink", "ab", lambda x: np.where(np.abs(x) <= 1, 0, x), 1.0),
    row("hardsigmoid", "ab", lambda x: np.clip(x + 3, 0, 6) / 6, low=-5, high=5),
    row("hardswish", "ab", lambda x: x * np.clip(x + 3, 0, 6) / 6, low=-5, high=5, special=False),
    row("threshold", "ab", lambda x: np.where(x <= 0.1, x.dtype.type(3), x), 0.1, 3.0),
    row("asin", "ab", np.arcsin, low=-0.9, high=0.9), row("acos", "ab", np.arccos, low=-0.9, high=0.9),
    row("atan", "ab", np.arctan),
    row("asinh", "ab", np.arcsinh), row("acosh", "ab", np.arccosh, low=1.2, high=3),
    row("atanh", "ab", np.arctanh, low=-0.9, high=0.9),
    row("erfc", "ab", lambda x: 1 - erf(x)), row("i0", "ab", np.i0, special=False),
    row("i1", "ab", by_mpmath(lambda v: mp.besseli(1, v)), special=False),
    row("erfinv", "ab", by_mpmath(mp.erfinv), low=-0.9, high=0.9, special=False),
    row("lgamma", "ab", by_mpmath(mp.loggamma), low=0.3, high=4, special=False),
    row("digamma", "ab", by_mpmath(mp.digamma), low=0.3, high=4, special=False),
    *(row("polygamma", "ab", by_mpmath(partial(mp.polygamma, n)), call=lambda x, n=n: gc.polygamma(n, x), low=0.4, high=4,
          special=False, tag=f"{n}") for n in (0, 1, 2)),
    row("sinc", "ab", np.sinc), row("exp2", "ab", np.exp2), row("log2", "ab", np.log2, low=0.2),
    row("log10", "ab", np.log10, low=0.2), row("cbrt", "ab", np.cbrt, low=0.2),
    row("logical_not", "ab", np.logical_not, kinds=ANY), row("bitwise_not", "ab", np.invert, kinds=INT + BOOL),
    row("stop_gradient", "ab", lambda x: x, kinds=ANY, smooth=False), row("shard_sum", "ab", lambda x: x),
    row("cast", "ab", lambda x: x.astype(np.float64), gc.f64, kinds=ANY),
    row("cast", "ab", lambda x: x.astype(np.int32), gc.i32, special=False, kinds=ANY),
    row("bitcast", "ab", lambda x: x.view(f"i{x.itemsize}"), call=lambda x: gc.bitcast(x, {4: gc.i32, 8: gc.i64}[x.dtype.itemsize]),
        kinds=NUMBER, smooth=False),
    row("name", "ab", lambda x: x * 2, call=lambda x: gc.name(x * 2, "h")),
    row("clip", "ab", lambda x: np.clip(x, -1, 1), -1, 1, kinds=NUMBER),
    row("clip", "ab,b", lambda x, low: np.maximum(x, low), kinds=NUMBER),
    *(row(n, "ab", getattr(np, n), kinds=ANY) for n in ("zeros_like", "ones_like")),
    row("full_like", "ab", lambda x: np.full_like(x, 3), 3, kinds=NUMBER)]
BINARY = [
    *(row(n, "ab,b", getattr(np, f), kinds=NUMBER) for n, f in (
        ("add", "add"), ("sub", "subtract"), ("mul", "multiply"), ("minimum", "minimum"), ("maximum", "maximum"))),
    row("fake_quantize", "ab", lambda x: (np.clip(np.rint(x * 4) + 1, -4, 3) - 1) * x.dtype.type(0.25), smooth=False,
        call=lambda x: gc.fake_quantize(x, 0.25, 1, low=-4, high=3)),
    row("logaddexp", "ab,b", np.logaddexp), row("xlogy", "ab,b", lambda x, y: x * np.log(y), low=0.2, special=False),
    row("div", "ab,b", np.divide, low=0.5),
    row("floordiv", "ab,b", np.floor_divide, kinds=NUMBER, low=1, smooth=False, special=False),
    row("mod", "ab,b", np.mod, kinds=NUMBER, low=1, special=False, smooth=False), row("pow", "ab,b", np.power, low=0.3),
    row("pow", "ab", lambda x: x ** 3, 3), row("atan2", "ab,b", np.arctan2, low=0.3),
    *(row(n, "ab,b", getattr(np, n), kinds=NUMBER)
      for n in ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal")),
    *(row(n, "ab,b", getattr(np, n), kinds=ANY) for n in ("logical_and", "logical_or", "logical_xor")),
    *(row(n, "ab,b", getattr(np, n), kinds=INT + BOOL) for n in ("bitwise_and", "bitwise_or", "bitwise_xor")),
    *(row(n, "ab,b", getattr(np, n), kinds=INT, low=0) for n in ("left_shift", "right_shift")),
    row("where", "ab,b", lambda x, y: np.where(x > 0, x, y), call=lambda x, y: gc.where(x > 0, x, y), kinds=NUMBER)]
REDUCE = [
    *(row(n, "ab", partial(getattr(np, n), axis=-1), axis=-1, kinds=NUMBER) for n in ("sum", "prod")),
    *(row(n, "abc", partial(getattr(np, n), axis=(0, -1), keepdims=True), axis=(0, -1), keepdims=True, kinds=NUMBER)
      for n in ("sum", "prod")),
    *(row(n, "ab", getattr(np, n), special=n != "var") for n in ("sum", "mean", "var", "std")),
    *(row(n, "abc", partial(getattr(np, n), axis=-2), axis=-2) for n in ("mean", "var", "std")),
    row("var", "ab", lambda x: np.var(x, ddof=1), ddof=1),
    *(row(n, "abc", partial(largest, getattr(np, n), axis=-1), axis=-1, kinds=ANY) for n in ("max", "min")),
    *several("max min", "ab", kinds=ANY),
    *(row(n, "abc", partial(getattr(np, n), axis=-1), axis=-1, kinds=ANY) for n in ("any", "all")),
    *several("any all", "ab", kinds=ANY),
    *(row(n, "abc", partial(largest, getattr(np, n), axis=-2), axis=-2, kinds=NUMBER) for n in ("argmax", "argmin")),
    *several("argmax argmin", "ab", kinds=NUMBER),
    row("logsumexp", "abc", partial(logsumexp, axis=-1), axis=-1), row("logsumexp", "ab", logsumexp),
    *(row(n, "ab", partial(getattr(np, n), axis=-1), axis=-1, kinds=NUMBER, special=False)
      for n in ("cumsum", "cumprod")),
    *(row(n, "ab", getattr(np, n), kinds=NUMBER, special=False) for n in ("cumsum", "cumprod")),
    row("linear_scan", "ab,ab", recurrence), row("sort", "ab", np.sort, kinds=NUMBER),
    row("sort", "ab", partial(np.sort, axis=0), axis=-2, kinds=NUMBER),
    row("argsort", "ab", partial(np.argsort, kind="stable"), kinds=NUMBER),
    row("topk", "aT", lambda x: (-np.sort(-x, -1)[..., :2], np.argsort(-x, -1, kind="stable")[..., :2]), 2,
        kinds=NUMBER, special=False)]
SHAPE = [
    row("reshape", "ab", lambda x: x.reshape(-1), -1, kinds=ANY),
    row("transpose", "abc", lambda x: x.transpose(2, 0, 1), (2, 0, 1), kinds=ANY),
    row("swapaxes", "abc", lambda x: x.swapaxes(0, -1), 0, -1, kinds=ANY),
    row("moveaxis", "abc", lambda x: np.moveaxis(x, -1, 0), -1, 0, kinds=ANY),
    row("broadcast_to", "K", lambda x: np.broadcast_to(x, (3, 2)), (3, 2), kinds=ANY),
    row("squeeze", "ab", lambda x: x, call=lambda x: gc.squeeze(gc.expand_dims(x, (0, -1)), (0, -1)), kinds=ANY),
    row("expand_dims", "ab", lambda x: np.expand_dims(x, (0, -1)), (0, -1), kinds=ANY),
    row("concat", "ab,cb", lambda *xs: np.concatenate(xs, 0), call=lambda *xs: gc.concat(xs, 0), kinds=ANY),
    row("concat", "ab,ac", lambda *xs: np.concatenate(xs, -1), call=lambda *xs: gc.concat(xs, -1), kinds=ANY,
        tag="last"),
    row("stack", "ab,ab", lambda *xs: np.stack(xs, -1), call=lambda *xs: gc.stack(xs, -1), kinds=ANY),
    row("split", "aE", lambda x: tuple(np.split(x, 2, -1)), 2, axis=-1, kinds=ANY),
    row("split", "aE", lambda x: tuple(np.split(x, [1, 2], 1)), points=[1, 2], axis=1, kinds=ANY),
    row("split", "aE", lambda x: tuple(np.split(x, [1, 1], 1)), sizes=[1, 0, 3], axis=1, kinds=ANY),
    row("dynamic_slice", "Tab", lambda x: x[1:3], call=lambda x: gc.dynamic_slice(x, [7, 0, 0], (2, *x.shape[1:])),
        kinds=ANY),
    row("dynamic_update_slice", "Ta,Pa", lambda x, u: np.concatenate([x[:1], u]),
        call=lambda x, u: gc.dynamic_update_slice(x, u, [7, 0]), kinds=ANY),
    row("pad", "ab", lambda x: np.pad(x, ((1, 0), (0, 2)), constant_values=x.dtype.type(1)), ((1, 0), (0, 2)), 1,
        kinds=NUMBER),
    row("flip", "abc", lambda x: np.flip(x, (0, -1)), (0, -1), kinds=ANY),
    row("roll", "ab", lambda x: np.roll(x, 3, -1), 3, -1, kinds=ANY),
    row("repeat", "ab", lambda x: np.repeat(x, 3, -1), 3, -1, kinds=ANY),
    row("tile", "ab", lambda x: np.tile(x, (2, 1, 3)), (2, 1, 3), kinds=ANY),
    row("tril", "abc", np.tril, kinds=NUMBER), row("triu", "abc", lambda x: np.triu(x, 1), 1, kinds=NUMBER),
    row("iota", "", lambda: np.indices((2, 3))[1], call=lambda: gc.iota((2, 3), -1)),
    row("arange", "", lambda: np.arange(1, 8, 3), call=lambda: gc.arange(1, 8, 3)),
    row("eye", "", lambda: np.eye(3, dtype=np.float32), call=lambda: gc.eye(3)),
    row("full", "", lambda: np.full((2, 0), 3), call=lambda: gc.full((2, 0), 3)),
    *(row(n, "", partial(getattr(np, n), (2, 3), np.float32), call=partial(getattr(gc, n), (2, 3)))
      for n in ("zeros", "ones")),
    *(row("pad", "aHW", lambda x, mode=mode: np.pad(x, ((0, 0), (2, 1), (0, 3)), mode=mode), ((0, 0), (2, 1), (0, 3)),
          mode=mode, kinds=ANY) for mode in ("reflect", "symmetric", "edge", "wrap")),
    row("pixel_shuffle", "aEbc", lambda x: x.reshape(x.shape[0], 1, 2, 2, *x.shape[2:]).transpose(
        0, 1, 4, 2, 5, 3).reshape(x.shape[0], 1, 2 * x.shape[2], 2 * x.shape[3]), 2, kinds=ANY),
    row("pixel_unshuffle", "abHW", lambda x: x.reshape(*x.shape[:2], 2, 2, 2, 2).transpose(
        0, 1, 3, 5, 2, 4).reshape(x.shape[0], 4 * x.shape[1], 2, 2), 2, kinds=ANY),
    row("channel_shuffle", "aEb", lambda x: x[:, [0, 2, 1, 3]], 2, kinds=ANY),
    row("unfold", "aCHW", w.unfold, 2, padding=1, stride=2, kinds=NUMBER),
    row("fold", "aEP", lambda x: np.stack([x[:, ::2, 0], x[:, 1::2, 0] + x[:, ::2, 1], x[:, 1::2, 1]], -1)[:, :, None],
        call=lambda x: gc.fold(x, (1, 3), (1, 2)), kinds=NUMBER),
    row("interpolate", "aCHW", lambda x: x.repeat(2, 2).repeat(2, 3), (8, 8), kinds=ANY),
    row("interpolate", "abW", lambda x: x[..., [1, 3]], 2, mode="nearest-exact", kinds=ANY),
    row("interpolate", "aCHW", partial(w.bilinear, shape=(3, 8)), (3, 8), mode="bilinear", special=False),
    row("interpolate", "abW", lambda x: np.stack([x[..., 0], x[..., :2].mean(-1), x[..., 1], x[..., 1:3].mean(-1),
                                                  x[..., 2], x[..., 2:].mean(-1), x[..., 3]], -1), 7, mode="linear",
        align_corners=True, special=False),
    row("resize", "aCHW", lambda x: x.repeat(2, 2).repeat(2, 3), (8, 8)),
    row("resize", "aCH", lambda x: x.repeat(2, 2), 8, tag="line"),
    row("resize", "aCHW", lambda x: x[:, :, ::3, ::3], (2, 2), "bilinear", coordinates="align_corners", special=False),
    row("resize", "aCHWE", lambda x: x.repeat(2, 2).repeat(2, 3).repeat(3, 4), (8, 8, 12), tag="volume"),
    row("grid_sample", "KCHW", lambda x: x[:, :, ::3, ::3], special=False,
        call=lambda x: gc.grid_sample(x, corners(x.dtype), align_corners=True)),
    row("resize", "aCHW", partial(w.bilinear, shape=(3, 8)), (3, 8), "bilinear", special=False)]
INDEX = [
    row("take", "Ta,b", one_of, kinds=ANY, integers=((1, 3),)),
    row("take", "aT,bc", partial(one_of, axis=-1), axis=-1, kinds=ANY, integers=((1, 3),)),
    row("embedding", "Ta,bc", one_of, integers=((1, 3),)),
    *(row(n, "Ta,ba", lambda x, i: np.take_along_axis(x, i, 0), 0, kinds=ANY, integers=((1, 3),))
      for n in ("take_along_axis", "gather")),
    row("scatter_add", "Ta,b,ba", added, kinds=NUMBER, integers=((1, 3),), special=False),
    row("scatter_add_along_axis", "aT,ab,ab", partial(added_along, axis=1), -1, kinds=NUMBER, integers=((1, 3),),
        special=False),
    *(row("scatter", "Ta,b,ba", partial(written, how=how), reduction=how, kinds=NUMBER, integers=((1, 3),), special=False)
      for how in ("none", "add", "mul", "min", "max")),
    *(row("scatter_along_axis", "aT,ab,ab", partial(written_along, how=how), axis=1, reduction=how, kinds=NUMBER,
          integers=((1, 3),), special=False) for how in ("none", "add", "mul", "min", "max")),
    row("scatter_along_axis", "aT,ab,ab", partial(written_along, how="mean"), axis=1, reduction="mean",
        integers=((1, 3),), special=False),
    row("gather_nd", "TTa,bK", lambda x, i: x[i[:, 0], i[:, 1]], kinds=ANY, integers=((1, 3),)),
    row("scatter_nd", "TTa,bK,ba", lambda x, i, u: written(x, (i[:, 0], i[:, 1]), u, "none"), kinds=NUMBER,
        integers=((1, 3),), special=False),
    row("index_put", "TTa,b,b,ba", lambda x, i, j, u: written(x, (i, j), u, "none"), kinds=NUMBER,
        call=lambda x, i, j, u: gc.index_put(x, (i, j), u), integers=((1, 3), (2, 3)), special=False),
    row("compress", "ab", lambda x: padded(x[x > 0], 5), call=lambda x: gc.compress(x > 0, x, size=5), kinds=NUMBER),
    row("compress", "aTb", lambda x: padded_rows(x), kinds=NUMBER, special=False,
        call=lambda x: gc.compress(np.array([True, False, True]), x, size=4, axis=1), tag="axis"),
    row("nonzero", "ab", lambda x: (*(padded(i, 5)[0] for i in np.nonzero(x)), np.asarray(np.count_nonzero(x))), kinds=ANY,
        call=lambda x: (lambda places, count: (*places, count))(*gc.nonzero(x, size=5))),
    row("unique", "ab", lambda x: distinct(x, 6), call=lambda x: gc.unique(x, size=6), kinds=NUMBER, smooth=False),
    row("one_hot", "ab", lambda i: (i[..., None] == np.arange(3)).astype(np.float32), 3, integers=((0, 4),))]
PRODUCTS = [
    row("matmul", "ab,bc", np.matmul, kinds=NUMBER, special=False),
    row("matmul", "dab,bc", np.matmul, kinds=NUMBER, special=False, tag="batch"),
    row("matmul", "b,b", np.matmul, kinds=NUMBER, special=False, tag="dot"),
    row("dot", "ab,bc", np.dot, kinds=NUMBER, special=False),
    row("dot", "ab,cbd", np.dot, special=False, tag="3"), row("outer", "a,b", np.outer, kinds=NUMBER, special=False),
    row("einsum", "abc,dcb", lambda x, y: np.einsum("abc,dcb->da", x, y),
        call=lambda x, y: gc.einsum("abc,dcb->da", x, y), special=False),
    row("einsum", "ab,bc,cd", lambda x, y, z: x @ y @ z, call=lambda *xs: gc.einsum("ab,bc,cd->ad", *xs), special=False, tag="chain"),
    row("einsum", "ab,a,b,c", lambda x, y, z, w: np.einsum("ab,a,b,c->c", x, y, z, w),
        call=lambda *xs: gc.einsum("ab,a,b,c", *xs), special=False, tag="implicit"),
    *(row(f"conv{r}d", f"aC{size},FC{'K' * r}", partial(w.conv, stride=2, padding=1), stride=2, padding=1,
          special=False) for r, size in IMAGES.items()),
    *(row(f"conv_transpose{r}d", f"aC{size},CF{'K' * r}", partial(w.conv_transpose, stride=2), stride=2, special=False)
      for r, size in IMAGES.items()),
    row("attention", "abd,acd,acE", attention, special=False),
    row("attention", "abd,acd,acE",
        lambda q, k, v: attention(q, k, v, np.tril(np.ones((q.shape[1], k.shape[1]), bool))), causal=True,
        special=False)]
L = np.linalg
MATRICES = [
    row("cholesky", "aHW", lambda x: L.cholesky(definite(x)), call=lambda x: gc.cholesky(definite(x)), special=False),
    row("eigh", "aHW", lambda x: eigen(definite(x)), call=lambda x: (lambda w, v: (w, (v * w[..., None, :]) @ v.mT))(*gc.eigh(definite(x))),
        special=False),
    row("inv", "aHW", lambda x: L.inv(definite(x)), call=lambda x: gc.inv(definite(x)), special=False),
    row("det", "aHW", lambda x: L.det(definite(x) / 4), call=lambda x: gc.det(definite(x) / 4), special=False),
    row("slogdet", "aHW", lambda x: tuple(L.slogdet(definite(x))), call=lambda x: gc.slogdet(definite(x)), special=False),
    row("qr", "aHW", lambda x: positive(*L.qr(definite(x))), call=lambda x: gc.qr(definite(x)), special=False),
    row("qr", "aTE", lambda x: positive(*L.qr(wide(x))), call=lambda x: gc.qr(wide(x)), special=False, tag="wide"),
    row("solve", "aHW,Hb", lambda a, y: L.solve(definite(a), y), call=lambda a, y: gc.solve(definite(a), y), special=False),
    row("solve", "aHW,H", lambda a, y: L.solve(definite(a), y[:, None])[..., 0],
        call=lambda a, y: gc.solve(definite(a), y), special=False, tag="vector"),
    row("solve_triangular", "aHW,Hb", lambda a, y: L.solve(np.triu(definite(a)), y),
        call=lambda a, y: gc.solve_triangular(definite(a), y), special=False),
    row("solve_triangular", "aHW,Hb", lambda a, y: L.solve(np.tril(definite(a)).swapaxes(-1, -2), y), lower=True,
        transpose=True, call=lambda a, y: gc.solve_triangular(definite(a), y, True, True), special=False)]
TRANSFORMS = [
    *(row(n, "abK", lambda x, n=n: as_pairs(getattr(np.fft, n)(as_complex(x), 5)), 5, special=False) for n in ("fft", "ifft")),
    *(row(n, "TbK", lambda x, n=n: as_pairs(getattr(np.fft, n)(as_complex(x), axis=0, norm="ortho")), axis=0, norm="ortho",
          special=False) for n in ("fft", "ifft")),
    row("rfft", "aH", lambda x: as_pairs(np.fft.rfft(x)), special=False),
    row("rfft", "Ha", lambda x: as_pairs(np.fft.rfft(x, 7, 0, "forward")), 7, 0, "forward", special=False),
    row("irfft", "aTK", lambda x: np.fft.irfft(as_complex(x)), special=False),
    row("irfft", "TaK", lambda x: np.fft.irfft(as_complex(x), 7, 0), 7, 0, special=False),
    row("stft", "aE", lambda x: stft(x, 2, 1), 2, 1, special=False),
    row("istft", "aKTK", lambda x: istft(x, 2, 1), 2, 1, special=False)]
ROWS = [
    *(row(f"max_pool{r}d", f"aC{size}", partial(w.pool, rule=np.max, k=2), 2, kinds=NUMBER)
      for r, size in IMAGES.items()),
    *(row(f"avg_pool{r}d", f"aC{size}", partial(w.pool, rule=np.mean, k=2), 2) for r, size in IMAGES.items()),
    *(row(f"lp_pool{r}d", f"aC{size}", partial(w.norm, p=3, k=2), 3, 2, low=0.5, special=False)
      for r, size in IMAGES.items()),
    *(row(f"adaptive_max_pool{r}d", f"aC{size}", partial(w.adaptive, rule=np.max, size=3), 3, kinds=NUMBER)
      for r, size in IMAGES.items()),
    *(row(f"adaptive_avg_pool{r}d", f"aC{size}", partial(w.adaptive, rule=np.mean, size=n), n)
      for r, size in IMAGES.items() for n in (1, 3)),
    *(row(f"max_unpool{r}d", f"aC{size}", partial(w.spread, k=2), kinds=NUMBER, special=False,
          call=lambda x, r=r: getattr(gc, f"max_unpool{r}d")(x, w.firsts(np.empty(x.shape), 2), 2))
      for r, size in IMAGES.items()),
    row("global_avg_pool", "abHW", lambda x: x.mean((2, 3))),
    row("global_max_pool", "abHW", lambda x: x.max((2, 3)), kinds=NUMBER),
    row("softmax", "abc", softmax), row("softmax", "abc", partial(softmax, axis=-2), axis=-2),
    row("softmin", "abc", lambda x: softmax(-x)),
    row("glu", "abE", lambda x: x[..., :2] * sigmoid(x[..., 2:])),
    row("prelu", "aCb,C", lambda x, w: np.where(x > 0, x, w[:, None] * x)),
    row("prelu", "C,C", lambda x, w: np.where(x > 0, x, w * x), tag="1"),
    row("log_softmax", "abc", lambda x: x - logsumexp(x, -1, True) if x.size else x, special=False),
    row("layer_norm", "ab,b,b", lambda x, g, b: standard(x, -1, 1e-2) * g + b, eps=1e-2, special=False),
    row("rms_norm", "ab,b", lambda x, g: x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-2) * g, eps=1e-2,
        special=False),
    row("group_norm", "aCb", lambda x: standard(x.reshape(len(x), 2, -1), -1, 1e-2).reshape(x.shape) if x.size else x,
        groups=2, eps=1e-2,
        special=False),
    row("batch_norm", "aCb,C,C", batch_norm, eps=1e-2, special=False),
    row("batch_norm_inference", "aCb,C,C,C,C",
        lambda x, g, b, m, v: (x - m[:, None]) / np.sqrt(v[:, None] + 1e-5) * g[:, None] + b[:, None],
        call=lambda x, g, b, m, v: gc.batch_norm_inference(x, g, b, mean=m, var=v), low=0.5, special=False),
    row("cross_entropy", "aT,a", cross_entropy, integers=((1, 3),), special=False),
    row("cross_entropy", "aT,a", partial(cross_entropy, ignore=1), ignore_index=1, integers=((1, 3),), special=False),
    row("cross_entropy", "ab,ab", lambda x, t: np.mean(-(t * (x - logsumexp(x, -1, True))).sum(-1)) if x.size
        else np.mean(np.zeros(len(x), x.dtype)),
        tag="soft", special=False),
    row("mse", "ab,ab", lambda x, y: np.mean((x - y) ** 2)), row("bce_with_logits", "ab,ab", bce, special=False)]
DISTANCES = [
    row("normalize", "abc", lambda x: x / np.linalg.norm(x, axis=1, keepdims=True), special=False),
    row("normalize", "ab", lambda x: x / np.sum(np.abs(x) ** 3, -1, keepdims=True) ** (1 / 3), p=3, axis=-1,
        special=False),
    row("cosine_similarity", "ab,ab", lambda x, y: (x * y).sum(1) / np.maximum(
        np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1), 1e-16), special=False),
    row("cosine_similarity", "abc,bc", lambda x, y: (x * y).sum(-2) / np.maximum(
        np.linalg.norm(x, axis=-2) * np.linalg.norm(y, axis=-2), 1e-16), axis=-2, special=False),
    row("pairwise_distance", "ab,ab", lambda x, y: np.linalg.norm(x - y + x.dtype.type(1e-6), axis=-1), special=False),
    row("pairwise_distance", "ab,b", lambda x, y: np.abs(x - y + 0.5).sum(-1, keepdims=True), p=1, eps=0.5,
        keepdims=True),
    row("cdist", "dab,cb", lambda x, y: np.linalg.norm(x[:, :, None] - y, axis=-1), special=False),
    row("cdist", "aK,cK", lambda x, y: np.abs(x[:, None] - y).max(-1), math.inf),
    row("pdist", "ab", lambda x: np.linalg.norm(x[:, None] - x, axis=-1)[np.triu_indices(len(x), 1)], special=False)]
def averaged(x, w, axis):
    """Of nothing NaN, where numpy has an error."""
    return np.average(x, axis, w) if x.size else np.full(x.sum(axis).shape, np.nan, x.dtype)


LONG = np.concatenate([[-np.inf], np.repeat(np.linspace(-2, 2, 101), 2), [np.inf, np.nan, np.nan]]).astype(np.float32)
NUMPY = [                                       # functions of the same name and arguments in numpy
    *several("isinf reciprocal", "ab"), row("trunc", "ab", np.trunc, kinds=NUMBER), row("nan_to_num", "ab", np.nan_to_num, kinds=NUMBER),
    row("nan_to_num", "ab", lambda x: np.nan_to_num(x, nan=2, posinf=3, neginf=-4), 2.0, 3.0, -4.0),
    row("hypot", "ab,b", np.hypot), row("fmod", "ab,b", np.fmod, low=1, special=False, kinds=NUMBER),
    row("isclose", "ab,b", np.isclose, kinds=NUMBER), row("isclose", "ab,b", partial(np.isclose, equal_nan=True, rtol=0.5), equal_nan=True, rtol=0.5),
    row("heaviside", "ab,b", np.heaviside, smooth=False), row("polyval", "T,ab", np.polyval, kinds=NUMBER, special=False),
    row("select", "ab,ab", lambda x, y: np.select([x > 1, x > 0], [x, y], 3), call=lambda x, y: gc.select([x > 1, x > 0], [x, y], 3),
        kinds=NUMBER),
    row("select", "ab", lambda x: np.select([x > 1, x > 0], [1.0, x]), call=lambda x: gc.select([x > 1, x > 0], [1.0, x]), tag="numbers"),
    row("digitize", "ab,T", lambda x, b: np.digitize(x, np.sort(b)), call=lambda x, b: gc.digitize(x, gc.sort(b)), kinds=NUMBER,
        special=False),
    row("digitize", "ab", lambda x: np.digitize(x, [-1, 1], True), call=lambda x: gc.digitize(x, np.array([-1, 1]).astype(x.dtype.np), True),
        kinds=NUMBER, tag="right"),
    row("bincount", "b", lambda x: np.bincount(x, minlength=4), 4, integers=((0, 4),)),
    row("bincount", "b,b", lambda x, w: np.bincount(x, w, 4).astype(w.dtype), 4, call=lambda x, w: gc.bincount(x, 4, w), integers=((0, 4),),
        special=False, tag="weights"),
    row("unravel_index", "ab", lambda x: np.unravel_index(x, (2, 3)), (2, 3), integers=((0, 6),)),
    row("allclose", "ab", lambda x: np.array(True), call=lambda x: gc.allclose(x, x),
                                            special=False),
    row("average", "ab", np.average, special=False), row("average", "ab,b", partial(averaged, axis=-1), low=0.5, special=False,
                                                        call=lambda x, w: gc.average(x, -1, w)),
    row("average", "ab,ab", partial(averaged, axis=0), low=0.5, special=False, call=lambda x, w: gc.average(x, 0, w), tag="own"),
    row("average", "abc,ca", partial(averaged, axis=(2, 0)), low=0.5, special=False, call=lambda x, w: gc.average(x, (2, 0), w), tag="axes"),
    row("ptp", "aKb", partial(np.ptp, axis=1), axis=1, kinds=NUMBER), row("count_nonzero", "ab", np.count_nonzero, kinds=ANY),
    row("count_nonzero", "ab", partial(np.count_nonzero, axis=1), axis=1, kinds=ANY),
    row("nansum", "ab", partial(np.nansum, axis=1), axis=1, kinds=NUMBER), row("nanmean", "ab", partial(np.nanmean, axis=1), axis=1),
    row("median", "aT", partial(np.median, axis=1), axis=1, special=False), row("median", "TE", np.median, special=False),
    row("quantile", "aE", partial(np.quantile, q=0.3, axis=-1), call=lambda x: gc.quantile(x, 0.3, -1)),
    row("quantile", "aE", lambda x: np.quantile(x, [0, 0.5, 1], -1, keepdims=True),
        call=lambda x: gc.quantile(x, [0, 0.5, 1], -1, True), special=False, tag="several"),
    row("percentile", "Ea", partial(np.percentile, q=40, axis=0), call=lambda x: gc.percentile(x, 40, 0)),
    row("cov", "aT", lambda x: np.cov(x).reshape(len(x), len(x)) if len(x) else np.zeros((0, 0), x.dtype), special=False),
    row("cov", "ET", lambda x: np.cov(x, rowvar=False, ddof=0), False, 0, special=False),
    row("corrcoef", "KT", np.corrcoef, special=False), row("corrcoef", "ET", partial(np.corrcoef, rowvar=False), False, special=False),
    row("norm", "ab", np.linalg.norm, special=False), row("norm", "abc", lambda x: np.linalg.norm(x, axis=(0, 2), keepdims=True), None, (0, 2), True,
                                                          special=False),
    *(row("norm", "ab", lambda x, o=o: np.linalg.norm(x, o, 0), o, 0, low=0.3, special=False, smooth=o != 0) for o in (1, 2, 3, 0, 0.5)),
    *(row("norm", "aE", lambda x, o=o: np.linalg.norm(x, o, 1), o, 1, low=0.3, special=False) for o in (math.inf, -math.inf)),
    *(row("convolve", s, partial(np.convolve, mode=m), mode=m, special=False, kinds=NUMBER) for m in ("full", "same", "valid")
      for s in ("E,T", "K,E", "a,b")),
    row("inner", "ab,cb", np.inner, kinds=NUMBER, special=False), row("vdot", "ab,ab", np.vdot, kinds=NUMBER, special=False),
    row("tensordot", "abc,bcd", np.tensordot, kinds=NUMBER, special=False),
    row("tensordot", "abc,dca", partial(np.tensordot, axes=((0, 2), (2, 1))), axes=((0, 2), (2, 1)), special=False),
    row("kron", "ab,cd", np.kron, kinds=NUMBER, special=False), row("kron", "a,Kb", np.kron, special=False, tag="1"),
    row("cross", "aT,T", np.cross, kinds=NUMBER, special=False), row("cross", "aTb,aTb", partial(np.cross, axis=1), axis=1, special=False),
    row("cross", "aTb,T", lambda x, y: np.cross(x, y, 1, 0, axisc=0), axis=0, special=False, call=lambda x, y: gc.cross(gc.moveaxis(x, 1, 0), y[:, None, None], 0)),
    row("diagonal", "TEa", np.diagonal, kinds=ANY), row("diagonal", "aEb", lambda x: np.diagonal(x, 1, 1, 2), 1, 1, 2, kinds=ANY),
    row("diagonal", "ab", lambda x: np.diagonal(x, -2), -2, kinds=ANY),
    row("trace", "TE", np.trace, kinds=NUMBER), row("diag", "a", partial(np.diag, k=-1), -1, kinds=ANY),
    row("diag", "T", np.diag, kinds=NUMBER), row("diag", "ET", partial(np.diag, k=1), 1, kinds=ANY, tag="of"),
    row("tri", "", lambda: np.tri(3, 4, 1, np.float32), call=lambda: gc.tri(3, 4, 1)),
    row("hstack", "ab,ac", lambda *xs: np.hstack(xs), call=lambda *xs: gc.hstack(xs), kinds=ANY),
    row("vstack", "ab,cb", lambda *xs: np.vstack(xs), call=lambda *xs: gc.vstack(xs), kinds=ANY),
    row("vstack", "b,b", lambda *xs: np.vstack(xs), call=lambda *xs: gc.vstack(xs), kinds=ANY, tag="rows"),
    row("diff", "aE", np.diff, kinds=ANY), row("diff", "Ea", partial(np.diff, n=2, axis=0), 2, 0, kinds=NUMBER),
    row("fliplr", "ab", np.fliplr, kinds=ANY), row("flipud", "ab", np.flipud, kinds=ANY),
    *(row("meshgrid", "a,b,c", lambda *xs, i=i: tuple(np.meshgrid(*xs, indexing=i)), call=lambda *xs, i=i: gc.meshgrid(*xs, indexing=i),
          kinds=ANY, tag=i) for i in ("xy", "ij")),
    *(row("rot90", "abc", partial(np.rot90, k=k, axes=(0, 2)), k, (0, 2), kinds=ANY) for k in (1, 2, 3, 4)),
    row("linspace", "", lambda: np.linspace(-1, 2, 7, dtype=np.float32), call=lambda: gc.linspace(-1, 2, 7)),
    row("linspace", "", lambda: np.linspace(0, 1, 4, endpoint=False, dtype=np.float32),
        call=lambda: gc.linspace(0, 1, 4, False), tag="open"),
    row("linspace", "", lambda: np.linspace(-3, 8, 50, dtype=int), call=lambda: gc.linspace(-3, 8, dtype=gc.i64), tag="integers"),
    *(row("searchsorted", "T,ab", lambda a, v, s=s: np.searchsorted(np.sort(a), v, s), special=False, kinds=NUMBER, tag=s,
          call=lambda a, v, s=s: gc.searchsorted(gc.sort(a), v, s)) for s in ("left", "right")),
    *(row("searchsorted", "ab", lambda v, s=s: np.searchsorted(LONG, v, s), call=lambda v, s=s: gc.searchsorted(LONG.astype(v.dtype.np), v, s),
          tag=f"long {s}") for s in ("left", "right")),
    row("interp", "ab,T", lambda x, f: np.interp(x, [-1, 0, 1], f), special=False, low=-0.9, high=0.9,
        call=lambda x, f: gc.interp(x, np.array([-1, 0, 1]).astype(x.dtype.np), f))]
def holes(function, **options):
    """numpy's function, of numbers of which those near 1 are missing."""
    return lambda x: function(np.where(np.abs(x - 1) < 0.8, x.dtype.type(np.nan), x), **options)


def with_holes(name, *args, **options):
    return lambda x: getattr(gc, name)(gc.where(abs(x - 1) < 0.8, float("nan"), x), *args, **options)


def last_best(x, rule, axis):
    """torch's positions of the best number up to each: of equals the last, of NaN the last."""
    x = np.moveaxis(x, axis, 0)
    places = np.zeros(x.shape, int)
    for at in np.ndindex(x.shape[1:]):
        best = 0
        for i in range(len(x)):
            one, other = x[(i, *at)], x[(best, *at)]
            best = i if np.isnan(one) or not np.isnan(other) and rule(one, other) else best
            places[(i, *at)] = best
    return np.moveaxis(places, 0, axis)


def running_best(x, rule, axis=-1):
    places = last_best(x, rule, axis)
    return np.take_along_axis(x, places, axis), places


def counted(x, bins, *args, **options):
    """Edges in the dtype of x, as numpy has them of f32 alone."""
    counts, edges = np.histogram(x, bins, *args, **options)
    return counts, edges.astype(x.dtype if x.dtype.kind == "f" else np.float64)


def turned(x):
    return (x + 3 * np.arange(x.size).reshape(x.shape) % 7).astype(x.dtype)


def random_windows(x, size, k=2, sample=0.5):
    """Maxima of windows of k elements that begin where the number 0.5 puts them, of all axes after the second."""
    starts = [[int((i + sample) * (n - k) / (size - 1)) - int(sample * (n - k) / (size - 1)) for i in range(size - 1)] + [n - k] for n in x.shape[2:]]
    y = np.empty((*x.shape[:2], *(size,) * len(starts)), x.dtype)
    for at in np.ndindex(y.shape[2:]):
        window = (..., *(slice(s[i], s[i] + k) for s, i in zip(starts, at)))
        y[(..., *at)] = x[window].max(tuple(range(2, x.ndim)))
    return y


def affine(theta, shape):
    """Positions of an image of this shape, whose elements have their centres between -1 and 1."""
    lines = [(2 * np.arange(n) + 1) / n - 1 for n in shape]
    grid = np.stack([*np.meshgrid(*lines, indexing="ij")][::-1] + [np.ones(shape)], -1)
    return np.einsum("...j,nij->n...i", grid, theta)


MORE_NUMPY = [
    row("affine_grid", "KKT", lambda t: affine(t, (4, 3)), call=lambda t: gc.affine_grid(t, (2, 1, 4, 3)), special=False),
    row("fractional_max_pool2d", "aCHW", partial(random_windows, size=3), special=False, kinds=NUMBER,
        call=lambda x: gc.fractional_max_pool2d(x, 2, 3, random_samples=gc.full((*x.shape[:2], 2), 0.5))),
    row("fractional_max_pool3d", "aCHWE", partial(random_windows, size=3), special=False,
        call=lambda x: gc.fractional_max_pool3d(x, 2, 3, random_samples=gc.full((*x.shape[:2], 3), 0.5))),
    *several("signbit", "ab", kinds=NUMBER, special=False), row("copysign", "ab,b", np.copysign, special=False, smooth=False),
    row("signbit", "", lambda: np.array([True, False, True, False]), call=lambda: gc.signbit(np.array([-0.0, 0.0, -np.inf, np.inf]))),
    *several("deg2rad rad2deg", "ab"), *(row(n, "ab,b", getattr(np, n), kinds=NUMBER) for n in ("fmax", "fmin")),
    row("divmod", "ab,b", np.divmod, kinds=NUMBER, low=1, special=False, smooth=False),
    row("isin", "ab,T", np.isin, kinds=NUMBER), row("isin", "ab,T", partial(np.isin, invert=True), invert=True, kinds=NUMBER),
    row("isin", "ab", lambda x: np.isin(x, LONG), call=lambda x: gc.isin(x, LONG.astype(x.dtype.np)), tag="long"),
    row("logspace", "", lambda: np.logspace(-1, 2, 7, dtype=np.float32), call=lambda: gc.logspace(-1, 2, 7)),
    row("logspace", "", lambda: np.logspace(0, 3, 4, False, 2, np.float32), call=lambda: gc.logspace(0, 3, 4, False, 2), tag="open"),
    *(row("correlate", s, partial(np.correlate, mode=m), mode=m, special=False, kinds=NUMBER) for m in ("full", "same", "valid")
      for s in ("E,T", "K,E", "a,b")),
    row("trapezoid", "ab", partial(np.trapezoid, dx=0.5, axis=0), dx=0.5, axis=0, special=False),
    row("trapezoid", "ab,b", np.trapezoid, special=False), row("trapezoid", "abc,abc", lambda y, x: np.trapezoid(y, x, axis=1), axis=1, special=False),
    row("gradient", "ET", np.gradient, special=False), row("gradient", "aE", partial(np.gradient, axis=1, edge_order=2), axis=1, edge_order=2, special=False),
    row("gradient", "Eb", lambda x: np.gradient(x, 0.5, axis=0), 0.5, axis=0, special=False),
    *(row("gradient", "aE", lambda x, o=o: np.gradient(x, np.array([0, 0.5, 2, 3]), axis=1, edge_order=o), special=False,
          call=lambda x, o=o: gc.gradient(x, np.array([0, 0.5, 2, 3]).astype(x.dtype.np), axis=1, edge_order=o), tag=f"uneven{o}") for o in (1, 2)),
    row("vander", "a", np.vander, kinds=NUMBER, special=False), row("vander", "a", partial(np.vander, N=3, increasing=True), 3, True, kinds=NUMBER, special=False),
    *(row(n, shapes, lambda *xs, n=n: getattr(np, n)(xs), call=lambda *xs, n=n: getattr(gc, n)(xs), kinds=ANY, tag=shapes)
      for n, shapes in (("dstack", "ab,ab"), ("dstack", "b,b"), ("dstack", "abc,abd"), ("column_stack", "a,ab"), ("column_stack", "a,a"))),
    *(row("matrix_power", "aHW", lambda x, n=n: L.matrix_power(definite(x) / 4, n), call=lambda x, n=n: gc.matrix_power(definite(x) / 4, n), special=False,
          tag=str(n)) for n in (-2, 0, 1, 5)),
    *(row(n, "abc", partial(largest, getattr(np, n), axis=axis), axis=axis, kinds=NUMBER) for n in ("nanmax", "nanmin") for axis in (1, (0, 2))),
    row("nanprod", "abc", partial(np.nanprod, axis=(0, 2), keepdims=True), axis=(0, 2), keepdims=True, kinds=NUMBER),
    *(row(n, "aE", holes(getattr(np, n), axis=-1), call=with_holes(n, axis=-1), special=False, tag="holes")
      for n in ("nanmax", "nanmin", "nanprod", "nanvar", "nanstd", "nanmean", "nansum", "nanmedian")),
    row("nanvar", "ab", partial(np.nanvar, axis=0, ddof=1), axis=0, ddof=1, special=False), row("nanstd", "ab", np.nanstd, special=False),
    row("nanquantile", "aEb", holes(np.nanquantile, q=0.3, axis=1, keepdims=True), call=with_holes("nanquantile", 0.3, 1, True), special=False),
    row("nanquantile", "TE", holes(np.nanquantile, q=[0.2, 1]), call=with_holes("nanquantile", [0.2, 1]), special=False, tag="all"),
    *(row(n, s, partial(running_best, rule=rule, axis=axis), axis, kinds=NUMBER, tag=f"{axis}{s}") for n, rule in (("cummax", np.greater_equal), ("cummin", np.less_equal))
      for s, axis in (("aE", -1), ("aEb", 1), ("Ea", 0))),
    row("array_equal", "ab", lambda x: np.array(True), call=lambda x: gc.array_equal(x, x), special=False, kinds=ANY),
    row("array_equal", "ab,bb", np.array_equal, special=False, kinds=NUMBER),
    row("histogram", "ab", lambda x: counted(x, 4, (-1, 3)), 4, (-1, 3), kinds=NUMBER, smooth=False),
    row("histogram", "ab", lambda x: counted(turned(x), 5), call=lambda x: gc.histogram(x + (3 * gc.arange(x.size).reshape(x.shape) % 7).astype(x.dtype), 5),
        smooth=False, special=False, kinds=NUMBER, tag="range"),
    row("histogram", "ab", lambda x: counted(x, [-1, 0, 0.5, 2], density=True), call=lambda x: gc.histogram(x, np.array([-1, 0, 0.5, 2]), density=True), smooth=False,
        special=False, tag="density"),
    row("histogram", "ab,ab", lambda x, w: counted(np.abs(x), 3, (0, 2), weights=w), call=lambda x, w: gc.histogram(abs(x), 3, (0, 2), w), special=False, smooth=False,
        tag="weights"),
    row("histc", "ab", lambda x: np.histogram(x, 6, (-1, 2))[0].astype(x.dtype), 6, -1, 2, kinds=NUMBER, smooth=False, special=False)]
CONTROL = [
    row("cond", "ab", lambda x: x * 2, call=lambda x: gc.cond(gc.sum(x) == gc.sum(x), lambda: x * 2, lambda: x * 3),
        special=False),
    row("scan", "ab", lambda x: (x.sum(0), np.cumsum(x, 0)),
        call=lambda x: gc.scan(lambda c, t: (c + t, c + t), gc.zeros(x.shape[1:], x.dtype), x), special=False),
    row("while_loop", "ab", lambda x: x * 8,
        call=lambda x: gc.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * 2), (0, x), 5)[1][1]),
    row("custom_vjp", "ab", np.sin, call=lambda x: gc.custom_vjp(gc.sin, lambda xs, ys, gs: gs * gc.cos(xs[0]))(x)),
    row("custom_jvp", "ab", np.sin, call=lambda x: gc.custom_jvp(gc.sin, lambda xs, ys, ts: ts[0] * gc.cos(xs[0]))(x)),
    row("remat", "ab", lambda x: np.sin(x) * x, call=lambda x: gc.remat(lambda y: gc.sin(y) * y)(x))]
RANDOM = [
    *(row(n, "", lambda: np.zeros((2, 0, 3), np.float32), call=partial(getattr(gc, n), (2, 0, 3), key=1), draws=True)
      for n in ("uniform", "normal")),
    row("normal", "", lambda: np.zeros((2, 3), np.float32), call=lambda: gc.normal((2, 3), key=1), draws=True,
        tag="some"),
    row("bernoulli", "ab", lambda p: p > 0, key=1, draws=True),
    row("permutation", "", lambda: np.zeros(4, int), call=lambda: gc.permutation(4, key=1), draws=True),
    row("gumbel_softmax", "ab", lambda x: x, key=1, draws=True),
    row("dropout", "ab", lambda x: x, 0.5, key=1, draws=True)]
TABLE: tuple[Row, ...] = (*UNARY, *BINARY, *REDUCE, *SHAPE, *INDEX, *PRODUCTS, *MATRICES, *TRANSFORMS, *ROWS, *DISTANCES, *NUMPY, *MORE_NUMPY, *CONTROL,
                          *RANDOM)
ELEMENTWISE = frozenset(r.name for r in (*UNARY, *BINARY))
