"""The runtime's own machine code: thread pool, lock and Python entry; compiled once per machine (disk cache), loaded
once per process."""
from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache as once
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from graphc.codegen.llvm import cache
from graphc.codegen.llvm.host import can_run
from graphc.codegen.llvm.jit import Loaded, cached, load_cached
from graphc.codegen.llvm.workers import begun
from graphc.contained import contained
from graphc.errors import InternalError
from graphc.once import loaded as loaded_module
from graphc.records import dataclass
from graphc.runtime.python_api import NUMPY_ROWS, PYTHON_FUNCTIONS, PYTHON_OBJECTS, PyArray_Type
from graphc.schedule.target import NEON, SSE2, Target

if TYPE_CHECKING:
    # what ctypes takes as a pointer: an address, an array, or `byref` of a variable
    Address: TypeAlias = "int | ctypes.Array[ctypes.c_void_p] | ctypes._CArgObject"

EXPORTS = (
    "gc_parallel", "gc_spin", "gc_lock", "gc_unlock", "gc_transfer", "gc_run", "gc_entry", "gc_call_arrays",
    "gc_call_waiting", "gc_cancel", "gc_pop_frame", "gc_push_frame", "gc_add_frame",
    "gc_drop_frames", "gc_entry_for_sizes", "gc_sizes_row", "gc_data_pointers",
    "gc_copy_runs", "gc_mem_malloc", "gc_mem_calloc", "gc_mem_realloc", "gc_mem_free")


@dataclass(frozen=True)
class Native:
    """Python's view of the runtime's functions. `run`, `lock`, `transfer`, `call_waiting` and `copy_runs` let other
    Python threads go on, the others do not."""
    loaded: Loaded
    spin: Callable[[int], None]                         # (rounds)
    run: Callable[[int, int], int]                      # (address of gc_main, context) -> return code
    lock: Callable[[int, int], int]                     # (address of a lock word, milliseconds) -> 1 when taken
    unlock: Callable[[int], None]                       # (address of a lock word)
    # (lock word, rows, count, versions more, expected version, milliseconds) -> COPIED, OTHER_VERSION or LOCK_BUSY
    transfer: Callable[[int, int, int, int, int, int], int]
    transfer_now: Callable[[int, int, int, int, int, int], int]
    # (descriptor, tables of inputs and outputs, where the status goes) -> code or BUSY
    call: Callable[[int, Address, Address, Address], int]
    # (descriptor, tables of input and output addresses, job) -> code, BUSY or NO_FRAME
    call_waiting: Callable[[int, int, int, int], int]
    cancel: Callable[[int], None]                       # (job)
    pop_frame: Callable[[int], int | None]              # (list) -> frame
    push_frame: Callable[[int, int], None]              # (list, frame)
    add_frame: Callable[[int, int, int], int]           # (list, frame, bound) -> whether there was room
    drop_frames: Callable[[int, int, int], None]        # (list, bytes of arena, of scratch)
    sizes_row: Callable[[Address, int], int]            # (array objects, count) -> number of a row
    addresses: Callable[[Address, int, int], None]      # (array objects, count, where their addresses go)
    copy_runs: Callable[[int, int], None]               # (rows, count)

    def address(self, name: str) -> int:
        return self.loaded.address(name)


@once
@contained
def native() -> Native:
    """The runtime, loaded at the first use."""
    target = runtime_target()
    loaded = load_cached(_stored_text(target), target, EXPORTS, _imports(), *_BEGUN)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(loaded))    # never unmapped: pool threads run it until the process ends
    pointer, word = ctypes.c_void_p, ctypes.c_int64
    free, held = ctypes.CFUNCTYPE, ctypes.PYFUNCTYPE
    return Native(
        loaded,
        spin=free(None, word)(loaded.address("gc_spin")),
        run=free(ctypes.c_int, pointer, pointer)(loaded.address("gc_run")),
        lock=free(ctypes.c_int, pointer, word)(loaded.address("gc_lock")),
        unlock=held(None, pointer)(loaded.address("gc_unlock")),
        transfer=free(ctypes.c_int, pointer, pointer, word, word, word, word)(loaded.address("gc_transfer")),
        transfer_now=held(ctypes.c_int, pointer, pointer, word, word, word, word)(loaded.address("gc_transfer")),
        call=held(ctypes.c_int, pointer, pointer, pointer, pointer)(loaded.address("gc_call_arrays")),
        call_waiting=held(ctypes.c_int, pointer, pointer, pointer, pointer)(loaded.address("gc_call_waiting")),
        cancel=held(None, pointer)(loaded.address("gc_cancel")),
        pop_frame=held(pointer, pointer)(loaded.address("gc_pop_frame")),
        push_frame=held(None, pointer, pointer)(loaded.address("gc_push_frame")),
        add_frame=held(ctypes.c_int, pointer, pointer, word)(loaded.address("gc_add_frame")),
        drop_frames=held(None, pointer, word, word)(loaded.address("gc_drop_frames")),
        sizes_row=held(word, pointer, word)(loaded.address("gc_sizes_row")),
        addresses=held(None, pointer, word, pointer)(loaded.address("gc_data_pointers")),
        copy_runs=free(None, pointer, word)(loaded.address("gc_copy_runs")))


_BEGUN: list[Callable[[], bytes]] = []          # what gives the code that `begin` has ordered


def begin(wanted: Callable[[], int]) -> None:
    """A worker compiles the runtime, where that is missing and a core has nothing to do, while this process makes its
    first program; whose parts find it started then. wanted: how many workers there may be now."""
    if _BEGUN or native.cache_info().currsize:
        return
    target = runtime_target()
    text = _stored_text(target)
    if cached(text, target) is None:
        _BEGUN[:] = [begun(text, target, wanted)]


def runtime_text(target: Target) -> str:
    """LLVM text of the whole runtime for the machine of `target`. The routines are loaded here: mostly the disk cache
    has what they give."""
    routines = loaded_module("graphc.runtime.routines")
    return routines.llvm_text(target.triple, EXPORTS)


def _stored_text(target: Target) -> str:
    """`runtime_text` through the disk cache: Python takes 30 ms to load and to write the routines."""
    store = cache.default()
    if store is None:
        return runtime_text(target)
    key = cache.make_key("runtime", target.triple)
    found = store.get(key)
    if found is None:
        found = runtime_text(target).encode()
        store.put(key, found)
    return found.decode()


def runtime_target() -> Target:
    """The plainest target of this machine: the runtime needs no vectors."""
    for target in (SSE2, NEON):
        if can_run(target):
            return target
    raise InternalError("no runtime for this machine", "runtime")


def _imports() -> dict[str, int]:
    table = _numpy_api()
    names = [thing.name for thing in (*PYTHON_FUNCTIONS, *PYTHON_OBJECTS)]
    return {name: _address_in_python(name) for name in names} | {name: table[row] for name, row in NUMPY_ROWS.items()}


def _address_in_python(name: str) -> int:
    """Of something that CPython exports."""
    found = ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value
    if found is None:
        raise InternalError(f"CPython's {name} is nowhere", "runtime")
    return found


def _numpy_api() -> ctypes._Pointer[ctypes.c_void_p]:
    """numpy's C API table, as extension modules get it."""
    core = sys.modules.get("numpy._core._multiarray_umath") or sys.modules["numpy.core._multiarray_umath"]
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    table = ctypes.cast(get(core._ARRAY_API, None), ctypes.POINTER(ctypes.c_void_p))
    if table[NUMPY_ROWS[PyArray_Type.name]] != id(np.ndarray):
        raise InternalError(f"numpy {np.__version__} has an unknown C API table", "runtime")
    return table
