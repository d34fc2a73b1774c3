"""Arrays of other libraries as numpy's, by DLPack; bf16, which numpy does not import, by way of its bits. Types that
offer DLPack's exchange functions are remembered, so that the native entry reads their arrays by itself."""
from __future__ import annotations

import ctypes
import sys
from typing import Any

import numpy as np

from graphc.ir.types import DType, bf16
from graphc.runtime.entry_layout import MOST_TYPES, ForeignType, ForeignTypes
from graphc.runtime.tensor_words import tensor_words

CAPSULE, EXCHANGE = b"dltensor", b"dlpack_exchange_api"
CODE, BITS = 20, 21                 # bytes of a DLTensor behind data, device and number of axes: what an element is
SIGNED, UNSIGNED, FLOAT, BFLOAT, BOOL = 0, 1, 2, 4, 6       # codes (dlpack.h: DLDataTypeCode)
MAJOR = 1                           # version of dlpack.h whose exchange functions are known
# Words of a DLPackExchangeAPI: the one of an older version, and dltensor_from_py_object_no_sync.
PREVIOUS, EXPORT = 1, 5
# as PyTorch calls what DLPack does not tell
GRADIENT, NEGATED, RECORDING = sys.intern("requires_grad"), sys.intern("is_neg"), "is_grad_enabled"


def from_dlpack(value: Any) -> np.ndarray:
    """`value`, which has `__dlpack__`, as an array on the same memory. Raises what its library or numpy raises where it
    is on no CPU, wants a gradient while gradients are recorded, has no memory, or has numbers that numpy lacks."""
    if _is_negated(value):
        value = value.resolve_neg()
    if getattr(value, GRADIENT, False) is True and (ask := _recording(type(value))) is not None and not ask():
        value = value.detach()
    array = _from_dlpack(value)
    FOREIGN.learn(type(value))
    return array


def _is_negated(value: Any) -> bool:
    """Whether its numbers have the other sign in memory, which `__dlpack__` does not tell."""
    ask = getattr(value, NEGATED, None)
    return ask is not None and bool(ask())


def _recording(type: type) -> Any:
    """The function of its library that says whether gradients are recorded at present; None where it has none."""
    modules = (sys.modules.get(base.__module__) for base in type.__mro__)
    return next((ask for module in modules if (ask := getattr(module, RECORDING, None)) is not None), None)


def _from_dlpack(value: Any) -> np.ndarray:
    try:
        array = np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError):
        words = _words(value)
        if words is None:
            raise
        return words.view(bf16.np)
    if array.flags.owndata and array.size:
        raise BufferError("its library knows no memory of it")         # numpy has made some, with any numbers
    return array


def _words(value: Any) -> np.ndarray | None:
    """The bits of an array of bf16; None for another one."""
    capsule = value.__dlpack__()
    element = ctypes.cast(_pointer(capsule, CAPSULE), ctypes.POINTER(ctypes.c_uint8))
    if (element[CODE], element[BITS]) != (BFLOAT, 16):
        return None
    element[CODE] = UNSIGNED            # of this export alone: the capsule is ours
    return np.from_dlpack(_Exported(capsule, value.__dlpack_device__()))


def _pointer(capsule: object, name: bytes) -> int:
    """What a capsule of this name holds."""
    point = ctypes.pythonapi.PyCapsule_GetPointer
    point.restype, point.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    return int(point(capsule, name))


class _Exported:
    """What numpy asks for a capsule that is there already; its type has a name from Python 3.13 on."""

    def __init__(self, capsule: Any, device: tuple[int, int]) -> None:
        self.capsule, self.device = capsule, device

    def __dlpack__(self, **options: object) -> Any:
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device


def element_code(dtype: DType) -> int:
    """What DLPack calls an element of this type, as `DLTensor.element` has it; -1 where it has no such type."""
    if dtype.is_packed:
        return -1
    floats, ints = BFLOAT if dtype is bf16 else FLOAT, SIGNED if dtype.is_signed else UNSIGNED
    code = {"float": floats, "int": ints, "bool": BOOL}[dtype.kind]
    return code | max(dtype.bits, 8) << 8 | 1 << 16


class _Foreign:
    """The table that the native entry reads, a `ForeignTypes`. What it refers to lives as long as the process."""

    def __init__(self) -> None:
        self.words = np.zeros(ForeignTypes.size // 8, np.int64)
        self._seen: list[type] = []
        self._kept: list[object] = []

    def learn(self, type: type) -> None:
        """Makes a type known if it offers exchange functions itself. Those of a base class say nothing of what else
        its arrays are."""
        capsule = vars(type).get("__dlpack_c_exchange_api__")
        if capsule is None or type in self._seen or len(self._seen) == MOST_TYPES:
            return
        self._seen.append(type)
        export = _export(_pointer(capsule, EXCHANGE))
        if not export:
            return
        number = int(self.words[0])
        at = (ForeignTypes.rows.offset + number * ForeignType.size) // 8
        recording, negated, words = _recording(type), getattr(type, NEGATED, None), tensor_words(type)
        self._kept += recording, negated
        self.words[at:at + ForeignType.size // 8] = (
            id(type), export, 0 if getattr(type, GRADIENT, None) is None else id(GRADIENT),
            0 if recording is None else id(recording), 0 if negated is None else id(negated),
            *((0, 0, 0, 0) if words is None else (words.inner, words.bits, words.negated, words.recorded)))
        self.words[0] = number + 1


def _export(api: int | None) -> int:
    """Where the function is that fills a DLTensor; 0 where there is none of a known version."""
    while api:
        words = ctypes.cast(api, ctypes.POINTER(ctypes.c_void_p))
        if ctypes.cast(api, ctypes.POINTER(ctypes.c_uint32))[0] == MAJOR:
            return words[EXPORT] or 0
        api = words[PREVIOUS]
    return 0


FOREIGN = _Foreign()
