"""Nests whose operands lie otherwise than their results: values, and the same bits of one thread and of two."""
import numpy as np
import pytest

import graphc as gc
from graphc.ir.interp import evaluate


def both(f):
    return gc.compile(f, threads=1), gc.compile(f, threads=2)


@pytest.mark.parametrize("dtype", [gc.f32, gc.f64, gc.i16, gc.i8], ids=str)
@pytest.mark.parametrize("shape, perm", [((700, 45), (1, 0)), ((45, 700), (1, 0)), ((700, 3, 34), (2, 1, 0)), ((700, 12, 20), (0, 2, 1)),
                                         ((2000, 7, 5), (0, 2, 1))], ids=str)
def test_turned(shape, perm, dtype):
    """Blocks of rows with rests, and many small matrices."""
    def f(x):
        return gc.transpose(x, perm) + 1
    f.__annotations__ = {"x": dtype[shape]}
    x = (np.arange(np.prod(shape)) % 101).reshape(shape).astype(dtype.np)
    for run in both(gc.graph(f)):
        np.testing.assert_array_equal(run(x), x.transpose(perm) + 1)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "layer_norm"])
@pytest.mark.parametrize("shape", [(44, 35, 60), (3, 200, 70), (5, 600, 33)], ids=str)
def test_rows_that_lie_across(name, shape):
    """Rows of few elements are lanes, one beside the other; of many they are read one by one."""
    def f(x):
        return getattr(gc, name)(gc.transpose(x, (2, 0, 1)))
    f.__annotations__ = {"x": gc.f32[shape]}
    graph = gc.graph(f)
    x = np.random.default_rng(1).standard_normal(shape, np.float32)
    one, two = [run(x) for run in both(graph)]
    assert one.tobytes() == two.tobytes()
    np.testing.assert_allclose(one, evaluate(graph.graph, [x])[0], rtol=2e-5, atol=2e-5)
