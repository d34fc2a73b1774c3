"""Dimensions from what users and stored graphs write: ints, names, and texts such as "2*T + 1"."""
from __future__ import annotations

import re
from collections.abc import Sequence

from graphc.errors import GraphError
from graphc.ir.convert import integer, is_integer, shown
from graphc.ir.dims import Dim, Poly, largest, smallest

DIGITS = 19                         # of a number of 64 bits
EXTREMA = {"max": largest, "min": smallest}
WORDS = re.compile(r"\s*(//|[-+*(),]|\w+)\s*")


def as_dim(value: object) -> Dim:
    """An int >= 0, a name or polynomial text such as "2*T + 1", or a Poly, as a Dim. GraphError otherwise."""
    if isinstance(value, Poly):
        return value
    if isinstance(value, str):
        value = parse_dim(value)
        return value if isinstance(value, Poly) else as_dim(value)
    if is_integer(value) or hasattr(value, "__index__"):
        size = integer(value, "a dimension")
        if size < 0:
            raise GraphError(f"a dimension must be >= 0, got {size}")
        return size
    raise GraphError(f"a dimension is an int >= 0, a name or a polynomial over names, got {shown(value)}")


def parse_dim(text: str) -> Dim:
    """Reads what `str(dim)` writes: sums and differences of products of names, ints, rounded quotients such as (H//2)
    and max(…) or min(…) of several. The number alone may be negative: attributes hold such."""
    words = WORDS.findall(text)
    if "".join(words) != "".join(text.split()):
        raise _no_dim(text)
    reader = _DimReader(text, [*words, ""])
    dim = reader.sum()
    if reader.words[reader.at]:
        raise _no_dim(text)
    return dim


class _DimReader:
    """Walks along the words of a dimension."""

    def __init__(self, text: str, words: Sequence[str]) -> None:
        self.text, self.words, self.at = text, words, 0

    def accept(self, *words: str) -> str:
        word = self.words[self.at]
        self.at += word in words
        return word if word in words else ""

    def sum(self) -> Dim:
        sign = self.accept("+", "-") or "+"
        total: Dim = 0
        while sign:
            total = total + self.product() * (-1 if sign == "-" else 1)
            sign = self.accept("+", "-")
        return total

    def product(self) -> Dim:
        result = self.factor()
        while self.accept("*"):
            result = result * self.factor()
        return result

    def factor(self) -> Dim:
        word = self.words[self.at]
        self.at += 1
        if word == "(":
            return self.bracket()
        if word.isascii() and word.isdigit() and len(word) <= DIGITS:
            return int(word)
        if not word.isidentifier():
            raise _no_dim(self.text)
        if word in EXTREMA and self.accept("("):
            return self.extremum(word)
        return Poly((((word,), 1),))

    def extremum(self, word: str) -> Dim:
        items = [self.sum()]
        while self.accept(","):
            items.append(self.sum())
        if not self.accept(")"):
            raise _no_dim(self.text)
        return EXTREMA[word](*items)

    def bracket(self) -> Dim:
        """A sum in brackets, or a quotient."""
        inner = self.sum()
        if self.accept("//"):
            divisor = self.words[self.at]
            if not (divisor.isascii() and divisor.isdigit() and 0 < len(divisor) <= DIGITS and int(divisor)):
                raise _no_dim(self.text)
            self.at += 1
            inner = inner // int(divisor)
        if not self.accept(")"):
            raise _no_dim(self.text)
        return inner


def _no_dim(text: str) -> GraphError:
    return GraphError(f"{shown(text)} is not a dimension: write an int, a name, or a polynomial such as \"2*T + 1\"")
