"""graphc compiles a declared neural network into one native function for the CPU. Public names only."""
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from graphc.dsl.activation import (
    celu, elu, gelu, glu, hardshrink, hardsigmoid, hardswish, hardtanh, leaky_relu, logsigmoid, mish, prelu, relu,
    relu6, selu, silu, softmin, softplus, softshrink, softsign, tanhshrink, threshold)
from graphc.dsl.adaptive_pool import (
    adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d, adaptive_max_pool1d, adaptive_max_pool2d,
    adaptive_max_pool3d, max_unpool1d, max_unpool2d, max_unpool3d)
from graphc.dsl.array import Array
from graphc.dsl.attention import attention
from graphc.dsl.control import cond, scan, while_loop
from graphc.dsl.conv import conv1d, conv2d, conv3d, conv_transpose1d, conv_transpose2d, conv_transpose3d
from graphc.dsl.custom import custom_vjp
from graphc.dsl.elementwise import (
    abs, add, bitcast, bitwise_and, bitwise_not, bitwise_or, bitwise_xor, cast, ceil, clip, cos, div, equal, erf, exp,
    expm1, floor, floordiv, greater, greater_equal, isfinite, isnan, left_shift, less, less_equal, log, log1p,
    logical_and, logical_not, logical_or, logical_xor, maximum, minimum, mod, mul, name, neg, not_equal, pow,
    right_shift, round, rsqrt, shard_sum, sigmoid, sign, sin, sqrt, square, stop_gradient, sub, tanh, where)
from graphc.dsl.function import GraphFunction, graph, set_compiler as _set_compiler
from graphc.dsl.index import embedding, gather, one_hot, scatter_add, scatter_add_along_axis, take, take_along_axis
from graphc.dsl.linalg import dot, einsum, matmul, outer
from graphc.dsl.loss import bce_with_logits, cross_entropy, mse
from graphc.dsl.norm import batch_norm, batch_norm_inference, group_norm, layer_norm, log_softmax, rms_norm, softmax
from graphc.dsl.other_names import other_name as _other_name
from graphc.dsl.pad import pad
from graphc.dsl.pool import (
    avg_pool1d, avg_pool2d, avg_pool3d, global_avg_pool, global_max_pool, lp_pool1d, lp_pool2d, lp_pool3d, max_pool1d,
    max_pool2d, max_pool3d)
from graphc.dsl.random import bernoulli, dropout, gumbel_softmax, normal, permutation, uniform
from graphc.dsl.reduce import (
    all, any, argmax, argmin, argsort, cumprod, cumsum, linear_scan, logsumexp, max, mean, min, prod, sort, std, sum,
    topk, var)
from graphc.dsl.scatter import gather_nd, index_put, scatter, scatter_along_axis, scatter_nd
from graphc.dsl.shape import (
    arange, broadcast_to, concat, dynamic_slice, dynamic_update_slice, expand_dims, eye, flip, full, full_like, iota,
    moveaxis, ones, ones_like, repeat, reshape, roll, split, squeeze, stack, swapaxes, tile, transpose,
    tril, triu, zeros, zeros_like)
from graphc.dsl.trig import acos, acosh, asin, asinh, atan, atan2, atanh, cosh, sinh, tan
from graphc.errors import GraphError, InternalError
from graphc.ir.shown import set_explorer as _set_explorer, set_renderer as _set_renderer
from graphc.ir.types import (
    DType, TensorType, bf16, bool_, f16, f32, f64, i8, i16, i32, i64, u8, u16, u32, u64)
from graphc.once import loaded as _loaded

from graphc import nn, optim                            # after the functions that layers are written with

if _TYPE_CHECKING:
    from graphc import callbacks, metrics, models
    from graphc.api import compile, plan
    from graphc.data import batches, windows
    from graphc.doors.mpi.distributed import distributed
    from graphc.doors.gguf.model import from_gguf
    from graphc.doors.library.export import export
    from graphc.doors.onnx.public import from_onnx
    from graphc.doors.onnx_out.public import to_onnx
    from graphc.doors.page import explore
    from graphc.doors.pretrained.folder import from_pretrained
    from graphc.doors.torch.public import from_torch, to_torch
    from graphc.drawing.draw import draw
    from graphc.dsl.text import parse
    from graphc.generation import Generator, generate
    from graphc.gradient_check import check_gradients
    from graphc.nn.remat import remat
    from graphc.quantisation import calibrate
    from graphc.train import train_step
    from graphc.weight_storage import IntegerBlocks
    from graphc.weights import load_weights, save_weights
    from graphc.dsl.arrangement import column_stack, dstack, fliplr, flipud, hstack, meshgrid, rot90, vstack
    from graphc.dsl.bounded import compress, nonzero, unique
    from graphc.dsl.distance import cdist, cosine_similarity, norm, normalize, pairwise_distance, pdist
    from graphc.dsl.fft import fft, ifft, irfft, istft, rfft, stft
    from graphc.dsl.fractional_pool import fractional_max_pool2d, fractional_max_pool3d
    from graphc.dsl.images import channel_shuffle, fold, interpolate, pixel_shuffle, pixel_unshuffle, unfold
    from graphc.dsl.custom_jvp import custom_jvp
    from graphc.dsl.debug import debug_print
    from graphc.dsl.jacobian import hessian, jacfwd, jacobian, jacrev
    from graphc.dsl.matrix import cholesky, det, eigh, inv, matrix_power, qr, slogdet, solve, solve_triangular
    from graphc.dsl.numbers import (
        allclose, copysign, deg2rad, digitize, divmod, fmax, fmin, fmod, heaviside, hypot, interp, isclose,
        isin, isinf, linspace, logspace, nan_to_num, polyval, rad2deg, reciprocal, searchsorted, select,
        signbit, trunc, unravel_index)
    from graphc.dsl.products import (
        convolve, correlate, cross, diag, diagonal, diff, gradient, inner, kron, tensordot, trace, trapezoid,
        tri, vander, vdot)
    from graphc.dsl.quantize import fake_quantize
    from graphc.dsl.resize import affine_grid, grid_sample, resize
    from graphc.dsl.special import (
        cbrt, digamma, erfc, erfinv, exp2, i0, i1, lgamma, log2, log10, logaddexp, polygamma, sinc, xlogy)
    from graphc.dsl.statistics import (
        array_equal, average, bincount, corrcoef, count_nonzero, cov, cummax, cummin, histc, histogram,
        median, nanmax, nanmean, nanmedian, nanmin, nanprod, nanquantile, nanstd, nansum, nanvar, percentile,
        ptp, quantile)
    from graphc.dsl.transforms import grad, hvp, jvp, value_and_grad, vjp
    from graphc.dsl.vmap import vmap

__version__ = "0.1.0"

_LATER = {                                              # loaded at the first use, most of them with the compiler
    **{name: f"graphc.dsl.{file}" for file, names in {
        "arrangement": "column_stack dstack fliplr flipud hstack meshgrid rot90 vstack",
        "bounded": "compress nonzero unique",
        "distance": "cdist cosine_similarity norm normalize pairwise_distance pdist",
        "fft": "fft ifft irfft istft rfft stft",
        "fractional_pool": "fractional_max_pool2d fractional_max_pool3d",
        "images": "channel_shuffle fold interpolate pixel_shuffle pixel_unshuffle unfold",
        "custom_jvp": "custom_jvp", "debug": "debug_print",
        "jacobian": "hessian jacfwd jacobian jacrev",
        "matrix": "cholesky det eigh inv matrix_power qr slogdet solve solve_triangular",
        "numbers": "allclose copysign deg2rad digitize divmod fmax fmin fmod heaviside hypot interp isclose isin "
            "isinf linspace logspace nan_to_num polyval rad2deg reciprocal searchsorted select signbit trunc "
            "unravel_index",
        "products": "convolve correlate cross diag diagonal diff gradient inner kron tensordot trace trapezoid tri "
            "vander vdot",
        "quantize": "fake_quantize",
        "resize": "affine_grid grid_sample resize",
        "special": "cbrt digamma erfc erfinv exp2 i0 i1 lgamma log2 log10 logaddexp polygamma sinc xlogy",
        "statistics": "array_equal average bincount corrcoef count_nonzero cov cummax cummin histc histogram median "
            "nanmax nanmean nanmedian nanmin nanprod nanquantile nanstd nansum nanvar percentile ptp quantile",
        "transforms": "grad hvp jvp value_and_grad vjp",
        "vmap": "vmap",
    }.items() for name in names.split()},
    "compile": "graphc.api", "plan": "graphc.api", "calibrate": "graphc.quantisation",
    "check_gradients": "graphc.gradient_check",
    "train_step": "graphc.train", "distributed": "graphc.doors.mpi.distributed", "metrics": "graphc",
    "callbacks": "graphc", "models": "graphc",
    "batches": "graphc.data", "windows": "graphc.data", "remat": "graphc.nn.remat",
    "IntegerBlocks": "graphc.weight_storage",
    "load_weights": "graphc.weights", "save_weights": "graphc.weights", "parse": "graphc.dsl.text",
    "generate": "graphc.generation", "draw": "graphc.drawing.draw", "Generator": "graphc.generation",
    "explore": "graphc.doors.page", "from_onnx": "graphc.doors.onnx.public", "to_onnx": "graphc.doors.onnx_out.public",
    "export": "graphc.doors.library.export", "from_torch": "graphc.doors.torch.public",
    "to_torch": "graphc.doors.torch.public",
    "from_pretrained": "graphc.doors.pretrained.folder", "from_gguf": "graphc.doors.gguf.model"}


def __getattr__(name: str) -> _Any:
    if name not in _LATER:
        return _other_name("gc", name)
    home = _LATER[name]
    return globals().setdefault(name, _loaded(f"graphc.{name}") if home == "graphc" else _loaded(home, name))


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})


_set_compiler(lambda function: __getattr__("compile")(function))
_set_renderer(lambda shown: _loaded("graphc.drawing.notebook").html(shown))
_set_explorer(lambda shown, *given, **options: __getattr__("explore")(shown, *given, **options))
