"""Reads the text of a graph. Recursive descent over tokens; every error names line and column of the text."""
from __future__ import annotations

from collections.abc import Callable

from graphc.errors import GraphError, InternalError
from graphc.ir.attribute_reader import AttributeReader
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Value
from graphc.ir.ops import OPS
from graphc.ir.ops.fused import Fused
from graphc.ir.tokens import Token
from graphc.ir.types import TensorType

KNOWN = OPS | {"fused": Fused}         # what a text may name: a user builds no fused node
DEPTH = 128                            # of bodies in bodies

# by whether the name is one with %, and the name: an input may be called "%0"
NamedValues = dict[tuple[bool, str], Value]


def parse(text: str, file: str = "<graph text>") -> Graph:
    """The graph that `text` (as printed by `print_graph`) describes.

    GraphError with line and column when the text does not parse, names an unknown operator or value,
    has attributes that are not what the operator takes, or a type that is wrong.
    """
    if not isinstance(text, str) or not isinstance(file, str):
        wrong = file if isinstance(text, str) else text
        raise GraphError("parse takes the text of a graph, and the name of its file for errors, as str; got "
                         f"{type(wrong).__name__}")
    parser = _Parser(text, file)
    try:
        graph = parser.graph()
    except RecursionError:
        parser.fail("bodies are nested too deeply to be read from here, where calls are nested too")
    if parser.peek().kind != "end":
        parser.fail("expected the end of the text after the graph")
    free = parser.named.keys() - graph.dim_names
    if free:
        parser.fail(f"{min(free)} is the size of nothing: no argument of {graph.name} has it in its shape",
                    parser.named[min(free)])
    return graph


class _Parser(AttributeReader):
    depth = 0

    def graph(self) -> Graph:
        self.depth += 1
        if self.depth > DEPTH:
            self.fail(f"bodies are nested in each other more than {DEPTH - 1} times")
        self.expect("graph")
        b = Builder(self.name())
        values: NamedValues = {}
        self.expect("(")
        self.separated(lambda: self.argument(b.input, values), ")")
        if self.accept("state"):
            self.expect("(")
            self.separated(lambda: self.argument(b.state_input, values), ")")
        self.expect("{")
        while not self.sees("return", "update"):
            self.node(b, values)
        owned = set(b.state)
        while self.accept("update"):
            self.update(b, values, owned)
        self.expect("return")
        outputs, names = self.returned(values)
        self.expect("}")
        self.depth -= 1
        return b.finish(outputs, names)

    def argument(self, add: Callable[[str, TensorType], Value], values: NamedValues) -> None:
        token = self.peek()
        name = self.name()
        self.expect(":")
        written = self.type()
        try:
            value = add(name, written)
        except GraphError as error:
            raise error.at(self.loc(token)) from None
        self.define(values, (False, name), value, token)

    def node(self, b: Builder, values: NamedValues) -> None:
        targets = []
        while not self.accept("="):
            targets.append(self.next())
            if targets[-1].kind != "value":
                self.fail(f"expected a value such as %0, 'update' or 'return', found {targets[-1]}", targets[-1])
            if self.expect(",", "=") == "=":
                break
        token = self.next()
        if token.kind != "name" or token.text not in KNOWN:
            self.fail(f"unknown operator {token}", token)
        self.expect("(")
        operands = self.separated(lambda: self.value(values), ")")
        outs = self.apply(b, token, self.attributes(token, KNOWN[token.text]), operands)
        self.expect(":")
        for i, value in enumerate(outs):
            if i:
                self.expect(",")
            self.check_type(value)
        if len(outs) != len(targets):
            self.fail(f"the operator makes {len(outs)} value(s), {len(targets)} name(s) stand before '='", token)
        for target, value in zip(targets, outs):
            if not target.text[1:].isdigit():
                value.name = target.text[1:]
            self.define(values, (True, target.text[1:]), value, target)

    def apply(self, b: Builder, token: Token, attributes: dict[str, object],
              operands: list[Value]) -> tuple[Value, ...]:
        """The operator on its operands. Attributes are what the operator declares; what it forgot to check about them
        is the text's mistake too."""
        with b.at(self.loc(token)):
            try:
                return b.apply(KNOWN[token.text](**attributes), operands)
            except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError,
                    InternalError) as error:
                text = f"{token.text} cannot have these operands and attributes: {type(error).__name__}: {error}"
                raise GraphError(text, self.loc(token)) from error

    def check_type(self, value: Value) -> None:
        token = self.peek()
        written = self.type()
        if written != value.type:
            self.fail(f"the text says {written}, the operator makes {value.type}", token)

    def update(self, b: Builder, values: NamedValues, owned: set[Value]) -> None:
        token = self.peek()
        state = self.value(values)
        if state not in owned:
            self.fail(f"{token.text} is not state: only state is updated", token)
        if state in b.updates:
            self.fail(f"{token.text} is updated twice", token)
        self.expect("=")
        with b.at(self.loc(token)):
            b.update(state, self.value(values))

    def returned(self, values: NamedValues) -> tuple[list[Value], tuple[str, ...] | None]:
        if self.accept("("):
            outputs = self.separated(lambda: self.value(values), ")")
            return outputs, ("",) * len(outputs)
        if self.accept("{"):
            token = self.peek()
            named: dict[str, Value] = {}
            self.separated(lambda: self.named_output(named, values), "}")
            if named and not any(named):
                self.fail("without a name an output is one of a tuple: (…)", token)
            return list(named.values()), tuple(named)
        return ([] if self.sees("}") else [self.value(values)]), None

    def named_output(self, outputs: dict[str, Value], values: NamedValues) -> None:
        token = self.peek()
        name = self.name()
        if name in outputs:
            self.fail(f"output {token.text} is named twice", token)
        self.expect(":")
        outputs[name] = self.value(values)

    def value(self, values: NamedValues) -> Value:
        token = self.peek()
        key = (True, self.next().text[1:]) if token.kind == "value" else (False, self.name("a value"))
        if key not in values:
            self.fail(f"{token.text} is used but not defined above", token)
        return values[key]

    def define(self, values: NamedValues, key: tuple[bool, str], value: Value, token: Token) -> None:
        if key in values:
            self.fail(f"{token.text} is defined twice", token)
        values[key] = value
