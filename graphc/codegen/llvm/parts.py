"""A program as several LLVM modules, which may be compiled at the same time.

Where it is cut depends on its text alone, so that the code is the same whoever compiles it. A part is some kernels with
all that they call: nothing is lost of what LLVM's passes know of a micro-kernel's callers, and between the parts there
are only the calls in `gc_main`, whose arguments are hardly ever constants. What kernels share is compiled once, because
they share a part, unless that would become too large.
"""
from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from graphc.codegen.llvm.emit import Definition, ModuleText, entries_of
from graphc.codegen.loops.loop_ir import FunctionIR
from graphc.ir.dims import Dim
from graphc.schedule.target import Target

# Of text, for which LLVM takes about a millisecond per thousand. A module takes 2 ms besides, a new worker 60.
WORTH_CHARACTERS = 300_000      # of a program that is cut
PART_CHARACTERS = 200_000
# Of kernels that share what they call: more are cut apart, and what they share is compiled several times.
MOST_CHARACTERS = 450_000


def emit_program(functions: Sequence[FunctionIR], main: FunctionIR, target: Target, prepare: FunctionIR | None = None,
                 ready: Callable[[str], None] = lambda part: None) -> tuple[str, tuple[Dim, ...], tuple[str, ...]]:
    """What `emit_for_sizes` gives, and the texts of the parts that are compiled one by one, the entries in the last:
    the whole text where it is small or not of x86-64. A part is `ready` as soon as it is there."""
    module = ModuleText(functions, entries_of(main, prepare), target)
    cutter = Cutter(module, ready)
    module.emit(cutter.add if is_cut(target) else lambda symbol, made: None)
    text = module.text()
    return text, module.sizes, cutter.finish() or (text,)


def is_cut(target: Target) -> bool:
    """Whether the code of a program may be several object files: those that `elf` loads."""
    return target.triple.startswith("x86_64") and "linux" in target.triple


class _Group:
    """Functions that call each other or share what they call. `waiting`: those whose text is not there yet."""

    def __init__(self) -> None:
        self.members: list[str] = []
        self.waiting: set[str] = set()


class Cutter:
    """Cuts a module into parts while it is written, callers first."""

    def __init__(self, module: ModuleText, ready: Callable[[str], None]) -> None:
        self.module, self.ready = module, ready
        self.parts: list[str] = []
        self._entries: list[str] = []
        self._kernels: dict[str, None] = {}         # what the entries call
        self._groups: dict[str, _Group] = {}        # by member
        self._open: list[str] = []                  # kernels of the part that is not closed yet
        self._reached: set[str] = set()             # by these
        self._closed: set[str] = set()              # kernels of those that are
        self._written = 0                           # characters of the parts
        self._told = 0                              # parts that are known to be ready

    def add(self, symbol: str, made: Definition) -> None:
        """Takes a function whose text is there now. Its callers' are; so a group that waits for none grows no more."""
        if not made.linkage:
            self._entries.append(symbol)
            self._kernels.update(dict.fromkeys(filter(self._is_function, made.uses)))
            return
        group = self._groups.setdefault(symbol, _Group())
        group.members.append(symbol)
        group.waiting.discard(symbol)
        for callee in made.uses:
            if self._is_function(callee):
                group = self._joined(group, callee)
        if not group.waiting:
            self._take(group.members)

    def finish(self) -> tuple[str, ...]:
        """All parts; none if the whole module is not worth to be cut."""
        if self._written + self._size(self._reached) < WORTH_CHARACTERS or not self.parts:
            return ()
        if self._size(self._reached | self.module.reached(self._entries, self._kernels)) > PART_CHARACTERS:
            self._close()
        roots = (*self._entries, *self._open)
        self._finished(self.module.part(roots, self._closed))
        return tuple(self.parts)

    def _is_function(self, symbol: str) -> bool:
        """Of the loop functions, whose text may not be there yet."""
        return symbol not in self.module.helpers and (symbol in self._groups or symbol not in self.module.definitions)

    def _joined(self, group: _Group, callee: str) -> _Group:
        """The group with that of `callee`."""
        other = self._groups.get(callee)
        if other is None:
            self._groups[callee] = group
            group.waiting.add(callee)
        elif other is not group:
            if len(other.members) + len(other.waiting) > len(group.members) + len(group.waiting):
                group, other = other, group
            group.members += other.members
            group.waiting |= other.waiting
            for symbol in (*other.members, *other.waiting):
                self._groups[symbol] = group
        return group

    def _take(self, members: Sequence[str]) -> None:
        """Puts a group into the open part; a group that is too large for any goes kernel by kernel."""
        kernels = [s for s in members if s in self._kernels]
        if self._size(self.module.reached(kernels)) <= MOST_CHARACTERS:
            self._put(kernels)
        else:
            for kernel in kernels:
                self._put([kernel])

    def _put(self, kernels: Collection[str]) -> None:
        reached = self.module.reached(kernels)
        if self._open and self._size(self._reached | reached) > PART_CHARACTERS:
            self._close()
        self._open += kernels
        self._reached |= reached

    def _close(self) -> None:
        self._finished(self.module.part(self._open))
        self._closed.update(self._open)
        self._open, self._reached = [], set()

    def _finished(self, part: str) -> None:
        self.parts.append(part)
        self._written += len(part)
        if self._written >= WORTH_CHARACTERS:
            for each in self.parts[self._told:]:
                self._told += 1
                self.ready(each)

    def _size(self, symbols: Collection[str]) -> int:
        return sum([len(self.module.defined(s).body) for s in symbols])
