"""Gradients of every operator where there is no derivative, or no number: the truth that docs/numerics.md states, as a
table.

A row of `EDGES` is an operator at a point with the gradient of the sum of its first result. Operators whose gradient
does not depend on their operand are LINEAR, as they say themselves (`linear_in`), products are in PRODUCTS; what has no
gradient at all in samples.NON_DIFFERENTIABLE.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import log, pi, sqrt

import numpy as np
from samples import NON_DIFFERENTIABLE, SAMPLES

from graphc.ir.op import ALL, Op
from graphc.ir.ops.activation import Clip, Elu, Gelu, LeakyRelu, Relu, Silu, Softplus
from graphc.ir.ops.attention import Attention
from graphc.ir.ops.elementwise import Elementwise
from graphc.ir.ops.factor import LQ, LU, Cholesky, SymmetricEigen, TriangularSolve
from graphc.ir.ops.grid_sample import GridSample
from graphc.ir.ops.loss import MSE, BCEWithLogits, CrossEntropy, CrossEntropySoft
from graphc.ir.ops.norm import BatchNorm, BatchNormInference, GroupNorm, LayerNorm, LogSoftmax, RMSNorm, Softmax
from graphc.ir.ops.reduce import LogSumExp, Max, Min, Prod, Var
from graphc.ir.ops.scan_ops import CumProd, LinearScan
from graphc.ir.ops.scatter import Scatter, ScatterAlongAxis
from graphc.ir.ops.solve import Det, SlogDet, Solve
from graphc.ir.ops.sort import Sort, TopK
from graphc.ir.ops.special import LogAddExp, Polygamma, Sinc, XLogY
from graphc.ir.ops.trig import Acos, Acosh, Asin, Asinh, Atan, Atan2, Atanh, Cosh, Sinh, Tan
from graphc.ir.ops.window import MaxPool, MaxPoolGrad, MaxPoolPick

INF, NAN = np.inf, np.nan
POINTS = (NAN, INF, -INF, 0.0, -0.0)


@dataclass(frozen=True, eq=False)
class Edge:
    """`op` at `arrays`: the gradient of its first result, times `seed`, towards each float array."""
    op: Op
    arrays: tuple[np.ndarray, ...]
    expect: tuple[np.ndarray, ...]
    seed: object = 1.0

    @property
    def name(self) -> str:
        return f"{self.op.name}-{'; '.join(str(a.tolist()) for a in self.arrays)}"[:100]


def edge(op: Op, *arrays, expect, seed=1.0) -> Edge:
    arrays = tuple(np.asarray(a, float) if not isinstance(a, np.ndarray) else a for a in arrays)
    expect = expect if isinstance(expect, tuple) else (expect,)
    return Edge(op, arrays, tuple(np.asarray(x, float) for x in expect), seed)


# The slope at NaN, inf, -inf, 0 and -0, then at further points.
SLOPES: dict[Op, tuple[tuple[float, ...], dict[float, float]]] = {
    Elementwise("abs"): ((NAN, 1, -1, 0, 0), {}),
    Elementwise("exp"): ((NAN, INF, 0, 1, 1), {800: INF}),
    Elementwise("expm1"): ((NAN, INF, 0, 1, 1), {}),
    Elementwise("log"): ((NAN, 0, 0, INF, -INF), {-2: -0.5}),           # -0.5, not NaN: the formula's, as in PyTorch
    Elementwise("log1p"): ((NAN, 0, 0, 1, 1), {-1: INF}),
    Elementwise("sqrt"): ((NAN, 0, NAN, INF, -INF), {-2: NAN}),
    Elementwise("rsqrt"): ((NAN, 0, NAN, -INF, INF), {-2: NAN}),
    Elementwise("sin"): ((NAN, NAN, NAN, 1, 1), {}),
    Elementwise("cos"): ((NAN, NAN, NAN, 0, 0), {}),
    Elementwise("tanh"): ((NAN, 0, 0, 1, 1), {}),
    Elementwise("sigmoid"): ((NAN, 0, 0, 0.25, 0.25), {1000: 0, -1000: 0}),
    Elementwise("erf"): ((NAN, 0, 0, 2 / sqrt(pi), 2 / sqrt(pi)), {}),
    Elementwise("erfc"): ((NAN, 0, 0, -2 / sqrt(pi), -2 / sqrt(pi)), {}),
    Elementwise("erfinv"): ((NAN, NAN, NAN, sqrt(pi) / 2, sqrt(pi) / 2), {1: INF, -1: INF, 2: NAN}),
    Elementwise("lgamma"): ((NAN, INF, NAN, -INF, INF), {-1: NAN}),
    Elementwise("digamma"): ((NAN, 0, NAN, INF, INF), {-1: INF}),
    Elementwise("i0"): ((NAN, INF, -INF, 0, 0), {}),
    Elementwise("i1"): ((NAN, NAN, NAN, 0.5, 0.5), {}),
    Elementwise("exp2"): ((NAN, INF, 0, log(2), log(2)), {}),
    Elementwise("log2"): ((NAN, 0, 0, INF, -INF), {-2: -0.5 / log(2)}),
    Elementwise("log10"): ((NAN, 0, 0, INF, -INF), {-2: -0.5 / log(10)}),
    Elementwise("cbrt"): ((NAN, 0, 0, INF, INF), {-8: 1 / 12}),
    Polygamma(1): ((NAN, 0, NAN, -INF, INF), {}),
    Sinc(): ((NAN, NAN, NAN, 0, 0), {1: -1, 2: 0.5}),
    Relu(): ((1, 1, 0, 0, 0), {}),
    LeakyRelu(0.1): ((0.1, 1, 0.1, 0.1, 0.1), {}),
    Elu(2.0): ((NAN, 1, 0, 2, 2), {1000: 1}),
    Gelu(): ((NAN, NAN, NAN, 0.5, 0.5), {1e9: 1, -1e9: 0}),
    Gelu("tanh"): ((NAN, NAN, NAN, 0.5, 0.5), {1e9: 1, -1e9: 0}),
    Silu(): ((NAN, NAN, NAN, 0.5, 0.5), {1e9: 1, -1e9: 0}),
    Softplus(): ((NAN, 1, 0, 0.5, 0.5), {1000: 1, -1000: 0}),
    Clip(0.0, 1.0): ((0, 0, 0, 1, 1), {1: 1, 2: 0}),
    Tan(): ((NAN, NAN, NAN, 1, 1), {}),
    Sinh(): ((NAN, INF, INF, 1, 1), {}),
    Cosh(): ((NAN, INF, -INF, 0, 0), {}),
    Asin(): ((NAN, NAN, NAN, 1, 1), {1: INF, -1: INF, 2: NAN}),
    Acos(): ((NAN, NAN, NAN, -1, -1), {1: -INF, -1: -INF, 2: NAN}),
    Atan(): ((NAN, 0, 0, 1, 1), {}),
    Asinh(): ((NAN, 0, 0, 1, 1), {}),
    Acosh(): ((NAN, 0, NAN, NAN, NAN), {1: INF}),
    Atanh(): ((NAN, 0, 0, 1, 1), {1: INF, -1: INF, 2: -1 / 3})}


def unary() -> Iterator[Edge]:
    for op, (slopes, more) in SLOPES.items():
        yield edge(op, [*POINTS, *more], expect=[*slopes, *more.values()])
        yield edge(op, [], expect=[])


def binary() -> Iterator[Edge]:
    at = lambda fn, x, y, dx, dy: edge(Elementwise(fn), x, y, expect=(dx, dy))          # noqa: E731
    yield at("div", [0, 1, 0, INF, NAN, 1, 1], [0, 0, 2, 2, 1, INF, NAN], [INF, INF, 0.5, 0.5, 1, 0, NAN],
             [NAN, -INF, 0, -INF, NAN, 0, NAN])
    yield at("mod", [7, -7, 1, NAN], [3, 3, 0, 1], [1, 1, 1, 1], [-2, 3, -INF, NAN])
    yield at("pow", [0, 0, 0, 2, -2], [0, 1, 2, 0, 2], [0, 1, 0, 0, -4], [0, 0, 0, log(2), NAN])
    yield at("pow", [INF, NAN, 0, 1], [0, 0, -1, NAN], [0, 0, -INF, NAN], [INF, NAN, -INF, 0])
    yield at("maximum", [1, 2, 0, INF, NAN, 1, NAN], [1, 1, -0.0, INF, 1, NAN, NAN], [0.5, 1, 0.5, 0.5, 1, 1, 1],
             [0.5, 0, 0.5, 0.5, 1, 1, 1])
    yield at("minimum", [1, 2, 0, INF, NAN, 1, NAN], [1, 1, -0.0, INF, 1, NAN, NAN], [0.5, 0, 0.5, 0.5, 1, 1, 1],
             [0.5, 1, 0.5, 0.5, 1, 1, 1])
    yield edge(Atan2(), [0, 1, 0, NAN, INF], [0, 0, -1, 1, 1], expect=([NAN, 0, -1, NAN, 0], [NAN, -1, 0, NAN, NAN]))
    yield edge(LogAddExp(), [0, INF, -INF, NAN, INF], [0, 1, -INF, 1, INF],
               expect=([0.5, 1, 0.5, NAN, 0.5], [0.5, 0, 0.5, NAN, 0.5]))
    yield edge(XLogY(), [0, 0, 2, 0, NAN, 1], [0, -1, 0, NAN, 1, INF],
               expect=([0, 0, -INF, NAN, 0, INF], [0, 0, INF, NAN, NAN, 0]))
    for op in (LogAddExp(), XLogY()):
        yield edge(op, [], [], expect=([], []))
    for fn in ("div", "mod", "pow", "maximum", "minimum"):
        yield at(fn, [], [], [], [])
    yield edge(Atan2(), [], [], expect=([], []))


def reductions() -> Iterator[Edge]:
    for op in (Max((0,)), Min((0,))):
        yield edge(op, [2, 2, 2], expect=[1 / 3] * 3)
        yield edge(op, [0, -0.0], expect=[0.5, 0.5])
        yield edge(op, [NAN, 1], expect=[NAN, NAN])
        yield edge(op, np.zeros((2, 0)), expect=np.zeros((2, 0)))
    yield edge(Max((0,)), [INF, 1, INF], expect=[0.5, 0, 0.5])
    yield edge(Min((0,)), [-INF, 1], expect=[1, 0])
    yield edge(Prod((0,)), [2, 0, 3], expect=[0, 6, 0])
    yield edge(Prod((0,)), [0, 0, 3], expect=[0, 0, 0])
    yield edge(Prod((0,)), [INF, 2, 3], expect=[6, INF, INF])
    yield edge(Prod((0,)), [NAN, 2], expect=[2, NAN])
    yield edge(Prod((0,)), [], expect=[])
    yield edge(Var((0,)), [2, 2, 2], expect=[0, 0, 0])
    yield edge(Var((0,)), [INF, 1], expect=[NAN, -INF])
    yield edge(Var((0,)), [NAN, 1], expect=[NAN, NAN])
    yield edge(Var((0,)), [], expect=[])
    yield edge(LogSumExp((0,)), [NAN, 1, 2, 3], expect=[NAN] * 4)
    yield edge(LogSumExp((0,)), [INF, 1, 2, 3], expect=[NAN, 0, 0, 0])
    yield edge(LogSumExp((0,)), [-INF, 0, -INF], expect=[0, 1, 0])
    yield edge(LogSumExp((0,)), [-INF, -INF], expect=[0, 0])            # PyTorch: NaN
    yield edge(LogSumExp((0,)), [5, 5], expect=[0.5, 0.5])
    yield edge(LogSumExp((1,)), np.zeros((2, 0)), expect=np.zeros((2, 0)))
    yield edge(CumProd(0), [2, 0, 3], expect=[1, 8, 0])
    yield edge(CumProd(0), [NAN, 2], expect=[3, NAN])
    yield edge(CumProd(0), [], expect=[])
    # the first factor has no effect
    yield edge(LinearScan(0), [NAN, 2, 3], [1, 1, 1], expect=([0, 4, 3], [9, 4, 1]))
    yield edge(LinearScan(0), [], [], expect=([], []))


def rows() -> Iterator[Edge]:
    third = np.full(3, 1 / 3)
    for op in (Softmax(0), LogSoftmax(0)):
        yield edge(op, [NAN, 1], expect=[NAN, NAN], seed=[1, 2])
        yield edge(op, [-INF, -INF], expect=[NAN, NAN], seed=[1, 2])
        yield edge(op, np.zeros((2, 0)), expect=np.zeros((2, 0)))
    yield edge(Softmax(0), [1, 1, 1], expect=third * [1, 0, 0] - 1 / 9, seed=[1, 0, 0])
    yield edge(Softmax(0), [-INF, 0, 0], expect=[0, 0.25, -0.25], seed=[5, 1, 0])
    yield edge(LogSoftmax(0), [-INF, 0], expect=[5, -5], seed=[5, 0])
    one, zero = np.ones(2), np.zeros(2)
    for op in (LayerNorm(), RMSNorm()):
        yield edge(op, [[NAN, 1]], expect=[[NAN, NAN]], seed=[[1, 2]])
        yield edge(op, np.zeros((0, 2)), expect=np.zeros((0, 2)))
    yield edge(LayerNorm(1, 0.25), [[1, 1]], expect=[[-1, 1]], seed=[[-0.5, 0.5]])
    yield edge(RMSNorm(1, 0.25), [[0, 0]], expect=[[2, 4]], seed=[[1, 2]])
    yield edge(GroupNorm(1, 0.25), [[1, 1]], expect=[[-1, 1]], seed=[[-0.5, 0.5]])
    yield edge(GroupNorm(1), [[NAN, 1]], expect=[[NAN, NAN]], seed=[[1, 2]])
    yield edge(BatchNorm(0.25), [[1, 1], [1, 1]], one, zero, expect=([[-1, -1], [1, 1]], [0, 0], [0, 0]),
               seed=[[-0.5, -0.5], [0.5, 0.5]])
    yield edge(BatchNorm(), [[NAN, 1], [1, 1]], one, zero, expect=([[NAN, 0], [NAN, 0]], [NAN, 0], [2, 2]))
    yield edge(BatchNormInference(0.25), [[NAN, 1]], one, zero, zero, zero,
               expect=([[2, 2]], [NAN, 2], [1, 1], [-2, -2], [NAN, -4]))


def losses() -> Iterator[Edge]:
    yield edge(MSE("sum"), [NAN, INF, 1], [1, 1, 1], expect=([NAN, INF, 0], [NAN, -INF, 0]))
    yield edge(BCEWithLogits("sum"), [NAN, INF, -INF, 0], [0, 0, 1, 0.5], expect=([NAN, 1, -1, 0], [NAN, -INF, INF, 0]))
    ids = np.array([0, 1])
    bad = [[NAN, 1], [INF, 1], [-INF, -INF]]
    for row in bad:                                 # an ignored row counts for nothing, whatever stands there
        for reduction, share in (("sum", 1), ("mean", 1), ("none", 1)):
            for smooth in (0.0, 0.5):
                expect = np.array([[0, 0], [(0.5 - smooth / 2) * share, (smooth / 2 - 0.5) * share]])
                yield edge(CrossEntropy(1, reduction, smooth, 0), [row, [1, 1]], ids, expect=expect)
    yield edge(CrossEntropy(1, "sum"), [[NAN, 1], [1, 1]], ids, expect=[[NAN, NAN], [0.5, -0.5]])
    yield edge(CrossEntropy(1, "sum"), [[-INF, 1], [1, -INF]], ids, expect=[[-1, 1], [1, -1]])
    yield edge(CrossEntropy(1, "sum"), np.zeros((0, 2)), np.zeros(0, int), expect=np.zeros((0, 2)))
    yield edge(CrossEntropySoft(1, "sum"), [[NAN, 1], [1, 1]], [[1, 0], [0, 1]],
               expect=([[NAN, NAN], [0.5, -0.5]], [[NAN, NAN], [log(2), log(2)]]))
    yield edge(CrossEntropySoft(1, "sum"), np.zeros((2, 0)), np.zeros((2, 0)), expect=(np.zeros((2, 0)),) * 2)


def choices() -> Iterator[Edge]:
    yield edge(Sort(0), [3, NAN, 1, 1], expect=[30, 40, 10, 20], seed=[10, 20, 30, 40])
    yield edge(Sort(0, True), [3, NAN, 1, 1], expect=[20, 10, 30, 40], seed=[10, 20, 30, 40])
    yield edge(Sort(0), [INF, -INF, 0, -0.0], expect=[40, 10, 20, 30], seed=[10, 20, 30, 40])
    yield edge(TopK(2, 0), [3, NAN, 3, 3], expect=[20, 10, 0, 0], seed=[10, 20])
    yield edge(TopK(0, 0), [1, 2], expect=[0, 0])
    yield from scatters()
    line, middle, nowhere = [[[1.0, 3]]], [[[0.0]]], [[[NAN]]]
    yield edge(GridSample("bilinear", "zeros", True), line, middle, expect=([[[0.5, 0.5]]], [[[1]]]))
    yield edge(GridSample("bilinear", "zeros", True), line, nowhere, expect=([[[0, 0]]], [[[0]]]))
    yield edge(GridSample("bilinear", "border", True), line, [[[5.0]]], expect=([[[0, 1]]], [[[0]]]))
    yield edge(GridSample(), np.zeros((0, 1, 2)), np.zeros((0, 1, 1)), expect=(np.zeros((0, 1, 2)), np.zeros((0, 1, 1))))
    for kernel in ((4,), (2, 2), (1, 2, 2)):
        axes, shape = len(kernel), (1, 1, *kernel)
        pool, first = {"kernel": kernel, "stride": kernel}, np.array([1.0, 0, 0, 0]).reshape(shape)
        image, one = np.array([NAN, 1.0, 1, 1]).reshape(shape), np.ones((1, 1, *(1,) * axes))
        yield edge(MaxPool.at(axes)(**pool), image, expect=first)
        yield edge(MaxPool.at(axes)(**pool), np.ones(shape), expect=first)                  # of equals the first
        yield edge(MaxPoolGrad.at(axes)(**pool), image, NAN * one, expect=(np.zeros(shape), one))
        yield edge(MaxPoolPick.at(axes)(**pool), image, np.full(shape, NAN), expect=(np.zeros(shape), first))


def scatters() -> Iterator[Edge]:
    at = np.array([0, 0, 1])
    for op in (Scatter, ScatterAlongAxis):
        yield edge(op(0), [1, 2, 3], at, [4, 5, NAN], expect=([0, 0, 30], [0, 10, 20]), seed=[10, 20, 30])
        yield edge(op(0, "mul"), [2, 3, 4], at, [5, 7, 0], expect=([35, 0, 1], [14, 10, 3]))
        yield edge(op(0, "mul"), [2, 3, 4], at, [0, 7, INF], expect=([0, INF, 1], [14, 0, NAN]))
        yield edge(op(0, "mul"), [2, 3, 4], at, [0, 0, 1], expect=([0, 1, 1], [0, 0, 3]))
        yield edge(op(0, "max"), [4, 3, 4], at, [4, 4, 5], expect=([1 / 3, 0, 1], [1 / 3, 1 / 3, 1]))
        yield edge(op(0, "min"), [4, 3, NAN], at, [1, 1, NAN], expect=([0, NAN, NAN], [0.5, 0.5, NAN]))
        for reduction in ("none", "mul", "min", "max"):
            yield edge(op(0, reduction), [], np.zeros(0, int), [], expect=([], []))


def attention() -> Iterator[Edge]:
    q, k, v = np.zeros((1, 2)), np.zeros((2, 2)), np.array([[1.0, 2], [3, 4]])
    nothing = tuple(map(np.zeros_like, (q, k, v)))
    half = np.full((2, 2), 0.5)
    yield edge(Attention(1.0), q, k, v, expect=(nothing[0], nothing[1], half))
    # nobody may be looked at
    yield edge(Attention(1.0), q, k, v, np.zeros((1, 2), bool), expect=nothing)
    yield edge(Attention(1.0), q * NAN, k, v, expect=(q * NAN, k * NAN, half * NAN))
    yield edge(Attention(1.0), np.zeros((0, 2)), k, v, expect=(np.zeros((0, 2)), *nothing[1:]))


def matrices() -> Iterator[Edge]:
    """Singular ones, NaN, equal eigenvalues; the sign that slogdet gives first is a step."""
    one, two, nothing, undefined = [[1.0]], [[2.0]], [[0.0]], [[NAN]]
    yield edge(Cholesky(), [[4, 0], [0, 9]], expect=[[0.25, 0], [0.5, 1 / 6]])
    for x in (nothing, undefined, [[-1.0]]):
        yield edge(Cholesky(), x, expect=undefined)
    for op in (TriangularSolve(), Solve()):
        yield edge(op, two, [[4.0]], expect=([[-1]], [[0.5]]))
        yield edge(op, nothing, one, expect=([[-INF]], [[INF]]))
        yield edge(op, undefined, one, expect=(undefined, undefined))
    yield edge(LU(), two, expect=one)
    yield edge(LU(), nothing, expect=undefined)
    yield edge(Det(), [[3, 0], [0, 2]], expect=[[2, 0], [0, 3]])
    yield edge(Det(), nothing, expect=undefined)
    yield edge(SlogDet(), two, expect=nothing)
    yield edge(SymmetricEigen(), [[1, 0], [0, 1]], expect=[[1, 0], [0, 1]])
    yield edge(SymmetricEigen(), undefined, expect=undefined)
    yield edge(LQ(), [[3, 4]], expect=[[0.6, 0.8]])
    yield edge(LQ(), [[0, 0]], expect=[[NAN, NAN]])
    for op in (Cholesky(), LU(), Det(), SlogDet(), SymmetricEigen(), LQ()):
        yield edge(op, np.zeros((0, 2, 2)), expect=np.zeros((0, 2, 2)))
    yield edge(Solve(), np.zeros((0, 2, 2)), np.zeros((0, 2, 1)), expect=(np.zeros((0, 2, 2)), np.zeros((0, 2, 1))))


EDGES: tuple[Edge, ...] = (*unary(), *binary(), *reductions(), *rows(), *losses(), *choices(), *attention(), *matrices())


def _named(reads_nothing: Callable[[set[tuple[int, ...]], set[int]], bool]) -> frozenset[str]:
    """Operators of which a sample has float operands as asked: given the groups in which it is linear, and the
    operands."""
    found = set()
    for s in (s for s in SAMPLES if s.differentiable and s.op.name not in NON_DIFFERENTIABLE):
        floats = {i for i, a in enumerate(s.arrays) if a.dtype.kind == "f"}
        groups = {tuple(floats) if group == ALL else group for group in s.op.linear_in}
        found |= {s.op.name} if reads_nothing(groups, floats) else set()
    return frozenset(found)


# The gradient does not depend on the operands: NaN and infinity there do not enter it.
LINEAR = _named(lambda groups, floats: any(floats <= set(group) for group in groups)) | {"cast"}

# The gradient towards an operand depends on the others alone.
PRODUCTS = _named(lambda groups, floats: len(floats) > 1 and {(i,) for i in floats} <= groups)

# Their gradients are those of the operators in their bodies; tests/autodiff/test_hidden.py has them with NaN in what is
# not run.
REGIONS = frozenset(("scan", "cond", "while_loop", "custom_vjp", "remat"))
