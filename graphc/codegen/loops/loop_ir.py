"""The loop IR as data: values, views and statements. `loops.LoopFunction` builds it, `llvm` translates it."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from graphc.codegen.loops.index import Ix, Sym, as_ix, combined
from graphc.errors import InternalError
from graphc.ir.dims import Dim, Dims
from graphc.ir.types import DType
from graphc.schedule.view import span


class ValueOperators(Protocol):
    """What the operators of Python on values are made with: the builder of the function that the values belong to."""

    def add(self, a: Operand, b: Operand) -> Val: ...

    def sub(self, a: Operand, b: Operand) -> Val: ...

    def mul(self, a: Operand, b: Operand) -> Val: ...

    def div(self, a: Operand, b: Operand) -> Val: ...

    def neg(self, a: Val) -> Val: ...


class Val:
    """A scalar (lanes == 1) or vector in registers. A constant has `const` set and needs no statement."""
    __slots__ = ("fn", "dtype", "lanes", "id", "const")

    def __init__(self, fn: ValueOperators, dtype: DType, lanes: int, number: int,
                 const: int | float | bool | None = None) -> None:
        self.fn, self.dtype, self.lanes, self.id, self.const = fn, dtype, lanes, number, const

    def __add__(self, other: Operand) -> Val:
        return self.fn.add(self, other)

    def __radd__(self, other: Operand) -> Val:
        return self.fn.add(other, self)

    def __sub__(self, other: Operand) -> Val:
        return self.fn.sub(self, other)

    def __rsub__(self, other: Operand) -> Val:
        return self.fn.sub(other, self)

    def __mul__(self, other: Operand) -> Val:
        return self.fn.mul(self, other)

    def __rmul__(self, other: Operand) -> Val:
        return self.fn.mul(other, self)

    def __truediv__(self, other: Operand) -> Val:
        return self.fn.div(self, other)

    def __rtruediv__(self, other: Operand) -> Val:
        return self.fn.div(other, self)

    def __neg__(self) -> Val:
        return self.fn.neg(self)

    @property
    def type_text(self) -> str:
        return self.dtype.name if self.lanes == 1 else f"{self.dtype.name}x{self.lanes}"

    def __repr__(self) -> str:
        return f"v{self.id}" if self.const is None else str(self.const)


Operand = Val | int | float | bool


class Root:
    """A piece of memory that views look at. kind: "param", "scratch", or a buffer space of main ("arena", "input", …).

    It holds the elements [low, low + size), counted from its pointer; low < 0 when strides are. `slot` and `offset`
    (bytes) place the pointer of a buffer; `owner` is the Parallel that a scratch belongs to.
    """
    __slots__ = ("name", "kind", "dtype", "low", "size", "slot", "offset", "owner")

    def __init__(self, name: str, kind: str, dtype: DType, low: Dim, size: Dim, slot: int = 0, offset: Dim = 0,
                 owner: Parallel | None = None) -> None:
        self.name, self.kind, self.dtype, self.low, self.size = name, kind, dtype, low, size
        self.slot, self.offset, self.owner = slot, offset, owner


class View:
    """Typed strided access to a root. shape and strides in elements; `start` is the offset of element [0, …] in the
    root. `dtype`: that of the root unless it is seen as another."""
    __slots__ = ("root", "shape", "strides", "start", "dtype")

    def __init__(self, root: Root, shape: Dims, strides: Dims, start: Ix = Ix(), dtype: DType | None = None) -> None:
        self.root, self.shape, self.strides, self.start = root, shape, strides, start
        self.dtype = dtype or root.dtype

    def seen_as(self, dtype: DType) -> View:
        """The same memory as elements of another type of the same size."""
        if dtype.itemsize != self.dtype.itemsize:
            raise InternalError(f"{self.name} of {self.dtype} seen as {dtype}", "loops")
        return View(self.root, self.shape, self.strides, self.start, dtype)

    @property
    def name(self) -> str:
        return self.root.name

    def at(self, index: Sequence[Ix]) -> Ix:
        """The element offset in the root of the element at `index`."""
        return combined(self.start, index, self.strides)

    def view_at(self, index: Sequence[Ix | Dim], shape: Dims | None = None,
                strides: Dims | None = None) -> View:
        """The view that starts at `index`; shape and strides default to this view's own. Nothing is copied."""
        shape = tuple(self.shape if shape is None else shape)
        strides = tuple(self.strides if strides is None else strides)
        if len(index) != len(self.shape) or len(shape) != len(strides):
            raise InternalError(f"view_at({index}, {shape}, {strides}) of {self.name} with shape {self.shape}: ranks "
                                "differ", "loops")
        start = combined(self.start, map(as_ix, index), self.strides)
        return View(self.root, shape, strides, start, self.dtype)

    def span(self) -> tuple[Dim, Dim]:
        """Least and greatest element offset from `start` that the shape reaches; (0, -1) when the view is empty."""
        return span(self.shape, self.strides)


def contiguous(shape: Dims) -> Dims:
    """The strides of a dense array, last axis fastest."""
    strides: list[Dim] = []
    step: Dim = 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


class Compute:
    """dst = op(args). `attr`: lane indices of a shuffle, the kind of a reduction, the Ix of a `value`, …"""
    __slots__ = ("op", "dst", "args", "attr")

    def __init__(self, op: str, dst: Val, args: tuple[Val, ...], attr: Any = None) -> None:
        self.op, self.dst, self.args, self.attr = op, dst, args, attr


class Alignment(NamedTuple):
    """Of a view's first element: whether its address is a multiple of `nbytes`."""
    view: View
    nbytes: int

    def __repr__(self) -> str:
        return f"{self.view.name} + {self.view.start} to {self.nbytes}"


class Define:
    """symbol = kind(args) for kind in min, max, quotient, remainder, product."""
    __slots__ = ("symbol", "kind", "args")

    def __init__(self, symbol: Sym, kind: str, args: tuple[Ix, ...]) -> None:
        self.symbol, self.kind, self.args = symbol, kind, args


class Load:
    """dst = `dst.lanes` elements along the last dimension. `mask`: None or a bool Val; `active`: at most so many lanes
    are read."""
    __slots__ = ("dst", "view", "index", "mask", "hint")

    def __init__(self, dst: Val, view: View, index: tuple[Ix, ...], mask: Val | None, hint: str | None) -> None:
        self.dst, self.view, self.index, self.mask, self.hint = dst, view, index, mask, hint


class Store:
    """Writes the lanes of `value` along the last dimension."""
    __slots__ = ("value", "view", "index", "mask", "hint")

    def __init__(self, value: Val, view: View, index: tuple[Ix, ...], mask: Val | None, hint: str | None) -> None:
        self.value, self.view, self.index, self.mask, self.hint = value, view, index, mask, hint


class Prefetch:
    """Asks for the cache line of one element, into the cache of that level; never faults, so its index is not
    checked."""
    __slots__ = ("view", "index", "level")

    def __init__(self, view: View, index: tuple[Ix, ...], level: int) -> None:
        self.view, self.index, self.level = view, index, level


class MatrixShapes:
    """From here on matrix register i has rows[i] rows of columns[i] elements of 32 bits; without any, the registers are
    given back. No shape is empty."""
    __slots__ = ("rows", "columns")

    def __init__(self, rows: tuple[Ix, ...] = (), columns: tuple[Ix, ...] = ()) -> None:
        self.rows, self.columns = rows, columns


class MatrixMove:
    """Register `number` is loaded from a flat view, or stored (`stores`): rows from `index` on, `step` elements apart.
    rows, columns: its shape."""
    __slots__ = ("number", "view", "index", "step", "rows", "columns", "stores")

    def __init__(self, number: int, view: View, index: Ix, step: int, shape: tuple[Ix, Ix], stores: bool) -> None:
        self.number, self.view, self.index, self.step, self.stores = number, view, (index,), step, stores
        self.rows, self.columns = shape


class MatrixZero:
    """Register `number` becomes 0."""
    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


class MatrixDot:
    """c += a b of registers, whose elements are of these packed types; each sum of bf16 in the order of the instruction
    (docs/numerics.md)."""
    __slots__ = ("c", "a", "b", "types")

    def __init__(self, c: int, a: int, b: int, types: tuple[DType, DType]) -> None:
        self.c, self.a, self.b, self.types = c, a, b, types


class For:
    """A counted loop lo, lo + step, … < hi. carried[k] starts as inits[k], becomes nexts[k]; results[k] is its last
    value."""
    __slots__ = ("symbol", "lo", "hi", "step", "inits", "carried", "nexts", "results", "body", "unroll")

    def __init__(self, symbol: Sym, lo: Ix, hi: Ix, step: int, inits: tuple[Val, ...], carried: tuple[Val, ...],
                 unroll: bool | int | None) -> None:
        self.symbol, self.lo, self.hi, self.step, self.unroll = symbol, lo, hi, step, unroll
        self.inits, self.carried = inits, carried
        self.nexts: tuple[Val, ...] = ()
        self.results: tuple[Val, ...] = ()
        self.body: Body = []

    def trips(self) -> int | None:
        """The trip count if it is known at compile time."""
        extent = self.hi - self.lo
        return max(0, -(-extent.const // self.step)) if extent.is_const and isinstance(extent.const, int) else None


class Parallel:
    """`count` tiles, in any order, on any threads (`serial`: in order, on this one; so too where `alone` holds)."""
    __slots__ = ("symbol", "count", "label", "serial", "alone", "body")

    def __init__(self, symbol: Sym, count: Ix, label: str, serial: bool, alone: Val | None = None) -> None:
        self.symbol, self.count, self.label, self.serial, self.alone = symbol, count, label, serial, alone
        self.body: Body = []


class If:
    __slots__ = ("condition", "then", "otherwise")

    def __init__(self, condition: Val) -> None:
        self.condition = condition
        self.then: Body = []
        self.otherwise: Body = []


class While:
    """At most `limit` trips of: head; leave unless `condition`; body. The results are the carried values when it
    leaves."""
    __slots__ = ("symbol", "count", "limit", "inits", "carried", "nexts", "results", "head", "condition", "body")

    def __init__(self, symbol: Sym, count: Sym, limit: Ix, inits: tuple[Val, ...], carried: tuple[Val, ...]) -> None:
        self.symbol, self.count, self.limit, self.inits, self.carried = symbol, count, limit, inits, carried
        self.nexts: tuple[Val, ...] = ()
        self.results: tuple[Val, ...] = ()
        self.head: Body = []
        self.condition: Val | None = None
        self.body: Body = []


class Call:
    """Runs another loop function on views and integers, on this thread."""
    __slots__ = ("callee", "views", "ints")

    def __init__(self, callee: FunctionIR, views: tuple[View, ...], ints: tuple[Ix, ...]) -> None:
        self.callee, self.views, self.ints = callee, views, ints


class CheckIndex:
    """symbol = value if 0 <= value < size, else 0 and the status word tells node and value."""
    __slots__ = ("symbol", "value", "size", "node_id")

    def __init__(self, symbol: Sym, value: Val, size: Ix, node_id: Ix | int) -> None:
        self.symbol, self.value, self.size, self.node_id = symbol, value, size, node_id


class FailUnless:
    """Unless `condition` holds, the status word tells node and `value`."""
    __slots__ = ("condition", "node_id", "value")

    def __init__(self, condition: Val, node_id: Ix | int, value: Val) -> None:
        self.condition, self.node_id, self.value = condition, node_id, value


class ReturnIf:
    """main leaves early; reason: "failed" or "cancelled"."""
    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason


class Commit:
    """main is about to write state: it leaves if it was cancelled, and cannot be from here on, so that state is written
    as a whole or not at all."""
    __slots__ = ()


class Stamp:
    """main of an instrumented build: the clock of call site number `site` starts, or (`ends`) stops and the call is
    counted."""
    __slots__ = ("site", "ends")

    def __init__(self, site: int, ends: bool) -> None:
        self.site, self.ends = site, ends


class FunctionIR:
    """A loop function as it is printed, verified and translated: parameters and body. `noalias`: no two view parameters
    overlap."""

    def __init__(self, name: str, noalias: bool = False) -> None:
        self.name, self.noalias = name, noalias
        self.views: list[View] = []
        self.params: list[Sym] = []
        self.scratches: list[Root] = []
        self.written: set[Root] = set()         # what it stores into, itself or through a call
        self.body: Body = []


Statement = (Compute | Define | Load | Store | Prefetch | For | Parallel | If | While | Call | CheckIndex | FailUnless
             | ReturnIf | Commit | Stamp | MatrixShapes | MatrixMove | MatrixZero | MatrixDot)
Body = list[Statement]


def bodies(statement: Statement) -> tuple[Body, ...]:
    """The statement lists nested directly in `statement`."""
    names = _BODIES.get(type(statement), ())
    return tuple(getattr(statement, name) for name in names)


def statements(body: Body) -> Iterator[Statement]:
    """All statements, also nested ones, in order."""
    for s in body:
        yield s
        for inner in bodies(s):
            yield from statements(inner)


def control(body: Body) -> Iterator[Statement]:
    """Loops, branches and calls, also nested ones, in order: few among all statements."""
    for s in body:
        if type(s) is Call:
            yield s
        elif type(s) in _BODIES:
            yield s
            for inner in bodies(s):
                yield from control(inner)


_BODIES: dict[type[Statement], tuple[str, ...]] = {
    For: ("body",), Parallel: ("body",), If: ("then", "otherwise"), While: ("head", "body")}
