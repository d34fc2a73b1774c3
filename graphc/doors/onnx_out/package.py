"""The package `onnx`, whose absence is said with what to install."""
from __future__ import annotations

from graphc.errors import GraphError

try:
    import onnx
    from onnx import (
        GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, checker, defs, helper, numpy_helper,
        shape_inference)
except ImportError as error:
    raise GraphError("ONNX files need the package onnx: pip install onnx, or '.[onnx]' in a copy of graphc") from error

__all__ = ["GraphProto", "ModelProto", "NodeProto", "TensorProto", "ValueInfoProto", "checker", "defs", "helper",
           "numpy_helper", "onnx", "shape_inference"]
