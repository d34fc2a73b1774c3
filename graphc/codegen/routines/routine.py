"""The routine IR's builder: `RoutineBody` holds statements and has a method for each kind, like the loop IR's.

    @routine
    def total(f: RoutineBody, numbers: Elements[I64], count: I64) -> I64:
        sum = f.variable(I64, 0)
        with f.for_(count) as i:
            sum.value += numbers[i].value
        return sum.value

A routine is a Python function over the body under construction and typed values; other routines call it as it is
written: `total(f, numbers, 4)`. The parameters' and the result's types are its annotations. What does not fit is an
InternalError that names the routine, when its body is made.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import field
from inspect import get_annotations
from typing import TYPE_CHECKING, Any, Generic, Protocol, cast, overload

from graphc.codegen.routines.architecture import SYSCALL, Architecture
from graphc.codegen.routines.values import (
    I1, I64, Cell, Elements, Extern, Global, Ptr, Result, Typed, Value, elements_of)
from graphc.errors import InternalError
from graphc.once import once_property
from graphc.records import dataclass

if TYPE_CHECKING:
    from graphc.codegen.routines.values import Given


class Callee(Protocol):
    """What can be called: a routine, a function of C, a pointer to a function."""
    @property
    def result(self) -> type[Typed] | None: ...

    @property
    def params(self) -> tuple[type[Typed], ...]: ...

    @property
    def variadic(self) -> bool: ...


@dataclass
class Instruction:
    """One operation. `how`: the memory order of an atomic one; of a call, whom it calls; of a variable on the stack,
    how many bytes."""
    op: str
    result: Typed | None
    operands: tuple[Typed, ...]
    how: Any = None

    @property
    def made(self) -> Typed:
        """The result of an operation that has one."""
        if self.result is None:
            raise InternalError(f"{self.op} gives no value", "runtime")
        return self.result


@dataclass(eq=False)
class StatementList:
    statements: list[Instruction | Branch | Repeat] = field(default_factory=list)

    @property
    def ends(self) -> bool:
        """Whether nothing runs after it."""
        last = self.statements[-1] if self.statements else None
        if isinstance(last, Instruction):
            return last.op in ("ret", "break")
        if isinstance(last, Branch):
            return last.then.ends and last.otherwise.ends
        return isinstance(last, Repeat) and not last.broken


@dataclass
class Branch:
    condition: I1
    then: StatementList = field(default_factory=StatementList)
    otherwise: StatementList = field(default_factory=StatementList)


@dataclass
class Repeat:
    """A loop without end, but for `break`."""
    body: StatementList = field(default_factory=StatementList)
    broken: bool = False


class Routine(Generic[Result]):
    """A function in the routine IR. `inline`: into every caller. What a call gives has a type for the type checker; the
    values that it takes, which may be constants, are looked at when the caller's body is made."""
    variadic = False

    def __init__(self, build: Callable[..., Result], inline: bool = False):
        self.name, self.build, self.inline = build.__name__, build, inline
        self.doc = " ".join((build.__doc__ or "").split())

    @once_property
    def _types(self) -> dict[str, Any]:
        return get_annotations(self.build, eval_str=True)

    @property
    def params(self) -> tuple[type[Typed], ...]:
        return tuple([kind for name, kind in self._types.items() if name not in ("f", "return")])

    @property
    def result(self) -> type[Typed] | None:
        return self._types.get("return")

    def __call__(self, body: RoutineBody, *values: Given) -> Result:
        return cast(Result, body.call(self, values))

    def elsewhere(self) -> Extern[Result]:
        """The same function, of another object file."""
        return cast("Extern[Result]", Extern(self.name, self.result, *self.params))

    def __repr__(self) -> str:
        return self.name


def routine(build: Callable[..., Result]) -> Routine[Result]:
    """Decorator of a function that writes a routine."""
    return Routine(build)


def inlined(build: Callable[..., Result]) -> Routine[Result]:
    """The same, for one that becomes a part of each of its callers."""
    return Routine(build, inline=True)


class RoutineBody:
    """The statements of a routine under construction, and the finished ones, for one architecture."""

    def __init__(self, owner: Routine[Any], architecture: Architecture):
        self.owner, self.architecture = owner, architecture
        self.root = StatementList()
        self._open = [self.root]                # the blocks around the next statement
        self._loops: list[Repeat] = []
        self._values = 0
        self.params = [kind(self, f"%p{n}") for n, kind in enumerate(owner.params)]
        self.mentioned: list[Callee | Global] = []
        given = owner.build(self, *self.params)
        if given is not None or owner.result is None and not self.root.ends:
            self.return_(given)
        if not self.root.ends:
            raise self.error("does not return on every way")

    def error(self, message: str) -> InternalError:
        return InternalError(f"routine {self.owner.name}: {message}", "runtime")

    # ---- values
    def given(self, value: Given, kind: type[Value]) -> Value:
        """`value`, or the constant, as a value of that type; of a variable or a field where an address is wanted, its
        address."""
        if isinstance(value, Cell):
            value = value.pointer
        if not isinstance(value, Typed):
            return kind.constant(self, value)
        if not kind.takes(value):
            raise self.error(f"{type(value).__name__} given where {kind.__name__} is wanted")
        if value.body is not self or value.block is not None and value.block not in self._open:
            raise self.error(f"a {kind.__name__} is used outside the block that it is computed in")
        return cast(Value, value)

    @overload
    def emit(self, op: str, kind: type[Value], *operands: Typed, how: object = None) -> Value: ...
    @overload
    def emit(self, op: str, kind: None, *operands: Typed, how: object = None) -> None: ...

    def emit(self, op: str, kind: type[Typed] | None, *operands: Typed, how: object = None) -> Typed | None:
        """Appends an instruction; its result, of type `kind`."""
        block = self._open[-1]
        if block.ends:
            raise self.error(f"{op} after the end of its block")
        operands = tuple([self.given(o, Ptr if isinstance(o, Ptr) else type(o)) for o in operands])
        result = None
        if kind is not None:
            result = kind(self, f"%v{self._values}", block)
            self._values += 1
        block.statements.append(Instruction(op, result, operands, how))
        return result

    @overload
    def select(self, condition: I1, yes: Value, no: Value | int) -> Value: ...
    @overload
    def select(self, condition: I1, yes: int, no: Value) -> Value: ...

    def select(self, condition: I1, yes: Typed | int, no: Typed | int) -> Typed:
        """`yes` if the condition holds, else `no`; one of them may be a constant."""
        kind = type(yes if isinstance(yes, Typed) else no)
        if not issubclass(kind, Typed):
            raise self.error("select of two constants")
        return self.emit("select", kind, self.given(condition, I1), self.given(yes, kind), self.given(no, kind))

    def address(self, thing: Callee | Global) -> Ptr:
        """Of a function, or of memory with a name."""
        if not isinstance(thing, (Routine, Extern, Global)):
            raise self.error(f"{thing!r} has no address")
        self.mentioned.append(thing)
        return Ptr(self, f"@{thing.name}")

    # ---- memory of the routine's own
    def variable(self, kind: type[Value], start: Given) -> Cell[Value]:
        """A local variable."""
        cell = Cell(elements_of(kind).of(self.emit("alloca", Ptr, how=kind.bytes)), kind)
        cell.value = start
        return cell

    def array(self, kind: type[Value], count: I64 | int) -> Elements[Value]:
        """Uninitialised values on the stack, until the routine returns."""
        if isinstance(count, int):
            return elements_of(kind).of(self.emit("alloca", Ptr, how=count * kind.bytes))
        if len(self._loops):
            raise self.error("memory of a size known at run time grows in a loop")
        return elements_of(kind).of(self.emit("alloca", Ptr, count * kind.bytes))

    def fence(self, order: str) -> None:
        self.emit("fence", None, how=order)

    # ---- control
    @contextmanager
    def if_(self, condition: I1) -> Iterator[None]:
        statement = Branch(self.given(condition, I1))
        self._append(statement)
        with self._inside(statement.then):
            yield

    @contextmanager
    def else_(self) -> Iterator[None]:
        """Directly after an `if_`."""
        statement = self._open[-1].statements[-1]
        if not isinstance(statement, Branch) or statement.otherwise.statements:
            raise self.error("else_ stands directly after if_")
        with self._inside(statement.otherwise):
            yield

    @contextmanager
    def forever(self) -> Iterator[None]:
        """Until `break_` or `return_`."""
        statement = Repeat()
        self._append(statement)
        self._loops.append(statement)
        with self._inside(statement.body):
            yield
        self._loops.pop()

    @contextmanager
    def while_(self, condition: Callable[[], I1]) -> Iterator[None]:
        """As long as what `condition` computes, before each trip, holds."""
        with self.forever():
            self.break_if(~condition())
            yield

    @contextmanager
    def for_(self, count: I64 | int) -> Iterator[I64]:
        """0, 1, … < count."""
        index = self.variable(I64, 0)
        with self.forever():
            i = index.value
            self.break_if(i >= count)
            yield i
            index.value = i + 1

    def break_(self) -> None:
        """Out of the innermost loop."""
        if not self._loops:
            raise self.error("break outside a loop")
        self._loops[-1].broken = True
        self.emit("break", None)

    def break_if(self, condition: I1) -> None:
        with self.if_(condition):
            self.break_()

    def return_(self, value: Given = None) -> None:
        kind = self.owner.result
        if kind is None and value is not None:
            raise self.error("returns a value and has no result")
        self.emit("ret", None, *(() if kind is None else (self.given(value, kind),)))

    def return_if(self, condition: I1, value: Given = None) -> None:
        """`value` has been computed before, whether the condition holds or not."""
        with self.if_(condition):
            self.return_(value)

    # ---- calls
    def call(self, callee: Callee, values: Sequence[Given]) -> Typed | None:
        if len(values) < len(callee.params) or len(values) > len(callee.params) and not callee.variadic:
            raise self.error(f"{callee!r} takes {len(callee.params)} values, the call gives {len(values)}")
        operands = [self.given(v, kind) for v, kind in zip(values, callee.params)]
        operands += [self._more(v) for v in values[len(callee.params):]]
        if isinstance(callee, Ptr):
            self.given(callee, Ptr)
        else:
            self.mentioned.append(callee)
        return self.emit("call", callee.result, *operands, how=callee)

    def syscall(self, name: str, *values: Given) -> I64:
        """The system call of that name; what it gives back, which is -1 for an error."""
        if name not in self.architecture.syscalls:
            raise self.error(f"no system call {name} on {self.architecture.name}")
        return SYSCALL(self, self.architecture.syscalls[name], *values)

    def pause(self) -> None:
        """Tells the CPU that this thread waits in a loop."""
        if self.architecture.pause is None:
            raise self.error(f"no threads on {self.architecture.name}")
        self.call(*self.architecture.pause)

    # ---- helpers
    def _more(self, value: Given) -> Typed:
        """A value that a variadic function takes besides its parameters: numbers are I64."""
        if value is None or isinstance(value, (Cell, Ptr)):
            return self.given(value, Ptr)
        return self.given(value, type(value) if isinstance(value, Typed) else I64)

    def _append(self, statement: Branch | Repeat) -> None:
        if self._open[-1].ends:
            raise self.error("statement after the end of its block")
        self._open[-1].statements.append(statement)

    @contextmanager
    def _inside(self, block: StatementList) -> Iterator[None]:
        self._open.append(block)
        yield
        self._open.pop()
