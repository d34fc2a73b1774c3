"""Micro-kernels asked directly: operands may be stored in other types than the sums."""
from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
import pytest

from graphc.codegen.llvm import jit
from graphc.codegen.llvm.emit import emit_module, scratch_bytes
from graphc.codegen.loops.builder import LoopFunction
from graphc.codegen.loops.index import Ix
from graphc.codegen.loops.loop_ir import Call, For, statements
from graphc.codegen.loops.verify import verify
from graphc.codegen.lower.contraction.any_rows import call_for_rows
from graphc.codegen.lower.contraction.micro_kernel import (
    ColumnLayout, ColumnPanel, MicroTileShape, MicroTileSums, ProductTypes, RowLayout, RowPanel, call_micro_kernel)
from graphc.codegen.lower.contraction.stream_kernel import StreamKernelSpec, stream_kernel
from graphc.errors import InternalError
from graphc.ir.types import DType, TensorType, bool_, f32, f64, i32, i64
from graphc.runtime.executable import Executable, Program
from graphc.runtime.signature import ArraySpec, Signature
from graphc.schedule.contraction_schedule import STEPS
from graphc.schedule.target import AVX2, SSE2, Target

SHAPE = MicroTileShape(mr=3, vectors=2, lanes=4)
MR, NR = SHAPE.mr, SHAPE.vectors * SHAPE.lanes
IN_PARTS = replace(SHAPE, mr=7, vectors=1, lanes=NR, busy=2)      # of whose last rows four and more are computed in parts
TYPES = [(f32, f32, f64), (f32, f64, f64), (i32, i32, i64), (i32, i32, i32), (bool_, f32, f32), (i32, f32, f64),
         (f32, f32, f32), (f64, f64, f64)]
STREAMED = [(f32, f32, f64), (i32, i32, i64), (f32, f32, f32)]


def names(types: tuple[DType, ...]) -> str:
    return "_".join(map(str, types))


def memory(main: LoopFunction, arrays, types: list[DType]):
    """main's flat views of a, b and the output."""
    places = (("input", 0), ("input", 1), ("output", 0))
    return [main.buffer(*place, 0, dtype, (x.size,)) for place, x, dtype in zip(places, arrays, types)]


def compiled(main: LoopFunction, ins: list[np.ndarray], outs: list[np.ndarray], types: list[DType],
             target: Target) -> Executable:
    kernels = [s.callee for s in statements(main.body) if isinstance(s, Call)]
    kernels += [s.callee for kernel in kernels for s in statements(kernel.body) if isinstance(s, Call)]
    verify(main)

    def specs(name, arrays, dtypes):
        return tuple(ArraySpec(f"{name}{i}", TensorType(d, x.shape)) for i, (x, d) in enumerate(zip(arrays, dtypes)))
    signature = Signature(specs("in", ins, types), specs("out", outs, types[len(ins):]))
    program = Program(jit.compile_object(emit_module(kernels, main, target), target), signature,
                      scratch_bytes=scratch_bytes(kernels, main))
    return Executable(program)


def operands(types, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """a as panels [k][MR], b as panels [k][NR], a times b (of floats in a wider type, of integers modulo 2**bits)."""
    rng = np.random.default_rng(k)

    def numbers(dtype: DType, *shape: int) -> np.ndarray:
        found = rng.normal(size=shape) if dtype.is_float else rng.integers(0, 2 if dtype is bool_ else 1 << 20, shape)
        return found.astype(dtype.np)
    a, b = numbers(types[0], k, MR), numbers(types[1], k, NR)
    wide = np.longdouble if types[2].is_float else types[2].np
    with np.errstate(over="ignore"):
        return a, b, a.astype(wide).T @ b.astype(wide)


def check(found: np.ndarray, wanted: np.ndarray, dtype: DType) -> None:
    if not dtype.is_float:
        return np.testing.assert_array_equal(found, wanted)
    scale = np.abs(wanted).max() if wanted.size else 1
    assert np.abs(found - wanted).max() <= 60 * np.finfo(dtype.np).eps * scale


@pytest.mark.parametrize("k", [1, STEPS + 3])
@pytest.mark.parametrize("types", TYPES, ids=names)
@pytest.mark.parametrize("target", [AVX2, SSE2], ids=lambda t: t.name)
def test_factors_are_converted_to_the_type_of_the_sums(types, k, target):
    """In f64 products of f32 are exact: a kernel that multiplied in f32 would be far outside of the tolerance."""
    a, b, wanted = operands(types, k)
    shape, out = replace(SHAPE, fused=target.has_fma), np.full((MR, NR), 77, types[2].np)
    main = LoopFunction("main")
    views = memory(main, (a, b, out), types)
    call_micro_kernel(main, shape, RowPanel(views[0], RowLayout(MR)), ColumnPanel(views[1], ColumnLayout(NR)),
                      MicroTileSums(views[2], NR), k)
    verify(main.body[-1].callee)
    compiled(main, [a, b], [out], list(types), target).run([a, b], [out], 1)
    check(out, wanted, types[2])


@pytest.mark.parametrize("types", STREAMED, ids=names)
def test_streamed_rows_are_converted_too(types):
    a, b, wanted = operands(types, 21)
    out = np.full((MR, NR), 77, types[2].np)
    main = LoopFunction("main")
    views = memory(main, (a, b, out), types)
    spec = StreamKernelSpec(ProductTypes(*types), MR, 4, a_step=MR, b_step=NR, width=NR)
    main.call(stream_kernel(spec), [*views, 21, NR, 0, *range(MR)])
    compiled(main, [a, b], [out], list(types), AVX2).run([a, b], [out], 1)
    check(out, wanted, types[2])


def test_rows_are_packed_as_they_are_stored():
    """Conversion comes after packing: packed rows take no more memory than the operand."""
    k = STEPS + 1
    a, b, wanted = operands((f32, f32, f64), k)
    rows = np.ascontiguousarray(a.T)
    out, packed = np.zeros((MR, NR)), np.zeros((k, MR), np.float32)
    main = LoopFunction("main")
    a_view, b_view = (main.buffer("input", i, 0, f32, (x.size,)) for i, x in enumerate((rows, b)))
    c_view = main.buffer("output", 0, 0, f64, (out.size,))
    packed_view = main.buffer("output", 1, 0, f32, (packed.size,))
    offsets = tuple(main.min_(i * k, MR * k) for i in range(MR))
    call_micro_kernel(main, SHAPE, RowPanel(a_view, RowLayout(1, scattered=True, packs=MR), offsets, packed_view),
                      ColumnPanel(b_view, ColumnLayout(NR)), MicroTileSums(c_view, NR), k)
    compiled(main, [rows, b], [out, packed], [f32, f32, f64, f32], AVX2).run([rows, b], [out, packed], 1)
    np.testing.assert_array_equal(packed, a)
    check(out, wanted, f64)


def rows_left(kind: str, shape: MicroTileShape, k: int, count: int,
              room: int) -> tuple[LoopFunction, list[np.ndarray], np.ndarray, np.ndarray]:
    """`main` that multiplies the rows of a micro-tile of which `count`, known as a trip of a loop, are left, of operands
    with room for `room` rows; what it is called with; what it gives. Rows lie one after the other, or in a panel of MR;
    the result has room for `count` rows, or for as many as there are."""
    rng, mr, layout = np.random.default_rng(count), shape.mr, LAYOUTS[kind](shape.mr)
    a, b = rng.normal(size=(room, k)).astype(np.float32), rng.normal(size=(k, NR)).astype(np.float32)
    panel = np.zeros((mr, k), np.float32)
    panel[:room] = a[:mr]
    memory_of_a = a if layout.scattered else np.ascontiguousarray(panel.T)
    out = np.zeros((min(count, mr, room), NR), np.float32)
    main = LoopFunction("main")
    a_view, b_view, c_view = memory(main, (memory_of_a, b, out), [f32] * 3)
    with main.loop(count, count + 1) as loop:
        offsets = () if not layout.scattered else (Ix(), Ix(k)) if layout.even else tuple(
            main.min_(loop.index - 1, i) * k for i in range(mr))
        call_for_rows(main, shape, loop.index, RowPanel(a_view, layout, offsets), ColumnPanel(b_view, ColumnLayout(NR)),
                      MicroTileSums(c_view, NR, bounded=True), k)
    return main, [memory_of_a, b], out, a[:len(out)].astype(np.float64) @ b


LAYOUTS = {"panels": RowLayout, "rows": lambda mr: RowLayout(1, scattered=True),
           "even": lambda mr: RowLayout(1, scattered=True, even=True)}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("shape", "count"), [(shape, count) for shape in (SHAPE, IN_PARTS)
                                              for count in range(1, shape.mr + 2)])
def test_any_number_of_rows(layout, shape, count):
    """Rows behind them are neither read nor written: there is no room for any but in panels."""
    main, ins, out, want = rows_left(layout, shape, 5, count, min(count, shape.mr))
    compiled(main, ins, [out], [f32] * 3, AVX2).run(ins, [out], 1)
    check(out, want, f32)


@pytest.mark.parametrize("layout", ["rows", "even"])
@pytest.mark.parametrize(("shape", "count"), [*[(SHAPE, count) for count in range(2, MR + 1)], (IN_PARTS, 4),
                                              (IN_PARTS, 5)])
def test_rows_that_are_not_there(layout, shape, count):
    """One more than there is room for."""
    main, *_ = rows_left(layout, shape, 5, count, count - 1)
    with pytest.raises(InternalError, match="cannot prove"):
        verify(main)


@pytest.mark.parametrize("counts, mr, loops", [((7, 7), 4, 1), ((3, 3), 4, 0), ((2, 3, 3), 4, 1), ((3, 5, 4), 4, 2),
                                              ((7, 7), 3, 0), ((9,), 4, 0), ((7, 21), 4, 2), ((5, 13), 1, 2)], ids=str)
def test_taps_are_rounds_where_these_hide_a_jump(counts, mr, loops):
    k = prod(counts)
    rng = np.random.default_rng(k)
    a, b, out = rng.normal(size=(mr, k)), rng.normal(size=(k, NR)), np.full((mr, NR), 77.0)
    main = LoopFunction("main")
    views = memory(main, (a, b, out), [f64] * 3)
    taps = tuple((n, prod(counts[i + 1:])) for i, n in enumerate(counts))
    rows = RowPanel(views[0], RowLayout(1, scattered=True, taps=taps), tuple(Ix() + i * k for i in range(mr)))
    call_micro_kernel(main, replace(SHAPE, mr=mr, busy=8), rows, ColumnPanel(views[1], ColumnLayout(NR)),
                      MicroTileSums(views[2], NR), k)
    assert sum(isinstance(s, For) for s in statements(main.body[-1].callee.body)) == loops
    compiled(main, [a, b], [out], [f64] * 3, AVX2).run([a, b], [out], 1)
    np.testing.assert_allclose(out, a @ b, rtol=1e-12)
