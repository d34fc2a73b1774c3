"""Memory of large results: numpy asks us for it (NEP 49), so that it starts where vectors can be written past the
caches.

numpy's own allocator starts arrays at any multiple of 16 bytes.
"""
from __future__ import annotations

import ctypes
from functools import cache

from graphc.runtime.native import native

HANDLER_NAME = b"graphc"
VERSION = 1                     # of PyDataMem_Handler


class _Handler(ctypes.Structure):
    """PyDataMem_Handler of numpy's C API."""
    _fields_ = [("name", ctypes.c_char * 127), ("version", ctypes.c_uint8), ("context", ctypes.c_void_p),
                ("malloc", ctypes.c_void_p), ("calloc", ctypes.c_void_p), ("realloc", ctypes.c_void_p),
                ("free", ctypes.c_void_p)]


@cache
def handler() -> object:
    """The capsule that tells numpy whom to ask. It and all it points to last as long as the process, since arrays
    do."""
    functions = [native().address(f"gc_mem_{name}") for name in ("malloc", "calloc", "realloc", "free")]
    table = _Handler(HANDLER_NAME, VERSION, None, *functions)
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    capsule = new(ctypes.addressof(table), CAPSULE, None)
    for kept in (table, capsule):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))
    return capsule


CAPSULE = b"mem_handler"        # the name that numpy looks for; the capsule keeps its address
