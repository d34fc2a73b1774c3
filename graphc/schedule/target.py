"""What generated code may assume of a CPU: plain data, no look at the machine we run on (codegen/llvm/host.py does that)."""
from __future__ import annotations

from dataclasses import dataclass

LINE_BYTES = 64                     # of the caches of all targets


@dataclass(frozen=True)
class Target:
    """A CPU as schedules see it. Sizes in bytes, per core (l3: shared). No thread count: results must not depend on it."""
    name: str
    triple: str                     # LLVM target triple
    features: str                   # LLVM feature string, "+avx2,+fma"
    vector_bytes: int
    vector_registers: int
    l1: int = 32 << 10
    l2: int = 512 << 10
    l3: int = 16 << 20
    fma_per_cycle: int = 2          # vector fma instructions issued each cycle

    def lanes(self, itemsize: int) -> int:
        return self.vector_bytes // itemsize

    def tile_rows(self, vectors: int) -> int:
        """Rows of a register tile so many vectors wide: its sums, a row of columns and a factor fill the registers."""
        return (self.vector_registers - 1) // vectors - 1

    @property
    def has_fma(self) -> bool:
        """Whether a fused multiplication and addition is an instruction (else it is a slow call)."""
        return "+fma" in self.features or self.triple.startswith("aarch64")

    @property
    def has_scaling(self) -> bool:
        """Whether a · 2^n and the fraction of a, of floats, are instructions."""
        return "+avx512vl" in self.features and "+avx512dq" in self.features


X86 = "x86_64-unknown-linux-gnu"
ARM = "aarch64-unknown-linux-gnu"
SSE2 = Target("sse2", X86, "+sse2", 16, 16)
AVX2 = Target("avx2", X86, "+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+popcnt,+lzcnt", 32, 16)
AVX512 = Target("avx512", X86, AVX2.features + ",+avx512f,+avx512dq,+avx512bw,+avx512vl", 64, 32, l1=48 << 10, l2=2 << 20)
NEON = Target("neon", ARM, "+neon", 16, 32, l1=64 << 10, l2=1 << 20)

TARGETS = {t.name: t for t in (SSE2, AVX2, AVX512, NEON)}
