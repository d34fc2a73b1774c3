"""Values and memory of routines. The class of a value is its type, for Python and for the type checker: a field of type
`Cell[I64]` gives an `I64`, to which nothing but another one, or a Python int, is added. A `Struct` is a pointer to
memory with named, typed fields.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeAlias, TypeVar, TypeVarTuple, cast, overload

from graphc.errors import InternalError

if TYPE_CHECKING:
    from graphc.codegen.routines.routine import Routine, RoutineBody, StatementList

    # What is taken where a value is wanted: a value, the constant or the address that this stands for. Whether it fits
    # is looked at when the routine's body is made.
    Given: TypeAlias = "Typed | Cell[Typed] | int | None | Global | Extern[Any] | Routine[Any]"

RELAXED, ACQUIRE, RELEASE, ACQ_REL, SEQ_CST = "monotonic", "acquire", "release", "acq_rel", "seq_cst"
OF_VALUES = ("body", "text", "block", "const")         # attributes, beside those of the classes
VOLATILE = "volatile"           # a plain load that is made once, where it stands

Maker = TypeVar("Maker", bound=Callable[..., Any])
Value = TypeVar("Value", bound="Typed")
Number = TypeVar("Number", bound="Int")
Pointer = TypeVar("Pointer", bound="Ptr")
Record = TypeVar("Record", bound="Struct")
Kind = TypeVar("Kind", bound="Typed", covariant=True)               # of what a cell or an element holds
Content = TypeVar("Content", covariant=True)                        # what a field of a struct gives
Result = TypeVar("Result", bound="Typed | None", covariant=True)    # of a function
Params = TypeVarTuple("Params")


def _kept(make: Maker) -> Maker:
    """`cache`, whose stub takes no class as an argument."""
    return cast(Maker, cache(make))


@_kept
def _kind_of_pointer(base: type[Pointer], name: str, **facts: object) -> type[Pointer]:
    """The one subclass of `base` with these class attributes."""
    return type(name, (base,), facts)


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

    def __add__(self, other: Self | int) -> Self: return self._with("add", other)
    def __sub__(self, other: Self | int) -> Self: return self._with("sub", other)
    def __mul__(self, other: Self | int) -> Self: return self._with("mul", other)
    def __floordiv__(self, other: Self | int) -> Self: return self._with("udiv", other)
    def __mod__(self, other: Self | int) -> Self: return self._with("urem", other)
    def __and__(self, other: Self | int) -> Self: return self._with("and", other)
    def __or__(self, other: Self | int) -> Self: return self._with("or", other)
    def __xor__(self, other: Self | int) -> Self: return self._with("xor", other)
    def __lshift__(self, other: Self | int) -> Self: return self._with("shl", other)
    def __rlshift__(self, other: Self | int) -> Self: return self.body.given(other, type(self)) << self
    def __rshift__(self, other: Self | int) -> Self: return self._with("lshr", other)
    def __invert__(self) -> Self: return self._with("xor", True if isinstance(self, I1) else -1)
    def __eq__(self, other: object) -> I1: return self._compared("eq", other)     # type: ignore[override]
    def __ne__(self, other: object) -> I1: return self._compared("ne", other)     # type: ignore[override]
    def __lt__(self, other: Self | int) -> I1: return self._compared("slt", other)
    def __le__(self, other: Self | int) -> I1: return self._compared("sle", other)
    def __gt__(self, other: Self | int) -> I1: return self._compared("sgt", other)
    def __ge__(self, other: Self | int) -> I1: return self._compared("sge", other)
    __hash__ = object.__hash__

    def zext(self, to: type[Number]) -> Number: return self.body.emit("zext", to, self)
    def sext(self, to: type[Number]) -> Number: return self.body.emit("sext", to, self)
    def trunc(self, to: type[Number]) -> Number: return self.body.emit("trunc", to, self)

    def _with(self, op: str, other: Self | int) -> Self:
        return self.body.emit(op, type(self), self, self.body.given(other, type(self)))

    def _compared(self, op: str, other: object) -> I1:
        return self.body.emit(op, I1, self, self.body.given(cast("Given", other), type(self)))    # which looks at it


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


class Cell(Generic[Kind]):
    """A value in memory. `value` reads and writes it plainly; the methods do so atomically, in the memory order that
    they are given."""

    def __init__(self, pointer: Ptr, kind: type[Kind]):
        self.pointer, self.kind = pointer, kind

    @property
    def value(self) -> Kind:
        return self.pointer.body.emit("load", self.kind, self.pointer)

    @value.setter
    def value(self, value: Given) -> None:
        body = self.pointer.body
        body.emit("store", None, self.pointer, body.given(value, self.kind))

    def load(self, order: str) -> Kind:
        return self.pointer.body.emit("load", self.kind, self.pointer, how=order)

    def store(self, value: Given, order: str) -> None:
        body = self.pointer.body
        body.emit("store", None, self.pointer, body.given(value, self.kind), how=order)

    def exchange(self, value: Given, order: str) -> Kind: return self._update("xchg", value, order)
    def add(self, value: Given, order: str) -> Kind: return self._update("add", value, order)
    def subtract(self, value: Given, order: str) -> Kind: return self._update("sub", value, order)
    def bitwise_and(self, value: Given, order: str) -> Kind: return self._update("and", value, order)

    def compare_exchange(self, expected: Given, value: Given, order: str) -> Kind:
        """Writes `value` if `expected` is there; what was there. A failure orders nothing."""
        body = self.pointer.body
        old, new = body.given(expected, self.kind), body.given(value, self.kind)
        return body.emit("cmpxchg", self.kind, self.pointer, old, new, how=order)

    def _update(self, op: str, value: Given, order: str) -> Kind:
        """What was there before."""
        body = self.pointer.body
        return body.emit(f"atomicrmw {op}", self.kind, self.pointer, body.given(value, self.kind), how=order)


class Field(Generic[Content]):
    """A field of a `Struct`: a value of `kind`, or `count` of them (of structs: the structs themselves). `line`: it
    starts a cache line."""

    @overload
    def __init__(self: Field[Cell[Value]], kind: type[Value], *, line: bool = False): ...
    @overload
    def __init__(self: Field[Records[Record]], kind: type[Record], count: int, line: bool = False): ...
    @overload
    def __init__(self: Field[Elements[Value]], kind: type[Value], count: int, line: bool = False): ...

    def __init__(self, kind: type[Typed], count: int | None = None, line: bool = False):
        self.kind, self.count, self.line = kind, count, line
        record = kind if count is not None and issubclass(kind, Struct) else None
        self.align = 64 if line else 8 if record else kind.bytes
        self.bytes = (record.size if record else kind.bytes) * (1 if count is None else count)
        self.offset = 0

    @overload
    def __get__(self, struct: None, _: type[Struct]) -> Self: ...
    @overload
    def __get__(self, struct: Struct, _: type[Struct]) -> Content: ...

    def __get__(self, struct: Struct | None, _: type[Struct]) -> object:
        if struct is None:
            return self
        at = struct.plus(self.offset)
        if self.count is None:
            return Cell(at, self.kind)
        kind = records_of(self.kind) if issubclass(self.kind, Struct) else elements_of(self.kind)
        return kind.of(at)


class Struct(Ptr):
    """A pointer to memory with the fields that a subclass lists in order, each at a multiple of its own size, after
    those of its base class; `size`: bytes of it all."""
    size: ClassVar[int] = 0
    fields: ClassVar[dict[str, Field[object]]] = {}

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


class Elements(Ptr, Generic[Kind]):
    """A pointer to values, which may be pointers, one after the other: `Elements[I64]`, whose class is made when it is
    named first."""
    element: ClassVar[type[Typed]]

    def __class_getitem__(cls, kind: type[Typed]) -> type[Self]:
        return _kind_of_pointer(cls, f"{kind.__name__}s", element=kind)

    def __getitem__(self, index: I64 | int) -> Cell[Kind]:
        return Cell(self.plus(index * self.element.bytes), cast("type[Kind]", self.element))


class Records(Ptr, Generic[Record]):
    """A pointer to structs that lie side by side: `Records[TileRange]`."""
    element: ClassVar[type[Struct]]

    def __class_getitem__(cls, kind: type[Struct]) -> type[Self]:
        return _kind_of_pointer(cls, f"{kind.__name__}Records", element=kind)

    def __getitem__(self, index: I64 | int) -> Record:
        return cast("type[Record]", self.element).of(self.plus(index * self.element.size))


class FunctionPointer(Ptr, Generic[Result, *Params]):
    """A pointer to a function, its result first: `FunctionPointer[I32, Context]`. Called like a routine, with the body
    of the caller first."""
    result: ClassVar[type[Typed] | None]
    params: ClassVar[tuple[type[Typed], ...]]
    variadic: ClassVar[bool] = False

    def __class_getitem__(cls, types: tuple[type[Typed] | None, ...]) -> type[Self]:
        result, *params = types
        return _kind_of_pointer(cls, "Function", result=result, params=tuple(params))

    @classmethod
    def constant(cls, body: RoutineBody, value: Any) -> Self:
        if value is not None and (value.params != cls.params or value.result is not cls.result):
            raise body.error(f"{value!r} takes or gives something else than is wanted there")
        return super().constant(body, value)

    def __call__(self, body: RoutineBody, *values: Given) -> Result:
        return cast(Result, body.call(self, values))


def elements_of(kind: type[Value]) -> type[Elements[Value]]:
    """Elements[kind], of a kind that is known when the routine is made."""
    return Elements.__class_getitem__(kind)


def records_of(kind: type[Record]) -> type[Records[Record]]:
    """Records[kind], likewise."""
    return Records.__class_getitem__(kind)


class Extern(Generic[Result]):
    """A function of C, or of LLVM; `variadic`: it takes more values than its parameters."""

    @overload
    def __init__(self: Extern[None], name: str, result: None, *params: type[Typed], variadic: bool = False): ...
    @overload
    def __init__(self: Extern[Value], name: str, result: type[Value], *params: type[Typed], variadic: bool = False): ...

    def __init__(self, name: str, result: type[Typed] | None, *params: type[Typed], variadic: bool = False):
        self.name, self.result, self.params, self.variadic = name, result, params, variadic

    def __call__(self, body: RoutineBody, *values: Given) -> Result:
        return cast(Result, body.call(self, values))

    def __repr__(self) -> str:
        return self.name


class Global:
    """Memory with a name: constant `content`, or `zeros` bytes to write to, which begin at a cache line, or (neither)
    another module's."""

    def __init__(self, name: str, content: bytes | None = None, zeros: int = 0):
        self.name, self.content, self.zeros = name, content, zeros
