"""What an instance says of its last mistake, as routines: texts and numbers one after the other."""
from __future__ import annotations

from hashlib import sha256

from graphc.codegen.routines.routine import RoutineBody, routine
from graphc.codegen.routines.values import I8, I32, I64, Global
from graphc.runtime.instances.instance_memory import TEXT_BYTES, InstanceMemory, Texts
from graphc.runtime.instances.status import Status

DIGITS = 20                     # of an i64
ZERO, MINUS = 48, 45            # characters


def text(content: str) -> Global:
    """As C has it."""
    data = content.encode() + b"\0"
    return Global(f"text.{sha256(data).hexdigest()}", data)


@routine
def length_of(f: RoutineBody, words: Texts) -> I64:
    """Bytes before the end of a text."""
    n = f.variable(I64, 0)
    with f.while_(lambda: words[n.value].value != 0):
        n.value += 1
    return n.value


@routine
def append(f: RoutineBody, n: InstanceMemory, at: I64, words: Texts, count: I64) -> I64:
    """Puts so many characters at a place of the instance's text, as far as there is room; the place behind them."""
    fits = count.at_most(at * -1 + (TEXT_BYTES - 1))
    with f.for_(fits) as i:
        n.message[at + i].value = words[i].value
    n.message[at + fits].value = 0
    return at + fits


@routine
def append_number(f: RoutineBody, n: InstanceMemory, at: I64, number: I64) -> I64:
    """The same of a number in decimal digits."""
    digits, place, rest = f.array(I8, DIGITS), f.variable(I64, DIGITS), f.variable(I64, number)
    is_negative = number < 0
    with f.if_(is_negative):
        rest.value = number * -1
    with f.forever():
        place.value -= 1
        digits[place.value].value = (rest.value % 10 + ZERO).trunc(I8)
        rest.value //= 10
        f.break_if(rest.value == 0)
    with f.if_(is_negative):
        place.value -= 1
        digits[place.value].value = MINUS
    return append(f, n, at, Texts.of(digits[place.value].pointer), place.value * -1 + DIGITS)


@routine
def say(f: RoutineBody, n: InstanceMemory, before: Texts, number: I64, after: Texts) -> None:
    """The message: a number between two texts."""
    at = append(f, n, 0, before, length_of(f, before))
    behind = append_number(f, n, at, number)
    append(f, n, behind, after, length_of(f, after))


@routine
def say_words(f: RoutineBody, n: InstanceMemory, before: Texts, words: Texts, count: I64) -> None:
    """The message: so many characters behind a text."""
    at = append(f, n, 0, before, length_of(f, before))
    append(f, n, at, words, count)


def failed(f: RoutineBody, n: InstanceMemory, status: Status, number: I64 | int | None = None) -> I32:
    """The code of a status, whose message the instance has from now on."""
    if number is None:
        append(f, n, 0, _begin(f, status.before or status.meaning), len((status.before or status.meaning).encode()))
    else:
        say(f, n, _begin(f, status.before), number, _begin(f, status.after))
    return f.given(status.code, I32)


def _begin(f: RoutineBody, content: str) -> Texts:
    return Texts.of(f.address(text(content)))
