"""Kernels that are compiled once for all sizes: every operator, against the reference, at sizes around vectors, tiles
and blocks."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import pytest
from codegen.loop_run import ForSizes
from open_cases import CASES as ORDINARY
from open_cases import C, T, op
from open_kernels import Case, Lowered, OpenKernel, verified

import graphc as gc
from graphc.codegen.llvm.emit import emit_for_sizes
from graphc.codegen.loops.verify import verify
from graphc.codegen.lower.padding_fill import fill_border
from graphc.ir.dim_text import parse_dim
from graphc.ir.interp import evaluate
from graphc.ir.ops.shape import Pad
from graphc.specialised import SpecialisedGraph
from graphc.ir.types import TensorType, f32, f64, i32, i64, u8
from graphc.schedule.kernel_families import NESTS, ROWS
from graphc.schedule.target import AVX2, AVX512, NEON, SSE2
from graphc.schedule.view import ViewType, contiguous_strides

SIZES = (1, 2, 3, 7, 16, 17, 31, 64, 100, 1000)


@dataclass(frozen=True)
class Matrices(Case):
    """Of matrices with a strong diagonal, of elements far from each other: positive definite, and nothing is nearly
    singular. turned: that stands so many columns further on, so that an elimination exchanges rows."""
    turned: int = 0

    def _array(self, rng: np.random.Generator, k: int, t: TensorType, sizes: Mapping[str, int]) -> np.ndarray:
        return super()._array(rng, k, t, sizes) + (0 if k else strong(*t.shape[-2:], self.turned).astype(t.dtype.np))


def strong(m: int, n: int, turned: int = 0) -> np.ndarray:
    """What makes a matrix of small elements one with a strong diagonal."""
    return 4 * np.roll(np.diag(np.arange(1, n + 1)), turned, 1)[:m] + 2 * np.roll(np.eye(n), turned, 1)[:m] * n


def scatters() -> Iterator[Case]:
    at = {1: C}
    for how in ("none", "mul", "min", "max"):
        yield Case(f"set {how}", op("scatter", axis=0, reduction=how), (f32[30, 100], i64["B"], f32["B", 100]),
                   positions={1: 30})
        yield Case(f"set along axis {how}", op("scatter_along_axis", axis=1, reduction=how),
                   (f32["B", "T"], i64["B", "C"], f32["B", "C"]), positions={1: T}, most=1 << 15)
    yield Case("set names", op("scatter", axis=0), (f32["C", "T"], i64["B"], f32["B", "T"]), positions=at, most=1 << 15)
    yield Case("set a grid", op("scatter", axis=0), (i32["C", 40], i32["B", "T"], i32["B", "T", 40]), positions=at,
               most=1 << 15)
    yield Case("set columns", op("scatter", axis=1), (f32["B", "T"], i64["C"], f32["B", "C"]), positions={1: T},
               most=1 << 15)
    yield Case("set along columns", op("scatter_along_axis", axis=0), (f64["C", "T"], i64["B", "T"], f64["B", "T"]),
               positions=at, most=1 << 15)


def factorisations() -> Iterator[Case]:
    """Of any number of matrices of a known size; `APART` has those of any size."""
    for dtype, n in ((f64, 1), (f64, 13), (f32, 9)):
        square, some = dtype["B", n, n], (dtype["B", n, n], dtype["B", n, 5])
        yield Matrices(f"cholesky {n}", op("cholesky"), (square,))
        yield Matrices(f"lu {n}", op("lu"), (square,), turned=2)
        yield Matrices(f"symmetric eigen {n}", op("symmetric_eigen"), (square,), most=1 << 15)
        yield Matrices(f"lq {n}", op("lq"), (dtype["B", n, n + 3],))
        yield Matrices(f"triangular solve {n}", op("triangular_solve"), some)
        yield Matrices(f"upper triangular solve {n}", op("triangular_solve", lower=False, transpose=True), some)
        yield Matrices(f"unit triangular solve {n}", op("triangular_solve", lower=False, unit=True), some)
    grid = f64["B", "T", 7, 7]
    for name in ("cholesky", "lu", "symmetric_eigen", "lq"):
        yield Matrices(f"{name} of two axes", op(name), (grid,), most=1 << 15)
    yield Matrices("triangular solve of two axes", op("triangular_solve"), (grid, f64["B", "T", 7, 70]))


def block_products() -> Iterator[Case]:
    """Of any number of rows."""
    for x in (f32["B", 64], f32["B", "T", 64]):
        yield Case(f"block product {x.rank}", op("block_product", block=32, bits=4, zero=8),
                   (x, u8[9, 32], f32[9, 2], f32[9, 2]), most=1 << 15)


CASES = (*ORDINARY, *scatters(), *factorisations(), *block_products())


def assignments(case: Case) -> list[dict[str, int]]:
    """Sizes of the names, each apart from the others; none so large that the case would take long."""
    found = []
    for k in range(len(SIZES)):
        sizes = {n: max(SIZES[(k + 3 * i) % len(SIZES)], case.least.get(n, 1)) for i, n in enumerate(case.names)}
        if max(prod(t.bind(sizes).shape) for t in case.types) <= case.most:
            found.append(sizes)
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_one_kernel_serves_all_sizes(case: Case):
    tried = assignments(case)
    assert len(tried) >= 5
    run(OpenKernel(case), tried)


@pytest.mark.parametrize("usual", (1, 20_000))
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_what_is_usual_decides_speed_alone(case: Case, usual: int):
    """Schedules that are made for other sizes than those that come, and where no end of these is known."""
    run(OpenKernel(replace(case, usual=usual, greatest=None)), assignments(case)[-3:])


@pytest.mark.parametrize("name", ("add row", "bias gelu", "softmax", "layer norm gradient", "sum of columns of features",
                                  "sum of columns", "sum of all", "other order", "var"))
def test_kernels_of_a_machine_of_small_caches(name: str):
    """On which outputs are streamed, columns fetched and sums taken across rows."""
    small = replace(AVX2, machine=replace(AVX2.machine, l1_bytes=1 << 9, l2_bytes=1 << 11, l3_bytes=1 << 13))
    case = next(c for c in CASES if c.name == name)
    run(OpenKernel(case, small), assignments(case))


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_kernels_for_other_cpus_are_proved(case: Case):
    for target in (SSE2, AVX512, NEON):
        emit_for_sizes([verified(case, target)], None, target)


def run(kernel: OpenKernel, tried: list[dict[str, int]]) -> None:
    for sizes in tried:
        arrays = kernel.case.arrays(sizes)
        for got, want in zip(kernel.run(sizes, arrays), evaluate(kernel.case.graph(sizes), arrays), strict=True):
            check(got, want, sizes)


def test_every_operator_that_is_no_contraction_is_here():
    tested = {type(n.op) for c in CASES for n in c.open().nodes}
    missing = {o.__name__ for o in NESTS + ROWS} - {o.__name__ for o in tested} - {"Fused", "PackFour", "PackPair"}   # of known sizes
    assert not missing, f"no kernel for all sizes is tested of {', '.join(sorted(missing))}"


def definite(a: np.ndarray) -> np.ndarray:
    return np.tril(a) + np.tril(a, -1).swapaxes(-1, -2)


@gc.graph
def cholesky(a: gc.f64["B", "N", "N"]):
    return gc.cholesky(a)


@gc.graph
def slogdet(a: gc.f64["B", "N", "N"]):
    return gc.slogdet(a)


@gc.graph
def qr(a: gc.f64["B", "N", "N"]):
    q, r = gc.qr(a)
    return q @ r, q.mT @ q, r


@gc.graph
def eigh(a: gc.f64["B", "N", "N"]):
    w, v = gc.eigh(a)
    return w, (v * w.reshape((*w.shape[:-1], 1, w.shape[-1]))) @ v.mT


@gc.graph
def solve_triangular(a: gc.f64["B", "N", "N"], y: gc.f64["B", "N", "K"]):
    return gc.solve_triangular(a, y, lower=True)


@gc.graph
def right_hand_sides(a: gc.f64["B", 9, 9], y: gc.f64["B", 9, "K"]):
    return gc.solve_triangular(a, y, lower=True)


def factors(a: np.ndarray) -> tuple[np.ndarray, ...]:
    r = np.linalg.qr(a)[1]
    return a, np.broadcast_to(np.eye(a.shape[-1]), a.shape), r * np.sign(np.diagonal(r, 0, -2, -1))[..., None]


def solved(a: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.linalg.solve(np.tril(a), y)


Program = tuple[gc.GraphFunction, Callable[..., np.ndarray | tuple[np.ndarray, ...]]]
FACTORED: tuple[Program, ...] = (
    (slogdet, np.linalg.slogdet), (qr, factors), (eigh, lambda a: (np.linalg.eigvalsh(a), definite(a))),
    (right_hand_sides, solved))
"""Of matrices whose own size comes with the call, with what they give."""
APART: tuple[Program, ...] = (
    (cholesky, lambda a: np.linalg.cholesky(definite(a))), (solve_triangular, solved))
"""The same where matrices are cut in halves as often as it takes: each size has a program."""


@pytest.mark.parametrize("program, expected", FACTORED, ids=lambda p: getattr(p, "name", ""))
def test_matrices_of_any_size_have_one_program(program, expected):
    run = gc.compile(program, threads=1)
    assert run.sized is not None, run.why_not
    for b, n, k in ((1, 1, 1), (3, 9, 70), (2, 67, 3), (1, 130, 64), (5, 2, 129)):
        check_matrices(run, expected, b, n, k)


@pytest.mark.parametrize("program, expected", APART, ids=lambda p: getattr(p, "name", ""))
def test_matrices_that_are_cut_have_a_program_for_each(program, expected):
    run = gc.compile(program, threads=1)
    for b, n, k in ((1, 1, 1), (3, 9, 70), (2, 67, 3)):
        check_matrices(run, expected, b, n, k)
    assert run.sized is None and "a size that has a name is not known" in run.why_not


def check_matrices(run: SpecialisedGraph, expected: Callable[..., np.ndarray | tuple[np.ndarray, ...]],
                   b: int, n: int, k: int) -> None:
    rng = np.random.default_rng(n)
    sizes = {name: v for name, v in {"B": b, "N": n, "K": k}.items() if name in run.graph.dim_names}
    shapes = [v.type.bind(sizes).shape for v in run.graph.inputs]
    a, *more = (rng.standard_normal(shape) for shape in shapes)
    arrays = a + strong(*a.shape[-2:], 2 if expected is np.linalg.slogdet else 0), *more
    got, want = run(*arrays), expected(*arrays)
    for g, w in zip(*(v if isinstance(v, tuple) else (v,) for v in (got, want)), strict=True):
        assert g.shape == w.shape
        np.testing.assert_allclose(g, w, rtol=1e-11, atol=1e-11 * np.abs(w).max(), err_msg=str(sizes))


def check(got: np.ndarray, want: np.ndarray, sizes: dict[str, int]) -> None:
    assert got.shape == want.shape and got.dtype == want.dtype
    if got.dtype.kind == "f":
        scale = max(1.0, float(np.abs(want[np.isfinite(want)]).max(initial=0)))
        eps = np.finfo(got.dtype).eps
        np.testing.assert_allclose(got, want, rtol=64 * eps, atol=64 * eps * scale, err_msg=str(sizes))
    else:
        np.testing.assert_array_equal(got, want, err_msg=str(sizes))


ALONE = (
    "add", "add row", "add features", "add odd features", "mul column", "integers", "gelu", "other order", "bias gelu",
    "iota", "heads", "sum of rows", "prod of rows", "max of rows", "sum of features", "sum in the middle", "argmax", "var",
    "softmax", "softmax of classes", "softmax of scores", "softmax gradient", "layer norm", "layer norm of names",
    "rms norm", "group norm", "batch norm inference", "flip rows", "take along columns", "take along axis",
    "take along named axis", "scatter to columns", "pick rows", "cumsum", "linear scan",
    "max_pool2d of a batch with padding", "avg_pool2d of images", "max_pool2d gradient with padding",
    "set columns", "set along axis none", "set along axis mul", "cholesky 13", "lu 13", "symmetric eigen 9", "lq 13",
    "triangular solve 13", "cholesky 9", "lu of two axes")
"""Cases of which each sample gives a result of its own."""


@pytest.mark.parametrize("name", ALONE)
def test_a_sample_has_the_same_bits_in_every_batch(name: str):
    case = next(c for c in CASES if c.name == name)
    kernel, batch = OpenKernel(case), 40
    sizes = {"B": batch, "T": 37, "C": 9} | {n: 37 for n in case.names if n not in "BTC"}
    arrays = case.arrays(sizes)
    whole = kernel.run(sizes, arrays)
    for start, count in ((0, 1), (39, 1), (3, 7), (8, 32)):
        part = [_part(a, t, start, count, batch) for a, t in zip(arrays, case.types)]
        for got, want in zip(kernel.run(sizes | {"B": count}, part), whole):
            rows = len(want) // batch
            assert got.tobytes() == want[start * rows:(start + count) * rows].tobytes(), (start, count)


def _part(array: np.ndarray, t: TensorType, start: int, count: int, batch: int) -> np.ndarray:
    """The samples start … start + count - 1 of an operand that has some."""
    if not t.shape or "B" not in getattr(t.shape[0], "names", ()):
        return array
    rows = len(array) // batch
    return array[start * rows:(start + count) * rows]


@pytest.mark.parametrize("name, filling", [("sum of rows", 0.0), ("softmax", -np.inf), ("log softmax of columns", -np.inf),
                                           ("sum of columns", 0.0), ("sum in the middle", 0.0), ("sum of all", 0.0)])
def test_what_is_appended_and_does_not_count_changes_no_bits(name: str, filling: float):
    """Sums of several blocks, which end within a vector, at its end, and at that of a block."""
    case = next(c for c in CASES if c.name == name)
    kernel, axis = OpenKernel(case), "B" if name in ("log softmax of columns", "sum of columns") else "T"
    other = "T" if axis == "B" else "B"
    for size, more in ((5000, 1), (5000, 31), (4995, 5), (4096, 4096), (31, 1), (1, 9000), (255, 3)):
        sizes = {axis: size, other: 3}
        array, = case.arrays(sizes)
        along = case.types[0].shape.index(parse_dim(axis))
        longer = np.concatenate([array, np.full([more if i == along else n for i, n in enumerate(array.shape)], filling,
                                                array.dtype)], along)
        if name == "sum of all" and other == "B":
            array, longer, sizes = array[:1], longer[:1], sizes | {other: 1}
        short, = kernel.run(sizes, [array])
        long, = kernel.run(sizes | {axis: size + more}, [longer])
        kept = long if long.shape == short.shape else long.take(range(size), along)
        assert short.tobytes() == kept.tobytes(), (size, more)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1)], ids=["rows", "channels"])
def test_the_border_of_a_pad_is_filled_for_all_sizes(order: tuple[int, ...]):
    """By a kernel that writes the inside."""
    case = Case("gelu", lambda b, x: b.gelu(x), (f32["B", 8, "T", 6],))
    x, = case.open().inputs
    outside = contiguous_strides((*x.type.shape[:2], x.type.shape[2] + 2, 8), order)
    kernel = Lowered(case, AVX2, outside)
    pad = Pad((0, 0, 1, 1), (0, 0, 1, 1), 2.5)
    fill_border(kernel.function, pad, x.type.shape, ViewType(f32, pad.infer(x.type).shape, outside), AVX2)
    verify(kernel.function)
    native = ForSizes(kernel.function, 1)
    for sizes in ({"B": 1, "T": 1}, {"B": 3, "T": 7}, {"B": 40, "T": 31}):
        array, = case.arrays(sizes)
        padded = np.zeros([(sizes["B"], 8, sizes["T"] + 2, 8)[i] for i in order], np.float32).transpose(np.argsort(order))
        assert native.run(sizes, [array], padded[:, :, 1:-1, 1:-1], padded) == 0
        inside, = evaluate(case.graph(sizes), [array])
        check(padded, np.pad(inside, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=2.5), sizes)
