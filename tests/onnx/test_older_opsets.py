"""Operators as they were in older opsets, against ONNX Runtime."""
from __future__ import annotations

import numpy as np
import pytest
from one_node import floats, in_graphc, model_of, same, whole



def test_scales_of_groups():
    """Before opset 21 GroupNormalization has a scale for each group."""
    x = floats(2, 6, 4)
    given = {"x": x, "scale": floats(3, seed=1), "bias": floats(3, seed=2)}
    y = x.reshape(2, 3, 8)
    y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-5)
    expect = (y * given["scale"][:, None] + given["bias"][:, None]).reshape(x.shape)
    found, = in_graphc(model_of("GroupNormalization", given, opset=18, num_groups=3), given)
    np.testing.assert_allclose(found, expect, atol=1e-5)


@pytest.mark.parametrize("kind", (np.int8, np.uint8))
def test_the_largest_bytes(kind):
    same("MaxPool", {"x": whole(kind, 2, 3, 7, 6)}, kernel_shape=[3, 2], pads=[1, 0, 1, 1], strides=[2, 1])
    same("MaxPool", {"x": whole(kind, 2, 3, 7, 6)}, 2, kernel_shape=[3, 2], pads=[1, 0, 1, 1])
