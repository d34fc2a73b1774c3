"""Models of one node, in graphc and in ONNX Runtime."""
from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

import graphc as gc

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
helper = onnx.helper
runtime.set_default_logger_severity(4)

OPSETS = {"": 21, "com.microsoft": 1, "ai.onnx.ml": 3}


def floats(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def whole(kind, *shape: int, seed: int = 0) -> np.ndarray:
    info = np.iinfo(kind)
    return np.random.default_rng(seed).integers(info.min, info.max + 1, shape).astype(kind)


def model_of(op: str, inputs: Mapping[str, np.ndarray | None], outputs: int | Sequence[str] = 1, domain: str = "",
             constants: Sequence[str] = (), opset: int | None = None, **attributes):
    """The model of a node; inputs that are None are left out, those among `constants` are initializers."""
    given = {n: a for n, a in inputs.items() if a is not None}
    names = [n if a is not None else "" for n, a in inputs.items()]
    while names and not names[-1]:
        names.pop()
    results = [f"y{i}" for i in range(outputs)] if isinstance(outputs, int) else list(outputs)
    node = helper.make_node(op, names, results, domain=domain, **attributes)
    infos = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in given.items()
             if n not in constants]
    held = [onnx.numpy_helper.from_array(given[n], n) for n in constants if n in given]
    graph = helper.make_graph([node], "one", infos, [helper.make_empty_tensor_value_info(r) for r in results if r], held)
    opsets = {**OPSETS, **({domain: opset} if opset else {})}
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(d, v) for d, v in opsets.items()], ir_version=10)


def in_runtime(model, inputs: Mapping[str, np.ndarray | None]) -> list[np.ndarray]:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    known = {i.name for i in session.get_inputs()}
    return session.run(None, {n: a for n, a in inputs.items() if n in known})


def in_graphc(model, inputs: Mapping[str, np.ndarray | None]) -> list[np.ndarray]:
    net = gc.from_onnx(model)
    given = {n: a for n, a in inputs.items() if n in net.declared_inputs()}
    result = gc.compile(net, seed=0)(**given)
    return list(result.values()) if isinstance(result, dict) else [result]


def same(op: str, inputs: Mapping[str, np.ndarray | None], outputs: int | Sequence[str] = 1, tolerance: float = 1e-5,
         off: int = 0, **how) -> list[np.ndarray]:
    """Both give the same: floats to `tolerance` of the largest, integers exactly, or to `off`."""
    model = model_of(op, inputs, outputs, **how)
    expect, actual = in_runtime(model, inputs), in_graphc(model, inputs)
    for a, e in zip(actual, expect, strict=True):
        assert (a.shape, a.dtype) == (e.shape, e.dtype)
        if a.dtype.kind == "f":
            np.testing.assert_allclose(a, e, rtol=0, atol=tolerance * np.abs(e).max(initial=1e-30))
        else:
            assert np.abs(a.astype(np.int64) - e.astype(np.int64)).max(initial=0) <= off
    return actual
