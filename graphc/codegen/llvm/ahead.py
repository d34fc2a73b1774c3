"""Functions that are compiled ahead of the rest of their program, while that is still lowered: micro-kernels, packing,
transforms, up to half of a network's text.

They depend on nothing but their own form and what they are called with, so that they are known as soon as the first
kernel that calls them is. Which of them are ahead depends on the kernels and their order alone: the code is the same
bytes, whenever it is compiled.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from graphc.codegen.llvm import parts
from graphc.codegen.llvm.emit import ModuleText, Outside
from graphc.codegen.llvm.share import Stand
from graphc.codegen.loops.loop_ir import Body, Call, For, FunctionIR, bodies, control
from graphc.codegen.scratch_layout import callers_first
from graphc.schedule.target import Target

LINE_CHARACTERS = 95            # about, of a statement


class Ahead:
    """The functions ahead of a program, of which `add` is told each kernel. begin: is given the text of each module as
    soon as it is known.

    texts: of these modules.
    """

    def __init__(self, target: Target, flush: bool = False, begin: Callable[[Sequence[str]], None] = lambda _: None):
        self.target, self.flush, self.begin = target, flush, begin
        self.texts: list[str] = []
        self._functions: set[FunctionIR] = set()        # in them
        self._stands: dict[str, Stand] = {}
        self._heads: dict[str, str] = {}
        self._seen: set[FunctionIR] = set()
        self._size = 0                                  # about, of the text so far: small programs are one part
        self._pending: dict[FunctionIR, int] = {}       # and about how long their texts will be

    @property
    def outside(self) -> Outside:
        """What the rest of the program finds in these modules."""
        return Outside(self._functions, self._stands, self._heads)

    def add(self, kernel: FunctionIR) -> None:
        """One more kernel has been lowered."""
        if kernel in self._seen or not parts.is_cut(self.target):
            return
        for f in callers_first([kernel]):
            if f not in self._seen:
                self._seen.add(f)
                size = LINE_CHARACTERS * _lines(f.body)
                self._size += size
                if _is_apart(f):
                    self._pending[f] = size
        while self._size >= parts.WORTH_CHARACTERS and sum(self._pending.values()) >= parts.PART_CHARACTERS // 2:
            self._write()

    def _write(self) -> None:
        """A module of half a part, but for functions that read sizes: their table is the program's."""
        module, size = ModuleText([], {}, self.target, self.flush, self.outside), 0
        while size < parts.PART_CHARACTERS // 2:
            f = next(iter(self._pending))
            size += self._pending.pop(f)
            if module.write_apart(f):
                self._functions.add(f)
        self._stands.update(module.share())
        for _, head, symbol in map(parts.defined, module.texts):
            self._heads[symbol] = head
        self.texts.append(module.part(module.helpers.values(), map(parts.hidden, module.texts)))
        self.begin([self.texts[-1]])


def _is_apart(f: FunctionIR) -> bool:
    """Whether a function is called by several kernels, and needs nothing of those."""
    return f.noalias and not f.scratches and not any(type(s) is Call for s in control(f.body))


def _lines(body: Body) -> int:
    """Of its text, about."""
    count = 0
    for s in body:
        inner: Iterable[int] = map(_lines, bodies(s))
        count += 1 + sum(inner) * (_copies(s) if type(s) is For else 1)
    return count


def _copies(s: For) -> int:
    if s.unroll is True:
        return s.trips() or 1
    return 1 + s.unroll if s.unroll else 1
