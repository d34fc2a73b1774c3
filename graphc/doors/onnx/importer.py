"""The walk over the nodes of a model: each becomes what its rule makes of it, in the running trace."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
from graphc.doors.onnx.call import Call, Item, as_known, plain
from graphc.doors.onnx.codes import Origins
from graphc.doors.onnx.folding import folded
from graphc.doors.onnx.graph import (
    DEPTH, FunctionKey, GraphReader, ModelFunction, ModelGraph, ModelNode, Reference, StoredTensor)
from graphc.doors.onnx.hints import size_hint
from graphc.doors.onnx.known import Known, Unsupported, is_never_zero
from graphc.doors.onnx.problems import Problems
from graphc.doors.onnx.reading import OnnxModel, element_type
from graphc.doors.onnx.size_fractions import numerator
from graphc.doors.onnx.table import check_attributes, default_attributes, rule_for, schema_body, since
from graphc.dsl.array import Array, emit
from graphc.dsl.context import current_trace, declared_at
from graphc.errors import GraphError, Loc
from graphc.ir.dims import Dim, Poly, lower
from graphc.ir.types import DType

if TYPE_CHECKING:
    from graphc.doors.onnx.network import OnnxNetwork

Environment = dict[str, Item]
DAMAGE = (TypeError, ValueError, IndexError, KeyError, OverflowError, ZeroDivisionError, AttributeError)
MOST_NODES = 1 << 18                # of a network with its functions and loops written out


class Unknown:
    """In the place of what a node would give that is not supported: nodes that read it are passed over."""


UNKNOWN = Unknown()


class Importer:
    """One walk, in one trace. `network`: the layer that has the parameters."""

    def __init__(self, model: OnnxModel, functions: Mapping[FunctionKey, ModelFunction], network: OnnxNetwork):
        self.model, self.functions, self.network = model, functions, network
        self.problems = Problems(model.name)
        self.origins = Origins()
        self._opsets: Mapping[str, int] = model.opsets
        self._attributes: Mapping[str, Any] = {}            # of the call of the function whose body is walked
        self._different: dict[Poly, str] = {}               # what is taken not to be 0, and what it is of
        self._dividends: dict[Dim, None] = {}               # what is taken not to be below 0
        self._depth = self._walked = 0
        self._graphs: list[ModelGraph] = []                 # that are walked, the innermost last

    def outputs(self, graph: ModelGraph, inputs: Mapping[str, Item]) -> dict[str, Any]:
        """The outputs of the model by name. Unsupported listing all that is not supported."""
        values = self.run(graph, inputs)
        self.problems.report()
        return {name: self._result(value, name) for name, value in zip(graph.outputs, values)}

    def _result(self, value: Item, name: str) -> Any:
        if isinstance(value, list):
            return [self._result(v, name) for v in value]
        if value is None:
            raise GraphError(f"the output {name!r} is an optional without a value: a graph returns arrays")
        value = plain(value)
        array = value if isinstance(value, Array) else self.array(as_known(value))
        if not self._different and not self._dividends:
            return array
        text = ", or ".join([*self._different.values(), *map(str, self._dividends)])
        return emit("unequal", array, differences=tuple(self._different), dividends=tuple(self._dividends),
                    text=f"{text}; from_onnx takes such a size by sizes=")

    def are_same(self, a: Any, b: Any) -> bool:
        """Whether two sizes are the same. Those of which names do not say it are taken to be different: a call that
        brings the same is refused."""
        difference = numerator(a - b)
        if isinstance(difference, Poly) and not is_never_zero(difference):
            self._different.setdefault(difference, f"{a} and {b}")
        return bool(difference == 0)

    def not_negative(self, size: Dim) -> Dim:
        """The size, which is taken to be none below 0: a call that brings such is refused."""
        if lower(size) < 0:
            self._dividends.setdefault(size)
        return size

    def array(self, known: Known, trained: bool = True) -> Array:
        """Numbers as an array of the trace."""
        return self.network.weight(known, trained) if known.is_weight else known.array()

    def is_unknown(self, value: Item) -> bool:
        """Whether the value is that of a node which is not supported."""
        return value is UNKNOWN

    def dtype(self, element: int) -> DType:
        """The type that a number of TensorProto.DataType names."""
        return element_type(element, "an array")

    # graphs

    def run(self, graph: ModelGraph, values: Mapping[str, Item], wanted: Sequence[bool] = ()) -> tuple[Item, ...]:
        """The outputs of a graph whose inputs are among the values; `wanted`: which of them, None for the others."""
        found: Environment = {**graph.initializers, **values}
        self._depth += 1
        if self._depth > DEPTH:
            raise GraphError(f"{self.model.name}: functions or bodies more than {DEPTH} deep")
        self._graphs.append(graph)
        for node in graph.nodes:
            self._node(node, found)
        self._graphs.pop()
        self._depth -= 1
        asked = (*wanted, *[not wanted] * len(graph.outputs))
        return tuple(self._read(found, name if ask else "") for name, ask in zip(graph.outputs, asked))

    @property
    def graph(self) -> ModelGraph:
        """The graph or body that is walked, the innermost."""
        return self._graphs[-1]

    def again(self, name: str, given: Mapping[str, Item], around: Mapping[str, Item]) -> Item:
        """The value `name` of the graph that is walked, computed anew with some values given."""
        graph = self.graph
        makers = {output: node for node in graph.nodes for output in node.outputs if output}
        found: Environment = {**{k: v for k, v in around.items() if k not in makers}, **given}
        needed, pending = set(), [name]
        while pending:
            node = makers.get(n) if (n := pending.pop()) not in found else None
            if node is not None and node not in needed:
                needed.add(node)
                pending += node.inputs
        for node in graph.nodes:
            if node in needed:
                self._node(node, found)
        return self._read(found, name)

    def _read(self, values: Mapping[str, Item], name: str) -> Item:
        if not name:
            return None
        if name not in values:
            raise GraphError(f"{self.model.name}: {name!r} is read before anything makes it: the graph is damaged, or "
                             "a cycle")
        value = values[name]
        return value.read() if isinstance(value, StoredTensor) else value

    # nodes

    def _node(self, node: ModelNode, values: Environment) -> None:
        """Adds the outputs of a node to the values."""
        self._walked += 1
        if self._walked > MOST_NODES:
            raise GraphError(f"{self.model.name}: more than {MOST_NODES} nodes, with functions and loops written out")
        loc = Loc(self.model.name, node.number, str(node)) if self._depth == 1 else None
        with declared_at(loc) if loc else nullcontext(), current_trace().scope(node.name or f"{node.op}_{node.number}"):
            try:
                results = self._results(node, values)
            except Unsupported as error:
                self.problems.add(node, error)
                results = [UNKNOWN] * len(node.outputs)
            except DAMAGE as error:
                raise GraphError(f"{node.op} is damaged or of a form that is not known: "
                                 f"{type(error).__name__}: {error}", loc) from error
            except MemoryError as error:
                raise GraphError(f"{node.op} needs more memory to read than there is: {error}", loc) from error
            except GraphError as error:
                raise self._explained(error, node, values).at(loc) from None
        for name, result in zip(node.outputs, results):
            if name:
                values[name] = _called(result, name)

    def _explained(self, error: GraphError, node: ModelNode, values: Environment) -> GraphError:
        """The error with the operator's name, and what sizes could be given."""
        text = error.text if error.text.startswith(node.op) else f"{node.op}: {error.text}"
        if "sizes=" not in text:
            text += size_hint(text, [values.get(name) for name in node.inputs])
        return error if text == error.text else type(error)(text, error.loc)

    def _results(self, node: ModelNode, values: Environment) -> Sequence[Item]:
        operands = [self._read(values, name) for name in node.inputs]
        if any(v is UNKNOWN for v in operands):
            return [UNKNOWN] * len(node.outputs)
        opset = self._opsets.get(node.domain, 1)
        call = Call(self, node, operands, self._attributes_of(node), opset, since(node.domain, node.op, opset), values)
        results = self._applied(call)
        if any(node.outputs[len(results):]):
            raise Unsupported(f"the output number {len(results)}")
        return results

    def _applied(self, call: Call) -> Sequence[Item]:
        function = self.functions.get(call.node.function)
        if function is not None:
            return self._function(call, function)
        known = folded(call)
        if known is not None:
            return known
        rule = rule_for(call.node.domain, call.op, call.since)
        if rule is not None:
            if rule.more:
                check_attributes(call)
            result = rule(call)
            return [_item(v) for v in (result if isinstance(result, tuple) else (result,))]
        return self.by_body(call)

    def by_body(self, call: Call) -> Sequence[Item]:
        """What the operator's own definition by others gives; Unsupported without one."""
        body = schema_body(call)
        if body is None:
            raise Unsupported("no rule for this operator")
        check_attributes(call)
        return self._function(call, GraphReader(self.model).function(body, default_attributes(call)))

    def _attributes_of(self, node: ModelNode) -> dict[str, Any]:
        """The values of a node's attributes; those that a function's body takes from its caller, too."""
        found = {}
        for name, value in node.attributes.items():
            if isinstance(value, Reference):
                if value.name not in self._attributes:
                    continue
                value = self._attributes[value.name]
            if isinstance(value, Unsupported):
                raise value
            found[name] = value
        return found

    def _function(self, call: Call, function: ModelFunction) -> Sequence[Item]:
        """A function's body in the place of the node."""
        before = self._opsets, self._attributes
        self._opsets = {**self._opsets, **function.opsets}
        self._attributes = {**function.defaults, **call.attributes}
        names = function.graph.inputs
        operands = [*call.operands, *[None] * (len(names) - len(call.operands))]
        try:
            return self.run(function.graph, dict(zip(names, operands)), call.named)
        finally:
            self._opsets, self._attributes = before


def _item(value: Any) -> Item:
    """What a rule returned, as a value: numpy's arrays are numbers of the file."""
    return Known.of(value) if isinstance(value, (np.ndarray, np.generic)) else value


def _called(result: Item, name: str) -> Item:
    """A node's result under its name in the file, unless it has one."""
    held = plain(result)
    if isinstance(held, Array) and held.value.node is not None and not held.value.name:
        held.value.name = name
    return result
