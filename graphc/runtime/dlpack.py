"""Arrays of other libraries as numpy's, by DLPack; bf16, which numpy does not import, by way of its bits."""
from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from graphc.ir.types import bf16

CAPSULE = b"dltensor"
CODE, BITS = 20, 21                 # bytes of a DLTensor behind data, device and number of axes: what an element is
UNSIGNED, BFLOAT = 1, 4             # codes (dlpack.h: DLDataTypeCode)


def from_dlpack(value: Any) -> np.ndarray:
    """`value`, which has `__dlpack__`, as an array on the same memory. Raises what its library or numpy raises where it
    is on no CPU, wants a gradient, or has numbers that numpy lacks."""
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError):
        words = _words(value)
        if words is None:
            raise
        return words.view(bf16.np)


def _words(value: Any) -> np.ndarray | None:
    """The bits of an array of bf16; None for another one."""
    capsule = value.__dlpack__()
    point = ctypes.pythonapi.PyCapsule_GetPointer
    point.restype, point.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    element = ctypes.cast(point(capsule, CAPSULE), ctypes.POINTER(ctypes.c_uint8))
    if (element[CODE], element[BITS]) != (BFLOAT, 16):
        return None
    element[CODE] = UNSIGNED            # of this export alone: the capsule is ours
    return np.from_dlpack(_Exported(capsule, value.__dlpack_device__()))


class _Exported:
    """What numpy asks for a capsule that is there already; its type has a name from Python 3.13 on."""

    def __init__(self, capsule: Any, device: tuple[int, int]) -> None:
        self.capsule, self.device = capsule, device

    def __dlpack__(self, **options: object) -> Any:
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device
