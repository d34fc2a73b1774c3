"""Files, bytes and protobuf messages as models; tensors as numpy arrays."""
from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, ModelProto, OperatorSetIdProto, TensorProto, defs, helper, numpy_helper

from graphc.doors.onnx.known import Known, Unsupported, dtype_named
from graphc.doors.onnx.narrow import NARROW, Narrow, held
from graphc.errors import GraphError
from graphc.ir.types import DType
from graphc.records import dataclass


MAPPED = 1 << 16                    # bytes from which a tensor beside the file is mapped rather than read
DOMAINS = ("", "ai.onnx")           # names of the main one
NEWEST = {"": defs.onnx_opset_version, "ai.onnx.ml": defs.onnx_ml_opset_version}
MOST_VERSION = (1 << 31) - 1        # of other domains: what onnx can ask for
PACKED: Mapping[str, int] = {"int4": 2, "uint4": 2, "float4_e2m1fn": 2, "int2": 4, "uint2": 4}      # so many in a byte


@dataclass(frozen=True)
class OnnxModel:
    """A parsed file. `folder`: where external data may lie; None for a model that came without a file."""
    proto: ModelProto
    name: str
    folder: Path | None
    opsets: Mapping[str, int]

    def tensor(self, tensor: TensorProto, name: str = "") -> Known | Narrow:
        """The numbers of a tensor of the model. GraphError for one that is damaged; Unsupported for a type that
        graphc does not have. `name`: of the initializer that it is."""
        what = f"tensor {tensor.name!r}" if tensor.name else "a tensor"
        array = self._numbers(tensor, what)
        if (narrow := held(array)) is not None:
            return narrow
        return Known(array, dtype_named(array.dtype, what), name)

    def _numbers(self, tensor: TensorProto, what: str) -> np.ndarray:
        if tensor.data_type == TensorProto.STRING:
            raise Unsupported(f"{what} holds strings")
        if any(d < 0 for d in tensor.dims):
            raise GraphError(f"{what} has the shape {list(tensor.dims)}")
        try:
            if tensor.data_location == TensorProto.EXTERNAL:
                return self._external(tensor, what)
            return numpy_helper.to_array(tensor)
        except (ValueError, TypeError, KeyError, OverflowError, MemoryError, AttributeError, IndexError) as error:
            raise GraphError(f"{what} is damaged: {error}") from None

    def _external(self, tensor: TensorProto, what: str) -> np.ndarray:
        """A tensor in a file of its own, which lies in the model's folder or below it. It is mapped: what is not read
        stays in the file."""
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if self.folder is None:
            raise GraphError(f"{what} is in the file {entries.get('location')!r}: give the path of the model, so that "
                             "its folder is known")
        path = inside(self.folder, entries.get("location", ""), what)
        kind = tensor.data_type
        dtype = NARROW[kind].numpy if kind in NARROW else element_type(kind, what).np
        packed = PACKED.get(dtype.name, 1)
        count, offset = prod(tensor.dims), int(entries.get("offset", 0))
        length = -(-count // packed) * dtype.itemsize
        if int(entries.get("length", length)) != length:
            raise GraphError(f"{what} has {length} bytes, of which the file says {entries['length']}")
        if offset < 0 or offset + length > path.stat().st_size:
            raise GraphError(f"{what} would end behind the end of {path.name}")
        if packed == 1 and length >= MAPPED and offset % dtype.itemsize == 0:
            return np.memmap(path, dtype, "r", offset, tuple(tensor.dims))
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read(length)
        return numpy_helper.to_array(TensorProto(dims=tensor.dims, data_type=kind, raw_data=data))


def inside(folder: Path, location: str, what: str) -> Path:
    """The file of external data; GraphError for one that is not in the folder, by whatever way it is named."""
    top = folder.resolve()
    try:
        path = (top / location).resolve()
    except (OSError, RuntimeError) as error:            # links that go round in a circle
        raise GraphError(f"{what} is in {location!r}, which cannot be found: {error}") from None
    if not location or not path.is_relative_to(top) or path == top:
        raise GraphError(f"{what} is in {location!r}, outside of the model's folder: it is not read")
    if not path.is_file():
        raise GraphError(f"{what} is in {location!r}, which is no file in {folder}")
    return path


def read(source: str | os.PathLike[str] | bytes | ModelProto) -> OnnxModel:
    """The model of a path, of the bytes of a file, or as it is. GraphError for what is none."""
    if isinstance(source, ModelProto):
        return _model(source, "model", None)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _model(_parsed(bytes(source), "these bytes"), "model", None)
    if not isinstance(source, (str, os.PathLike)):
        raise GraphError(f"from_onnx takes a path, the bytes of a file, or a ModelProto, got {type(source).__name__}")
    path = Path(source)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise GraphError(f"{path} cannot be read: {error.strerror or error}") from None
    return _model(_parsed(data, str(path)), str(path), path.resolve().parent)


def _parsed(data: bytes, what: str) -> ModelProto:
    try:
        return onnx.load_model_from_string(data)
    except (DecodeError, ValueError, RuntimeError) as error:
        raise GraphError(f"{what}: no ONNX model, or a damaged one ({error})") from None


def _model(proto: ModelProto, name: str, folder: Path | None) -> OnnxModel:
    if not proto.HasField("graph") or not proto.graph.output:
        raise GraphError(f"{name}: no ONNX model, or a damaged one: it has no graph with outputs")
    opsets = versions(proto.opset_import, name)
    if not opsets:
        raise GraphError(f"{name} does not say of which opset it is")
    return OnnxModel(proto, name, folder, opsets)


def versions(imports: Iterable[OperatorSetIdProto], name: str) -> dict[str, int]:
    """The opset of each domain that a model or function imports. GraphError for one that nobody knows."""
    found = {domain_of(entry.domain): entry.version for entry in imports}
    for domain, version in found.items():
        least, newest = (1, NEWEST[domain]()) if domain in NEWEST else (0, MOST_VERSION)
        if not least <= version <= newest:
            raise GraphError(f"{name} is of opset {version}{f' of {domain}' if domain else ''}; the package onnx that "
                             f"is installed knows {least} to {newest}")
    return found


def domain_of(domain: str) -> str:
    return "" if domain in DOMAINS else text(domain)


def element_type(number: int, what: str) -> DType:
    """graphc's type that a number of TensorProto.DataType names, or the one that holds a narrower type's numbers;
    Unsupported for others that graphc does not have."""
    if number == TensorProto.STRING:
        raise Unsupported(f"{what} holds strings")
    if number == TensorProto.UNDEFINED or number not in TensorProto.DataType.values():
        raise GraphError(f"{what} has the element type number {number}, which there is not")
    return NARROW[number].holder if number in NARROW else dtype_named(helper.tensor_dtype_to_np_dtype(number), what)


def text(name: object) -> str:
    """A name of the file. GraphError for what is no text, which protobuf gives as bytes."""
    if not isinstance(name, str):
        raise GraphError(f"the model is damaged: {name!r} is no name")
    return name


def attribute_value(model: OnnxModel, attribute: AttributeProto) -> object:
    """An attribute's value as Python has it: int, float, str, tuples of them, Known for tensors."""
    kind = attribute.type
    if kind == AttributeProto.TENSOR:
        return model.tensor(attribute.t)
    if kind == AttributeProto.TYPE_PROTO:
        return attribute.tp
    if kind not in SIMPLE:
        raise Unsupported(f"attribute {attribute.name} is of the kind "
                          f"{AttributeProto.AttributeType.Name(kind).lower()}")
    value = helper.get_attribute_value(attribute)
    try:
        if isinstance(value, bytes):
            return value.decode()
        if kind == AttributeProto.STRINGS:
            return tuple(v.decode() for v in value)
    except UnicodeDecodeError:
        raise GraphError(f"attribute {attribute.name} is no text") from None
    return value if isinstance(value, (int, float)) else tuple(value)


SIMPLE = (AttributeProto.INT, AttributeProto.INTS, AttributeProto.FLOAT, AttributeProto.FLOATS, AttributeProto.STRING,
          AttributeProto.STRINGS)
