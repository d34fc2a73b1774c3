"""Every value operation against numpy, scalar and vector, at ordinary and special values."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from loop_run import RUNS, compiled, run

from graphc.codegen.llvm.host import can_run
from graphc.codegen.llvm.ops import INSTRUCTIONS, INTRINSICS, IRREGULAR
from graphc.codegen.loops.builder import LoopFunction
from graphc.codegen.loops.loop_ir import Val
from graphc.codegen.loops.ops import IRREGULAR as IRREGULAR_NAMES
from graphc.codegen.loops.ops import MATH, REGULAR, SPECIAL
from graphc.errors import InternalError
from graphc.ir.types import DType, bf16, bf16x2, bool_, f32, f64, i32, i64, u8
from graphc.schedule.target import AVX2, AVX512_BF16, LOOKUP_NUMBERS, Target

COUNT = 96


def values(dtype: DType, seed: int) -> np.ndarray:
    """Random numbers and the special ones of the type."""
    rng = np.random.default_rng(seed)
    if dtype is bool_:
        return rng.integers(0, 2, COUNT).astype(bool)
    if dtype.is_int:
        info = np.iinfo(dtype.np)
        special = [0, 1, -1, 2, -2, 7, -7, info.min, info.max, info.min + 1]
        return np.concatenate([rng.integers(-20, 20, COUNT - 30), rng.choice(special, 30)]).astype(dtype.np)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 0.5, -0.5, 1.5, 2.5, -2.5, 1e-45, 3e9, -3e9, 1e20, -1e20]
    return np.concatenate([rng.standard_normal(COUNT - 40) * 5, rng.choice(special, 40)]).astype(dtype.np)


def apply(build: Callable[..., Val], ins: Sequence[np.ndarray], dtypes: Sequence[DType], out: DType, lanes: int,
          target: Target = AVX2) -> np.ndarray:
    f = LoopFunction("apply")
    xs = [f.view(f"x{k}", d, (COUNT,)) for k, d in enumerate(dtypes)]
    y = f.view("y", out, (COUNT,))
    with f.loop(0, COUNT, step=lanes) as L:
        f.store(y, [L.index], build(f, *[f.load(x, [L.index], lanes=lanes) for x in xs]))
    result = np.zeros(COUNT, out.np)
    assert run(f, ins, result, target=target) == 0
    return result


FLOATS, INTS = (f32, f64), (i32, i64)
ORACLES: dict[str, tuple[tuple[DType, ...], Callable]] = {
    "add": (FLOATS + INTS, np.add), "sub": (FLOATS + INTS, np.subtract), "mul": (FLOATS + INTS, np.multiply),
    "min": (FLOATS + INTS, np.minimum), "max": (FLOATS + INTS, np.maximum), "neg": (FLOATS + INTS, np.negative),
    "abs": (FLOATS + INTS, np.abs),
    "rem": (FLOATS + INTS, np.remainder), "copysign": (FLOATS, np.copysign),
    "sqrt": (FLOATS, np.sqrt), "floor": (FLOATS, np.floor), "ceil": (FLOATS, np.ceil), "round": (FLOATS, np.round),
    "trunc": (FLOATS, np.trunc),
    "rsqrt": (FLOATS, lambda a: (1 / np.sqrt(a)).astype(a.dtype)),
    "and_": (INTS + (bool_,), np.bitwise_and), "or_": (INTS + (bool_,), np.bitwise_or),
    "xor": (INTS + (bool_,), np.bitwise_xor),
    "not_": (INTS + (bool_,), np.invert),
    **{name: (FLOATS + INTS + (bool_,), oracle) for name, oracle in
       (("lt", np.less), ("le", np.less_equal), ("gt", np.greater), ("ge", np.greater_equal), ("eq", np.equal),
        ("ne", np.not_equal))},
    "isnan": (FLOATS, np.isnan), "isfinite": (FLOATS, np.isfinite),
}
CASES = [(op, dtype) for op, (dtypes, _) in ORACLES.items() for dtype in dtypes]


@pytest.mark.parametrize("lanes", [1, 8])
@pytest.mark.parametrize("op, dtype", CASES, ids=lambda v: str(v))
def test_elementwise(op, dtype, lanes):
    signature = REGULAR[op.rstrip("_")]
    ins = [values(dtype, k) for k in range(signature.arity)]
    with np.errstate(all="ignore"):
        expected = ORACLES[op][1](*ins)
    out = bool_ if signature.gives_bool else dtype
    got = apply(lambda f, *v: getattr(f, op)(*v), ins, [dtype] * signature.arity, out, lanes)
    np.testing.assert_array_equal(got, expected)
    if op in ("copysign", "neg", "floor", "trunc"):
        np.testing.assert_array_equal(np.signbit(got), np.signbit(expected))


@pytest.mark.parametrize("lanes", [1, 4])
@pytest.mark.parametrize("dtype", FLOATS + INTS)
def test_div(dtype, lanes):
    ins = [values(dtype, k) for k in range(2)]
    with np.errstate(all="ignore"):
        expected = np.divide(*ins) if dtype.is_float else np.floor_divide(*ins)
    np.testing.assert_array_equal(apply(lambda f, a, b: a / b, ins, [dtype] * 2, dtype, lanes), expected)


@pytest.mark.parametrize("divisor", [1, 3, -4, 8, -1, 0])
@pytest.mark.parametrize("dtype", INTS)
def test_div_and_rem_by_constants(dtype, divisor):
    x = values(dtype, 3)
    with np.errstate(all="ignore"):
        expected = np.floor_divide(x, dtype.np.type(divisor)), np.remainder(x, dtype.np.type(divisor))
    np.testing.assert_array_equal(apply(lambda f, a: f.div(a, divisor), [x], [dtype], dtype, 8), expected[0])
    np.testing.assert_array_equal(apply(lambda f, a: f.rem(a, divisor), [x], [dtype], dtype, 1), expected[1])


@pytest.mark.parametrize("op, oracle", [("min", np.minimum), ("max", np.maximum)])
@pytest.mark.parametrize("constant", [0.0, 1.0, np.nan])
def test_extrema_with_constants_keep_nan(op, oracle, constant):
    x = values(f32, 4)
    for build in (lambda f, v: getattr(f, op)(v, constant), lambda f, v: getattr(f, op)(constant, v)):
        np.testing.assert_array_equal(apply(build, [x], [f32], f32, 8), oracle(x, np.float32(constant)))


@pytest.mark.parametrize("dtype", FLOATS)
def test_fma_rounds_once(dtype):
    """With c = -round(a b), what is left is the rounding error of the product; without fma it would be 0."""
    a, b = np.random.default_rng(0).standard_normal((2, COUNT)).astype(dtype.np)
    c = -(a * b)
    expected = np.array([float(Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z)))
                         for x, y, z in zip(a, b, c)], dtype.np)
    got = apply(lambda f, *v: f.fma(*v), [a, b, c], [dtype] * 3, dtype, 8)
    np.testing.assert_array_equal(got, expected)
    assert np.count_nonzero(got) > COUNT // 2


@pytest.mark.parametrize("lanes", [1, 8])
@pytest.mark.parametrize("dtype, unsigned", [(i32, np.uint32), (i64, np.uint64)])
def test_shifts_and_high_products(dtype, unsigned, lanes):
    rng = np.random.default_rng(1)
    info, bits = np.iinfo(dtype.np), 8 * dtype.itemsize
    a, b = rng.integers(info.min, info.max, (2, COUNT), dtype=dtype.np)
    n = rng.integers(0, bits, COUNT).astype(dtype.np)
    ua, ub = a.view(unsigned), b.view(unsigned)
    high = np.array([int(p) * int(q) >> bits for p, q in zip(ua, ub)], unsigned).view(dtype.np)
    for op, ins, expected in (("shl", (a, n), (ua << n.view(unsigned)).view(dtype.np)),
                              ("lshr", (a, n), (ua >> n.view(unsigned)).view(dtype.np)),
                              ("ashr", (a, n), a >> n), ("mulhi_u", (a, b), high)):
        np.testing.assert_array_equal(apply(lambda f, *v: getattr(f, op)(*v), ins, [dtype] * 2, dtype, lanes), expected,
                                      err_msg=op)


def _saturating(x: np.ndarray, to: np.dtype) -> np.ndarray:
    info = np.iinfo(to)
    return np.array([0 if np.isnan(v) else info.min if v <= info.min else info.max if v >= info.max else int(v)
                     for v in x.tolist()], to)


@pytest.mark.parametrize("lanes", [1, 8])
@pytest.mark.parametrize("source", (f32, f64, i32, i64, bool_))
@pytest.mark.parametrize("to", (f32, f64, i32, i64, bool_))
def test_cast(source, to, lanes):
    x = values(source, 5)
    with np.errstate(all="ignore"):
        expected = _saturating(x, to.np) if source.is_float and to.is_int else x.astype(to.np)
    np.testing.assert_array_equal(apply(lambda f, v: f.cast(v, to), [x], [source], to, lanes), expected)


@pytest.mark.parametrize("source, to", [(f32, i32), (i32, f32), (f64, i64), (i64, f64)])
def test_bitcast(source, to):
    x = values(source, 6)
    got = apply(lambda f, v: f.bitcast(v, to), [x], [source], to, 8)
    np.testing.assert_array_equal(got.view(np.uint8), x.view(np.uint8))


def test_select_mixes_constants_and_lanes():
    x = values(f32, 7)
    got = apply(lambda f, v: f.select(f.gt(v, 0.0), v, -1.0), [x], [f32], f32, 8)
    np.testing.assert_array_equal(got, np.where(x > 0, x, np.float32(-1)))


@pytest.mark.parametrize("kind, oracle",
                         [("add", np.add), ("mul", np.multiply), ("min", np.minimum), ("max", np.maximum)])
@pytest.mark.parametrize("dtype", [f32, f64, i64])
def test_reduce_is_a_halving_tree(kind, oracle, dtype):
    x = np.random.default_rng(8).integers(1, 9, COUNT).astype(dtype.np) * dtype.np.type(1.1 if dtype.is_float else 1)
    got = apply(lambda f, v: f.splat(f.reduce(v, kind), 8), [x], [dtype], dtype, 8)
    tree = x.reshape(-1, 8)
    for half in (4, 2, 1):
        tree = oracle(tree[:, :half], tree[:, half:2 * half])
    np.testing.assert_array_equal(got, np.repeat(tree[:, 0], 8))


@pytest.mark.parametrize("kind, oracle", [("and", np.all), ("or", np.any)])
def test_reduce_bools(kind, oracle):
    x = values(bool_, 9)
    x[:16] = [False] * 8 + [True] * 8
    got = apply(lambda f, v: f.splat(f.reduce(v, kind), 8), [x], [bool_], bool_, 8)
    np.testing.assert_array_equal(got, np.repeat(oracle(x.reshape(-1, 8), axis=1), 8))


def test_lane_operations():
    x = values(i32, 10)
    rows = x.reshape(-1, 8)
    lanes = [7, 0, 3, 3, 12, 9, 1, 15]
    both = np.concatenate([rows, rows + 1], axis=1)
    got = apply(lambda f, v: f.shuffle(v, v + 1, lanes), [x], [i32], i32, 8)
    np.testing.assert_array_equal(got.reshape(-1, 8), both[:, lanes])
    got = apply(lambda f, v: f.insert(v, 2, f.extract(v, 5)) + f.iota(8, i32), [x], [i32], i32, 8)
    expected = rows.copy()
    expected[:, 2] = rows[:, 5]
    np.testing.assert_array_equal(got.reshape(-1, 8), expected + np.arange(8, dtype=np.int32))


@pytest.mark.parametrize("lanes", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize("target", RUNS)
def test_scale_and_fraction(target, lanes):
    """2^n for every n that gives zero, a subnormal, a number, infinity; n rounds down."""
    if not target.has_scaling:
        with pytest.raises(InternalError, match="scale of f32 is no instruction of avx2"):
            apply(lambda f, a, n: f.scale(a, n), [np.ones(COUNT, np.float32)] * 2, [f32, f32], f32, lanes, target)
        return
    x = np.resize(np.concatenate([values(f32, 0), np.float32([0.5, 1.5, -2.5, 0.49999997, 1e9, 1 + 2 ** -23])]), COUNT)
    for n in (-300, -151, -149, -127, -1, 0, 5, 128, 300, 0.75, -3.5, -np.inf):
        got = apply(lambda f, a, n: f.scale(a, n), [x, np.full(COUNT, n, np.float32)], [f32, f32], f32, lanes, target)
        finite = np.isfinite(x)
        with np.errstate(all="ignore"):
            expected = np.ldexp(x.astype(np.float64), int(max(np.floor(n), -2000))).astype(np.float32)
        np.testing.assert_array_equal(got[finite], expected[finite])
    got = apply(lambda f, a: f.fraction(a), [x], [f32], f32, lanes, target)
    np.testing.assert_array_equal(got, np.where(np.isinf(x), 0, x - np.floor(np.where(np.isinf(x), 0, x))))


@pytest.mark.parametrize("target", RUNS)
def test_words_and_what_they_find_in_a_table(target):
    """Bytes in fours, the first in the lowest bits; numbers by the lowest bits of a lane, whatever the others are."""
    source = np.random.default_rng(0).integers(0, 256, 64).astype(np.uint8)
    table = tuple(float(i) - 8 for i in range(16))
    f = LoopFunction("f")
    x, y, z = f.view("x", u8, (64,)), f.view("y", i32, (16,)), f.view("z", f32, (16,))
    words = f.words(f.load(x, [0], 64))
    f.store(y, [0], words)
    f.store(z, [0], f.lookup(table, words))
    found, numbers = np.zeros(16, np.int32), np.zeros(16, np.float32)
    if not target.has_lookup(16):
        with pytest.raises(InternalError, match="lookup of 16 lanes is no instruction of avx2"):
            run(f, [source], found, numbers, target=target)
        return
    assert run(f, [source], found, numbers, target=target) == 0
    np.testing.assert_array_equal(found, source.view(np.int32))
    np.testing.assert_array_equal(numbers, np.float32(table)[source.view(np.int32) & 15])
    for wrong in (lambda: f.words(words), lambda: f.lookup(table[:7], words), lambda: f.lookup(table, f.load(x, [0], 16))):
        with pytest.raises(InternalError, match="words of|lookup of"):
            wrong()


@pytest.mark.parametrize("lanes", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize("target", [*RUNS, pytest.param(replace(AVX2, features="+avx,+fma"), id="without")])
def test_eight_numbers_are_found_in_any_lanes_on_any_target(lanes, target):
    table = tuple(float(i) ** 2 for i in range(LOOKUP_NUMBERS))
    x = np.random.default_rng(0).integers(-(1 << 31), 1 << 31, COUNT).astype(np.int32)
    got = apply(lambda f, a: f.lookup(table, a), [x], [i32], f32, lanes, target)
    np.testing.assert_array_equal(got, np.float32(table)[x & 7])


def test_integer_constants_wrap():
    x = np.zeros(COUNT, np.int32)
    got = apply(lambda f, v: v + 0xD2511F53, [x], [i32], i32, 8)
    np.testing.assert_array_equal(got.view(np.uint32), np.full(COUNT, 0xD2511F53, np.uint32))


def test_every_operation_has_a_translation_and_a_test():
    translated = {key[0] if isinstance(key, tuple) else key for table in (INSTRUCTIONS, INTRINSICS, IRREGULAR)
                  for key in table}
    assert translated >= set(REGULAR) | set(IRREGULAR_NAMES)
    elsewhere = {"div", "fma", "scale", "fraction", "shl", "lshr", "ashr", "mulhi_u", "pow", *MATH, *SPECIAL}
    assert set(REGULAR) == {op.rstrip("_") for op in ORACLES} | elsewhere


@pytest.mark.parametrize("lanes", [1, 4, 16])
@pytest.mark.parametrize("target", [*RUNS, pytest.param(AVX512_BF16, id="avx512_bf16", marks=pytest.mark.skipif(
    not can_run(AVX512_BF16), reason="this CPU has no AVX512-BF16"))])
def test_pairs_of_rounded_numbers(lanes, target):
    """Side by side, the first in the lowest bits: of two vectors, rounded before or with it, and of neighbours."""
    x, y = np.random.default_rng(0).standard_normal((2, 2 * lanes)).astype(np.float32)
    f, found = LoopFunction("f"), np.zeros((3, lanes), np.uint32)
    a, b, to = f.view("a", f32, (2 * lanes,)), f.view("b", f32, (2 * lanes,)), f.view("to", bf16x2, (3, lanes))
    left, right = (f.load(v, [0], lanes) for v in (a, b))
    f.store(to, [0, 0], f.pair(f.cast(left, bf16), f.cast(right, bf16)))
    f.store(to, [1, 0], f.rounded_pair(left, right))
    f.store(to, [2, 0], f.pairs(f.cast(f.load(a, [0], 2 * lanes), bf16)))
    assert compiled(f, 2, (), target).run([x, y], [found]) == 0
    low, high = (v.astype(bf16.np).view(np.uint16).astype(np.uint32) for v in (x, y))
    np.testing.assert_array_equal(found[:2], np.stack([low[:lanes] | high[:lanes] << 16] * 2))
    np.testing.assert_array_equal(found[2], low[::2] | low[1::2] << 16)
    with pytest.raises(InternalError, match="pairs of"):
        f.pairs(left)
