"""LAPACK's forms of factorisations against numpy, which calls LAPACK too; no test here needs PyTorch."""
from __future__ import annotations

import numpy as np
import pytest
from torch_programs import Ref, Step, TorchProgram, applied

import graphc as gc
from graphc.doors.torch.network import TorchNetwork
from graphc.ir.interp import evaluate

R = np.random.default_rng(1)
SHAPES = [(4, 4), (2, 5, 3), (3, 5)]
SQUARE = R.standard_normal((2, 4, 4))


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)


def drawn(shape):
    return R.standard_normal(shape)


@pytest.mark.parametrize("mode", ["reduced", "complete", "r"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_qr_has_the_signs_of_lapack(shape, mode):
    x = drawn(shape)
    q, r = applied("linalg_qr.default", x, mode)
    if mode == "r":
        close(r, np.linalg.qr(x, "r"))
    else:
        wanted = np.linalg.qr(x, mode)
        close(q, wanted[0])
        close(r, wanted[1])


def test_qr_of_columns_that_depend_on_each_other_is_a_product_still():
    x = drawn((4, 1)) @ drawn((1, 3))
    q, r = applied("linalg_qr.default", x)
    close(q @ r, x)
    close(q.T @ q, np.eye(3))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_reflections(shape):
    x = drawn(shape)
    packed, tau = applied("geqrf.default", x)
    if len(shape) == 2:
        h, wanted = np.linalg.qr(x, "raw")
        close(packed, h.T)
        close(tau, wanted)
    n = min(shape[-2:])
    q = applied("linalg_householder_product.default", packed[..., :n], tau)
    close(q @ np.triu(packed)[..., :n, :], x)


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("left", [False, True])
def test_a_product_with_the_whole_of_q(left, transpose):
    x, y = drawn((5, 3)), drawn((5, 2) if left else (2, 5))
    q = np.linalg.qr(x, "complete")[0]
    q = q.T if transpose else q
    close(applied("ormqr.default", *applied("geqrf.default", x), y, left, transpose), q @ y if left else y @ q)


def test_pivots_are_changes_of_place():
    packed, pivots, _ = applied("linalg_lu_factor_ex.default", SQUARE)
    for x, lu, steps in zip(SQUARE, packed, pivots):
        rows = x.copy()
        for k, p in enumerate(steps - 1):
            assert p >= k
            rows[[k, p]] = rows[[p, k]]
        close((np.tril(lu, -1) + np.eye(4)) @ np.triu(lu), rows)
    p, low, up = applied("lu_unpack.default", packed, pivots)
    close(p @ low @ up, SQUARE)
    for found, wanted in zip(applied("linalg_lu.default", SQUARE), (p, low, up)):
        close(found, wanted)


@pytest.mark.parametrize("left, adjoint", [(True, False), (True, True), (False, False), (False, True)])
def test_equations_with_a_factored_matrix(left, adjoint):
    y = drawn((2, 4, 3) if left else (2, 3, 4))
    packed, pivots, _ = applied("linalg_lu_factor_ex.default", SQUARE)
    a = SQUARE.mT if adjoint else SQUARE
    x = applied("linalg_lu_solve.default", packed, pivots, y, left=left, adjoint=adjoint)
    close(a @ x if left else x @ a, y)


@pytest.mark.parametrize("shape", [(3, 5), (2, 5, 3)], ids=str)
def test_lu_of_what_is_not_square(shape):
    x = drawn(shape)
    p, low, up = applied("linalg_lu.default", x)
    close(p @ low @ up, x)
    assert np.abs(low).max() <= 1
    for found, wanted in zip(applied("lu_unpack.default", *applied("linalg_lu_factor_ex.default", x)[:2]), (p, low, up)):
        close(found, wanted)


def test_lu_without_pivots():
    p, low, up = applied("linalg_lu.default", SQUARE, pivot=False)
    close(p, np.broadcast_to(np.eye(4), p.shape))
    close(low @ up, SQUARE)


def test_a_matrix_without_rank_has_an_lu():
    x = np.array([[0., 0, 1, 2], [0, 0, 3, 4], [0, 0, 5, 6]])
    p, low, up = applied("linalg_lu.default", x)
    close(p @ low @ up, x)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("shape", [*SHAPES, (1, 3), (3, 1), (0, 2), (2, 0)], ids=str)
def test_singular_vectors(shape, full):
    x = drawn(shape)
    u, s, v = applied("_linalg_svd.default", x, full)
    wanted = np.linalg.svd(x, full_matrices=full)
    assert [a.shape for a in (u, s, v)] == [a.shape for a in wanted]
    k = s.shape[-1]
    close(s, wanted[1])
    close((u[..., :k] * s[..., None, :]) @ v[..., :k, :], x)
    for q in (u, v.mT):
        close(q.mT @ q, np.broadcast_to(np.eye(q.shape[-1]), (*q.shape[:-2], q.shape[-1], q.shape[-1])))


def test_singular_vectors_of_what_has_no_rank():
    for x in (drawn((5, 1)) @ drawn((1, 4)), np.zeros((3, 3)), np.eye(4), np.diag([1, 1e-9, 1e-17])):
        u, s, v = applied("_linalg_svd.default", x)
        close((u * s) @ v, x)
        close(u.T @ u, np.eye(u.shape[1]))
        close(v @ v.T, np.eye(v.shape[0]))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_singular_values_and_pseudoinverse(shape):
    x = drawn(shape)
    close(applied("_linalg_svd.default", x, compute_uv=False)[1], np.linalg.svd(x, compute_uv=False))
    close(applied("linalg_pinv.atol_rtol_tensor", x), np.linalg.pinv(x))


def test_the_pseudoinverse_leaves_out_what_is_small():
    x = drawn((4, 2)) @ drawn((2, 3))
    close(applied("linalg_pinv.atol_rtol_tensor", x), np.linalg.pinv(x))
    s = np.linalg.svd(x, compute_uv=False)
    close(applied("linalg_pinv.atol_rtol_float", x, atol=float(s[:2].mean())), np.linalg.pinv(x, s[:2].mean() / s[0]))
    symmetric = SQUARE[0] + SQUARE[0].T
    close(applied("linalg_pinv.atol_rtol_tensor", symmetric, hermitian=True), np.linalg.pinv(symmetric))


def test_gradients_go_through_the_loops():
    def factored(x):
        return applied_sum("linalg_qr.default", x)
    x, d = drawn((4, 3)), drawn((4, 3)) * 1e-6
    found, = evaluate(gc.grad(factored_graph()).graph, [x])
    slope = (factored(x + d) - factored(x - d)) / 2
    np.testing.assert_allclose((found * d).sum(), slope, rtol=1e-4)


def applied_sum(target, x):
    q, r = applied(target, x)
    return (q * q * q).sum() + (r * r * r).sum()


def factored_graph():
    """The same, as a graph."""
    steps = (Step("t", "linalg_qr.default", (Ref("x"),)), Step("q", "operator.getitem", (Ref("t"), 0)),
             Step("r", "operator.getitem", (Ref("t"), 1)))
    net = TorchNetwork(lambda training: TorchProgram("QR", {"x": gc.f64[4, 3]}, steps, {"0": Ref("q"), "1": Ref("r")}))

    @gc.graph
    def f(x: gc.f64[4, 3]):
        q, r = net(x)
        return gc.sum(q ** 3) + gc.sum(r ** 3)
    return f


def test_a_program_without_inputs_is_a_network():
    program = TorchProgram("Ones", {}, (Step("y", "ones.default", ((2, 3),)),), {"": Ref("y")})
    run = gc.compile(TorchNetwork(lambda training: program))
    for _ in range(4):
        np.testing.assert_array_equal(run(), np.ones((2, 3), np.float32))
