"""Arrays that a function captured are packed, transformed and converted once, as parameters are, wherever a product reads
them."""
import numpy as np
import pytest

import graphc as gc
from graphc import nn
from graphc.nn.parameter import Value

R = np.random.default_rng(0)


def drawn(*shape):
    return R.standard_normal(shape).astype(np.float32)


PLACES = {          # what computes, its captured array, its inputs
    "matmul": (lambda x, w: x @ w, drawn(512, 256), drawn(64, 512)),
    "from the left": (lambda x, w: w @ x, drawn(256, 512), drawn(512, 512)),
    "turned": (lambda x, w: x @ w.T, drawn(256, 512), drawn(64, 512)),
    "a part": (lambda x, w: x @ w[8:520, :256], drawn(530, 300), drawn(64, 512)),
    "computed": (lambda x, w: x @ gc.exp(w), drawn(512, 256), drawn(64, 512)),
    "einsum": (lambda x, w: gc.einsum("bij,bjk->bik", x, w), drawn(3, 512, 256), drawn(3, 64, 512)),
    "conv": (lambda x, w: gc.conv2d(x, w, stride=2), drawn(48, 32, 5, 5), drawn(2, 32, 21, 21)),
    "winograd": (lambda x, w: gc.conv2d(x, w, padding=1), drawn(48, 32, 3, 3), drawn(2, 32, 14, 14)),
    "scan": (lambda x, w: gc.scan(lambda c, v: (gc.tanh(c @ w + v), c), x[0], x)[0], drawn(512, 512), drawn(3, 48, 512)),
    "while": (lambda x, w: gc.while_loop(lambda c: c[0, 0] < 9, lambda c: gc.tanh(c @ w), x, max_trips=3)[1],
              drawn(512, 512), drawn(64, 512)),
    "branch": (lambda x, w: gc.cond(x[0, 0] > 9, lambda: x @ w, lambda: x @ w + 1), drawn(512, 256), drawn(64, 512)),
}


class Kept(nn.Module):
    """The same with the array as a parameter."""

    def __init__(self, f, w):
        super().__init__()
        self.f, self.w = f, w

    def forward(self, x):
        return self.f(x, self.parameter("w", self.w.shape, Value(self.w)))


@pytest.mark.parametrize("size", ("known", "named"))
@pytest.mark.parametrize("place", PLACES)
def test_made_once(place, size):
    f, w, x = PLACES[place]
    type = gc.f32[x.shape] if size == "known" else gc.f32["B", *x.shape[1:]]
    if size == "named" and place in ("from the left", "einsum", "scan"):
        pytest.skip("its first axis is no number of rows")
    captured, kept = gc.compile(lambda x: f(x, w), x=type), gc.compile(Kept(f, w), x=type, seed=0)
    np.testing.assert_array_equal(captured(x), kept(x))
    a, b = captured.memory, kept.memory
    assert (a.derived, str(a.arena)) == (b.derived, str(b.arena)) and (b.derived != 0 or place == "from the left")
    for run in (captured, kept):                # calls after the first read what it made
        np.testing.assert_array_equal(run(-x), run(-x))


def test_what_is_made_of_nothing_is_not_kept():
    run = gc.compile(lambda x: x + gc.arange(5000).astype(gc.f32) * 0.5 + gc.ones(5000, gc.f32), x=gc.f32[5000])
    assert run.memory.derived == 0


def test_what_is_made_beforehand_of_arrays_alone_is_right_at_once():
    """Products of captured arrays run before what is packed beforehand is there."""
    a, b, x = drawn(40, 64), drawn(64, 200), drawn(40, 200)
    run = gc.compile(lambda x: x + a @ b + (a @ b) @ b.T @ b, x=gc.f32[40, 200])
    wanted = x + (a.astype(np.float64) @ b) + (a.astype(np.float64) @ b) @ b.T.astype(np.float64) @ b
    for _ in range(2):
        np.testing.assert_allclose(run(x), wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())

    @gc.graph
    def squares(w: gc.f64[2, 2]):
        return gc.sum(w @ w)
    hessian = gc.compile(gc.hessian(squares))(np.eye(2)).reshape(4, 4)
    np.testing.assert_array_equal(hessian, [[2, 1, 1, 0], [1, 0, 2, 1], [1, 2, 0, 1], [0, 1, 1, 2]])
