"""One node of a model as its rule sees it."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.doors.onnx.known import Known, Unsupported, evaluated
from graphc.doors.onnx.narrow import Narrow
from graphc.dsl.array import Array
from graphc.errors import GraphError
from graphc.ir.types import DType, TensorType
from graphc.records import dataclass

if TYPE_CHECKING:
    from graphc.doors.onnx.graph import ModelGraph, ModelNode
    from graphc.doors.onnx.importer import Importer

Item = Any                          # an Array, a Known, a Narrow, a list of Items (a sequence), or None (nothing)


@dataclass(frozen=True)
class Body:
    """A graph that a node has as an attribute. Called with values for its inputs it appends its nodes to the running
    trace and gives its outputs; values of the graphs around it are seen inside."""
    importer: Importer
    graph: ModelGraph
    around: Mapping[str, Item]

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.graph.inputs

    @property
    def outputs(self) -> tuple[str, ...]:
        return self.graph.outputs

    def __call__(self, *values: Item) -> tuple[Item, ...]:
        if len(values) != len(self.inputs):
            raise GraphError(f"the body {self.graph.name!r} takes {len(self.inputs)} values, got {len(values)}")
        results = self.importer.run(self.graph, {**self.around, **self.graph.initializers,
                                                 **dict(zip(self.inputs, values))})
        if any(map(self.importer.is_unknown, results)):
            raise Unsupported("what its body gives is not supported")
        return results


@dataclass(frozen=True)
class NodeCall:
    """A node with the values of its operands. `opset`: the version of its domain that the model uses; `since`: that
    since which the operator is as it is there. `wanted`: how many outputs it has; `named`: which of them are read or
    have a name."""
    importer: Importer
    node: ModelNode
    operands: Sequence[Item]
    attributes: Mapping[str, Any]
    opset: int
    since: int
    around: Mapping[str, Item]

    @property
    def op(self) -> str:
        return self.node.op

    @property
    def wanted(self) -> int:
        return len(self.node.outputs)

    @property
    def named(self) -> tuple[bool, ...]:
        return tuple(bool(name) for name in self.node.outputs)

    @property
    def training(self) -> bool:
        """Whether the running trace is for training."""
        return bool(self.importer.network.training)

    @property
    def frozen(self) -> bool:
        """Whether the training step that is traced leaves this network as it is."""
        return bool(self.importer.network.frozen)

    def body(self, attribute: str) -> Body:
        """The graph that is this attribute."""
        return Body(self.importer, self.attributes[attribute], self.around)

    # operands as rules want them

    def converted(self, value: Item, kind: str, name: str) -> Any:
        """An operand as the annotation of a rule's parameter says."""
        if kind not in KINDS:
            raise GraphError(f"no operand is a {kind}")
        return KINDS[kind](self, value, f"{self.op}: {name}")

    def array(self, value: Item, what: str = "", trained: bool = True) -> Array:
        """A value as a symbolic array: an initializer as a parameter, other numbers of the file as a constant."""
        value = plain(value)
        if isinstance(value, Array):
            return value
        if isinstance(value, (list, type(None))):
            raise Unsupported(f"{what or self.op} of a {'sequence' if isinstance(value, list) else 'missing value'}")
        return self.importer.array(as_known(value), trained)

    def known(self, value: Item, what: str) -> Known:
        """A value as numbers; Unsupported where data decide it."""
        value = plain(value)
        return evaluated(value, what) if isinstance(value, Array) else as_known(value)

    def write(self, operand: int, new: Array) -> None:
        """`new` becomes the value of an operand that is a `Statistic`, after the run; of another nothing is kept."""
        value = self.operands[operand]
        if isinstance(value, Known) and value.is_weight and not self.frozen:
            self.importer.network.update(value.name, new)


Call = NodeCall                     # what rules call it


def plain(value: Item) -> Item:
    """What holds the numbers of a narrow type; other values as they are."""
    return value.value if isinstance(value, Narrow) else value


def as_known(value: Any) -> Known:
    """Numbers of whatever kind."""
    value = plain(value)
    return value if isinstance(value, Known) else Known.of(value)


def type_of(value: Item) -> TensorType:
    """Element type and shape of an Array or of numbers."""
    value = plain(value)
    if isinstance(value, Array):
        return value.type
    known = as_known(value)
    return TensorType(known.dtype, tuple(known.numbers.shape))


def dtype_of_item(value: Item) -> DType:
    return type_of(value).dtype


def _float(call: NodeCall, value: Item, what: str) -> float:
    number = value if isinstance(value, (int, float)) else call.known(value, what).item(what)
    if not isinstance(number, (int, float)):
        raise Unsupported(f"{what} is the named size {number}")
    return float(number)


def _ints(call: NodeCall, value: Item, what: str) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else call.known(value, what).dims(what)


def _int(call: NodeCall, value: Item, what: str) -> Any:
    if isinstance(value, int):
        return value
    number = call.known(value, what).item(what)
    return int(number) if isinstance(number, float) else number


def _numbers(call: NodeCall, value: Item, what: str) -> np.ndarray:
    return call.known(value, what).numbers


KINDS: Mapping[str, Callable[[NodeCall, Any, str], Any]] = {
    "Array": lambda call, value, what: call.array(value, what),
    "Statistic": lambda call, value, what: call.array(value, what, trained=False),
    "Known": NodeCall.known, "Ints": _ints, "Int": _int, "Float": _float, "Numbers": _numbers,
    "Operand": lambda call, value, what: value}
