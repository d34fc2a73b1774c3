"""graphc compiles a declared neural network into one native function for the CPU. Public names only."""
from importlib import import_module
from typing import Any as _Any

from graphc.dsl.activation import (
    celu, elu, gelu, glu, hardshrink, hardsigmoid, hardswish, hardtanh, leaky_relu, logsigmoid, mish, prelu, relu,
    relu6, selu, silu, softmin, softplus, softshrink, softsign, tanhshrink, threshold)
from graphc.dsl.adaptive_pool import (
    adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d, adaptive_max_pool1d, adaptive_max_pool2d,
    adaptive_max_pool3d, max_unpool1d, max_unpool2d, max_unpool3d)
from graphc.dsl.arrangement import fliplr, flipud, hstack, meshgrid, rot90, vstack
from graphc.dsl.array import Array
from graphc.dsl.attention import attention
from graphc.dsl.bounded import compress, nonzero, unique
from graphc.dsl.control import cond, scan, while_loop
from graphc.dsl.conv import conv1d, conv2d, conv3d, conv_transpose1d, conv_transpose2d, conv_transpose3d
from graphc.dsl.custom import custom_vjp
from graphc.dsl.distance import cdist, cosine_similarity, norm, normalize, pairwise_distance, pdist
from graphc.dsl.elementwise import (
    abs, add, bitwise_and, bitwise_not, bitwise_or, bitwise_xor, cast, ceil, clip, cos, div, equal, erf, exp, expm1,
    floor, floordiv, greater, greater_equal, isfinite, isnan, left_shift, less, less_equal, log, log1p, logical_and,
    logical_not, logical_or, logical_xor, maximum, minimum, mod, mul, name, neg, not_equal, pow, right_shift, round,
    rsqrt, shard_sum, sigmoid, sign, sin, sqrt, square, stop_gradient, sub, tanh, where)
from graphc.dsl.fft import fft, ifft, irfft, istft, rfft, stft
from graphc.dsl.function import GraphFunction, graph, set_compiler
from graphc.dsl.images import channel_shuffle, fold, interpolate, pixel_shuffle, pixel_unshuffle, unfold
from graphc.dsl.index import embedding, gather, one_hot, scatter_add, scatter_add_along_axis, take, take_along_axis
from graphc.dsl.jacobian import hessian, jacobian
from graphc.dsl.linalg import dot, einsum, matmul, outer
from graphc.dsl.loss import bce_with_logits, cross_entropy, mse
from graphc.dsl.matrix import cholesky, det, eigh, inv, qr, slogdet, solve, solve_triangular
from graphc.dsl.norm import batch_norm, batch_norm_inference, group_norm, layer_norm, log_softmax, rms_norm, softmax
from graphc.dsl.other_names import unknown as _unknown
from graphc.dsl.pad import pad
from graphc.dsl.numbers import (
    allclose, digitize, fmod, heaviside, hypot, interp, isclose, isinf, linspace, nan_to_num, polyval, reciprocal,
    searchsorted, select, trunc, unravel_index)
from graphc.dsl.pool import (
    avg_pool1d, avg_pool2d, avg_pool3d, global_avg_pool, global_max_pool, lp_pool1d, lp_pool2d, lp_pool3d, max_pool1d,
    max_pool2d, max_pool3d)
from graphc.dsl.products import (
    convolve, cross, diag, diagonal, diff, inner, kron, tensordot, trace, tri, vdot)
from graphc.dsl.random import bernoulli, dropout, gumbel_softmax, normal, permutation, uniform
from graphc.dsl.reduce import (
    all, any, argmax, argmin, argsort, cumprod, cumsum, linear_scan, logsumexp, max, mean, min, prod, sort, std, sum,
    topk, var)
from graphc.dsl.resize import grid_sample, resize
from graphc.dsl.scatter import gather_nd, index_put, scatter, scatter_along_axis, scatter_nd
from graphc.dsl.shape import (
    arange, broadcast_to, concat, dynamic_slice, dynamic_update_slice, expand_dims, eye, flip, full, full_like, iota,
    moveaxis, ones, ones_like, repeat, reshape, roll, split, squeeze, stack, swapaxes, tile, transpose,
    tril, triu, zeros, zeros_like)
from graphc.dsl.special import (
    cbrt, digamma, erfc, erfinv, exp2, i0, i1, lgamma, log2, log10, logaddexp, polygamma, sinc, xlogy)
from graphc.dsl.statistics import (
    average, bincount, corrcoef, count_nonzero, cov, median, nanmean, nansum, percentile, ptp, quantile)
from graphc.dsl.transforms import grad, hvp, jvp, value_and_grad, vjp
from graphc.dsl.vmap import vmap
from graphc.dsl.trig import acos, acosh, asin, asinh, atan, atan2, atanh, cosh, sinh, tan
from graphc.errors import GraphError, InternalError
from graphc.ir.shown import set_explorer, set_renderer
from graphc.ir.types import (
    DType, TensorType, bf16, bool_, f16, f32, f64, i8, i16, i32, i64, u8, u16, u32, u64)
from graphc.once import LOADING

from graphc import nn, optim                            # after the functions that layers are written with
from graphc import models

__version__ = "0.1.0"

_LATER = {                                              # loaded at the first use, most of them with the compiler
    "compile": "graphc.api", "plan": "graphc.api", "check_gradients": "graphc.gradient_check",
    "train_step": "graphc.train", "distributed": "graphc.doors.mpi", "metrics": "graphc", "callbacks": "graphc",
    "batches": "graphc.data", "windows": "graphc.data", "remat": "graphc.nn.remat",
    "load_weights": "graphc.weights", "save_weights": "graphc.weights", "parse": "graphc.dsl.text",
    "generate": "graphc.generation", "draw": "graphc.drawing.draw", "Generator": "graphc.generation",
    "explore": "graphc.doors.page", "from_onnx": "graphc.doors.onnx", "to_onnx": "graphc.doors.onnx_out.entry",
    "export": "graphc.doors.library.export", "from_torch": "graphc.doors.torch.public",
    "to_torch": "graphc.doors.torch.public",
    "from_pretrained": "graphc.doors.pretrained.folder", "from_gguf": "graphc.doors.gguf.model"}


def __getattr__(name: str) -> _Any:
    if name not in _LATER:
        raise _unknown("gc", name)
    with LOADING:
        home = _LATER[name]
        globals()[name] = import_module(f"graphc.{name}") if home == "graphc" else getattr(import_module(home), name)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})


set_compiler(lambda function: __getattr__("compile")(function))
set_renderer(lambda shown: import_module("graphc.drawing.notebook").html(shown))
set_explorer(lambda shown, *given, **options: __getattr__("explore")(shown, *given, **options))
