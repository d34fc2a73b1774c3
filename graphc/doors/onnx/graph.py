"""A model's graphs, nodes and tensors as plain objects, read once from the file's messages."""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from difflib import get_close_matches
from typing import Any

from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto, TensorProto

from graphc.doors.onnx.known import Known, Unsupported
from graphc.doors.onnx.narrow import Narrow
from graphc.doors.onnx.reading import OnnxModel, attribute_value, domain_of, text, versions
from graphc.errors import GraphError
from graphc.records import dataclass

DEPTH = 64                          # of bodies inside of one another
NEAR = 6                            # names that an error lists


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


FunctionKey = tuple[str, str, str]          # domain, name, overload


@dataclass(frozen=True, eq=False)
class ModelNode:
    """One node. `number`: its place in the graph, from 1 on. `attributes`: values as `attribute_value` gives them,
    graphs as `Body` graphs, an Unsupported in the place of one that cannot be had, a Reference inside of
    functions."""
    op: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    proto: NodeProto
    number: int

    @property
    def function(self) -> FunctionKey:
        """What a function of the model is called that it calls."""
        return self.domain, self.op, text(self.proto.overload)

    @property
    def key(self) -> str:
        """How tables of rules call the operator."""
        return f"{self.domain}:{self.op}" if self.domain else self.op

    @property
    def bodies(self) -> Iterator[ModelGraph]:
        return (v for v in self.attributes.values() if isinstance(v, ModelGraph))

    def reads(self) -> set[str]:
        """The names of values that it needs; those of its bodies that are not their own are among them."""
        return {name for name in (*self.inputs, *(name for body in self.bodies for name in (
            *body.outputs, *(n for node in body.nodes for n in node.reads())))) if name}

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

    def ending_at(self, names: Sequence[str]) -> ModelGraph:
        """The part that gives these values, in its nodes and inputs. GraphError for what is no value of this graph."""
        known = {*self.inputs, *(name for node in self.nodes for name in node.outputs if name)}
        for name in names:
            if name not in known:
                near = get_close_matches(name, known, NEAR, 0.5) or sorted(known)[:NEAR]
                raise GraphError(f"outputs= names {name!r}, which the model does not compute; it has "
                                 f"{', '.join(near)}, …")
        needed, kept = set(names), []
        for node in reversed(self.nodes):
            if needed & set(node.outputs):
                kept.append(node)
                needed.update(node.reads())
        return replace(self, inputs=tuple(n for n in self.inputs if n in needed), outputs=tuple(names),
                       nodes=tuple(reversed(kept)))


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
        if twice := repeated([text(t.name) for t in proto.initializer]) or repeated([v.name for v in proto.input]):
            raise GraphError(f"{self.model.name}: two inputs or initializers are called {twice!r}")
        initializers = {text(t.name): StoredTensor(self.model, t, self._fresh(t.name)) for t in proto.initializer}
        nodes = tuple(map(self._with_weight, self.nodes(proto.node)))
        self._depth -= 1
        return ModelGraph(text(proto.name), _names(v.name for v in proto.input), _names(v.name for v in proto.output),
                          nodes, initializers, proto)

    def nodes(self, protos: Iterable[NodeProto]) -> tuple[ModelNode, ...]:
        return tuple(ModelNode(text(n.op_type), domain_of(n.domain), text(n.name), _names(n.input), _names(n.output),
                          self._attributes(n), n, number) for number, n in enumerate(protos, 1))

    def _with_weight(self, node: ModelNode) -> ModelNode:
        """A Constant of several axes is what an initializer is: some exporters write weights so, and bodies have them
        so. Shape arithmetic has one axis at most."""
        value = node.attributes.get("value")
        if node.key != "Constant" or not node.outputs or not isinstance(value, Known):
            return node
        if value.numbers.ndim < 2 or value.numbers.size < 2:
            return node
        named = replace(value, name=self._fresh(node.outputs[0]))
        return replace(node, attributes={**node.attributes, "value": named})

    def _attributes(self, node: NodeProto) -> dict[str, Any]:
        found = {text(a.name): self._attribute(a) for a in node.attribute}
        if len(found) < len(node.attribute):
            raise GraphError(f"{self.model.name}: a node {node.op_type} has the attribute "
                             f"{repeated([a.name for a in node.attribute])} twice")
        return found

    def function(self, proto: FunctionProto, defaults: Iterable[AttributeProto] = ()) -> ModelFunction:
        """`defaults`: of attributes, beside those that the function has itself."""
        graph = ModelGraph(text(proto.name), _names(proto.input), _names(proto.output), self.nodes(proto.node), {})
        return ModelFunction(graph, versions(proto.opset_import, f"{self.model.name}: function {text(proto.name)}"),
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


def repeated(names: Sequence[Any]) -> Any:
    """One that is there twice; None where all are different."""
    return next((name for name, count in Counter(names).items() if count > 1), None)


def _names(names: Iterable[object]) -> tuple[str, ...]:
    return tuple(map(text, names))
