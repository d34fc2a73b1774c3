"""Appends ONNX nodes: names of values, constants, and named sizes as tensors that the file computes."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import field
from typing import Any

import numpy as np

from graphc.doors.onnx_out.package import NodeProto, TensorProto, ValueInfoProto, helper
from graphc.errors import GraphError
from graphc.ir.dims import Dim, Dims, Poly
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.size_atoms import OneOf, Largest, Quotient
from graphc.ir.types import (
    DType, TensorType, bf16, bool_, dtype_of, f16, f32, f64, i8, i16, i32, i64, u8, u16, u32, u64)
from graphc.records import dataclass

ELEMENT: dict[DType, int] = {
    f32: TensorProto.FLOAT, f64: TensorProto.DOUBLE, f16: TensorProto.FLOAT16, bf16: TensorProto.BFLOAT16,
    bool_: TensorProto.BOOL, i8: TensorProto.INT8, i16: TensorProto.INT16, i32: TensorProto.INT32,
    i64: TensorProto.INT64, u8: TensorProto.UINT8, u16: TensorProto.UINT16, u32: TensorProto.UINT32,
    u64: TensorProto.UINT64}


# appends what the outputs need of the nodes; `values` of the emitter then names them
Writer = Callable[["Emitter", Sequence[Node], Sequence[Value]], None]


@dataclass
class File:
    """What all levels of a file share: its opset, the names that are taken, constants, sizes, and what cannot be
    written, with the reason. `read`: the values that something needs, of the levels that are being written."""
    opset: int
    writer: Writer
    names: set[str] = field(default_factory=set)
    constants: dict[tuple[str, tuple[int, ...], bytes], str] = field(default_factory=dict)
    initializers: list[TensorProto] = field(default_factory=list)
    sizes: dict[Dim, str] = field(default_factory=dict)
    shapes: dict[Dims, str] = field(default_factory=dict)
    refused: list[tuple[Node, str]] = field(default_factory=list)
    read: set[Value] = field(default_factory=set)

    def unique(self, wanted: str) -> str:
        """`wanted`, numbered if it is taken."""
        name, number = wanted or "value", 1
        while name in self.names:
            number += 1
            name = f"{wanted}_{number}"
        self.names.add(name)
        return name


class Emitter:
    """Writes one level of a file. Bodies of loops and branches have an emitter each, which sees the names of the levels
    around it (`values`), as ONNX does; sizes are computed on the outermost level, `top`."""

    def __init__(self, file: File, top: Emitter | None = None, values: dict[Value, str] | None = None) -> None:
        self.file, self.top = file, top or self
        self.values: dict[Value, str] = dict(values or {})
        self.nodes: list[NodeProto] = []
        self.infos: dict[str, TensorType] = {}
        self.scope = ""

    @property
    def opset(self) -> int:
        return self.file.opset

    def inner(self) -> Emitter:
        """The emitter of a body."""
        return Emitter(self.file, self.top, self.values)

    def is_read(self, v: Value) -> bool:
        """Whether something needs the value."""
        return v in self.file.read

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """The output of an operator of ONNX; an input "" is absent."""
        return self.ops(kind, *inputs, outputs=1, **attributes)[0]

    def ops(self, kind: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        """The outputs of an operator that has several."""
        base = f"{self.scope}.{kind}" if self.scope else kind
        names = [self.file.unique(base) for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=names[0], **attributes))
        return names

    def written(self, graph: Graph, arguments: Sequence[str]) -> list[str]:
        """The outputs of a graph, its arguments under these names."""
        self.values.update(zip(graph.arguments, arguments, strict=True))
        self.file.writer(self, graph.nodes, graph.outputs)
        return [self.values[v] for v in graph.outputs]

    def constant(self, value: object, dtype: DType | None = None) -> str:
        """An initializer; equal ones are one."""
        array = np.asarray(value, dtype.np if dtype else None, order="C")
        key = (array.dtype.name, array.shape, array.tobytes())
        if key not in self.file.constants:
            self.file.constants[key] = self.file.unique("constant")
            self.initializer(self.file.constants[key], array)
        return self.file.constants[key]

    def initializer(self, name: str, array: np.ndarray) -> None:
        """An array of the file under a name that is its own."""
        made = TensorProto(name=name, data_type=ELEMENT[dtype_of(array)], dims=array.shape)
        made.raw_data = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        self.file.initializers.append(made)

    def numbers(self, *values: int) -> str:
        """Constant i64[n]."""
        return self.constant(list(values), i64)

    def cast(self, x: str, dtype: DType) -> str:
        return self.op("Cast", x, to=ELEMENT[dtype])

    # --- sizes ------------------------------------------------------------------------------------------------------

    def solve_sizes(self, arguments: Sequence[Value]) -> None:
        """Reads every named size off the shapes of the arguments: those that an axis has alone first, then those that
        follow from them."""
        axes = [(v, axis, dim) for v in arguments for axis, dim in enumerate(v.type.shape) if isinstance(dim, Poly)]
        axes.sort(key=lambda entry: len(entry[2].terms) > 1 or len(entry[2].terms[0][0]) > 1)
        known: set[str] = set()
        while found := next((e for e in axes if len(e[2].names - known) == 1 and _slope(e[2], known) != 0), None):
            v, axis, dim = found
            (name,), slope = dim.names - known, _slope(dim, known)
            plain = Poly((((name,), 1),))
            size, rest = self.op("Shape", self.values[v], start=axis, end=axis + 1), dim - plain * slope
            size = size if rest == 0 else self.op("Sub", size, self.size(rest))
            self.file.sizes[plain] = size if slope == 1 else self.op("Div", size, self.size(slope))
            known.add(name)
        missing = frozenset().union(*(dim.names for _, _, dim in axes)) - known
        if missing:
            raise GraphError(f"the size {min(missing)} does not follow from the shapes of the inputs; give it a number")

    def size(self, dim: Dim) -> str:
        """i64[1], computed on the outermost level where it is not a number."""
        if isinstance(dim, int):
            return self.numbers(dim)
        if dim not in self.file.sizes:
            self.file.sizes[dim] = self.top._computed(dim)
        return self.file.sizes[dim]

    def shape(self, dims: Dims) -> str:
        """i64[rank]."""
        if all(isinstance(d, int) for d in dims):
            return self.constant(np.array(dims, np.int64))
        if dims not in self.file.shapes:
            sizes = [self.size(d) for d in dims]
            self.file.shapes[dims] = sizes[0] if len(sizes) == 1 else self.top.op("Concat", *sizes, axis=0)
        return self.file.shapes[dims]

    def _computed(self, dim: Poly) -> str:
        total = ""
        for monomial, coefficient in dim.terms:
            factors = [self._atom(name) for name in monomial]
            product = factors[0] if factors else self.numbers(coefficient)
            for factor in factors[1:]:
                product = self.op("Mul", product, factor)
            if factors and coefficient != 1:
                product = self.op("Mul", product, self.numbers(coefficient))
            total = self.op("Add", total, product) if total else product
        return total

    def _atom(self, name: str) -> str:
        if isinstance(name, Quotient):
            size, by = self.size(name.dividend), self.numbers(name.divisor)
            return self.op("Div", self.op("Sub", size, self.op("Mod", size, by)), by)       # rounds down below 0 too
        if isinstance(name, OneOf):
            return self.op("Max" if isinstance(name, Largest) else "Min", *map(self.size, name.items))
        return self.size(Poly((((name,), 1),)))

    # --- levels -----------------------------------------------------------------------------------------------------

    def described(self, name: str, type: TensorType) -> ValueInfoProto:
        """A name with its type; a named size is a symbolic one of ONNX."""
        return helper.make_tensor_value_info(name, ELEMENT[type.dtype],
                                             [d if isinstance(d, int) else str(d) for d in type.shape])

    def argument(self, v: Value, wanted: str) -> ValueInfoProto:
        """An input of this level."""
        self.values[v] = self.file.unique(wanted)
        return self.described(self.values[v], v.type)

    def results(self, values: Sequence[str], wanted: Sequence[str]) -> list[str]:
        """Names of outputs of this level, each made by a node of it and by none twice."""
        made = {name for node in self.nodes for name in node.output}
        final: dict[str, str] = {}
        names = []
        for value, name in zip(values, wanted):
            names.append(self.file.unique(name))
            if value in made and value not in final:
                final[value] = names[-1]
            else:
                self.nodes.append(helper.make_node("Identity", [value], names[-1:], name=names[-1]))
        _rename(self.nodes, final)
        self.nodes = _needed(self.nodes, names)
        self.infos = {final.get(n, n): t for n, t in self.infos.items()}
        return names


def _needed(nodes: Sequence[NodeProto], outputs: Sequence[str]) -> list[NodeProto]:
    """Those of the nodes that the outputs depend on: a rule may read what is before its operands."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(_read(node))
    return kept[::-1]


def _read(node: NodeProto) -> Iterator[str]:
    """The names that a node reads, those in its bodies included."""
    yield from node.input
    for attribute in node.attribute:
        if attribute.HasField("g"):
            for inner in attribute.g.node:
                yield from _read(inner)


def _slope(dim: Poly, known: set[str]) -> Dim:
    """What the only unknown name is multiplied by, 0 where the size is not linear in it."""
    (name,) = dim.names - known
    factors = []
    for monomial, c in dim.terms:
        others = tuple(n for n in monomial if n != name)
        if len(monomial) - len(others) == 1:
            factors.append((others, c))
        if any(name in n.names for n in [Poly(((others, 1),))] if others) or len(monomial) - len(others) > 1:
            return 0
    return Poly.of(factors)


def _rename(nodes: Sequence[NodeProto], names: dict[str, str]) -> None:
    """In place, also where bodies read them."""
    if not names:
        return
    for node in nodes:
        node.input[:] = [names.get(n, n) for n in node.input]
        node.output[:] = [names.get(n, n) for n in node.output]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _rename(attribute.g.node, names)
