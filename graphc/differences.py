"""Slopes by differences, and the verdict on a derivative: right, wrong, or at a kink."""
from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from graphc.records import dataclass

LADDER = (1.0, 0.1, 0.01)           # of the step: a kink nearby is left behind by a smaller one
# left and right slopes of a smooth function close in with the step; at a kink they stay apart
KINK_GAP = 0.5
BISECTIONS = 400                    # probes that the search for the wrong element of a direction may take
NOISE = 8 * np.finfo(np.float64).eps
Valued = Callable[[np.ndarray], tuple[float, float]]     # a point to the function there, and the spread of what it sums


@dataclass(frozen=True)
class Tolerance:
    """What counts as equal: |analytic - numeric| <= rtol * the larger + atol + rounding of the differences."""
    step: float
    rtol: float
    atol: float


@dataclass(frozen=True)
class Slopes:
    """Of a function along a line: by the step forward, by the step back, and how far rounding may have moved them."""
    right: float
    left: float
    noise: float

    @property
    def central(self) -> float:
        return (self.right + self.left) / 2


@dataclass(frozen=True)
class Verdict:
    """One derivative: `where` it was taken, by the gradient and by differences; `excess` is their difference over
    what is tolerated."""
    where: str
    analytic: float
    numeric: float
    excess: float
    kink: bool = False

    @property
    def ok(self) -> bool:
        return bool(self.excess <= 1)

    def __bool__(self) -> bool:
        return self.ok

    @property
    def error(self) -> float:
        return abs(self.analytic - self.numeric)


class Line:
    """The function of one argument along `direction` (indices into the flat argument, and how far each moves)."""

    def __init__(self, value: Valued, at: np.ndarray, indices: np.ndarray, moves: np.ndarray) -> None:
        self.value, self.at, self.indices, self.moves = value, at, indices, moves
        self.middle, self.spread = value(at)

    def slopes(self, step: float) -> Slopes:
        right = (self._moved(step) - self.middle) / step
        left = (self.middle - self._moved(-step)) / step
        return Slopes(right, left, NOISE * (self.spread + abs(self.middle)) / step)

    def _moved(self, step: float) -> float:
        x = self.at.copy()
        x.flat[self.indices] += step * self.moves
        return self.value(x)[0]


def judged(line: Line, gradient: np.ndarray, tolerance: Tolerance, where: str) -> Verdict:
    """The derivative along the line. At a kink any slope between the two one-sided ones is right; the verdict says
    that it was one."""
    analytic = float(np.dot(gradient.flat[line.indices], line.moves))
    found = [line.slopes(tolerance.step * factor) for factor in LADDER[:1]]
    best = _compared(analytic, found[0], tolerance, where)
    for factor in LADDER[1:]:
        if best.ok:
            return best
        found.append(line.slopes(tolerance.step * factor))
        best = min(best, _compared(analytic, found[-1], tolerance, where), key=lambda v: v.excess)
    return best if best.ok else _at_kink(best, found, tolerance)


def elements(value: Valued, at: np.ndarray, gradient: np.ndarray, chosen: np.ndarray,
             tolerance: Tolerance) -> list[Verdict]:
    """A verdict for each of the elements `chosen` (flat indices) of the argument."""
    return [_single(value, at, gradient, i, tolerance) for i in chosen]


def direction(value: Valued, at: np.ndarray, gradient: np.ndarray, random: np.random.Generator, tolerance: Tolerance,
              name: str) -> list[Verdict]:
    """The verdict on a direction in which all elements move; where it is not right, those on the elements that
    explain it, found by halving."""
    moves = random.choice((-1.0, 1.0), at.size) * _scale(at, slice(None)) / np.sqrt(at.size)
    whole = judged(Line(value, at, np.arange(at.size), moves), gradient, tolerance, name)
    if whole.ok and not whole.kink:
        return [whole]
    return _halved(value, at, gradient, moves, tolerance) or [whole]


def _halved(value: Valued, at: np.ndarray, gradient: np.ndarray, moves: np.ndarray,
            tolerance: Tolerance) -> list[Verdict]:
    """Verdicts on single elements at a kink, up to the first that is wrong."""
    found: list[Verdict] = []
    todo: list[np.ndarray] = [np.arange(at.size)]
    for _ in range(BISECTIONS):
        if not todo or (found and not found[-1].ok):
            return found
        part = todo.pop()
        verdict = _single(value, at, gradient, part[0], tolerance) if len(part) == 1 else judged(
            Line(value, at, part, moves[part]), gradient, tolerance, "")
        if len(part) == 1 and (verdict.kink or not verdict.ok):
            found.append(verdict)
        elif not verdict.ok or verdict.kink:
            todo += [part[:len(part) // 2], part[len(part) // 2:]]
    return []


def _single(value: Valued, at: np.ndarray, gradient: np.ndarray, i: int, tolerance: Tolerance) -> Verdict:
    where = str([int(n) for n in np.unravel_index(i, at.shape)]) if at.ndim else ""
    scale = float(_scale(at, i))
    verdict = judged(Line(value, at, np.array([i]), np.array([scale])), gradient, tolerance, where)
    return Verdict(where, verdict.analytic / scale, verdict.numeric / scale, verdict.excess, verdict.kink)


def _scale(at: np.ndarray, which: int | slice) -> np.ndarray:
    """Steps grow with the numbers that they are added to."""
    return np.maximum(1.0, np.abs(at.reshape(-1)[which]))


def _compared(analytic: float, slopes: Slopes, tolerance: Tolerance, where: str) -> Verdict:
    error = abs(analytic - slopes.central)
    return Verdict(where, analytic, slopes.central, _ratio(error, _allowed(analytic, slopes, tolerance)))


def _at_kink(best: Verdict, found: Sequence[Slopes], tolerance: Tolerance) -> Verdict:
    """The verdict where differences do not agree with the gradient: at a kink the slopes on both sides stay apart as
    the step shrinks."""
    before, last = found[-2:]
    gap, allowed = abs(last.right - last.left), _allowed(best.analytic, last, tolerance)
    if not np.isfinite(gap) or gap <= 4 * allowed or gap < KINK_GAP * abs(before.right - before.left):
        return best
    low, high = sorted((last.left, last.right))
    outside = max(low - best.analytic, best.analytic - high, 0.0)
    return Verdict(best.where, best.analytic, last.central, _ratio(outside, allowed), kink=True)


def _allowed(analytic: float, slopes: Slopes, tolerance: Tolerance) -> float:
    return tolerance.rtol * max(abs(analytic), abs(slopes.central)) + tolerance.atol + slopes.noise


def _ratio(error: float, allowed: float) -> float:
    """error / allowed; infinity for NaN, so that it never passes."""
    return error / allowed if np.isfinite(error) else np.inf
