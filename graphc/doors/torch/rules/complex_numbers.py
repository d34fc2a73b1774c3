"""Complex numbers inside of a program, as two arrays each. What is linear, and what only moves elements, is done to
both by the rule for real arrays; inputs and results of a program are real."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod, sqrt
from operator import mul, truediv
from typing import Any

import numpy as np

import graphc as gc
from graphc.doors.torch.rules import indexing, pointwise, products, reductions, shapes
from graphc.doors.torch.rules.promotion import as_type, floating, promoted
from graphc.doors.torch.rules.shapes import axis_of
from graphc.dsl.array import as_array
from graphc.errors import GraphError
from graphc.records import dataclass

Array = gc.Array
Rule = Callable[..., Any]
REAL_RULES = pointwise.RULES | shapes.RULES | reductions.RULES | products.RULES | indexing.RULES


@dataclass(frozen=True)
class Complex:
    """An array of complex numbers."""
    real: Array
    imag: Array

    @classmethod
    def of(cls, value: Any) -> Complex:
        """A real or complex array, of numpy too, or a number."""
        if isinstance(value, Complex):
            return value
        if isinstance(value, np.ndarray | np.generic | complex) and np.iscomplexobj(value):
            return cls(as_array(np.ascontiguousarray(np.real(value))), as_array(np.ascontiguousarray(np.imag(value))))
        x, = floating(value)
        return cls(x, gc.zeros(x.shape, x.dtype))

    @classmethod
    def of_pairs(cls, x: Array) -> Complex:
        """[..., 2], as torch.view_as_complex."""
        return cls(x[..., 0], x[..., 1])

    def pairs(self) -> Array:
        """[..., 2], as torch.view_as_real."""
        return gc.stack([self.real, self.imag], self.real.ndim)

    def scaled(self, factor: Any) -> Complex:
        """Times a real number or array."""
        if isinstance(factor, int) and factor == 1:
            return self
        return Complex(self.real * factor, self.imag * factor)


def holds_complex(value: Any) -> bool:
    """Whether an argument is, or contains, complex numbers."""
    if isinstance(value, tuple | list):
        return any(map(holds_complex, value))
    return isinstance(value, Complex | complex)


def _part(value: Any, name: str) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(_part(v, name) for v in value)
    return getattr(value, name) if isinstance(value, Complex) else value


def _by_parts(rule: Rule) -> Rule:
    """A linear rule, or one that only moves elements, on both parts."""
    def both(*args: Any, **kwargs: Any) -> Any:
        real, imag = (rule(*_part(args, name), **{k: _part(v, name) for k, v in kwargs.items()})
                      for name in ("real", "imag"))
        return tuple(map(Complex, real, imag)) if isinstance(real, tuple) else Complex(real, imag)
    return both


def _sum(sign: int) -> Rule:
    def rule(x: Any, y: Any, *, alpha: Any = 1) -> Complex:
        x, y = Complex.of(x), Complex.of(y).scaled(alpha * sign)
        return Complex(x.real + y.real, x.imag + y.imag)
    return rule


def _product(multiply: Callable[[Any, Any], Any]) -> Rule:
    """Of two complex arrays, or of one with a real one."""
    def rule(x: Any, y: Any) -> Complex:
        if not isinstance(x, Complex | complex):
            y = Complex.of(y)
            return Complex(multiply(x, y.real), multiply(x, y.imag))
        x = Complex.of(x)
        if not isinstance(y, Complex | complex):
            return Complex(multiply(x.real, y), multiply(x.imag, y))
        y = Complex.of(y)
        return Complex(multiply(x.real, y.real) - multiply(x.imag, y.imag),
                       multiply(x.real, y.imag) + multiply(x.imag, y.real))
    return rule


_times = _product(lambda x, y: mul(*promoted(x, y)))


def _quotient(x: Any, y: Any) -> Complex:
    x = Complex.of(x)
    if not isinstance(y, Complex | complex):
        return Complex(*(truediv(*promoted(part, y)) for part in (x.real, x.imag)))
    y = Complex.of(y)
    size = _size(y)                     # twice, so that no square overflows
    unit = Complex(y.real / size, -y.imag / size)
    found: Complex = _times(x, unit)
    return Complex(found.real / size, found.imag / size)


def _size(x: Complex) -> Array:
    """|x|, whose gradient at 0 is 0, as PyTorch's."""
    zero = gc.logical_and(gc.equal(x.real, 0), gc.equal(x.imag, 0))
    one, none = as_type(1, x.real.dtype), as_type(0, x.real.dtype)
    return gc.where(zero, none, gc.hypot(gc.where(zero, one, x.real), gc.where(zero, one, x.imag)))


def _polar(size: Array, angle: Array) -> Complex:
    return Complex(size * gc.cos(angle), size * gc.sin(angle))


def _broadcast(x: Array, y: Array) -> list[Array]:
    """Both in their common type and shape."""
    x, y = floating(x, y)
    shape = (gc.stop_gradient(x) + gc.stop_gradient(y)).shape
    return [gc.broadcast_to(part, shape) for part in (x, y)]


def _power(x: Complex, n: Any) -> Complex:
    if n != 2:
        raise GraphError(f"a power of complex numbers: only the second, got {n}")
    found: Complex = _times(x, x)
    return found


# Fourier transforms

BY_ROOT, BY_NUMBER = 1, 2           # PyTorch's numbers for what a transform is divided by; 0: nothing


def _divided(x: Complex, axes: Sequence[int], sizes: Sequence[Any], norm: int) -> Complex:
    n = prod(sizes[a] for a in axes)
    return x.scaled({BY_ROOT: 1 / sqrt(n), BY_NUMBER: 1 / n}.get(norm, 1))


def _transformed(x: Complex, axes: Sequence[int], forward: bool) -> Complex:
    """Not divided by anything."""
    pairs = x.pairs()
    for axis in axes:
        pairs = gc.fft(pairs, axis=axis) if forward else gc.ifft(pairs, axis=axis, norm="forward")
    return Complex.of_pairs(pairs)


def _c2c(x: Complex, dim: Sequence[int], norm: int, forward: bool) -> Complex:
    axes = [axis_of(d, x.real.ndim) for d in dim]
    return _divided(_transformed(x, axes, forward), axes, x.real.shape, norm)


def _r2c(x: Array, dim: Sequence[int], norm: int, onesided: bool) -> Complex:
    *others, last = [axis_of(d, x.ndim) for d in dim]
    if not onesided:
        return _c2c(Complex.of(x), dim, norm, True)
    found = _transformed(Complex.of_pairs(gc.rfft(x, axis=last)), others, True)
    return _divided(found, [*others, last], x.shape, norm)


def _c2r(x: Complex, dim: Sequence[int], norm: int, last_size: Any) -> Array:
    *others, last = [axis_of(d, x.real.ndim) for d in dim]
    found = gc.irfft(_transformed(x, others, False).pairs(), last_size, axis=last, norm="forward")
    return _divided(Complex(found, found), [*others, last], found.shape, norm).real


LINEAR = (
    "alias", "alias_copy", "broadcast_to", "cat", "chunk", "clone", "constant_pad_nd", "contiguous", "cumsum", "detach",
    "detach_copy", "diagonal", "diag_embed", "expand", "expand_as", "expand_copy", "flip", "gather", "index_select",
    "lift_fresh", "lift_fresh_copy", "mean", "narrow", "neg", "permute", "permute_copy", "repeat", "reshape", "roll",
    "slice", "select", "split", "split_with_sizes", "squeeze", "stack", "sum", "t", "tile", "trace", "transpose",
    "tril", "triu", "unbind", "unfold", "unsqueeze", "view", "_unsafe_view", "view_copy", "index", "where")
RULES: dict[str, Rule] = {
    **{name: _by_parts(rule) for name, rule in REAL_RULES.items() if name.split(".")[0] in LINEAR},
    "view_as_complex.default": Complex.of_pairs, "view_as_real.default": lambda x: Complex.of(x).pairs(),
    "complex.default": lambda x, y: Complex(*_broadcast(x, y)), "polar.default": lambda x, y: _polar(*floating(x, y)),
    "real.default": lambda x: x.real, "imag.default": lambda x: x.imag, "abs.default": _size,
    "angle.default": lambda x: gc.atan2(x.imag, x.real), "_to_copy.default": lambda x, **_: Complex.of(x),
    **{f"{name}.default": lambda x: Complex(x.real, -x.imag) for name in ("_conj", "conj", "_conj_physical")},
    "resolve_conj.default": lambda x: x, "resolve_neg.default": lambda x: x,
    "add.Tensor": _sum(1), "add.Scalar": _sum(1), "sub.Tensor": _sum(-1), "sub.Scalar": _sum(-1),
    "mul.Tensor": _times, "mul.Scalar": _times, "div.Tensor": _quotient, "div.Scalar": _quotient,
    "exp.default": lambda x: _polar(gc.exp(x.real), x.imag), "pow.Tensor_Scalar": _power,
    **{f"{name}.default": _product(gc.matmul) for name in ("mm", "bmm", "mv", "matmul", "dot")},
    "_fft_c2c.default": _c2c, "_fft_r2c.default": _r2c, "_fft_c2r.default": _c2r,
}
