"""Functions of LLVM text that differ in numbers alone become one, which is called with those numbers.

A network of many shapes has many kernels of one form: those of the layers of a dense block, say, whose channels differ.
Nearly all of a compile is LLVM's back end, and it takes as long for the tenth of them as for the first. So numbers that
differ become arguments of functions, and of outlined bodies of parallel loops numbers in their frames. What is computed
stays the same, bit for bit.

Numbers stay as they are where they may cost time: in innermost loops, where an offset takes a register and a distance
steps of its own, all but bounds; in all loops divisors, unless a multiplication does the same. Loops that carry many
sums (micro-kernels) have work enough beside the steps of a distance.
"""
from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from graphc.records import dataclass

WORD = 8                            # bytes of a number in a frame
DIGITS = str.maketrans("", "", "0123456789")
SYMBOL = re.compile(r'@"k\.[^"]+"')
HEAD = re.compile(r'define internal void (@"k\.[^"]+")\((.*), ptr %scratch\) (#\d+) \{\nentry:\n')
CALL = re.compile(r'^(  call void (@"k\.[^"]+")\(.*), ptr %scratch\)$', re.MULTILINE)
FRAME = re.compile(r'^  ; frame (%\w+) of (\d+) bytes for ("k\.[^"]+")$', re.MULTILINE)
LABEL = re.compile(r"^(\w+):$", re.MULTILINE)
BACK = re.compile(r"^  br .*?label %(\w+).*!llvm\.loop.*$", re.MULTILINE)
CALLS = re.compile(r"^  call void [@%]", re.MULTILINE)
CARRIED = re.compile(r"^  %\w+ = phi <", re.MULTILINE)
MANY = 8                            # vectors of sums that a loop carries: more operations than a distance takes
SMALL = " ; small"                  # behind a division of numbers that have 32 bits at most
BOUNDS = ("bound", "extremum", "start", "argument")


def frame_note(frame: str, size: int, tile: str) -> str:
    """The line before a parallel loop that says where the values are which its body, the function `tile`, reads."""
    return f"; frame {frame} of {size} bytes for {tile[1:]}"


def frame_alloca(size: int) -> str:
    """The memory of that many bytes."""
    return f"alloca [{max(WORD, size)} x i8], align 64"


def shared(texts: Sequence[str], index: str) -> list[str]:
    """The texts of a module's functions, those of one form as one function. `index`: LLVM's type of indices."""
    functions = {head[1]: _Function(head, text) for text in texts if (head := HEAD.match(text))}
    frames = {f"@{note[3]}": int(note[2]) for text in texts for note in FRAME.finditer(text)}
    sharing = _Sharing(index, frames)
    for level in _levels(functions):
        sharing.share(level)
    found = [sharing.texts.get(head[1]) if (head := HEAD.match(text)) else sharing.rewritten(text) for text in texts]
    return [text for text in found if text is not None]


class _Function:
    """An internal function: its symbol, parameters, attributes and body, and the functions that it names."""

    def __init__(self, head: re.Match[str], text: str) -> None:
        self.symbol, self.parameters, self.attributes = head.groups()
        self.body = text[head.end():]
        self.names = set(SYMBOL.findall(self.body))


def _levels(functions: Mapping[str, _Function]) -> list[list[_Function]]:
    """Each function after those that it names."""
    heights: dict[str, int] = {}

    def height(symbol: str) -> int:
        if symbol not in heights:
            below = [height(name) for name in functions[symbol].names if name in functions]
            heights[symbol] = 1 + max(below, default=0)
        return heights[symbol]
    levels: list[list[_Function]] = [[] for _ in range(max(map(height, functions), default=0))]
    for symbol, f in functions.items():
        levels[heights[symbol] - 1].append(f)
    return levels


@dataclass(frozen=True)
class _Stand:
    """The function that stands for another, and the numbers that it is given for it."""
    symbol: str
    numbers: tuple[str, ...]


class _Sharing:
    """What was found so far: `stands` for functions, and the `texts` of those that stay. `frames`: bytes of the frame
    of each outlined body."""

    def __init__(self, index: str, frames: Mapping[str, int]) -> None:
        self.index, self.frames = index, frames
        self.stands: dict[str, _Stand] = {}
        self.texts: dict[str, str] = {}

    def share(self, functions: Iterable[_Function]) -> None:
        """Of functions that do not name each other. Few have others of their form; which these may be is told by their
        texts without digits, before looking closely."""
        alike: dict[tuple[str, ...], list[tuple[_Function, str]]] = {}
        for f in functions:
            body = self.rewritten(f.body) if f.names else f.body
            alike.setdefault((f.parameters, f.attributes, body.translate(DIGITS)), []).append((f, body))
        for candidates in alike.values():
            equal: dict[tuple[str, ...], list[tuple[_Function, _Form]]] = {}
            for f, body in candidates:
                form = _Form(body, self.index) if len(candidates) > 1 else _Form(body)
                equal.setdefault(form.key, []).append((f, form))
            for group in equal.values():
                self._one(group)

    def _one(self, group: Sequence[Member]) -> None:
        """One function for all of them."""
        first, form = group[0]
        columns = _columns(group)
        names = {column: f"%given{k}" for k, column in enumerate(dict.fromkeys(filter(_differ, columns)))}
        given = {name: column for column, name in names.items()}
        given |= {f"{names[column]}.magic": tuple(map(_magic, column))
                  for column, number in zip(columns, form.numbers) if number.is_multiplied and column in names}
        for k, (f, _) in enumerate(group):
            self.stands[f.symbol] = _Stand(first.symbol, tuple([column[k] for column in given.values()]))
        body = form.with_names([names.get(column) for column in columns])
        others = "".join([f"; also {f.symbol[1:]}\n" for f, _ in group[1:]])
        self.texts[first.symbol] = others + self._head(first, list(given)) + body

    def _head(self, f: _Function, names: Sequence[str]) -> str:
        """Where the numbers come from: arguments, or the end of the frame."""
        size = self.frames.get(f.symbol)
        parameters = [f.parameters, *[f"{self.index} {name}" for name in names if size is None], "ptr %scratch"]
        head = f"define internal void {f.symbol}({', '.join(parameters)}) {f.attributes} {{\nentry:\n"
        if size is None:
            return head
        return head + "".join([f"  {name}.at = getelementptr i8, ptr %frame, i64 {size + WORD * k}\n"
                               f"  {name} = load {self.index}, ptr {name}.at, align 8\n"
                               for k, name in enumerate(names)])

    def rewritten(self, text: str) -> str:
        """With the functions in it that stand for those that it named."""
        if not self.stands:
            return text
        for note in FRAME.finditer(text):
            text = self._filled(text, note)
        text = CALL.sub(self._call, text)
        return SYMBOL.sub(lambda name: self.stands[name[0]].symbol if name[0] in self.stands else name[0], text)

    def _call(self, call: re.Match[str]) -> str:
        stand = self.stands.get(call[2])
        if stand is None or call[2] in self.frames:
            return call[0]
        return ", ".join([call[1], *[f"{self.index} {number}" for number in stand.numbers], "ptr %scratch)"])

    def _filled(self, text: str, note: re.Match[str]) -> str:
        """With the numbers of an outlined body at the end of its frame."""
        frame, size, stand = note[1], int(note[2]), self.stands[f"@{note[3]}"]
        lines = [f"  {frame_note(frame, size, stand.symbol)}"]
        for k, number in enumerate(stand.numbers):
            lines += [f"  {frame}.{k} = getelementptr i8, ptr {frame}, i64 {size + WORD * k}",
                      f"  store {self.index} {number}, ptr {frame}.{k}, align 8"]
        larger = frame_alloca(size + WORD * len(stand.numbers))
        text = text.replace(f"  {frame} = {frame_alloca(size)}", f"  {frame} = {larger}")
        return text.replace(note[0], "\n".join(lines))


@dataclass(frozen=True)
class _Number:
    """A number in a body. fixed: it stays as it is. is_multiplied: as a divisor it becomes a multiplication."""
    text: str
    fixed: bool
    is_multiplied: bool


class _Form:
    """A body without its numbers, and these; `key` is equal of bodies that one function may stand for. Without `index`
    all of the text belongs to the form."""

    def __init__(self, body: str, index: str = "") -> None:
        found = _numbers(body, index) if index else []
        ends = [0, *[end for _, _, end in found]]
        starts = [*[start for _, start, _ in found], len(body)]
        self.parts = [body[end:start] for end, start in zip(ends, starts)]
        loops = _Loops(body) if found else None
        self.numbers = [loops.number(body, index, *each) for each in found] if loops else []
        self.key = (*self.parts, *[number.text if number.fixed else "" for number in self.numbers])

    def with_names(self, names: Sequence[str | None]) -> str:
        """The body with names in the place of numbers."""
        text = [self.parts[0]]
        for name, number, part in zip(names, self.numbers, self.parts[1:]):
            text += [name or number.text, part]
        return NAMED_DIVISION.sub(_multiplied, NAMED_ROW.sub(_row, "".join(text)))


Member = tuple[_Function, _Form]
Column = tuple[str, ...]            # what the bodies of a group have in one place


def _columns(group: Sequence[Member]) -> list[Column]:
    return list(zip(*[[number.text for number in form.numbers] for _, form in group]))


def _differ(column: Column) -> bool:
    return len(set(column)) > 1


def _numbers(body: str, index: str) -> list[tuple[str, int, int]]:
    """What may be another number: its kind, where it begins and ends."""
    operand, argument = _patterns(index)
    found = [(str(n.lastgroup), *n.span(n.lastgroup or 0)) for n in operand.finditer(body)]
    for call in CALLS.finditer(body):
        found += [("argument", *n.span(1)) for n in argument.finditer(body, call.end(), body.index("\n", call.end()))]
    return sorted(found, key=lambda n: n[1])


@cache
def _patterns(index: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Of operands by kind, and of arguments, where indices have this type."""
    value, number = r"%[\w.]+", r"-?\d+)"
    operands = (
        rf"= (?:add|sub|mul)(?: nsw)? {index} {value}, (?P<factor>{number}$",
        rf"= u(?:div|rem) {index} {value}, (?P<divisor>{number}(?:{SMALL})?$",
        rf"= getelementptr \w+, ptr %(?!ctx,|frame,)[\w.]+, {index} (?P<offset>{number}$",
        rf"= getelementptr \[(?P<row>{number} x \w+\], ptr {value}, {index} (?:{value}|\d+)$",
        rf"= icmp \w+ {index} {value}, (?P<bound>{number}$",
        rf"= call {index} @llvm\.s(?:min|max)\.{index}\({index} {value}, {index} (?P<extremum>{number}\)$",
        rf"= phi {index} \[ (?P<start>{number}, %",
        rf"  store {index} (?P<stored>{number}, ptr ")
    return re.compile("|".join(operands), re.MULTILINE), re.compile(rf"(?<= {index} )({number}(?=[,)])")


class _Loops:
    """Where the loops of a body are; those without calls and other loops are innermost, and `busy` if they carry many
    sums."""

    def __init__(self, body: str) -> None:
        labels = {label[1]: label.start() for label in LABEL.finditer(body)}
        self.all = [(labels[back[1]], back.end()) for back in BACK.finditer(body)]
        calls = [call.start() for call in CALLS.finditer(body)]
        self.innermost = [(start, end) for start, end in self.all
                          if not any(start <= call < end for call in calls)
                          and not any(start < other and last < end for other, last in self.all)]
        self.busy = [(start, end) for start, end in self.innermost if len(CARRIED.findall(body, start, end)) >= MANY]

    def number(self, body: str, index: str, kind: str, start: int, end: int) -> _Number:
        text, inside = body[start:end], any(first <= start < last for first, last in self.innermost)
        if kind == "row" and any(first <= start < last for first, last in self.busy):
            return _Number(text, False, False)
        if kind != "divisor":
            return _Number(text, inside and kind not in BOUNDS, False)
        multiplied = index == "i64" and text != "1" and body.startswith(SMALL, end)
        in_loop = any(first <= start < last for first, last in self.all)
        return _Number(text, inside or in_loop and not multiplied, multiplied)


def _magic(divisor: str) -> str:
    """The number of 64 bits by which to multiply in the place of dividing, and take the upper half: the least of more
    than 2^64 / divisor. It is right where both numbers have 32 bits (Granlund and Montgomery 1994)."""
    magic = (1 << 64) // int(divisor) + 1
    return str(magic - (1 << 64) if magic >> 63 else magic)


NAMED_ROW = re.compile(r"^  (%[\w.]+) = getelementptr \[(%given\d+) x (\w+)\], ptr (%[\w.]+), (i\d+) (%[\w.]+|\d+)$",
                       re.MULTILINE)
NAMED_DIVISION = re.compile(rf"^  (%[\w.]+) = (udiv|urem) i64 (%[\w.]+), (%given\d+){SMALL}$", re.MULTILINE)


def _row(line: re.Match[str]) -> str:
    """A step over rows of a length that is no number."""
    result, length, element, pointer, index, row = line.groups()
    return (f"  {result}.by = mul nsw {index} {row}, {length}\n"
            f"  {result} = getelementptr {element}, ptr {pointer}, {index} {result}.by")


def _multiplied(line: re.Match[str]) -> str:
    """A division, or its remainder, by a divisor that is no number."""
    result, head, number, divisor = line.groups()
    quotient = result if head == "udiv" else f"{result}.quotient"
    # the upper half of the product; of a shift of 128 bits LLVM makes divisions in loops
    text = f"  {quotient} = call i64 @llvm.umul.fix.i64(i64 {number}, i64 {divisor}.magic, i32 64)"
    if head == "udiv":
        return text
    return (f"{text}\n  {result}.whole = mul i64 {quotient}, {divisor}\n"
            f"  {result} = sub i64 {number}, {result}.whole")
