"""What the inputs of a model take: types, with named dimensions where the file leaves a size open."""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import TypeProto, ValueInfoProto

from graphc.doors.onnx.known import Known, Unsupported
from graphc.doors.onnx.narrow import NARROW, Narrow, NarrowType
from graphc.doors.onnx.reading import OnnxModel, element_type, text
from graphc.dsl.array import Array
from graphc.errors import GraphError
from graphc.ir.convert import is_integer, is_sequence, shown
from graphc.ir.dim_text import as_dim
from graphc.ir.dims import Dim
from graphc.ir.types import TensorType
from graphc.records import dataclass

SINGLE, SEQUENCE, NOTHING = "array", "sequence", "nothing"


@dataclass(frozen=True)
class ModelInput:
    """One input of the file. `types`: of the arrays that are given for it, by name; None where the file does not say
    the number of axes. `numbers`: that are given instead."""
    name: str
    types: Mapping[str, TensorType | None]
    form: str
    kind: NarrowType | None = None
    numbers: Known | None = None

    def value(self, arrays: Mapping[str, Array]) -> Any:
        """Its value, among all arrays that are given."""
        if self.numbers is not None or self.form == NOTHING:
            return self.numbers
        found = [arrays[name] for name in self.types]
        if self.form == SEQUENCE:
            return found
        return found[0] if self.kind is None else Narrow(found[0], self.kind)


def model_inputs(model: OnnxModel, sizes: Mapping[str, Any]) -> tuple[ModelInput, ...]:
    """The inputs without a value in the file. `sizes`: as of `from_onnx`."""
    graph = model.proto.graph
    own = {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
    used: set[str] = set()
    inputs = tuple([_input(v, sizes, used) for v in graph.input if text(v.name) not in own])
    if unknown := sorted(sizes.keys() - used):
        names = sorted({name for each in inputs for t in each.types.values() if t for name in t.names})
        raise GraphError(f"sizes= names {unknown[0]!r}; {model.name} has the named dimensions "
                         f"{', '.join(names) or 'none'} and the inputs {', '.join(i.name for i in inputs) or 'none'}")
    return inputs


def _input(info: ValueInfoProto, sizes: Mapping[str, Any], used: set[str]) -> ModelInput:
    name, type = info.name, info.type
    given: Any = sizes.get(name)
    if name in sizes:
        used.add(name)
    if isinstance(given, np.ndarray):
        return ModelInput(name, {}, SINGLE, numbers=Known.of(given))
    if type.WhichOneof("value") == "optional_type":
        type = type.optional_type.elem_type
        if given == 0:
            return ModelInput(name, {}, NOTHING)
        given = None if given == 1 and type.WhichOneof("value") == "tensor_type" else given
    if type.WhichOneof("value") == "sequence_type":
        shapes: Sequence[Any] = given if is_sequence(given) else (
            [None] * int(given) if given is not None and is_integer(given) and given >= 0 else ())
        if not shapes and given != 0:
            raise Unsupported(f"the input {name!r} is a sequence: say of how many arrays, sizes={{{name!r}: 2}}, or of "
                              f"which shapes, sizes={{{name!r}: [(3,), (4,)]}}")
        tensor = type.sequence_type.elem_type.tensor_type
        types = {f"{name}.{i}": _type(tensor, f"{name}.{i}", shape, sizes, used) for i, shape in enumerate(shapes)}
        return ModelInput(name, types, SEQUENCE)
    if type.WhichOneof("value") != "tensor_type":
        raise Unsupported(f"the input {name!r} is a {_kind(type)}: a graph takes arrays")
    tensor = type.tensor_type
    return ModelInput(name, {name: _type(tensor, name, given, sizes, used)}, SINGLE, NARROW.get(tensor.elem_type))


def _type(tensor: TypeProto.Tensor, name: str, shape: Any, sizes: Mapping[str, Any],
          used: set[str]) -> TensorType | None:
    """The type of one array; None where the number of its axes is not known."""
    dtype = element_type(tensor.elem_type, f"the input {name!r}")
    if shape is not None:
        if not is_sequence(shape):
            raise GraphError(f"sizes= gives the input {name} {shown(shape)}; its shape is a tuple")
        return dtype[tuple(shape)]
    if not tensor.HasField("shape"):
        return None
    return TensorType(dtype, tuple([_dim(dim, f"{name}_{axis}", sizes, used)
                                    for axis, dim in enumerate(tensor.shape.dim)]))


def _dim(dim: Any, default: str, sizes: Mapping[str, Any], used: set[str]) -> Dim:
    """A size; one of -1 is open, as some tools write it."""
    if dim.HasField("dim_value") and dim.dim_value != -1:
        if dim.dim_value < 0:
            raise GraphError(f"the axis {default} of an input has the size {dim.dim_value}")
        return int(dim.dim_value)
    given = dim.dim_param if re.search(r"\w", text(dim.dim_param)) else ""         # "?" names nothing
    name = identifier(given or default)
    for key in (given, name):
        if key in sizes:
            used.add(key)
            size = sizes[key]
            if not is_integer(size) and not isinstance(size, str):
                raise GraphError(f"sizes= gives {key} {shown(size)}; a size is an int or a name")
            return as_dim(size)
    return as_dim(name)


def identifier(text: str) -> str:
    """A text as the name of a dimension."""
    name = re.sub(r"\W", "_", text)
    return name if name.isidentifier() else f"d_{name}"


def _kind(type: TypeProto) -> str:
    return (type.WhichOneof("value") or "value without a type").removesuffix("_type").replace("_", " ")


