"""LLVM text of routines: each as one function, structured control flow as blocks and branches."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from graphc.codegen.routines.architecture import Architecture
from graphc.codegen.routines.routine import Branch, Callee, Instruction, Repeat, Routine, RoutineBody, StatementList
from graphc.codegen.routines.values import VOLATILE, Extern, Global, Ptr, Size, Typed
from graphc.errors import InternalError

Replaced = Mapping[Routine[Any], Routine[Any]]  # routines, and those that stand in their place

ARITHMETIC = ("add", "sub", "mul", "udiv", "urem", "and", "or", "xor", "shl", "lshr")
COMPARISONS = ("eq", "ne", "slt", "sle", "sgt", "sge")
CONVERSIONS = ("zext", "sext", "trunc", "ptrtoint")
UPDATES = tuple([f"atomicrmw {op}" for op in ("xchg", "add", "sub", "and")])
BACKSLASH = chr(92)             # begins a byte in hexadecimal digits
# How an operation is written: t are operands with their types, v without.
PATTERNS = {
    **dict.fromkeys(ARITHMETIC, "{op} {t[0]}, {v[1]}"),
    **dict.fromkeys(COMPARISONS, "icmp {op} {t[0]}, {v[1]}"),
    **dict.fromkeys(CONVERSIONS, "{op} {t[0]} to {kind}"),
    **dict.fromkeys(UPDATES, "{op} {t[0]}, {t[1]} {how}"),
    **dict.fromkeys(("smin", "smax"), "call i64 @llvm.{op}.i64({t[0]}, {t[1]})"),
    "select": "select {t[0]}, {t[1]}, {t[2]}", "offset": "getelementptr i8, {t[0]}, {t[1]}", "fence": "fence {how}"}


def module_text(routines: Iterable[Routine[Any]], architecture: Architecture,
                replaced: Replaced = MappingProxyType({})) -> str:
    """LLVM text of these routines, which others can call, and of all that they call."""
    bodies = routine_bodies(routines, architecture, replaced)
    exported = {r.name for r in routines}
    others = {thing.name: thing for b in bodies.values()
              for thing in b.mentioned if isinstance(thing, (Extern, Global))}
    parts = [_declaration(thing, architecture) for thing in others.values()]
    parts += [f"declare i64 @llvm.{op}.i64(i64, i64)" for op in ("smin", "smax")]
    parts += [_FunctionText(body, replaced).function(name in exported) for name, body in bodies.items()]
    return "\n".join(parts) + "\n"


def routine_bodies(routines: Iterable[Routine[Any]], architecture: Architecture,
                   replaced: Replaced) -> dict[str, RoutineBody]:
    """The bodies of these routines and of all they call, by name, callers first. InternalError when two have one name
    or one stands in the place of another that takes or gives something else."""
    for old, new in replaced.items():
        if old.params != new.params or old.result is not new.result:
            raise InternalError(f"routine {new.name} cannot stand for {old.name}: other types", "runtime")
    bodies: dict[str, RoutineBody] = {}
    waiting = list(routines)
    while waiting:
        routine = waiting.pop(0)
        if routine.name not in bodies:
            bodies[routine.name] = body = RoutineBody(routine, architecture)
            waiting[:0] = [replaced.get(thing, thing) for thing in body.mentioned if isinstance(thing, Routine)]
        elif bodies[routine.name].owner is not routine:
            raise InternalError(f"two routines have the name {routine.name}", "runtime")
    return bodies


def _declaration(thing: Extern[Any] | Global, architecture: Architecture) -> str:
    if isinstance(thing, Extern):
        return f"declare {_type(thing.result)} @{thing.name}({_params(thing, architecture)})"
    if thing.zeros:
        return f"@{thing.name} = internal global [{thing.zeros} x i8] zeroinitializer, align 64"
    if thing.content is None:
        return f"@{thing.name} = external global i8"
    return f"@{thing.name} = private constant {bytes_text(thing.content)}, align 8"


def bytes_text(content: bytes) -> str:
    """An array of bytes, as LLVM writes its type and value."""
    return f"[{len(content)} x i8] c\"{BACKSLASH if content else ''}{content.hex(BACKSLASH)}\""


def _type(kind: type[Typed] | None) -> str:
    return kind.llvm if kind else "void"


def _params(callee: Callee, architecture: Architecture) -> str:
    words = [f"i{architecture.pointer_bits}" if p is Size else p.llvm for p in callee.params]
    return ", ".join(words + ["..."] * callee.variadic)


class _FunctionText:
    """The lines of one function. Local variables are all made at its entry, so that none grows the stack in a loop."""

    def __init__(self, body: RoutineBody, replaced: Replaced):
        self.body, self._replaced = body, replaced
        self._entry: list[str] = []
        self._lines: list[str] = []
        self._labels = 0
        self._ends: list[str] = []              # where `break` goes, for each open loop

    def function(self, exported: bool) -> str:
        owner = self.body.owner
        self._block(self.body.root)
        params = ", ".join([f"{p.llvm} {p.text}" for p in self.body.params])
        scope, inline = "" if exported else "internal ", " alwaysinline" * owner.inline
        head = f"define {scope}{_type(owner.result)} @{owner.name}({params}) nounwind{inline} {{"
        return "\n".join([f"\n; {owner.doc}", head, "entry:", *self._entry, *self._lines, "}"])

    @property
    def _alone(self) -> bool:
        """Without threads, what is atomic elsewhere needs no instructions of its own."""
        return self.body.architecture.pause is None

    def _block(self, block: StatementList) -> None:
        for statement in block.statements:
            if isinstance(statement, Branch):
                self._branch(statement)
            elif isinstance(statement, Repeat):
                self._repeat(statement)
            else:
                lines = self._entry if statement.op == "alloca" and not statement.operands else self._lines
                lines.append(self._instruction(statement))

    def _branch(self, s: Branch) -> None:
        then, otherwise, end = (f"{word}{self._labels}" for word in ("then", "else", "end"))
        self._labels += 1
        self._lines.append(f"  br i1 {s.condition.text}, label %{then}, label %{otherwise}")
        for label, block in ((then, s.then), (otherwise, s.otherwise)):
            self._lines.append(f"{label}:")
            self._block(block)
            self._lines += [] if block.ends else [f"  br label %{end}"]
        self._lines += [] if s.then.ends and s.otherwise.ends else [f"{end}:"]

    def _repeat(self, s: Repeat) -> None:
        loop, end = f"loop{self._labels}", f"after{self._labels}"
        self._labels += 1
        self._ends.append(end)
        self._lines += [f"  br label %{loop}", f"{loop}:"]
        self._block(s.body)
        self._lines += [] if s.body.ends else [f"  br label %{loop}"]
        self._lines += [f"{end}:"] if s.broken else []
        self._ends.pop()

    def _instruction(self, s: Instruction) -> str:
        if self._alone and s.op in (*UPDATES, "cmpxchg"):
            return self._update_alone(s)
        given = "  " if s.result is None else f"  {s.result.text} = "
        values = [o.text for o in s.operands]
        typed = [f"{o.llvm} {o.text}" for o in s.operands]
        if pattern := PATTERNS.get(s.op):
            kind = s.result.llvm if s.result is not None else ""
            return given + pattern.format(op=s.op, t=typed, v=values, kind=kind, how=s.how)
        return given + getattr(self, f"_{s.op}")(s, typed)

    def _update_alone(self, s: Instruction) -> str:
        """What was there, and the new value in its place."""
        place, *_, by = s.operands
        kind, was, op = s.made.llvm, s.made.text, s.op.removeprefix("atomicrmw ")
        lines, new = [f"  {was} = load {kind}, ptr {place.text}"], by.text if op == "xchg" else f"{was}.new"
        if op == "cmpxchg":
            lines += [f"  {was}.is = icmp eq {kind} {was}, {s.operands[1].text}",
                      f"  {new} = select i1 {was}.is, {kind} {by.text}, {kind} {was}"]
        elif op != "xchg":
            lines.append(f"  {new} = {op} {kind} {was}, {by.text}")
        return "\n".join([*lines, f"  store {kind} {new}, ptr {place.text}"])

    def _alloca(self, s: Instruction, typed: list[str]) -> str:
        return f"alloca i8, {typed[0]}, align 8" if typed else f"alloca [{s.how} x i8], align 8"

    def _load(self, s: Instruction, typed: list[str]) -> str:
        if s.how in (None, VOLATILE) or self._alone:
            return f"load {'volatile' if s.how else ''} {s.made.llvm}, {typed[0]}"
        return f"load atomic {s.made.llvm}, {typed[0]} {s.how}, align {s.made.bytes}"

    def _store(self, s: Instruction, typed: list[str]) -> str:
        if s.how is None or self._alone:
            return f"store {typed[1]}, {typed[0]}"
        return f"store atomic {typed[1]}, {typed[0]} {s.how}, align {s.operands[1].bytes}"

    def _cmpxchg(self, s: Instruction, typed: list[str]) -> str:
        """LLVM's instruction gives a pair."""
        self._lines.append(f"  {s.made.text}.pair = cmpxchg {', '.join(typed)} {s.how} monotonic")
        return f"extractvalue {{ {s.made.llvm}, i1 }} {s.made.text}.pair, 0"

    def _call(self, s: Instruction, typed: list[str]) -> str:
        callee = self._replaced.get(s.how, s.how)
        architecture = self.body.architecture
        params = _params(callee, architecture)
        kind = f"{_type(callee.result)} ({params})" if callee.variadic else _type(callee.result)
        typed = [self._narrowed(text) if p is Size else text for p, text in zip(callee.params, typed)] \
            + typed[len(callee.params):]
        return f"call {kind} {callee.text if isinstance(callee, Ptr) else f'@{callee.name}'}({', '.join(typed)})"

    def _narrowed(self, typed: str) -> str:
        """An i64 as wide as pointers are."""
        bits, value = self.body.architecture.pointer_bits, typed.split(" ", 1)[1]
        if bits == 64 or not value.startswith("%"):
            return f"i{bits} {value}"
        name = f"%narrow{len(self._lines)}"
        self._lines.append(f"  {name} = trunc i64 {value} to i{bits}")
        return f"i{bits} {name}"

    def _break(self, s: Instruction, typed: list[str]) -> str:
        return f"br label %{self._ends[-1]}"

    def _ret(self, s: Instruction, typed: list[str]) -> str:
        return f"ret {typed[0] if typed else 'void'}"
