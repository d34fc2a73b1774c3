"""Mathematical functions of f32 within 2 ulp, written once in loop operations for any number of lanes, without
branches.

A scalar gets the same bits as a lane, so results do not depend on where a vector loop ends.
Subnormals are exact citizens; NaN and infinity go where numpy sends them. f64 goes to libm lane by lane.
Measured errors: tests/codegen/test_vecmath.py.

Methods. Argument reduction x = n c + r with c in two or three parts, each step one fma: W. J. Cody and W. Waite,
"Software Manual for the Elementary Functions" (1980). Rounding by adding 1.5 * 2^23, which also leaves n in the low
bits: J.-M. Muller, "Elementary Functions" (3rd ed. 2016), ch. 11. erf by centres whose values are nearly floats:
S. Gal, B. Bachelis, "An accurate elementary mathematical library for the IEEE floating point standard" (1991). log by
the exponent split at sqrt(1/2): S. Moshier, Cephes. Coefficients: our own Remez fits, tests/codegen/minimax.py.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from math import erf as erf_f64
from math import inf, nan, pi
from typing import NamedTuple

import numpy as np

from graphc.codegen.loops.arithmetic import ROUNDER, Arithmetic
from graphc.codegen.loops.loop_ir import Val
from graphc.ir.types import f32, f64, i32, i64

EXP = (0.4999999403953552, 0.1666652113199234, 0.04166838899254799, 0.008368716575205326, 0.0013814599951729178)
EXPM1 = (0.4999999701976776, 0.1666654348373413, 0.04166720062494278, 0.008366520516574383, 0.0013882523635402322)
EXP2 = (0.6931471824645996, 0.24022647738456726, 0.055503323674201965, 0.009618437848985195, 0.001339887734502554,
        0.0001535335904918611)
EXP2_UP = (0.6931470632553101, 0.2402293086051941, 0.055485282093286514, 0.009675451554358006, 0.0012467845808714628,
           0.0002161291631637141)
LOG = (0.3333333134651184, -0.2500081956386566, 0.20001226663589478, -0.16623356938362122, 0.14201757311820984,
       -0.13160181045532227, 0.127615824341774, -0.0763450562953949)
SIN = (-0.16666655242443085, 0.008332177996635437, -0.00019517233886290342)
COS = (0.04166664555668831, -0.0013887366512790322, 2.4438379114144482e-05)
TANH = (-0.3333316147327423, 0.13319705426692963, -0.050868719816207886)
ERF_0 = (0.12837916612625122, -0.3761259615421295, 0.11280776560306549, -0.026159891858696938)
ERF_1 = (0.8782198429107666, -0.4396715760231018, -0.1459929347038269, 0.18305420875549316, 0.007044535595923662,
         -0.04877021163702011, 0.006293992977589369)
ERF_2 = (0.3803567886352539, -0.39663565158843994, 0.14895425736904144, 0.05457456409931183, -0.0674147978425026,
         0.008198118768632412, 0.01304873637855053)
ERF_3 = (0.0976562425494194, -0.15276528894901276, 0.12676337361335754, -0.04821982979774475, -0.00785886775702238,
         0.016769738867878914, -0.005525363143533468)
ERF_4 = (0.013371655717492104, -0.028161143884062767, 0.03508152812719345, -0.027562003582715988, 0.012701662257313728,
         -0.0013758782297372818, -0.0022394568659365177)
ERF_5 = (0.001134215504862368, -0.002979898126795888, 0.004841243848204613, -0.0053666080348193645,
         0.004188966006040573, -0.0022309734486043453, 0.0006529572419822216)
ERF_6 = (5.539439007407054e-05, -0.0001744927722029388, 0.0003479623410385102, -0.0004892845172435045,
         0.0005120514542795718, -0.0004215784138068557, 0.0002541662543080747)
ERF_7 = (1.7811775023801601e-06, -6.5111075855384115e-06, 1.526790947536938e-05, -2.5648934752098285e-05,
         3.308396117063239e-05, -3.563541758921929e-05, 2.7210497137275524e-05)
ERF_CENTRES = (0.0, 0.5006401538848877, 1.0427980422973633, 1.5643157958984375, 2.106039047241211, 2.627279281616211,
               3.149890899658203, 3.6549997329711914)
POW_LOG2 = (1.4426950408865742, -0.7213475203275428, 0.48089834880301285, -0.36067379313857895, 0.2885387957136155,
            -0.2404464335095466, 0.20610712355372662, -0.1804367522698553, 0.1602166597211904, -0.14249861881891662,
            0.13027567154035394, -0.13462941254136077, 0.1325118608624189, -0.0697388336989817)
POW_EXP2 = (0.6931471807045603, 0.24022651066603945, 0.05550410365913169, 0.009618038124966486, 0.0013333935100610945,
            0.00015466758803303534, 1.5196150939599422e-05)

NO_STEPS = 0x4B400000               # the bits of ROUNDER
ROUNDER64 = 1.5 * 2.0 ** 52
SIGN_BIT = -(1 << 31)
INFINITY_BITS = 0x7F800000
HALF_SQRT_BITS = 0x3F3504F3         # sqrt(1/2)
SHIFT = 100                         # 2^(n + SHIFT) is normal for all n >= -224
TANH_BIAS = 0.3
SMALL = 2.0 ** -34
FLOOR = 2.0 ** -90                  # added to squares that nothing rests on where it is not lost in rounding
TINY = 2.0 ** -30                   # below it expm1(x) and log1p(x) round to x (also -0 to -0)
# erf is 1 from ERF_END on; before, each of LOOKUP_NUMBERS ranges of this width has a polynomial
ERF_STEP, ERF_END = 0.524, 3.921875
ERF = ((ERF_0[0], 0.0, ERF_0[1], 0.0, ERF_0[2], 0.0, ERF_0[3]), ERF_1, ERF_2, ERF_3, ERF_4, ERF_5, ERF_6, ERF_7)
ERF_VALUES = tuple(float(np.float32(erf_f64(m))) for m in ERF_CENTRES)
TRIG_LIMIT = 1e5                    # where the three parts of pi/2 stop being enough


def _parts(value_high: float, *rests: float) -> tuple[float, ...]:
    return tuple(float(np.float32(v)) for v in (value_high, *rests))


LN2 = 0.6931471805599453
LN2_HI, LN2_LO = _parts(LN2, LN2 - float(np.float32(LN2)))
# pi/2 = 1.57079632679489661923132169163975144: the third part is beyond a double
PIO2_HI, PIO2_MID, PIO2_LO = _parts(pi / 2, pi / 2 - float(np.float32(pi / 2)), -1.7151245100058e-15)


def polynomial(f: Arithmetic, x: Val, square: Val, coefficients: Sequence[float]) -> Val:
    """c0 + c1 x + c2 x^2 + …: pairs c0 + c1 x joined by Horner's rule in x^2. One fma for each coefficient but the
    last, as Horner's rule has, in half as many dependent steps."""
    pairs = [_pair(f, x, coefficients[k:k + 2]) for k in range(0, len(coefficients), 2)]
    total = pairs.pop()
    while pairs:
        total = f.fma(total, square, pairs.pop())
    return total


def horner(f: Arithmetic, x: Val, coefficients: Sequence[float]) -> Val:
    """c0 + c1 x + c2 x^2 + … by Horner's rule: best for up to three coefficients."""
    *rest, last = coefficients
    total = f.const(last, x.dtype, x.lanes)
    for c in reversed(rest):
        total = f.fma(total, x, c)
    return total


def _pair(f: Arithmetic, x: Val, coefficients: Sequence[float]) -> Val:
    first = f.const(coefficients[0], x.dtype, x.lanes)
    return first if len(coefficients) == 1 else f.fma(x, coefficients[1], first)


class Reduced(NamedTuple):
    """x = n * step + r, with n an integer as float, and in the low bits of `bits`."""
    r: Val
    n: Val
    bits: Val


def _round_multiple(f: Arithmetic, x: Val, inverse_step: float) -> tuple[Val, Val]:
    """x / step to the nearest integer: as float, and as bits whose low half holds it."""
    shifted = f.fma(x, inverse_step, ROUNDER)
    return f.sub(shifted, ROUNDER), f.bitcast(shifted, i32)


def _reduce_ln2(f: Arithmetic, x: Val) -> Reduced:
    n, bits = _round_multiple(f, x, 1 / LN2)
    return Reduced(f.fma(n, -LN2_LO, f.fma(n, -LN2_HI, x)), n, bits)


def _power_of_two(f: Arithmetic, n: Val, bits: Val, factor: float = 1.0) -> Val:
    """factor * 2^n, a normal float, for a factor that is a power of two and the n that is in the low bits, too."""
    if f.has_scaling:
        return f.scale(f.const(factor, f32, n.lanes), n)
    return f.bitcast(f.add(f.shl(bits, 23), np.float32(factor).view(np.int32).item()), f32)


def _scale(f: Arithmetic, value: Val, n: Val, bits: Val, argument: Val) -> Val:
    """value * 2^n, n of the sign of `argument`, n <= 129; 0 where n <= -151. Without an instruction: n >= -224, times
    2^(n+100) 2^-100 or 2^(n-1) 2^1, whose first factors are normal; so a subnormal result is rounded once, and one too
    large becomes infinity."""
    if f.has_scaling:
        return f.select(f.lt(n, -150.5), 0.0, f.scale(value, n))
    negative = f.lt(f.bitcast(argument, i32), 0)
    bias = f.select(negative, f.const(127 + SHIFT << 23, i32, value.lanes), 126 << 23)
    rest = f.select(negative, f.const(2.0 ** -SHIFT, f32, value.lanes), 2.0)
    return f.mul(f.mul(value, f.bitcast(f.add(f.shl(bits, 23), bias), f32)), rest)


def exp(f: Arithmetic, x: Val) -> Val:
    """x = n ln 2 + r; 2^n e^r. Clamped where the result has long been 0 or infinity."""
    x = _clamp(f, x, -155.0, 89.0)
    r, n, bits = _reduce_ln2(f, x)
    return _scale(f, f.add(_series(f, r, EXP), 1.0), n, bits, x)


def exp2(f: Arithmetic, x: Val) -> Val:
    """2^n 2^r with n the nearest integer."""
    x = _clamp(f, x, -224.0, 129.0)
    shifted = f.add(x, ROUNDER)
    n = f.sub(shifted, ROUNDER)
    r = f.sub(x, n)
    return _scale(f, f.fma(r, polynomial(f, r, _square(f, r), EXP2), 1.0), n, f.bitcast(shifted, i32), x)


def _clamp(f: Arithmetic, x: Val, low: float, high: float) -> Val:
    """Before `_scale`, which needs no lower end where there is an instruction."""
    x = f.min(x, high)
    return x if f.has_scaling else f.max(x, low)


def _square(f: Arithmetic, r: Val) -> Val:
    """r^2, and not subnormal for a small r: such numbers take x86 a hundred cycles an operation."""
    return f.fma(r, r, FLOOR)


def _series(f: Arithmetic, r: Val, coefficients: Sequence[float]) -> Val:
    """r + r^2 (c0 + c1 r + …), of which 2^-91 is off: what calls it adds 1, or more than that."""
    square = _square(f, r)
    return f.fma(square, polynomial(f, r, square, coefficients), r)


def expm1(f: Arithmetic, x: Val) -> Val:
    """e^x - 1 = 2 (2^(n-1) (e^r - 1) + (2^(n-1) - 1/2)); halved because 2^128 is no float."""
    r, n, bits = _reduce_ln2(f, f.max(f.min(x, 89.0), -30.0))
    half_power = _power_of_two(f, n, bits, 0.5)
    half_result = f.fma(half_power, _series(f, r, EXPM1), f.sub(half_power, 0.5))
    return f.select(f.lt(f.abs(x), TINY), x, f.add(half_result, half_result))


def sigmoid(f: Arithmetic, x: Val) -> Val:
    """g = 1 / (1 + e^|x|) for negative x, else 1 - g. With e^|x| = 2^n (1 + s) the sum is (1 + 2^n) + 2^n s; what
    rounding takes from the bracket goes to the other term. All is scaled by a small power of two,
    so that 2^n does not overflow, and the clamp is where g is so small that it is 0 at once."""
    r, n, bits = _reduce_ln2(f, f.min(f.abs(x), 111.6))
    s = _series(f, r, EXP)
    power = _power_of_two(f, n, bits, SMALL)
    bracket = f.add(power, SMALL)
    lost = f.add(f.sub(power, bracket), SMALL)
    g = f.div(f.const(SMALL, f32, x.lanes), f.add(f.fma(power, s, lost), bracket))
    return f.select(f.lt(f.bitcast(x, i32), 0), g, f.sub(1.0, g))


def tanh(f: Arithmetic, x: Val) -> Val:
    """|x| = n ln 2 / 2 + r, T = tanh r, p = 2^n: ((p + 1) T + p - 1) / ((p - 1) T + p + 1), by the addition theorem.
    The denominator is computed as numerator + 2 - 2 T, whose rounding errors cancel. n is rounded down rather than up,
    so that n = 0, where the result is T itself, reaches far enough. Exactly 1 from |x| = 9.5 on."""
    t = f.min(f.abs(x), 9.5)
    shifted = f.fma(f.sub(t, TANH_BIAS * LN2 / 2), 2 / LN2, ROUNDER)
    n = f.sub(shifted, ROUNDER)
    r = f.fma(n, -LN2_LO / 2, f.fma(n, -LN2_HI / 2, t))
    square = _square(f, r)
    tanh_r = f.fma(f.mul(square, horner(f, square, TANH)), r, r)
    power = _power_of_two(f, n, f.bitcast(shifted, i32))
    top = f.fma(f.add(power, 1.0), tanh_r, f.sub(power, 1.0))
    return _with_sign_of(f, f.div(top, f.add(top, f.fma(tanh_r, -2.0, 2.0))), x)


def _with_sign_of(f: Arithmetic, positive: Val, x: Val) -> Val:
    """copysign for a first operand that has no sign: an instruction less."""
    return f.bitcast(f.or_(f.bitcast(positive, i32), f.and_(f.bitcast(x, i32), SIGN_BIT)), f32)


def log(f: Arithmetic, x: Val) -> Val:      # noqa: A001 – the name in the table of functions
    """x = 2^n (1 + g) with 1 + g in [sqrt(1/2), sqrt(2)); n ln 2 + log(1 + g)."""
    small = f.lt(x, 2.0 ** -126)
    scaled = f.select(small, x * 2.0 ** 23, x)
    offset = f.sub(f.bitcast(scaled, i32), HALF_SQRT_BITS)
    n = f.add(f.cast(f.ashr(offset, 23), f32), f.select(small, f.const(-23.0, f32, x.lanes), 0.0))
    g = f.sub(f.bitcast(f.add(f.and_(offset, (1 << 23) - 1), HALF_SQRT_BITS), f32), 1.0)
    special = f.select(f.eq(x, 0.0), -inf, f.select(f.lt(x, 0.0), nan, x))
    return f.select(_positive_and_finite(f, x), _log_sum(f, n, g), special)


def _positive_and_finite(f: Arithmetic, x: Val) -> Val:
    """0 < x < infinity as one integer comparison: bits - 1 < bits of infinity - 1, unsigned, so both are moved by
    2^31."""
    return f.lt(f.add(f.bitcast(x, i32), SIGN_BIT - 1), INFINITY_BITS - 1 + SIGN_BIT)


def _log_sum(f: Arithmetic, n: Val, g: Val) -> Val:
    """n ln 2 + log(1 + g), small terms first."""
    square = f.mul(g, g)
    tail = f.fma(f.mul(square, g), polynomial(f, g, square, LOG), f.mul(n, LN2_LO))
    return f.fma(n, LN2_HI, f.add(f.fma(square, -0.5, tail), g))


def log1p(f: Arithmetic, x: Val) -> Val:
    """1 + x = 2^n (1 + g) with n from the rounded sum, but g = 2^-n x + (2^-n - 1) from x itself: one rounding, no
    division."""
    small = f.lt(f.abs(x), TINY)
    inner = f.select(small, 0.0, x)
    offset = f.sub(f.bitcast(f.add(inner, 1.0), i32), HALF_SQRT_BITS)
    n = f.ashr(offset, 23)
    fourfold = f.bitcast(f.sub(129 << 23, f.shl(n, 23)), f32)           # 4 * 2^-n: a float for n = 128 too
    g = f.fma(inner * 0.25, fourfold, f.fma(fourfold, 0.25, -1.0))
    result = _log_sum(f, f.cast(n, f32), g)
    special = f.select(f.eq(x, -1.0), -inf, f.select(f.lt(x, -1.0), nan, x))
    regular = f.and_(f.gt(x, -1.0), f.lt(x, inf))
    return f.select(small, x, f.select(regular, result, special))


def sin(f: Arithmetic, x: Val) -> Val:
    return _sin_cos(f, x, "sin")


def cos(f: Arithmetic, x: Val) -> Val:
    return _sin_cos(f, x, "cos")


def _sin_cos(f: Arithmetic, x: Val, which: str) -> Val:
    """|x| = n pi/2 + r: by n modulo 4 the sine or cosine of r with a sign. Beyond the limit: libm, lane by lane."""
    magnitude = f.abs(x)
    n, bits = _round_multiple(f, magnitude, 2 / pi)
    r = f.fma(n, -PIO2_LO, f.fma(n, -PIO2_MID, f.fma(n, -PIO2_HI, magnitude)))
    square = _square(f, r)
    fourth = _square(f, square)
    sine = f.fma(f.mul(square, polynomial(f, square, fourth, SIN)), r, r)
    cosine = f.fma(fourth, polynomial(f, square, fourth, COS), f.fma(square, -0.5, 1.0))
    quadrant = bits if which == "sin" else f.add(bits, 1)
    value = f.select(f.eq(f.and_(quadrant, 1), 0), sine, cosine)
    sign = f.shl(f.and_(quadrant, 2), 30)
    if which == "sin":
        sign = f.xor(sign, f.and_(f.bitcast(x, i32), SIGN_BIT))
    result = f.bitcast(f.xor(f.bitcast(value, i32), sign), f32)
    return f.repair(f.gt(magnitude, TRIG_LIMIT), result, which, x)


def erf(f: Arithmetic, x: Val) -> Val:
    """By the nearest of eight centres, m + r = |x|: erf(m) + r P(r), with the polynomial of that centre; of the first,
    which is 0, r + r P(r). Centres lie where erf(m) is nearly a float."""
    t = f.min(f.abs(x), ERF_END)
    place = f.bitcast(f.fma(t, 1 / ERF_STEP, ROUNDER), i32)
    r = f.sub(t, f.lookup(ERF_CENTRES, place))
    square = _square(f, r)
    c = [f.lookup(column, place) for column in zip(*ERF)]
    slope = c.pop()
    while c:
        odd, even = c.pop(), c.pop()
        slope = f.fma(slope, square, f.fma(r, odd, even))
    first = f.eq(place, NO_STEPS)
    start = f.select(first, r, f.lookup(ERF_VALUES, place))
    found = f.select(f.eq(t, ERF_END), 1.0, f.fma(r, slope, start))     # exactly: gelu multiplies 1 - it by anything
    return _with_sign_of(f, found, x)


def pow(f: Arithmetic, x: Val, y: Val) -> Val:      # noqa: A001 – the name in the table of functions
    """2^(y log2 |x|) in f64, which holds the 31 bits that the product needs and rounds subnormals once; then the
    sign."""
    base = f.abs(x)
    exponent = f.cast(y, f64)
    logarithm = _log2_f64(f, base)
    settled = f.or_(f.eq(logarithm, 0.0), f.eq(exponent, 0.0))          # 1^y and x^0 are 1, even for NaN
    result = f.cast(_exp2_f64(f, f.select(settled, 0.0, f.mul(exponent, logarithm))), f32)
    integer = f.eq(f.floor(y), y)
    half = f.mul(y, 0.5)
    odd = f.and_(integer, f.ne(f.floor(half), half))
    undefined = f.and_(f.and_(f.lt(x, 0.0), f.gt(x, -inf)), f.not_(integer))
    signed = f.select(odd, f.copysign(result, x), result)
    return f.select(undefined, nan, signed)


def _log2_f64(f: Arithmetic, base: Val) -> Val:
    """log2 of a float >= 0 (every one is a normal double), -inf for 0."""
    wide = f.cast(base, f64)
    offset = f.sub(f.bitcast(wide, i64), 0x3FE6A09E667F3BCD)
    fraction = f.bitcast(f.add(f.and_(offset, (1 << 52) - 1), 0x3FE6A09E667F3BCD), f64)
    n = f.cast(f.cast(f.ashr(offset, 52), i32), f64)
    g = f.sub(fraction, 1.0)
    result = f.fma(g, polynomial(f, g, f.mul(g, g), POW_LOG2), n)
    return f.select(f.eq(wide, 0.0), -inf, f.select(f.lt(wide, inf), result, wide))


def _exp2_f64(f: Arithmetic, z: Val) -> Val:
    """2^z to 34 bits; far outside the range of floats the argument is clamped."""
    z = f.max(f.min(z, 200.0), -200.0)
    shifted = f.add(z, ROUNDER64)
    r = f.sub(z, f.sub(shifted, ROUNDER64))
    power = f.bitcast(f.add(f.shl(f.bitcast(shifted, i64), 52), 1023 << 52), f64)
    return f.mul(f.fma(r, polynomial(f, r, f.mul(r, r), POW_EXP2), 1.0), power)


F32: dict[str, Callable[..., Val]] = {
    "exp": exp, "exp2": exp2, "expm1": expm1, "log": log, "log1p": log1p, "sin": sin, "cos": cos, "tanh": tanh,
       "sigmoid": sigmoid, "erf": erf, "pow": pow}


# ---- f64
def _libm(name: str) -> Callable[..., Val]:
    def rule(f: Arithmetic, *args: Val) -> Val:
        return f.libm(name, *args)
    return rule


def sigmoid_f64(f: Arithmetic, x: Val) -> Val:
    e = f.libm("exp", f.neg(f.abs(x)))
    return f.div(f.select(f.lt(x, 0.0), e, 1.0), f.add(e, 1.0))


F64: dict[str, Callable[..., Val]] = {**{name: _libm(name) for name in F32}, "sigmoid": sigmoid_f64}
