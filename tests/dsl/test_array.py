"""Symbolic arrays compute what numpy arrays compute, with graphc's dtype rules."""
import numpy as np
import pytest
from dsl_run import close, run

import graphc as gc

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 4)).astype(np.float32)
Y = RNG.standard_normal((4,)).astype(np.float32)
P = np.abs(X) + 0.5
I = RNG.integers(-9, 9, (3, 4)).astype(np.int32)
J = RNG.integers(1, 5, (4,)).astype(np.int32)
B = X > 0

FLOAT_EXPRESSIONS = [
    lambda x, y: x + y, lambda x, y: x - y, lambda x, y: x * y, lambda x, y: x / y, lambda x, y: x // y,
    lambda x, y: x % y,
    lambda x, y: 2 + x, lambda x, y: 2 - x, lambda x, y: 3 * x, lambda x, y: 1 / x, lambda x, y: x ** 2,
    lambda x, y: x ** 3,
    lambda x, y: abs(x) ** 1.5, lambda x, y: 2.0 ** x, lambda x, y: 7 % x, lambda x, y: 7 // x, lambda x, y: -x,
    lambda x, y: +x, lambda x, y: abs(x),
    lambda x, y: x < y, lambda x, y: x <= y, lambda x, y: x > 0, lambda x, y: 0 >= x, lambda x, y: x == x,
    lambda x, y: x != y,
    lambda x, y: x @ y, lambda x, y: y @ x.T, lambda x, y: x @ x.T, lambda x, y: (x > 0) & (y > 0),
    lambda x, y: (x > 0) | ~(y > 0),
    lambda x, y: (x > 0) ^ (y > 0), lambda x, y: x + np.float32(2), lambda x, y: x * np.float64(3),
    lambda x, y: x + [1, 2, 3, 4],
    lambda x, y: divmod(x, y)[1],
]


@pytest.mark.parametrize("i", range(len(FLOAT_EXPRESSIONS)))
def test_float_operators(i):
    f = FLOAT_EXPRESSIONS[i]
    want = np.asarray(f(X, Y))
    close(run(f, X, Y), want.astype(np.float32) if want.dtype == np.float64 else want)


@pytest.mark.parametrize("f", [
    lambda x, y: x + y, lambda x, y: x - 1, lambda x, y: 3 * x, lambda x, y: x // y, lambda x, y: x % y,
    lambda x, y: x & y, lambda x, y: x | 3,
    lambda x, y: x ^ y, lambda x, y: ~x, lambda x, y: x << y, lambda x, y: x >> 1, lambda x, y: x < y, lambda x, y: -x,
    lambda x, y: 100 - y])
def test_integer_operators(f):
    close(run(f, I, J), f(I, J))


def test_division_and_mean_of_integers_are_f32():
    close(run(lambda x, y: x / y, I, J), (I / J).astype(np.float32))
    close(run(lambda x: x / 2, I), (I / 2).astype(np.float32))
    close(run(lambda x: 1 / x, J), (1 / J).astype(np.float32))
    close(run(lambda x: x / 0.5, J), (J / 0.5).astype(np.float32))
    close(run(lambda x: x.mean(0), I), I.mean(0).astype(np.float32))
    close(run(lambda x: x.var(), I), np.float32(I.var()))
    close(run(lambda x: gc.exp(x), J), np.exp(J).astype(np.float32))


def test_sums_of_bools_count():
    close(run(lambda b: b.sum(0), B), B.sum(0))
    close(run(lambda b: b.mean(), B), np.float32(B.mean()))


def test_python_numbers_take_the_dtype_of_the_array():
    x64 = X.astype(np.float64)
    assert run(lambda x: 1.5 * x + 2, x64).dtype == np.float64
    assert run(lambda x: x + 2, I.astype(np.int64)).dtype == np.int64
    assert run(lambda x: gc.maximum(x, 0), I).dtype == np.int32
    assert run(lambda x: gc.where(x > 0, x, 0), X).dtype == np.float32


def test_numpy_arrays_become_constants_of_their_dtype():
    close(run(lambda x: x + Y, X), X + Y)
    close(run(lambda x: Y - x, X), Y - X)
    close(run(lambda x: Y / x, X), Y / X)
    close(run(lambda x: X @ x, Y), X @ Y)
    close(run(lambda x: X < x, Y), X < Y)


KEYS = [0, -1, (1, 2), (slice(None), 1), slice(1, 3), slice(None, None, 2), slice(None, None, -1), slice(3, 0, -2),
        slice(5, 9), (Ellipsis, 0),
        (0, Ellipsis), None, (slice(None), None, slice(1, -1)), (None, 1, None, slice(None, None, -1)),
        (Ellipsis, slice(-2, None)), (), slice(2, 1),
        [2, 0, 2], np.array([[0, 1], [2, -1]]), (slice(None), [0, 3]), (1, [0, 3]), ([0, 2], 1), ([0, 1, 2], [3, 2, 1]),
        (np.array([[0], [2]]), np.array([1, 3])), (None, [0, 1]), slice(-2, None), (slice(None), slice(100, None))]


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_indexing_follows_numpy(key):
    close(run(lambda x: x[key], X), X[key])


def test_index_arrays_between_slices():
    x = RNG.standard_normal((2, 3, 4, 5)).astype(np.float32)
    i, j = np.array([0, 2, 1]), np.array([[3], [0]])
    close(run(lambda x, i, j: x[:, i, j, 1:4], x, i, j), x[:, i, j, 1:4])
    close(run(lambda x, i: x[1, i], x, i), x[1, i])


def test_methods_follow_numpy():
    for f in (lambda x: x.sum(), lambda x: x.sum(-1), lambda x: x.sum((0, -1), keepdims=True), lambda x: x.prod(0),
              lambda x: x.max(1), lambda x: x.min(),
              lambda x: x.var(0), lambda x: x.std(1), lambda x: x.argmax(1), lambda x: x.argmin(),
              lambda x: x.reshape(4, 3), lambda x: x.reshape((2, -1)),
              lambda x: x.reshape(-1), lambda x: x.T, lambda x: x.transpose(1, 0), lambda x: x.swapaxes(0, 1),
              lambda x: x.flatten(), lambda x: x.cumsum(1),
              lambda x: x.clip(-0.5, 0.5), lambda x: x.cumsum(), lambda x: x.cumprod(0), lambda x: (x > 0).all(),
              lambda x: (x > 0).any(1), lambda x: x.round(),
              lambda x: x[None].squeeze(0), lambda x: x.var(1, ddof=1), lambda x: x.mean(keepdims=True)):
        close(run(f, X), f(X))


def test_astype():
    close(run(lambda x: x.astype(gc.i32), X), X.astype(np.int32))
    close(run(lambda x: x.astype("f64"), X), X.astype(np.float64))
    close(run(lambda x: x.astype(np.float64), X), X.astype(np.float64))
    close(run(lambda x: x.astype(bool), I), I.astype(bool))


def test_attributes_are_known_while_tracing():
    @gc.graph
    def f(x: gc.f32["B", 3]):
        assert x.ndim == 2 and x.dtype == gc.f32 and str(x.shape[0]) == "B" and x.shape[1] == 3 and str(x.size) == "3*B"
        assert repr(x) == "<x: f32[B, 3]>"
        return x.reshape(-1)
    assert str(f.graph.outputs[0].type) == "f32[3*B]"


def test_iteration_over_a_known_axis():
    def f(x):
        a, b, c = x
        return a + b * c
    close(run(f, X), X[0] + X[1] * X[2])
    close(run(lambda x: sum(row.sum() for row in x), X), X.sum(dtype=np.float32))
    assert run(lambda x: x + len(x), X).shape == (3, 4)


def test_arrays_can_be_keys():
    def f(x):
        return {x: x + 1}[x]
    close(run(f, X), X + 1)


def test_symbolic_sizes_in_slices():
    @gc.graph
    def f(x: gc.f32["T", 4]):
        return x[1:], x[:-1], x[-1], x[::-1], x[:, :2], x[None, 1:-1]
    shapes = [str(v.type) for v in f.graph.outputs]
    assert shapes == ["f32[T - 1, 4]", "f32[T - 1, 4]", "f32[4]", "f32[T, 4]", "f32[T, 2]", "f32[1, T - 2, 4]"]
