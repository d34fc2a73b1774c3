"""What generated code may assume of a CPU: plain data, no look at the machine we run on (codegen/llvm/host.py does
that)."""
from __future__ import annotations

from dataclasses import field, replace

from graphc.records import dataclass
from graphc.schedule.machine import Machine

FUSED = frozenset({"aarch64", "armv7", "riscv64", "thumbv7em"})     # of these all targets multiply and add at once
# LLVM's features, signs of the factors of their instructions (u unsigned, s signed), and bits of vectors
BYTE_DOTS = (("+avx512vnni", ("us",), (128, 256, 512)), ("+avxvnni", ("us",), (128, 256)),
             ("+avxvnniint8", ("ss", "uu"), (128, 256)), ("+dotprod", ("ss", "uu"), (64, 128)),
             ("+i8mm", ("us",), (64, 128)))
BF16_DOTS = frozenset({"+avx512bf16", "+bf16"})
LOOKUP_NUMBERS = 8                  # of a table in which lanes of any vector may look up theirs
# numbers of packed factors -> the feature of instructions that multiply matrices of them
MATRIX_PRODUCTS = {"bf16": "+amx-bf16", "i8": "+amx-int8", "u8": "+amx-int8"}
MATRIX_LANES = 16                   # of matrix registers: rows, and elements of 32 bits in each
LINE_BYTES = 64                     # of the caches of all targets
AHEAD_BYTES = 2048                  # of stored weights: what memory delivers of a stream until its first line comes
ALIGNMENT = LINE_BYTES              # bytes, of every buffer: one cache line, and one vector of the widest target


@dataclass(frozen=True)
class Target:
    """An instruction set, and the machine on which schedules count cycles. No thread count: results must not depend on
    it."""
    name: str
    triple: str                     # LLVM target triple
    features: str                   # LLVM feature string, "+avx2,+fma"
    vector_bytes: int
    vector_registers: int
    machine: Machine = field(default_factory=Machine)
    # LLVM's names of the CPUs that this entry describes; none: every CPU that has the features
    cpus: tuple[str, ...] = ()
    pointer_bits: int = 64
    has_threads: bool = True        # else tiles run one after the other, and nobody else looks at the context meanwhile
    least_cpu: str = ""             # LLVM's name of the CPU to which the features are added
    abi: str = ""                   # LLVM's name of the calling convention, where the triple leaves it open
    relocation: str = "pic"         # "static" where a program lies at a fixed address

    @property
    def reach_bytes(self) -> int:
        """Memory that signed indices as wide as a pointer reach."""
        return 1 << self.pointer_bits - 1

    def lanes(self, itemsize: int) -> int:
        return max(1, self.vector_bytes // itemsize)

    @property
    def architecture(self) -> str:
        """The first part of the triple."""
        return self.triple.split("-")[0]

    def tile_rows(self, vectors: int) -> int:
        """Rows of a register tile so many vectors wide: its sums, a row of columns and a factor fill the registers."""
        return (self.vector_registers - 1) // vectors - 1

    @property
    def l1(self) -> int:
        return self.machine.l1_bytes

    @property
    def l2(self) -> int:
        return self.machine.l2_bytes

    @property
    def l3(self) -> int:
        return self.machine.l3_bytes

    @property
    def fma_per_cycle(self) -> int:
        return self.machine.fma_per_cycle

    def covers(self, other: Target) -> bool:
        """Whether it is `other`, or that with more instructions: code for both is the same where it needs none of
        these."""
        return (self.triple, self.vector_bytes) == (other.triple, other.vector_bytes) and (
            {*other.features.split(",")} <= {*self.features.split(",")})

    @property
    def has_fma(self) -> bool:
        """Whether a fused multiplication and addition is an instruction (else it is a slow call)."""
        return self.architecture in FUSED or "+fma" in self.features

    @property
    def has_half(self) -> bool:
        """Whether f16 to f32 and back are instructions."""
        return "+f16c" in self.features or "+vfp4" in self.features or self.architecture == "aarch64"

    @property
    def has_bf16_dot(self) -> bool:
        """Whether the products of two pairs of bf16 are added to an f32 in one instruction."""
        return not BF16_DOTS.isdisjoint(self.features.split(","))

    @property
    def multiplies_pairs(self) -> bool:
        """Whether pairs of bf16 are multiplied in less time than their numbers as f32: by matrix registers, or because
        that instruction begins no less than half as often as a multiply-add. Sizes do not matter: both forms read the
        same bytes, and each step of a sum is one instruction, or two."""
        dots = self.machine.bf16_dots_per_cycle if self.has_bf16_dot else 0.0
        return self.multiplies_matrices("bf16") or 2 * dots >= self.machine.fma_per_cycle

    def rounds_to_bf16(self, lanes: int) -> bool:
        """Whether so many f32 at a time become bf16 in instructions, which take subnormal numbers for 0."""
        return "+avx512bf16" in self.features.split(",") and self.has_scaling and lanes % 8 == 0

    def byte_dots(self, vector_bits: int) -> tuple[str, ...]:
        """Signs of factors, unsigned before signed, of which four products of bytes are added to each i32 of a vector
        of so many bits in one instruction."""
        return tuple(signs for feature, all_signs, widths in BYTE_DOTS if feature in self.features.split(",")
                     for signs in all_signs if vector_bits in widths and vector_bits <= 8 * self.vector_bytes)

    def multiplies_matrices(self, number: str) -> bool:
        """Whether products of matrices of such numbers ("bf16", "i8", "u8"), packed as one element each, are
        instructions."""
        return MATRIX_PRODUCTS.get(number) in self.features.split(",")

    @property
    def has_matrices(self) -> bool:
        """Whether there are matrix registers, which a process may use if it asked the system for them."""
        return "+amx-tile" in self.features.split(",")

    def has_lookup(self, lanes: int) -> bool:
        """Whether each lane of a vector of so many finds one of 16 floats by its own number in one instruction."""
        return lanes == 16 and self.vector_bytes == 64 and "+avx512f" in self.features

    @property
    def has_short_lookup(self) -> bool:
        """The same of 8 lanes and LOOKUP_NUMBERS floats."""
        return "+avx2" in self.features.split(",")

    @property
    def has_rounding(self) -> bool:
        """Whether rounding to even integers is an instruction, or a function of this system's C library."""
        return self.architecture not in ("armv7", "thumbv7em")

    @property
    def can_preserve_registers(self) -> bool:
        """Whether LLVM has a calling convention in which a function leaves all registers as they are."""
        return self.architecture in ("x86_64", "aarch64")

    @property
    def can_mask_stores(self) -> bool:
        """Whether a store of some lanes costs about as much as of all. With AVX2 alone it is an instruction, but takes
        up to 42 operations (Fog, Instruction tables: Zen 1 to 4)."""
        return "+avx512vl" in self.features

    def can_mask_loads(self, itemsize: int) -> bool:
        """The same of a load."""
        return "+avx512vl" in self.features or "+avx2" in self.features and itemsize >= 4

    @property
    def has_wide_minimum(self) -> bool:
        """Whether the lesser of two integers of 64 bits is an instruction."""
        return "+avx512vl" in self.features

    @property
    def has_scaling(self) -> bool:
        """Whether a · 2^n and the fraction of a, of floats, are instructions."""
        return "+avx512vl" in self.features and "+avx512dq" in self.features


X86 = "x86_64-unknown-linux-gnu"
ARM = "aarch64-unknown-linux-gnu"
AVX2_FEATURES = "+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+popcnt,+lzcnt"
AVX512_FEATURES = AVX2_FEATURES + ",+avx512f,+avx512dq,+avx512bw,+avx512vl"

# Generic machines: the figures of several CPUs of a kind, none of which schedules may be much worse on. L2 gives
# three quarters of a vector a cycle.
SSE2 = Target("sse2", X86, "+sse2", 16, 16, Machine(l2_bytes_per_cycle=12.0))
AVX2 = Target("avx2", X86, AVX2_FEATURES, 32, 16, Machine())
AVX512 = Target("avx512", X86, AVX512_FEATURES, 64, 32, Machine(
    vector_op_cycles=0.72,          # half of the CPUs with AVX-512 have units of 256 bits; the others have fewer of 512
    l2_bytes_per_cycle=48.0, l1_bytes=48 << 10, l2_bytes=2 << 20))
AVX512_VNNI = replace(AVX512, name="avx512_vnni", features=AVX512_FEATURES + ",+avx512vnni")
# AMD's CPUs, whose hardware brings a stream from L3 as fast as L3 gives it, and 7 % slower from memory (measured on a
# Zen 4: 2.3 MB of weights take 25 us, with prefetches 29). Intel's with these products have a machine below.
AVX512_BF16 = replace(AVX512, name="avx512_bf16", features=AVX512_VNNI.features + ",+avx512bf16",
                      machine=replace(AVX512.machine, stream_wait_cycles=0.25))
# Intel's CPUs, the only ones with matrix registers, begin a product of pairs every second cycle (measured on one).
INTEL = replace(AVX512.machine, bf16_dots_per_cycle=0.5)
AVX512_AMX = replace(AVX512, name="avx512_amx", features=AVX512_BF16.features + ",+amx-tile,+amx-bf16,+amx-int8",
                     machine=INTEL)
AVX2_VNNI = replace(AVX2, name="avx2_vnni", features=AVX2_FEATURES + ",+avxvnni")
NEON = Target("neon", ARM, "+neon", 16, 32, Machine(l2_bytes_per_cycle=12.0, l1_bytes=64 << 10, l2_bytes=1 << 20))
NEON_DOT = replace(NEON, name="neon_dot", features=NEON.features + ",+dotprod")
NEON_BF16 = replace(NEON, name="neon_bf16", features=NEON_DOT.features + ",+i8mm,+bf16")

# Named CPUs, by documented figures; what their vendors do not say is that of the generic machine.
ZEN3 = Target("zen3", X86, AVX2_FEATURES, 32, 16, cpus=("znver3",), machine=Machine(
    # AMD, Software Optimization Guide for Family 19h Processors: 32 bytes a cycle between L1 and L2, L3 of 32 MB for
    # each complex, 46 cycles from load to use. EPYC 7003: 3.4 GHz with all cores busy. None is measured.
    clock_ghz=3.4, l2_bytes_per_cycle=32.0, l3_bytes=32 << 20, l3_latency=46))

# Where the system keeps their matrix registers.
SAPPHIRERAPIDS = replace(AVX512_BF16, name="sapphirerapids", machine=INTEL, cpus=(
    "sapphirerapids", "emeraldrapids", "graniterapids", "graniterapids-d"))

TARGETS = {t.name: t for t in (SSE2, AVX2, AVX2_VNNI, AVX512, AVX512_VNNI, AVX512_BF16, AVX512_AMX, NEON,
                              NEON_DOT, NEON_BF16, ZEN3, SAPPHIRERAPIDS)}
