"""The rules of ATen's operators against numpy, without PyTorch. tests/pytorch/test_from_torch.py compares with PyTorch."""
from __future__ import annotations

import subprocess
import sys

import mpmath as mp
import numpy as np
import pytest
from torch_programs import Ref, Step, TorchProgram, applied

import graphc as gc
from graphc.doors.torch.network import TorchNetwork
from graphc.doors.torch.program import ComplexType
from graphc.doors.torch.rules.complex_numbers import RULES as COMPLEX_RULES
from graphc.doors.torch.rules.complex_numbers import Complex
from graphc.doors.torch.rules.table import RULES
from graphc.errors import GraphError

R = np.random.default_rng(0)
ENDS = np.array([np.nan, -np.inf, np.inf, -1.0, 2.0], np.float32)
X = R.standard_normal((3, 4)).astype(np.float32)
Y = R.standard_normal((3, 4)).astype(np.float32)
I = np.array([[4, -3, 2, 7], [1, 5, -6, 2], [3, 3, 8, -1]])
B = X > 0
IMAGE = R.standard_normal((2, 3, 6, 5)).astype(np.float32)


LARGE = np.array([-3., 0, 0.5, 4.9, 5.1, 20, 49, 51, 300, 1e6])


def softmax(x, axis):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


POSITIVE = X @ X.T + 2 * np.eye(3, dtype=np.float32)
GAPS = np.where(X > 1, np.nan, X).astype(np.float32)
SCALES = np.array([0, -0.0, 1, -2, 0.3, 3e-44, -1e-38, 3.4e38, 2 ** -126, np.inf], np.float32)
ROOTS, TURNS = np.linalg.eigh(POSITIVE)
ORDERS, PLACES = (a.ravel() for a in np.meshgrid([1e-3, 0.4, 1, 2.5, 30, 99, 101, 400, 1e5], [1e-3, 0.3, 1.05, 1.2, 3, 29, 33, 97, 104, 380, 420, 99800, 100500]))


def incomplete(a, x, above):
    """The share of the gamma integral, by mpmath."""
    ends = {"a": mp.mpf(x)} if above else {"b": mp.mpf(x)}
    return float(mp.gammainc(mp.mpf(a), **ends, regularized=True))


def windows_at(starts, x, kernel):
    """The largest number of each window."""
    return np.array([[x[i:i + kernel, j:j + kernel].max() for j in starts[1]] for i in starts[0]])


EDGES = np.array([[0, 0, 0, 1, np.inf, 1, np.inf, -1, 2, np.nan], [0, 1, np.inf, 0, 1, np.inf, np.inf, 1, -1, 1]])
ROWS = [
    ("igamma.default", (ORDERS, PLACES), {}, np.array([incomplete(a, x, False) for a, x in zip(ORDERS, PLACES)])),
    ("igammac.default", (ORDERS, PLACES), {}, np.array([incomplete(a, x, True) for a, x in zip(ORDERS, PLACES)])),
    ("igamma.default", tuple(EDGES.astype(np.float32)), {}, np.float32([np.nan, 1, 1, 0, 0, 1] + [np.nan] * 4)),
    ("igammac.default", tuple(EDGES.astype(np.float32)), {}, np.float32([np.nan, 0, 0, 1, 1, 0] + [np.nan] * 4)),
    ("upsample_linear1d.vec", (X[None], None, True, (1.7,)), {}, np.stack([np.interp(np.linspace(0, 3, 6), range(4), r) for r in X])[None].astype(np.float32)),
    ("fractional_max_pool2d.default", (IMAGE, (2, 2), (3, 2), np.full((2, 3, 2), 0.4, np.float32)), {}, (
        np.array([[windows_at(((0, 2, 4), (0, 3)), c, 2) for c in image] for image in IMAGE]), None)),
    ("frexp.Tensor", (SCALES,), {}, tuple(np.frexp(SCALES))),
    ("linalg_matrix_exp.default", (POSITIVE,), {}, ((TURNS * np.exp(ROOTS)) @ TURNS.T).astype(np.float32)),
    ("linalg_matrix_exp.default", (np.float32([[[0, 1], [0, 0]], [[0, 40], [-40, 0]]]),), {}, np.float32(
        [[[1, 1], [0, 1]], [[np.cos(40), np.sin(40)], [-np.sin(40), np.cos(40)]]])),
    ("histc.default", (GAPS, 5, -1, 1), {}, np.histogram(GAPS, 5, (-1, 1))[0].astype(np.float32)),
    ("histc.default", (X, 4), {}, np.histogram(X, 4)[0].astype(np.float32)),
    ("histogram.bin_ct", (X, 5), {"range": (-1.0, 1.0), "weight": Y}, tuple(
        a.astype(np.float32) for a in np.histogram(X, 5, (-1, 1), weights=Y))),
    ("histogram.bin_ct", (X[:1, :1], 2), {}, (np.float32([0, 1]), np.float32([-0.5, 0, 0.5]) + X[0, 0])),
    ("histogram.bins_tensor", (X, np.float32([-1, 0, 0.5, 2])), {"density": True}, tuple(
        a.astype(np.float32) for a in np.histogram(X, [-1, 0, 0.5, 2], density=True))),
    ("sign.default", (GAPS,), {}, np.sign(np.nan_to_num(GAPS))), ("__rshift__.Scalar", (I, 1), {}, I >> 1),
    ("prims.fma.default", (X, Y, X), {}, X * Y + X),
    ("special_erfcx.default", (LARGE,), {}, np.array([float(mp.exp(mp.mpf(x) ** 2) * mp.erfc(x)) for x in LARGE])),
    ("special_i0e.default", (LARGE,), {}, np.array([float(mp.besseli(0, x) * mp.exp(-abs(x))) for x in LARGE])),
    ("special_i1e.default", (-LARGE,), {}, np.array([float(mp.besseli(1, -x) * mp.exp(-abs(x))) for x in LARGE])),
    ("angle.default", (GAPS,), {}, np.where(np.isnan(GAPS), np.nan, np.angle(np.nan_to_num(GAPS))).astype(np.float32)),
    ("dist.default", (X, Y[:1], 3), {}, np.float32((np.abs(X - Y[:1]) ** 3).sum() ** (1 / 3))),
    ("_cdist_forward.default", (X, np.where(B, X, Y)[:2], 0.0, None), {}, (X[:, None] != np.where(B, X, Y)[:2]).sum(-1).astype(np.float32)),
    ("index_reduce.default", (X, 1, np.array([3, 0, 3]), Y[:, :3], "mean"), {"include_self": False}, np.stack(
        [Y[:, 1], X[:, 1], X[:, 2], (Y[:, 0] + Y[:, 2]) / 2], 1)),
    ("index_reduce.default", (X, 0, np.array([1, 1]), Y[:2], "amax"), {}, np.stack([X[0], np.maximum(X[1], np.maximum(Y[0], Y[1])), X[2]])),
    ("transpose_copy.int", (X, 0, 1), {}, X.T), ("unbind_copy.int", (X[:2],), {}, (X[0], X[1])),
    ("linalg_cholesky_ex.default", (np.tril(POSITIVE),), {}, (np.linalg.cholesky(POSITIVE), np.zeros((), np.int32))),
    ("cholesky_inverse.default", (np.linalg.cholesky(POSITIVE),), {}, np.linalg.inv(POSITIVE)),
    ("median.dim", (Y, 1), {}, (np.sort(Y, 1)[:, 1], np.argsort(Y, 1)[:, 1])),
    ("nanmedian.dim", (GAPS, 1), {}, (np.array([np.sort(r)[max(np.isfinite(r).sum() - 1, 0) // 2] for r in GAPS]), None)),
    ("median.dim", (GAPS, 1), {}, (np.where(np.isnan(GAPS).any(1), np.nan, np.sort(GAPS, 1)[:, 1]).astype(np.float32), None)),
    ("add.Tensor", (X, Y), {"alpha": 2}, X + 2 * Y), ("add.Tensor", (X, I), {}, X + I.astype(np.float32)),
    ("add.Tensor", (B, B), {}, B), ("add.Scalar", (I, 2), {}, I + 2), ("sub.Tensor", (X, 1.5), {}, X - np.float32(1.5)),
    ("rsub.Scalar", (X, 1), {}, 1 - X), ("mul.Tensor", (I, 2.5), {}, I.astype(np.float32) * np.float32(2.5)),
    ("div.Tensor", (I, I), {}, np.ones_like(X)), ("div.Tensor_mode", (I, 2), {"rounding_mode": "floor"}, I // 2),
    ("div.Tensor_mode", (I, 2), {"rounding_mode": "trunc"}, np.trunc(I / 2).astype(np.int64)),
    ("pow.Tensor_Scalar", (X, 2), {}, X * X), ("pow.Tensor_Scalar", (I, 3), {}, I ** 3),
    ("remainder.Scalar", (I, 4), {}, I % 4), ("fmod.Scalar", (I, 4), {}, np.fmod(I, 4)),
    ("where.self", (B, X, 0.0), {}, np.where(B, X, np.float32(0))), ("clamp.default", (X, -0.5, 0.5), {}, X.clip(-.5, .5)),
    ("eq.Scalar", (I, 3), {}, I == 3), ("logical_not.default", (I,), {}, I == 0), ("sin.default", (I,), {}, np.sin(I).astype(np.float32)),
    ("floor.default", (I,), {}, I), ("_to_copy.default", (X,), {"dtype": gc.i64}, X.astype(np.int64)),
    ("_to_copy.default", (np.float32([-1.5, 300.7, 3e9, np.nan]),), {"dtype": gc.u8}, np.uint8([255, 44, 0, 0])),
    ("_to_copy.default", (np.array([-129.2, 300.7, 2.0 ** 40]),), {"dtype": gc.i8}, np.int8([127, 44, 0])),
    ("view.default", (X, (2, -1)), {}, X.reshape(2, 6)), ("expand.default", (X[:1], (2, 3, -1)), {}, np.broadcast_to(X[:1], (2, 3, 4))),
    ("permute.default", (IMAGE, (0, -1, 1, 2)), {}, IMAGE.transpose(0, 3, 1, 2)), ("select.int", (X, 1, -1), {}, X[:, -1]),
    ("slice.Tensor", (X, 1, -3, 9223372036854775807, 2), {}, X[:, -3::2]), ("slice.Tensor", (X, 0, 2, 1), {}, X[2:1]),
    ("split.Tensor", (X, 3, 1), {}, (X[:, :3], X[:, 3:])), ("cat.default", ((X, I), -1), {}, np.concatenate([X, I.astype(np.float32)], -1)),
    ("squeeze.dims", (X[None], (0, 1)), {}, X), ("repeat.default", (X, (2, 1, 3)), {}, np.tile(X, (2, 1, 3))),
    ("constant_pad_nd.default", (X, (1, -1, 0, 2), 7), {}, np.pad(X[:, :3], ((0, 2), (1, 0)), constant_values=7)),
    ("flip.default", (X, (0, -1)), {}, X[::-1, ::-1]), ("roll.default", (X, (1,), (1,)), {}, np.roll(X, 1, 1)),
    ("as_strided.default", (X, (2, 3), (1, 4), 1), {}, np.lib.stride_tricks.as_strided(X.ravel()[1:], (2, 3), (4, 16))),
    ("as_strided_scatter.default", (X, Y[:2, :3], (2, 3), (4, 1), 1), {}, np.concatenate([np.concatenate([X[:2, :1], Y[:2, :3]], 1), X[2:]])),
    ("slice_scatter.default", (X, Y[:, :2], 1, 1, 3), {}, np.concatenate([X[:, :1], Y[:, :2], X[:, 3:]], 1)),
    ("select_scatter.default", (X, Y[0], 0, -1), {}, np.stack([X[0], X[1], Y[0]])), ("tril.default", (X, 1), {}, np.tril(X, 1)),
    ("arange.start_step", (1, 8, 3), {}, np.arange(1, 8, 3)), ("arange.default", (5,), {"dtype": gc.f32}, np.arange(5, dtype=np.float32)),
    ("full.default", ((2, 3), 1.5), {}, np.full((2, 3), 1.5, np.float32)), ("zeros_like.default", (B,), {}, np.zeros_like(B)),
    ("new_ones.default", (X, (2,)), {"dtype": gc.bool_}, np.array([True, True])), ("full.default", ((2,), True), {}, np.array([True, True])),
    ("sum.dim_IntList", (I, (1,), True), {}, I.sum(1, keepdims=True)), ("mean.dim", (X, (0,)), {}, X.mean(0)),
    ("var.correction", (X, (1,)), {"correction": 1}, X.var(1, ddof=1)), ("amax.default", (X, (-1,)), {}, X.max(-1)),
    ("max.dim", (X, 1), {}, (X.max(1), X.argmax(1))), ("any.dim", (I > 6, 0), {}, (I > 6).any(0)),
    ("cumsum.default", (I, 1), {}, I.cumsum(1)), ("cummax.default", (X, 1), {}, (np.maximum.accumulate(X, 1), None)),
    ("sort.default", (X, 1, True), {}, (-np.sort(-X, 1), np.argsort(-X, 1))), ("topk.default", (X, 2, 1, False), {}, (np.sort(X, 1)[:, :2], np.argsort(X, 1)[:, :2])),
    ("linalg_vector_norm.default", (X, 2, (1,)), {}, np.linalg.norm(X, axis=1)), ("mm.default", (X, Y.T), {}, X @ Y.T),
    ("addmm.default", (Y[:, :3], X, Y.T), {"beta": 0.5, "alpha": 2}, 0.5 * Y[:, :3] + 2 * (X @ Y.T)),
    ("linear.default", (X, Y, X[:, 0]), {}, X @ Y.T + X[:, 0]), ("_softmax.default", (X, 1, False), {}, softmax(X, 1)),
    ("native_layer_norm.default", (X, (4,), None, None, 1e-5), {}, ((X - X.mean(1, keepdims=True)) / np.sqrt(X.var(1, keepdims=True) + 1e-5), X.mean(1, keepdims=True), 1 / np.sqrt(X.var(1, keepdims=True) + 1e-5))),
    ("index.Tensor", (X, (np.array([0, 2]), np.array([[1], [3]]))), {}, X[np.array([0, 2]), np.array([[1], [3]])]),
    ("index.Tensor", (IMAGE, (np.array([0, 1]), None, np.array([2, 5]))), {}, IMAGE[np.array([0, 1]), :, np.array([2, 5])]),
    ("gather.default", (X, 1, np.array([[3, 0], [1, 1]])), {}, np.take_along_axis(X[:2], np.array([[3, 0], [1, 1]]), 1)),
    ("masked_fill.Scalar", (X, B, 9), {}, np.where(B, np.float32(9), X)), ("embedding.default", (X, np.array([2, 0]), 0), {}, X[[2, 0]]),
    ("masked_scatter.default", (X, B, Y), {}, np.array([Y.ravel()[B.ravel()[:i].sum()] if B.ravel()[i] else X.ravel()[i] for i in range(12)], np.float32).reshape(3, 4)),
    ("scatter.value", (I, 1, np.array([[1], [0], [3]]), 5), {}, np.array([[4, 5, 2, 7], [5, 5, -6, 2], [3, 3, 8, 5]])),
    ("threshold.default", (ENDS, 0, 1), {}, np.where(ENDS <= 0, np.float32(1), ENDS)),
    ("heaviside.default", (ENDS, np.ones_like(ENDS)), {}, (ENDS > 0).astype(np.float32)),
    ("special_entr.default", (ENDS,), {}, np.array([np.nan, -np.inf, -np.inf, -np.inf, -2 * np.log(2)], np.float32)),
    ("scaled_dot_product_attention.default", (X[None], Y[None], Y[None], np.zeros((3, 3), bool)), {}, np.zeros((1, 3, 4), np.float32)),
    ("replication_pad1d.default", (X, (-1, 2)), {}, X[:, [1, 2, 3, 3, 3]]), ("replication_pad1d.default", (X, (-5, 6)), {}, X[:, [3] * 5]),
    ("reflection_pad1d.default", (X, (3, -2)), {}, X[:, [3, 2, 1, 0, 1]]), ("hardshrink.default", (X, -0.5), {}, X),
    ("segment_reduce.default", (X, "max"), {"lengths": np.array([2, 0, 1])}, np.stack([X[:2].max(0), np.full(4, -np.inf, np.float32), X[2]])),
    ("segment_reduce.default", (X, "mean"), {"offsets": np.array([0, 1, 3])}, np.stack([X[0], X[1:].mean(0)])),
    ("segment_reduce.default", (I.astype(float), "prod"), {"lengths": np.array([[1, 3], [4, 0], [2, 2]]), "axis": 1, "initial": 2},
     np.array([[8., -84], [-120, 2], [18, -16]])),
    ("multi_margin_loss.default", (X[0], np.array([2]), 1, 1, None, 0), {}, (np.maximum(0, 1 - X[0, 2] + X[0, [0, 1, 3]]).sum() / 4)[None]),
    ("mse_loss.default", (X, Y, 2), {}, np.float32(((X - Y) ** 2).sum())), ("scalar_tensor.default", (3,), {}, np.array(3)),
]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_next_number(dtype):
    """To the bit: also from 0, between the smallest numbers, at the ends."""
    ends = np.finfo(dtype)
    x = np.array([0.0, -0.0, 1, -2, 0.3, ends.smallest_subnormal, -3 * ends.smallest_subnormal, ends.tiny, -ends.tiny,
                  ends.max, -ends.max, np.inf, -np.inf, np.nan], dtype)
    a, b = (m.ravel() for m in np.meshgrid(x, x))
    found = applied("nextafter.default", a, b)
    with np.errstate(all="ignore"):
        wanted = np.nextafter(a, b)
    assert found.dtype == dtype
    signs = (np.signbit(found) == np.signbit(wanted)) | (a == b)        # of zeros numpy's f16 gives the other one
    same = (found == wanted) & signs | np.isnan(found) & np.isnan(wanted)
    assert same.all(), list(zip(a[~same], b[~same], found[~same], wanted[~same]))


@pytest.mark.parametrize("target, args, kwargs, wanted", ROWS, ids=[f"{i}-{row[0]}" for i, row in enumerate(ROWS)])
def test_rule_against_numpy(target, args, kwargs, wanted):
    found = applied(target, *args, **kwargs)
    for a, b in zip(found if isinstance(wanted, tuple) else (found,), wanted if isinstance(wanted, tuple) else (wanted,)):
        if b is not None:
            assert a.dtype == np.asarray(b).dtype and a.shape == np.shape(b)
            np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-6)


def test_index_put_is_numpys_assignment():
    i, j = np.array([0, 5]), np.array([[2], [4]])
    wanted = IMAGE.copy()
    wanted[:, :, i, j] = 3.0
    values = np.full((2, 3, 2, 2), 3, np.float32)
    np.testing.assert_array_equal(applied("index_put.default", IMAGE, (None, None, i, j), values), wanted)
    wanted = IMAGE.copy()
    new = R.standard_normal((2, 2, 6)).astype(np.float32)
    wanted[np.array([1, 0]), :2, :, np.array([2, 3])] = new             # apart: their axes come first
    found = applied("index_put.default", IMAGE[:, :2], (np.array([1, 0]), None, None, np.array([2, 3])), new)
    np.testing.assert_array_equal(found, wanted[:, :2])


def test_batch_norm_gives_new_running_statistics():
    mean, var = np.zeros(3, np.float32), np.ones(3, np.float32)
    y, _, _, new_mean, new_var = applied("_native_batch_norm_legit_functional.default", IMAGE, None, None, mean, var, True,
                                         0.1, 1e-5)
    batch, spread = IMAGE.mean((0, 2, 3)), IMAGE.var((0, 2, 3), ddof=1)
    np.testing.assert_allclose(new_mean, 0.1 * batch, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(new_var, 0.9 + 0.1 * spread, rtol=1e-5)
    np.testing.assert_allclose(y.mean((0, 2, 3)), 0, atol=1e-5)


GRADIENTS = {                       # of linear forward rules: <backward(g), x> = <g, forward(x)> for any x
    "avg_pool2d_backward.default": ("avg_pool2d.default", IMAGE, ((2, 2),), lambda g: (g, IMAGE, (2, 2), (2, 2), 0, False, True, None)),
    "upsample_bilinear2d_backward.default": ("upsample_bilinear2d.default", IMAGE, ((9, 7), True, None, None),
                                             lambda g: (g, (9, 7), (2, 3, 6, 5), True, None, None)),
    "reflection_pad2d_backward.default": ("reflection_pad2d.default", IMAGE, ((1, 2, 0, 1),), lambda g: (g, IMAGE, (1, 2, 0, 1))),
    "_adaptive_avg_pool2d_backward.default": ("_adaptive_avg_pool2d.default", IMAGE, ((3, 2),), lambda g: (g, IMAGE)),
}


@pytest.mark.parametrize("target", GRADIENTS)
def test_gradient_rule_is_the_transpose(target):
    forward, x, more, arguments = GRADIENTS[target]
    y = applied(forward, x, *more)
    g = R.standard_normal(y.shape).astype(np.float32)
    dx = applied(target, *arguments(g))
    np.testing.assert_allclose((dx * x).sum(), (g * y).sum(), rtol=1e-4, atol=1e-4)


def test_max_pool_hands_gradients_to_the_largest():
    y, at = applied("max_pool2d_with_indices.default", IMAGE, (2, 2))
    g = np.ones_like(y)
    dx = applied("max_pool2d_with_indices_backward.default", g, IMAGE, (2, 2), (2, 2), (0, 0), (1, 1), False, at)
    assert dx.sum() == g.sum()
    np.testing.assert_array_equal(np.sort(IMAGE[dx > 0]), np.sort(y.ravel()))


@pytest.mark.parametrize("target", ["nonzero.default", "masked_select.default", "_local_scalar_dense.default"])
def test_sizes_that_depend_on_values_are_refused_with_what_would_be_right(target):
    with pytest.raises(GraphError, match="size that depends on values"):
        RULES[target](X, B)


def test_promotion_follows_categories():
    small, scalar = X.astype(np.float16), np.array(2.0, np.float64)
    assert applied("add.Tensor", small, scalar).dtype == np.float16         # a scalar of the same category adapts
    assert applied("add.Tensor", I.astype(np.int8), scalar).dtype == np.float64
    assert applied("add.Tensor", I.astype(np.int8), 2).dtype == np.int8
    assert applied("add.Tensor", I.astype(np.int8), 2.5).dtype == np.float32
    assert applied("mul.Tensor", I.astype(np.int8), I.astype(np.uint8)).dtype == np.int16


def test_nothing_here_imports_pytorch():
    code = ("import sys, graphc, graphc.doors.torch.network, graphc.doors.torch.rules.table; "
            "assert 'torch' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True)


# complex numbers: a table of their own

Z = (R.standard_normal((2, 3, 4)) + 1j * R.standard_normal((2, 3, 4)))
W = (R.standard_normal((2, 3, 4)) + 1j * R.standard_normal((2, 3, 4)))
COMPLEX_ROWS = [
    ("mul.Tensor", (Z, W), {}, Z * W), ("mul.Tensor", (Z, Z.real), {}, Z * Z.real), ("mul.Tensor", (Z.real, W), {}, Z.real * W),
    ("mul.Scalar", (Z, 2j), {}, Z * 2j), ("mul.Tensor", (Z[0], I), {}, Z[0] * I), ("div.Tensor", (Z[0], I), {}, Z[0] / I), ("div.Tensor", (Z, W), {}, Z / W), ("div.Tensor", (Z.real, W * 1e200), {}, Z.real / (W * 1e200)),
    ("add.Tensor", (Z, W), {"alpha": 2}, Z + 2 * W), ("sub.Tensor", (Z.real, W), {}, Z.real - W), ("abs.default", (Z * 1e300,), {}, np.abs(Z) * 1e300),
    ("angle.default", (Z,), {}, np.angle(Z)), ("_conj.default", (Z,), {}, Z.conj()), ("imag.default", (Z,), {}, Z.imag),
    ("exp.default", (Z,), {}, np.exp(Z)), ("view_as_real.default", (Z,), {}, np.stack([Z.real, Z.imag], -1)),
    ("polar.default", (np.abs(Z), np.angle(Z)), {}, Z), ("complex.default", (Z.real, Z.imag), {}, Z), ("complex.default", (Z.real, Z.imag[0]), {}, Z.real + 1j * Z.imag[0]),
    ("permute.default", (Z, (2, 0, 1)), {}, Z.transpose(2, 0, 1)), ("cat.default", ((Z, W), 1), {}, np.concatenate([Z, W], 1)),
    ("where.self", (Z.real > 0, Z, W), {}, np.where(Z.real > 0, Z, W)), ("bmm.default", (Z, W.swapaxes(1, 2)), {}, Z @ W.swapaxes(1, 2)),
    ("sum.dim_IntList", (Z, (1,)), {}, Z.sum(1)), ("_fft_c2c.default", (Z, (1, 2), 2, True), {}, np.fft.fftn(Z, axes=(1, 2), norm="forward")),
    ("_fft_c2c.default", (Z, (2,), 0, False), {}, np.fft.ifft(Z) * 4), ("_fft_r2c.default", (Z.real, (0, 2), 1, True), {}, np.fft.rfft2(Z.real, axes=(0, 2), norm="ortho")),
    ("_fft_r2c.default", (Z.real, (1,), 0, False), {}, np.fft.fft(Z.real, axis=1)),
    ("_fft_c2r.default", (Z, (1, 2), 2, 6), {}, np.fft.irfft2(Z, (3, 6), (1, 2))), ("_fft_c2r.default", (Z, (2,), 0, 7), {}, np.fft.irfft(Z, 7) * 7)]


def given(value):
    """Complex arrays as they stand in a program."""
    if isinstance(value, tuple):
        return tuple(map(given, value))
    return Complex(value.real, value.imag) if isinstance(value, np.ndarray) and np.iscomplexobj(value) else value


@pytest.mark.parametrize("target, args, kwargs, wanted", COMPLEX_ROWS, ids=[f"{n}-{row[0]}" for n, row in enumerate(COMPLEX_ROWS)])
def test_rules_of_complex_numbers(target, args, kwargs, wanted):
    found = applied(target, *map(given, args), rules=COMPLEX_RULES, **kwargs)
    found = found[0] + 1j * found[1] if isinstance(found, tuple) else found
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


def test_the_size_of_zero_has_the_gradient_zero():
    body = (Step("z", "view_as_complex.default", (Ref("x"),), type=ComplexType(gc.f32[2])),
            Step("y", "abs.default", (Ref("z"),), type=gc.f32[2]), Step("s", "sum.default", (Ref("y"),)))
    net = TorchNetwork(lambda training: TorchProgram("Size", {"x": gc.f32[2, 2]}, body, {"": Ref("s")}))

    @gc.graph
    def size(x: gc.f32[2, 2]):
        return net(x)
    np.testing.assert_allclose(gc.grad(size)(np.array([[0, 0], [3, 4]], np.float32)), [[0, 0], [0.6, 0.8]], rtol=1e-6)


def test_complex_numbers_do_not_leave_a_program():
    body = (Step("z", "view_as_complex.default", (Ref("x"),), type=ComplexType(gc.f32[2])),)
    net = TorchNetwork(lambda training: TorchProgram("Out", {"x": gc.f32[2, 2]}, body, {"": Ref("z")}))
    with pytest.raises(GraphError, match="view_as_real"):
        net.check()
    body += (Step("y", "tan.default", (Ref("z"),), type=ComplexType(gc.f32[2])),)
    with pytest.raises(GraphError, match="tan.default: no rule for it with complex numbers"):
        TorchNetwork(lambda training: TorchProgram("Tan", {"x": gc.f32[2, 2]}, body, {"": Ref("y")})).check()
