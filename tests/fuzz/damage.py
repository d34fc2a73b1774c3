"""Ways to damage a text. Each takes the text and a numpy Generator, and returns another text."""
from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

WORD = re.compile(r'\s+|"[^"\n]*"|%?\w+|.', re.DOTALL)
NUMBER = re.compile(r"(?<![\w%.])-?\d+(?:\.\d*)?(?:e[+-]?\d+)?(?!\w)")
NUMBERS = ("0", "-0", "1", "-1", "2", "3", "7", "-2", "0.5", "-0.0", "nan", "-nan", "inf", "-inf", "1e999", "1e-999",
           "1e39", "0x7ff8000000000001",
           "2147483648", "-2147483649",
           "9223372036854775807", "9223372036854775808", "-9223372036854775808", "4294967296", "1" * 30, "1" * 5000,
           "1e308", "true", "none", "T")
TYPE = re.compile(r"\b(?:f32|f64|i32|i64|bool)\b")
TYPES = ("f32", "f64", "i32", "i64", "bool", "f16", "f", "int")
VALUE = re.compile(r"(?<==)(?:\((?:[^()]|\([^()]*\))*\)|[^,{}()\n]+)(?=[,}])")
VALUES = (*NUMBERS, "()", "(0,)", "(1, 0)", "(0, 0)", "(-1, -1)", "((1, 1), (0, 0))", "((0, -1), (2, 3))", '"mean"',
          '"ab,bc->ac"', '"..."', '"->"',
          '"é"', '""', "f32", "bool", "f32[2]", "B", "-B",
          "B - 9", "2*T + 1", "f32[]<1.0>", "f32[2]<1.0>", "{ graph g() { return } }", "x0", "%0", "9" * 18,
          "(4611686018427387904, 4)")
SHAPE = re.compile(r"\[[^\[\]\n]*\]")
SHAPES = ("[]", "[0]", "[1]", "[-2]", "[B]", "[B - 5]", "[2, 3]", "[3, 2]", "[9223372036854775807]",
          "[4294967296, 4294967296]", "[B*T + 2]", "[,]",
          "[2", "[2 3]", "[B T]", "[1.0]", "[é]", "[²]",
          "[B*B*B*B*B*B*B*B*B*B*B*B]", "[" + " + ".join(f"d{i}" for i in range(300)) + "]", "[" + "B*" * 300 + "B]",
          '["B"]', "[true]", "[inf]")
ODD = ("é", "²", "٣", "\0", "\x0b", "\x1c", "\u2028", "\ud800", "😀", "\r", "\t", '"', "\\", "#", "{", "}", "(", ")",
       "<", ">", "=", ",", ":", "%",
       "-", "*", ".", "'", ";", "\n", "0x", "e")
WORDS = ("graph", "state", "return", "update", "true", "false", "none", "inf", "nan", "f32", "fused", "scan", "cond",
         "while_loop", "matmul", "add",
         "where", "constant", "%0", "%1", "%9", "x", "x0", "x1")


def _pick(rng: np.random.Generator, choices):
    return choices[int(rng.integers(len(choices)))]


def _at_word(edit: Callable[[list[str], int, np.random.Generator], None]) -> Callable[[str, np.random.Generator], str]:
    def damage(text: str, rng: np.random.Generator) -> str:
        words = WORD.findall(text)
        if words:
            edit(words, int(rng.integers(len(words))), rng)
        return "".join(words)
    return damage


def _replaced(pattern: re.Pattern, choices) -> Callable[[str, np.random.Generator], str]:
    def damage(text: str, rng: np.random.Generator) -> str:
        places = list(pattern.finditer(text))
        if not places:
            return text
        place = _pick(rng, places)
        return text[:place.start()] + _pick(rng, choices) + text[place.end():]
    return damage


def _delete(words, i, rng) -> None:
    del words[i:i + int(rng.integers(1, 4))]


def _repeat(words, i, rng) -> None:
    words[i:i] = words[i:i + int(rng.integers(1, 12))]


def _swap(words, i, rng) -> None:
    j = int(rng.integers(len(words)))
    words[i], words[j] = words[j], words[i]


def _foreign(words, i, rng) -> None:
    words[i] = _pick(rng, WORDS)


def _insert(words, i, rng) -> None:
    words.insert(i, _pick(rng, ODD))


def _lines(text: str, rng: np.random.Generator) -> str:
    """A line left out, said twice, or moved."""
    lines = text.split("\n")
    line = lines.pop(int(rng.integers(len(lines))))
    for _ in range(int(rng.integers(3))):
        lines.insert(int(rng.integers(len(lines) + 1)), line)
    return "\n".join(lines)


def _cut(text: str, rng: np.random.Generator) -> str:
    return text[:int(rng.integers(len(text) + 1))]


def _character(text: str, rng: np.random.Generator) -> str:
    at = int(rng.integers(len(text) + 1))
    return text[:at] + _pick(rng, ODD) * int(rng.integers(2)) + text[at + int(rng.integers(2)):]


def _operand(text: str, rng: np.random.Generator) -> str:
    """The operands of one operator with one less, one more, or in another order."""
    places = list(re.finditer(r"(?<=\w\()[^()\n]*(?=\))", text))
    if not places:
        return text
    place = _pick(rng, places)
    items = [i for i in place.group().split(", ") if i]
    rng.shuffle(items)
    items = [*items, *items[:1]] if rng.integers(2) else items[1:]
    return text[:place.start()] + ", ".join(items) + text[place.end():]


def _consistent_type(text: str, rng: np.random.Generator) -> str:
    """Every mention of one element type, or of one shape, becomes another: the text may still make sense."""
    pattern, choices = ((TYPE, TYPES), (SHAPE, SHAPES))[int(rng.integers(2))]
    found = sorted(set(pattern.findall(text)))
    return text.replace(_pick(rng, found), _pick(rng, choices)) if found else text


DAMAGES: tuple[Callable[[str, np.random.Generator], str], ...] = (
    *map(_at_word, (_delete, _repeat, _swap, _foreign, _insert)), _lines, _cut, _character, _operand, _consistent_type,
    _replaced(NUMBER, NUMBERS), _replaced(TYPE, TYPES), _replaced(VALUE, VALUES), _replaced(SHAPE, SHAPES))
GENTLE = DAMAGES[-6:]               # leave the grammar alone, mostly


def damaged(text: str, rng: np.random.Generator) -> str:
    """The text after one to three damages, half of the time gentle ones."""
    ways = DAMAGES if rng.integers(2) else GENTLE
    for _ in range(int(rng.integers(1, 4))):
        text = _pick(rng, ways)(text, rng)
    return text
