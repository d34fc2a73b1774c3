"""Texts of a program line by line, each line with what it belongs to: lines of the user's source, and kernels."""
from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path

from graphc.errors import Loc
from graphc.ir.graph import Graph, Node, regions
from graphc.records import dataclass

PLACE = re.compile(r"(?:[#;] ([^;]*); )?([^\s;/]+:\d+)(?::\d+)?$")       # layer and line, at the end of a comment
MARK = re.compile(r"; kernel (\w+)")                        # what `kernel_note` writes
NODE = re.compile(r'(\s*)[%"\w][^=]*? = ')
LOOPS = re.compile(r"(\w+)\(.*:$")
LLVM = re.compile(r'define .*?@"?(?:k\.)?([\w.]+)"?\(')
ASSEMBLY = re.compile(r"(?:k\.)?([A-Za-z_][\w.$]*):")
ALSO = re.compile(r'((?:^; also "[^"]*"\n)+)define .*?@"k\.([^"]*)"', re.MULTILINE)
NOTED = re.compile(r'"k\.([^"]*)"')
NAMED = re.compile(r"\b(?:k\.)?(k\d+_\w+|tile_\w+)")        # a kernel, called


@dataclass
class SourceLines:
    """Where nodes come from: a line of the user's and a layer (its path), numbered in the order in which they were met.
    `short`: the same by layer and `file.py:3`; several files may have one name."""
    numbers: dict[tuple[str, int, str], int] = field(default_factory=dict)
    short: dict[tuple[str, str], set[int]] = field(default_factory=dict)

    def take(self, graph: Graph) -> None:
        """All lines of a graph's nodes, and of its bodies'."""
        for node in graph.nodes:
            self.number(node.loc, node.scope)
            for _, body in regions(node.op):
                self.take(body)

    def number(self, loc: Loc | None, scope: str) -> int | None:
        if loc is None:
            return None
        number = self.numbers.setdefault((loc.file, loc.line, scope), len(self.numbers))
        self.short.setdefault((scope, f"{Path(loc.file).name}:{loc.line}"), set()).add(number)
        return number

    def of_comment(self, line: str) -> set[int]:
        """Of a line of a graph's text, by the comment at its end."""
        found = PLACE.search(line) if "#" in line else None
        if found is None:
            return set()
        return self.short.get((found[1] or "", found[2])) or self.short.get(("", found[2]), set())


@dataclass(frozen=True)
class KernelNames:
    """The kernels that are called, in order; `users`: for functions that kernels call, which kernels; `also`: those
    that a kernel's code stands for too."""
    numbers: Mapping[str, int]
    users: Mapping[str, frozenset[int]]
    also: Mapping[str, frozenset[int]] = field(default_factory=dict)

    def of_function(self, name: str) -> frozenset[int]:
        """Of a function of loops, LLVM or assembly: a kernel, a part of it (`kernel.tiles.1`) or what kernels share."""
        base = name.split(".")[0]
        if base not in self.numbers:
            return self.users.get(base, frozenset())
        return frozenset({self.numbers[base]}) | self.also.get(base, frozenset())

    def in_code(self, llvm: str) -> KernelNames:
        """Where functions of one form are one, as the LLVM text says."""
        also: dict[str, frozenset[int]] = {}
        for notes, name in ALSO.findall(llvm):
            base = name.split(".")[0]
            others = [other.split(".")[0] for other in NOTED.findall(notes)]
            also[base] = also.get(base, frozenset()) | {self.numbers[o] for o in others if o in self.numbers}
        return replace(self, also=also)


@dataclass(frozen=True)
class StageText:
    """`lines[i]` belongs to the places `locs[i]` and the kernels `kernels[i]`."""
    name: str
    lines: Sequence[str]
    locs: Sequence[Iterable[int]]
    kernels: Sequence[Iterable[int]]


def kernel_note(kernels: Mapping[Node, str], node: Node) -> str:
    """Names the node's kernel behind it in the planned graph's text."""
    return f"; kernel {kernels[node]}" if node in kernels else ""


def graph_text(name: str, text: str, source: SourceLines, names: KernelNames) -> StageText:
    """A stage that is a graph. Kernels are those that `kernel_note` named."""
    lines = text.split("\n")
    kernels: list[frozenset[int]] = [frozenset()] * len(lines)
    for end, line in enumerate(lines):
        if found := MARK.search(line):
            for i in range(_start(lines, end), end + 1):
                kernels[i] = names.of_function(found[1])
    return StageText(name, lines, [source.of_comment(line) for line in lines], kernels)


def _start(lines: Sequence[str], end: int) -> int:
    """Where the node begins whose text ends at this line: the nearest one above, as far to the right, that defines."""
    indent = len(lines[end]) - len(lines[end].lstrip())
    for i in range(end, -1, -1):
        found = NODE.match(lines[i])
        if found and len(found[1]) == indent:
            return i
    return end


def function_text(name: str, text: str, heading: re.Pattern[str], names: KernelNames) -> StageText:
    """A stage that is functions: a line belongs to the kernel of its function, in what is called from outside to that
    which it calls."""
    lines = text.split("\n")
    kernels = list(_by_function(lines, heading, names))
    return StageText(name, lines, [()] * len(lines), kernels)


def _by_function(lines: Sequence[str], heading: re.Pattern[str], names: KernelNames) -> Iterator[frozenset[int]]:
    current: frozenset[int] = frozenset()
    for line in lines:
        if found := heading.match(line):
            current = names.of_function(found[1])
        called = None if current else NAMED.search(line)
        yield names.of_function(called[1]) if called else current
