"""Permission to use the CPU's matrix registers, which Linux gives a process that asks for it: it then saves the 8 KB of
each thread."""
from __future__ import annotations

import ctypes
from functools import cache

SYS_ARCH_PRCTL = 158                # of x86-64, which alone has such registers
ARCH_REQ_XCOMP_PERM = 0x1023
XFEATURE_XTILEDATA = 18


@cache
def may_use_matrices() -> bool:
    """Asks, once. A system that knows no such registers, or a filter of system calls, refuses; so does one where a
    signal stack is too small for them. What was granted holds for all threads, and for processes that are forked."""
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    return not call(*map(ctypes.c_long, (SYS_ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)))
