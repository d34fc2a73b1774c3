"""What numpy calls for the memory of large results: routines with the types of numpy's PyDataMemAllocator."""
from __future__ import annotations

from graphc.codegen.routines.routine import RoutineBody, routine
from graphc.codegen.routines.values import I32, I64, Extern, Ptr
from graphc.runtime.system import madvise

LARGE, HUGE_PAGE, ALIGNMENT = 4 << 20, 2 << 20, 64      # from LARGE bytes on memory asks for huge pages
MADV_HUGEPAGE = 14

posix_memalign = Extern("posix_memalign", I32, Ptr, I64, I64)
calloc = Extern("calloc", Ptr, I64, I64)
realloc = Extern("realloc", Ptr, Ptr, I64)
free = Extern("free", None, Ptr)


@routine
def gc_mem_malloc(f: RoutineBody, context: Ptr, size: I64) -> Ptr:
    """New memory, or null."""
    memory = f.variable(Ptr, None)
    is_large = size >= LARGE
    f.return_if(posix_memalign(f, memory, f.select(is_large, f.given(HUGE_PAGE, I64), ALIGNMENT), size) != 0, None)
    with f.if_(is_large):
        madvise(f, memory.value, size, MADV_HUGEPAGE)
    return memory.value


@routine
def gc_mem_calloc(f: RoutineBody, context: Ptr, count: I64, size: I64) -> Ptr:
    """New zero bytes."""
    return calloc(f, count, size)


@routine
def gc_mem_realloc(f: RoutineBody, context: Ptr, old: Ptr, size: I64) -> Ptr:
    """The same content in more or less memory."""
    return realloc(f, old, size)


@routine
def gc_mem_free(f: RoutineBody, context: Ptr, memory: Ptr, size: I64) -> None:
    """Gives memory back."""
    free(f, memory)
