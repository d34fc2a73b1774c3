"""Contractions that are compiled once for all sizes: products, einsums, convolutions and their gradients, against numpy
at sizes around micro-tiles, tiles and blocks."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import pytest
from codegen.loop_run import ForSizes
from open_kernels import Guarded

import graphc as gc
from graphc.codegen.loops.verify import verify
from graphc.codegen.lower.contraction.lowering import lower_contraction, lower_packing
from graphc.errors import InternalError
from graphc.ir import contraction as C
from graphc.ir.builder import bind_graph
from graphc.ir.contraction import Contraction, Window
from graphc.ir.dims import Dim, Dims, evaluate, size_name
from graphc.ir.interp import evaluate as evaluate_graph
from graphc.ir.open import Bounds
from graphc.ir.types import DType, TensorType, f32, f64
from graphc.schedule.choose_contraction import contraction_schedule
from graphc.schedule.contraction_schedule import RowsSchedule
from graphc.schedule.target import AVX2, Target
from graphc.schedule.view import ViewType, contiguous_strides
from graphc.sized import SizedGraph

SIZES = (1, 2, 3, 7, 16, 17, 64, 100, 1000)
Make = Callable[..., tuple[Contraction, Dims, Dims, Dims]]     # (*sizes) -> contraction, shapes of a, b and the result


@dataclass(frozen=True)
class Case:
    """A contraction of some named sizes. orders: in which order the axes of a, b and the result lie in memory. packed:
    b does not change between calls. most: elements of the largest array that is tried."""
    name: str
    make: Make
    names: str
    orders: Mapping[int, tuple[int, ...]] = ()
    packed: bool = False
    dtype: DType = f32
    target: Target = AVX2
    most: int = 1 << 18
    usual: int = 64
    least: int = 1
    sizes: tuple[int, ...] = SIZES


def product(a: Sequence[Dim], b: Sequence[Dim]) -> tuple[Contraction, Dims, Dims, Dims]:
    c = C.matmul(a, b)
    return c, tuple(a), tuple(b), tuple(c.sizes[m.terms[0][1]] if m.terms else 1 for m in c.out)


class OpenProduct:
    """A contraction, compiled for all sizes of its names."""

    def __init__(self, case: Case):
        self.case = case
        self.open = {n: size_name(n, case.least, None, case.usual) for n in case.names}
        c, *shapes = case.make(*self.open.values())
        self.views = [ViewType(case.dtype, shape, contiguous_strides(shape, dict(case.orders).get(i)))
                      for i, shape in enumerate(shapes)]
        a, b, out = self.views
        self.schedule = contraction_schedule(c, a.shape, a.strides, b.shape, b.strides, out.strides, case.dtype,
                                             case.target, invariant=(False, case.packed))
        self.function = lower_contraction([a, b], [out], self.schedule, case.target)
        self.native = ForSizes(self.function, 2, case.target)
        self.packing = self._packing() if self.schedule.prepacked is not None else None

    def _packing(self) -> ForSizes:
        assert self.schedule.prepacked == 1
        return ForSizes(lower_packing(self.views[1], self.schedule, self.case.target, "pack"), 1, self.case.target)

    def __call__(self, sizes: Mapping[str, int], a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """The result; memory around it, and around shared scratch, is looked after."""
        out = self._guarded(self.views[2].shape, sizes)
        packed = []
        if self.packing is not None:
            panels = self._guarded((self.schedule.packed_size,), sizes)
            assert self.packing.run(sizes, [b], panels.array) == 0
            packed = [panels.array]
            panels.check()
        # the function takes a, b, the result, the packed operand, shared scratch
        scratch = [self._guarded((self.schedule.shared_scratch,), sizes)] * (self.schedule.shared_scratch != 0)
        outs = [out.array, *packed, *[g.array for g in scratch]]
        assert self.native.run(sizes, [a, b], *outs) == 0
        for guarded in (out, *scratch):
            guarded.check()
        return out.array

    def _guarded(self, shape: Dims, sizes: Mapping[str, int]) -> Guarded:
        return Guarded(TensorType(self.case.dtype, tuple(evaluate(n, sizes) for n in shape)))


def cases() -> Iterator[Case]:
    for k, n in ((784, 128), (128, 10), (64, 1), (20, 768), (300, 33)):
        yield Case(f"rows {k}×{n}", lambda b, k=k, n=n: product((b, k), (k, n)), "B")
        yield Case(f"packed rows {k}×{n}", lambda b, k=k, n=n: product((b, k), (k, n)), "B", {1: (1, 0)}, True)
    yield Case("rows 512×256, weights as they lie", lambda b: product((b, 512), (512, 256)), "B", {1: (1, 0)})
    yield Case("rows of two names", lambda b, t: product((b * t, 96), (96, 40)), "BT", {1: (1, 0)}, True)
    yield Case("rows that lie in another order", lambda t, b: product((t, b, 12), (12, 64)), "TB", {0: (1, 0, 2), 1: (1, 0)}, True)
    yield Case("rows in a batch", lambda b, t: product((b, t, 24), (24, 40)), "BT")
    yield Case("rows of a transposed result", lambda b: product((b, 96), (96, 40)), "B", {2: (1, 0)})
    yield Case("rows of a transposed operand", lambda b: product((b, 96), (96, 40)), "B", {0: (1, 0)})
    yield Case("f64", lambda b: product((b, 70), (70, 40)), "B", {1: (1, 0)}, True, f64)
    yield Case("weight gradient", lambda b: product((50, b), (b, 30)), "B", {0: (1, 0)})
    yield Case("weight gradient, two names", lambda b, t: product((50, b * t), (b * t, 30)), "BT", {0: (1, 0)},
               usual=256)
    yield Case("scores", lambda b, t: product((b, 4, t, 32), (b, 4, 32, t)), "BT", {1: (0, 1, 3, 2)})
    yield Case("mixed values", lambda b, t: product((b, 4, t, t), (b, 4, t, 32)), "BT")
    yield Case("all", lambda b, t, s: product((b, t), (t, s)), "BTS")
    yield Case("logits", lambda b, t: product((b, 48), (48, t)), "BT", {1: (1, 0)})


def convolution(kind: str, n: Dim, c: int, f: int, image: Sequence[Dim], kernel: int = 3, groups: int = 1,
                **window: object) -> tuple[Contraction, Dims, Dims, Dims]:
    windows = [Window(size, kernel, **window) for size in image]
    x, w, y = (n, c, *image), (f, c // groups, kernel, kernel), (n, f, *[each.out for each in windows])
    made = {"conv": (C.conv, x, w, y), "input": (C.conv_input_gradient, y, w, x),
            "weight": (C.conv_weight_gradient, y, x, w)}[kind]
    return made[0](n, c, f, windows, groups), *made[1:]


def image_cases() -> Iterator[Case]:
    padded, strided = {"pad": (1, 1)}, {"stride": 2, "pad": (1, 1)}
    shapes = {"conv": (3, 9, (14, 14), 3, 1, padded), "conv of channels": (16, 32, (8, 8), 3, 1, padded),
              "1×1": (24, 17, (7, 7), 1, 1, {}), "strided": (16, 8, (9, 9), 3, 1, strided),
              "grouped": (16, 8, (6, 6), 3, 4, padded), "depthwise": (32, 32, (8, 8), 3, 32, padded),
              "as many features in groups": (32, 32, (6, 6), 3, 8, padded),
              "as many features in groups, 1×1": (6, 6, (14, 14), 1, 3, {}),
              "depthwise of 5×5": (20, 20, (14, 14), 5, 20, {"pad": (2, 2)}),
              "depthwise of 9×9": (20, 20, (12, 12), 9, 20, {"pad": (4, 4)})}
    last = (0, 2, 3, 1)
    for name, (c, f, image, kernel, groups, window) in shapes.items():
        for kind, orders in (("conv", {0: last, 2: last}), ("input", {0: last, 2: last}), ("weight", {0: last, 1: last})):
            def make(n: Dim, kind=kind, c=c, f=f, image=image, kernel=kernel, groups=groups, window=window):
                return convolution(kind, n, c, f, image, kernel, groups, **window)
            few = dict(most=1 << 16, usual=16, sizes=(1, 2, 3, 5, 8, 16, 17))
            yield Case(f"{name}, {kind}", make, "B", **few)
            yield Case(f"{name}, {kind}, channels last", make, "B", orders, **few)
            if name.startswith("depthwise") and kind == "conv":
                yield Case(f"{name}, {kind}, result channels last", make, "B", {2: last}, **few)


def sized_image_cases() -> Iterator[Case]:
    """Height and width are named."""
    last, padded, strided = (0, 2, 3, 1), {"pad": (1, 1)}, {"stride": 2, "pad": (1, 1)}
    for name, kind, c, f, groups, window, orders in (
            ("windows", "conv", 3, 9, 1, padded, {}),
            ("windows, channels last", "conv", 16, 17, 1, padded, {0: last, 2: last}),
            ("windows", "input", 8, 16, 1, {}, {}), ("windows", "weight", 3, 9, 1, padded, {}),
            ("strided windows", "conv", 8, 16, 1, strided, {}), ("strided windows", "input", 8, 16, 1, strided, {}),
            ("strided windows", "weight", 8, 16, 1, strided, {}), ("depthwise windows", "conv", 16, 16, 16, padded, {}),
            ("depthwise windows", "weight", 16, 16, 16, padded, {0: last, 1: last})):
        def make(h: Dim, w: Dim, kind=kind, c=c, f=f, groups=groups, window=window):
            return convolution(kind, 2, c, f, (h, w), 3, groups, **window)
        yield Case(f"{name}, {kind}", make, "HW", orders, most=1 << 16, usual=16, least=3,
                   sizes=(3, 4, 5, 7, 8, 14, 17, 33))


def arrays(case: Case, sizes: Mapping[str, int], seed: int = 0) -> tuple[Contraction, list[np.ndarray], Dims]:
    c, *shapes = case.make(*[sizes[n] for n in case.names])
    rng = np.random.default_rng(seed)
    laid = []
    for i, shape in enumerate(shapes[:2]):
        order = dict(case.orders).get(i, tuple(range(len(shape))))
        memory = np.ascontiguousarray(rng.standard_normal(shape).astype(case.dtype.np).transpose(order))
        laid.append(memory.transpose(np.argsort(order)))
    return c, laid, shapes[2]


def assignments(case: Case) -> list[dict[str, int]]:
    found = []
    for k in range(len(case.sizes)):
        sizes = {n: max(case.least, case.sizes[(k + 4 * i) % len(case.sizes)]) for i, n in enumerate(case.names)}
        c, *shapes = case.make(*sizes.values())
        if max(prod(shape) for shape in shapes) <= case.most and prod(c.sizes) <= 1 << 25:
            found.append(sizes)
    return found


def in_memory(array: np.ndarray) -> np.ndarray:
    """The elements in the order in which they lie in memory."""
    return array.transpose(sorted(range(array.ndim), key=lambda x: -array.strides[x]))


CASES = [*cases(), *image_cases(), *sized_image_cases()]
KERNELS: dict[str, OpenProduct] = {}


def kernel_of(case: Case) -> OpenProduct:
    if case.name not in KERNELS:
        KERNELS[case.name] = OpenProduct(case)
    return KERNELS[case.name]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_one_kernel_serves_all_sizes(case: Case):
    kernel = kernel_of(case)
    tried = assignments(case)
    assert len(tried) >= 4
    for sizes in tried:
        c, (a, b), shape = arrays(case, sizes)
        got = kernel(sizes, in_memory(a), in_memory(b))
        order = dict(case.orders).get(2)
        want = c.reference(a.astype(np.float64), b.astype(np.float64), shape)
        scale = c.reference(np.abs(a).astype(np.float64), np.abs(b).astype(np.float64), shape)
        got = got if order is None else got.reshape([shape[x] for x in order]).transpose(np.argsort(order))
        limit = (2e-6 if case.dtype is f32 else 1e-14) * (scale + 1e-30)
        assert np.all(np.abs(got - want) <= limit), (sizes, str(kernel.schedule))


ROWS = [c for c in CASES if c.names == "B" and "rows" in c.name]


@pytest.mark.parametrize("case", ROWS, ids=lambda c: c.name)
def test_bits_of_a_row_do_not_depend_on_how_many_there_are(case: Case):
    """Each regime is taken, and each number of last rows; the first and the last rows of the largest one are tried."""
    kernel = kernel_of(case)
    regimes = [s for s in kernel.schedule.phases if isinstance(s, RowsSchedule)]
    numbers = {1, 2, 3, 5, 8, 9, 11, 23, 64, 97, 130} | {n + d for s in regimes for n in s.most for d in (0, 1)}
    _, (a, b), _ = arrays(case, {"B": 300})
    def run(rows: np.ndarray) -> np.ndarray:
        memory = np.ascontiguousarray(rows.transpose(dict(case.orders).get(0, (0, 1))))
        got = kernel({"B": len(rows)}, memory, in_memory(b))
        return got if 2 not in dict(case.orders) else got.reshape(got.shape[::-1]).T
    whole = run(a)
    for n in numbers:
        for start in (0, 300 - n):
            np.testing.assert_array_equal(run(a[start:start + n]), whole[start:start + n], f"{n} rows from {start}")


@pytest.mark.parametrize("operand, missing", [(0, 1), (1, 1), (2, 1)])
def test_an_operand_that_is_too_small_is_refused(operand: int, missing: int):
    """The verifier proves accesses for all sizes: a kernel for one row, or column, more than memory has is none."""
    b, t = size_name("B", 2), size_name("T", 2)
    c, *shapes = product((b, 40), (40, t))
    views = [ViewType(f32, shape, contiguous_strides(shape)) for shape in shapes]
    a, w, out = views
    schedule = contraction_schedule(c, a.shape, a.strides, w.shape, w.strides, out.strides, f32, AVX2)
    verify(lower_contraction(views[:2], views[2:], schedule, AVX2))
    axis = 1 if operand == 1 else 0
    shape = tuple(n - missing if x == axis else n for x, n in enumerate(views[operand].shape))
    views[operand] = ViewType(f32, shape, views[operand].strides)
    with pytest.raises(InternalError, match="cannot prove"):
        verify(lower_contraction(views[:2], views[2:], schedule, AVX2))


def test_what_is_packed_once_serves_all_regimes():
    """One copy of the weights, in the same panels, whatever the number of rows."""
    schedule, = kernel_of(next(c for c in CASES if c.name == "packed rows 784×128")).schedule.phases
    assert isinstance(schedule, RowsSchedule) and len(schedule.regimes) > 1
    assert len({(s.blocking.nr, s.blocking.kc, s.b) for s in schedule.regimes}) == 1


def test_few_columns_have_narrow_micro_tiles():
    """Where rows are what a micro-tile has in its columns: those of a training step, by weights that change."""
    case = next(c for c in CASES if c.name == "rows 512×256, weights as they lie")
    schedule, = kernel_of(case).schedule.phases
    assert isinstance(schedule, RowsSchedule) and schedule.of_columns
    widths = [s.blocking.nr for s in schedule.regimes]
    assert widths == sorted(set(widths)) and list(schedule.most) == widths[:-1]
    assert len({s.blocking.kc for s in schedule.regimes}) == 1


def test_small_products_have_one_regime():
    """Loops of their own for few rows would be more code than they save time."""
    schedule, = OpenProduct(Case("small", lambda b: product((b, 24), (24, 24)), "B")).schedule.phases
    assert isinstance(schedule, RowsSchedule) and len(schedule.regimes) == 1


# ---- parts of an array whose rows are as long as the call says

def rows_times(x: gc.Array, w: gc.Array) -> gc.Array:
    return x[:, :40] @ w


def first_times(x: gc.Array, w: gc.Array) -> gc.Array:
    return gc.transpose(w) @ gc.transpose(x[:, 0])


def scores(x: gc.Array, w: gc.Array) -> gc.Array:
    return (x[:, :40] @ w) @ gc.transpose(x[:, :40] @ w, (0, 2, 1))


def columns_times(x: gc.Array, w: gc.Array) -> gc.Array:
    return x[0, :64, :50] @ w[:50]


def depthwise(x: gc.Array, w: gc.Array) -> gc.Array:
    return gc.conv1d(x[:, :16], w[:16, None, :3], groups=16, padding=1)


@pytest.mark.parametrize("function", [rows_times, first_times, scores, columns_times, depthwise])
def test_of_a_part_of_an_array_of_any_size_one_program_serves_all(function: Callable[[gc.Array, gc.Array], gc.Array]):
    """Sizes of the products are numbers, steps in memory are not."""
    @gc.graph
    def part(x: gc.f32[5, "S", 64], w: gc.f32[64, 32]):
        return function(x, w)
    program = SizedGraph(part.graph, {"S": Bounds(64, 300)})
    rng = np.random.default_rng(0)
    for size in (64, 65, 130):
        x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((5, size, 64), (64, 32)))
        want, = evaluate_graph(bind_graph(part.graph, {"S": size}), (x, w))
        np.testing.assert_allclose(program.at(S=size)(x, w), want, rtol=1e-4, atol=1e-4)


# ---- what passes leave alone where it comes with the call

@gc.graph
def gated(x: gc.f32[5, 16], w: gc.f32[16, "2*h"]):
    """Gates of a product whose width is open stay slices of it."""
    y, h = x @ w, w.shape[1] // 2
    return gc.sigmoid(y[:, :h]) * y[:, h:]


@gc.graph
def strided(x: gc.f32[2, 8, "h"], w: gc.f32[8, 8, 3]):
    """The gradient's image is copied: how far it is read outside of what there is depends on the length."""
    y = gc.conv1d(gc.relu(x), w, padding=1, stride=2)
    return gc.sum(y * y)


@gc.graph
def grouped(q: gc.f32[2, 3, 64], k: gc.f32[2, "h", 64]):
    """Few rows, and not known whether more columns: the scores of heads that share their keys."""
    return q @ gc.swapaxes(k, -1, -2)


@pytest.mark.parametrize("function", [gated, gc.grad(strided, wrt=("x", "w")), grouped], ids=["gates", "a strided gradient", "few rows"])
def test_one_program_serves_all_where_a_pass_cannot_decide(function: gc.GraphFunction):
    program = SizedGraph(function.graph, {"h": Bounds(2, 300)})
    rng = np.random.default_rng(0)
    for h in (2, 16, 17, 80):
        graph = bind_graph(function.graph, {"h": h})
        ins = [rng.standard_normal(v.type.shape).astype(np.float32) for v in graph.inputs]
        got = program.at(h=h)(*ins)
        for result, want in zip(got if isinstance(got, tuple) else (got,), evaluate_graph(graph, ins), strict=True):
            np.testing.assert_allclose(result, want, rtol=1e-4, atol=1e-3)
