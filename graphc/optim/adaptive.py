"""Steps divided by the size of all gradients so far; Muon's, of which all directions have one size."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY
from math import isfinite, sqrt
from typing import ClassVar

import graphc as gc
from graphc.dsl.array import Array
from graphc.dsl.context import user_loc
from graphc.dsl.form import formed, formed_methods
from graphc.errors import GraphError
from graphc.ir.dims import Sizes
from graphc.optim.base import Kept, Optimizer, Scalars, Schedule, Update, as_like, decayed, shrunk, size_of
from graphc.optim.limits import FROM_0, FROM_1, SHARE, TO_0, Limits
from graphc.records import dataclass

Bounds = tuple[float | None, float]     # an option of this type is no pair of numbers that can be changed later
RATES = ("original", "match_rms_adamw")
# of the polynomial a x + b x³ + c x⁵ that takes singular values from (0, 1] to about 1 in five steps (Jordan 2024)
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


@formed
@dataclass(frozen=True)
class Adagrad(Optimizer):
    """p -= lr / (1 + lr_decay t) g / (sqrt(sum of all g²) + eps), the sum from initial_accumulator_value on (Duchi et
    al. 2011)."""
    limits: ClassVar[Limits] = {**Optimizer.limits, "lr_decay": FROM_0, "initial_accumulator_value": FROM_0,
                                "eps": FROM_0}
    lr: float | Schedule = 1e-2
    _: KW_ONLY
    lr_decay: float = 0.0
    initial_accumulator_value: float = 0.0
    eps: float = 1e-10

    def slots(self) -> tuple[str, ...]:
        return ("sum",)

    def scalars(self, step: Array) -> Scalars:
        s = super().scalars(step)
        return {**s, "size": s["lr"] / (1.0 + step * self.lr_decay)}

    def update(self, p: Array, g: Array, slots: Kept, s: Scalars) -> Update:
        g = decayed(g, p, self.weight_decay)
        total = slots["sum"] + g * g        # without the value it starts from, which comes in below
        root = gc.sqrt(total + self.initial_accumulator_value if self.initial_accumulator_value else total)
        return p - as_like(s["size"], p) * g / (root + self.eps), {"sum": total}


@formed
@dataclass(frozen=True)
class Adadelta(Optimizer):
    """p -= lr d with d = g sqrt(a + eps) / sqrt(v + eps), where v and a are the running means of g² and d² (Zeiler
    2012)."""
    limits: ClassVar[Limits] = {**Optimizer.limits, "rho": SHARE, "eps": FROM_0}
    lr: float | Schedule = 1.0
    _: KW_ONLY
    rho: float = 0.9
    eps: float = 1e-6

    def slots(self) -> tuple[str, ...]:
        return ("square_avg", "acc_delta")

    def update(self, p: Array, g: Array, slots: Kept, s: Scalars) -> Update:
        g = decayed(g, p, self.weight_decay)
        v = slots["square_avg"] * self.rho + g * g * (1 - self.rho)
        d = g * gc.sqrt(slots["acc_delta"] + self.eps) / gc.sqrt(v + self.eps)
        a = slots["acc_delta"] * self.rho + d * d * (1 - self.rho)
        return p - as_like(s["lr"], p) * d, {"square_avg": v, "acc_delta": a}


@formed
@dataclass(frozen=True)
class Adafactor(Optimizer):
    """g / sqrt(v), where v of a matrix is kept as its means over rows and over columns, limited to the mean square d
    and scaled by max(eps[1], size of p) min(lr, 1 / sqrt(t)), t from 1 (Shazeer and Stern 2018). beta2 = 1 -
    t^beta2_decay. eps[0] is the smallest sqrt(v); None, torch's default: the distance of 1 to the next number of the
    dtype. Weight decay as in AdamW."""
    limits: ClassVar[Limits] = {**Optimizer.limits, "beta2_decay": TO_0, "d": FROM_1}
    lr: float | Schedule = 1e-2
    _: KW_ONLY
    beta2_decay: float = -0.8
    eps: Bounds = (None, 1e-3)
    d: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = isinstance(self.eps, (tuple, list)) and len(self.eps) == 2
        if not fits or not all(isinstance(e, (int, float)) and 0 <= e and isfinite(e) or e is None and i == 0
                               for i, e in enumerate(self.eps)):
            raise GraphError("Adafactor: eps are two finite numbers >= 0, the first may be None", user_loc())
        object.__setattr__(self, "eps", tuple(self.eps))

    def slot_shapes(self, shape: Sizes) -> Mapping[str, Sizes]:
        if len(shape) < 2:
            return {"variance": shape}
        return {"row_var": (*shape[:-1], 1), "col_var": (*shape[:-2], 1, shape[-1])}

    def scalars(self, step: Array) -> Scalars:
        s, t = super().scalars(step), step + 1.0
        return {**s, "share": gc.exp(gc.log(t) * self.beta2_decay), "rho": gc.minimum(s["lr"], gc.rsqrt(t))}

    def update(self, p: Array, g: Array, slots: Kept, s: Scalars) -> Update:
        least = 2.0 ** (-23 if p.dtype == gc.f32 else -52) if self.eps[0] is None else self.eps[0]
        size = gc.maximum(size_of(p), self.eps[1]) * as_like(s["rho"], p)
        p, square, share = shrunk(p, s, self.weight_decay), g * g, as_like(s["share"], p)

        def moved(name: str, value: Array) -> Array:
            return slots[name] + (value - slots[name]) * share
        if p.ndim < 2:
            v = variance = moved("variance", square)
            new = {"variance": variance}
        else:
            row = moved("row_var", gc.mean(square, axis=-1, keepdims=True))
            col = moved("col_var", gc.mean(square, axis=-2, keepdims=True))
            v = row * col / gc.maximum(gc.mean(row, axis=-2, keepdims=True), least)
            new = {"row_var": row, "col_var": col}
        u = g * gc.rsqrt(gc.maximum(v, least * least))
        return p - u * (size / gc.maximum(size_of(u) / self.d, 1.0)), new


@formed
@dataclass(frozen=True)
class Muon(Optimizer):
    """p -= lr times the nearest matrix of orthogonal rows or columns to the momentum, by five Newton-Schulz steps
    (Jordan 2024); weight decay as in AdamW. adjust_lr_fn "original" (None): lr sqrt(max(1, rows / columns));
    "match_rms_adamw": 0.2 lr sqrt(max(rows, columns)). For matrices; other parameters need another optimizer:
    `groups=[optim.group(lambda name, shape: len(shape) != 2, optimizer=optim.AdamW(1e-3))]`.

    torch computes the Newton-Schulz steps in bfloat16, here they have the parameter's dtype.
    """
    limits: ClassVar[Limits] = {**Optimizer.limits, "momentum": FROM_0, "eps": FROM_0}
    lr: float | Schedule = 1e-3
    _: KW_ONLY
    weight_decay: float = 0.1
    momentum: float = 0.95
    nesterov: bool = True
    ns_coefficients: Sequence[float] = NEWTON_SCHULZ
    eps: float = 1e-7
    ns_steps: int = 5
    adjust_lr_fn: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.adjust_lr_fn not in (None, *RATES):
            raise GraphError(f"Muon: adjust_lr_fn is one of {', '.join(RATES)}, or None", user_loc())
        if not 0 < self.ns_steps < 100:
            raise GraphError(f"Muon: ns_steps is a number from 1 to 99, got {self.ns_steps}", user_loc())
        coefficients = self.ns_coefficients
        if not isinstance(coefficients, (tuple, list)) or len(coefficients) != 3 or not all(
                isinstance(c, (int, float)) and isfinite(c) for c in coefficients):
            raise GraphError("Muon: ns_coefficients are three finite numbers", user_loc())
        object.__setattr__(self, "ns_coefficients", tuple(coefficients))

    def slots(self) -> tuple[str, ...]:
        return ("momentum_buffer",)

    def update(self, p: Array, g: Array, slots: Kept, s: Scalars) -> Update:
        if p.ndim != 2:
            raise GraphError(f"Muon is for matrices; of a parameter {p.type} say which optimizer it has: groups="
                             "[optim.group(lambda name, shape: len(shape) != 2, optimizer=optim.AdamW(1e-3))]",
                             user_loc())
        m = slots["momentum_buffer"] + (g - slots["momentum_buffer"]) * (1 - self.momentum)
        u = self._orthogonal(g + (m - g) * self.momentum if self.nesterov else m)
        rows, columns = p.shape
        scale = 0.2 * sqrt(max(rows, columns)) if self.adjust_lr_fn == RATES[1] else sqrt(max(1, rows / columns))
        return shrunk(p, s, self.weight_decay) - u * as_like(s["lr"] * scale, p), {"momentum_buffer": m}

    def _orthogonal(self, u: Array) -> Array:
        """u with all singular values near 1."""
        a, b, c = self.ns_coefficients
        tall = u.shape[0] > u.shape[1]
        u = u.T if tall else u
        u = u / gc.maximum(gc.sqrt(gc.sum(u * u)), self.eps)
        for _ in range(self.ns_steps):
            gram = u @ u.T
            u = u * a + (gram * b + gram @ gram * c) @ u
        return u.T if tall else u


for _class in (Adagrad, Adadelta, Adafactor, Muon):
    formed_methods(_class, "optimizer")
