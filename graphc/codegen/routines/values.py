"""Values and memory of routines. The class of a value is its type; a `Struct` is a pointer to memory with named, typed
fields."""
from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, cast

from graphc.errors import InternalError

if TYPE_CHECKING:
    from graphc.codegen.routines.routine import StatementList, RoutineBody

RELAXED, ACQUIRE, RELEASE, ACQ_REL, SEQ_CST = "monotonic", "acquire", "release", "acq_rel", "seq_cst"
OF_VALUES = ("body", "text", "block", "const")         # attributes, beside those of the classes
VOLATILE = "volatile"           # a plain load that is made once, where it stands

Maker = TypeVar("Maker", bound=Callable[..., Any])


def _kept(make: Maker) -> Maker:
    """`cache`, whose stub takes no class as an argument."""
    return cast(Maker, cache(make))


class Typed:
    """A value of a routine under construction: a constant, a parameter, or what an instruction of `block` gives
    (`text`: its name)."""
    llvm: ClassVar[str] = "void"
    bytes: ClassVar[int] = 0

    def __init__(self, body: RoutineBody, text: str, block: StatementList | None = None, const: int | None = None):
        self.body, self.text, self.block, self.const = body, text, block, const

    @classmethod
    def takes(cls, value: object) -> bool:
        """Whether a value may be given where this type is wanted."""
        return type(value) is cls

    @classmethod
    def constant(cls, body: RoutineBody, value: object) -> Self:
        raise body.error(f"{value!r} is no {cls.__name__}")

    def __bool__(self) -> bool:
        raise self.body.error("the value of a routine is known when it runs; if_ branches on it")


class Int(Typed):
    """Arithmetic wraps; comparisons are signed; `//`, `%` and `>>` take what is not negative. Python ints are constants
    of the other operand's type."""

    @classmethod
    def constant(cls, body: RoutineBody, value: object) -> Self:
        if not isinstance(value, int) or not -(1 << 8 * cls.bytes - 1) <= value < 1 << 8 * cls.bytes:
            raise body.error(f"{value!r} is no {cls.__name__}")
        number = int(value) - ((value >> 8 * cls.bytes - 1) << 8 * cls.bytes if value > 0 and cls is not I1 else 0)
        return cls(body, str(number) if cls is not I1 else str(bool(number)).lower(), const=number)

    def __add__(self, other: object) -> Self: return self._with("add", other)
    def __sub__(self, other: object) -> Self: return self._with("sub", other)
    def __mul__(self, other: object) -> Self: return self._with("mul", other)
    def __floordiv__(self, other: object) -> Self: return self._with("udiv", other)
    def __mod__(self, other: object) -> Self: return self._with("urem", other)
    def __and__(self, other: object) -> Self: return self._with("and", other)
    def __or__(self, other: object) -> Self: return self._with("or", other)
    def __xor__(self, other: object) -> Self: return self._with("xor", other)
    def __lshift__(self, other: object) -> Self: return self._with("shl", other)
    def __rlshift__(self, other: object) -> Self: return self.body.given(other, type(self)) << self
    def __rshift__(self, other: object) -> Self: return self._with("lshr", other)
    def __invert__(self) -> Self: return self._with("xor", True if isinstance(self, I1) else -1)
    def __eq__(self, other: object) -> I1: return self._compared("eq", other)     # type: ignore[override]
    def __ne__(self, other: object) -> I1: return self._compared("ne", other)     # type: ignore[override]
    def __lt__(self, other: object) -> I1: return self._compared("slt", other)
    def __le__(self, other: object) -> I1: return self._compared("sle", other)
    def __gt__(self, other: object) -> I1: return self._compared("sgt", other)
    def __ge__(self, other: object) -> I1: return self._compared("sge", other)
    __hash__ = object.__hash__

    def zext(self, to: type[Int]) -> Int: return self.body.emit("zext", to, self)
    def sext(self, to: type[Int]) -> Int: return self.body.emit("sext", to, self)
    def trunc(self, to: type[Int]) -> Int: return self.body.emit("trunc", to, self)

    def _with(self, op: str, other: object) -> Self:
        return self.body.emit(op, type(self), self, self.body.given(other, type(self)))

    def _compared(self, op: str, other: object) -> I1:
        return self.body.emit(op, I1, self, self.body.given(other, type(self)))


class I1(Int):
    llvm, bytes = "i1", 1


class I8(Int):
    llvm, bytes = "i8", 1


class I32(Int):
    llvm, bytes = "i32", 4


class I64(Int):
    llvm, bytes = "i64", 8

    def at_most(self, other: I64 | int) -> I64: return self._with("smin", other)
    def at_least(self, other: I64 | int) -> I64: return self._with("smax", other)


class Size(I64):
    """In the parameters of functions of C: its size_t, which is as wide as a pointer. Routines count in I64."""

    @classmethod
    def takes(cls, value: object) -> bool:
        return isinstance(value, I64)


class Ptr(Typed):
    """An address; the constant None is null. Its subclasses know what is there, and are taken where a mere address is
    wanted."""
    llvm, bytes = "ptr", 8

    @classmethod
    def takes(cls, value: object) -> bool:
        return isinstance(value, cls)

    @classmethod
    def constant(cls, body: RoutineBody, value: Any) -> Self:
        return cls(body, "null", const=0) if value is None else cls.of(body.address(value))

    @classmethod
    def of(cls, pointer: Ptr) -> Self:
        """The same address, of another kind of memory."""
        return cls(pointer.body, pointer.text, pointer.block, pointer.const)

    def is_null(self) -> I1:
        return self.body.emit("eq", I1, self, self.body.given(None, Ptr))

    def same_as(self, other: Ptr) -> I1:
        return self.body.emit("eq", I1, self, self.body.given(other, Ptr))

    def to_int(self) -> I64:
        return self.body.emit("ptrtoint", I64, self)

    def plus(self, offset: I64 | int) -> Ptr:
        if isinstance(offset, int) and offset == 0:
            return Ptr.of(self)
        return self.body.emit("offset", Ptr, self, self.body.given(offset, I64))


class Cell:
    """A value in memory. `value` reads and writes it plainly; the methods do so atomically, in the memory order that
    they are given."""

    def __init__(self, pointer: Ptr, kind: type[Typed]):
        self.pointer, self.kind = pointer, kind

    @property
    def value(self) -> Any:
        return self.pointer.body.emit("load", self.kind, self.pointer)

    @value.setter
    def value(self, value: object) -> None:
        body = self.pointer.body
        body.emit("store", None, self.pointer, body.given(value, self.kind))

    def load(self, order: str) -> Any:
        return self.pointer.body.emit("load", self.kind, self.pointer, how=order)

    def store(self, value: object, order: str) -> None:
        body = self.pointer.body
        body.emit("store", None, self.pointer, body.given(value, self.kind), how=order)

    def exchange(self, value: object, order: str) -> Any: return self._update("xchg", value, order)
    def add(self, value: object, order: str) -> Any: return self._update("add", value, order)
    def subtract(self, value: object, order: str) -> Any: return self._update("sub", value, order)
    def bitwise_and(self, value: object, order: str) -> Any: return self._update("and", value, order)

    def compare_exchange(self, expected: object, value: object, order: str) -> Any:
        """Writes `value` if `expected` is there; what was there. A failure orders nothing."""
        body = self.pointer.body
        old, new = body.given(expected, self.kind), body.given(value, self.kind)
        return body.emit("cmpxchg", self.kind, self.pointer, old, new, how=order)

    def _update(self, op: str, value: object, order: str) -> Any:
        """What was there before."""
        body = self.pointer.body
        return body.emit(f"atomicrmw {op}", self.kind, self.pointer, body.given(value, self.kind), how=order)


class Field:
    """A field of a `Struct`: a value of `kind`, or `count` of them (of structs: the structs themselves). `line`: it
    starts a cache line."""

    def __init__(self, kind: type[Typed], count: int | None = None, line: bool = False):
        self.kind, self.count, self.line = kind, count, line
        record = kind if count is not None and issubclass(kind, Struct) else None
        self.align = 64 if line else 8 if record else kind.bytes
        self.bytes = (record.size if record else kind.bytes) * (1 if count is None else count)
        self.offset = 0

    def __get__(self, struct: Struct | None, _: type[Struct]) -> Field | Cell | Elements:
        if struct is None:
            return self
        at = struct.plus(self.offset)
        if self.count is None:
            return Cell(at, self.kind)
        return (records_of(self.kind) if issubclass(self.kind, Struct) else array_of(self.kind)).of(at)


class Struct(Ptr):
    """A pointer to memory with the fields that a subclass lists in order, each at a multiple of its own size, after
    those of its base class; `size`: bytes of it all."""
    size: ClassVar[int] = 0
    fields: ClassVar[dict[str, Field]] = {}

    def __init_subclass__(cls, line: bool = False) -> None:
        """`line`: it fills whole cache lines."""
        own = {name: field for name, field in vars(cls).items() if isinstance(field, Field)}
        if hidden := [name for name in own if name in dir(Ptr) or name in OF_VALUES]:
            raise InternalError(f"struct {cls.__name__}: {hidden} are names of what every value has", "runtime")
        end = cls.size
        cls.fields = {**cls.fields, **own}
        for field in own.values():
            field.offset = -(-end // field.align) * field.align
            end = field.offset + field.bytes
        unit = 64 if line else 8
        cls.size = -(-end // unit) * unit


class Elements(Ptr):
    """A pointer to values of one kind, or to structs, one after the other."""
    element: ClassVar[type[Typed]]
    inside: ClassVar[bool]

    def __getitem__(self, index: I64 | int) -> Cell | Struct:
        if self.inside and issubclass(self.element, Struct):
            return self.element.of(self.plus(index * self.element.size))
        return Cell(self.plus(index * self.element.bytes), self.element)


@_kept
def array_of(kind: type[Typed]) -> type[Elements]:
    """The type of a pointer to values, which may be pointers."""
    return type(f"{kind.__name__}s", (Elements,), {"element": kind, "inside": False})


@_kept
def records_of(kind: type[Struct]) -> type[Elements]:
    """The type of a pointer to structs that lie side by side."""
    return type(f"{kind.__name__}Records", (Elements,), {"element": kind, "inside": True})


@_kept
def function_of(result: type[Typed] | None, *params: type[Typed]) -> type[FunctionPointer]:
    """The type of a pointer to a function."""
    return type("Function", (FunctionPointer,), {"result": result, "params": params})


class FunctionPointer(Ptr):
    """Called like a routine, with the body of the caller first."""
    result: ClassVar[type[Typed] | None]
    params: ClassVar[tuple[type[Typed], ...]]
    variadic: ClassVar[bool] = False

    @classmethod
    def constant(cls, body: RoutineBody, value: Any) -> Self:
        if value is not None and (value.params != cls.params or value.result is not cls.result):
            raise body.error(f"{value!r} takes or gives something else than is wanted there")
        return super().constant(body, value)

    def __call__(self, body: RoutineBody, *values: object) -> Any:
        return body.call(self, values)


class Extern:
    """A function of C, or of LLVM; `variadic`: it takes more values than its parameters."""

    def __init__(self, name: str, result: type[Typed] | None, *params: type[Typed], variadic: bool = False):
        self.name, self.result, self.params, self.variadic = name, result, params, variadic

    def __call__(self, body: RoutineBody, *values: object) -> Any:
        return body.call(self, values)

    def __repr__(self) -> str:
        return self.name


class Global:
    """Memory with a name: constant `content`, or `zeros` bytes to write to, which begin at a cache line, or (neither)
    another module's."""

    def __init__(self, name: str, content: bytes | None = None, zeros: int = 0):
        self.name, self.content, self.zeros = name, content, zeros
