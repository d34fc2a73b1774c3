"""Small ONNX models."""
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

KINDS = {"f32": TensorProto.FLOAT, "f64": TensorProto.DOUBLE, "i64": TensorProto.INT64, "i32": TensorProto.INT32,
         "bool": TensorProto.BOOL, "i8": TensorProto.INT8}


def info(name, shape, kind="f32"):
    return helper.make_tensor_value_info(name, KINDS[kind], shape)


def model(nodes, inputs, outputs, initializers=None, opset=20, functions=(), domains=()):
    """inputs, outputs: (name, shape) or (name, shape, kind)."""
    tensors = [numpy_helper.from_array(np.asarray(a), n) for n, a in (initializers or {}).items()]
    graph = helper.make_graph(nodes, "net", [info(*i) for i in inputs], [info(*o) for o in outputs], tensors)
    opsets = [helper.make_opsetid("", opset), *[helper.make_opsetid(d, 1) for d in domains]]
    return helper.make_model(graph, opset_imports=opsets, functions=list(functions))


def node(op, inputs, outputs, **attributes):
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def save(made, path, **options):
    onnx.save(made, path, **options)
    return path
