"""Special functions, written once in f64 for any number of lanes: of f32 they are rounded from there, so their errors
are half a unit in the last place and little more; of f64 a few units. No branches, as in `vector_math`; lgamma of
negative numbers, whose zeros need more than a reflection, and what libm has for f64 go to libm lane by lane.

Methods. log by fdlibm's form f - (f^2/2 - s (f^2/2 + R)) of s = f / (2 + f). lgamma and digamma: recurrences (DLMF
5.5.1, 5.5.2) to an interval around 2 and 1.5, Stirling's series (DLMF 5.11.1, 5.11.2) from 8.5 on, reflection (5.5.4)
of digamma. erfinv as x P(log(1 - x^2)): M. Giles, "Approximating the erfinv function" (2011). Bessel functions: their
power series (DLMF 10.25.2) up to 8, beyond it a polynomial in 1/x. Coefficients that are not rational numbers: our own
interpolations, tests/codegen/chebyshev.py.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from math import factorial, inf, log, nan

from graphc.codegen.llvm.vector_math import ROUNDER64, polynomial
from graphc.codegen.loops.arithmetic import Arithmetic
from graphc.codegen.loops.loop_ir import Val
from graphc.ir.types import f32, f64, i32, i64

LOG64 = (0.6726173320891435, 0.006014017986078047, 6.40876181290634e-05, 7.44030262065608e-07, 9.089114867045778e-09,
    1.1484820169590255e-10, 1.4870624075468331e-12, 1.959779463347601e-14)
LGAMMA = (0.42278433509846713, 0.1612335167120566, -0.016838075263299536, 0.0025726010534730713,
    -0.0004615969392917596, 9.032844783558553e-05, -1.863677987501598e-05, 3.981793163166481e-06,
    -8.716982450984518e-07, 1.942529474587772e-07, -4.387338974983724e-08, 1.0013314167996967e-08,
    -2.3043112100202176e-09, 5.339813130999916e-10, -1.2481202067269968e-10, 2.923176066319201e-11,
    -6.566709534240663e-12, 1.5491338158886129e-12, -5.116584685713687e-13, 1.2167067542304562e-13)
DIGAMMA = (0.9510558760318328, -0.2118137106407303, 0.060135621060196744, -0.018550615381735115, 0.005936795278305649,
    -0.0019350666648590097, 0.0006368880303257201, -0.00021074841140458636, 6.995018873950506e-05,
    -2.325824239445257e-05, 7.741232223504057e-06, -2.57809436305308e-06, 8.589127353033379e-07, -2.86315275846934e-07,
    9.542050972688906e-08, -3.163020268955334e-08, 1.0542687624027994e-08, -3.7075072647122386e-09,
    1.2358072433984831e-09, -2.7619635330317715e-10, 9.206434499177992e-11, -8.498137230186096e-11,
    2.832706668021759e-11)
COT = (0.5504097966458958, -0.4931208488670252, -0.04943565224391102, -0.006740246709724555, -0.000954309050908479,
    -0.00013607106132125082, -1.9430593466769765e-05, -2.7755396817506645e-06, -3.9649714781456846e-07,
    -5.664218156203196e-08, -8.092142298723673e-09, -1.1560200497267406e-09, -1.6466031917846035e-10,
    -2.3522902449878682e-11, -3.6591181484563776e-12, -5.227311637622831e-13)
ERFINV_MIDDLE = (1.6536545626831027, 0.7504943200799635, -0.05892256710377784, -0.022604447453449802,
    0.017808361818295655, -0.00413731437741443, -0.0012716922684373015, 0.0012324855686812834, -0.0002643936684366174,
    -0.0001168888399309713, 9.33673917780479e-05, -1.5027710420277575e-05, -1.1257319182677936e-05,
    7.1300572630824496e-06, -6.83718721812117e-07, -1.059321402540731e-06, 5.394320648707009e-07,
    -1.0185147576818285e-08, -9.867713140174249e-08, 3.915473114023045e-08, 4.792369996100387e-09,
    -8.562787796742932e-09, 1.5401738716654886e-09, 7.689312733742569e-10, -2.7032254091069344e-10)
ERFINV_TAIL = (3.0838856104922208, 0.753944225770624, 0.0030211394363747063, -0.0015825410894073097,
    0.0007883078513066945, -0.00040063569835358583, 0.00016966502197543766, -4.7391827316182325e-05,
    2.405864805789804e-06, 5.127316786334848e-06, -2.664793846715906e-06, 5.264621626938461e-07, 9.289338749101434e-08,
    -9.468946844911027e-08, 2.63990323529153e-08, -3.6906087078089294e-10, -2.4605291139227303e-09,
    9.891297510532429e-10, -1.179100761769929e-10, -6.471554767207546e-11, 2.4355543452655723e-11)
ERFINV_END = (4.913049587233785, 1.073423220166284, -0.0002001588727109044, -0.00023602855409846467,
    8.933962951538415e-05, -2.4458702174448735e-05, 5.920810831908112e-06, -1.3562452539236187e-06,
    3.176663140913509e-07, -9.024546489388394e-08, 3.7304232880954045e-08, -2.0207188217773717e-08,
    1.1141501229808439e-08, -5.386008165868765e-09, 2.306361135850383e-09, -9.272103373894921e-10,
    2.0645883302713628e-10, 7.300794998027881e-11, -4.284246239790874e-11)
ERFC = (0.3328171643596833, -0.42870927909220513, 0.19594890398230203, -0.04627574599583791, -0.001084957405927114,
    0.002954643605152278, 8.813553295298727e-05, -0.000251630274396767, -3.932076363845878e-05, 2.022968222600112e-05,
    8.761891756547706e-06, -5.478043962271597e-07, -1.2299955818527153e-06, -1.2429483388066597e-07,
    8.822667306647197e-08)
I0_LARGE = (0.4021765094450081, 0.003360551983667854, 0.00013621607439232746, 1.1143033791556743e-05,
    1.4838475473607391e-06, 2.973598432479169e-07, 8.87225351128584e-08, 3.932602459703109e-08, 2.1545177650836005e-08,
    7.553516470355896e-09, -6.729724111923548e-09, -1.3404241991980871e-08, -5.4685974495866e-09,
    7.540601378890834e-09, 7.58022133915272e-09, -3.4857887470034955e-09, -6.188265090497361e-09,
    1.497880830187091e-09, 3.881151253996067e-09, -5.562201990080394e-10, -1.7789375042917173e-09,
    1.4672236659214398e-10, 5.181936971288284e-10, -1.9216763724933513e-11, -7.06893851181878e-11)
I1_LARGE = (0.38939845902587233, -0.009749577193235728, -0.00021923576383430274, -1.5038547201176271e-05,
    -1.8349101134666435e-06, -3.483855609009937e-07, -1.0001323461066435e-07, -4.312935369971356e-08,
    -2.337059627111857e-08, -8.426622829598154e-09, 6.715795128085017e-09, 1.4029693589852716e-08,
    6.040877342160988e-09, -7.630751970065577e-09, -8.044231276166508e-09, 3.406636130196794e-09,
    6.4870195719816896e-09, -1.4171698018664596e-09, -4.047785403711858e-09, 5.146498826087142e-10,
    1.8513716745511988e-09, -1.342266320082222e-10, -5.388285995923524e-10, 1.7502497778701306e-11,
    7.347992441734663e-11)

# Bernoulli's numbers B2, B4, … over 2k (2k - 1), of lgamma, and over 2k, of digamma
BERNOULLI = tuple(Fraction(*b) for b in (
    (1, 6), (-1, 30), (1, 42), (-1, 30), (5, 66), (-691, 2730), (7, 6), (-3617, 510), (43867, 798), (-174611, 330)))
STIRLING = tuple(float(b / (2 * k * (2 * k - 1))) for k, b in enumerate(BERNOULLI, 1))
STIRLING_SLOPE = tuple(float(b / (2 * k)) for k, b in enumerate(BERNOULLI, 1))
I0_SMALL = tuple(1 / factorial(k) ** 2 for k in range(24))
I1_SMALL = tuple(1 / (factorial(k) * factorial(k + 1)) for k in range(24))
EXP64 = tuple(1 / factorial(k) for k in range(2, 14))

LN2_HIGH = round(log(2) * 2 ** 32) / 2 ** 32
LN2_LOW = log(2) - LN2_HIGH + 2.3190468138462996e-17
LOG_END = ((1 - 0.7071067811865476) / (1 + 0.7071067811865476)) ** 2 * 1.0001        # of the square of s
SQRT_HALF_BITS = 0x3FE6A09E667F3BCD
DIGAMMA_ROOT, DIGAMMA_ROOT_LOW = 1.4616321449683622, 9.549995429965697e-17
STIRLING_FROM = 8.5
HALF_LOG_TWO_PI = 0.9189385332046727
BESSEL_SPLIT = 8.0
BESSEL_END = 720.0                  # where both are infinite in f64
ERFC_END = 10.1                     # where erfc is 0 in f32


def _in(f: Arithmetic, x: Val, low: float, high: float, coefficients: Sequence[float]) -> Val:
    """The polynomial in t, which is -1 at low and 1 at high."""
    scale = 2 / (high - low)
    t = f.fma(x, scale, -(low + high) / 2 * scale)
    return polynomial(f, t, f.mul(t, t), coefficients)


def _log(f: Arithmetic, x: Val) -> Val:
    """log of an f64, within a unit."""
    small = f.lt(x, 2.0 ** -1022)
    bits = f.bitcast(f.select(small, f.mul(x, 2.0 ** 54), x), i64)
    offset = f.sub(bits, SQRT_HALF_BITS)
    n = f.add(f.cast(f.cast(f.ashr(offset, 52), i32), f64), f.select(small, f.const(-54.0, f64, x.lanes), 0.0))
    g = f.sub(f.bitcast(f.add(f.and_(offset, (1 << 52) - 1), SQRT_HALF_BITS), f64), 1.0)
    s = f.div(g, f.add(g, 2.0))
    z, half = f.mul(s, s), f.mul(f.mul(g, 0.5), g)
    rest = f.mul(z, _in(f, z, 0.0, LOG_END, LOG64))
    inner = f.sub(half, f.fma(s, f.add(half, rest), f.mul(n, LN2_LOW)))
    result = f.fma(n, LN2_HIGH, f.sub(g, inner))
    special = f.select(f.eq(x, 0.0), -inf, f.select(f.lt(x, 0.0), nan, x))
    return f.select(f.and_(f.gt(x, 0.0), f.lt(x, inf)), result, special)


def _exp(f: Arithmetic, x: Val) -> Val:
    """e^x for -600 < x < 600."""
    shifted = f.fma(x, 1 / log(2), ROUNDER64)
    n = f.sub(shifted, ROUNDER64)
    r = f.fma(n, -LN2_LOW, f.fma(n, -LN2_HIGH, x))
    square = f.mul(r, r)
    series = f.fma(square, polynomial(f, r, square, EXP64), r)
    power = f.bitcast(f.add(f.shl(f.bitcast(shifted, i64), 52), 1023 << 52), f64)
    return f.fma(power, series, power)


def lgamma(f: Arithmetic, x: Val) -> Val:
    """Below 8.5 x is moved to z in 1.5 … 2.5, and lgamma(x) = lgamma(z) ± log of the product of the steps."""
    below, far_below = f.lt(x, 1.5), f.lt(x, 0.5)
    product = f.select(far_below, f.mul(x, f.add(x, 1.0)), f.select(below, x, 1.0))
    z = x
    for _ in range(6):
        above = f.gt(z, 2.5)
        z = f.select(above, f.sub(z, 1.0), z)
        product = f.select(above, f.mul(product, z), product)
    near, inverse = f.lt(x, STIRLING_FROM), f.div(f.const(1.0, f64, x.lanes), x)
    logarithm = _log(f, f.select(near, product, x))
    t = f.select(far_below, x, f.sub(z, f.select(below, f.const(1.0, f64, x.lanes), 2.0)))     # z - 2, exact
    moved = f.fma(t, _in(f, t, -0.5, 0.5, LGAMMA), f.select(below, f.neg(logarithm), logarithm))
    square = f.mul(inverse, inverse)
    series = f.fma(inverse, polynomial(f, square, f.mul(square, square), STIRLING), HALF_LOG_TWO_PI - 0.5)
    result = f.select(near, moved, f.fma(f.sub(x, 0.5), f.sub(logarithm, 1.0), series))
    return f.repair(f.lt(x, 0.0), result, "lgamma", x)


def digamma(f: Arithmetic, x: Val) -> Val:
    """Of negative x by reflection. Below 8.5 moved to 1 … 2, the sum of 1 / step in one fraction."""
    reflected = f.lt(x, 0.0)
    y = f.select(reflected, f.sub(1.0, x), x)
    below = f.lt(y, 1.0)
    z = f.select(below, f.add(y, 1.0), y)
    top, bottom = f.select(below, f.const(-1.0, f64, x.lanes), 0.0), f.select(below, y, 1.0)
    for _ in range(7):
        above = f.gt(z, 2.0)
        z = f.select(above, f.sub(z, 1.0), z)
        top = f.select(above, f.fma(top, z, bottom), top)
        bottom = f.select(above, f.mul(bottom, z), bottom)
    from_root = f.sub(f.sub(z, DIGAMMA_ROOT), DIGAMMA_ROOT_LOW)
    moved = f.fma(from_root, _in(f, z, 1.0, 2.0, DIGAMMA), f.div(top, bottom))
    inverse = f.div(f.const(1.0, f64, x.lanes), y)
    square = f.mul(inverse, inverse)
    series = f.mul(square, polynomial(f, square, f.mul(square, square), STIRLING_SLOPE))
    far = f.sub(_log(f, y), f.fma(inverse, 0.5, series))
    result = f.select(f.lt(y, STIRLING_FROM), moved, far)
    r = f.sub(x, f.round(x))
    mirrored = f.sub(result, f.div(_in(f, f.mul(r, r), 0.0, 0.25, COT), r))
    return f.select(reflected, f.select(f.eq(r, 0.0), nan, mirrored), result)


def erfc_f32(f: Arithmetic, x: Val) -> Val:
    """e^(-x^2) P(|x|) of an f64, to 34 bits and 0 where an f32 is."""
    a = f.min(f.abs(x), ERFC_END)
    scaled = _in(f, f.div(f.sub(a, 2.0), f.add(a, 2.0)), -1.0, 0.67, ERFC)
    tail = f.mul(_exp(f, f.neg(f.mul(a, a))), scaled)
    return f.select(f.lt(x, 0.0), f.sub(2.0, tail), tail)


def erfinv(f: Arithmetic, x: Val) -> Val:
    """x P(w), w = -log(1 - x^2): one polynomial of w, two of its root."""
    w = f.neg(_log(f, f.mul(f.sub(1.0, x), f.add(x, 1.0))))
    s = f.sqrt(w)
    far = f.select(f.lt(s, 4.0), _in(f, s, 2.5, 4.0, ERFINV_TAIL), _in(f, s, 4.0, 6.125, ERFINV_END))
    result = f.mul(x, f.select(f.lt(w, 6.25), _in(f, w, 0.0, 6.25, ERFINV_MIDDLE), far))
    return f.select(f.eq(f.abs(x), 1.0), f.mul(x, inf), result)


def _bessel(f: Arithmetic, a: Val, small: Val, large: Sequence[float]) -> Val:
    """The power series up to 8, else e^a / sqrt(a) P(1 / a); e^a as a square, which overflows later."""
    inverse = f.div(f.const(1.0, f64, a.lanes), a)
    root = _exp(f, f.min(f.mul(a, 0.5), BESSEL_END / 2))
    grown = f.mul(f.mul(f.mul(root, f.sqrt(inverse)), _in(f, inverse, 0.0, 1 / BESSEL_SPLIT, large)), root)
    return f.select(f.lt(a, BESSEL_SPLIT), small, f.select(f.gt(a, BESSEL_END), inf, grown))


def i0(f: Arithmetic, x: Val) -> Val:
    a = f.abs(x)
    u = f.mul(f.mul(a, a), 0.25)
    return _bessel(f, a, polynomial(f, u, f.mul(u, u), I0_SMALL), I0_LARGE)


def i1(f: Arithmetic, x: Val) -> Val:
    a = f.abs(x)
    u = f.mul(f.mul(a, a), 0.25)
    return f.copysign(_bessel(f, a, f.mul(f.mul(a, 0.5), polynomial(f, u, f.mul(u, u), I1_SMALL)), I1_LARGE), x)


def log2_f32(f: Arithmetic, x: Val) -> Val:
    return f.mul(_log(f, x), 1 / log(2))


def log10_f32(f: Arithmetic, x: Val) -> Val:
    return f.mul(_log(f, x), 1 / log(10))


def cbrt(f: Arithmetic, x: Val) -> Val:
    """e^(log|x| / 3) with the sign of x, then a step of Newton's; 0, infinity and NaN are their own roots."""
    a = f.abs(x)
    tiny = f.lt(a, 2.0 ** -900)                                         # whose cubes would be subnormal
    a = f.select(tiny, f.mul(a, 2.0 ** 162), a)
    root = _exp(f, f.max(f.min(f.mul(_log(f, a), 1 / 3), 600.0), -600.0))
    square = f.mul(root, root)
    root = f.sub(root, f.div(f.fma(square, root, f.neg(a)), f.mul(square, 3.0)))
    root = f.copysign(f.select(tiny, f.mul(root, 2.0 ** -54), root), x)
    return f.select(f.and_(f.gt(a, 0.0), f.lt(a, inf)), root, x)


def _narrowed(function: Callable[..., Val]) -> Callable[..., Val]:
    """The function of f32, rounded once from that of f64."""
    def rule(f: Arithmetic, x: Val) -> Val:
        return f.cast(function(f, f.cast(x, f64)), f32)
    return rule


def _libm(name: str) -> Callable[..., Val]:
    def rule(f: Arithmetic, x: Val) -> Val:
        return f.libm(name, x)
    return rule


BOTH: dict[str, Callable[..., Val]] = {
    "lgamma": lgamma, "digamma": digamma, "erfinv": erfinv, "i0": i0, "i1": i1, "cbrt": cbrt}
F32: dict[str, Callable[..., Val]] = {name: _narrowed(function) for name, function in (
    *BOTH.items(), ("erfc", erfc_f32), ("log2", log2_f32), ("log10", log10_f32))}
F64: dict[str, Callable[..., Val]] = {**BOTH, **{name: _libm(name) for name in ("erfc", "log2", "log10")}}
