"""Loops whose condition only counts: how many rounds they have, as a size.

Frameworks write `while i < length` for what runs over a sequence. The condition compares counters, which grow by the
same number in each round, with sizes; that it holds until the last round, and no longer, is proved with sizes as
polynomials.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from onnx import TensorProto

from graphc.doors.onnx.call import Call, Item
from graphc.doors.onnx.graph import ModelGraph, ModelNode, StoredTensor
from graphc.doors.onnx.rule import Known
from graphc.errors import GraphError
from graphc.ir.dims import Dim, Poly
from graphc.records import dataclass

SAME = ("Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape")     # of one number, that number
WIDE = (TensorProto.INT32, TensorProto.INT64, TensorProto.FLOAT, TensorProto.DOUBLE)
LEAST = {"Less": 1, "LessOrEqual": 0, "Greater": 1, "GreaterOrEqual": 0}        # how much larger one is than the other
FARTHEST = 64                       # operators behind one another


@dataclass(frozen=True)
class CountedNumber:
    """A number that is `first` in round 0 and grows by `step` from round to round."""
    first: Dim
    step: int = 0

    def __sub__(self, other: CountedNumber) -> CountedNumber:
        return CountedNumber(self.first - other.first, self.step - other.step)

    def at(self, number: Dim) -> Dim:
        return self.first + number * self.step


class Counters:
    """The numbers of a graph that is a loop's body (`carried`: values before the first round), or that is around it."""

    def __init__(self, graph: ModelGraph, around: Mapping[str, Item], carried: Sequence[Item] = ()):
        self._makers = {name: node for node in graph.nodes for name in node.outputs if name}
        self._values: dict[str, Item] = {**around, **graph.initializers}
        inputs = graph.inputs if carried else ()
        self._number = inputs[0] if inputs else None
        self._truth = inputs[1] if inputs else None
        self._carried = dict(zip(inputs[2:], zip(carried, graph.outputs[1:])))

    def linear(self, name: str, depth: int = 0) -> CountedNumber | None:
        """What a value is, if it is linear in the number of the round."""
        if name == self._number:
            return CountedNumber(0, 1)
        if depth == FARTHEST:
            return None
        if name in self._carried:
            start, end = self._carried[name]
            first, step = _number(start), self._growth(end, name, depth + 1)
            return None if first is None or step is None else CountedNumber(first, step)
        node = self._makers.get(name)
        held = self._values.get(name) if node is None or node.op != "Constant" else node.attributes.get("value")
        first = _number(held)
        if first is not None:
            return CountedNumber(first)
        if node is None or not (_is_same(node) or node.op in ("Add", "Sub")):
            return None
        if _is_same(node):
            return self.linear(node.inputs[0], depth + 1)
        a, b = (self.linear(n, depth + 1) for n in node.inputs)
        if a is None or b is None:
            return None
        return a - b if node.op == "Sub" else CountedNumber(a.first + b.first, a.step + b.step)

    def _growth(self, end: str, start: str, depth: int) -> int | None:
        """How much `end` is more than `start`, one number for all rounds."""
        node = self._makers.get(end)
        if end == start or node is None or depth >= FARTHEST:
            return 0 if end == start else None
        if _is_same(node):
            return self._growth(node.inputs[0], start, depth + 1)
        if node.op != "Add":
            return None
        for here, other in (node.inputs, node.inputs[::-1]):
            more, by = self._growth(here, start, depth + 1), self.linear(other, depth + 1)
            if more is not None and by is not None and by.step == 0 and isinstance(by.first, int):
                return more + by.first
        return None

    def terms(self, name: str, depth: int = 0) -> Iterator[CountedNumber | None]:
        """Numbers that are all at least 0 where the condition `name` holds; None among them for one that is not known.
        """
        node = self._makers.get(name)
        if name == self._truth or _number(self._values.get(name)) == 1:
            return
        if node is None or depth == FARTHEST:
            yield None
        elif node.op == "And":
            for part in node.inputs:
                yield from self.terms(part, depth + 1)
        elif node.op in SAME:
            yield from self.terms(node.inputs[0], depth + 1)
        elif node.op == "If":
            yield from self._both(node, depth + 1)
        elif node.op in LEAST:
            low, high = node.inputs if node.op.startswith("Less") else node.inputs[::-1]
            a, b = self.linear(low, depth + 1), self.linear(high, depth + 1)
            yield None if a is None or b is None else b - a - CountedNumber(LEAST[node.op])
        else:
            yield None

    def _both(self, node: ModelNode, depth: int) -> Iterator[CountedNumber | None]:
        """Of an If that is false wherever its condition is: `a and b` in Python."""
        yes, no = (node.attributes.get(f"{name}_branch") for name in ("then", "else"))
        if not isinstance(yes, ModelGraph) or not isinstance(no, ModelGraph):
            yield None
            return
        self._enter(no)
        is_false = self._is_false(no.outputs[0], node.inputs[0])
        self._enter(yes)
        if is_false:
            yield from self.terms(node.inputs[0], depth)
            yield from self.terms(yes.outputs[0], depth)
        else:
            yield None

    def _enter(self, graph: ModelGraph) -> None:
        """Its values are seen from now on; two branches may have the same names."""
        self._makers.update((name, inner) for inner in graph.nodes for name in inner.outputs if name)
        self._values.update(graph.initializers)

    def _is_false(self, name: str, condition: str) -> bool:
        """Whether a value is, where this condition is."""
        node = self._makers.get(name)
        while node is not None and node.op in SAME and name != condition:
            name = node.inputs[0]
            node = self._makers.get(name)
        held = self._values.get(name) if node is None or node.op != "Constant" else node.attributes.get("value")
        return name == condition or _number(held) == 0


def _is_same(node: ModelNode) -> bool:
    """Whether a node gives the number that it takes: no type too small for numbers of rounds."""
    return node.op in SAME and (node.op != "Cast" or node.attributes.get("to") in WIDE)


def _number(value: Any) -> Dim | None:
    """The only number of a value of the file, or size."""
    if isinstance(value, StoredTensor):
        value = value.read()
    if not isinstance(value, Known) or value.numbers.size != 1:
        return None
    number = value.numbers.reshape(-1).tolist()[0]
    if isinstance(number, bool | float) and int(number) == number:
        return int(number)
    return number if isinstance(number, int | Poly) else None


def rounds_of(body: ModelGraph, most: Dim | None, carried: Sequence[Item], call: Call) -> Dim | None:
    """How many rounds a loop has whose condition counts; None where that cannot be proved. `most`: at most so many."""
    inside = list(Counters(body, call.around, (*carried, None)).terms(body.outputs[0]))
    name: str = call.node.inputs[1] if len(call.node.inputs) > 1 else ""
    before = list(Counters(call.importer.graph, call.around).terms(name)) if name else []
    found = [t for t in inside if t is not None]
    first = [t.first for t in before if t is not None]
    if len(found) < len(inside) or len(first) < len(before) or any(t.step > 0 for t in found):
        return None
    for rounds in ([] if most is None else [most]) + [n for t in found if (n := _lasts(t)) is not None]:
        ends = rounds == most or any(_is_below(t.at(rounds - 1)) for t in found)
        if ends and all(map(_is_reached, (*(t.at(rounds - 2) for t in found), *(d - rounds + 1 for d in first)))):
            return rounds
    return None


def most_rounds(body: ModelGraph, carried: Sequence[Item], call: Call) -> int | None:
    """A bound of the rounds of a loop whose condition counts among other things."""
    terms = Counters(body, call.around, (*carried, None)).terms(body.outputs[0])
    found = [max(n, 1) for t in terms if t is not None and isinstance(n := _lasts(t), int)]
    return min(found, default=None)


def _lasts(term: CountedNumber) -> Dim | None:
    """How many rounds there are until it is below 0."""
    try:
        return term.first // -term.step + 2 if term.step < 0 else None
    except GraphError:
        return None


def _is_reached(value: Dim) -> bool:
    return isinstance(value, int) and value >= 0


def _is_below(value: Dim) -> bool:
    return isinstance(value, int) and value < 0
