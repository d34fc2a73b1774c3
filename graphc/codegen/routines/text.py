"""LLVM text of routines: each as one function, structured control flow as blocks and branches."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from graphc.codegen.routines.architecture import Architecture, Extern
from graphc.codegen.routines.routine import Branch, Callee, Global, Instruction, Repeat, Routine, RoutineBody, StatementList
from graphc.codegen.routines.values import Ptr, Typed
from graphc.errors import InternalError

COMPARISONS = frozenset(("eq", "ne", "slt", "sle", "sgt", "sge"))
CONVERSIONS = frozenset(("zext", "sext", "trunc", "ptrtoint", "inttoptr"))
ARITHMETIC = frozenset(("add", "sub", "mul", "udiv", "urem", "and", "or", "xor", "shl", "lshr"))


def module_text(routines: Iterable[Routine], architecture: Architecture, replaced: Mapping[Routine, Routine] = MappingProxyType({})) -> str:
    """LLVM text of these routines, which others can call, and of all that they call. `replaced`: routines in whose place others stand."""
    bodies = routine_bodies(routines, architecture, replaced)
    roots = {r.name for r in routines}
    mentioned = {thing.name: thing for body in bodies.values() for thing in body.mentioned if not isinstance(thing, Routine)}
    heads = [_declaration(thing) for thing in mentioned.values()]
    heads += [f"declare i64 @llvm.{op}.i64(i64, i64)" for op in ("smin", "smax")]
    return "\n".join(heads + [_Text(body, replaced).function(name in roots) for name, body in bodies.items()]) + "\n"


def routine_bodies(routines: Iterable[Routine], architecture: Architecture, replaced: Mapping[Routine, Routine]) -> dict[str, RoutineBody]:
    """The bodies of these routines and of all that they call or mention, by name."""
    for old, new in replaced.items():
        if old.params != new.params or old.result is not new.result:
            raise InternalError(f"routine {new.name} cannot stand for {old.name}: other types", "runtime")
    bodies: dict[str, RoutineBody] = {}
    waiting = list(routines)
    while waiting:
        routine = waiting.pop(0)
        if routine.name not in bodies:
            bodies[routine.name] = body = RoutineBody(routine, architecture)
            waiting += [replaced.get(thing, thing) for thing in body.mentioned if isinstance(thing, Routine)]
        elif bodies[routine.name].owner is not routine:
            raise InternalError(f"two routines have the name {routine.name}", "runtime")
    return bodies


def _declaration(thing: Extern | Global) -> str:
    if isinstance(thing, Extern):
        return f"declare {_type(thing.result)} @{thing.name}({_params(thing)})"
    if thing.content is None:
        return f"@{thing.name} = external global i8"
    content = "".join([f"\\{byte:02X}" for byte in thing.content])
    return f'@{thing.name} = private constant [{len(thing.content)} x i8] c"{content}"'


def _type(kind: type[Typed] | None) -> str:
    return kind.llvm if kind else "void"


def _params(callee: Callee) -> str:
    return ", ".join([p.llvm for p in callee.params] + ["..."] * callee.variadic)


class _Text:
    """The lines of one function. Local variables are all made at its entry, so that none grows the stack in a loop."""

    def __init__(self, body: RoutineBody, replaced: Mapping[Routine, Routine]):
        self.body, self._replaced = body, replaced
        self._entry: list[str] = []
        self._lines: list[str] = []
        self._labels = 0
        self._ends: list[str] = []              # where `break` goes, for each open loop

    def function(self, exported: bool) -> str:
        owner = self.body.owner
        self._block(self.body.root)
        params = ", ".join([f"{p.llvm} {p.text}" for p in self.body.params])
        head = f"define {'' if exported else 'internal '}{_type(owner.result)} @{owner.name}({params}) nounwind{' alwaysinline' * owner.inline} {{"
        return "\n".join([f"\n; {owner.doc}", head, "entry:", *self._entry, *self._lines, "}"])

    def _block(self, block: StatementList) -> None:
        for statement in block.statements:
            if isinstance(statement, Branch):
                self._branch(statement)
            elif isinstance(statement, Repeat):
                self._repeat(statement)
            else:
                self._instruction(statement)

    def _branch(self, statement: Branch) -> None:
        then, otherwise, end = (f"{word}{self._labels}" for word in ("then", "else", "end"))
        self._labels += 1
        self._lines.append(f"  br i1 {statement.condition.text}, label %{then}, label %{otherwise if statement.otherwise.statements else end}")
        for label, block in ((then, statement.then), (otherwise, statement.otherwise)):
            if block.statements or label == then:
                self._lines.append(f"{label}:")
                self._block(block)
                self._lines += [] if block.ends else [f"  br label %{end}"]
        if not (statement.then.ends and statement.otherwise.ends):
            self._lines.append(f"{end}:")

    def _repeat(self, statement: Repeat) -> None:
        loop, end = f"loop{self._labels}", f"after{self._labels}"
        self._labels += 1
        self._ends.append(end)
        self._lines += [f"  br label %{loop}", f"{loop}:"]
        self._block(statement.body)
        self._lines += [] if statement.body.ends else [f"  br label %{loop}"]
        self._lines += [f"{end}:"] if statement.broken else []
        self._ends.pop()

    def _instruction(self, statement: Instruction) -> None:
        text = self._text(statement)
        if statement.op == "alloca" and not statement.operands:
            self._entry.append(text)
        else:
            self._lines.append(text)

    def _text(self, statement: Instruction) -> str:
        op, how, operands = statement.op, statement.how, statement.operands
        given = f"  {statement.result.text} = " if statement.result is not None else "  "
        typed = [f"{o.llvm} {o.text}" for o in operands]
        if op in ARITHMETIC:
            return f"{given}{op} {typed[0]}, {operands[1].text}"
        if op in COMPARISONS:
            return f"{given}icmp {op} {typed[0]}, {operands[1].text}"
        if op in CONVERSIONS:
            return f"{given}{op} {typed[0]} to {statement.result.llvm}"
        return given + _OTHERS[op.split()[0]](self, statement, typed) if op.split()[0] in _OTHERS else self._unknown(op, how)

    def _unknown(self, op: str, how: object) -> str:
        raise self.body.error(f"no LLVM text of {op} {how}")

    def _call(self, statement: Instruction, typed: list[str]) -> str:
        callee = self._replaced.get(statement.how, statement.how)
        kind = f"{_type(callee.result)} ({_params(callee)})" if callee.variadic else _type(callee.result)
        return f"call {kind} {callee.text if isinstance(callee, Ptr) else f'@{callee.name}'}({', '.join(typed)})"

    def _load(self, statement: Instruction, typed: list[str]) -> str:
        kind = statement.result
        if statement.how in (None, "volatile"):
            return f"load {statement.how or ''} {kind.llvm}, {typed[0]}"
        return f"load atomic {kind.llvm}, {typed[0]} {statement.how}, align {kind.bytes}"

    def _store(self, statement: Instruction, typed: list[str]) -> str:
        pointer, value = typed
        return f"store {value}, {pointer}" if statement.how is None else \
            f"store atomic {value}, {pointer} {statement.how}, align {statement.operands[1].bytes}"

    def _swap(self, statement: Instruction, typed: list[str]) -> str:
        """LLVM's instruction gives a pair."""
        pair, kind = f"{statement.result.text}.pair", statement.result.llvm
        self._lines.append(f"  {pair} = cmpxchg {', '.join(typed)} {statement.how} monotonic")
        return f"extractvalue {{ {kind}, i1 }} {pair}, 0"


_OTHERS = {
    "select": lambda self, s, typed: f"select {', '.join(typed)}",
    "smin": lambda self, s, typed: f"call i64 @llvm.smin.i64({', '.join(typed)})",
    "smax": lambda self, s, typed: f"call i64 @llvm.smax.i64({', '.join(typed)})",
    "offset": lambda self, s, typed: f"getelementptr i8, {', '.join(typed)}",
    "alloca": lambda self, s, typed: f"alloca {f'i8, {typed[0]}' if typed else f'[{s.how} x i8]'}, align 8",
    "atomicrmw": lambda self, s, typed: f"{s.op} {', '.join(typed)} {s.how}",
    "fence": lambda self, s, typed: f"fence {s.how}",
    "break": lambda self, s, typed: f"br label %{self._ends[-1]}",
    "ret": lambda self, s, typed: f"ret {typed[0] if typed else 'void'}",
    "call": _Text._call,
    "load": _Text._load,
    "store": _Text._store,
    "cmpxchg": _Text._swap,
}
