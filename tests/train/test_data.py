"""Batches of arrays and windows of a series."""
import numpy as np
import pytest

import graphc as gc

X = np.arange(20).reshape(10, 2)


def test_batches():
    cut = list(gc.batches(X, X[:, 0], size=4))
    assert [len(x) for x, _ in cut] == [4, 4, 2] and np.array_equal(np.concatenate([x for x, _ in cut]), X)
    assert len(list(gc.batches(X, size=4, drop_last=True))) == 2
    orders = [np.concatenate([x[:, 0] for x, in gc.batches(X, size=3, seed=s, epoch=e)]) for s, e in ((0, 0), (0, 0), (0, 1), (1, 0))]
    assert np.array_equal(orders[0], orders[1]) and len({tuple(o) for o in orders}) == 3
    assert all(sorted(o) == list(X[:, 0]) for o in orders)


def test_windows():
    x, y = gc.windows(X, 4, ahead=2)
    assert x.shape == (5, 4, 2) and y.shape == (5, 2, 2)
    assert np.array_equal(x[1], X[1:5]) and np.array_equal(y[1], X[5:7])
    assert np.array_equal(gc.windows(X, 4)[6], X[6:10]) and len(gc.windows(X, 4, step=3)) == 3
    x, y = gc.windows(X, 3, ahead=1, target=X[:, 1] * 10)
    assert y.shape == (7, 1) and np.array_equal(y[:, 0], X[3:, 1] * 10)


@pytest.mark.parametrize("make, text", [
    (lambda: gc.batches(X, X[:3], size=2), "one row for each example"),
    (lambda: gc.batches(X, size=0), "size is an int >= 1"),
    (lambda: gc.windows(X, 9, ahead=2), "a series of 10 has no window of 9 with 2 values after it"),
    (lambda: gc.windows(X, 2, ahead=1, target=X[:4]), "a target of its length"),
])
def test_mistakes(make, text):
    with pytest.raises(gc.GraphError, match=text):
        make()
