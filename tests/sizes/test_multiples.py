"""Sizes that are multiples of a name: an input f32["4*h"] takes every fourth size."""
import numpy as np
import pytest

import graphc as gc
from graphc.ir.dim_text import as_dim
from graphc.ir.dim_binding import bind
from graphc.ir.dims import largest


@pytest.fixture(scope="module")
def run():
    return gc.compile(lambda x: gc.max_pool2d(x, 2) * 2 + 1, x=gc.f32["B", 3, "4*h", "4*w + 1"])


@pytest.mark.parametrize("h, w", [(1, 1), (2, 5), (4, 3)])
def test_sizes_are_found(run, h, w):
    x = np.random.default_rng(0).random((2, 3, 4 * h, 4 * w + 1), np.float32)
    wanted = x[..., :4 * w].reshape(2, 3, 2 * h, 2, 2 * w, 2).max((3, 5)) * 2 + 1
    np.testing.assert_array_equal(run(x), wanted)


def test_others_are_refused(run):
    with pytest.raises(gc.GraphError, match=r"4\*h"):
        run(np.zeros((1, 3, 6, 5), np.float32))


def test_a_maximum_is_bound_with_its_names():
    size = as_dim("H")
    widest = largest(size - 3, 4 - size)
    assert bind(widest, {"H": 9}) == 6 and bind(widest, {"H": 1}) == 3
    assert bind(widest, {"H": as_dim("K")}) == largest(as_dim("K") - 3, 4 - as_dim("K"))
    assert bind(widest, {"K": 1}) == widest and not widest.is_open
