"""Things that users may write in the place of any argument, and a call that takes only a result or a GraphError with this call's line for an answer."""
from decimal import Decimal
from fractions import Fraction

import numpy as np

import graphc as gc
from graphc.dsl.function import trace_types


class Hostile:
    """Offers everything and raises whenever it is asked."""
    def _raise(self, *args, **named):
        raise ZeroDivisionError("hostile")

    __index__ = __float__ = __int__ = __complex__ = __array__ = __len__ = __iter__ = __getitem__ = __bool__ = __eq__ = __lt__ = _raise
    __hash__ = object.__hash__


class Unprintable(Hostile):
    __repr__ = Hostile._raise


class OnlyIndex:
    """A number by its index, as an integer of another library."""
    def __index__(self):
        return 2


class LyingIndex:
    def __index__(self):
        return 2.5


ARGUMENTS = {"x": gc.f32[3, 4], "i": gc.i64[()], "b": gc.bool_[3, 4]}           # symbolic arrays that stand in the place of others

VALUES = [
    None, "a", "", b"b", "3", True, False, 0, 1, 2, -1, 7, 2 ** 31, 2 ** 63 - 1, 2 ** 63, 10 ** 30, -10 ** 30, 10 ** 400,
    0.0, 0.5, 2.0, 2.5, -1.5, 1e300, float("nan"), float("inf"), -float("inf"), 1j, Decimal("0.5"), Fraction(1, 2),
    np.int64(2), np.int8(-1), np.uint64(2 ** 64 - 1), np.float32(0.5), np.float64(2), np.float16(1), np.longdouble(1), np.bool_(True), np.complex64(1),
    np.datetime64("2020-01-01"), np.str_("a"), np.array(2), np.array(0.5, np.float32), np.array(True), np.array([2]), np.array([1, 2]), np.array([[1, 2]]),
    np.ones((3, 4), np.float32), np.ones((3, 4), ">f4"), np.ones((2, 2), np.float16), np.array(["a"]), np.array([None]), np.zeros((0,), np.float32),
    np.ma.masked_array([1.0, 2.0], [True, False]), np.zeros(2, [("a", int)]),
    [], [1], [1, 2], (1, 2), (2, 1), [2, 2], (1, 2, 3), [1.0], [0.5, 2], [-1], [True], ["a", "b"], [None], [[1, 2], [3]], [[1, 2], [3, 4]], ((1, 2), (3, 4)), [[[1]]],
    [10 ** 30], (1, (2, 3)), (1, "a"), [Hostile()], {}, {"a": 1}, {1, 2}, range(2), slice(1, 2), ..., object(), object, len, lambda *a, **k: None, lambda *a: a,
    Hostile(), Hostile, OnlyIndex(), LyingIndex(), (n for n in range(2)), gc.f32, gc.f32[2], gc.f32["B"].shape[0], "B", "2*B - 1", gc, NotImplemented,
]


def shown(value) -> str:
    try:
        return repr(value)[:60]
    except Exception as error:      # Hostile, or an int of more digits than Python prints
        return f"{type(value).__name__} ({error})"[:60]


def wrong(f, value):
    """None if `f(value, x, i, b)`, called while a graph is traced, gives a result or a GraphError with a line of this file's caller; else what it did."""
    here = f.__code__.co_filename

    def body(x, i, b):
        f(given(value, x, i, b), x, i, b)
        return x
    try:
        trace_types(body, ARGUMENTS)
    except gc.GraphError as error:
        return None if error.loc is not None and error.loc.file in (here, __file__) else f"GraphError without the line: {error.text} at {error.loc}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    return None


SYMBOLIC = {"x": lambda x, i, b: x, "x[0]": lambda x, i, b: x[0], "i": lambda x, i, b: i, "b": lambda x, i, b: b,
            "[x]": lambda x, i, b: [x], "(i, i)": lambda x, i, b: (i, i),
            "[x, i]": lambda x, i, b: [x, i], "x.shape": lambda x, i, b: x.shape, "{x}": lambda x, i, b: {"x": x}, "int8 ids": lambda x, i, b: b.astype(gc.i32)}


class Symbol:
    """Stands for an array of the graph being traced."""
    def __init__(self, name):
        self.name = name

    def __repr__(self):
        return self.name


UNPRINTABLE = [Unprintable(), [Unprintable()], 10 ** 5000]          # Python prints no int of so many digits
EVERYTHING = VALUES + UNPRINTABLE + [Symbol(name) for name in SYMBOLIC]


def given(value, x, i, b):
    return SYMBOLIC[value.name](x, i, b) if isinstance(value, Symbol) else value
