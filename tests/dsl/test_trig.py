"""Circular and hyperbolic functions under their public names."""
import numpy as np
import pytest

import graphc as gc

RANGES = {"tan": (-1, 1), "sinh": (-2, 2), "cosh": (-2, 2), "asin": (-1, 1), "acos": (-1, 1), "atan": (-9, 9),
          "asinh": (-9, 9), "acosh": (1, 9), "atanh": (-0.9, 0.9)}


@pytest.mark.parametrize("name", RANGES)
def test_values_and_gradient(name):
    x = np.linspace(*RANGES[name], 21)[1:-1]

    @gc.graph
    def f(x: gc.f64[19]):
        return getattr(gc, name)(x).sum()
    h, numpy = 1e-6, getattr(np, name)
    assert f(x) == pytest.approx(numpy(x).sum(), rel=1e-12, abs=1e-12)
    np.testing.assert_allclose(gc.grad(f)(x), (numpy(x + h) - numpy(x - h)) / (2 * h), rtol=1e-6)


def test_atan2_of_integers_and_numbers():
    @gc.graph
    def f(y: gc.i32[4]):
        return gc.atan2(y, 2)
    result = f(np.array([-1, 0, 1, 5], np.int32))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, np.atan2([-1, 0, 1, 5], 2), rtol=1e-6)


def test_numpys_names_point_here():
    with pytest.raises(gc.GraphError, match="use gc.atan2"):
        @gc.graph
        def f(x: gc.f32[3]):
            return np.arctan2(x, x)
