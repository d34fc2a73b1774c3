"""What the runtime must know of a CPU's architecture besides its LLVM target: pointers, and for threads the numbers of
system calls and the instruction of waiting loops."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from graphc.codegen.routines.values import I32, I64, Extern
from graphc.errors import InternalError
from graphc.records import dataclass


SYSCALL = Extern("syscall", I64, I64, variadic=True)


@dataclass(frozen=True)
class Architecture:
    """`pause`: the function that says that a thread waits, and what it is given; None where the runtime has no threads:
    then routines need no atomic instructions, which may be missing."""
    name: str
    pause: tuple[Extern[None], tuple[int, ...]] | None = None
    syscalls: Mapping[str, int] = field(default_factory=dict)
    pointer_bits: int = 64


X86_64 = Architecture("x86_64", (Extern("llvm.x86.sse2.pause", None), ()), {
    "rt_sigprocmask": 14, "sched_yield": 24, "gettid": 186, "futex": 202, "sched_setaffinity": 203,
    "sched_getaffinity": 204})
AARCH64 = Architecture("aarch64", (Extern("llvm.aarch64.hint", None, I32), (1,)), {
    "futex": 98, "sched_setaffinity": 122, "sched_getaffinity": 123, "sched_yield": 124, "rt_sigprocmask": 135,
    "gettid": 178})
ARCHITECTURES = {a.name: a for a in (
    X86_64, AARCH64, Architecture("riscv64"),
    *(Architecture(name, pointer_bits=32) for name in ("armv7", "thumbv7em", "wasm32")))}


def architecture_of(triple: str) -> Architecture:
    """Of an LLVM target triple. InternalError when the runtime knows none."""
    name = triple.split("-")[0]
    if name not in ARCHITECTURES:
        raise InternalError(f"no runtime for {name}", "runtime")
    return ARCHITECTURES[name]
