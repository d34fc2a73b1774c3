"""vmap is the loop over examples; hessian the Jacobian of the gradient."""
import numpy as np
import pytest

import graphc as gc
from graphc import nn

RANDOM = np.random.default_rng(0)
W, X, T = (RANDOM.normal(size=s).astype(np.float32) for s in ((4, 3), (5, 3), (5, 4)))


@gc.graph
def loss(w: gc.f32[4, 3], x: gc.f32[3], t: gc.f32[4]):
    return gc.sum(gc.square(gc.tanh(w @ x) - t))


def by_loop(f, *columns):
    return np.stack([f(*row) for row in zip(*columns)])


def test_one_axis_for_all_or_some():
    f = gc.compile(gc.vmap(loss, (None, 0, 0)))
    wanted = by_loop(lambda x, t: loss(W, x, t), X, T)
    np.testing.assert_allclose(f(W, X, T), wanted, rtol=1e-5)
    assert np.array_equal(gc.compile(gc.vmap(loss, {"x": 0, "t": 0}))(W, X, T), f(W, X, T))
    other = gc.compile(gc.vmap(loss, (None, 1, -1), size=5))
    np.testing.assert_allclose(other(W, X.T.copy(), T.T.copy()), wanted, rtol=1e-5)
    ws = np.stack([W + i for i in range(5)])
    np.testing.assert_allclose(gc.compile(gc.vmap(loss))(ws, X, T), by_loop(lambda w, x, t: loss(w, x, t), ws, X, T), rtol=1e-5)


def test_gradients_of_each_example():
    each = gc.compile(gc.vmap(gc.grad(loss, "w"), {"x": 0, "t": 0}))
    one = gc.grad(loss, "w")
    np.testing.assert_allclose(each(W, X, T), by_loop(lambda x, t: one(W, x, t), X, T), rtol=1e-4, atol=1e-5)


def test_of_a_network():
    net = nn.Linear(4) >> nn.tanh >> nn.Linear(1)

    @gc.graph
    def error(x: gc.f32[3], t: gc.f32[1]):
        return gc.sum(gc.square(net(gc.expand_dims(x, 0))[0] - t))
    state = {n: RANDOM.normal(size=s).astype(np.float32) for n, s in {"net.0.weight": (4, 3), "net.0.bias": (4,), "net.2.weight": (1, 4), "net.2.bias": (1,)}.items()}
    each = gc.compile(gc.vmap(gc.grad(error, net), size=5), state=state)
    one = gc.compile(gc.grad(error, net), state=state)
    found = each(X, T[:, :1].copy())
    for name, value in found.items():
        np.testing.assert_allclose(value, by_loop(lambda x, t: one(x, t)[name], X, T[:, :1].copy()), rtol=1e-4, atol=1e-5)


def test_the_loop_is_gone_where_operators_take_all_examples():
    text = gc.compile(gc.vmap(loss, (None, 0, 0), size=5)).dump("simplified")
    assert "scan" not in text and "matmul" in text


def test_outputs_in_any_form_and_place():
    @gc.graph
    def parts(x: gc.f32[3]):
        return {"sorted": gc.sort(x), "sum": gc.sum(x)}
    found = gc.compile(gc.vmap(parts, out_axis=-1))(X)
    np.testing.assert_allclose(found["sorted"], np.sort(X, axis=1).T)
    np.testing.assert_allclose(found["sum"], X.sum(1), rtol=1e-5)


def test_twice_and_inside_of_a_graph():
    @gc.graph
    def dot(a: gc.f32[3], b: gc.f32[3]):
        return gc.sum(a * b)
    gram = gc.vmap(gc.vmap(dot, (None, 0)), (0, None), size="N")
    np.testing.assert_allclose(gc.compile(gram)(X, X), X @ X.T, rtol=1e-5, atol=1e-6)
    trace = gc.compile(lambda x: gc.sum(gc.vmap(dot)(x, x)), x=gc.f32[5, 3])
    np.testing.assert_allclose(trace(X), (X * X).sum(), rtol=1e-5)
    assert gc.check_gradients(gc.graph(_total)).ok


def _total(x: gc.f64[2, 3]):
    @gc.graph
    def cube(a: gc.f64[3]):
        return gc.sum(a * a * a)
    return gc.sum(gc.vmap(cube)(x))


def test_hessian():
    @gc.graph
    def f(x: gc.f64[3], y: gc.f64[2]):
        return gc.sum(x * x * x) * gc.sum(y) + x[0] * x[1]
    x, y = RANDOM.normal(size=3), RANDOM.normal(size=2)
    wanted = np.diag(6 * x * y.sum())
    wanted[0, 1] = wanted[1, 0] = 1
    np.testing.assert_allclose(gc.compile(gc.hessian(f, "x"))(x, y), wanted, rtol=1e-12, atol=1e-12)

    @gc.graph
    def g(w: gc.f64[2, 2]):
        return gc.sum(w @ w)
    found = gc.compile(gc.hessian(g))(RANDOM.normal(size=(2, 2)))
    assert found.shape == (2, 2, 2, 2) and np.array_equal(found, found.transpose(2, 3, 0, 1))


@gc.graph
def curve(x: gc.f64[2], y: gc.f64[3]):
    return gc.stack([x[0] * x[1] * y[0], x[0] + x[1] * y[2] ** 2, x[1] * gc.sin(x[0]) * y[1], x[0] * 2])


def test_columns_of_a_jacobian_are_its_rows():
    """Forward and backward give the same matrix, and so do their second derivatives."""
    at = RANDOM.normal(size=2), RANDOM.normal(size=3)
    for wrt in ("x", "y", ("x", "y")):
        forward, backward = gc.compile(gc.jacfwd(curve, wrt))(*at), gc.compile(gc.jacrev(curve, wrt))(*at)
        for a, b in zip(*(found if isinstance(wrt, tuple) else (found,) for found in (forward, backward)), strict=True):
            assert a.shape == (4, len(at[0]) if a.shape[1] == 2 else 3)
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)

    @gc.graph
    def total(x: gc.f64[3]):
        return gc.sum(gc.exp(x) * x[0])
    x = RANDOM.normal(size=3)
    np.testing.assert_allclose(gc.compile(gc.jacfwd(gc.grad(total)))(x), gc.compile(gc.hessian(total))(x), rtol=1e-12)


def test_custom_jvp_is_the_rule_forward_and_backward():
    rooted = gc.custom_jvp(lambda x, k: (gc.sqrt(x * x), k + 1), lambda xs, ys, ts: (ts[0] * xs[0] / ys[0] * 3,))

    @gc.graph
    def f(x: gc.f64[2], k: gc.i64[2]):
        y, n = rooted(x, k)
        return y * n.astype(gc.f64) * y
    x, k, d = np.array([0.5, -2.0]), np.array([1, 2]), np.array([1.0, 0.5])
    slope = 6 * np.abs(x) * (k + 1) * np.sign(x)                # three times the true one
    np.testing.assert_allclose(gc.compile(gc.jvp(f, "x"))(x, k, d), slope * d, rtol=1e-12)
    np.testing.assert_allclose(gc.compile(gc.jacobian(f, "x"))(x, k), np.diag(slope), rtol=1e-12)
    np.testing.assert_allclose(gc.compile(gc.jacfwd(gc.jacobian(f, "x"), "x"))(x, k)[0, 0, 0],
                               gc.compile(gc.jacobian(gc.jacobian(f, "x"), "x"))(x, k)[0, 0, 0], rtol=1e-12)


@pytest.mark.parametrize("make, text", [
    (lambda: gc.jacfwd(gc.vjp(curve, ("x", "y"))), "say for which argument"),
    (lambda: gc.jacfwd(gc.vjp(curve, ("x", "y")), "x"), "a Jacobian is that of one"),
    (lambda: gc.vmap(lambda x: x), "gc.vmap takes a graph for one example"),
    (lambda: gc.vmap(loss, (0, 0)), "one int or None for each of w, x, t"),
    (lambda: gc.vmap(loss, None), "no input is mapped"),
    (lambda: gc.vmap(loss, {"y": 0}), "loss has no argument 'y'"),
    (lambda: gc.vmap(loss, {"x": 2}), "in_axes of x is an int from -2 to 1"),
    (lambda: gc.vmap(gc.vmap(loss)), "has a dimension 'B' already"),
    (lambda: gc.hessian(loss, ("w", "x")), "the name of one argument"),
])
def test_mistakes(make, text):
    with pytest.raises(gc.GraphError, match=text):
        make()
