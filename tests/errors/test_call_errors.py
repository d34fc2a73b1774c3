"""Mistakes at the call of compiled code: what the message says. Those of a traced line name that line."""
import numpy as np
import pytest

import graphc as gc

X, I = np.ones((3, 4), np.float32), np.array([0, 1, 2], np.int32)


@gc.graph
def scaled(x: gc.f32[3, 4], s: gc.f32[()]):
    return x * s


@gc.graph
def picked(x: gc.f32["B", 4], i: gc.i32["B"]):
    y = x * 2
    return gc.take(y, i, 1)                                     # here


@pytest.fixture(scope="module")
def run():
    return gc.compile(scaled)


@pytest.fixture(scope="module")
def pick():
    return gc.compile(picked)


@pytest.mark.parametrize("arguments, named, fragments", [
    ((X.astype(float), np.float32(2)), {}, ("'x'", "f32[3, 4]", "float64", "astype")),
    ((X[:2], np.float32(2)), {}, ("'x'", "[3, 4]", "[2, 4]")),
    ((X, X), {}, ("'s'", "[3, 4]")),
    ((X,), {}, ("'s'",)),
    ((X, 1.0, 2.0), {}, ("takes 2 arrays", "got 3")),
    ((X,), {"z": np.float32(1)}, ("'z'", "x, s")),
    ((X.tolist(), np.float32(1)), {}, ("'x'", "list")),
    ((X, np.float32(1)), {"out": np.ones((2, 2), np.float32)}, ("out=", "[3, 4]", "[2, 2]")),
])
def test_wrong_arguments(run, arguments, named, fragments):
    with pytest.raises(gc.GraphError) as info:
        run(*arguments, **named)
    for fragment in fragments:
        assert fragment in str(info.value)
    assert np.array_equal(run(X, np.float32(2)), X * 2)         # the next call is not hurt


def test_calling_the_graph_itself_names_the_calling_line():
    with pytest.raises(gc.GraphError) as info:
        scaled(X[:2], np.float32(1))                            # here
    assert info.value.loc.file == __file__ and "# here" in info.value.loc.code


@pytest.mark.parametrize("bad", [4, -5, 2 ** 31 - 1])
def test_an_index_out_of_range_names_the_traced_line(pick, bad):
    with pytest.raises(gc.GraphError) as info:
        pick(X, np.array([0, bad, 1], np.int32))
    assert all(part in info.value.text for part in ("take", f"index {bad}", "out of range"))
    assert info.value.loc.file == __file__ and "# here" in info.value.loc.code
    assert pick(X, I).shape == (3, 3)


def test_sizes_that_disagree(pick):
    with pytest.raises(gc.GraphError) as info:
        pick(X, I[:2])
    assert "'i' is i32[B], with B = 3, got i32[2]" in info.value.text


@pytest.mark.parametrize("call, fragments", [
    (lambda: gc.compile(picked, C=3), ("no named dimension 'C'", "B")),         # here
    (lambda: gc.compile(scaled, x=gc.f32[3]), ("no named dimension 'x'",)),     # here
    (lambda: gc.compile(3), ("a graph, a network",)),           # here
    (lambda: gc.compile(lambda x: x), ("x=gc.f32",)),           # here
])
def test_compiling(call, fragments):
    with pytest.raises(gc.GraphError) as info:
        call()
    for fragment in fragments:
        assert fragment in info.value.text
    assert info.value.loc.file == __file__ and "# here" in info.value.loc.code


@pytest.mark.parametrize("bounds", [("n", 64), (1, "n"), ("n", "n"), (1, 2, 3), (5, 2)])
@pytest.mark.parametrize("entry", [gc.compile, gc.plan])
def test_bounds_of_a_size_are_two_numbers(entry, bounds):
    """Also where a name stands for one: what it would bound is not known."""
    with pytest.raises(gc.GraphError, match=r"B= takes a size, or the least and the greatest size such as B=\(1, 64\)"):
        entry(picked, B=bounds)
