"""Operators as they were in older opsets, against ONNX Runtime."""
from __future__ import annotations

import numpy as np
import onnx
import pytest
from one_node import floats, in_graphc, model_of, same, whole

from graphc.doors.onnx.older import OLDER
from graphc.doors.onnx.table import RULES



def test_scales_of_groups():
    """Before opset 21 GroupNormalization has a scale for each group."""
    x = floats(2, 6, 4)
    given = {"x": x, "scale": floats(3, seed=1), "bias": floats(3, seed=2)}
    y = x.reshape(2, 3, 8)
    y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-5)
    expect = (y * given["scale"][:, None] + given["bias"][:, None]).reshape(x.shape)
    found, = in_graphc(model_of("GroupNormalization", given, opset=18, num_groups=3), given)
    np.testing.assert_allclose(found, expect, atol=1e-5)


@pytest.mark.parametrize("opset, how, last", ((6, {}, 1), (10, {"min": 0.0}, 1), (5, {}, 0), (11, {}, 0)))
def test_bounds_that_are_not_given(opset, how, last):
    """From opset 6 to 10 they are the last finite numbers."""
    x = np.float32([np.inf, -np.inf, np.nan, 1e38, -2])
    most = np.finfo(np.float32).max if last else np.inf
    found, = in_graphc(model_of("Clip", {"x": x}, opset=opset, **how), {"x": x})
    np.testing.assert_array_equal(found, np.clip(x, how.get("min", -most), most))
    x = x.astype(np.float16)
    found, = in_graphc(model_of("Clip", {"x": x}, opset=opset, **how), {"x": x})
    np.testing.assert_array_equal(found, np.clip(x, how.get("min", -np.inf), np.inf))


# defaults of attributes that the newest form of an operator lacks or has otherwise, and which decide what it gives
GONE = {"Clip": {"min", "max"}, "DFT": {"axis"}, "Dropout": {"ratio"}, "Hardmax": {"axis"}, "LogSoftmax": {"axis"}, "Softmax": {"axis"},
        "Pad": {"value"}, "BatchNormalization": {"spatial"}}
WORDS = {"GridSample": {"mode"}}            # both words are read


def test_defaults_that_are_gone_are_known():
    """Each is that of a rule for older opsets, unless newer ones do the same without."""
    versions, found = {}, {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if not schema.domain and schema.name in RULES:
            versions.setdefault(schema.name, []).append(schema)
    for key, schemas in versions.items():
        *older, newest = sorted(schemas, key=lambda s: s.since_version)
        for schema, following in zip(older, [*older[1:], newest]):
            for name, attribute in schema.attributes.items():
                now = newest.attributes.get(name)
                if following.since_version > 7 and attribute.default_value.type and name not in ("broadcast", "is_test", "output_sequence") and (
                        now is None or now.default_value != attribute.default_value):
                    found.setdefault(key, set()).add(name)
    assert found == {**GONE, **WORDS}
    assert GONE.keys() <= OLDER.keys()


@pytest.mark.parametrize("kind", (np.int8, np.uint8))
def test_the_largest_bytes(kind):
    same("MaxPool", {"x": whole(kind, 2, 3, 7, 6)}, kernel_shape=[3, 2], pads=[1, 0, 1, 1], strides=[2, 1])
    same("MaxPool", {"x": whole(kind, 2, 3, 7, 6)}, 2, kernel_shape=[3, 2], pads=[1, 0, 1, 1])
