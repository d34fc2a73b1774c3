"""The systems for which code can be made ahead of time: plain data, one entry each.

A platform may have several instruction sets, of which a program chooses one when it starts; every other fact is that of
the `Target`: triple, features, pointers, vectors, and the machine on which schedules count cycles.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from graphc.records import dataclass
from graphc.schedule.machine import Machine
from graphc.schedule.target import AVX2, AVX512, NEON, SSE2, TARGETS, Target


@dataclass(frozen=True)
class Platform:
    """An operating system, or none, on an architecture. `instruction_sets`: the plainest first, which every machine of
    the platform has. `object_format`: of object code. `has_pool`: the runtime's thread pool runs there; elsewhere the
    caller of code that `has_threads` may bring its own."""
    name: str
    instruction_sets: tuple[Target, ...]
    object_format: str
    has_pool: bool = False

    @property
    def baseline(self) -> Target:
        return self.instruction_sets[0]


# One core of 1 to 2 GHz with short vectors: little is known of caches beyond the first.
SMALL_CORE = Machine(clock_ghz=1.2, fma_per_cycle=1, loads_per_cycle=1, vector_op_cycles=1.0, l2_bytes_per_cycle=8.0,
                     l3_bytes_per_cycle=4.0, memory_bytes_per_cycle=2.0, planned_cores=1)
# Without caches: memory is as near as L1 is elsewhere, and there is little of it.
MICROCONTROLLER = replace(SMALL_CORE, clock_ghz=0.1, fma_latency=3, l1_bytes=64 << 10, l2_bytes=256 << 10,
                          l3_bytes=256 << 10)

ARMV7 = Target("armv7", "armv7-unknown-linux-gnueabihf", "+neon,+vfp4", 16, 16, SMALL_CORE, pointer_bits=32,
               has_threads=False)
RISCV64 = Target("riscv64", "riscv64-unknown-linux-gnu", "+m,+a,+f,+d,+c", 1, 32, SMALL_CORE, has_threads=False,
                 abi="lp64d")
WASM32 = Target("wasm32", "wasm32-unknown-unknown", "+simd128,+bulk-memory,+nontrapping-fptoint,+sign-ext", 16, 16,
                Machine(l2_bytes_per_cycle=12.0, planned_cores=1), pointer_bits=32, has_threads=False,
                relocation="static")
CORTEX_M4 = Target("cortex-m4", "thumbv7em-none-unknown-eabihf", "", 1, 16, MICROCONTROLLER, pointer_bits=32,
                   has_threads=False, least_cpu="cortex-m4", relocation="static")
WINDOWS, MACOS = "x86_64-pc-windows-msvc", "aarch64-apple-macosx11.0.0"

PLATFORMS: Mapping[str, Platform] = {p.name: p for p in (
    Platform("x86_64-linux", (SSE2, AVX2, AVX512), "elf", has_pool=True),
    Platform("aarch64-linux", (NEON,), "elf", has_pool=True),
    Platform("armv7-linux", (ARMV7,), "elf"),
    Platform("riscv64-linux", (RISCV64,), "elf"),
    Platform("wasm32", (WASM32,), "wasm"),
    Platform("thumbv7em-none", (CORTEX_M4,), "elf"),
    Platform("x86_64-windows", tuple(replace(t, triple=WINDOWS) for t in (SSE2, AVX2, AVX512)), "coff"),
    Platform("aarch64-macos", (replace(NEON, triple=MACOS),), "macho"))}
# by their names, for whoever only looks at code; of several systems that of Linux
EVERY_TARGET: Mapping[str, Target] = {
    **{target.name: target for platform in PLATFORMS.values() for target in platform.instruction_sets}, **TARGETS}
