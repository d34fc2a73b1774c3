"""The package `onnx`, whose absence is said with what to install."""
from __future__ import annotations

from graphc.extra import missing

try:
    import onnx
    from onnx import (
        GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, checker, defs, helper, numpy_helper,
        shape_inference)
except ImportError as error:
    raise missing("A file of ONNX", "the package onnx, 1.23 or later", "onnx", error) from None

__all__ = ["GraphProto", "ModelProto", "NodeProto", "TensorProto", "ValueInfoProto", "checker", "defs", "helper",
           "numpy_helper", "onnx", "shape_inference"]
