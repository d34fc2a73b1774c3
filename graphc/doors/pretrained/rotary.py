"""Rotary positions as configs describe them: how fast each pair of features turns (Su et al. 2021), and how that was
changed for longer texts."""
from __future__ import annotations

from math import ceil, floor, log, pi

import numpy as np

import graphc as gc
from graphc import nn
from graphc.doors.pretrained.fields import Fields
from graphc.dsl.context import user_loc
from graphc.errors import GraphError
from graphc.nn.position import frequencies
from graphc.records import dataclass

KINDS = ("default", "linear", "llama3", "yarn")
BASE = 10000.0


@dataclass(frozen=True)
class Turning:
    """Angles per place of the pairs of features, [D / 2], and what queries and keys are multiplied by besides.
    `halves`: the pairs are (x[i], x[i + D / 2]), else (x[2i], x[2i + 1])."""
    angles: tuple[float, ...]
    factor: float = 1.0
    halves: bool = True


class Rotary(nn.RotaryPosition):
    """x [..., T, D] turned by places."""

    def __init__(self, turning: Turning) -> None:
        super().__init__(halves=turning.halves)
        self.turning = turning

    def forward(self, x: gc.Array) -> gc.Array:
        y = super().forward(x)
        return y if self.turning.factor == 1 else y * self.turning.factor

    def _frequencies(self, width: int) -> np.ndarray:
        beside, apart = (np.tile, np.repeat) if self.halves else (np.repeat, np.tile)
        return beside(np.array(self.turning.angles), 2) * apart([-1, 1], width // 2)


def turning_of(fields: Fields, width: int, context: int, base: float = BASE) -> Turning:
    """Of heads of `width` features, by the config: `rope_parameters`, or the older `rope_theta` and `rope_scaling`."""
    newer, scaling = fields.table("rope_parameters"), fields.table("rope_scaling")
    theta = fields.number("rope_theta", base)
    if newer and scaling:
        raise GraphError(f"{fields.where} has rope_parameters and rope_scaling: one of them only", user_loc())
    table = newer or scaling or {}
    return scaled_turning(Fields(f"{fields.where}: {'rope_parameters' if newer else 'rope_scaling'}", table),
                          width, context, theta)


def scaled_turning(fields: Fields, width: int, context: int, base: float) -> Turning:
    """By one table of a config. GraphError for a kind that depends on the text's length, or is not known."""
    kind = fields.text("rope_type", fields.text("type", "default"))
    fields.only("rope_type", *KINDS)
    fields.only("type", *KINDS)
    fields.only("partial_rotary_factor", 1.0, 1)
    base = fields.number("rope_theta", base)
    slow, factor = frequencies(width, base), 1.0
    if kind == "linear":
        slow = slow / fields.number("factor")
    elif kind == "llama3":
        slow = _by_wavelength(fields, slow)
    elif kind == "yarn":
        slow, factor = _yarn(fields, slow, base, context)
    fields.finish()
    return Turning(tuple(slow.tolist()), factor)


def _by_wavelength(fields: Fields, slow: np.ndarray) -> np.ndarray:
    """Llama 3.1's rule: long waves are slowed by `factor`, short ones stay, those between are mixed."""
    factor, low, high = (fields.number(n) for n in ("factor", "low_freq_factor", "high_freq_factor"))
    known = fields.number("original_max_position_embeddings")
    wavelength = 2 * pi / slow
    share = np.clip((known / wavelength - low) / (high - low), 0, 1)
    return slow * (share + (1 - share) / factor)


def _yarn(fields: Fields, slow: np.ndarray, base: float, context: int) -> tuple[np.ndarray, float]:
    """YaRN (Peng et al. 2023): pairs that turn often stay, those that turn seldom are slowed, between them a ramp; the
    scores are sharpened by a factor."""
    width, factor = 2 * len(slow), fields.number("factor")
    known = fields.number("original_max_position_embeddings", context)
    fast, rare = fields.number("beta_fast", 32), fields.number("beta_slow", 1)
    ends = [width * log(known / (turns * 2 * pi)) / (2 * log(base)) for turns in (fast, rare)]
    if fields.flag("truncate", True):
        ends = [floor(ends[0]), ceil(ends[1])]
    low, high = max(ends[0], 0), min(ends[1], width - 1)
    ramp = np.clip((np.arange(len(slow)) - low) / (high - low if high != low else 0.001), 0, 1)
    return slow * (1 - ramp) + slow / factor * ramp, _sharpness(fields, factor)


def _sharpness(fields: Fields, factor: float) -> float:
    """What YaRN multiplies queries and keys by."""
    given = fields.number("attention_factor", 0)
    some, all_ = fields.number("mscale", 0), fields.number("mscale_all_dim", 0)

    def grown(scale: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * scale * log(factor) + 1
    return given or (grown(some) / grown(all_) if some and all_ else grown(1))
