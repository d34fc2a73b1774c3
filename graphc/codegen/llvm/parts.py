"""A program as several LLVM modules, which may be compiled at the same time.

Functions of one form have become one before (`share`), over the whole program. What is left is dealt into parts of
similar size; each function is in one part, and others declare it. Where it is cut depends on the text alone, so that
the code is the same whoever compiles it.

Nothing is lost of what LLVM's passes make of a function's callers: what is called in one place, and is inlined there,
is in the part of its caller; and arguments that are the same constant in all calls are written into the text.
"""
from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from graphc.codegen.abi import MAIN
from graphc.codegen.llvm.emit import ModuleText, written
from graphc.codegen.loops.loop_ir import FunctionIR
from graphc.errors import InternalError
from graphc.ir.dims import Dim
from graphc.schedule.target import Target

# Of text, for which LLVM takes about 1 ms per thousand. A module takes 2 ms besides, a new worker 60; the first program
# of a process mostly finds one that has compiled the runtime.
WORTH_CHARACTERS = 200_000      # of a program that is cut
PART_CHARACTERS = 200_000       # about, of a part
DEFINE = re.compile(r'^define (internal )?(\w+ (@"[^"]+"|@[-\w$.]+)\(.*\) #\d+) \{$', re.MULTILINE)
NAME = re.compile(r'@(?:"[^"]+"|[-\w$.]+)')
CALL = re.compile(r'^  call void (@"[^"]+")\((.*)\)$', re.MULTILINE)


def emit_program(functions: Sequence[FunctionIR], main: FunctionIR, target: Target,
                 prepare: FunctionIR | None = None,
                 flush: bool = False) -> tuple[str, tuple[Dim, ...], tuple[str, ...]]:
    """What `emit_for_sizes` gives, and the texts of the parts that are compiled one by one, `gc_main` in the last:
    the whole text where it is small or not of x86-64."""
    module = written(functions, main, target, prepare, flush)
    text = module.text()
    is_one = len(text) < WORTH_CHARACTERS or not is_cut(target)
    return text, module.sizes, (text,) if is_one else Cutter(module).parts()


def is_cut(target: Target) -> bool:
    """Whether the code of a program may be several object files: those that `elf` loads."""
    return target.triple.startswith("x86_64") and "linux" in target.triple


Symbols = dict[str, None]           # in order


class Cutter:
    """A module's functions and helpers by symbol: their `texts` and what these use. `heads`: of functions alone."""

    def __init__(self, module: ModuleText) -> None:
        self.module = module
        self.texts: dict[str, str] = dict(module.helpers)
        self.heads: dict[str, str] = {}
        entries = []
        for text in module.texts:
            internal, head, symbol = _defined(text)
            self.texts[symbol], self.heads[symbol] = text, head
            if not internal:
                entries.append(symbol)
        self.uses: dict[str, list[str]] = {}
        mentions: Counter[str] = Counter()
        for symbol, text in self.texts.items():
            named = Counter(NAME.findall(text))
            self.uses[symbol] = [name for name in named if name in self.texts and name != symbol]
            mentions.update({name: named[name] for name in self.uses[symbol]})
        self._write_constants(mentions)
        kernels = {name for entry in entries for name in self.uses[entry]}
        self.roots = {symbol for symbol in self.heads
                      if symbol in entries or symbol in kernels or mentions[symbol] > 1}

    def parts(self) -> tuple[str, ...]:
        """The texts; `gc_main` is in the last."""
        units = [self._unit(symbol) for symbol in self.heads if symbol in self.roots]
        count = 2 * max(1, round(self._size(self.texts) / PART_CHARACTERS / 2))     # two processes have equal shares
        found, sizes = [Symbols() for _ in range(count)], [0] * count
        for unit in sorted(units, key=self._size, reverse=True):
            after = [size + self._size(unit.keys() - part.keys()) for part, size in zip(found, sizes)]
            smallest = after.index(min(after))
            found[smallest].update(unit)
            sizes[smallest] = after[smallest]
        found.sort(key=lambda part: f"@{MAIN}" in part)
        declared = [self._outside(part) for part in found]
        return tuple([self._text(part, outside, {name for other in declared for name in other})
                      for part, outside in zip(found, declared) if part])

    def _write_constants(self, mentions: Mapping[str, int]) -> None:
        """Callers first: what they are given may be what they give."""
        calls: dict[str, list[Sequence[str]]] = {}
        for symbol in self._callers_first():
            given = calls.get(symbol, [])
            if len(given) == mentions[symbol]:      # nobody else may call it
                self.texts[symbol] = _with_constants(self.texts[symbol], self.heads[symbol], given)
            for call in CALL.finditer(self.texts[symbol]):
                calls.setdefault(call[1], []).append([argument.split()[-1] for argument in call[2].split(", ")])

    def _callers_first(self) -> list[str]:
        done: Symbols = {}

        def visit(symbol: str) -> None:
            if symbol in self.heads and symbol not in done:
                for name in self.uses[symbol]:
                    visit(name)
                done[symbol] = None
        for symbol in self.heads:
            visit(symbol)
        return list(reversed(done))

    def _unit(self, root: str) -> Symbols:
        """A function with what must be in its part."""
        found, left = {root: None}, [root]
        while left:
            new = [name for name in self.uses[left.pop()] if name not in found and name not in self.roots]
            found.update(dict.fromkeys(new))
            left += new
        return found

    def _text(self, part: Symbols, outside: Symbols, seen: Collection[str]) -> str:
        """A module of these. `seen`: what other parts use; it is hidden from all else."""
        texts = [DEFINE.sub(r"define hidden \2 {", text, count=1) if symbol in seen else text
                 for symbol, text in self.texts.items() if symbol in part and symbol in self.heads]
        return self.module.part([text for symbol, text in self.module.helpers.items() if symbol in part],
                                [*texts, *[f"declare hidden {self.heads[name]}\n" for name in outside]])

    def _outside(self, part: Symbols) -> Symbols:
        """What a part uses and has not."""
        return {name: None for symbol in part for name in self.uses[symbol] if name not in part}

    def _size(self, symbols: Iterable[str]) -> int:
        return sum([len(self.texts[symbol]) for symbol in symbols])


def _defined(text: str) -> tuple[str, str, str]:
    """The linkage, head and symbol of a function."""
    found = DEFINE.search(text)
    if found is None:
        raise InternalError("no function", "llvm", text[:200])
    return found[1] or "", found[2], found[3]


def _with_constants(text: str, head: str, calls: Sequence[Sequence[str]]) -> str:
    """The text of a function where a parameter that is the same constant in all calls is that constant."""
    named = NAME.search(head)           # a name may have brackets and commas in it
    begin = head.index("(", named.end() if named else 0) + 1
    names = [parameter.split()[-1] for parameter in head[begin:head.rindex(")")].split(", ")]
    known = {name: column[0] for name, column in zip(names, zip(*calls))
             if len(set(column)) == 1 and not column[0].startswith("%")}
    if not known:
        return text
    start = text.index(" {\n", text.index(head))
    register = re.compile(f"%(?:{'|'.join([re.escape(name[1:]) for name in known])})(?![-\\w$.])")
    return text[:start] + register.sub(lambda name: known[name[0]], text[start:])
