"""Softmax and normalisations."""
from __future__ import annotations

from graphc.dsl.array import Array, as_array, as_float, emit, emit_all
from graphc.dsl.form import formed
from graphc.errors import GraphError
from graphc.ir.convert import integer, real
from graphc.ir.types import normalize_axis


@formed
def softmax(x: Array, axis: int = -1) -> Array:
    """exp(x) / sum(exp(x)) along `axis`, without overflow."""
    x = as_float(x)
    return emit("softmax", x, axis=normalize_axis(axis, x.ndim))


@formed
def log_softmax(x: Array, axis: int = -1) -> Array:
    """log(softmax(x)) along `axis`, without underflow."""
    x = as_float(x)
    return emit("log_softmax", x, axis=normalize_axis(axis, x.ndim))


@formed
def layer_norm(x: Array, gamma: Array | None = None, beta: Array | None = None, *, axes: int = 1,
               eps: float = 1e-5) -> Array:
    """(x - mean) / sqrt(var + eps) over the last `axes` axes, times gamma plus beta (of their shape)."""
    return emit("layer_norm", *_affine("layer_norm", x, gamma, beta), axes=integer(axes, "layer_norm: axes", 0),
                eps=real(eps, "layer_norm: eps"))


@formed
def rms_norm(x: Array, gamma: Array | None = None, *, eps: float = 1e-6) -> Array:
    """x / sqrt(mean(x^2) + eps) over the last axis, times gamma."""
    return emit("rms_norm", *_affine("rms_norm", x, gamma, None), eps=real(eps, "rms_norm: eps"))


@formed
def group_norm(x: Array, gamma: Array | None = None, beta: Array | None = None, *, groups: int = 1,
               eps: float = 1e-5) -> Array:
    """x [N, C, …] normalised over each of `groups` groups of channels, times gamma [C] plus beta [C]."""
    return emit("group_norm", *_affine("group_norm", x, gamma, beta), groups=integer(groups, "group_norm: groups", 1),
                eps=real(eps, "group_norm: eps"))


@formed
def batch_norm(x: Array, gamma: Array, beta: Array, *, eps: float = 1e-5) -> tuple[Array, Array, Array]:
    """x [N, C, …] normalised by the statistics of the batch: (y, mean [C], var [C]); var divides by n, as torch's
    forward does."""
    operands = as_array(x), as_array(gamma), as_array(beta)
    y, mean, var = emit_all("batch_norm", *operands, eps=real(eps, "batch_norm: eps"))
    return y, mean, var


@formed
def batch_norm_inference(x: Array, gamma: Array, beta: Array, *, mean: Array, var: Array, eps: float = 1e-5) -> Array:
    """x [N, C, …] normalised by given statistics [C]."""
    return emit("batch_norm_inference", *map(as_array, (x, gamma, beta, mean, var)),
                eps=real(eps, "batch_norm_inference: eps"))


def _affine(name: str, x: Array, gamma: Array | None, beta: Array | None) -> list[Array]:
    if gamma is None and beta is not None:
        raise GraphError(f"{name} with beta needs gamma too: pass gc.ones for it")
    return [as_array(x), *(as_array(a) for a in (gamma, beta) if a is not None)]
