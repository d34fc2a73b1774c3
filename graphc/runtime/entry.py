"""The fast Python entry: descriptors for the native function of `entry_ir`, and builtins bound to them."""
from __future__ import annotations

import ctypes
import sys
import sysconfig
from collections.abc import Callable
from functools import cache
from typing import Any, NoReturn, Protocol

import numpy as np

from graphc.codegen.routines.values import Field
from graphc.runtime.dlpack import FOREIGN, element_code
from graphc.runtime.entry_layout import RESULT_KINDS, EntryRecord, SpecRecord
from graphc.runtime.memory import address
from graphc.runtime.native import native
from graphc.runtime.result_memory import handler
from graphc.runtime.signature import ArraySpec, Signature

OUT = sys.intern("out")         # keyword names are interned: native code compares objects
METH_FASTCALL, METH_KEYWORDS = 0x80, 0x02


class Descriptor:
    """The record that native code reads, and everything it points to. `words` is an `EntryRecord`."""

    def __init__(self, signature: Signature, main: int, lock: int, slow: Callable[..., object],
                 failed: Callable[[int, int], NoReturn], writes: bool = False):
        """Without frames and derived values, which `use` gives it."""
        self.words = np.zeros(EntryRecord.size // 8, np.int64)
        self.address = address(self.words)
        names = [spec.name for spec in signature.outputs]
        input_specs, output_specs = _specs(signature.inputs), _specs(signature.outputs)
        keys = np.array([id(name) for name in names], np.int64)
        self.spares: list[np.ndarray | None] = [None] * (2 * len(signature.outputs))
        self._kept = (slow, failed, names, input_specs, output_specs, keys)
        self._set(EntryRecord.slow, id(slow))
        self._set(EntryRecord.failed, id(failed))
        self._set(EntryRecord.n_inputs, len(signature.inputs))
        self._set(EntryRecord.n_outputs, len(signature.outputs))
        self._set(EntryRecord.result, RESULT_KINDS[signature.result])
        self._set(EntryRecord.main, main)
        self._set(EntryRecord.input_specs, address(input_specs[0]))
        self._set(EntryRecord.output_specs, address(output_specs[0]))
        self._set(EntryRecord.foreign, address(FOREIGN.words))
        self._set(EntryRecord.keys, address(keys))
        self._set(EntryRecord.lock, lock)
        self._set(EntryRecord.out_word, id(OUT))
        self._set(EntryRecord.writes, int(writes))
        self._set(EntryRecord.spares, id(self.spares))
        self._set(EntryRecord.handler, id(handler()))

    def switch(self, enabled: bool, release: bool) -> None:
        """Whether native calls are made at all, and whether they let other Python threads go on."""
        self._set(EntryRecord.release, int(release))
        self._set(EntryRecord.enabled, int(enabled))

    def use(self, frames: int, arena_bytes: int, scratch_bytes: int, sizes: np.ndarray, version: np.ndarray) -> None:
        """Calls take frames from the list at this address, that have so many bytes; what the code needs of the sizes;
        `version`: a `DerivedVersion`."""
        self.sizes, self.version = sizes, version
        self._set(EntryRecord.derived, address(version))
        self._set(EntryRecord.frames, frames)
        self._set(EntryRecord.arena_bytes, arena_bytes)
        self._set(EntryRecord.scratch_bytes, scratch_bytes)
        self._set(EntryRecord.sizes, address(sizes))

    def derive(self, prepare: int, passing: np.ndarray, anew: bool) -> None:
        """Calls make the values that are derived from the state anew when it has changed, by `prepare`, which needs the
        memory `passing` meanwhile. `anew`: calls themselves change what they depend on."""
        self.passing = passing
        self._set(EntryRecord.prepare, prepare)
        self._set(EntryRecord.passing, address(passing))
        self._set(EntryRecord.passing_bytes, passing.nbytes)
        self._set(EntryRecord.derives, 1)
        self._set(EntryRecord.anew, int(anew))

    @property
    def enabled(self) -> bool:
        return bool(self._get(EntryRecord.enabled))

    @property
    def releases(self) -> bool:
        return bool(self._get(EntryRecord.release))

    def _get(self, field: Field[object]) -> int:
        return int(self.words[field.offset // 8])

    def _set(self, field: Field[object], value: int) -> None:
        self.words[field.offset // 8] = value


class SlowPath(Protocol):
    """Who takes the calls that native code leaves to Python."""
    def slow(self, *args: object, out: object = None, **named: object) -> object: ...


def make_entry(descriptor: Descriptor, owner: SlowPath) -> Callable[..., Any]:
    """A builtin that serves `descriptor` and keeps `owner` alive; `owner`'s slow path where the interpreter has no
    GIL."""
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return owner.slow
    return bound_builtin(_method(), (descriptor.address, descriptor, owner))


class MethodDef(ctypes.Structure):
    """CPython's PyMethodDef."""
    _fields_ = [("name", ctypes.c_char_p), ("function", ctypes.c_void_p), ("flags", ctypes.c_int),
                ("doc", ctypes.c_char_p)]

    @classmethod
    def of(cls, function: int) -> MethodDef:
        """Of the native function at this address, to be kept: it outlives every builtin made from it."""
        method = cls(b"run", function, METH_FASTCALL | METH_KEYWORDS, b"Run the compiled function on arrays.")
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(method))
        return method


def bound_builtin(method: MethodDef, itself: tuple[object, ...]) -> Callable[..., Any]:
    """A builtin whose function gets the tuple `itself`, which it keeps alive, as `self`."""
    new = ctypes.pythonapi.PyCFunction_NewEx
    new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.py_object, ctypes.py_object)
    return new(ctypes.addressof(method), itself, "graphc")


@cache
def _method() -> MethodDef:
    """The one method definition."""
    return MethodDef.of(native().address("gc_entry"))


def _specs(specs: tuple[ArraySpec, ...]) -> tuple[np.ndarray, list[object]]:
    """`SpecRecord`s, and what they point to."""
    dims = [np.array(spec.type.shape or (0,), np.int64) for spec in specs]
    dtypes = [spec.type.dtype.np for spec in specs]
    rows = np.zeros((len(specs), SpecRecord.size // 8), np.int64)
    for row, dtype, spec, d in zip(rows, dtypes, specs, dims):
        row[:4] = id(dtype), len(spec.type.shape), address(d), spec.type.nbytes
        row[4:].view(np.int32)[:] = element_code(spec.type.dtype), dtype.itemsize
    return rows.reshape(-1), [dims, dtypes]
