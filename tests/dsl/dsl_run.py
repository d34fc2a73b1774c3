"""Traces a function on the types of numpy arrays and runs it with the oracle."""
import inspect

import numpy as np

from graphc.dsl.function import trace_types
from graphc.ir.interp import evaluate
from graphc.ir.types import TensorType, dtype_of


def types(f, arrays):
    return {name: TensorType(dtype_of(a), a.shape) for name, a in zip(inspect.signature(f).parameters, arrays)}


def traced(f, *arrays, training=False):
    """The graph of `f` for the types of the arrays."""
    return trace_types(f, types(f, arrays), training=training)


def run_graph(g, *arrays, state=()):
    """What the graph returns, in the form that the function returned it."""
    return g.pack(evaluate(g.graph, [*arrays, *state])[:len(g.graph.outputs)])


def run(f, *arrays):
    arrays = [np.asarray(a) for a in arrays]
    return run_graph(traced(f, *arrays), *arrays)


def close(got, want, dtype=None):
    want = np.asarray(want)
    assert got.shape == want.shape
    assert got.dtype == (dtype or want.dtype)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
