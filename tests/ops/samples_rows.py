"""Samples of reductions, running sums, sorting, normalisations and losses, with expectations in long double or plain Python."""
from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from op_sample import FLOATS, Sample, distinct, each, floats, ints, values

from graphc.ir.ops.loss import MSE, BCEWithLogits, CrossEntropy, CrossEntropySoft
from graphc.ir.ops.norm import BatchNorm, BatchNormInference, GroupNorm, LayerNorm, LogSoftmax, RMSNorm, Softmax
from graphc.ir.ops.reduce import ArgMax, ArgMin, LogSumExp, Max, Mean, Min, Prod, Sum, Var
from graphc.ir.ops.scan_ops import CumProd, CumSum, LinearScan, RunningArgExtremum
from graphc.ir.ops.sort import ArgSort, Sort, TopK
from graphc.ir.types import DType, bool_, f32, f64, i32, i64

INF, NAN = np.inf, np.nan
REDUCED = (((33,), (0,)), ((100,), (0,)), ((1,), (0,)), ((3, 17), (1,)), ((17, 3), (0,)), ((2, 3, 7), (0, 2)), ((2, 3, 7), (1,)), ((8, 8), (0, 1)), ((5, 1), (1,)),
           ((3, 0), (0,)), ((4, 5), ()), ((), ()))
ODD = np.array([[1, 2, NAN, 0], [INF, 1, 2, -1], [-INF, 0, 1, INF], [-INF, -INF, -INF, -INF], [3e7, -3e7, 0, 0]])


def wide(array) -> np.ndarray:
    return np.asarray(array, np.longdouble)


def by_rows(fn: Callable) -> Callable:
    """The reduction that calls `fn` on the list of numbers of each row."""
    def make(axes, keepdims):
        def run(x):
            kept = [i for i in range(x.ndim) if i not in axes]
            rows = np.transpose(x, (*kept, *axes)).reshape(math.prod(x.shape[i] for i in kept), -1) if x.size else np.zeros((0, 1))
            result = np.array([fn(row.tolist()) for row in rows])
            return result.reshape([1 if i in axes else d for i, d in enumerate(x.shape) if keepdims or i not in axes])
        return run
    return make


def mean_of(row):
    return math.fsum(row) / len(row)


def var_of(row, ddof=0):
    m = mean_of(row)
    return math.fsum((v - m) ** 2 for v in row) / (len(row) - ddof) if len(row) > ddof else NAN


ROW = {"sum": lambda row: math.fsum(row) if isinstance(row[0], float) else sum(row), "prod": math.prod, "max": max, "min": min, "mean": mean_of, "var": var_of,
       "logsumexp": lambda row: math.log(math.fsum(map(math.exp, row)))}


def reductions() -> Iterator[Sample]:
    for cls in (Sum, Prod, Max, Min, Mean, Var, LogSumExp):
        for shape, axes in REDUCED:
            for keepdims in (False, True) if len(shape) == 2 else (False,):
                op, expect = cls(axes, keepdims), by_rows(ROW[cls.name])(axes, keepdims)
                tag = f"axes{''.join(map(str, axes))}" + "-keep" * keepdims
                yield from each(op, ((shape,),), tag=tag, expect=expect, make=distinct if cls in (Max, Min) else values)
        for dtype in FLOATS:
            yield Sample(cls((1,)), (ODD.astype(dtype.np),), "odd", smooth=False)
            yield Sample(cls((0,)), (floats((130, 5), dtype, 0.5, 1.5),), "long", expect=by_rows(ROW[cls.name])((0,), False), tolerance=200)
            yield Sample(cls((1,)), (floats((3, 1000), dtype, 0.99, 1.01),), "longer", smooth=False, expect=by_rows(ROW[cls.name])((1,), False), tolerance=2000)
    for cls in (Sum, Prod, Max, Min):
        for dtype in (i32, i64):
            yield Sample(cls((1,)), (ints((5, 7), dtype, -4, 4),), "int", expect=by_rows(ROW[cls.name])((1,), False))
    for cls in (Max, Min):
        for shape in ((5, 3), (1, 33)):
            yield Sample(cls((1,)), (values(shape, bool_),), "bool", expect=by_rows(ROW[cls.name])((1,), False))
        yield Sample(cls((1,)), (ints((4, 9), f64, 0, 3),), "ties", smooth=False)
    for cls in (Sum, Prod, Mean):
        yield from each(cls((0,)), (((0, 3),),), tag="empty")
    for ddof in (1, 2):
        yield from each(Var((1,), False, ddof), (((3, 7),), ((3, 1),)), tag=f"ddof{ddof}", expect=by_rows(lambda row, n=ddof: var_of(row, n))((1,), False), smooth=False)
        yield from each(Var((1,), True, ddof), (((3, 7),),), tag=f"ddof{ddof}-keep")
    zeros = np.array([[1.5, 0, 2, -1], [0, 3, 0, 1], [1, 2, 3, 4]])
    yield from (Sample(Prod(axes), (zeros.astype(d.np),), f"zeros{axes}") for d in FLOATS for axes in ((1,), (0, 1)))
    yield from (Sample(LogSumExp((1,)), (np.array([[800.0, 801], [-800, -801]], d.np),), "large", smooth=False) for d in FLOATS)


def arg_extrema() -> Iterator[Sample]:
    for cls, best in ((ArgMax, max), (ArgMin, min)):
        for dtype in (f32, f64, i32, i64):
            for shape, axis in (((33,), 0), ((3, 17), 1), ((17, 3), 0), ((1, 1), 1), ((2, 3, 5), 1)):
                first = by_rows(lambda row, best=best: row.index(best(row)))((axis,), False)
                yield Sample(cls(axis), (ints(shape, dtype, -3, 3),), f"axis{axis}", expect=first)
        yield Sample(cls(1, True), (floats((3, 7)),), "keep")
        yield from (Sample(cls(1), (ODD.astype(d.np),), "odd", smooth=False) for d in FLOATS)


def running(fn: Callable, start, reverse: bool, exclusive: bool) -> Callable:
    def along(row):
        row, total, result = (row[::-1] if reverse else row).tolist(), start, []
        for v in row:
            result.append(total if exclusive else fn(total, v))
            total = fn(total, v)
        return result[::-1] if reverse else result
    return along


def cumulatives() -> Iterator[Sample]:
    for cls, fn, start in ((CumSum, lambda s, v: s + v, 0), (CumProd, lambda s, v: s * v, 1)):
        for reverse, exclusive in ((False, False), (False, True), (True, False), (True, True)):
            tag = "-reverse" * reverse + "-exclusive" * exclusive
            for shape, axis in (((33,), 0), ((3, 7), 1), ((7, 3), 0), ((2, 3, 5), 1), ((4, 1), 1), ((0,), 0), ((2, 0, 3), 1)):
                expect = (lambda x, a=axis, r=reverse, e=exclusive, fn=fn, start=start: np.apply_along_axis(running(fn, start, r, e), a, x)) if 0 not in shape else None
                yield from each(cls(axis, reverse, exclusive), ((shape,),), tag=f"axis{axis}{tag}", expect=expect)
            yield from (Sample(cls(1, reverse, exclusive), (ints((3, 8), d, -3, 3),), f"int{tag}") for d in (i32, i64))
            yield Sample(cls(1, reverse, exclusive), (np.array([[1.5, 0, 2, 0, -1], [0, 3, 1, 1, 2]]),), f"zeros{tag}")
    yield Sample(CumSum(1), (ODD.astype(f32.np),), "odd")


def last_best(least: bool) -> Callable:
    def along(row):
        row = row.tolist()
        return [max(range(i + 1), key=lambda j: (row[j] != row[j], -row[j] if least else row[j], j)) for i in range(len(row))]
    return along


def running_extremes() -> Iterator[Sample]:
    for least in (False, True):
        for dtype in (f32, f64, i32, i64):
            for shape, axis in (((33,), 0), ((3, 17), 1), ((17, 3), 0), ((1, 1), 1), ((2, 3, 5), 1), ((0,), 0), ((2, 0, 3), 1)):
                expect = (lambda x, a=axis, least=least: np.apply_along_axis(last_best(least), a, x)) if 0 not in shape else None
                yield Sample(RunningArgExtremum(axis, least), (ints(shape, dtype, -3, 3),), f"axis{axis}{'-least' * least}", expect=expect)
        odd = np.array([[-np.inf, np.nan, 2, np.nan, np.inf], [np.inf, -np.inf, 0, -0.0, 1]])
        yield from (Sample(RunningArgExtremum(1, least), (odd.astype(d.np),), f"odd{'-least' * least}",
                           expect=lambda x, least=least: np.array([[0, 1, 1, 3, 3], [0, 1, 1, 1, 1] if least else [0] * 5])) for d in FLOATS)


def linear_scans() -> Iterator[Sample]:
    for reverse, exclusive in ((False, False), (True, False), (False, True), (True, True)):
        tag = "-reverse" * reverse + "-exclusive" * exclusive
        for shape, axis in (((17,), 0), ((3, 7), 1), ((7, 3), 0), ((1,), 0), ((0,), 0), ((3, 4, 5), 1), ((5, 37), 0)):
            yield from each(LinearScan(axis, reverse, exclusive), ((shape, shape),), tag=f"axis{axis}{tag}",
                            expect=recurrence(axis, reverse, exclusive))


def recurrence(axis: int, reverse: bool, exclusive: bool = False) -> Callable:
    """y[i] as the sum over j of x[j] times the product of a between j and i; exclusive: of the i before."""
    def run(a, x):
        a, x = (np.flip(np.moveaxis(v, axis, 0), 0) if reverse else np.moveaxis(v, axis, 0) for v in (a, x))
        rows = [sum((x[j] * np.prod(wide(a[j + 1:i + 1]), 0) for j in range(i + 1)), start=np.zeros(x.shape[1:])) for i in range(len(x))]
        y = np.array(rows).reshape(x.shape)
        y = np.concatenate([np.zeros_like(y[:1]), y[:-1]]) if exclusive else y
        return np.moveaxis(np.flip(y, 0) if reverse else y, 0, axis)
    return run


def sorts() -> Iterator[Sample]:
    for descending in (False, True):
        tag = "-down" * descending
        for shape, axis in (((1,), 0), ((8,), 0), ((33,), 0), ((100,), 0), ((3, 17), 1), ((17, 3), 0), ((2, 5, 3), 1), ((0,), 0), ((3, 0), 1)):
            expect = lambda x, a=axis, d=descending: np.flip(np.sort(x, a), a) if d else np.sort(x, a)       # noqa: E731
            for dtype in (f32, f64, i32, i64):
                x = distinct(shape, dtype) if dtype.is_float else ints(shape, dtype, -5, 5)
                yield Sample(Sort(axis, descending), (x,), f"axis{axis}{tag}", expect=expect)
                yield Sample(ArgSort(axis, descending), (x,), f"axis{axis}{tag}")
        for cls in (Sort, ArgSort):
            yield Sample(cls(1, descending), (ODD.astype(f32.np),), f"odd{tag}", smooth=False)
        python = lambda x, d=descending: np.array(sorted(range(len(x)), key=x.tolist().__getitem__, reverse=d))     # noqa: E731
        yield Sample(ArgSort(0, descending), (ints((50,), i32, 0, 4),), f"stable{tag}", expect=python)
    for k, shape, axis in ((1, (7,), 0), (3, (7,), 0), (5, (3, 17), 1), (2, (17, 3), 0), (0, (4,), 0), (4, (4,), 0)):
        yield from each(TopK(k, axis), ((shape,),), tag=f"{k}-axis{axis}", make=distinct)
    yield Sample(TopK(5, 0), (ints((50,), i64, 0, 4),), "ties", expect=lambda x: python_topk(x, 5))


def python_topk(x, k: int):
    order = sorted(range(len(x)), key=lambda i: (-x[i], i))[:k]
    return x[order], np.array(order)


def softmaxes() -> Iterator[Sample]:
    for cls in (Softmax, LogSoftmax):
        for shape, axis in (((33,), 0), ((100,), -1), ((3, 17), 1), ((17, 3), 0), ((2, 3, 7), 1), ((5, 1), 1), ((0, 3), 1), ((1,), 0)):
            yield from each(cls(axis), ((shape,),), tag=f"axis{axis}", expect=lambda x, a=axis, c=cls: softmax_of(x, a, c is LogSoftmax))
        yield from (Sample(cls(1), (ODD.astype(d.np),), "odd", smooth=False) for d in FLOATS)
        yield from (Sample(cls(0), (np.array([1000.0, 999, -1000], d.np),), "large", smooth=False) for d in FLOATS)


def softmax_of(x, axis, log: bool):
    e = np.exp(wide(x))
    y = e / e.sum(axis, keepdims=True)
    return (np.log(y) if log else y).astype(np.float64)


def norms() -> Iterator[Sample]:
    for axes, shape in ((1, (3, 17)), (1, (2, 3, 8)), (2, (3, 5, 7)), (1, (33,)), (1, (4, 1)), (1, (0, 5)), (1, (2, 100))):
        tail = shape[len(shape) - axes:]
        for operands in ((shape,), (shape, tail), (shape, tail, tail)):
            yield from each(LayerNorm(axes, 1e-5), (operands,), tag=f"axes{axes}", expect=lambda *xs, n=axes: standard(*xs, axes=tuple(range(-n, 0))))
        for operands in ((shape,), (shape, tail)):
            yield from each(RMSNorm(axes, 1e-6), (operands,), tag=f"axes{axes}", expect=lambda *xs, n=axes: rms(*xs, axes=tuple(range(-n, 0))))
    far = 1000 + floats((3, 33), f32)
    yield Sample(LayerNorm(1, 1e-5), (far,), "far", expect=lambda x: standard(x, axes=(-1,)), tolerance=8000)
    for groups, shape in ((2, (3, 4, 5)), (1, (2, 3, 2, 3)), (3, (2, 3, 7)), (2, (5, 6))):
        for operands in ((shape,), (shape, shape[1:2], shape[1:2])):
            yield from each(GroupNorm(groups), (operands,), tag=f"groups{groups}")
    for shape in ((7, 3), (4, 3, 5), (2, 5, 3, 3), (3, 1, 2), (33, 8)):
        c = shape[1:2]
        axes = (0, *range(2, len(shape)))
        yield from each(BatchNorm(), ((shape, c, c),), expect=lambda x, g, s, a=axes: batch(x, g, s, a))
        for dtype in FLOATS:
            arrays = [values(s, dtype, seed=i) for i, s in enumerate((shape, c, c, c))] + [floats(c, dtype, 0.5, 2)]
            yield Sample(BatchNormInference(), tuple(arrays))


def standard(x, *scales, axes):
    x = wide(x)
    y = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + wide(1e-5))
    return (y * (scales[0] if scales else 1) + (scales[1] if len(scales) > 1 else 0)).astype(np.float64)


def rms(x, *scales, axes):
    x = wide(x)
    return (x / np.sqrt((x * x).mean(axes, keepdims=True) + wide(1e-6)) * (scales[0] if scales else 1)).astype(np.float64)


def batch(x, gamma, beta, axes):
    gamma, beta = (s.reshape(1, -1, *(1,) * (x.ndim - 2)) for s in (gamma, beta))
    return standard(x, gamma, beta, axes=axes), np.mean(wide(x), axes).astype(np.float64), np.var(wide(x), axes).astype(np.float64)


def losses() -> Iterator[Sample]:
    for reduction in ("none", "mean", "sum"):
        for cls in (MSE, BCEWithLogits):
            yield from each(cls(reduction), (((7,), (7,)), ((3, 33), (3, 33)), ((), ())), tag=reduction)
        for shape, axis in (((3, 7), 1), ((7, 3), 0), ((33, 10), -1), ((2, 5, 3), 1), ((5,), 0)):
            for dtype in FLOATS:
                yield from cross_entropies(shape, axis, dtype, reduction)
            yield Sample(CrossEntropySoft(axis, reduction), (floats(shape, f32), floats(shape, f32, 0, 1)), f"{reduction}-axis{axis}")
            yield Sample(CrossEntropySoft(axis, reduction), (floats(shape, f64), floats(shape, f64, 0, 1)), f"{reduction}-axis{axis}")
    large = np.array([[1000.0, 0, -1000], [0, 800, 0]])
    yield from (Sample(CrossEntropy(1, "none"), (large.astype(d.np), np.array([1, 1])), "large", smooth=False, expect=lambda x, i: np.array([1000.0, 0])) for d in FLOATS)
    yield from (Sample(BCEWithLogits("none"), (np.array([1e4, -1e4, 0], d.np), np.array([0, 1, 0.5], d.np)), "large", smooth=False) for d in FLOATS)
    yield Sample(CrossEntropy(1, "mean"), (floats((0, 3)), ints((0,), i64)), "empty", smooth=False)


def cross_entropies(shape, axis: int, dtype: DType, reduction: str) -> Iterator[Sample]:
    rows = tuple(d for i, d in enumerate(shape) if i != axis % len(shape))
    x, ids = values(shape, dtype), ints(rows, i32 if dtype == f32 else i64, 0, shape[axis])
    for smoothing, ignored in ((0.0, None), (0.1, None), (0.0, 1), (0.2, 1)):
        op = CrossEntropy(axis, reduction, smoothing, ignored)
        yield Sample(op, (x, ids), f"{reduction}-axis{axis}-{smoothing}-{ignored}", smooth=ignored is None or reduction != "mean" or bool(np.any(ids != 1)),
                     expect=lambda x, ids, op=op: entropy_of(x, ids, op))


def entropy_of(x, ids, op: CrossEntropy):
    logp = np.moveaxis(softmax_of(x, op.axis, True), op.axis, -1)
    classes = logp.shape[-1]
    target = np.eye(classes)[ids] * (1 - op.label_smoothing) + op.label_smoothing / classes
    kept = ids != op.ignore_index if op.ignore_index is not None else np.ones(ids.shape)
    rows = np.where(kept, -(target * logp).sum(-1), 0)
    with np.errstate(all="ignore"):
        return rows if op.reduction == "none" else rows.sum() if op.reduction == "sum" else rows.sum() / kept.sum()


SAMPLES = (*reductions(), *arg_extrema(), *cumulatives(), *running_extremes(), *linear_scans(), *sorts(), *softmaxes(), *norms(), *losses())
