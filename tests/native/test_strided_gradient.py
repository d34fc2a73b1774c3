"""Weight gradients of strided convolutions whose images leave a narrow last tile."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc


@pytest.mark.parametrize("batch, channels, size, features", [(4, 256, 14, 512), (3, 128, 13, 272)])
def test_weight_gradient(batch, channels, size, features):
    """The first did not compile: a bound of the last tile's columns was not proved."""
    out = (size - 1) // 2 + 1

    @gc.graph
    def loss(x: gc.f32[batch, channels, size, size], w: gc.f32[features, channels, 3, 3],
             dy: gc.f32[batch, features, out, out]):
        return gc.sum(gc.conv2d(x, w, stride=2, padding=1) * dy)
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal(shape, np.float32)
             for shape in ((batch, channels, size, size), (batch, features, out, out)))
    found = gc.compile(gc.grad(loss, "w"), threads=1)(x, np.zeros((features, channels, 3, 3), np.float32), dy)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    for i, j in np.ndindex(3, 3):
        part = padded[:, :, i:i + 2 * out - 1:2, j:j + 2 * out - 1:2]
        np.testing.assert_allclose(found[:, :, i, j], np.einsum("ncyx,nfyx->fc", part, dy, optimize=True), rtol=1e-4,
                                   atol=1e-3)
