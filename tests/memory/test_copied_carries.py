"""What loops begin with is copied as any other array: by vectors, and by all threads where it is much."""
from __future__ import annotations

import re

import numpy as np
import pytest

import graphc as gc
from graphc.ir.interp import evaluate

LARGE, SMALL = (400, 300), (5, 7)


def updated(x):
    """A scan that changes its carry in place."""
    return gc.scan(lambda c, row: (gc.dynamic_update_slice(c, row[None], [1, 0]), None), x, x[:3])[0]


def updated_turned(x):
    """The same of a view that lies the other way."""
    return updated(x.T)


def made_anew(x):
    """A while loop whose carry has a place for its old value and one for its new."""
    return gc.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1][::-1]), (0, x), 5)[1][1]


def graph_of(case, dtype, shape):
    def f(x):
        return case(x)
    f.__annotations__ = {"x": dtype[shape]}
    return gc.graph(f)


def copies(run) -> str:
    """The functions that copy."""
    return "\n".join(re.findall(r"^k\d+_copy_carry(?:.*\n)+?\n", run.dump("loops"), re.M))


@pytest.mark.parametrize("dtype", [gc.f32, gc.f64, gc.i8, gc.bf16], ids=str)
@pytest.mark.parametrize("case", [updated, updated_turned, made_anew], ids=lambda f: f.__name__)
def test_beginnings(case, dtype):
    """Equal bits of any number of threads. Many numbers are shared among threads, few are not."""
    for shape in LARGE, SMALL:
        f = graph_of(case, dtype, shape)
        x = (np.arange(np.prod(shape)) % 13).reshape(shape).astype(dtype.np)
        expected, = evaluate(f.graph, [x])
        for threads in 1, 2:
            run = gc.compile(f, threads=threads)
            np.testing.assert_array_equal(np.asarray(run(x)), expected)
        assert copies(run)
        if dtype in (gc.f32, gc.f64):
            assert ("parallel" in copies(run)) == (shape == LARGE) and f"{dtype}x" in copies(run)


def test_a_beginning_of_any_size():
    run = gc.compile(graph_of(updated, gc.f32, ("n", 300)), threads=2)
    for rows in 5, 400:
        x = np.arange(rows * 300, dtype=np.float32).reshape(rows, 300)
        expected = x.copy()
        expected[1] = x[2]
        np.testing.assert_array_equal(run(x), expected)
