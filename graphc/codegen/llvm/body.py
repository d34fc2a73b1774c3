"""The text of one LLVM function: names, scopes, addresses, captured values. Statements are translated in `control`,
operations in `ops`.

Sizes that are no numbers are read from a table, once in each function.

Two things are done here so that LLVM need not: addresses are chains of pointer steps, each placed in the outermost loop
where its index is known; and values that a parallel loop uses are captured in a frame, because its body becomes a
function of its own.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from graphc.codegen import abi
from graphc.codegen.llvm.share import frame_alloca
from graphc.codegen.llvm.subnormals import BEGIN, END
from graphc.codegen.llvm.types import MEMORY, constant, frame_bytes, type_of
from graphc.codegen.loops.index import Ix, Sym, undivided
from graphc.codegen.loops.loop_ir import FunctionIR, Root, Val, View
from graphc.codegen.patience import Looks
from graphc.errors import InternalError
from graphc.ir.dims import Dim, Poly
from graphc.ir.types import DType
from graphc.schedule.target import Target

if TYPE_CHECKING:
    from graphc.codegen.llvm.neighbours import Division


class ModuleContext(Protocol):
    """What the text of a function asks of the module that it is part of."""
    target: Target
    entries: Mapping[FunctionIR, str]       # functions that are called from outside, and their symbols
    offsets: Mapping[Root, Dim]             # of scratches, in the thread's region
    looks: Looks
    flushes: bool                           # subnormal numbers are taken for 0

    def math(self, op: str, dtype: DType, lanes: int) -> str: ...

    def conversion(self, op: str, stored: DType, lanes: int) -> str: ...

    def careful_rounding(self, lanes: int) -> str: ...

    def libm(self, function: str, dtype: DType, arity: int) -> str: ...

    def libm_repair(self, function: str, dtype: DType, lanes: int, arity: int) -> str: ...

    def tile(self, f: FunctionIR, label: str, body: BodyEmitter) -> str: ...

    def clock(self) -> str: ...

    def mode(self, symbol: str) -> str: ...

    def size_slot(self, size: Poly) -> int: ...


Key = tuple[str | int, ...]             # what an instruction is made from


class Scope:
    """The text of one loop body, or of one arm of a branch, and the pointers and indices computed in it; divisions:
    those by sizes that come with the call."""
    __slots__ = ("lines", "cache", "divisions")

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.cache: dict[Key, str] = {}
        self.divisions: list[Division] = []


class BodyEmitter:
    """Writes one LLVM function: `f` itself; with a parent, the outlined body of a parallel loop in it; without `f`, one
    that is not from the loop IR."""

    def __init__(self, module: ModuleContext, f: FunctionIR | None = None, parent: BodyEmitter | None = None) -> None:
        self.module, self.f, self.parent = module, f, parent
        self.ix = f"i{module.target.pointer_bits}"      # the type of indices and sizes
        self.entry: list[str] = []                      # allocas and captured values
        self.scopes = [Scope()]
        self.block = "entry"
        self._vals: dict[int, str] = {}
        self._syms: dict[Sym, tuple[str, int]] = {}     # text and depth of the scope where it is known
        self._bound: dict[Sym, Ix] = dict(parent._bound) if parent else {}
        self._roots: dict[Root, str] = {}
        self._starts: dict[tuple[Root, Dim, str], str] = {}
        self._sizes: dict[Poly, str] = {}
        self.captured: list[tuple[str, str, int]] = []  # (type, text in the parent, offset in the frame)
        self.frame_size = 0
        self.is_entry = parent is None and f is not None and f in module.entries
        self._names = 0
        self.nests = 0                                  # loops so far, and calls, as many loops' worth

    # ---- text
    def line(self, text: str) -> None:
        self.scopes[-1].lines.append("  " + text)

    def name(self) -> str:
        self._names += 1
        return f"%v{self._names}"

    def label(self) -> str:
        self._names += 1
        return f"b{self._names}"

    def emit(self, text: str) -> str:
        """An instruction with a result, whose name is returned."""
        self._names += 1
        name = f"%v{self._names}"
        self.scopes[-1].lines.append(f"  {name} = {text}")
        return name

    def begin(self, label: str) -> None:
        """Starts a basic block."""
        self.scopes[-1].lines.append(f"{label}:")
        self.block = label

    def text(self, head: str) -> str:
        return "\n".join([head + " {", "entry:", *self.entry, *self.scopes[0].lines, "}", ""])

    # ---- starts
    def start_main(self) -> None:
        self.entry.append(f"  %scratch_at = getelementptr i8, ptr %ctx, i64 {abi.OFFSETS['scratch']}")
        self.entry.append("  %scratch = load ptr, ptr %scratch_at, align 8")
        if self.module.flushes:
            self.entry.append(f"  %control = call i64 {self.module.mode(BEGIN)}()")

    def leave_main(self, code: int) -> None:
        if self.module.flushes:
            self.line(f"call void {self.module.mode(END)}(i64 %control)")
        self.line(f"ret i32 {code}")

    def start_function(self, f: FunctionIR) -> str:
        """Binds the parameters and returns their declaration."""
        noalias = "noalias " if f.noalias else ""
        parts = ["ptr %ctx"]
        for k, view in enumerate(f.views):
            self._roots[view.root] = f"%p{k}"
            parts.append(f"ptr {noalias}%p{k}")
        for k, symbol in enumerate(f.params):
            self._syms[symbol] = f"%n{k}", 0
            parts.append(f"{self.ix} %n{k}")
        return ", ".join(parts + ["ptr %scratch"])

    # ---- scopes
    @contextmanager
    def scope(self) -> Iterator[Scope]:
        """Text goes to a scope of its own, which `append` puts where it belongs."""
        self.scopes.append(Scope())
        yield self.scopes[-1]
        self.scopes.pop()

    def append(self, scope: Scope) -> None:
        self.scopes[-1].lines += scope.lines

    # ---- values and indices
    def val(self, value: Val) -> str:
        if value.const is not None:
            return constant(value.const, value.dtype, value.lanes)
        text = self._vals.get(value.id)
        if text is not None:
            return text
        return self._vals.setdefault(value.id, self._capture(type_of(value), lambda parent: parent.val(value)))

    def set_val(self, value: Val, text: str) -> None:
        self._vals[value.id] = text

    def resolve(self, ix: Ix) -> Ix:
        """The index with unrolled loop variables replaced."""
        bound = self._bound
        if not bound or not any([symbol in bound for symbol, _ in ix.terms]):
            return ix
        total = Ix(ix.const)
        for symbol, coefficient in ix.terms:
            total = total + bound.get(symbol, Ix(0, ((symbol, 1),))) * coefficient
        return total

    def bind(self, symbol: Sym, ix: Ix) -> None:
        """From now on the symbol stands for `ix`."""
        self._bound[symbol] = ix

    def define(self, symbol: Sym, text: str) -> None:
        """The symbol's value is `text`, known in the innermost scope."""
        self._bound.pop(symbol, None)
        self._syms[symbol] = text, len(self.scopes) - 1

    def sym(self, symbol: Sym) -> tuple[str, int]:
        found = self._syms.get(symbol)
        if found is None:
            found = self._syms[symbol] = self._capture(self.ix, lambda parent: parent.sym(symbol)[0]), 0
        return found

    def value(self, ix: Ix) -> str:
        """An already resolved index as text, of the type `ix`."""
        if not ix.terms:
            return self.number(ix.const)
        total, depth = "", 0
        for symbol, coefficient in ix.terms:
            text, at = self.sym(symbol)
            depth = max(depth, at)
            joined = "sub" if total and coefficient == -1 else "add"
            if coefficient != 1 and joined == "add":
                text = self._cached(at, ("mul", text, self.number(coefficient)), f"mul nsw {self.ix} %s, %s")
            total = self._cached(depth, (joined, total, text), f"{joined} nsw {self.ix} %s, %s") if total else text
        if ix.const == 0:
            return total
        return self._cached(depth, ("add", total, self.number(ix.const)), f"add nsw {self.ix} %s, %s")

    def wide_value(self, ix: Ix) -> str:
        """An index as i64 text."""
        text = self.value(self.resolve(ix))
        return text if self.ix == "i64" or not text.startswith("%") else self.emit(f"sext {self.ix} {text} to i64")

    def number(self, size: Dim) -> str:
        """A size as text, of the type `ix`; what is no number is known from the function's entry on."""
        if isinstance(size, int):
            return str(size)
        found = self._sizes.get(size)
        if found is None:
            found = self._sizes[size] = self._size(size)
        return found

    def _size(self, size: Poly) -> str:
        """Read from the table, also multiples of each other: functions that differ in sizes alone have one form."""
        base, shift = _parts(size)
        if shift:
            return self._at_entry(f"add nsw {self.ix} {self.number(base)}, {shift}")
        at = self._at_entry(f"getelementptr i8, ptr {self._field_at_entry('sizes')}, "
                            f"i64 {8 * self.module.size_slot(size)}")
        return self._at_entry(f"load {self.ix}, ptr {at}, align 8, !invariant.load !4")

    def address(self, view: View, index: tuple[Ix, ...], element: str) -> str:
        """The pointer to the element at `index`; `element` is its type in memory."""
        place = undivided(view.at(index))
        offset = self.resolve(place)
        unrolled, depth = offset is not place, 0
        if offset.terms and view.start.is_const and view.start.const != 0:
            offset, pointer = offset - view.start, self._started(view.root, view.start.const, element)
        else:
            pointer = self.root(view.root)
        size, number = _parts(offset.const)
        copied = number > 0 and unrolled                        # of an unrolled loop's body
        innermost = max([self.sym(symbol)[1] for symbol, _ in offset.terms], default=0) if copied or size != 0 else 0
        for symbol, coefficient in offset.terms:
            text, at = self.sym(symbol)
            if size != 0 and at == innermost:           # before what changes most often
                pointer, size = self._moved(depth, pointer, size, element), 0
            depth = max(depth, at)
            pointer = self._stepped(depth, pointer, text, at, coefficient, element)
            if copied and at == innermost and isinstance(coefficient, int) and 1 < coefficient <= number:
                rows, number = divmod(number, coefficient)
                pointer = self._stepped(depth, pointer, str(rows), at, coefficient, element)
        if size != 0:
            pointer = self._moved(depth, pointer, size, element)
        return self.emit(f"getelementptr {element}, ptr {pointer}, {self.ix} {number}") if number else pointer

    def _started(self, root: Root, start: Dim, element: str) -> str:
        """The pointer to where a view starts. Computed outside of loops, and for an outlined body outside of that:
        bodies that differ in it alone have one text."""
        if self.parent is None or root.owner is not None:
            return self._moved(0, self.root(root), start, element)
        found = self._starts.get((root, start, element))
        if found is None:
            found = self._capture("ptr", lambda parent: parent._started(root, start, element))
            self._starts[root, start, element] = found
        return found

    def _stepped(self, depth: int, pointer: str, text: str, at: int, coefficient: Dim, element: str) -> str:
        """The pointer further by so many times `text`, which is known at the depth `at`."""
        if isinstance(coefficient, Poly):
            text = self._cached(at, ("mul", text, self.number(coefficient)), f"mul nsw {self.ix} %s, %s")
            return self._cached(depth, (element, pointer, text), f"getelementptr {{}}, ptr %s, {self.ix} %s")
        step = element if coefficient == 1 else f"[{abs(coefficient)} x {element}]"
        if coefficient < 0:
            text = self._cached(at, ("sub", 0, text), f"sub nsw {self.ix} %s, %s")
        return self._cached(depth, (step, pointer, text), f"getelementptr {{}}, ptr %s, {self.ix} %s")

    def _moved(self, depth: int, pointer: str, size: Dim, element: str) -> str:
        return self._cached(depth, (element, pointer, self.number(size)), f"getelementptr {{}}, ptr %s, {self.ix} %s")

    def _cached(self, depth: int, key: Key, template: str) -> str:
        """The instruction `key` stands for, written once, in the scope at `depth`."""
        scope = self.scopes[depth]
        name = scope.cache.get(key)
        if name is None:
            name = scope.cache[key] = self.name()
            scope.lines.append(f"  {name} = {template.replace('{}', str(key[0])) % key[1:]}")
        return name

    # ---- memory
    def memory_type(self, view: View) -> str:
        return MEMORY[view.dtype.name]

    def root(self, root: Root) -> str:
        """The pointer to a root's beginning."""
        text = self._roots.get(root)
        if text is not None:
            return text
        if root.kind == "param":
            text = self._capture("ptr", lambda parent: parent.root(root))
        elif root.kind == "scratch":
            text = self._scratch(root)
        elif self.parent is None:
            return self._buffer(root)
        else:
            text = self._capture("ptr", lambda parent: parent.root(root))
        self._roots[root] = text
        return text

    def _scratch(self, root: Root) -> str:
        if root.owner is None and self.parent is not None:
            return self._capture("ptr", lambda parent: parent.root(root))
        return self._at_entry(f"getelementptr i8, ptr %scratch, {self.ix} {self.number(self.module.offsets[root])}")

    def _buffer(self, root: Root) -> str:
        """Arena and constants are one base each; the others are tables of bases."""
        if root.kind in ("arena", "const"):
            base = self._field_at_entry("arena" if root.kind == "arena" else "consts")
        else:
            table = self._field_at_entry("state" if root.kind == "state" else root.kind + "s")
            base = self._cached(0, ("slot", table, 8 * root.slot), f"getelementptr i8, ptr %s, {self.ix} %s")
            base = self._cached(0, ("base", base), "load ptr, ptr %s, align 8, !invariant.load !4")
        if root.offset == 0:
            return base
        return self._cached(0, ("at", base, self.number(root.offset)), f"getelementptr i8, ptr %s, {self.ix} %s")

    def _field_at_entry(self, field: str) -> str:
        cache = self.scopes[0].cache
        if ("field", field) not in cache:
            at = self._at_entry(f"getelementptr i8, ptr %ctx, i64 {abi.OFFSETS[field]}")
            cache["field", field] = self._at_entry(f"load ptr, ptr {at}, align 8")
        return cache["field", field]

    def field(self, name: str) -> str:
        """The address of a field of the context."""
        return self.emit(f"getelementptr i8, ptr %ctx, i64 {abi.OFFSETS[name]}")

    def frame(self, size: int) -> str:
        """Stack memory of this function."""
        return self._at_entry(frame_alloca(size))

    def _at_entry(self, text: str) -> str:
        name = self.name()
        self.entry.append(f"  {name} = {text}")
        return name

    def _capture(self, ty: str, in_parent: Callable[[BodyEmitter], str]) -> str:
        """A value of the enclosing function: a constant is used as it is, all else is read from the frame at entry."""
        if self.parent is None:
            raise InternalError("a value is used before it is defined", "llvm")
        text = in_parent(self.parent)
        if not text.startswith("%"):
            return text
        self.captured.append((ty, text, self.frame_size))
        at = self._at_entry(f"getelementptr i8, ptr %frame, i64 {self.frame_size}")
        self.frame_size += frame_bytes(ty)
        return self._at_entry(f"load {ty}, ptr {at}, align 8")

    # ---- branches
    def cold_path(self, condition: str, call: str, ty: str, otherwise: str) -> str:
        """The result of `call` if the condition holds, which is rare, else `otherwise`."""
        before, slow, after = self.block, self.label(), self.label()
        self.line(f"br i1 {condition}, label %{slow}, label %{after}, !prof !2")
        self.begin(slow)
        repaired = self.emit(call)
        self.line(f"br label %{after}")
        self.begin(after)
        return self.emit(f"phi {ty} [ {otherwise}, %{before} ], [ {repaired}, %{slow} ]")


def _parts(size: Dim) -> tuple[Dim, int]:
    """The size without its number, and that."""
    if isinstance(size, int):
        return 0, size
    number = next((c for atoms, c in size.terms if not atoms), 0)
    return size - number, number
