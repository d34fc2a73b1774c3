"""grad and its relatives against closed forms and differences."""
import numpy as np
import pytest
from dsl_run import close, run_graph

import graphc as gc

RNG = np.random.default_rng(2)
W = RNG.standard_normal(3)
X = RNG.standard_normal((5, 3))
T = (RNG.random(5) > 0.5).astype(np.float64)


@gc.graph
def loss(w: gc.f64[3], x: gc.f64[5, 3], t: gc.f64[5]):
    p = gc.sigmoid(x @ w)
    return -gc.mean(t * gc.log(p) + (1 - t) * gc.log(1 - p))


@gc.graph
def quadratic(x: gc.f64[3], a: gc.f64[3, 3]):
    return x @ a @ x


A = RNG.standard_normal((3, 3))
D = RNG.standard_normal(3)


def p():
    return 1 / (1 + np.exp(-X @ W))


def test_logistic_regression():
    close(run_graph(gc.grad(loss, wrt="w"), W, X, T), X.T @ (p() - T) / 5)
    dw, dt = run_graph(gc.grad(loss, wrt=("w", "t")), W, X, T)
    close(dw, X.T @ (p() - T) / 5)
    close(dt, -np.log(p() / (1 - p())) / 5)
    value, dw = run_graph(gc.value_and_grad(loss, "w"), W, X, T)
    close(value, -np.mean(T * np.log(p()) + (1 - T) * np.log(1 - p())))
    assert gc.grad(loss, "w").name == "grad_loss" and list(gc.grad(loss, "w").inputs) == ["w", "x", "t"]


def test_second_derivatives():
    g = gc.grad(quadratic, "x")

    @gc.graph
    def along(x: gc.f64[3], a: gc.f64[3, 3], d: gc.f64[3]):
        return g(x, a) @ d
    close(run_graph(g, W, A), (A + A.T) @ W)
    close(run_graph(gc.grad(along, "x"), W, A, D), (A + A.T) @ D)
    close(run_graph(gc.hvp(quadratic, "x"), W, A, D), (A + A.T) @ D)
    close(run_graph(gc.jvp(g, "x"), W, A, D), (A + A.T) @ D)
    close(run_graph(gc.jacobian(g, "x"), W, A), A + A.T)


def test_hvp_of_two_arguments():
    @gc.graph
    def f(x: gc.f64[()], y: gc.f64[()]):
        return x * x * y
    dx, dy = run_graph(gc.hvp(f, ("x", "y")), np.float64(3), np.float64(5), np.float64(1), np.float64(2))
    close(dx, np.float64(2 * 5 * 1 + 2 * 3 * 2))
    close(dy, np.float64(2 * 3 * 1))


def test_the_hessian_of_what_is_piecewise_linear_is_zero():
    """The gradient of relu depends on its argument through a condition alone."""
    @gc.graph
    def f(x: gc.f64[4], w: gc.f64[4]):
        return gc.sum(gc.relu(x) * w)
    x, w = np.float64([1, -2, 3, -4]), np.float64([5, 6, 7, 8])
    dx, dw = run_graph(gc.hvp(f, ("x", "w")), x, w, np.ones(4), np.ones(4))
    close(dx, np.float64(x > 0))
    close(dw, np.float64(x > 0))
    close(run_graph(gc.hvp(f, "x"), x, w, np.ones(4)), np.zeros(4))


def test_vjp_and_jvp_are_adjoint():
    @gc.graph
    def f(x: gc.f64[3], y: gc.f64[2]):
        return {"outer": gc.tanh(gc.outer(x, y)), "index": gc.argmax(x), "sum": (x * x).sum()}
    back, forward = gc.vjp(f, ("x", "y")), gc.jvp(f, ("x", "y"))
    assert list(back.inputs) == ["x", "y", "g_outer", "g_sum"] and list(forward.inputs) == ["x", "y", "d_x", "d_y"]
    y, g, s, dx, dy = RNG.standard_normal(2), RNG.standard_normal((3, 2)), RNG.standard_normal(()), RNG.standard_normal(3), RNG.standard_normal(2)
    gx, gy = run_graph(back, W, y, g, s)
    out = run_graph(forward, W, y, dx, dy)
    assert list(out) == ["outer", "sum"]
    assert np.isclose((out["outer"] * g).sum() + out["sum"] * s, gx @ dx + gy @ dy)


def test_jacobian_of_an_image():
    @gc.graph
    def f(x: gc.f64[2, 3], w: gc.f64[3, 4]):
        return gc.tanh(x @ w)
    x, w = RNG.standard_normal((2, 3)), RNG.standard_normal((3, 4))
    jx, jw = run_graph(gc.jacobian(f, ("x", "w")), x, w)
    slope = 1 - np.tanh(x @ w) ** 2
    close(jx, np.einsum("ij,ia,kj->ijak", slope, np.eye(2), w))
    close(jw, np.einsum("ij,ik,jb->ijkb", slope, x, np.eye(4)))


def test_same_output_for_two_arguments_counts_twice():
    @gc.graph
    def f(x: gc.f64[3], y: gc.f64[3]):
        s = x + y
        return (s * s).sum()
    dx, dy = run_graph(gc.hvp(f, ("x", "y")), W, W, D, D)
    close(dx, 4 * D)
    close(dy, 4 * D)


def test_independent_and_stopped_arguments_have_gradient_zero():
    @gc.graph
    def f(x: gc.f64[3], y: gc.f64[3], z: gc.f64[3]):
        return (x * gc.stop_gradient(y)).sum() + gc.floor(z).sum()
    dx, dy, dz = run_graph(gc.grad(f, ("x", "y", "z")), W, D, D)
    close(dx, D)
    close(dy, 0 * D)
    close(dz, 0 * D)


def test_one_float_argument_needs_no_name():
    @gc.graph
    def f(x: gc.f64[3], i: gc.i64[2]):
        return x[i].sum()
    close(run_graph(gc.grad(f), W, np.array([1, 1])), np.array([0.0, 2, 0]))


def test_state_moves_along():
    from graphc.dsl.context import current_trace

    class Owner:
        def __init__(self):
            self.key = object()

        def parameters(self):
            return [self.key]

        def __call__(self, x):
            return x * current_trace().state(self.key, "0.scale", gc.f64[3])
    net = Owner()

    @gc.graph
    def f(x: gc.f64[3]):
        return (net(x) ** 2).sum()
    g = gc.grad(f, wrt=net)
    assert g.graph.output_names == ("0.scale",) and g.keys == (net.key,)
    close(run_graph(g, W, state=[D])["0.scale"], 2 * W * W * D)
    for wrt in (net.key, [net], [net.key]):
        assert gc.grad(f, wrt=wrt).graph == g.graph
    both = gc.value_and_grad(f, wrt=net)
    assert both.graph.output_names == ("value", "0.scale")
    close(run_graph(gc.grad(f, "x"), W, state=[D]), 2 * W * D * D)


def test_dead_forward_nodes_are_gone():
    @gc.graph
    def f(x: gc.f64[3]):
        return gc.sum(x * 2)
    assert {n.op.name for n in gc.grad(f).graph.nodes} <= {"constant", "reshape", "broadcast_to", "mul"}


def test_custom_gradients():
    clipped = gc.custom_vjp(lambda x: x * x, lambda ins, out, g: gc.clip(g * 2 * ins[0], -1, 1))

    @gc.graph
    def f(x: gc.f64[3]):
        return clipped(x).sum()
    x = np.array([0.1, 2.0, -3.0])
    close(run_graph(f, x), (x * x).sum())
    close(run_graph(gc.grad(f), x), np.array([0.2, 1.0, -1.0]))
    close(run_graph(gc.hvp(f), x, D), np.array([2 * D[0], 0, 0]))
    assert gc.parse(str(f)) == f.graph and gc.parse(str(gc.grad(f))) == gc.grad(f).graph


def test_custom_gradients_with_integers_and_tuples():
    def rule(ins, outs, gs):
        x, i, y = ins
        assert gs[1] is None and outs[1].dtype == gc.i64
        return gc.zeros_like(x) + gs[0][None], None
    pick = gc.custom_vjp(lambda x, i, y: (x[i] + y, gc.argmax(x)), rule)

    @gc.graph
    def f(x: gc.f64[3], i: gc.i64[()], y: gc.f64[()]):
        return pick(x, i, y)[0] * 3
    dx, dy = run_graph(gc.grad(f, ("x", "y")), W, np.array(1), np.float64(1))
    close(dx, np.full(3, 3.0))
    close(dy, np.float64(0))


@pytest.mark.parametrize("power", [1, 2, 3])
def test_gradients_of_gradients(power):
    @gc.graph
    def f(x: gc.f64[()]):
        return gc.exp(2 * x)
    g = f
    for _ in range(power):
        g = gc.grad(g)
    close(run_graph(g, np.float64(0.3)), np.float64(2 ** power * np.exp(0.6)))
