"""The symbolic array that a traced function computes with: numpy's operators and methods, building graph nodes."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np

from graphc.dsl.context import current_trace, user_loc
from graphc.dsl.foreign import refuse
from graphc.dsl.form import formed_methods
from graphc.dsl.indexing import plan
from graphc.dsl.literal import as_dtype, clip_bound, counted_in, not_masked, numbers
from graphc.dsl.positions import constant_positions, never_negative
from graphc.dsl.sizes import known_shape, unpacked
from graphc.dsl.symbol import Symbol
from graphc.errors import GraphError
from graphc.ir.convert import flag, integer, is_integer, is_number
from graphc.ir.dims import Dim
from graphc.ir.ops import OPS
from graphc.ir.types import DType, bool_, broadcast_shapes, dtype_of, f32, i64, normalize_axes, normalize_axis

Axes = int | tuple[int, ...] | None


def emit(name: str, *operands: object, called: str = "", **attributes: object) -> Array:
    """Applies the operator `name`, which has one result, in the running trace, at the user's line. `called`: what the
    user calls it, where it may fail at run time.

    Operands that are not arrays become constants of the first array operand's dtype.
    """
    if any([is_weak(x) for x in operands]):
        return _emit_weak(name, operands, called, attributes)
    return _applied(name, operands, called, attributes)[0]


def emit_all(name: str, *operands: object, called: str = "", **attributes: object) -> tuple[Array, ...]:
    """As `emit`, of an operator with any number of results. Weak operands take the dtype of a float array among the
    others."""
    if any([is_weak(x) for x in operands]):
        operands = tuple(_settled(operands, _strong_float(operands)))
    return _applied(name, operands, called, attributes)


def _applied(name: str, operands: Sequence[object], called: str, attributes: Mapping[str, object]) -> tuple[Array, ...]:
    trace = current_trace()
    builder = trace.builder
    loc = user_loc()
    builder.loc = loc.calling(called) if called and loc else loc
    dtype = common_dtype(operands)
    values = [trace.value(x if isinstance(x, Array) else as_array(x, dtype)) for x in operands]
    outs = builder.apply(OPS[name](**attributes), values)
    return tuple([Array(v, trace) for v in outs])


# what keeps an array weak: moving its elements, and arithmetic with Python numbers
KEEP_WEAK = frozenset(("reshape", "transpose", "broadcast_to", "slice", "flip", "concat", "stack", "pad", "tile",
                       "take", "neg",
                       "add", "sub", "mul", "div", "minimum", "maximum"))


def is_weak(x: object) -> TypeGuard[Array]:
    """Whether `x` is an array made of Python floats alone, which takes the dtype of an array beside it."""
    return isinstance(x, Array) and x.weak is not None


def _emit_weak(name: str, operands: Sequence[object], called: str, attributes: Mapping[str, object]) -> Array:
    """As `emit`, for operands of which some are weak: beside a float array they take its dtype, else the result may
    be weak again."""
    def made(dtype: DType | None) -> Array:
        return emit(name, *_settled(operands, dtype), called=called, **attributes)
    dtype = _strong_float(operands)
    result = made(dtype)
    return Array(result.value, result.trace, made) if dtype is None and name in KEEP_WEAK else result


def _strong_float(operands: Sequence[object]) -> DType | None:
    """The dtype of the first float array among the operands that is not weak."""
    strong = (common_dtype([x]) for x in operands if isinstance(x, np.ndarray)
              or (isinstance(x, Array) and x.weak is None))
    return next((d for d in strong if d is not None and d.is_float), None)


def _settled(operands: Sequence[object], dtype: DType | None) -> list[object]:
    """The operands, weak ones as arrays of `dtype`, or of the dtype that they have."""
    return [x.settled(dtype or x.dtype) if is_weak(x) else x for x in operands]


def common_dtype(operands: Iterable[object]) -> DType | None:
    """The dtype that Python numbers take next to these operands: that of the first array, of a weak one only without
    others; None without one."""
    weak = None
    for x in operands:
        if is_weak(x):
            weak = x.dtype
        elif isinstance(x, (Array, np.ndarray)):
            return x.dtype if isinstance(x, Array) else dtype_of(x)
    return weak


def as_array(x: object, dtype: DType | None = None) -> Array:
    """`x` as a symbolic array.

    Numbers and lists take `dtype` (default: f32 for floats, i64 for ints, bool for bools); numpy arrays keep their own.
    """
    if isinstance(x, Array):
        return x
    if isinstance(x, np.ndarray):
        not_masked(x)
        dtype_of(x)
        return _constant(x)
    return _constant(numbers(x, dtype))


def as_float(x: object) -> Array:
    """`x`, integers and bools converted to f32."""
    array = as_array(x)
    return array if array.dtype.is_float else array.astype(f32)


def divide(a: object, b: object) -> Array:
    """True division; two integers give f32."""
    dtype = common_dtype((a, b))
    dtype = dtype if dtype is not None and dtype.is_float else f32
    return emit("div", as_float(as_array(a, dtype)), as_float(as_array(b, dtype)))


def power(a: object, b: object) -> Array:
    return emit("mul", a, a) if is_integer(b) and b == 2 and isinstance(a, Array) else emit("pow", a, b)


class Array(Symbol):
    """A tensor of the graph being traced. It has a type but no numbers: those exist when the compiled graph runs.

    Behaves as a numpy array of that dtype and shape, except that Python numbers take its dtype, two arrays of
    different dtype must be converted with `astype`, and whatever needs the numbers (`if x`, `float(x)`) is an error.
    """
    __slots__ = ()
    __array_priority__ = 1000
    weak: Callable[[DType], Array] | None

    @property
    def T(self) -> Array:
        return self.transpose()

    @property
    def mT(self) -> Array:
        """The last two axes swapped."""
        return self.swapaxes(-1, -2)

    # conversion

    def astype(self, dtype: object) -> Array:
        """Converted to `dtype`. Float to int truncates and saturates, NaN gives 0 (numpy: undefined)."""
        wanted = as_dtype(dtype)
        if self.weak is not None and wanted.is_float:
            return self.settled(wanted)
        return self if wanted == self.dtype else emit("cast", self, dtype=wanted)

    def settled(self, dtype: DType) -> Array:
        """A weak array as one of `dtype`, made anew from its numbers rather than converted."""
        return Array(self.value, self.trace) if dtype == self.dtype or self.weak is None else self.weak(dtype)

    # shape

    def reshape(self, *shape: Any) -> Array:
        """The same elements in row-major order; one size may be -1."""
        return emit("reshape", self, shape=known_shape(unpacked(shape), self.shape))

    def flatten(self) -> Array:
        return self.reshape(-1)

    ravel = flatten

    def transpose(self, *axes: Any) -> Array:
        """Axes in the given order, reversed without arguments (numpy's transpose, torch's permute)."""
        order = unpacked(axes)
        if not order or (len(order) == 1 and order[0] is None):
            order = tuple(reversed(range(self.ndim)))
        return emit("transpose", self, perm=tuple([normalize_axis(a, self.ndim) for a in order]))

    def swapaxes(self, axis1: int, axis2: int) -> Array:
        order = list(range(self.ndim))
        i, j = normalize_axis(axis1, self.ndim), normalize_axis(axis2, self.ndim)
        order[i], order[j] = j, i
        return emit("transpose", self, perm=tuple(order))

    def squeeze(self, axis: Axes = None) -> Array:
        """Without axes of size 1: those given, or all."""
        axes = tuple(i for i, d in enumerate(self.shape) if d == 1) if axis is None else normalize_axes(axis, self.ndim)
        wrong = [a for a in axes if self.shape[a] != 1]
        if wrong:
            raise GraphError(f"squeeze: axis {wrong[0]} has size {self.shape[wrong[0]]}, only axes of size 1 can go")
        return self.reshape(tuple(d for i, d in enumerate(self.shape) if i not in axes))

    # reductions

    def sum(self, axis: Axes = None, keepdims: bool = False) -> Array:
        return reduce_axes("sum", self.astype(counted_in(self.dtype, bool_)), axis, keepdims)

    def mean(self, axis: Axes = None, keepdims: bool = False) -> Array:
        return reduce_axes("mean", as_float(self), axis, keepdims)

    def prod(self, axis: Axes = None, keepdims: bool = False) -> Array:
        return reduce_axes("prod", self.astype(counted_in(self.dtype)), axis, keepdims)

    def max(self, axis: Axes = None, keepdims: bool = False) -> Array:
        return reduce_axes("max", _of_some(self, "max", axis), axis, keepdims)

    def min(self, axis: Axes = None, keepdims: bool = False) -> Array:
        return reduce_axes("min", _of_some(self, "min", axis), axis, keepdims)

    def var(self, axis: Axes = None, ddof: int = 0, keepdims: bool = False) -> Array:
        return reduce_axes("var", as_float(self), axis, keepdims, ddof=integer(ddof, "ddof"))

    def std(self, axis: Axes = None, ddof: int = 0, keepdims: bool = False) -> Array:
        var = self.var(axis, ddof, keepdims)
        # of equal numbers 0, and so is the gradient
        return emit("where", emit("eq", var, 0), as_array(0, var.dtype), emit("sqrt", var))

    def all(self, axis: Axes = None, keepdims: bool = False) -> Array:
        return reduce_axes("min", self.astype(bool_), axis, keepdims)

    def any(self, axis: Axes = None, keepdims: bool = False) -> Array:
        return reduce_axes("max", self.astype(bool_), axis, keepdims)

    def argmax(self, axis: int | None = None, keepdims: bool = False) -> Array:
        return reduce_one("argmax", self, axis, keepdims)

    def argmin(self, axis: int | None = None, keepdims: bool = False) -> Array:
        return reduce_one("argmin", self, axis, keepdims)

    def cumsum(self, axis: int | None = None) -> Array:
        return cumulative("cumsum", self, axis)

    def cumprod(self, axis: int | None = None) -> Array:
        return cumulative("cumprod", self, axis)

    def clip(self, min: object = None, max: object = None) -> Array:
        """Limited to [min, max]; a bound is a number, an array or None. At a bound the gradient goes to the array
        alone."""
        if all(bound is None or is_number(bound) for bound in (min, max)):
            return emit("clip", self, low=clip_bound(min, self.dtype), high=clip_bound(max, self.dtype))
        x = self if min is None else emit("where", emit("ge", self, min), self, emit("maximum", self, min))
        return x if max is None else emit("where", emit("le", x, max), x, emit("minimum", x, max))

    def round(self) -> Array:
        return emit("round", self)

    # operators

    def __add__(self, other: object) -> Array: return emit("add", self, other)
    def __radd__(self, other: object) -> Array: return emit("add", other, self)
    def __sub__(self, other: object) -> Array: return emit("sub", self, other)
    def __rsub__(self, other: object) -> Array: return emit("sub", other, self)
    def __mul__(self, other: object) -> Array: return emit("mul", self, other)
    def __rmul__(self, other: object) -> Array: return emit("mul", other, self)
    def __truediv__(self, other: object) -> Array: return divide(self, other)
    def __rtruediv__(self, other: object) -> Array: return divide(other, self)
    def __floordiv__(self, other: object) -> Array: return emit("floordiv", self, other)
    def __rfloordiv__(self, other: object) -> Array: return emit("floordiv", other, self)
    def __mod__(self, other: object) -> Array: return emit("mod", self, other)
    def __rmod__(self, other: object) -> Array: return emit("mod", other, self)
    def __divmod__(self, other: object) -> tuple[Array, Array]: return self // other, self % other
    def __pow__(self, other: object) -> Array: return power(self, other)
    def __rpow__(self, other: object) -> Array: return emit("pow", other, self)
    def __matmul__(self, other: object) -> Array: return emit("matmul", self, other)
    def __rmatmul__(self, other: object) -> Array: return emit("matmul", other, self)
    def __and__(self, other: object) -> Array: return emit("bitand", self, other)
    def __rand__(self, other: object) -> Array: return emit("bitand", other, self)
    def __or__(self, other: object) -> Array: return emit("bitor", self, other)
    def __ror__(self, other: object) -> Array: return emit("bitor", other, self)
    def __xor__(self, other: object) -> Array: return emit("bitxor", self, other)
    def __rxor__(self, other: object) -> Array: return emit("bitxor", other, self)
    def __lshift__(self, other: object) -> Array: return emit("shift_left", self, other)
    def __rlshift__(self, other: object) -> Array: return emit("shift_left", other, self)
    def __rshift__(self, other: object) -> Array: return emit("shift_right", self, other)
    def __rrshift__(self, other: object) -> Array: return emit("shift_right", other, self)
    def __lt__(self, other: object) -> Array: return emit("lt", self, other)
    def __le__(self, other: object) -> Array: return emit("le", self, other)
    def __gt__(self, other: object) -> Array: return emit("gt", self, other)
    def __ge__(self, other: object) -> Array: return emit("ge", self, other)
    def __eq__(self, other: object) -> Array: return emit("eq", self, other)       # type: ignore[override]
    def __ne__(self, other: object) -> Array: return emit("ne", self, other)       # type: ignore[override]
    def __neg__(self) -> Array: return emit("neg", self)
    def __pos__(self) -> Array: return self
    def __abs__(self) -> Array: return emit("abs", self)
    def __invert__(self) -> Array: return emit("bitnot", self)

    __hash__ = Symbol.__hash__

    def __getitem__(self, key: object) -> Array:
        """numpy's indexing by ints, slices, None, ... and integer arrays. A symbolic index array must hold positions
        >= 0."""
        p = plan(key, self.shape)
        x = self
        if any(p.start) or p.stop != self.shape or any(s != 1 for s in p.step):
            x = emit("slice", x, start=p.start, stop=p.stop, step=p.step)
        x = emit("flip", x, axes=p.flips) if p.flips else x
        x = x if x.shape == p.shape else x.reshape(p.shape)
        return _gather(x, p.gathers)

    def __iter__(self) -> Iterator[Array]:
        return iter([self[i] for i in range(self._static_length("a Python loop"))])

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: object, **kwargs: object) -> Array:
        operator = UFUNC_OPERATORS.get(ufunc.__name__) if method == "__call__" and not kwargs else None
        return refuse(ufunc.__name__) if operator is None else operator(*inputs)

formed_methods(Symbol, "x")
formed_methods(Array, "x")

# numpy calls these when a numpy array stands left of an operator
UFUNC_OPERATORS: dict[str, Callable[..., Array]] = {
    "divide": divide,
    **{ufunc: (lambda a, b, name=name: emit(name, a, b)) for ufunc, name in {
        "add": "add", "subtract": "sub", "multiply": "mul", "floor_divide": "floordiv", "remainder": "mod",
        "power": "pow",
        "matmul": "matmul", "bitwise_and": "bitand", "bitwise_or": "bitor", "bitwise_xor": "bitxor",
        "left_shift": "shift_left",
        "right_shift": "shift_right", "less": "lt", "less_equal": "le", "greater": "gt", "greater_equal": "ge",
        "equal": "eq",
        "not_equal": "ne"}.items()},
}

def from_front(indices: object, size: Dim, axis: int) -> Array:
    """Positions along the axis number `axis`, of `size`, counted from its front, where -size … -1 count from its end,
    as in numpy.

    Others stay as they are, so that whoever reads there reports the number that was given.
    """
    if not isinstance(indices, Array):
        indices, negative = constant_positions(indices, size, axis)
        if not negative:
            return as_array(indices)
    at = as_array(indices)
    if not at.dtype.is_int or not at.dtype.is_signed or never_negative(at.value):       # of no ints the operator speaks
        return at
    at = at if not isinstance(size, int) or size <= at.dtype.range[1] else at.astype(i64)
    count = size if isinstance(size, int) else emit("dimension", size=size, dtype=at.dtype)
    behind = emit("bitand", at < 0, at >= -count)
    return emit("where", behind, at + count, at)


def _gather(x: Array, gathers: tuple[tuple[int, object], ...]) -> Array:
    """x[..., i, j, ...] for index arrays at neighbouring axes: a take along the first, then along each next axis at
    the same time."""
    if not gathers:
        return x
    indices = [from_front(i, x.shape[axis], axis) for axis, i in gathers]
    shape = broadcast_shapes(*(i.shape for i in indices))
    first = gathers[0][0]
    if len(indices) == 1:
        return emit("take", x, indices[0], axis=first, called="indexing")
    indices = [i if i.shape == shape else emit("broadcast_to", i, shape=shape) for i in indices]
    x = emit("take", x, indices[0], axis=first, called="indexing")
    axis = first + len(shape)                               # where the next indexed axis of x stands now
    for i in indices[1:]:
        full = x.shape[:axis] + (1,) + x.shape[axis + 1:]
        aligned = i.reshape((1,) * first + shape + (1,) * (len(x.shape) - axis))
        x = emit("take_along_axis", x, emit("broadcast_to", aligned, shape=full), axis=axis, called="indexing")
        x = x.reshape(x.shape[:axis] + x.shape[axis + 1:])
    return x


def reduce_axes(name: str, x: Array, axis: Axes, keepdims: bool, **attributes: Any) -> Array:
    return emit(name, x, axes=normalize_axes(axis, x.ndim), keepdims=flag(keepdims, "keepdims"), **attributes)


def _of_some(x: Array, name: str, axis: Axes) -> Array:
    """`x`, GraphError where a largest of no bools is asked for: the operator, which is `any` and `all` too, has a
    value there."""
    empty = {a for a, size in enumerate(x.shape) if size == 0}
    if x.dtype == bool_ and empty and empty <= set(normalize_axes(axis, x.ndim)):
        raise GraphError(f"{name} of {x.type} over an axis of size 0 has no value; gc.any and gc.all have")
    return x


def reduce_one(name: str, x: Array, axis: int | None, keepdims: bool) -> Array:
    """argmax and argmin: along one axis, or over all elements in row-major order."""
    keepdims = flag(keepdims, "keepdims")
    if axis is None:
        flat = emit(name, x.flatten(), axis=0, keepdims=False)
        return flat.reshape((1,) * x.ndim) if keepdims else flat
    return emit(name, x, axis=normalize_axis(axis, x.ndim), keepdims=keepdims)


def cumulative(name: str, x: Array, axis: int | None, reverse: bool = False, exclusive: bool = False) -> Array:
    """cumsum and cumprod: along one axis, or of all elements in row-major order."""
    x = x.astype(counted_in(x.dtype))
    x, axis = (x.flatten(), 0) if axis is None else (x, axis)
    return emit(name, x, axis=normalize_axis(axis, x.ndim), reverse=flag(reverse, "reverse"),
                exclusive=flag(exclusive, "exclusive"))


def _constant(array: np.ndarray) -> Array:
    trace = current_trace()
    trace.builder.loc = user_loc()
    return Array(trace.builder.constant(array), trace)
