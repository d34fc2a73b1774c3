"""Runs an exported model: checked, its shapes inferred, in ONNX Runtime."""
from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
OPSETS = {"bitcast": 26}            # of operators that the usual opset, 23, does not have
runtime.set_default_logger_severity(4)          # it warns of every initializer that a call may replace


def session(model):
    """Of the model, which passes all checks of ONNX. Without the rewrites that compute in other types than the model
    says (a scale of f64 becomes one of f32)."""
    onnx.checker.check_model(model, full_check=True)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    return runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(model, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs by name, for the inputs that the model has."""
    opened = session(model)
    known = {i.name for i in opened.get_inputs()} | {i.name for i in opened.get_overridable_initializers()}
    results = opened.run(None, {name: a for name, a in arrays.items() if name in known})
    return dict(zip((o.name for o in opened.get_outputs()), results))


def assert_same(actual: Sequence[np.ndarray], expect: Sequence[np.ndarray], tolerance: float,
                least: float = 1e-30) -> None:
    """Integers are equal, floats to `tolerance` times the largest one of their array, or to `least`; types and shapes
    agree."""
    for a, e in zip(actual, expect, strict=True):
        assert (a.dtype, a.shape) == (e.dtype, e.shape)
        if a.dtype.kind in "biu":
            np.testing.assert_array_equal(a, e)
            continue
        wide, wanted = a.astype(np.float64), np.asarray(e, np.float64)
        largest = np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0)
        np.testing.assert_allclose(wide, wanted, rtol=0, atol=tolerance * largest + least)
