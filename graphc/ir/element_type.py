"""What an element of an array is: bits, sign and range, and how numpy calls it."""
from __future__ import annotations

from functools import cached_property
from importlib import import_module

import numpy as np

from graphc.records import dataclass

BFLOAT16 = "bfloat16"


@dataclass(frozen=True, eq=False)
class ElementType:
    """The facts of an element type, from which all else follows.

    `mantissa`: stored bits of a float's significand; what is left beside them and the sign is its exponent.
    `packs`: the name of the type of the numbers that an element holds, the first in its lowest bits.
    """
    name: str
    kind: str                       # "float", "int", "bool", or "packed": several numbers that products take together
    bits: int                       # in registers; bool takes a byte in memory
    numpy: str                      # numpy's name of it
    mantissa: int = 0
    is_signed: bool = True
    packs: str = ""

    @cached_property
    def np(self) -> np.dtype:
        """numpy's type; that of bf16 is registered by ml_dtypes, which is loaded when the first bf16 array is made."""
        return np.dtype(getattr(import_module("ml_dtypes"), self.numpy) if self.numpy == BFLOAT16 else self.numpy)

    @property
    def written(self) -> str:
        """numpy's type as code writes it."""
        return f"ml_dtypes.{self.numpy}" if self.numpy == BFLOAT16 else "np.bool_" if self.kind == "bool" else (
            f"np.{self.numpy}")

    @property
    def itemsize(self) -> int:
        return (self.bits + 7) // 8

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    @property
    def is_int(self) -> bool:
        return self.kind == "int"

    @property
    def is_packed(self) -> bool:
        """Whether an element is several numbers, the factors of neighbouring terms of a sum."""
        return self.kind == "packed"

    @property
    def is_storage(self) -> bool:
        """Whether numbers are only kept so: arithmetic converts them to the type `compute` and rounds its result."""
        return self.is_float and self.bits < 32

    @cached_property
    def range(self) -> tuple[int | float, int | float]:
        """The lowest and the highest finite number."""
        if self.is_float:
            high = (2 - 2.0 ** -self.mantissa) * 2.0 ** (2 ** (self.bits - self.mantissa - 2) - 1)
            return -high, high
        if self.kind == "bool":
            return 0, 1
        return (-(1 << self.bits - 1), (1 << self.bits - 1) - 1) if self.is_signed else (0, (1 << self.bits) - 1)
