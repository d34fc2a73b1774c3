"""Scatter and gather by tuples of positions: what of torch and ONNX the table of functions does not show, and mistakes."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc

RNG = np.random.default_rng(5)
X = RNG.uniform(-2, 2, (5, 4)).astype(np.float32)
AT = RNG.integers(0, 5, (3, 2))
U = RNG.uniform(-2, 2, (4, 3)).astype(np.float32)
NAMES = {"add": "sum", "mul": "prod", "min": "amin", "max": "amax", "mean": "mean"}


def run(f, *arrays):
    names = [f"x{i}" for i in range(len(arrays))]
    made = eval(f"lambda {', '.join(names)}: f({', '.join(names)})", {"f": f})       # a graph has a fixed list of arguments
    return gc.compile(made, **{n: gc.TensorType(gc.f32 if a.dtype == np.float32 else gc.i64, a.shape)
                               for n, a in zip(names, arrays)})(*arrays)


@pytest.mark.peers
@pytest.mark.parametrize("include_self", (True, False))
@pytest.mark.parametrize("reduction", ("none", *NAMES))
@pytest.mark.parametrize("axis", (0, 1))
def test_is_torchs(axis, reduction, include_self):
    """Indices shorter than x on the other axis, updates longer than indices; the gradients too."""
    torch = pytest.importorskip("torch")
    at = np.array([[0, 3], [2, 1], [4, 0]]) if reduction == "none" and axis == 0 else AT % (5 - axis)
    if reduction == "none" and axis:
        at = np.array([[0, 3], [2, 1], [3, 0]])

    def f(x, i, u):
        return gc.scatter_along_axis(x, i, u, axis, reduction, include_self, partial=True)
    tx, ti, tu = torch.tensor(X, requires_grad=True), torch.tensor(at), torch.tensor(U, requires_grad=True)
    tu_cut = tu[:3, :2]                                     # torch has no gradient of longer updates
    want = (torch.scatter(tx, axis, ti, tu_cut) if reduction == "none" else
            torch.scatter_reduce(tx, axis, ti, tu_cut, NAMES[reduction], include_self=include_self))
    np.testing.assert_allclose(run(f, X, at, U), want.detach().numpy(), rtol=1e-6, atol=1e-6)
    weights = RNG.uniform(0.5, 1, X.shape).astype(np.float32)

    def total(x, i, u):
        return gc.sum(f(x, i, u) * weights)
    (want * torch.tensor(weights)).sum().backward()
    with gc.dsl.trace.Trace("gradients") as trace:
        ins = [trace.input(n, t) for n, t in (("x", gc.f32[5, 4]), ("i", gc.i64[3, 2]), ("u", gc.f32[4, 3]))]
        loss = gc.dsl.function.finish(trace, total(*ins))
    dx, du = gc.compile(gc.grad(loss, wrt=("x", "u")))(X, at, U)
    np.testing.assert_allclose(dx, tx.grad.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(du, tu.grad.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch", (0, 1, 2))
def test_gather_nd_with_batch_axes(batch):
    x = RNG.random((2, 3, 4, 5), np.float32)
    at = RNG.integers(-2, 2, (*x.shape[:batch], 7, 2))
    want = np.empty((*at.shape[:-1], *x.shape[batch + 2:]), np.float32)
    for n in np.ndindex(at.shape[:-1]):
        want[n] = x[(*n[:batch], *at[n])]
    np.testing.assert_array_equal(run(lambda x, i: gc.gather_nd(x, i, batch), x, at), want)


def test_the_last_of_equal_positions_stays():
    at = np.array([1, 1, 3, 1])
    got = run(lambda x, i: gc.scatter(x, i, np.arange(4, dtype=np.float32)), np.zeros(5, np.float32), at)
    np.testing.assert_array_equal(got, [0, 3, 0, 2, 0])


def test_indices_broadcast_unless_partial():
    at = np.array([[1]])
    whole = run(lambda x, i: gc.scatter_along_axis(x, i, 9.0, 0), X, at)
    part = run(lambda x, i: gc.scatter_along_axis(x, i, 9.0, 0, partial=True), X, at)
    assert (whole[1] == 9).all() and (part[1] == 9).tolist() == [True, False, False, False]


def test_named_sizes():
    @gc.graph
    def f(x: gc.f32["N", "M", 3], i: gc.i64["K", 2], u: gc.f32["K", 3]):
        return gc.scatter_nd(x, i, u, "add"), gc.gather_nd(x, i)
    x, at = RNG.random((4, 5, 3), np.float32), np.array([[0, 1], [3, 4], [0, 1]])
    written, read = gc.compile(f)(x, at, np.ones((3, 3), np.float32))
    want = x.copy()
    np.add.at(want, tuple(at.T), 1)
    np.testing.assert_allclose(written, want, rtol=1e-6)
    np.testing.assert_array_equal(read, x[tuple(at.T)])


WRONG = {
    "scatter": (lambda x, i: gc.scatter(x, i, 1.0), "scatter got index 7, which is out of range: there are 5 positions"),
    "scatter max": (lambda x, i: gc.scatter(x, i, 1.0, reduction="max"), "scatter got index 7, which is out of range: there are 5"),
    "along": (lambda x, i: gc.scatter_along_axis(x, i[:, None], 1.0, 0), "scatter_along_axis got index 7, which is out of range"),
    "gather_nd": (lambda x, i: gc.gather_nd(x, i.reshape(1, -1)), "gather_nd got index 7, which is out of range: there are 4 positions"),
    "scatter_nd": (lambda x, i: gc.scatter_nd(x, i.reshape(1, -1), 1.0), "scatter_nd got index 7, which is out of range: there are 4 p"),
    "index_put": (lambda x, i: gc.index_put(x, (i, i), 1.0), "index_put got index 7, which is out of range: there are 5 positions")}


@pytest.mark.parametrize("name", WRONG)
def test_a_bad_position_is_named(name):
    f, says = WRONG[name]
    with pytest.raises(gc.GraphError) as caught:
        run(f, X, np.array([0, 7]))
    assert says in caught.value.text and caught.value.loc.file == __file__


MISTAKES = (
    (lambda x, i: gc.scatter(x, i, gc.zeros((3, 3))), "broadcast"), (lambda x, i: gc.scatter(x, i, 0.0, reduction="sum"), "one of none, add"),
    (lambda x, i: gc.scatter_along_axis(x, i, 0.0, 0), "indices have 1 axes and x has 2"),
    (lambda x, i: gc.scatter_along_axis(x, gc.zeros((9, 9), gc.i64), 0.0, 0, partial=True), "reach beyond"),
    (lambda x, i: gc.scatter_along_axis(gc.zeros((2,), gc.i32), i, 0, 0, "mean"), "astype"),
    (lambda x, i: gc.gather_nd(x, gc.zeros((3, 3), gc.i64)), "k from 1 to 2"), (lambda x, i: gc.gather_nd(x, i.astype(gc.f32)), "integers of shape"),
    (lambda x, i: gc.gather_nd(x, i, 2), "less than the 2 axes"), (lambda x, i: gc.index_put(x, (i, i, i), 0.0), "1 to 2 index arrays"),
    (lambda x, i: gc.gather_nd(x, i[:, None], 1), "must agree"))


@pytest.mark.parametrize("f, says", MISTAKES)
def test_mistakes(f, says):
    with pytest.raises(gc.GraphError) as caught:
        gc.compile(lambda x, i: f(x, i), x=gc.f32[5, 4], i=gc.i64[2])
    assert says in caught.value.text and caught.value.loc.file == __file__
