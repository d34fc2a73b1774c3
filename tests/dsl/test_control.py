"""scan, cond and while_loop: values, gradients, captured arrays, structures."""
import numpy as np
import pytest
from dsl_run import close, run, run_graph, traced

import graphc as gc

RNG = np.random.default_rng(3)
XS = RNG.standard_normal((6, 3))
W = RNG.standard_normal((3, 3))


def rnn(xs, w):
    def step(h, x):
        h = gc.tanh(h @ w + x)
        return h, h * 2
    return gc.scan(step, gc.zeros(3, gc.f64), xs)


def rnn_in_numpy(xs, w):
    h, ys = np.zeros(3), []
    for x in xs:
        h = np.tanh(h @ w + x)
        ys.append(h * 2)
    return h, np.stack(ys)


def test_scan_stays_one_node():
    g = traced(rnn, XS, W)
    assert [n.op.name for n in g.graph.nodes].count("scan") == 1 and len(g.graph.nodes) < 5
    h, ys = run_graph(g, XS, W)
    want_h, want_ys = rnn_in_numpy(XS, W)
    close(h, want_h)
    close(ys, want_ys)
    assert gc.parse(str(g)) == g.graph


def test_gradient_of_scan_by_differences():
    def loss(xs, w):
        h, ys = rnn(xs, w)
        return (ys * ys).sum() + h.sum()

    def value(xs, w):
        h, ys = rnn_in_numpy(xs, w)
        return (ys * ys).sum() + h.sum()
    dxs, dw = run_graph(gc.grad(traced(loss, XS, W), ("xs", "w")), XS, W)
    for a, d, f in ((XS, dxs, lambda a: value(a, W)), (W, dw, lambda a: value(XS, a))):
        step = RNG.standard_normal(a.shape) * 1e-6
        assert np.isclose((f(a + step) - f(a - step)) / 2, (d * step).sum(), rtol=1e-5)


def test_scan_in_reverse_with_nested_structures():
    def f(xs):
        def step(carry, x):
            total = carry["total"] + x["a"]
            return {"total": total, "n": carry["n"] + 1}, (total, None)
        return gc.scan(step, {"total": 0.0, "n": 0}, {"a": xs}, reverse=True)
    x = XS[:, 0].astype(np.float32)

    def flat(xs):
        carry, (ys, nothing) = f(xs)
        assert nothing is None
        return carry["total"], carry["n"], ys
    total, n, ys = run(flat, x)
    close(total, x.sum())
    close(ys, np.cumsum(x[::-1])[::-1])
    assert n == 6 and n.dtype == np.int64


def test_scan_by_length():
    close(run(lambda x: gc.scan(lambda c, _: (c * 2, None), x, length=5)[0], XS), XS * 32)


def test_scan_over_a_named_length():
    @gc.graph
    def f(xs: gc.f32["T", 3]):
        return gc.scan(lambda c, x: (c + x, c), gc.zeros(3), xs)
    assert [str(v.type) for v in f.graph.outputs] == ["f32[3]", "f32[T, 3]"]


def test_scans_nest_and_capture_through_levels():
    def f(xs, w):
        def outer(c, x):
            inner, _ = gc.scan(lambda d, y: (d + y * w[0, 0] + x.sum(), None), c, xs)
            return inner, inner
        return gc.scan(outer, gc.zeros(3, gc.f64), xs)[0]
    c = np.zeros(3)
    for x in XS:
        for y in XS:
            c = c + y * W[0, 0] + x.sum()
    close(run(f, XS, W), c)


def test_random_numbers_differ_between_rounds():
    def f(x):
        _, ys = gc.scan(lambda c, _: (c, gc.uniform(50)), x, length=4)
        count, (ws, _) = gc.while_loop(lambda c: c[1] < 3, lambda c: (gc.dynamic_update_slice(c[0], gc.uniform((1, 50)), [c[1], 0]), c[1] + 1),
                                       (gc.zeros((3, 50)), 0), max_trips=9)
        return ys, ws
    x = np.float32(0)
    ys, ws = run_graph(traced(f, x), x, state=[np.array([5, 2])])
    again, _ = run_graph(traced(f, x), x, state=[np.array([5, 3])])
    rows = np.concatenate([ys, ws, again])
    assert len(np.unique(rows[:, 0])) == len(rows) and (np.abs(np.corrcoef(rows) - np.eye(len(rows))) < 0.6).all()


def test_cond_runs_one_branch():
    def f(pred, x, w):
        return gc.cond(pred, lambda a: (a @ w, a[0]), lambda a: (a * 2, w[0]), x)
    a, b = run(f, np.bool_(True), XS, W)
    close(a, XS @ W)
    close(b, XS[0])
    a, b = run(f, np.bool_(False), XS, W)
    close(a, XS * 2)
    close(b, W[0])


def test_gradient_of_cond():
    @gc.graph
    def f(pred: gc.bool_[()], x: gc.f64[3]):
        return gc.cond(pred, lambda: (x * x).sum(), lambda: 3 * x[0])
    close(run_graph(gc.grad(f, "x"), np.bool_(True), W[0]), 2 * W[0])
    close(run_graph(gc.grad(f, "x"), np.bool_(False), W[0]), np.array([3.0, 0, 0]))


def test_cond_of_a_python_bool_is_an_if():
    g = traced(lambda x: gc.cond(True, lambda a: a + 1, lambda a: a - 1, x), XS)
    assert "cond" not in str(g)


def test_while_loop_counts():
    def newton(a):
        return gc.while_loop(lambda r: gc.abs(r * r - a) > 1e-9, lambda r: (r + a / r) / 2, a, max_trips=50)
    count, root = run(newton, np.float64(7))
    close(root, np.sqrt(7.0))
    assert 3 < count < 9
    count, _ = run(lambda x: gc.while_loop(lambda c: c < 100, lambda c: c + 1, x, max_trips=5), np.float64(0))
    assert count == 5


def test_gradient_of_while_loop():
    @gc.graph
    def f(x: gc.f64[()]):
        return gc.while_loop(lambda c: c < 100, lambda c: c * x, x, max_trips=20)[1]
    close(run_graph(gc.grad(f), np.float64(3)), np.float64(5 * 3 ** 4))


@pytest.mark.parametrize("length", [0, 1])
def test_short_scans(length):
    h, ys = run(rnn, XS[:length], W)
    assert ys.shape == (length, 3) and h.shape == (3,)
