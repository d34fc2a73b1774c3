"""Reads attributes of operators from a text. Each has the type that the operator's class declares; no other type is
ever stored in an operator."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from math import isfinite, isinf
from struct import unpack
from types import NoneType
from typing import TypeGuard, get_args, get_origin, get_type_hints

import numpy as np

from graphc.errors import GraphError
from graphc.ir.dim_text import DIGITS, parse_dim
from graphc.ir.dims import TERMS, Dim, Poly, static_shape
from graphc.ir.graph import Graph
from graphc.ir.op import Literal, Op
from graphc.ir.tokens import Reader, Token, short
from graphc.ir.types import BY_NAME, DTYPES, DType, TensorType, u64

BITS = 63                           # of a whole number, besides its sign
WORDS_OF_DIM = 8 * TERMS            # names, numbers and signs
WORDS = {"true": True, "false": False, "none": None}
SAID: dict[object, str] = {bool: "true or false", int: "a whole number", float: "a number", NoneType: "none"}


@cache
def attribute_types(op: type[Op]) -> dict[str, object]:
    """What each attribute of an operator may be, as annotated."""
    hints = get_type_hints(op)
    return {name: hints[name] for name in op.FIELDS}


class AttributeReader(Reader):
    """A reader that knows types, dimensions, numbers, constants, and attributes of a given annotation.

    `named`: where each dimension was named first.
    """

    def __init__(self, text: str, file: str) -> None:
        super().__init__(text, file)
        self.named: dict[str, Token] = {}

    def graph(self) -> Graph:
        """Regions are attributes: the parser reads them."""
        raise NotImplementedError

    def attributes(self, op: Token, make: type[Op] | Callable[..., Op]) -> dict[str, object]:
        """What stands between braces behind an operator; no attribute that it does not have, none twice, none left
        out."""
        known: dict[str, object] = {}
        defaults: Mapping[str, object] = {}
        if _is_class(make):
            # mypy takes the `__hash__` of the instances for that of the class
            known, defaults = attribute_types(make), make.DEFAULTS      # type: ignore[arg-type]
        given: dict[str, object] = {}
        if self.accept("{"):
            while not self.accept("}"):
                token = self.peek()
                attribute = self.name("the name of an attribute")
                if attribute in given:
                    self.fail(f"{attribute} is given twice", token)
                if attribute not in known:
                    self.fail(f"wrong attributes for {op.text}: it has no {attribute!r}, it has "
                              f"{', '.join(known) or 'none'}", op)
                self.expect("=")
                given[attribute] = self.attribute(known[attribute])
                if self.expect("}", ",") == "}":
                    break
        missing = [n for n in known if n not in given and n not in defaults]
        if missing:
            self.fail(f"wrong attributes for {op.text}: {missing[0]!r} is missing", op)
        return given

    def attribute(self, kind: object) -> object:
        """A value of the annotated kind. Not divided into smaller functions on the way to a region: each costs a frame
        a level of nesting."""
        if kind is Graph:
            self.expect("{")
            region = self.graph()
            self.expect("}")
            return region
        if get_origin(kind) is tuple:
            return self.several(*get_args(kind))
        if Poly in get_args(kind):
            return self.whole_dim()
        return READ[kind](self) if kind in READ else self.scalar(get_args(kind) or (kind,))

    def several(self, *kinds: object) -> tuple[object, ...]:
        token = self.peek()
        self.expect("(")
        if kinds[-1] is Ellipsis:
            return tuple(self.separated(lambda: self.attribute(kinds[0]), ")"))
        rest = iter(kinds)
        values = self.separated(lambda: self.attribute(next(rest, kinds[-1])), ")")
        if len(values) != len(kinds):
            self.fail(f"expected {len(kinds)} values, found {len(values)}", token)
        return tuple(values)

    def string(self) -> str:
        token = self.next()
        if token.kind != "string":
            self.fail(f"expected a text in quotes, found {token}", token)
        return self.unquoted(token)

    def dtype(self) -> DType:
        token = self.next()
        if token.text not in BY_NAME:
            self.fail(f"expected one of {', '.join(d.name for d in DTYPES)}, found {token}", token)
        return BY_NAME[token.text]

    def type(self) -> TensorType:
        token = self.next()
        if token.text not in BY_NAME:
            self.fail(f"expected a type such as f32[2, 3], found {token}", token)
        self.expect("[")
        dims = tuple(self.separated(self.dim, "]"))
        try:
            return BY_NAME[token.text][dims]
        except GraphError as error:
            raise error.at(self.loc(token)) from None

    def dim(self) -> Dim:
        first, words, depth = self.peek(), list[str](), 0
        while (self.peek().kind in ("number", "name") or self.sees("+", "-", "*", "//", "(")
               or depth and self.sees(")", ",")):
            depth += self.sees("(") - self.sees(")")
            if len(self.peek().text.lstrip("-")) > DIGITS and self.peek().kind == "number":
                self.fail(f"{self.peek()} is too large for a dimension")
            words.append(self.next().text)
        if len(words) > WORDS_OF_DIM:
            self.fail(f"a dimension of {len(words)} words is too long; at most {WORDS_OF_DIM}", first)
        if not words:
            self.fail(f"expected a dimension, found {first}")
        if len(words) == 1 and words[0].isdigit():
            return int(words[0])
        try:
            dim = parse_dim(" ".join(words))
        except GraphError as error:
            self.fail(short(error.text, 200), first)
        for name in dim.names if isinstance(dim, Poly) else ():
            self.named.setdefault(name, first)
        return dim

    def whole_dim(self) -> Dim:
        """A dimension as an attribute, which may be negative."""
        token = self.peek()
        dim = self.dim()
        return dim if isinstance(dim, Poly) else self.bounded(dim, token)

    # numbers

    def scalar(self, kinds: tuple[object, ...]) -> bool | int | float | None:
        """A number, true, false or none, whichever of them the attribute may be."""
        token = self.next()
        if token.kind == "name" and token.text in WORDS and type(WORDS[token.text]) in kinds:
            return WORDS[token.text]
        if float in kinds and token.kind == "hex" and len(token.text) == 18:
            return unpack(">d", bytes.fromhex(token.text[2:]))[0]
        value = self.number(token) if int in kinds or float in kinds else None
        if value is None or (type(value) is float and float not in kinds):
            self.fail(f"expected {' or '.join([SAID[k] for k in kinds])}, found {token}", token)
        return value

    def number(self, token: Token, end: int = 1 << BITS) -> int | float | None:
        """The number that the token is; None if it is none. Fails for one that would be read as another one."""
        text = token.text
        if text in ("inf", "nan", "-inf", "-nan"):
            return float(text)
        if token.kind != "number":
            return None
        if text.lstrip("-").isdigit():
            return self.bounded(int(text) if len(text) <= BITS else None, token, end)
        value = float(text)
        if isinf(value) or value == 0 and text.lower().partition("e")[0].strip("-0."):
            self.fail(f"{token} is too {'large' if value else 'small'} for a number of 64 bits"
                      + "; write inf" * isinf(value), token)
        return value

    def bounded(self, value: int | None, token: Token, end: int = 1 << BITS) -> int:
        if value is None or not -(1 << BITS) <= value < end:
            self.fail(f"{token} does not fit into 64 bits", token)
        return value

    # constants

    def literal(self) -> Literal:
        token = self.peek()
        type = self.type()
        self.expect("<")
        if not type.is_static:
            self.fail(f"a constant has a fixed shape, not {type}", token)
        if self.peek().kind == "hex":
            data = self.raw(type)
        else:
            data = b"".join([self.element(type.dtype, token) for token in self.separated(self.next, ">")])
        if len(data) != type.nbytes:
            self.fail(f"{type} needs {type.size} element(s), the text has {len(data) // type.dtype.itemsize}", token)
        return Literal(type.dtype, static_shape(type.shape), data)

    def raw(self, type: TensorType) -> bytes:
        """The bytes of a constant, as two hexadecimal digits each."""
        token = self.next()
        self.expect(">")
        if len(token.text) != 2 + 2 * type.nbytes:
            self.fail(f"{type} needs {type.nbytes} bytes, the text has {(len(token.text) - 2) / 2:g}", token)
        data = bytes.fromhex(token.text[2:])
        if type.dtype.kind == "bool" and data.strip(b"\0\1"):
            self.fail("a bool is the byte 00 or 01", token)
        return data

    def element(self, dtype: DType, token: Token) -> bytes:
        """One number of a constant."""
        if dtype.kind == "bool":
            value: bool | int | float | None = WORDS.get(token.text) if token.kind == "name" else None
        else:
            value = self.number(token, 1 << BITS + (dtype is u64))
        if value is None or (dtype.is_int and type(value) is float):
            wanted = {"bool": "true or false", "int": "a whole number", "float": "a number"}[dtype.kind]
            self.fail(f"expected {wanted}, found {token}", token)
        if dtype.is_int and not dtype.range[0] <= value <= dtype.range[1]:
            self.fail(f"{token} does not fit into {dtype}", token)
        with np.errstate(all="ignore"):
            made = np.asarray(value).astype(dtype.np)
        if dtype.is_float and isfinite(value) and (isinf(made) or (made == 0) != (value == 0)):
            self.fail(f"{token} is too {'large' if made else 'small'} for {dtype}" + "; write inf" * bool(isinf(made)),
                      token)
        return made.tobytes()


def _is_class(make: type[Op] | Callable[..., Op]) -> TypeGuard[type[Op]]:
    """Whether it makes operators with attributes: a row of elementwise operators is a function."""
    return isinstance(make, type)


READ: dict[object, Callable[[AttributeReader], object]] = {
    str: AttributeReader.string, DType: AttributeReader.dtype, Literal: AttributeReader.literal,
    DType | None: lambda reader: None if reader.accept("none") else reader.dtype()}
