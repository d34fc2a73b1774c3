"""Slices whose ends lie beyond an axis that comes with the call: they take what is there, as numpy's do."""
import numpy as np
import pytest

import graphc as gc
from graphc.errors import GraphError
from graphc.ir.dim_text import parse_dim
from graphc.ir.dims import largest, size_name, smallest
from graphc.ir.size_proofs import is_nonnegative

KEYS = (slice(5), slice(-4, None), slice(-4, -1))


@gc.graph
def cuts(x: gc.f32["B", "T", 3]):
    return tuple(x[:, key] * 2 for key in KEYS)


@gc.graph
def beside_five(x: gc.f32["B", "T", 3]):
    return x[:, :5] + np.arange(15, dtype=np.float32).reshape(5, 3), x[:, :5].reshape(-1, 15)


def array(size: int) -> np.ndarray:
    return np.random.default_rng(size).normal(size=(2, size, 3)).astype(np.float32)


def test_one_program_takes_what_is_there():
    run = gc.compile(cuts)
    for size in (2, 3, 4, 5, 9):
        for found, key in zip(run(array(size)), KEYS):
            np.testing.assert_array_equal(found, array(size)[:, key] * 2, f"{key} of {size}")
    assert run.sized, run.why_not


def test_a_gradient_is_zero_beyond():
    @gc.graph
    def loss(x: gc.f32[2, "T", 3]):
        return gc.sum(x[:, :5] ** 2)
    run = gc.compile(gc.grad(loss, wrt="x"))
    for size in (3, 7):
        np.testing.assert_array_equal(run(array(size)), np.where(np.arange(size)[:, None] < 5, 2 * array(size), 0))


def test_what_takes_the_whole_slice_takes_no_shorter_axis():
    run = gc.compile(beside_five)
    for size in (5, 7):
        np.testing.assert_array_equal(run(array(size))[1], array(size)[:, :5].reshape(-1, 15))
    with pytest.raises(GraphError, match=r"\[2, 4, 3\] and \[5, 3\] do not broadcast"):
        run(array(4))


@pytest.mark.parametrize(("bounds", "size"), [((5, 9), "5"), ((1, 5), "T")])
def test_declared_bounds_decide(bounds, size):
    text = gc.compile(cuts, T=bounds).dump("simplified")
    assert f"f32[B, {size}, 3]" in text and "stop=(B, min" not in text.split("\n")[1]


def test_the_text_of_a_graph_holds_such_sizes():
    assert gc.parse(str(cuts)) == cuts.graph
    for text in ("min(T, 5)", "max(2, T)", "B*min(T, U, 7) + 1", "((min(T, 8) + 1)//3)"):
        assert str(parse_dim(text)) == text


def test_minima_are_proved():
    t, u = size_name("T", 2), size_name("U", 3, 50)
    least = smallest(t, 10)
    assert least == smallest(10, t) == smallest(smallest(t, 12), 10) and smallest(t, 2) == 2 and smallest(u, 50) == u
    assert (least.low, least.high) == (2, 10)
    assert all(map(is_nonnegative, (t - least, 10 - least, least - 2, least * u - 6, largest(t, u) - smallest(t, u))))
    assert not any(map(is_nonnegative, (least - 3, 9 - least, least - t)))
