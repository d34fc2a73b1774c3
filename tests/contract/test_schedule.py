"""The schedule is a pure function of shapes and target, can be asked about any target, and gives machine code of that
target.
"""
import re

import numpy as np
import pytest

from graphc.codegen.llvm import jit
from graphc.codegen.llvm.emit import emit_module
from graphc.codegen.loops.printer import print_function
from graphc.ir import contraction as C
from graphc.ir.types import f32, f64
from graphc.schedule.blocking import PackingMode
from graphc.schedule.choose_contraction import contraction_schedule
from graphc.schedule.contraction_schedule import STEPS, DotSchedule, LaneSchedule, NarrowSchedule, TileSchedule
from graphc.schedule.target import AVX2, AVX512, NEON, SSE2
from tests.contract.harness import lowered


def matmul_schedule(m, n, k, target=AVX2, a=None, b=None, dtype=f32):
    return contraction_schedule(C.matmul((m, k), (k, n)), (m, k), a or (k, 1), (k, n), b or (n, 1), (n, 1), dtype,
                                target)


@pytest.mark.parametrize("target, tiles",
                         [(AVX2, {(6, 16), (4, 24)}), (SSE2, {(6, 8), (4, 12)}), (AVX512, {(6, 64), (8, 48)}),
                                           (NEON, {(6, 16), (8, 12)})], ids=lambda t: getattr(t, "name", ""))
def test_register_tiles_fill_the_registers(target, tiles):
    phase, = matmul_schedule(1024, 1024, 1024, target).phases
    assert (phase.blocking.mr, phase.blocking.nr) in tiles
    assert phase.blocking.mr * phase.vectors + phase.vectors + 1 <= target.vector_registers
    assert phase.lanes == target.vector_bytes // 4
    half, = matmul_schedule(1024, 1024, 1024, target, dtype=f64).phases
    assert half.lanes == phase.lanes // 2


def test_pure_and_printable():
    first, second = matmul_schedule(512, 64, 512), matmul_schedule(512, 64, 512)
    assert first == second and hash(first) == hash(second)
    assert re.fullmatch(r"\S+×\S+ \(lanes 8\) MC \d+ NC \d+@n0 KC \d+@k0 a:unpacked b:packed-once by rows packed in "
                        r"runs; shared scratch \d+", str(first)), str(first)


def test_columns_that_few_tiles_share_are_packed_by_each():
    for m, n, k, source in ((300, 128, 512, PackingMode.PER_TILE), (512, 512, 512, PackingMode.ONCE),
                            (4096, 512, 48, PackingMode.ONCE),
                            (600, 128, 512, PackingMode.ONCE)):
        phase, = matmul_schedule(m, n, k).phases
        assert phase.b == source, (m, n, k)


def test_tiles_follow_each_other_along_the_larger_operand():
    """So that the smaller one is what is read again and again."""
    for m, n, by_rows in ((3072, 1536, True), (1024, 3072, False)):
        phase, = matmul_schedule(m, n, 384).phases
        assert phase.by_rows == by_rows
    text = str(matmul_schedule(3072, 1536, 384))
    assert "by rows" in text


def test_tiles_of_an_output_larger_than_operands_that_l2_holds_follow_its_memory():
    phase, = matmul_schedule(512, 784, 64).phases
    assert phase.by_rows


@pytest.mark.parametrize("m, n, k, by_rows", [(256, 1152, 384, True), (256, 384, 1536, True), (196, 512, 512, True),
                                              (128, 2304, 768, False), (49, 1024, 512, False)])
def test_threads_keep_their_rows_of_products_by_packed_weights(m, n, k, by_rows):
    """Where each can have some: what one thread computes, the same thread reads in the next product."""
    schedule = contraction_schedule(C.matmul((m, k), (k, n)), (m, k), (k, 1), (k, n), (n, 1), (n, 1), f32, AVX512,
                                    invariant=(False, True))
    phase, = schedule.phases
    assert schedule.prepacked == 1 and phase.by_rows == by_rows
    assert not by_rows or -(-m // phase.blocking.mc) >= 3


@pytest.mark.parametrize("m, n, k, unpacked", [(4096, 160, 739, False), (4000, 80, 739, False), (1000, 500, 200, True),
                                               (20000, 64, 64, True)])
def test_rows_across_that_nothing_brings_into_the_cache_are_packed(m, n, k, unpacked):
    """More lines than L1 holds, of more memory than L2 has."""
    phase, = matmul_schedule(m, n, k, AVX512, a=(1, m)).phases
    assert (phase.a is PackingMode.UNPACKED) == unpacked, str(phase)


@pytest.mark.parametrize("m, k, dots", [(1, 18, True), (2, 31, True), (1, 6, False), (1, 64, True)])
def test_short_sums_of_few_rows_are_dot_products_where_these_beat_transposing(m, k, dots):
    phase, = matmul_schedule(m, 10312, k, AVX512, b=(1, k)).phases
    assert isinstance(phase, DotSchedule) == dots, str(phase)


def test_few_rows_whose_columns_are_transposed_keep_all_cores_busy():
    phase, = matmul_schedule(1, 20000, 8, AVX512, b=(1, 8)).phases
    assert phase.b is PackingMode.PER_TILE and phase.blocking.nc.chunk <= 20000 // 4 + phase.blocking.nr


def test_small_products_are_one_tile_and_pack_nothing():
    for size in (4, 16, 33):
        schedule = matmul_schedule(size, size, size)
        phase, = schedule.phases
        assert (phase.a, phase.b, schedule.shared_scratch) == (PackingMode.UNPACKED, PackingMode.UNPACKED, 0)
        assert phase.blocking.mc >= size and phase.blocking.nc.chunk >= size


def test_large_products_have_tiles_for_many_cores():
    for m, n, k in ((512, 512, 512), (1024, 1024, 1024), (3072, 768, 768), (2048, 2048, 2048)):
        phase, = matmul_schedule(m, n, k).phases
        tiles = -(-m // phase.blocking.mc) * phase.blocking.nc.count((n,))
        assert tiles >= 32
        assert 2 * phase.blocking.mc * phase.blocking.nc.chunk * k <= max(16e6, 2 * m * n * k / 400)


def test_products_with_few_rows_or_columns_have_tiles_for_many_cores():
    for m, n, k in ((512, 64, 784), (64, 512, 512), (48, 512, 700)):
        phase, = matmul_schedule(m, n, k).phases
        assert -(-m // phase.blocking.mc) * phase.blocking.nc.count((n,)) >= 16, (m, n, k)


def test_tiles_that_pack_near_columns_are_shorter_where_they_are_few():
    for m, tall in ((256, False), (512, True)):
        phase, = matmul_schedule(m, 2048, 64, AVX512, a=(1, m)).phases
        assert phase.b == PackingMode.PER_TILE and (phase.blocking.mc > 160) == tall, (m, phase)


@pytest.mark.parametrize("n, free, source",
                         [(419, True, PackingMode.ONCE), (416, True, PackingMode.UNPACKED),
                          (419, False, PackingMode.UNPACKED)])
def test_few_rows_read_columns_as_they_lie_unless_that_is_across_cache_lines_and_packing_costs_nothing(n, free, source):
    m, k = 17, 4 * n
    phase, = contraction_schedule(C.matmul((m, k), (k, n)), (m, k), (k, 1), (k, n), (n, 1), (n, 1), f32, AVX512,
                                  invariant=(False, free)).phases
    assert phase.b == source


@pytest.mark.parametrize("m, n, k", [(784, 256, 128), (3136, 128, 64), (784, 128, 512)])
def test_four_threads_get_even_shares(m, n, k):
    """Of rows: 40 tiles of 84 of 784 rows would give three threads ten whole ones, and the last six and the four that
    are left.
    """
    phase, = matmul_schedule(m, n, k, AVX512).phases
    tiles = [min(phase.blocking.mc, m - row) for row in range(0, m, phase.blocking.mc)
             for _ in range(phase.blocking.nc.count((n,)))]
    ends = [len(tiles) * part // 4 for part in range(5)]
    assert phase.by_rows and max(sum(tiles[a:b]) for a, b in zip(ends, ends[1:])) <= 1.04 * sum(tiles) / 4


@pytest.mark.parametrize("m, k, n, again", [(128, 3072, 768, True), (256, 2048, 192, False), (1024, 3072, 768, False)])
def test_few_rows_share_weights_that_tiles_would_read_from_beyond_l2_again(m, k, n, again):
    phase, = contraction_schedule(C.matmul((m, k), (k, n)), (m, k), (k, 1), (k, n), (n, 1), (n, 1), f32, AVX512,
                                  invariant=(False, True)).phases
    assert (phase.blocking.mc >= 64) == again
    assert -(-m // phase.blocking.mc) * phase.blocking.nc.count((n,)) >= 16


def test_few_rows_sum_short_blocks():
    """Whose columns from memory only the first register tile waits for; many rows keep long blocks."""
    few, many = (matmul_schedule(m, 768, 3072, AVX512).phases[0] for m in (128, 1024))
    lengths = [p.blocking.kc.length((3072,)) for p in (few, many)]
    assert lengths[0] * few.blocking.nr * 4 <= AVX512.machine.l2_bytes // 16 and lengths[1] > 2 * lengths[0]


def test_weight_gradients_split_the_sum():
    phase, = matmul_schedule(64, 64, 50000, a=(1, 64)).phases
    assert phase.splits >= 16
    phase, = matmul_schedule(64, 64, 256, a=(1, 64)).phases
    assert phase.splits == 1


def test_rows_of_long_sums_are_packed_on_the_way():
    """Where a tile has columns for several register tiles beside each other."""
    for m, n, k, source in ((2048, 320, 2048, PackingMode.BY_FIRST_USE), (2048, 2048, 3000, PackingMode.BY_FIRST_USE),
                            (512, 512, 1568, PackingMode.ONCE), (512, 24, 4096, PackingMode.PER_TILE),
                            (48, 48, 300, PackingMode.PER_TILE)):
        phase, = matmul_schedule(m, n, k, a=(1, m)).phases
        assert phase.a == source, (m, n, k, phase)
        assert (source != PackingMode.BY_FIRST_USE or phase.blocking.nc.chunk >= 8 * phase.blocking.nr
                and phase.blocking.kc.chunk * phase.blocking.nr * 4 <= AVX2.machine.l1_bytes)


def test_tiles_of_small_outputs_take_parts_of_long_sums():
    small, = matmul_schedule(128, 128, 25088, a=(1, 128)).phases
    assert (small.a, small.b) == (PackingMode.PER_TILE, PackingMode.PER_TILE) and small.splits >= 16
    # tiles enough: operands are packed once for all of them
    large, = matmul_schedule(512, 512, 1568, a=(1, 512)).phases
    assert (large.a, large.b, large.splits) == (PackingMode.ONCE, PackingMode.ONCE, 1)


def test_weight_gradients_of_depthwise_convolutions_read_runs_of_channels():
    windows = [C.Window(56, 3, 1, 1, (1, 1))] * 2
    for channels, blocks in ((32, 1), (128, 1), (512, 4)):
        image = (2, channels, 56, 56)
        strides = (56 * 56 * channels, 1, 56 * channels, channels)
        s, = contraction_schedule(C.conv_weight_gradient(2, channels, channels, windows, channels), image, strides,
                                  image, strides,
                                  (9, 9, 3, 1), f32, AVX2).phases
        assert isinstance(s, NarrowSchedule) and s.block * blocks * s.lanes == channels
        assert s.splits * blocks >= 16


def _depthwise(channels: int, kernel: int, last: bool, target=AVX512):
    """Schedules of a convolution and of its weight gradient; the result lies channels last."""
    windows, size = [C.Window(28, kernel, 1, 1, (kernel // 2,) * 2)] * 2, (2, channels, 28, 28)
    strides = {True: (784 * channels, 1, 28 * channels, channels), False: (784 * channels, 784, 28, 1)}
    weights, dense = (channels, 1, kernel, kernel), (kernel * kernel, kernel * kernel, kernel, 1)
    forward = contraction_schedule(C.conv(2, channels, channels, windows, channels), size, strides[last], weights,
                                   dense, strides[True], f32, target)
    backward = contraction_schedule(C.conv_weight_gradient(2, channels, channels, windows, channels), size,
                                    strides[True], size, strides[True], dense, f32, target)
    return forward, backward


@pytest.mark.parametrize("target", (AVX2, AVX512), ids=("avx2", "avx512"))
@pytest.mark.parametrize("kernel", (3, 7, 8, 9, 15, 31))
def test_depthwise_convolutions_run_along_channels_whatever_their_kernel(kernel, target):
    """No size of a kernel is a cliff: the same kinds of schedules, and neighbours cost about the same per term."""
    forward, backward = (only for s in _depthwise(64, kernel, True, target) for only in s.phases)
    assert isinstance(forward, LaneSchedule) and isinstance(backward, NarrowSchedule)
    near, = _depthwise(64, kernel + 1, True, target)[0].phases
    per_term = [s.ranking.best.total / k**2 for s, k in ((forward, kernel), (near, kernel + 1))]
    assert 0.5 <= per_term[0] / per_term[1] <= 2


@pytest.mark.parametrize("kernel", (3, 9))
def test_images_of_depthwise_convolutions_are_copied_channels_last(kernel):
    """Where they lie channels first and the result does not: vectors run along channels."""
    forward, _ = _depthwise(64, kernel, False)
    copy, = [c for c in forward.form.copies if c is not None]
    assert copy.strides[1] == 1 and isinstance(forward.phases[0], LaneSchedule)


@pytest.mark.parametrize("size, channels", [(7, 1024), (14, 512), (28, 256)])
def test_threads_get_even_shares_of_depthwise_convolutions(size, channels):
    """Two tiles of 6 rows and 1 row, say, for each block of channels would give two of four threads 12 of 28 parts
    each.
    """
    windows, image = [C.Window(size + 2, 3, 1, 1, (0, 0))] * 2, (1, channels, size + 2, size + 2)
    strides, out = [(channels * n * n, 1, channels * n, channels) for n in (size + 2, size)]
    s, = contraction_schedule(C.conv(1, channels, channels, windows, channels), image, strides, (channels, 1, 3, 3),
                              (9, 9, 3, 1), out, f32, AVX512).phases
    assert isinstance(s, LaneSchedule)
    tiles = [min(s.tile, size - row) for row in range(0, size, s.tile) for _ in range(channels // s.block)]
    ends = [len(tiles) * part // 4 for part in range(5)]
    assert max(sum(tiles[a:b]) for a, b in zip(ends, ends[1:])) <= 1.1 * sum(tiles) / 4


def test_columns_from_l2_are_narrow():
    """Where columns do not stay in L1, the register tile with the fewest cycles is not the one with the most columns.
    """
    tall, = matmul_schedule(32, 320, 1280).phases
    short, = matmul_schedule(32, 320, 16).phases
    assert tall.vectors <= 3 < short.vectors


def test_transposed_output_swaps_the_operands():
    schedule = contraction_schedule(C.matmul((40, 30), (30, 20)), (40, 30), (30, 1), (30, 20), (20, 1), (1, 40), f32,
                                    AVX2)
    assert schedule.form.swap and str(schedule).startswith("transposed ")


def test_few_rows_are_dots_or_streams():
    assert str(matmul_schedule(1, 512, 512, b=(1, 512))).startswith("dots")
    assert "streamed" in str(matmul_schedule(1, 512, 512))


def instructions(target, dtype=np.float32, m=256, n=256, k=256):
    a, b, out = (np.empty(s, dtype) for s in ((m, k), (k, n), (m, n)))
    f, main, _ = lowered(C.matmul((m, k), (k, n)), [a, b], [out], target)
    return jit.assembly(emit_module([f], main, target), target)


def test_avx512_code_uses_whole_registers():
    text = instructions(AVX512)
    assert text.count("vfmadd231ps") >= 24 and len(set(re.findall(r"zmm\d+", text))) >= 28


def test_neon_code_multiplies_and_adds_vectors():
    assert instructions(NEON).count("fmla") >= 20
    assert "v31.2d" in instructions(NEON, np.float64)


def test_the_inner_loop_has_no_spills():
    """Between the label and the jump of the micro-kernel's loop: fma, loads, counters; no store."""
    text = instructions(AVX2)
    loops = [body for body in re.findall(r"^\.LBB\d+_\d+:(.*?)^\s+j\w+\s", text, re.S | re.M)
             if body.count("vfmadd") in (12, 12 * STEPS)]
    assert any(body.count("vfmadd") == 12 * STEPS for body in loops)
    assert not any(re.search(r"v?mov\w+\s+%[xy]mm\d+, .*\(%rsp\)", body) for body in loops)


def test_what_is_packed_for_all_tiles_is_divided_among_threads():
    def pieces(m, n, k):
        f, _, schedule = lowered(C.matmul((m, k), (k, n)), [np.empty((m, k), np.float32), np.empty((k, n), np.float32)],
                                 [np.empty((m, n), np.float32)])
        assert schedule.phases[0].b == PackingMode.ONCE
        return int(re.search(r"parallel t\d* < (\d+) \"pack_b\"", print_function(f)).group(1))
    assert pieces(512, 64, 512) == 8            # of 4096 elements
    assert pieces(512, 48, 352) == 4
    assert pieces(600, 128, 512) == 16          # of 32 steps, the columns of all tiles


def test_columns_that_other_cores_may_hold_are_packed_in_runs():
    for n, k, in_runs in ((256, 200, True), (1024, 1024, False)):           # in half of an L2, or not
        phase, = matmul_schedule(300, n, k).phases
        assert (phase.b, phase.packed_in_runs) == (PackingMode.ONCE, in_runs)
        assert ("packed in runs" in str(phase)) == in_runs


@pytest.mark.parametrize("m", [49, 50, 128, 196])
def test_no_register_tile_reaches_past_the_last_row(m):
    """Rows that are read where they lie need no clamping then."""
    f, _, schedule = lowered(C.matmul((m, 640), (640, 512)),
                             [np.empty((m, 640), np.float32), np.empty((640, 512), np.float32)],
                             [np.empty((m, 512), np.float32)])
    s = schedule.phases[0]
    assert (s.a == PackingMode.UNPACKED and not s.transposed_store and s.blocking.mc % s.blocking.mr == 0
            and s.edge_mr == m % s.blocking.mr)
    rows = {int(n) for n in re.findall(r"call tile_f32_(\d+)x", print_function(f))}
    assert rows == {s.blocking.mr} | ({s.edge_mr} if s.edge_mr else set())


def test_equal_kernels_are_one_function():
    from graphc.codegen.loops.loop_ir import Call

    def callees(shape):
        m, n, k = shape
        f, _, schedule = lowered(C.matmul((m, k), (k, n)), [np.empty((m, k), np.float32), np.empty((k, n), np.float32)],
                                 [np.empty((m, n), np.float32)])
        assert isinstance(schedule.phases[0], TileSchedule)
        found, todo = set(), list(f.body)
        while todo:
            s = todo.pop()
            found |= {s.callee} if isinstance(s, Call) else set()
            todo += [x for name in ("body", "then", "otherwise") for x in getattr(s, name, [])]
        return found
    assert callees((516, 512, 512)) == callees((768, 1024, 600))


def test_a_target_without_fma_calls_nothing():
    assert "fma" not in instructions(SSE2) and "mulps" in instructions(SSE2)
