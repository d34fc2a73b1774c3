"""Linear algebra beyond the table of functions: large matrices, which are cut in blocks, singular ones, batches that
broadcast, named sizes, gradients through eigenvectors, mistakes."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc

RNG = np.random.default_rng(3)
N = 150


def definite(n: int, *batch: int) -> np.ndarray:
    m = RNG.uniform(-1, 1, (*batch, n, n))
    return m @ m.swapaxes(-1, -2) + 5 * np.eye(n)


@pytest.mark.parametrize("dtype", (gc.f32, gc.f64), ids=str)
def test_large_matrices(dtype):
    x, y = definite(N).astype(dtype.np), RNG.random((N, 70)).astype(dtype.np)

    @gc.graph
    def f(x: dtype[N, N], y: dtype[N, 70]):
        low = gc.cholesky(x)
        w, v = gc.eigh(x)
        q, r = gc.qr(x)
        return (low, gc.solve_triangular(low, y, lower=True), gc.solve_triangular(low, y, lower=True, transpose=True),
                gc.solve_triangular(x, y), gc.solve(x, y), gc.inv(x), gc.slogdet(x)[1], w, (v * w) @ v.mT, v.mT @ v, q @ r, q.mT @ q)
    wide = x.astype(float)
    low, eye = np.linalg.cholesky(wide), np.eye(N)
    want = (low, np.linalg.solve(low, y), np.linalg.solve(low.T, y), np.linalg.solve(np.triu(wide), y), np.linalg.solve(wide, y),
            np.linalg.inv(wide), np.linalg.slogdet(wide)[1], np.linalg.eigvalsh(wide), wide, eye, wide, eye)
    eps = np.finfo(dtype.np).eps
    for got, exact in zip(gc.compile(f)(x, y), want, strict=True):
        np.testing.assert_allclose(got, exact, rtol=400 * eps, atol=400 * eps * np.abs(exact).max())


def test_gradients_of_a_large_solve():
    x, y = definite(70), RNG.random((70, 3))

    def f(x, y):
        return gc.sum(gc.solve(x, y) ** 2) + gc.sum(gc.cholesky(x)) + gc.slogdet(x)[1]
    gc.check_gradients(f, raises=True, x=x, y=y, samples=5)


def test_gradients_through_eigenvectors():
    """First and second, of what depends on the vectors themselves."""
    x, c = definite(4), RNG.random((4, 4))

    @gc.graph
    def f(x: gc.f64[4, 4]):
        w, v = gc.eigh(x)
        return gc.sum(v * c) + gc.sum(gc.log(w))
    first = gc.grad(f)

    @gc.graph
    def of_first(x: gc.f64[4, 4]):
        return gc.sum(first(x) ** 2)
    gc.check_gradients(f, raises=True, x=x)
    gc.check_gradients(of_first, raises=True, x=x)


def test_equal_eigenvalues_have_a_gradient_where_the_function_has():
    """The sum of w² is that of squares of the elements, also where values are equal."""
    @gc.graph
    def f(x: gc.f64[3, 3]):
        w, v = gc.eigh(x)
        return gc.sum(((v * w) @ v.mT) ** 2)
    x = np.diag([2.0, 2, 5])
    np.testing.assert_allclose(gc.compile(gc.grad(f))(x), 2 * x, atol=1e-12)


def test_what_has_no_answer_is_infinite_or_nan():
    @gc.graph
    def f(x: gc.f64[2, 2, 2], y: gc.f64[2, 1]):
        return gc.cholesky(x), gc.solve(x, y), gc.inv(x), gc.det(x), *gc.slogdet(x), gc.qr(x)[0]
    singular, good = np.array([[1.0, 2], [2, 4]]), np.array([[2.0, 1], [1, 3]])
    low, x, inverse, det, sign, logarithm, q = gc.compile(f)(np.stack([singular, good]), np.ones((2, 1)))
    assert not np.isfinite(x[0]).all() and not np.isfinite(inverse[0]).all()
    assert det[0] == 0 and sign[0] == 0 and logarithm[0] == -np.inf and low[0, 1, 1] == 0
    np.testing.assert_allclose(inverse[1], np.linalg.inv(good))              # the other matrix is not touched
    np.testing.assert_allclose(low[1], np.linalg.cholesky(good))
    np.testing.assert_allclose(q[1].T @ q[1], np.eye(2), atol=1e-15)
    negative = gc.compile(lambda x: gc.cholesky(x), x=gc.f64[2, 2])(np.array([[1.0, 0], [3, 1]]))
    assert np.isnan(negative[1, 1]) and negative[0, 0] == 1


def test_batches_broadcast_and_sizes_may_be_names():
    @gc.graph
    def f(x: gc.f64["B", "N", "N"], y: gc.f64[2, 1, "N", 3]):
        return gc.solve(x, y), gc.det(x), gc.eigh(x)[0]
    x, y = definite(5, 4), RNG.random((2, 1, 5, 3))
    solved, det, w = gc.compile(f)(x, y)
    np.testing.assert_allclose(solved, np.linalg.solve(x, y), rtol=1e-9)
    np.testing.assert_allclose(det, np.linalg.det(x), rtol=1e-9)
    np.testing.assert_allclose(w, np.linalg.eigvalsh(x), rtol=1e-9)


def test_pivots():
    """Without an exchange of rows these lose all digits."""
    x, y = np.array([[1e-20, 1], [1, 1]]), np.array([1.0, 2])
    got = gc.compile(lambda x, y: gc.solve(x, y), x=gc.f64[2, 2], y=gc.f64[2])(x, y)
    np.testing.assert_allclose(got, np.linalg.solve(x, y))


@pytest.mark.parametrize("f, says", (
    (lambda x: gc.inv(x), "square matrices"), (lambda x: gc.cholesky(x), "square matrices"), (lambda x: gc.solve(x[:, :3], x[:2]), "right-hand sides"),
    (lambda x: gc.solve(x[:, :3], 1.0), "got a scalar"), (lambda x: gc.qr(x[0]), r"\[..., m, n\]"),
    (lambda x: gc.solve_triangular(x[:, :3], x, lower=1), "True or False"),
    (lambda x: gc.solve(x[:, :3], x.astype(gc.f64)), "astype"), (lambda x: gc.eigh(x), "square")))
def test_mistakes(f, says):
    with pytest.raises(gc.GraphError, match=says) as caught:
        gc.compile(lambda x: f(x), x=gc.f32[3, 4])
    assert caught.value.loc.file == __file__
