"""A model as a layer."""
from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from onnx import ModelProto, TypeProto, ValueInfoProto, helper

from graphc.contained import contained
from graphc.doors.onnx.checking import check
from graphc.doors.onnx.graph import Reader
from graphc.doors.onnx.importer import Importer
from graphc.doors.onnx.known import Known, Unsupported, dtype_named
from graphc.doors.onnx.reading import Model, domain_of, read
from graphc.dsl.array import Array
from graphc.dsl.context import user_loc
from graphc.dsl.form import formed
from graphc.errors import GraphError
from graphc.ir.convert import is_integer, is_sequence, shown
from graphc.ir.dim_text import as_dim
from graphc.ir.dims import Dim
from graphc.ir.types import TensorType
from graphc.nn.module import Module
from graphc.nn.parameter import Value

Freeze = bool | str | Sequence[str] | None
Sizes = Mapping[str, Any]


@formed
def from_onnx(model: str | os.PathLike[str] | bytes | ModelProto, /, *, freeze: Freeze = None,
              sizes: Sizes | None = None) -> OnnxNetwork:
    """The network of an ONNX model: a layer like any other, whose inputs have the types of the file.

    `model`: a path, the bytes of a file, or an onnx.ModelProto, of any opset. Data beside the file must lie in its
    folder. Sizes that the file leaves open are named dimensions; `sizes` gives some of them (`{"batch": 8}`), whole
    shapes of inputs (`{"image": (1, 3, "H", "W")}`), also of those that have none in the file, or the numbers of inputs
    that decide sizes (`{"axes": np.array([0, 1])}`), which are inputs no more.

    Float initializers with axes that take part in computation are parameters under their names in the file, and start
    with its numbers; `freeze` leaves out of training all of them (True) or those of these names or patterns
    ("encoder.*"). Batch norms and dropouts are for training in a training step and for inference elsewhere. Several
    outputs come as a dict by their names; `outputs=` of gc.compile takes names of values in the file.

    Raises GraphError for a file that is damaged, and for what is not supported: all of it, at once.
    """
    try:
        return _network(read(model), freeze, sizes)
    except GraphError as error:
        raise error.at(user_loc()) from None


@contained
def _network(model: Model, freeze: Freeze, sizes: Sizes | None) -> OnnxNetwork:
    return OnnxNetwork(model, freeze, sizes)


class OnnxNetwork(Module):
    """The network of an ONNX model; made by `gc.from_onnx`. Called with arrays in the order of the file's inputs, or by
    their names."""
    hands_on = True

    def __init__(self, model: Model, freeze: Freeze = None, sizes: Sizes | None = None):
        super().__init__()
        self._model = model
        self._patterns = _patterns(freeze)
        reader = Reader(model)
        self._graph = reader.graph(model.proto.graph)
        self._functions = {(domain_of(f.domain), f.name): reader.function(f) for f in model.proto.functions}
        check(model, self._graph, self._functions)
        sizes = dict(sizes or {})
        self._numbers = {name: Known.of(v) for name, v in sizes.items() if isinstance(v, np.ndarray)}
        self._types = _input_types(model, sizes)

    @property
    def kind(self) -> str:
        return self._model.proto.graph.name or "onnx"

    def declared_inputs(self) -> Mapping[str, TensorType]:
        """The types of the inputs, by their names in the file."""
        return {name: type for name, type in self._types.items() if type is not None}

    def takes(self) -> frozenset[str]:
        return frozenset(self._types)

    def forward(self, *arrays: Array, **named: Array) -> Any:
        """The only output, or a dict of all."""
        outputs = Importer(self._model, self._functions, self).outputs(
            self._graph, {**self._numbers, **self._given(arrays, named)})
        flat = _flat(outputs)
        return next(iter(flat.values())) if len(outputs) == 1 and len(flat) == 1 else flat

    def _given(self, arrays: Sequence[Array], named: Mapping[str, Array]) -> dict[str, Array]:
        """The inputs by name."""
        given = dict(zip(self._types, arrays))
        wrong = len(arrays) > len(self._types) or given.keys() & named.keys() or named.keys() - self._types.keys()
        given |= named
        if wrong or given.keys() != self._types.keys():
            raise GraphError(f"{self._model.name} takes {', '.join(self._types) or 'no inputs'}; got {len(arrays)} "
                             f"arrays by position and by name {', '.join(named) or 'none'}")
        for name, array in given.items():
            type = self._types[name]
            if type is not None and (array.dtype != type.dtype or array.ndim != type.rank):
                raise GraphError(f"the input {name} of {self._model.name} is {type}, got {array.type}")
        return given

    def weight(self, known: Known, trained: bool) -> Array:
        """The parameter that an initializer is."""
        frozen = any(fnmatchcase(known.name, pattern) for pattern in self._patterns)
        trains = trained and not frozen and not known.dtype.is_storage
        return self.parameter(known.name, known.numbers.shape, Value(known.numbers), known.dtype, trains)

    def __repr__(self) -> str:
        return f"from_onnx({self._model.name!r})"


def _patterns(freeze: Freeze) -> tuple[str, ...]:
    if freeze is None or isinstance(freeze, bool):
        return ("*",) if freeze else ()
    patterns = (freeze,) if isinstance(freeze, str) else tuple(freeze)
    if not all(isinstance(p, str) for p in patterns):
        raise GraphError(f"freeze= takes True, or names of parameters in the file, got {shown(freeze)}")
    return patterns


def _flat(outputs: Mapping[str, Any]) -> dict[str, Array]:
    """Items of sequences as "name.0", "name.1", …"""
    flat: dict[str, Array] = {}
    for name, value in outputs.items():
        flat |= _flat({f"{name}.{i}": v for i, v in enumerate(value)}) if isinstance(value, list) else {name: value}
    return flat


# ---- types of inputs
def _input_types(model: Model, sizes: dict[str, Any]) -> dict[str, TensorType | None]:
    """The types of the inputs that a call gives; None where the file does not say the number of axes."""
    graph = model.proto.graph
    own = {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
    used: set[str] = set()
    numbers = {v.name for v in graph.input if isinstance(sizes.get(v.name), np.ndarray)}
    used |= numbers
    types = {v.name: _type(v, sizes, used) for v in graph.input if v.name not in own | numbers}
    if unknown := sorted(sizes.keys() - used):
        names = sorted({name for t in types.values() if t for name in t.names})
        raise GraphError(f"sizes= names {unknown[0]!r}; {model.name} has the named dimensions "
                         f"{', '.join(names) or 'none'} and the inputs {', '.join(types) or 'none'}")
    return types


def _type(info: ValueInfoProto, sizes: Mapping[str, Any], used: set[str]) -> TensorType | None:
    tensor = info.type.tensor_type
    if info.type.WhichOneof("value") != "tensor_type":
        raise Unsupported(f"the input {info.name!r} is a {_kind(info.type)}: a graph takes arrays")
    dtype = dtype_named(helper.tensor_dtype_to_np_dtype(tensor.elem_type), f"the input {info.name!r}")
    if info.name in sizes:
        used.add(info.name)
        shape = sizes[info.name]
        if not is_sequence(shape):
            raise GraphError(f"sizes= gives the input {info.name} {shown(shape)}; its shape is a tuple")
        return dtype[tuple(shape)]
    if not tensor.HasField("shape"):
        return None
    dims: list[Dim] = []
    for axis, dim in enumerate(tensor.shape.dim):
        dims.append(_dim(dim, f"{info.name}_{axis}", sizes, used))
    return TensorType(dtype, tuple(dims))


def _dim(dim: Any, default: str, sizes: Mapping[str, Any], used: set[str]) -> Dim:
    if dim.HasField("dim_value") and dim.dim_value >= 0:
        return int(dim.dim_value)
    given = dim.dim_param if dim.HasField("dim_param") else ""
    name = _identifier(given or default)
    for key in (given, name):
        if key in sizes:
            used.add(key)
            size = sizes[key]
            if not is_integer(size) and not isinstance(size, str):
                raise GraphError(f"sizes= gives {key} {shown(size)}; a size is an int or a name")
            return as_dim(size)
    return as_dim(name)


def _identifier(text: str) -> str:
    """A text as the name of a dimension."""
    name = re.sub(r"\W", "_", text)
    return name if name.isidentifier() else f"d_{name}"


def _kind(type: TypeProto) -> str:
    return (type.WhichOneof("value") or "value without a type").removesuffix("_type").replace("_", " ")


