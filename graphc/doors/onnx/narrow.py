"""Element types of 8 bits and less that graphc does not have. Their numbers are held in a type that has all of them
(floats of 8 and 4 bits in f16, integers of 4 and 2 bits in i8 and u8), and conversions to them round as they do.
"""
from __future__ import annotations

from functools import cached_property
from typing import Any

import ml_dtypes
import numpy as np
from onnx import TensorProto

import graphc as gc
from graphc.doors.onnx.known import Known
from graphc.dsl.array import Array, as_array
from graphc.ir.convert import choice
from graphc.ir.types import DType, f16, f32, i8, i64, u8
from graphc.records import dataclass

CODES = 256


@dataclass(frozen=True)
class NarrowType:
    """One such type: ml_dtypes' name of it and the type that holds its numbers."""
    name: str
    holder: DType

    @cached_property
    def numpy(self) -> np.dtype:
        return np.dtype(getattr(ml_dtypes, self.name))

    @property
    def is_float(self) -> bool:
        return self.holder.is_float

    @cached_property
    def grid(self) -> np.ndarray:
        """The finite numbers from 0 (of powers of two: from the least) on, in order, f64: each at its bits' number."""
        count = CODES if self.name == SCALES else CODES // 2 if "8" in self.name else 8
        values = np.arange(count, dtype=np.uint8).view(self.numpy).astype(np.float64)
        return values[np.isfinite(values)]

    def thresholds(self, round_mode: str = "nearest") -> np.ndarray:
        """From which f32 on each number but the first is what one is rounded to; the last one: from where on it is
        beyond the largest. Halves to even, which of bits is the last bit."""
        grid = self.grid
        beyond = 2 * grid[-1] if self.name == SCALES else grid[-1] + (grid[-1] - grid[-2])
        ends = np.append(grid, beyond)
        middles = (ends[:-1] + ends[1:]) / 2
        up = np.arange(len(middles)) % 2 == 1               # the upper neighbour is the even one
        if self.name == SCALES:
            middles = ends[:-1] if round_mode == "up" else ends[1:] if round_mode == "down" else middles
            up = np.full(len(middles), round_mode != "up")
        bounds = middles.astype(np.float32)
        return np.where(up, bounds, np.nextafter(bounds, np.float32(np.inf)))


SCALES = "float8_e8m0fnu"           # powers of two, no sign, no zero
NARROW: dict[int, NarrowType] = {
    **{getattr(TensorProto, n): NarrowType(name, f16) for n, name in (
        ("FLOAT8E4M3FN", "float8_e4m3fn"), ("FLOAT8E4M3FNUZ", "float8_e4m3fnuz"), ("FLOAT8E5M2", "float8_e5m2"),
        ("FLOAT8E5M2FNUZ", "float8_e5m2fnuz"), ("FLOAT4E2M1", "float4_e2m1fn"))},
    TensorProto.FLOAT8E8M0: NarrowType(SCALES, f32), TensorProto.INT4: NarrowType("int4", i8),
    TensorProto.INT2: NarrowType("int2", i8), TensorProto.UINT4: NarrowType("uint4", u8),
    TensorProto.UINT2: NarrowType("uint2", u8)}
OF_NUMPY = {kind.numpy: kind for kind in NARROW.values()}


@dataclass(frozen=True, eq=False)
class Narrow:
    """An array, or numbers, of a narrow type, held in another."""
    value: Array | Known
    kind: NarrowType


def held(array: np.ndarray) -> Any:
    """Numbers of the file of a narrow type; None for other types."""
    kind = OF_NUMPY.get(array.dtype)
    return None if kind is None else Narrow(Known.of(array.astype(kind.holder.np), kind.holder), kind)


def narrowed(x: Array, kind: NarrowType, saturate: bool = True, round_mode: str = "nearest") -> Narrow:
    """x converted. saturate: what is beyond the largest number becomes it, else infinite, or NaN where the type has no
    infinity. Integers keep their lowest bits."""
    choice(round_mode, "round_mode", ("up", "down", "nearest"))
    if not kind.is_float:
        return Narrow(_lowest_bits(x, kind), kind)
    wide = x.astype(f32)
    size = gc.abs(wide) if kind.name != SCALES else wide
    with np.errstate(all="ignore"):
        top, nothing = np.array([np.inf, np.nan]).astype(kind.numpy).astype(np.float64)
    over = kind.grid[-1] if saturate or kind.name.startswith("float4") else top if np.isinf(top) else np.nan
    table = np.append(kind.grid, over).astype(kind.holder.np)
    value = gc.take(as_array(table), gc.searchsorted(as_array(kind.thresholds(round_mode)), size, "right"), 0)
    value = gc.where(gc.isnan(wide), as_array(np.asarray(nothing, kind.holder.np)), value)
    if kind.name == SCALES:
        return Narrow(value, kind)
    return Narrow(gc.where(wide < 0, -value, value), kind)


def _lowest_bits(x: Array, kind: NarrowType) -> Array:
    bits, signed = int(kind.name[-1]), kind.holder.is_signed
    low = x.astype(i64) & ((1 << bits) - 1)
    return (gc.where(low >= 1 << (bits - 1), low - (1 << bits), low) if signed else low).astype(kind.holder)
