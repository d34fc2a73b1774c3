"""Whatever basic index hypothesis finds, x[index] and its gradient are numpy's."""
import numpy as np
from dsl_run import run_graph, traced
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, basic_indices, integer_array_indices

import graphc as gc


@st.composite
def arrays_and_keys(draw, keys):
    shape = draw(array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=5))
    return np.arange(np.prod(shape), dtype=np.float64).reshape(shape), draw(keys(shape))


def check(x, key):
    want = x[key]
    g = traced(lambda x: x[key], x)
    np.testing.assert_array_equal(run_graph(g, x), want)
    gradient = np.zeros_like(x)
    np.add.at(gradient, key, 2 * want)
    found = run_graph(gc.grad(traced(lambda x: (x[key] ** 2).sum(), x)), x)
    np.testing.assert_allclose(found, gradient)


@settings(max_examples=150, deadline=None)
@given(arrays_and_keys(lambda shape: basic_indices(shape, allow_newaxis=True, allow_ellipsis=True, max_dims=6)))
def test_basic_indices(pair):
    check(*pair)


@settings(max_examples=60, deadline=None)
@given(arrays_and_keys(lambda shape: integer_array_indices(shape, result_shape=array_shapes(min_dims=1, max_dims=2, max_side=3))))
def test_integer_arrays(pair):
    check(*pair)
