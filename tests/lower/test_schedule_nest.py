"""Schedules of nests: pure functions of shapes, strides and target; and what the code for foreign targets contains."""
import re
from dataclasses import replace
from functools import reduce

import numpy as np
import pytest
from native import compile_node, node_of, run_op, view_of

from graphc.codegen.llvm import jit
from graphc.codegen.llvm.emit import emit_module
from graphc.codegen.loops.printer import print_function
from graphc.codegen.lower import lower
from graphc.codegen.lower.request import KernelRequest
from graphc.ir.builder import Builder
from graphc.ir.ops.elementwise import Elementwise
from graphc.ir.ops.fused import Fused
from graphc.ir.ops.reduce import Sum
from graphc.ir.types import TensorType, f32
from graphc.schedule.choose import schedule_node
from graphc.schedule.choose_nest import cluster_schedule
from graphc.schedule.target import AVX2, AVX512, NEON, TARGETS
from graphc.schedule.view import ViewType, contiguous_strides

WIDTHS = {"sse2": 4, "avx2": 8, "avx2_vnni": 8, "avx512": 16, "avx512_vnni": 16, "avx512_bf16": 16, "avx512_amx": 16, "neon": 4, "neon_dot": 4, "neon_bf16": 4,
          "zen3": 8, "sapphirerapids": 16}


def dense(*shape) -> ViewType:
    return ViewType(f32, shape, contiguous_strides(shape))


def node(make, *shapes):
    """A cluster of what `make(b, *inputs)` returns."""
    b = Builder("body")
    outs = make(b, *[b.input(f"x{k}", f32[s]) for k, s in enumerate(shapes)])
    outs = outs if isinstance(outs, tuple) else (outs,)
    body = b.finish(outs, None if len(outs) == 1 else ("",) * len(outs))
    b = Builder("graph")
    return b.apply(Fused(body), [b.input(f"x{k}", f32[s]) for k, s in enumerate(shapes)])[0].node


def schedule(n, target=AVX2):
    return schedule_node(n, [dense(*v.type.shape) for v in n.inputs], [dense(*v.type.shape) for v in n.outputs], target)


def softmax(b, x):
    e = b.exp(b.sub(x, b.max(x, axes=(1,), keepdims=True)))
    return b.div(e, b.sum(e, axes=(1,), keepdims=True))


def test_contiguous_dims_are_one():
    s = schedule(node(lambda b, x, y: b.add(x, y), (64, 32, 128), (64, 32, 128)))
    assert s.inner == (0,) and s.outer == () and s.chunk % s.lanes == 0 and not s.serial


def test_small_work_is_serial():
    assert schedule(node(lambda b, x: b.neg(x), (64,))).serial


def test_rows_keep_what_is_dear():
    s = schedule(node(softmax, (4096, 1024)))
    assert len(s.stored) == 1 and s.vector in s.inner and 1 < s.tile < 512


def test_tiles_are_cut_by_shape_only():
    one, two = schedule(node(softmax, (4096, 1024))), schedule(node(softmax, (8192, 1024)))
    assert one.tile == two.tile


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_lanes_follow_the_target(name):
    s = schedule(node(softmax, (4096, 1024)), TARGETS[name])
    assert s.lanes % WIDTHS[name] == 0
    assert schedule(node(softmax, (3, 5)), TARGETS[name]).lanes <= 8


def test_column_sums_of_much_go_row_by_row():
    assert schedule(node(lambda b, x: b.sum(x, axes=(0,)), (16384, 1024))).crosswise
    assert not schedule(node(lambda b, x: b.sum(x, axes=(0,)), (64, 128))).crosswise


def test_narrow_matrices_of_a_stack_are_summed_column_by_column():
    """Sums stay in registers, and so they do where rows of them would leave L1; of others, whose columns the hardware
    does not see coming, rows are read."""
    assert not schedule(node(lambda b, x: b.sum(x, axes=(1,)), (96, 576, 64))).crosswise
    assert not schedule(node(lambda b, x: b.sum(x, axes=(1,)), (16, 576, 512))).crosswise
    assert schedule(node(lambda b, x: b.sum(x, axes=(1,)), (4, 2000, 300))).crosswise


def test_a_total_is_cut_and_combined():
    s = schedule(node(lambda b, x: b.sum(x, axes=(0, 1)), (4096, 4096)))
    assert s.chunk and s.shared_bytes


def test_inputs_read_across_are_read_in_blocks():
    n = node(lambda b, x: b.neg(x), (1024, 2048))
    s = schedule_node(n, [ViewType(f32, (1024, 2048), (1, 1024))], [dense(1024, 2048)], AVX2)
    assert s.inner == (1, 0) and s.vector == 1 and s.cut == 0 and s.chunk == 16


def test_how_many_rows_are_written_side_by_side():
    """No more than a core remembers pages of, unless these lie near, or arithmetic hides what stores wait; and in no
    vectors of whole lines, unless these pass the caches."""
    def turned(make, rows, columns, target):
        n = node(make, (rows, columns))
        return schedule_node(n, [ViewType(f32, (rows, columns), (1, rows))], [dense(rows, columns)], target)
    def negative(b, x):
        return b.neg(x)
    for target in AVX2, AVX512:
        assert turned(negative, 1024, 2048, target).chunk == 16
        assert turned(lambda b, x: b.tanh(x), 1024, 2048, target).chunk == 32
        assert turned(negative, 4096, 64, target).chunk == 32
    light, heavy, huge = [turned(make, rows, rows, AVX512) for make, rows in (
        (negative, 1024), (lambda b, x: b.tanh(x), 1024), (negative, 8192))]
    assert light.lanes == 8 and heavy.lanes == huge.lanes == 16 and huge.stream


def test_rows_that_lie_across_are_lanes():
    """Each stage reads them again, so that it counts more how they are read than how the result is stored, which goes
    through squares in registers."""
    def log_softmax(b, x):
        shifted = b.sub(x, b.max(x, axes=(1,), keepdims=True))
        return b.sub(shifted, b.log(b.sum(b.exp(shifted), axes=(1,), keepdims=True)))
    for target in AVX2, AVX512:
        for size in 40, 4000:
            n, lying = node(log_softmax, (500, size)), ViewType(f32, (500, size), (1, 500))
            across = schedule_node(n, [lying], [dense(500, size)], target)
            assert across.vector == 0 and across.squares == target.lanes(4)
            along = schedule(n, target)
            assert along.vector == 1 and not along.squares
    n, lying = node(lambda b, x: b.sum(x, axes=(1,)), (500, 40)), ViewType(f32, (500, 40), (1, 500))
    assert schedule_node(n, [lying], [dense(500)], AVX2).vector == 0


def test_short_rows_are_lanes():
    """To fold the lanes of a short row, and to compute alone what there is once in it, takes longer than to turn it."""
    def softmax(b, x):
        e = b.exp(b.sub(x, b.max(x, axes=(1,), keepdims=True)))
        return b.div(e, b.sum(e, axes=(1,), keepdims=True))
    for target in AVX2, AVX512:
        short, long = (schedule(node(softmax, (2000, size)), target) for size in (5, 100))
        assert short.vector == 0 and short.squares == target.lanes(4)
        assert long.vector == 1 and not long.squares
    sums = node(lambda b, x: b.sum(b.sum(x, axes=(1,), keepdims=True), axes=(0, 1)), (3000, 5))
    assert schedule(sums, AVX2).vector == 1         # what crosses rows as well has no squares


def test_work_of_some_microseconds_is_divided_evenly():
    """Whatever is divided: columns, rows of which one block and a rest would be turned, sums across few rows."""
    columns = schedule(node(lambda b, x: b.tanh(b.sum(b.tanh(x), axes=(0,))), (40, 4000)), AVX512)
    assert columns.columns and -(-4000 // columns.columns) >= 8
    n, lying = node(lambda b, x: b.neg(x), (23, 6439)), ViewType(f32, (23, 6439), (1, 23))
    turned = schedule_node(n, [lying], [dense(23, 6439)], AVX512)
    assert turned.cut == turned.vector and -(-6439 // turned.chunk) >= 4
    across = schedule(node(lambda b, x: b.sum(b.exp(b.sum(x, axes=(1,), keepdims=True)), axes=(0, 1)), (4000, 40)), AVX512)
    assert not across.serial and -(-4000 // across.tile) >= 8


def test_small_matrices_are_turned_several_at_a_time():
    for size, few in ((12, False), (300, True)):
        n = node(lambda b, x: b.neg(x), (5000, size, size))
        strides = (size * size, 1, size)
        s = schedule_node(n, [ViewType(f32, (5000, size, size), strides)], [dense(5000, size, size)], AVX2)
        assert not s.serial and (s.tile == 1) == few


def test_huge_outputs_stream():
    assert schedule(node(lambda b, x: b.neg(x), (8192, 8192))).stream == (0,)
    assert schedule(node(lambda b, x: b.neg(x), (64, 64))).stream == ()


def test_rows_that_stream_are_fetched_ahead():
    large, small = node(softmax, (16384, 1024)), node(softmax, (64, 1024))
    assert schedule(large).stream and schedule(large).fetch.stage == 1        # the stage of exp
    assert schedule(small).fetch is None
    f = lower(KernelRequest(large, (dense(16384, 1024),), (dense(16384, 1024),), schedule(large), AVX2))
    text = print_function(f)
    # streamed, and for outputs that do not lie well
    assert text.count("prefetch x0[") == text.count("prefetch") == 2


def test_columns_of_rows_far_apart_are_fetched_ahead():
    def normed(b, x):
        return b.sub(x, b.sum(x, axes=(0,), keepdims=True))
    large, narrow, small = (node(normed, shape) for shape in ((1600, 512), (16384, 16), (128, 512)))
    assert schedule(large).fetch.distance > 1 and not schedule(narrow).fetch and not schedule(small).fetch
    text = print_function(lower(KernelRequest(large, (dense(1600, 512),), (dense(1600, 512),), schedule(large), AVX2)))
    assert re.search(r"prefetch x0\[.* \+ 32, .*\] to L2", text)


def test_in_place_only_while_nobody_reads_again():
    def late(b, x):
        return b.neg(x), b.sub(x, b.sum(x, axes=(1,), keepdims=True))
    assert schedule(node(late, (64, 128))).inplace == ((1, 0),)
    assert schedule(node(lambda b, x, y: b.add(x, y), (64, 128), (128,))).inplace == ((0, 0),)


def test_a_schedule_prints_on_one_line():
    text = str(schedule(node(softmax, (4096, 1024))))
    assert text.startswith("nest(rows (d0) by") and "\n" not in text


@pytest.mark.parametrize("target, register", [(AVX512, "%zmm"), (AVX2, "%ymm"), (NEON, r"v\d+\.4s")])
def test_foreign_targets_get_their_vectors(target, register):
    n = node(softmax, (4096, 1024))
    ins, outs = (dense(4096, 1024),), (dense(4096, 1024),)
    text = emit_module([lower(KernelRequest(n, ins, outs, schedule_node(n, ins, outs, target), target))], None, target)
    assembly = jit.assembly(text, target)
    assert len(re.findall(register, assembly)) > 20
    assert not re.search(r"call.*(exp|max)", assembly)


@pytest.mark.parametrize("strides", ["C", "F", "every second"])
@pytest.mark.parametrize("shape", [(37, 45), (8, 64), (300, 5)])
def test_strided_inputs(strides, shape):
    rng = np.random.default_rng(0)
    x = {"C": lambda: rng.random(shape, np.float32), "F": lambda: np.asfortranarray(rng.random(shape, np.float32)),
         "every second": lambda: rng.random((2 * shape[0], 2 * shape[1]), np.float32)[::2, ::2]}[strides]()
    for op in (Sum((0,)), Sum((1,)), Sum((0, 1)), Elementwise("neg")):
        got, = run_op(op, x)
        np.testing.assert_allclose(got, op.reference(x), rtol=2e-6, atol=1e-6)


def test_unaligned_outputs_are_not_streamed():
    x = np.random.default_rng(0).random(1 << 21, np.float32)
    room = np.zeros((1 << 21) + 16, np.float32)
    n = node_of(Elementwise("neg"), [x])
    s = replace(schedule_node(n, [view_of(x)], [view_of(x)], AVX2), stream=(0,))
    for offset in (0, 1, 4, 8):
        out = room[offset:offset + (1 << 21)]
        compiled = compile_node(n, [x], [out], s)
        assert compiled.run([x], [out]) == 0
        np.testing.assert_array_equal(out, -x)


def test_f32_sums_are_blocked():
    x = np.full(1 << 24, 0.1, np.float32)
    got, = run_op(Sum((0,)), x)
    assert abs(got - x.astype(np.float64).sum()) < 4e-6 * x.size * 0.1      # left to right it would be 1e-1


def test_columns_of_far_rows():
    """More of them together than of near rows or of few, no more than registers hold, and of any number of arrays."""
    def lanes(rows: int, columns: int, arrays: int) -> int:
        b = Builder("far")
        xs = [b.input(f"x{i}", TensorType(f32, (16, rows, columns))) for i in range(arrays)]
        graph = b.finish([b.max(reduce(b.add, xs), axes=(1,))])
        views = [tuple(ViewType(v.type.dtype, v.type.shape, contiguous_strides(v.type.shape)) for v in vs) for vs in (graph.inputs, graph.outputs)]
        return cluster_schedule(graph, *views, AVX2).lanes
    assert lanes(200, 600, 1) == 64 and lanes(200, 600, 2) == 32 and lanes(40, 600, 1) == 32 and 8 <= lanes(200, 600, 20) <= 32
