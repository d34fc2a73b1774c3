"""Which of a library's instruction sets this CPU runs, as routines: CPUID says what it has, XGETBV which registers the
system saves."""
from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen.routines.routine import RoutineBody
from graphc.codegen.routines.text import bytes_text
from graphc.codegen.routines.values import I32, I64, Elements, Extern, Ptr
from graphc.schedule.target import Target

CPUID_NAME, XGETBV_NAME = "cpuid", "xgetbv"
# Machine code, since LLVM has no such functions and its inline assembly works for this process's CPU alone:
# cpuid(leaf, subleaf, four i32 to write to); xgetbv(i32 to write to).
CPUID = bytes.fromhex("53 4989d0 89f8 89f1 0fa2 418900 41895804 41894808 4189500c 5b c3")
XGETBV = bytes.fromhex("31c9 0f01d0 8907 c3")
# the same where arguments are passed as Windows does
WINDOWS_CPUID = bytes.fromhex("53 4d89c1 89c8 89d1 0fa2 418901 41895904 41894908 4189510c 5b c3")
WINDOWS_XGETBV = bytes.fromhex("4989c8 31c9 0f01d0 418900 c3")

EAX, EBX, ECX, EDX = range(4)
BASIC, EXTENDED, AMD = (1, 0), (7, 0), (0x80000001, 0)
LEAVES = (BASIC, EXTENDED, AMD)
LAST_LEAF = 7
OSXSAVE = (BASIC, ECX, 27)
# where CPUID says that there is a feature, by LLVM's name: leaf, register, bit
FEATURES = {
    "sse2": (BASIC, EDX, 26), "fma": (BASIC, ECX, 12), "popcnt": (BASIC, ECX, 23), "avx": (BASIC, ECX, 28),
    "f16c": (BASIC, ECX, 29), "bmi": (EXTENDED, EBX, 3), "avx2": (EXTENDED, EBX, 5), "bmi2": (EXTENDED, EBX, 8),
    "avx512f": (EXTENDED, EBX, 16), "avx512dq": (EXTENDED, EBX, 17), "avx512bw": (EXTENDED, EBX, 30),
    "avx512vl": (EXTENDED, EBX, 31), "lzcnt": (AMD, ECX, 5)}
YMM, ZMM = 0x6, 0xE6            # bits of XCR0: registers that the system saves


def machine_code(prefix: str, windows: bool = False) -> str:
    """LLVM text of both functions under the library's prefix: bytes that run in place of a function's beginning."""
    cpuid, xgetbv = (WINDOWS_CPUID, WINDOWS_XGETBV) if windows else (CPUID, XGETBV)
    return (f"define hidden void @{prefix}_{CPUID_NAME}(i32 %leaf, i32 %subleaf, ptr %out) noinline "
            f"prologue {bytes_text(cpuid)} {{ ret void }}\n"
            f"define hidden void @{prefix}_{XGETBV_NAME}(ptr %out) noinline prologue {bytes_text(xgetbv)} "
            "{ ret void }\n")


def chosen_set(f: RoutineBody, prefix: str, sets: Sequence[Target]) -> I64:
    """The number of the last instruction set of `sets` that this CPU has; -1 if it has none."""
    if len(sets) == 1 and not sets[0].triple.startswith("x86_64"):
        return f.given(0, I64)
    words = _asked(f, prefix)
    best = f.variable(I64, -1)
    for number, target in enumerate(sets):
        has = f.given(1, I64) == 1
        for (leaf, register), mask in _masks(target).items():
            word = words[4 * LEAVES.index(leaf) + register].value
            has = has & (word & mask == mask)
        saved = ZMM if "+avx512f" in target.features else YMM if "+avx" in target.features else 0
        with f.if_(has & (words[4 * len(LEAVES)].value & saved == saved)):
            best.value = number
    return best.value


def _asked(f: RoutineBody, prefix: str) -> Elements[I32]:
    """What CPUID says at LEAVES, and XCR0."""
    cpuid = Extern(f"{prefix}_{CPUID_NAME}", None, I32, I32, Ptr)
    words = f.array(I32, 4 * len(LEAVES) + 4)
    for n in range(4 * len(LEAVES) + 4):
        words[n].value = 0
    last = words[4 * len(LEAVES)]
    cpuid(f, 0, 0, last)
    with f.if_(last.value >= LAST_LEAF):
        for n, (number, subleaf) in enumerate(LEAVES):
            cpuid(f, number, subleaf, words[4 * n])
    last.value = 0
    leaf, register, bit = OSXSAVE
    with f.if_(words[4 * LEAVES.index(leaf) + register].value >> bit & 1 != 0):
        Extern(f"{prefix}_{XGETBV_NAME}", None, Ptr)(f, last)
    return words


def _masks(target: Target) -> dict[tuple[tuple[int, int], int], int]:
    """The bits that must be there, by leaf and register."""
    masks: dict[tuple[tuple[int, int], int], int] = {}
    for feature in target.features.split(","):
        leaf, register, bit = FEATURES[feature.removeprefix("+")]
        masks[leaf, register] = masks.get((leaf, register), 0) | 1 << bit
    return masks
