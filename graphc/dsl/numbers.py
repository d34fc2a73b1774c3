"""Elementwise functions that numpy has besides, and looking up in sorted numbers."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from math import pi, prod

from graphc.dsl.array import Array, as_array, as_float, common_dtype, emit
from graphc.dsl.elementwise import Operand, abs, isfinite, isnan, maximum, minimum, where
from graphc.dsl.form import formed
from graphc.dsl.index import broadcast, take
from graphc.dsl.literal import as_dtype
from graphc.dsl.shape import Shape, expand_dims, iota
from graphc.dsl.sizes import as_shape
from graphc.errors import GraphError
from graphc.ir.convert import choice, flag, items, real, shown
from graphc.ir.dim_text import as_dim
from graphc.ir.dims import Dim
from graphc.ir.types import DType, bool_, f32, f64, i64

MOST_COMPARED = 128                 # numbers that `searchsorted` compares with each; longer lists are halved


@formed
def isinf(x: Operand) -> Array:
    """bool: whether each element is infinite."""
    x = as_array(x)
    return emit("bitand", emit("bitnot", isfinite(x)), emit("bitnot", isnan(x)))


@formed
def nan_to_num(x: Operand, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Array:
    """x with other numbers in the place of NaN and of the infinities: unless given the largest numbers of the dtype.
    Integers stay as they are."""
    x = as_array(x)
    if not x.dtype.is_float:
        return x
    least, most = x.dtype.range
    high = most if posinf is None else real(posinf, "nan_to_num: posinf")
    low = least if neginf is None else real(neginf, "nan_to_num: neginf")
    x = where(isnan(x), real(nan, "nan_to_num: nan"), x)
    return where(x == float("inf"), high, where(x == float("-inf"), low, x))


@formed
def reciprocal(x: Operand) -> Array:
    """1 / x."""
    return 1 / as_float(x)


@formed
def hypot(x: Operand, y: Operand) -> Array:
    """sqrt(x² + y²), without overflow, infinite if one of them is; gradient 0 where both are 0."""
    dtype = common_dtype((x, y))
    a, b = (abs(as_float(as_array(v, dtype))) for v in (x, y))
    high, low = maximum(a, b), minimum(a, b)
    ratio = low / where(high == 0, 1.0, high)
    return where(emit("bitor", isinf(a), isinf(b)), float("inf"), high * emit("sqrt", ratio * ratio + 1))


@formed
def fmod(x: Operand, y: Operand) -> Array:
    """The remainder of x / y with the sign of x (gc.mod: of y)."""
    dtype = common_dtype((x, y))
    x, y = as_array(x, dtype), as_array(y, dtype)
    if x.dtype.is_float:
        rest = emit("sign", x) * emit("mod", abs(x), abs(y))
        return where(emit("bitand", x == 0, abs(y) > 0), x, rest)       # the gradient of `rest` is 0 at 0, not 1
    rest = emit("mod", x, y)                # the least integer has no absolute value
    return where(emit("bitand", rest != 0, emit("bitxor", x < 0, y < 0)), rest - y, rest)


@formed
def trunc(x: Operand) -> Array:
    """x without its fraction, towards 0; gradient 0."""
    x = as_array(x)
    return where(x < 0, emit("ceil", x), emit("floor", x)) if x.dtype.is_float else x


@formed
def heaviside(x: Operand, at_zero: Operand) -> Array:
    """0 below 0, `at_zero` at 0, 1 above it; NaN stays NaN. Gradient 0, but for `at_zero` at 0."""
    dtype = common_dtype((x, at_zero))
    x, at_zero = (as_float(as_array(v, dtype)) for v in (x, at_zero))
    step = where(x < 0, as_array(0, x.dtype), where(x > 0, as_array(1, x.dtype), at_zero))
    return where(isnan(x), x, step)


@formed
def signbit(x: Operand) -> Array:
    """bool: whether each element is below 0, or -0.0. The sign of NaN is not looked at: False."""
    x = as_array(x)
    if not x.dtype.is_float:
        return x < as_array(0, x.dtype) if x.dtype != bool_ else emit("bitand", x, emit("bitnot", x))
    return emit("bitor", x < 0, emit("bitand", x == 0, 1 / x < 0))


@formed
def copysign(x: Operand, y: Operand) -> Array:
    """|x| with the sign of y, as `signbit` says."""
    dtype = common_dtype((x, y))
    x, y = (as_float(as_array(v, dtype)) for v in (x, y))
    size = abs(x)
    return where(signbit(y), -size, size)


@formed
def fmax(x: Operand, y: Operand) -> Array:
    """The larger one; if one is NaN the other (gc.maximum: NaN)."""
    return _other_than_nan(x, y, maximum)


@formed
def fmin(x: Operand, y: Operand) -> Array:
    """The smaller one; if one is NaN the other (gc.minimum: NaN)."""
    return _other_than_nan(x, y, minimum)


@formed
def deg2rad(x: Operand) -> Array:
    """Degrees as radians."""
    return as_float(x) * (pi / 180)


@formed
def rad2deg(x: Operand) -> Array:
    """Radians as degrees."""
    return as_float(x) * (180 / pi)


@formed
def divmod(x: Operand, y: Operand) -> tuple[Array, Array]:
    """(x // y, x mod y): quotient rounded down and remainder, with the sign of y."""
    dtype = common_dtype((x, y))
    x, y = as_array(x, dtype), as_array(y, dtype)
    return x // y, x % y


@formed
def isin(x: Operand, values: Operand, invert: bool = False) -> Array:
    """bool: whether each element of x is among `values`, an array of any shape (`invert`: is not). NaN is among
    none."""
    dtype = common_dtype((x, values))
    x, among = as_array(x, dtype), as_array(values, dtype).reshape(-1)
    count = among.shape[0]
    if not isinstance(count, int) or count <= MOST_COMPARED:
        found = emit("eq", expand_dims(x, -1), among).any(-1)
    else:
        ordered = emit("sort", among, axis=0, descending=False)
        found = emit("eq", take(ordered, emit("minimum", searchsorted(ordered, x), count - 1)), x)
    return emit("bitnot", found) if flag(invert, "isin: invert") else found


@formed
def polyval(p: Operand, x: Operand) -> Array:
    """p[0] x^(N-1) + … + p[N-1], for coefficients p [N], by Horner's rule."""
    dtype = common_dtype((x, p))
    p, x = as_array(p, dtype), as_array(x, dtype)
    count = p.shape[0] if p.ndim == 1 else 0
    if not isinstance(count, int) or count == 0:
        raise GraphError(f"polyval takes one coefficient or more, p [N], got {p.type}")
    total = broadcast(p[0], x.shape)
    for i in range(1, count):
        total = total * x + p[i]
    return total


@formed
def select(conditions: Sequence[Array], choices: Sequence[Operand], default: Operand = 0) -> Array:
    """The choice whose condition is the first that holds, element by element; `default` where none does."""
    tests, values = items(conditions, "select: conditions"), items(choices, "select: choices")
    if len(tests) != len(values) or not tests:
        raise GraphError(f"select takes one condition or more and as many choices, got {len(tests)} and {len(values)}")
    result: Operand = default
    for test, value in zip(reversed(tests), reversed(values)):
        result = where(test, value, result)
    return as_array(result)


@formed
def isclose(x: Operand, y: Operand, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Array:
    """bool: |x - y| <= atol + rtol |y|; infinities of one sign are close, NaN to nothing, or with equal_nan to NaN."""
    dtype = common_dtype((x, y))
    x, y = (as_array(v, dtype) for v in (x, y))
    x, y = (v if v.dtype.is_float else v.astype(f64) for v in (x, y))      # f32 would make close integers equal
    near = abs(x - y) <= abs(y) * real(rtol, "isclose: rtol") + real(atol, "isclose: atol")
    close = emit("bitor", emit("eq", x, y), emit("bitand", near, isfinite(y)))
    both = emit("bitand", isnan(x), isnan(y)) if flag(equal_nan, "isclose: equal_nan") else None
    return close if both is None else emit("bitor", close, both)


@formed
def allclose(x: Operand, y: Operand, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Array:
    """bool scalar: whether all elements are close, as `isclose` says."""
    return isclose(x, y, rtol, atol, equal_nan).all()


@formed
def linspace(start: float, stop: float, num: Dim = 50, endpoint: bool = True, dtype: DType = f32) -> Array:
    """`num` numbers from start to stop, equally far apart; without `endpoint` up to one step before stop. Computed in
    f64; integers are the next below."""
    kind, count, closed = as_dtype(dtype), as_dim(num), flag(endpoint, "linspace: endpoint")
    first, last = real(start, "linspace: start"), real(stop, "linspace: stop")
    low, high = kind.range
    if not (low <= first <= high and low <= last <= high):
        raise GraphError(f"linspace: the ends {first} and {last} are no numbers that {kind} holds")
    place, size = iota(count, 0, f64), as_array(count, f64) if isinstance(count, int) else emit(
        "dimension", size=count, dtype=f64)
    steps = size - int(closed)
    line = place * (as_array(last - first, f64) / maximum(steps, 1.0)) + first
    if closed:                  # the last one is stop itself
        line = where(emit("bitand", place == steps, place > 0), last, line)
    return (emit("floor", line) if kind.is_int else line).astype(kind)


@formed
def logspace(start: float, stop: float, num: Dim = 50, endpoint: bool = True, base: float = 10.0,
             dtype: DType = f32) -> Array:
    """base ** `linspace`: `num` numbers from base ** start to base ** stop, each the one before times the same.
    Computed in f64."""
    kind, factor = as_dtype(dtype), real(base, "logspace: base")
    y = emit("pow", as_array(factor, f64), linspace(start, stop, num, endpoint, f64))
    return (emit("floor", y) if kind.is_int else y).astype(kind)


@formed
def searchsorted(a: Array, v: Array, side: str = "left") -> Array:
    """i64: where each v belongs in the increasing numbers a [N]: the number of elements below v (side "left"), or not
    above it ("right"). NaN belongs behind all others."""
    dtype = common_dtype((a, v))
    a, v = as_array(a, dtype), as_array(v, dtype)
    if a.ndim != 1:
        raise GraphError(f"searchsorted takes increasing numbers [N], got {a.type}")
    side = choice(side, "searchsorted: side", ("left", "right"))
    count = a.shape[0]
    if not isinstance(count, int) or count <= MOST_COMPARED:
        return _before(a, expand_dims(v, -1), side).astype(i64).sum(-1)
    place = broadcast(as_array(0, i64), v.shape)
    for step in (1 << k for k in reversed(range(count.bit_length()))):
        there = place + step
        element = take(a, emit("minimum", there, count) - 1)
        place = where(emit("bitand", there <= count, _before(element, v, side)), there, place)
    return place


@formed
def digitize(x: Array, bins: Array, right: bool = False) -> Array:
    """i64: the number i of the bin with bins[i - 1] <= x < bins[i] (`right`: < and <=), of increasing bins [N]; 0 below
    the first, N above the last."""
    return searchsorted(bins, x, "left" if flag(right, "digitize: right") else "right")


@formed
def interp(x: Array, xp: Array, fp: Array) -> Array:
    """The line through the points (xp, fp), both [N] with xp increasing, at x; outside the first or the last fp."""
    dtype = common_dtype((x, xp, fp))
    x, xp, fp = (as_float(as_array(v, dtype)) for v in (x, xp, fp))
    count = xp.shape[0] if xp.ndim == 1 and xp.shape == fp.shape else 0
    if not isinstance(count, int) or count < 1:
        raise GraphError(f"interp takes one point or more, xp [N] and fp [N], got {xp.type} and {fp.type}")
    if count == 1:
        return broadcast(fp[0], x.shape)
    at = minimum(maximum(searchsorted(xp, x, "right"), 1), count - 1)
    x0, x1, y0, y1 = (take(v, at - back) for v in (xp, fp) for back in (1, 0))
    inside = y0 + (x - x0) * ((y1 - y0) / (x1 - x0))
    return where(x <= xp[0], fp[0], where(x >= xp[-1], fp[-1], inside))


@formed
def unravel_index(x: Array, shape: Shape) -> tuple[Array, ...]:
    """Numbers of elements in row-major order as positions on each axis of an array of this shape. A number that it does
    not have gives a position that the first axis does not have (numpy: an error)."""
    x, sizes = as_array(x, i64), as_shape(shape)
    if not x.dtype.is_int:
        raise GraphError(f"unravel_index takes integers, got {x.type}")
    if any(not isinstance(size, int) or size < 1 for size in sizes):
        raise GraphError(f"unravel_index takes known sizes >= 1, got {shown(shape)}")
    behind = [prod(sizes[axis + 1:]) for axis in range(len(sizes))]
    return tuple(x // step % size if axis else x // step for axis, (step, size) in enumerate(zip(behind, sizes)))


def _other_than_nan(x: Operand, y: Operand, of: Callable[[Array, Array], Array]) -> Array:
    dtype = common_dtype((x, y))
    x, y = as_array(x, dtype), as_array(y, dtype)
    return where(isnan(x), y, where(isnan(y), x, of(x, y))) if x.dtype.is_float else of(x, y)


def _before(a: Array, v: Array, side: str) -> Array:
    """Whether a stands before the place of v in order."""
    before = emit("lt" if side == "left" else "le", a, v)
    if not a.dtype.is_float:
        return before
    last = isnan(v) if side == "right" else emit("bitand", isnan(v), emit("bitnot", isnan(a)))
    return emit("bitor", before, last)
