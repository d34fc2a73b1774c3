"""The words of a graph's text, and the reader that walks along them. Every error names line and column of the text."""
from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple, NoReturn, TypeVar

from graphc.errors import GraphError, Loc

TOKEN = re.compile(r"""(?P<space>\s+|\#[^\n]*)
  | (?P<hex>0x[0-9a-f]*)
  | (?P<number>-?(?:[0-9]+\.[0-9]*(?:e[+-]?[0-9]+)?|[0-9]+e[+-]?[0-9]+|[0-9]+)|-(?:inf|nan)\b)
  | (?P<value>%[A-Za-z_0-9]+)
  | (?P<name>[^\W\d]\w*)
  | (?P<string>"(?:[^"\\\n]|\\.)*")
  | (?P<mark>//|[(){}\[\]<>,:=*+-])
  | (?P<bad>.)""", re.VERBOSE)
SHOWN = 40                          # characters of a word, in an error
Item = TypeVar("Item")
LINE = 160                          # characters of a line, in an error


class Token(NamedTuple):
    kind: str
    text: str
    line: int
    column: int

    def __str__(self) -> str:
        return repr(short(self.text))


def short(text: str, most: int = SHOWN) -> str:
    """The beginning of a text that is too long for an error."""
    return text if len(text) <= most else text[:most] + "…"


class Reader:
    """Walks along the tokens of a text. The last one, of kind "end", stays where it is however often it is read."""

    def __init__(self, text: str, file: str) -> None:
        self.file, self.lines, self.at = file, text.split("\n"), 0
        self.tokens = list(self._tokens(text))

    def _tokens(self, text: str) -> Iterator[Token]:
        line, start = 1, 0
        for match in TOKEN.finditer(text):
            kind, word = match.lastgroup or "bad", match.group()
            if kind == "bad" or kind == "name" and not word.isidentifier():
                self.fail(f"unexpected character {word!r}", Token(kind, word, line, match.start() - start + 1))
            if kind != "space":
                yield Token(kind, word, line, match.start() - start + 1)
            elif "\n" in word:
                line, start = line + word.count("\n"), match.start() + word.rindex("\n") + 1
        yield Token("end", "end of text", line, len(text) - start + 1)

    def peek(self) -> Token:
        return self.tokens[self.at]

    def next(self) -> Token:
        token = self.peek()
        self.at += token.kind != "end"
        return token

    def sees(self, *texts: str) -> bool:
        """Whether the next token is one of these words or marks (a name in quotes is none)."""
        token = self.peek()
        return token.text in texts and token.kind not in ("string", "end")

    def accept(self, text: str) -> bool:
        if self.sees(text):
            self.at += 1
            return True
        return False

    def expect(self, *texts: str) -> str:
        """The next token, which must be one of these."""
        if not self.sees(*texts):
            self.fail(f"expected {' or '.join(map(repr, texts))}, found {self.peek()}")
        return self.next().text

    def separated(self, item: Callable[[], Item], close: str) -> list[Item]:
        """item, item, … up to `close`; a comma before it is allowed."""
        items: list[Item] = []
        while not self.accept(close):
            items.append(item())
            if self.expect(close, ",") == close:
                break
        return items

    def name(self, what: str = "a name") -> str:
        """An identifier, or any text in quotes."""
        token = self.next()
        if token.kind == "string":
            return self.unquoted(token)
        if token.kind != "name":
            self.fail(f"expected {what}, found {token}", token)
        return token.text

    def unquoted(self, token: Token) -> str:
        try:
            return json.loads(token.text, strict=False)
        except ValueError:
            self.fail(f"{token} has an escape that is none of \\\", \\\\, \\/, \\b, \\f, \\n, \\r, \\t and \\u0123",
                      token)

    def loc(self, token: Token | None = None) -> Loc:
        """The token's place, with its line: of a long one the part around the token, so that a node costs no more for
        it."""
        token = token or self.peek()
        line = self.lines[token.line - 1]
        first = max(0, token.column - LINE // 2) if len(line) > LINE else 0
        return Loc(self.file, token.line, line[first:first + LINE].strip(), token.column)

    def fail(self, text: str, token: Token | None = None) -> NoReturn:
        early = "the text ends too early: " if (token or self.peek()).kind == "end" else ""
        raise GraphError(f"{early}{text}", self.loc(token))
