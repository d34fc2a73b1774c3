"""Learning rates as functions of the number of updates done so far."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from math import inf, log, pi

import graphc as gc
from graphc.dsl.arguments import converted
from graphc.dsl.array import Array
from graphc.dsl.elementwise import Operand
from graphc.dsl.form import formed
from graphc.dsl.live_number import LiveNumber, readable
from graphc.errors import GraphError
from graphc.ir.convert import callable_, integer, is_sequence, shown
from graphc.optim.base import Schedule, is_rate
from graphc.optim.limits import FROM_0, check_numbers


@formed
def schedule(made: Callable[..., Schedule]) -> Callable[..., Schedule]:
    """Decorator of a function that makes a schedule: what it makes can be asked with a number, too."""
    callable_(made, "schedule: made")

    @wraps(made)
    def make(*args: object, **options: object) -> Schedule:
        return readable(made(*args, **options))
    return make


@schedule
@converted
def constant(lr: float, factor: float = 1.0, steps: int = 0) -> Schedule:
    """Always lr; lr times `factor` in the first `steps` updates (torch's ConstantLR)."""
    _from_0("constant", lr=lr, factor=factor, steps=steps)
    if not steps:
        return lambda step: step * 0.0 + lr
    return lambda step: gc.where(step < steps, step * 0.0 + lr * factor, lr)


@schedule
@converted
def linear(lr: float, steps: int, start: float = 1 / 3, final: float = 1.0) -> Schedule:
    """lr times a factor that goes from `start` to `final` in `steps` updates and stays (torch's LinearLR)."""
    _positive("linear", steps)
    _from_0("linear", lr=lr, start=start, final=final)
    return lambda step: (gc.minimum(step / steps, 1.0) * (final - start) + start) * lr


@schedule
@converted
def polynomial(lr: float, steps: int, power: float = 1.0, final: float = 0.0) -> Schedule:
    """From lr to `final` in `steps` updates, as the remaining share to a power (torch's PolynomialLR)."""
    _positive("polynomial", steps)
    _from_0("polynomial", lr=lr, power=power, final=final)
    return lambda step: gc.maximum(1.0 - step / steps, 0.0) ** power * (lr - final) + final


@schedule
@converted
def cosine(lr: float, steps: int, final: float = 0.0) -> Schedule:
    """From lr to `final` along half a cosine in `steps` updates, `final` afterwards (Loshchilov and Hutter 2017).

    Examples:
        >>> schedule = optim.cosine(0.1, steps=100)
        >>> [round(schedule(step), 3) for step in (0, 50, 100)]
        [0.1, 0.05, 0.0]
    """
    _positive("cosine", steps)
    _from_0("cosine", lr=lr, final=final)
    return lambda step: (1.0 + gc.cos(gc.minimum(step / steps, 1.0) * pi)) * ((lr - final) / 2) + final


@schedule
@converted
def step_decay(lr: float, every: int, factor: float = 0.1) -> Schedule:
    """lr times `factor` once every `every` updates (torch's StepLR)."""
    _positive("step_decay", every)
    _from_0("step_decay", lr=lr, factor=factor)
    return lambda step: power(factor, gc.floor(step / every)) * lr


@schedule
@converted
def multi_step(lr: float, milestones: Sequence[int], factor: float = 0.1) -> Schedule:
    """lr times `factor` once for every milestone, a number of updates, that is reached (torch's MultiStepLR)."""
    reached = _milestones("multi_step", milestones)
    _from_0("multi_step", lr=lr, factor=factor)
    return lambda step: power(factor, sum((gc.where(step >= m, 1.0, 0.0).astype(gc.f64) for m in reached),
                                          step * 0.0)) * lr


@schedule
@converted
def cosine_restarts(lr: float, steps: int, growth: int = 1, final: float = 0.0) -> Schedule:
    """From lr to `final` along half a cosine in `steps` updates, and again and again, each time `growth` times as long
    (torch's CosineAnnealingWarmRestarts; Loshchilov and Hutter 2017)."""
    _positive("cosine_restarts", steps)
    _positive("cosine_restarts: growth", growth)
    _from_0("cosine_restarts", lr=lr, final=final)

    def rate(step: Array) -> Operand:
        start: Array = gc.floor(step / steps) * steps
        length: Operand = steps
        if growth > 1:      # half an update further, so that rounding cannot take the first of a cycle for the last
            cycle = gc.floor(gc.log1p((step + 0.5) / steps * (growth - 1)) / log(growth))
            length = gc.round(power(growth, cycle)) * steps
            start = (length - steps) / (growth - 1)
        return (1.0 + gc.cos((step - start) / length * pi)) * ((lr - final) / 2) + final
    return rate


@schedule
@converted
def one_cycle(lr: float, steps: int, rise: float = 0.3, div_factor: float = 25.0,
              final_div_factor: float = 1e4) -> Schedule:
    """Up from lr / div_factor to lr in the share `rise` of `steps` updates and down to lr / div_factor /
    final_div_factor, each along half a cosine (torch's OneCycleLR; Smith and Topin 2018)."""
    _positive("one_cycle: steps less 1", steps - 1)
    _from_0("one_cycle", lr=lr)
    if not (0 < div_factor < inf and 0 < final_div_factor < inf):
        raise GraphError(f"one_cycle: div_factor and final_div_factor are above 0, got {div_factor} and "
                         f"{final_div_factor}")
    top, first = rise * steps - 1, lr / div_factor
    if not 0 < top < steps - 1:
        raise GraphError(f"one_cycle: rise is a share of the updates that leaves some on both sides, got {rise}")

    def along(start: float, end: float, share: Array) -> Array:
        return (1.0 + gc.cos(share * pi)) * ((start - end) / 2) + end

    def rate(step: Array) -> Operand:
        step = gc.minimum(step, steps - 1)
        down = along(lr, first / final_div_factor, (step - top) / (steps - 1 - top))
        return gc.where(step <= top, along(first, lr, step / top), down)
    return rate


@schedule
@converted
def cyclic(low: float, high: float, up: int = 2000, down: int | None = None, mode: str = "triangular",
           factor: float = 1.0) -> Schedule:
    """From `low` to `high` in `up` updates, back in `down` (as many unless given), and again. mode "triangular2": each
    cycle half as high; "exp_range": factor^step as high (torch's CyclicLR; Smith 2017)."""
    down = up if down is None else down
    _positive("cyclic: up", up)
    _positive("cyclic: down", down)
    _from_0("cyclic", low=low, high=high, factor=factor)
    if mode not in MODES:
        raise GraphError(f"cyclic: mode is one of {', '.join(MODES)}, got {mode!r}")

    def rate(step: Array) -> Operand:
        cycle = gc.floor(step / (up + down))
        at = step - cycle * (up + down)
        height = gc.where(at <= up, at / up, (up + down - at) / down)
        return height * MODES[mode](factor, step, cycle) * (high - low) + low
    return rate


MODES = {"triangular": lambda factor, step, cycle: 1.0, "triangular2": lambda factor, step, cycle: power(0.5, cycle),
         "exp_range": lambda factor, step, cycle: power(factor, step)}


@schedule
@converted
def inverse_sqrt(lr: float, steps: int) -> Schedule:
    """Up to lr in the first `steps` updates, then lr sqrt(steps / number of the update) (Vaswani et al. 2017)."""
    _positive("inverse_sqrt", steps)
    _from_0("inverse_sqrt", lr=lr)
    return lambda step: gc.minimum((step + 1.0) / steps, gc.rsqrt((step + 1.0) / steps)) * lr


@schedule
@converted
def sequential(schedules: Sequence[float | Schedule], milestones: Sequence[int]) -> Schedule:
    """The first schedule (or number) up to the first milestone, a number of updates, then the second, counted from
    there, and so on (torch's SequentialLR)."""
    starts = [0, *_milestones("sequential", milestones)]
    if not is_sequence(schedules) or len(schedules) != len(starts):
        raise GraphError("sequential takes one schedule more than milestones: sequential([first, second], [100])")
    if not all(is_rate(s) for s in schedules):
        raise GraphError("sequential: schedules are numbers or functions of the number of updates")
    for number in schedules:
        _from_0("sequential", lr=number)

    def rate(step: Array) -> Operand:
        rates = [s(gc.maximum(step - start, 0.0)) if callable(s) else s for s, start in zip(schedules, starts)]
        chosen = step * 0.0 + rates[0]
        for start, later in zip(starts[1:], rates[1:]):
            chosen = gc.where(step >= start, later, chosen)
        return chosen
    return rate


@schedule
@converted
def exponential(lr: float, factor: float) -> Schedule:
    """lr times factor^step (torch's ExponentialLR)."""
    _from_0("exponential", lr=lr, factor=factor)
    return lambda step: power(factor, step) * lr


@schedule
@converted
def warmup(schedule: float | Schedule, steps: int) -> Schedule:
    """The first `steps` updates rise linearly to lr; then `schedule` (a number or a schedule), counted from their
    end.

    Examples:
        >>> schedule = optim.warmup(optim.cosine(0.1, steps=100), steps=10)
        >>> [round(schedule(step), 3) for step in (0, 9, 60)]
        [0.01, 0.1, 0.05]
    """
    _positive("warmup", steps)
    _from_0("warmup", lr=schedule)

    def rate(step: Array) -> Operand:
        after = schedule(gc.maximum(step - steps, 0.0)) if callable(schedule) else schedule
        return gc.minimum((step + 1.0) / steps, 1.0) * after
    return rate


def _milestones(name: str, milestones: Sequence[int]) -> list[int]:
    """Numbers of updates, each above the last."""
    if not is_sequence(milestones):
        raise GraphError(f"{name}: milestones are a list of numbers of updates, got {shown(milestones)}")
    found = [integer(m, f"{name}: a milestone", 0) for m in milestones]
    if found != sorted(set(found)):
        raise GraphError(f"{name}: milestones are increasing numbers of updates, got {found}")
    return found


def _positive(name: str, steps: int) -> None:
    if steps < 1:
        raise GraphError(f"{name} takes a number of updates >= 1, got {steps}")


def _from_0(name: str, **numbers: object) -> None:
    """GraphError for a number that is not finite, or below 0: parameters would become NaN, or walk uphill."""
    check_numbers(name, numbers, dict.fromkeys(numbers, FROM_0))


def power(base: float | LiveNumber, exponent: Array) -> Operand:
    """base ** exponent for a number base >= 0 and an f64 scalar exponent > 0 (a base above 0: any)."""
    if isinstance(base, LiveNumber):
        return gc.exp(exponent * gc.log(base))
    if base < 0:
        raise GraphError(f"expected a factor >= 0, got {base}")
    return gc.exp(exponent * log(base)) if base else 0.0
