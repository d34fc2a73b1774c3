"""Reads the text of a graph. Recursive descent over tokens; every error names line and column of the text."""
from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from graphc.errors import GraphError, Loc
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Value
from graphc.ir.op import Literal
from graphc.ir.ops import OPS
from graphc.ir.ops.fused import Fused
from graphc.ir.types import BY_NAME, Dim, TensorType, parse_dim

TOKEN = re.compile(r"""(?P<space>\s+|\#[^\n]*)
  | (?P<hex>0x[0-9a-f]*)
  | (?P<number>-?(?:\d+\.\d*(?:e[+-]?\d+)?|\d+e[+-]?\d+|\d+|inf\b|nan\b))
  | (?P<value>%[A-Za-z_0-9]+)
  | (?P<name>[A-Za-z_][A-Za-z_0-9]*)
  | (?P<string>"(?:[^"\\\n]|\\.)*")
  | (?P<mark>[(){}\[\]<>,:=*+-])
  | (?P<bad>.)""", re.VERBOSE)
WORDS = {"true": True, "false": False, "none": None}

KNOWN = OPS | {"fused": Fused}         # what a text may name: a user builds no fused node


@dataclass(frozen=True)
class Token:
    kind: str
    text: str
    line: int
    column: int


def parse(text: str, file: str = "<graph text>") -> Graph:
    """The graph that `text` (as printed by `print_graph`) describes.

    GraphError with line and column when the text does not parse, names an unknown operator or value, or has a type that is wrong.
    """
    parser = _Parser(list(_tokens(text, file)), file, text.splitlines())
    graph = parser.graph()
    if parser.peek().kind != "end":
        parser.fail("expected the end of the text after the graph")
    return graph


def _tokens(text: str, file: str):
    line, start = 1, 0
    for match in TOKEN.finditer(text):
        kind, word = match.lastgroup, match.group()
        if kind == "bad":
            raise GraphError(f"unexpected character {word!r}", Loc(file, line, column=match.start() - start + 1))
        if kind != "space":
            yield Token(kind, word, line, match.start() - start + 1)
        if "\n" in word:
            line, start = line + word.count("\n"), match.start() + word.rindex("\n") + 1
    yield Token("end", "end of text", line, len(text) - start + 1)


class _Parser:
    def __init__(self, tokens: list[Token], file: str, lines: list[str]):
        self.tokens, self.file, self.lines, self.at = tokens, file, lines, 0

    # tokens

    def peek(self) -> Token:
        return self.tokens[self.at]

    def next(self) -> Token:
        self.at += 1
        return self.tokens[self.at - 1]

    def accept(self, text: str) -> bool:
        if self.peek().text == text and self.peek().kind != "string":
            self.at += 1
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.accept(text):
            self.fail(f"expected {text!r}, found {self.peek().text!r}")

    def loc(self, token: Token | None = None) -> Loc:
        token = token or self.peek()
        code = self.lines[token.line - 1].strip() if token.line <= len(self.lines) else ""
        return Loc(self.file, token.line, code, token.column)

    def fail(self, text: str, token: Token | None = None):
        raise GraphError(text, self.loc(token))

    def separated(self, item: Callable[[], object], close: str) -> list:
        """item, item, … up to `close`; a comma before it is allowed."""
        items = []
        while not self.accept(close):
            items.append(item())
            if not self.accept(","):
                self.expect(close)
                break
        return items

    # grammar

    def graph(self) -> Graph:
        self.expect("graph")
        b = Builder(self.name())
        values: dict[str, Value] = {}
        self.expect("(")
        self.separated(lambda: self.argument(b.input, values), ")")
        if self.accept("state"):
            self.expect("(")
            self.separated(lambda: self.argument(b.state_input, values), ")")
        self.expect("{")
        while self.peek().text not in ("return", "update"):
            self.node(b, values)
        while self.accept("update"):
            self.update(b, values)
        self.expect("return")
        outputs, names = self.returned(values)
        self.expect("}")
        return b.finish(outputs, names)

    def argument(self, add: Callable[[str, TensorType], Value], values: dict[str, Value]) -> None:
        token = self.peek()
        name = self.name()
        self.expect(":")
        self.define(values, name, add(name, self.type()), token)

    def node(self, b: Builder, values: dict[str, Value]) -> None:
        targets = [self.next()]
        while self.accept(","):
            targets.append(self.next())
        for token in targets:
            if token.kind != "value":
                self.fail(f"expected a value such as %0, 'update' or 'return', found {token.text!r}", token)
        self.expect("=")
        outs = self.application(b, values)
        if len(outs) != len(targets):
            self.fail(f"the operator makes {len(outs)} value(s), {len(targets)} name(s) stand before '='", targets[0])
        for token, value in zip(targets, outs):
            if not token.text[1:].isdigit():
                value.name = token.text[1:]
            self.define(values, token.text, value, token)

    def application(self, b: Builder, values: Mapping[str, Value]) -> tuple[Value, ...]:
        token = self.next()
        if token.text not in KNOWN:
            self.fail(f"unknown operator {token.text!r}", token)
        self.expect("(")
        operands = self.separated(lambda: self.value(values), ")")
        attributes = dict(self.separated(self.attribute, "}")) if self.accept("{") else {}
        try:
            op = KNOWN[token.text](**attributes)
        except TypeError as error:
            self.fail(f"wrong attributes for {token.text}: {str(error).split('__init__() ')[-1]}", token)
        with b.at(self.loc(token)):
            outs = b.apply(op, operands)
        self.expect(":")
        for value in outs:
            self.check_type(value)
        return outs

    def check_type(self, value: Value) -> None:
        token = self.peek()
        written = self.type()
        if written != value.type:
            self.fail(f"the text says {written}, the operator makes {value.type}", token)
        self.accept(",")

    def update(self, b: Builder, values: Mapping[str, Value]) -> None:
        state = self.value(values)
        self.expect("=")
        b.update(state, self.value(values))

    def returned(self, values: Mapping[str, Value]) -> tuple[list[Value], tuple[str, ...] | None]:
        if self.accept("("):
            outputs = self.separated(lambda: self.value(values), ")")
            return outputs, ("",) * len(outputs)
        if self.accept("{"):
            pairs = self.separated(lambda: (self.name(), self.expect(":"), self.value(values)), "}")
            return [v for _, _, v in pairs], tuple(n for n, _, _ in pairs)
        return ([] if self.peek().text == "}" else [self.value(values)]), None

    def name(self) -> str:
        token = self.next()
        if token.kind == "string":
            return _unquoted(token.text)
        if token.kind != "name":
            self.fail(f"expected a name, found {token.text!r}", token)
        return token.text

    def value(self, values: Mapping[str, Value]) -> Value:
        token = self.peek()
        name = self.next().text if token.kind == "value" else self.name()
        if name not in values:
            self.fail(f"{token.text} is used but not defined above", token)
        return values[name]

    def define(self, values: dict[str, Value], name: str, value: Value, token: Token) -> None:
        if name in values:
            self.fail(f"{token.text} is defined twice", token)
        values[name] = value

    def type(self) -> TensorType:
        token = self.next()
        if token.text not in BY_NAME:
            self.fail(f"expected a type such as f32[2, 3], found {token.text!r}", token)
        self.expect("[")
        return BY_NAME[token.text][tuple(self.separated(self.dim, "]"))]

    def dim(self) -> Dim:
        words = []
        while self.peek().text not in (",", "]", ")", "}") and self.peek().kind in ("number", "name", "mark"):
            words.append(self.next().text)
        if not words:
            self.fail(f"expected a dimension, found {self.peek().text!r}")
        return parse_dim("".join(words))

    # attributes

    def attribute(self) -> tuple[str, object]:
        name = self.name()
        self.expect("=")
        return name, self.attribute_value()

    def attribute_value(self):
        token = self.peek()
        if token.kind == "string":
            return self.name()
        if self.accept("("):
            return tuple(self.separated(self.attribute_value, ")"))
        if self.accept("{"):
            region = self.graph()
            self.expect("}")
            return region
        if token.text in WORDS:
            return WORDS[self.next().text]
        if token.text in BY_NAME:
            return self.typed()
        if token.kind == "number" and self.tokens[self.at + 1].text in (",", ")", "}"):
            return _number(self.next().text)
        return self.dim()

    def typed(self):
        """A dtype, a tensor type, or a literal."""
        if self.tokens[self.at + 1].text != "[":
            return BY_NAME[self.next().text]
        type = self.type()
        return self.literal(type) if self.accept("<") else type

    def literal(self, type: TensorType) -> Literal:
        token = self.peek()
        if token.kind == "hex":
            data = bytes.fromhex(self.next().text[2:])
            self.expect(">")
        else:
            items = self.separated(lambda: self.next().text, ">")
            numbers = [WORDS[i] if i in WORDS else _number(i) for i in items]
            data = np.array(numbers, type.dtype.np).tobytes()
        if len(data) != type.nbytes:
            self.fail(f"{type} needs {type.size} element(s), the text has {len(data) // type.dtype.itemsize}", token)
        return Literal(type.dtype, type.shape, data)


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("-").isdigit() else float(text)


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1])
