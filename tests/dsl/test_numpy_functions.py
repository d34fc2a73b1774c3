"""Functions that numpy has: what its rows in tests/functions do not say, of named sizes, least and largest numbers, and mistakes."""
import numpy as np
import pytest
from dsl_run import run

import graphc as gc
from graphc.dsl.function import trace_types

X = np.arange(12, dtype=np.float32).reshape(3, 4)


def test_the_least_integer_has_a_remainder():
    x = np.array([-128, 5, -7, 7, 0, 127], np.int8)
    for y in (3, -3, -128, 127):
        np.testing.assert_array_equal(run(lambda x, y=y: gc.fmod(x, np.int8(y)), x), np.fmod(x, np.int8(y)))


def test_largest_numbers():
    x = np.array([np.nan, np.inf, -np.inf, 1], np.float32)
    np.testing.assert_array_equal(run(lambda x: gc.nan_to_num(x.astype(gc.bf16)).astype(gc.f32), x), np.float32([0, 3.3895314e38, -3.3895314e38, 1]))
    y = np.array([3e38, 1, np.inf, 0], np.float32)
    np.testing.assert_allclose(run(gc.hypot, y / 2, y / 2), np.hypot(y / 2, y / 2), rtol=1e-6)
    assert run(lambda x: gc.isclose(x, x + 1, 0, 0), np.array([2 ** 40])) == [False]
    assert run(lambda x: gc.convolve(x, x), np.array([2 ** 30, 1])).tolist() == [2 ** 60, 2 ** 31, 1]


def test_lengths_of_nothing_have_gradient_0():
    def lengths(x):
        return gc.norm(x) + gc.norm(x, 3) + gc.norm(x, 1) + gc.sum(gc.hypot(x, 2 * x))
    f = trace_types(lengths, {"x": gc.f32[3]})
    np.testing.assert_array_equal(gc.compile(gc.grad(f))(np.zeros(3, np.float32)), np.zeros(3))
    hessian = gc.compile(gc.jacobian(gc.grad(trace_types(gc.norm, {"x": gc.f64[3]}))))
    np.testing.assert_allclose(hessian(np.array([3., 0, 4])), np.diag([16, 25, 9]) / 125 - np.eye(3)[[2, 1, 0]] * [12, 0, 12] / 125)


def test_named_sizes():
    @gc.graph
    def f(x: gc.f64["N", "N"], y: gc.f64[2, "M"]):
        return (gc.diagonal(x), gc.trace(x), gc.cov(y), gc.linspace(0.1, 0.7, y.shape[1]), gc.searchsorted(x[0], y), gc.bincount(gc.iota((3,)), y.shape[1]),
                gc.diff(y, 2), gc.convolve(y[0, :3], y[1, :2]))
    x, y = np.sort(np.random.default_rng(0).standard_normal((4, 4))), np.random.default_rng(1).standard_normal((2, 5))
    wanted = (np.diagonal(x), np.trace(x), np.cov(y), np.linspace(0.1, 0.7, 5, dtype=np.float32), np.searchsorted(x[0], y), [1, 1, 1, 0, 0],
              np.diff(y, 2), np.convolve(y[0, :3], y[1, :2]))
    for call in (gc.compile(f), gc.compile(f, N=4, M=5)):
        for got, want in zip(call(x, y), wanted, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-12)


def test_the_last_of_linspace_is_its_end():
    for start, stop, count in ((0.1, 0.7, 11), (-1e30, 1e-3, 7), (5, 5, 3), (2, -3, 1)):
        np.testing.assert_array_equal(run(lambda x, a=start, b=stop, n=count: gc.linspace(a, b, n), X), np.linspace(start, stop, count, dtype=np.float32))


def test_numbers_of_no_place():
    for bad in (-1, 4):
        with pytest.raises(gc.GraphError, match=str(bad)):
            run(lambda x: gc.bincount(x, 4), np.array([0, bad]))
    rows, columns = run(lambda x: gc.unravel_index(x, (2, 3)), np.array([-1, 5, 6]))
    assert rows.tolist() == [-1, 1, 2] and columns.tolist() == [2, 2, 0]            # rows -1 and 2: read there, the last one and an error


@pytest.mark.parametrize("wrong, message", [
    (lambda x: gc.tensordot(x[:, :1], x, 1), "axis 1 of x has size 1 and axis 0 of y has 3"), (lambda x: gc.inner(x[:, :1], x), "size 1"),
    (lambda x: gc.average(x, None, x[0]), "axes axis="), (lambda x: gc.average(x, 0, x[0]), "axes axis="),
    (lambda x: gc.norm(x, 2), "norm of matrices"), (lambda x: gc.norm(x, "nuc"), "ord is a number"), (lambda x: gc.diagonal(x, 0, 1, 1), "two axes"),
    (lambda x: gc.linspace(0, 1e39), "no numbers that f32 holds"), (lambda x: gc.linspace(0, 300, dtype=gc.u8), "no numbers that u8 holds"),
    (lambda x: gc.polyval(x, x), "one coefficient or more"), (lambda x: gc.select([x > 0], [x, x]), "as many choices"),
    (lambda x: gc.convolve(x, x), "vectors"), (lambda x: gc.meshgrid(x), "vectors"), (lambda x: gc.bincount(x[0], 3), "integers"),
    (lambda x: gc.interp(x, x[0], x[1, :2]), "one point or more"), (lambda x: gc.unravel_index(x, (3, 4)), "integers"),
    (lambda x: gc.rfft(x, 2 ** 40), "at most"), (lambda x: gc.irfft(gc.stack([x, x], -1), 2 ** 40), "at most")])
def test_mistakes(wrong, message):
    with pytest.raises(gc.GraphError, match=message) as info:
        trace_types(lambda x: (wrong(x), x)[1], {"x": gc.f32[3, 4]})
    assert info.value.loc.file == __file__


def test_arrays_of_unknown_sizes_are_not_taken_for_different():
    differ = trace_types(lambda x, y: (gc.array_equal(x, y), gc.array_equal(x, x)), {"x": gc.f32["N", 3], "y": gc.f32["M", 4]})
    assert str(differ).count("bool[]") >= 2                 # 3 and 4 columns, whatever N and M are
    for other in (gc.f32["M", 3], gc.f32[5, 3]):
        with pytest.raises(gc.GraphError, match="array_equal: whether .* have the same shape is not known"):
            trace_types(lambda x, y: gc.array_equal(x, y), {"x": gc.f32["N", 3], "y": other})
