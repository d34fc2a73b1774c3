"""Conversions between all element types: f16 and bf16 over all their bits and every rounding edge of f32, on every target
that runs here; no target calls a function for them."""
from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pytest

from graphc.codegen.llvm.host import can_run
from graphc.compiler import Compilation
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.interp import evaluate
from graphc.ir.types import (
    DTYPES, DType, TensorType, bf16, bool_, dtype_of, f16, f32, f64, i8, i16, i32, i64, u8, u16, u64)
from graphc.runtime.executable import Executable
from graphc.schedule.target import AVX2, AVX512, AVX512_BF16, NEON, SSE2, TARGETS, Target

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")       # numpy's, at NaN
STORED = (f16, bf16)
RUNS = [pytest.param(t, id=t.name, marks=pytest.mark.skipif(not can_run(t), reason=f"this CPU has no {t.name}"))
        for t in (SSE2, AVX2, AVX512, AVX512_BF16)]
PATTERNS = np.arange(1 << 16, dtype=np.uint16)


def casts(types: Sequence[tuple[TensorType, DType]]) -> Graph:
    b = Builder("casts")
    return b.finish([b.cast(b.input(f"x{i}", t), dtype=to) for i, (t, to) in enumerate(types)], ("",) * len(types))


def converted(x: np.ndarray, dtype: DType, target: Target) -> np.ndarray:
    """By native code, once as an array whose end is no whole vector."""
    graph = casts([(TensorType(dtype_of(x), x.shape), dtype)])
    return Executable(Compilation(graph, target).build.program, 1).slow(x)[0]


def same_numbers(found: np.ndarray, expected: np.ndarray) -> None:
    """The same bits, signs of zeros too; NaN where there is NaN, with its sign, and quiet."""
    word = f"u{found.dtype.itemsize}"
    nan, bits, wanted = np.isnan(expected.astype(np.float64)), found.view(word), expected.view(word)
    wrong = np.flatnonzero(np.where(nan, ~np.isnan(found.astype(np.float64)), bits != wanted))
    assert not wrong.size, [(hex(bits[i]), hex(wanted[i])) for i in wrong[:5]]
    np.testing.assert_array_equal(np.signbit(found[nan]), np.signbit(expected[nan]))


@pytest.mark.parametrize("target", RUNS)
@pytest.mark.parametrize("stored", STORED, ids=str)
@pytest.mark.parametrize("count", [1 << 16, 1])
def test_all_patterns_become_f32(stored, target, count):
    x = PATTERNS[:count].view(stored.np)
    found = converted(x, f32, target)
    same_numbers(found, x.astype(np.float32))
    payload = PATTERNS[:count].astype(np.uint32) << (23 - stored.mantissa)
    nan = np.isnan(found)
    quiet = np.uint32(1 << 22)
    np.testing.assert_array_equal(found.view(np.uint32)[nan] | quiet, (payload[nan] & 0x3FFFFF) | (found.view(np.uint32)[nan] & 0xFF800000) | quiet)


@pytest.mark.parametrize("target", RUNS)
@pytest.mark.parametrize("stored", STORED, ids=str)
def test_all_patterns_come_back(stored, target):
    b = Builder("round")
    x = PATTERNS.view(stored.np)
    graph = b.finish([b.cast(b.cast(b.input("x", TensorType(stored, x.shape)), dtype=f32), dtype=stored)], ("",))
    found, = Executable(Compilation(graph, target).build.program, 1).slow(x)
    same_numbers(found, x)


def edges(stored: DType) -> np.ndarray:
    """Every number of the type in f32, what is half way to the next one, and the f32 beside each."""
    numbers = PATTERNS.view(stored.np).astype(np.float32)
    numbers = np.sort(numbers[np.isfinite(numbers)]).astype(np.float64)
    beyond = 2.0 ** (2 ** (stored.bits - stored.mantissa - 2))          # what would come after the largest
    numbers = np.concatenate([[-beyond], numbers, [beyond]])
    halves = (numbers[1:] + numbers[:-1]) / 2
    with np.errstate(over="ignore"):
        all = np.concatenate([numbers, halves, [0.0, -0.0, np.inf, -np.inf]]).astype(np.float32)
    return np.concatenate([all, np.nextafter(all, np.float32(np.inf)), np.nextafter(all, np.float32(-np.inf))])


def nans() -> np.ndarray:
    payloads = np.uint32([1, 2, 0x1FFF, 0x2000, 0xFFFF, 0x10000, 0x3FFFFF, 0x400000, 0x400001, 0x7FE000, 0x7FFFFF])
    return np.concatenate([payloads | 0x7F800000, payloads | 0xFF800000]).view(np.float32)


@pytest.mark.parametrize("target", RUNS)
@pytest.mark.parametrize("stored", STORED, ids=str)
def test_f32_rounds_to_nearest_even(stored, target):
    x = np.concatenate([edges(stored), np.float32([1e-45, -1e-45, 3.4e38, -3.4e38]), nans()])
    x = np.concatenate([x, np.random.default_rng(0).permutation(x)])       # vectors with one subnormal number, too
    found = converted(x, stored, target)
    with np.errstate(all="ignore"):
        same_numbers(found, x.astype(stored.np))
    nan, bits = np.isnan(x), found.view(np.uint16)
    first = x.view(np.uint32)[nan] >> (23 - stored.mantissa)
    mask, quiet = (1 << stored.mantissa) - 1, 1 << stored.mantissa - 1
    np.testing.assert_array_equal(bits[nan] & mask, first & mask | quiet)


def test_numpy_agrees_with_exact_rounding():
    """The reference itself: the nearest of the two neighbours, of two the one whose last bit is 0."""
    for stored in STORED:
        x = edges(stored)
        x = x[np.isfinite(x) & (np.abs(x) <= stored.range[1])]
        numbers = PATTERNS.view(stored.np).astype(np.float64)
        order = np.flatnonzero(np.isfinite(numbers))
        order = order[np.argsort(numbers[order], kind="stable")]
        numbers, at = numbers[order], np.searchsorted(numbers[order], x.astype(np.float64))
        low, high = np.maximum(at - 1, 0), np.minimum(at, len(numbers) - 1)
        below, above = x - numbers[low], numbers[high] - x
        even = order[low] & 1 == 0
        nearest = np.where((below < above) | (below == above) & even, low, high)
        np.testing.assert_array_equal(x.astype(stored.np).astype(np.float64), numbers[nearest])


def special(dtype: DType) -> np.ndarray:
    """Numbers near the ends of every type."""
    if dtype == bool_:
        return np.array([True, False])
    low, high = dtype.range
    ends = [e for d in DTYPES for end in d.range for e in (end - 1, end, end + 1)]
    numbers = [n for n in (0, 1, 2, 3, 7, 100, *ends) if low <= n <= high]
    if dtype.is_float:
        numbers = [float(n) for n in numbers] + [-0.0, 0.5, -0.5, 1.5, 254.5, -128.5, np.inf, -np.inf, np.nan]
        return np.array(numbers, np.float64).astype(np.float32 if dtype.is_storage else dtype.np).astype(dtype.np)
    return np.array([int(n) for n in numbers], dtype.np)


@pytest.mark.parametrize("source", DTYPES, ids=str)
def test_all_pairs(source):
    x = np.concatenate([special(source), special(source)[::-1]])
    graph = casts([(TensorType(source, x.shape), to) for to in DTYPES])
    found = Executable(Compilation(graph).build.program, 1).slow(*[x] * len(DTYPES))
    for to, a, b in zip(DTYPES, found, evaluate(graph, [x] * len(DTYPES)), strict=True):
        if to.is_float:
            same_numbers(a, b)
        else:
            np.testing.assert_array_equal(a, b, err_msg=f"{source} to {to}")
            check_exactly(x, a, to)


def check_exactly(x: np.ndarray, found: np.ndarray, to: DType) -> None:
    """Against Python's numbers: integers wrap, floats are cut and saturate, NaN gives 0, anything to bool is != 0."""
    low, high = to.range
    for a, b in zip(x.tolist() if x.dtype.kind != "V" else x.astype(np.float64).tolist(), found.tolist(), strict=True):
        if to == bool_:
            expected = a != 0
        elif isinstance(a, float):
            expected = 0 if a != a else max(low, min(high, a if abs(a) == np.inf else int(a)))
        else:
            expected = (int(a) - low) % (1 << to.bits) + low
        assert b == expected, (a, b, to)


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda t: t.name)
def test_no_target_calls_a_function(target):
    pairs = [(d, s) for s in STORED for d in (f32, f64, i32, i64, u64)]
    graph = casts([(TensorType(a, (n,)), b) for a, b in [*pairs, *[p[::-1] for p in pairs]] for n in (37, 1)])
    text = Compilation(graph, target).text("asm")
    callees = set(re.findall(r"\b(?:callq?|bl|jmp|b)\s+\*?([A-Za-z_]\w*)", text))
    assert not {c for c in callees if c.startswith("__")}, callees
    if target in (NEON, AVX2, AVX512):
        assert re.search(r"vcvtph2ps|fcvtl", text) and re.search(r"vcvtps2ph|fcvtn", text)


@pytest.mark.parametrize("count", [17, 9, 33, 3])
def test_a_lone_last_element_is_stored_at_its_width(count):
    """LLVM stores the only active lane of a truncated vector at the width that it had before."""
    for source, to in ((i64, i32), (i32, DTYPES[5]), (f32, bf16)):
        x = np.arange(count).astype(source.np)
        program = Compilation(casts([(TensorType(source, x.shape), to)])).build.program
        memory = np.full(count + 64, 77, to.np)
        Executable(program, 1).slow(x, out=(memory[:count],))
        assert (memory[count:] == to.np.type(77)).all() and (memory[:count] == x.astype(to.np)).all()


@pytest.mark.parametrize("target", RUNS)
def test_rounded_floats_become_integers(target):
    """One step for both: ties, limits, what is beyond them, NaN."""
    edges = [v + d for v in (-32769, -32768, -129, -128, -1, 0, 127, 128, 255, 256, 32767, 65535, 65536, 2 ** 22, 2 ** 31)
             for d in (-0.5, -0.25, 0, 0.25, 0.5, 1.5)]
    x = np.float32([*edges, -0.0, 1e-30, np.inf, -np.inf, np.nan, -np.nan, 3e38, -3e38, *np.linspace(-300, 300, 2003)])
    kinds = (i8, u8, i16, u16)
    b = Builder("rounded")
    y = b.round(b.input("x", TensorType(f32, x.shape)))
    graph = b.finish([b.cast(y, dtype=kind) for kind in kinds], ("",) * len(kinds))
    for kind, found in zip(kinds, Executable(Compilation(graph, target).build.program, 1).slow(x)):
        wanted = np.clip(np.nan_to_num(np.rint(x.astype(np.float64)), nan=0.0), *kind.range).astype(kind.np)
        np.testing.assert_array_equal(found, wanted, str(kind))
