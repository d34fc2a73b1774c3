"""L-BFGS: a descent direction from the last changes of parameters and gradients, of all parameters together."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY
from typing import ClassVar

import graphc as gc
from graphc.dsl.array import Array
from graphc.dsl.context import user_loc
from graphc.dsl.form import formed, formed_methods
from graphc.errors import GraphError
from graphc.ir.dims import Sizes
from graphc.optim.base import Kept, Optimizer, Scalars, Schedule, Update, as_like, decayed
from graphc.optim.limits import FROM_0, Limits
from graphc.records import dataclass

LEAST = 1e-10                       # curvature below which a pair is not kept, as in torch


@formed
@dataclass(frozen=True)
class LBFGS(Optimizer):
    """L-BFGS with steps of fixed length: p += lr d for the quasi-Newton direction d, of the last `history_size` changes
    of parameters and gradients. One call is one update, as torch.optim.LBFGS(max_iter=1) with no line search makes
    it: the first is shortened to lr min(1, 1 / sum |g|), and one along which the loss would fall by less than
    `tolerance_change` is left out.

    Meant for the same batch in every call (all data), whose gradients differ by curvature alone; of batches that
    change, the direction is noise. There is no line search, which would ask for the loss several times in a step: where
    steps of lr=1 are too long, take a lower one, or scipy.optimize.minimize with gc.value_and_grad. Groups have no
    options of their own.

    Slots of a parameter: 2 history_size + 2 arrays of its shape. The direction is the compact form of R. Byrd, J.
    Nocedal and R. Schnabel, "Representations of quasi-Newton matrices and their use in limited memory methods" (1994),
    theorem 2.2, equal to the usual two loops: products of all pairs at once, and two triangular systems in f64.

    Examples:
        >>> x = np.linspace(-1, 1, 8, dtype=np.float32)[:, None]
        >>> step = gc.train_step(nn.Linear(1), loss=nn.mse, optimizer=optim.LBFGS(), x=gc.f32[8, 1], y=gc.f32[8, 1])
        >>> losses = [step(x, 3 * x) for _ in range(12)]
        >>> step.state["weight"].round(3)
        array([[3.]], dtype=float32)
    """
    limits: ClassVar[Limits] = {**Optimizer.limits, "tolerance_change": FROM_0}
    lr: float | Schedule = 1.0
    _: KW_ONLY
    history_size: int = 10
    tolerance_change: float = 1e-9

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.groups):
            raise GraphError("LBFGS takes no groups: its direction is that of all parameters together", user_loc())
        if not 1 <= self.history_size <= 1000:
            raise GraphError(f"LBFGS: history_size is from 1 to 1000, got {self.history_size}", user_loc())

    def slot_shapes(self, shape: Sizes) -> Mapping[str, Sizes]:
        past = (self.history_size, *shape)
        return {"old_stps": past, "old_dirs": past, "prev_step": shape, "prev_grad": shape}

    def update_all(self, parameters: Sequence[tuple[Array, Array, Kept]], s: Scalars) -> list[Update]:
        grads = [decayed(g, p, self.weight_decay) for p, g, _ in parameters]
        turns = [g - kept["prev_grad"] for g, (_, _, kept) in zip(grads, parameters)]
        moves = [kept["prev_step"] for _, _, kept in parameters]
        good = _dot(turns, moves) > LEAST
        past = [tuple(_kept(good, kept[slot], new) for slot, new in (("old_stps", move), ("old_dirs", turn)))
                for (_, _, kept), move, turn in zip(parameters, moves, turns)]
        directions = self._directions(grads, past)
        first = gc.equal(s["step"], 0)
        total = sum((gc.sum(gc.abs(g)).astype(gc.f64) for g in grads), gc.full((), 0.0, gc.f64))
        length = s["lr"] * gc.where(first, 1.0 / gc.maximum(total, 1.0), 1.0)
        length = gc.where(_dot(grads, directions) > -self.tolerance_change, 0.0, length)
        made: list[Update] = []
        for (p, _, _), g, d, (old_stps, old_dirs) in zip(parameters, grads, directions, past):
            step = d * as_like(length, p)
            made.append((p + step, {"old_stps": old_stps, "old_dirs": old_dirs, "prev_step": step, "prev_grad": g}))
        return made

    def _directions(self, grads: Sequence[Array], past: Sequence[tuple[Array, ...]]) -> list[Array]:
        """-H g for the inverse Hessian H of the pairs; those that are not there yet are zeros, and count nothing."""
        m = self.history_size
        rows = [(s.reshape((m, -1)), y.reshape((m, -1)), g.reshape(-1)) for (s, y), g in zip(past, grads)]
        sy, yy = (_total([a @ y.T for a, y in pairs]) for pairs in ([(s, y) for s, y, _ in rows],
                                                                    [(y, y) for _, y, _ in rows]))
        sg, yg = _total([s @ g for s, _, g in rows]), _total([y @ g for _, y, g in rows])
        curvature = gc.diagonal(sy)
        missing = gc.equal(curvature, 0)
        upper = gc.triu(sy) + gc.eye(m, dtype=gc.f64) * gc.where(missing, 1.0, 0.0)
        scale = gc.where(missing[m - 1], 1.0, curvature[m - 1] / gc.where(missing[m - 1], 1.0, yy[m - 1, m - 1]))
        a = gc.solve_triangular(upper, sg)
        b = gc.solve_triangular(upper, curvature * a - scale * (yg - yy @ a), transpose=True)
        found = []
        for s, y, g in rows:
            weights = [as_like(v, g) for v in (b, scale * a, scale)]
            found.append(weights[1] @ y - weights[0] @ s - g * weights[2])
        return [d.reshape(g.shape) for d, g in zip(found, grads)]


formed_methods(LBFGS, "optimizer")


def _kept(good: Array, old: Array, new: Array) -> Array:
    """The history with another entry at its end, if that is good."""
    return gc.where(good, gc.concat([old[1:], gc.expand_dims(new, 0)], 0), old)


def _total(parts: Sequence[Array]) -> Array:
    """Their sum, in f64."""
    total = parts[0].astype(gc.f64)
    for part in parts[1:]:
        total = total + part.astype(gc.f64)
    return total


def _dot(xs: Sequence[Array], ys: Sequence[Array]) -> Array:
    """The sum of the products of all elements of all arrays, f64."""
    return _total([gc.sum(x * y) for x, y in zip(xs, ys)])
