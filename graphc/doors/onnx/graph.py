"""A model's graphs, nodes and tensors as plain objects, read once from the file's messages."""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto, TensorProto

from graphc.doors.onnx.known import Known, Unsupported
from graphc.doors.onnx.narrow import Narrow
from graphc.doors.onnx.reading import OnnxModel, attribute_value, domain_of, text, versions
from graphc.errors import GraphError

DEPTH = 64                          # of bodies inside of one another


@dataclass(frozen=True)
class Reference:
    """An attribute of a function's body that has the value of the call's attribute of this name."""
    name: str


@dataclass(eq=False)
class StoredTensor:
    """A tensor of the file, read at the first use. `name`: of the parameter that it would be."""
    model: OnnxModel
    tensor: TensorProto
    name: str
    known: Known | Narrow | None = None

    def read(self) -> Known | Narrow:
        if self.known is None:
            self.known = self.model.tensor(self.tensor, self.name)
        return self.known


@dataclass(frozen=True, eq=False)
class ModelNode:
    """One node. `attributes`: values as `attribute_value` gives them, graphs as `Body` graphs, an Unsupported in the
    place of one that cannot be had, a Reference inside of functions."""
    op: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    proto: NodeProto

    @property
    def key(self) -> str:
        """How tables of rules call the operator."""
        return f"{self.domain}:{self.op}" if self.domain else self.op

    @property
    def bodies(self) -> Iterator[ModelGraph]:
        return (v for v in self.attributes.values() if isinstance(v, ModelGraph))

    def __str__(self) -> str:
        text = f"{', '.join(self.outputs)} = {self.key}({', '.join(self.inputs)})"
        return f"{text} named {self.name!r}" if self.name else text


@dataclass(frozen=True, eq=False)
class ModelGraph:
    """A graph or a body."""
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[ModelNode, ...]
    initializers: Mapping[str, StoredTensor]
    proto: GraphProto | None = None

    def all_nodes(self) -> Iterator[ModelNode]:
        """Those of the bodies inside, too."""
        for node in self.nodes:
            yield node
            for body in node.bodies:
                yield from body.all_nodes()


@dataclass(frozen=True, eq=False)
class ModelFunction:
    """A function of the model, or an operator's own definition by others."""
    graph: ModelGraph
    opsets: Mapping[str, int] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)


class GraphReader:
    """Reads the graphs of one model; parameters of bodies get names of their own."""

    def __init__(self, model: OnnxModel):
        self.model = model
        self._taken: set[str] = set()
        self._depth = 0

    def graph(self, proto: GraphProto) -> ModelGraph:
        self._depth += 1
        if self._depth > DEPTH:
            raise GraphError(f"{self.model.name}: bodies more than {DEPTH} deep")
        initializers = {text(t.name): StoredTensor(self.model, t, self._fresh(t.name)) for t in proto.initializer}
        nodes = self.nodes(proto.node)
        self._depth -= 1
        return ModelGraph(text(proto.name), _names(v.name for v in proto.input), _names(v.name for v in proto.output),
                          nodes, initializers, proto)

    def nodes(self, protos: Iterable[NodeProto]) -> tuple[ModelNode, ...]:
        return tuple(ModelNode(text(n.op_type), domain_of(n.domain), text(n.name), _names(n.input), _names(n.output),
                          {text(a.name): self._attribute(a) for a in n.attribute}, n) for n in protos)

    def function(self, proto: FunctionProto, defaults: Iterable[AttributeProto] = ()) -> ModelFunction:
        """`defaults`: of attributes, beside those that the function has itself."""
        graph = ModelGraph(text(proto.name), _names(proto.input), _names(proto.output), self.nodes(proto.node), {})
        return ModelFunction(graph, versions(proto.opset_import),
                             {a.name: self._attribute(a) for a in (*defaults, *proto.attribute_proto)})

    def _attribute(self, attribute: AttributeProto) -> Any:
        if attribute.ref_attr_name:
            return Reference(text(attribute.ref_attr_name))
        if attribute.type == AttributeProto.GRAPH:
            return self.graph(attribute.g)
        try:
            return attribute_value(self.model, attribute)
        except Unsupported as error:
            return error

    def _fresh(self, name: str) -> str:
        """The name, numbered where another graph of the model has it."""
        found, number = name, 1
        while found in self._taken:
            number += 1
            found = f"{name}.{number}"
        self._taken.add(found)
        return found


def _names(names: Iterable[object]) -> tuple[str, ...]:
    return tuple(map(text, names))
