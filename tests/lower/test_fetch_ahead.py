"""Kernels ask for memory ahead where they would wait for it, and only there."""
from __future__ import annotations

import re

import pytest

import graphc as gc
from graphc import nn
from graphc.api import traced
from graphc.codegen.loops.printer import print_function
from graphc.codegen.lower import lower
from graphc.codegen.lower.contraction.micro_kernel import (
    ColumnLayout, MicroKernelSpec, MicroTileShape, ProductTypes, RowLayout, micro_kernel)
from graphc.codegen.lower.request import KernelRequest
from graphc.compiler import Compilation
from graphc.ir.builder import Builder
from graphc.ir.open import open_graph
from graphc.ir.ops.winograd import WinogradWeightGrad
from graphc.ir.types import f32
from graphc.schedule.choose import schedule_node
from graphc.schedule.contraction_schedule import STEPS
from graphc.schedule.target import AVX2, AVX512, AVX512_AMX
from graphc.schedule.view import ViewType, contiguous_strides


def lowered(node, orders=None) -> str:
    """The loops of a node, whose operands and results lie row-major but for the given orders of axes."""
    def views(values):
        return tuple(ViewType(v.type.dtype, v.type.shape,
                              contiguous_strides(v.type.shape, (orders or {}).get(v.type.rank))) for v in values)
    ins, outs = views(node.inputs), views(node.outputs)
    return print_function(lower(KernelRequest(node, ins, outs, schedule_node(node, ins, outs, AVX2), AVX2)))


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("length, far", [(256, False), (4096, True)])
def test_attention_asks_for_keys_that_do_not_stay_in_l2(length, far, gradient):
    b = Builder()
    q, k, v = (b.input(n, f32[8, length, 64]) for n in "qkv")
    out, lse = b.attention(q, k, v)
    if gradient:
        b.attention_grad(q, k, v, out, lse, b.input("g", out.type))
    assert ("to L2" in lowered(b.nodes[-1])) == far


@pytest.mark.parametrize("m, n, k, asks", [(128, 128, 25088, True), (128, 128, 600, False), (600, 600, 2048, True)])
def test_tiles_that_pack_ask_for_the_next_block(m, n, k, asks):
    b = Builder()
    product = b.matmul(b.transpose(b.input("a", f32[k, m]), perm=(1, 0)), b.input("b", f32[k, n]))
    views, outs = (ViewType(f32, (m, k), (1, m)), ViewType(f32, (k, n), (n, 1))), (ViewType(f32, (m, n), (n, 1)),)
    text = print_function(lower(KernelRequest(product.node, views, outs, schedule_node(product.node, views, outs, AVX2),
                                              AVX2)))
    assert ("prefetch in0" in text) == asks


def test_depthwise_convolutions_ask_for_the_next_row():
    b = Builder()
    b.conv2d(b.input("x", f32[2, 64, 30, 30]), b.input("w", f32[64, 1, 3, 3]), groups=64)
    assert "prefetch" in lowered(b.nodes[-1], {4: (0, 2, 3, 1)})


def test_weight_gradients_of_depthwise_convolutions_ask_for_the_next_row():
    b = Builder()
    x, w = b.input("x", f32[2, 64, 30, 30]), b.input("w", f32[64, 1, 3, 3])
    b.conv2d_weight_grad(x, b.input("g", b.conv2d(x, w, groups=64).type), w_shape=w.type.shape, groups=64)
    assert "prefetch" in lowered(b.nodes[-1], {4: (0, 2, 3, 1)})


@pytest.mark.parametrize("rows, columns, packed, asks",
                         [(128, 3072, True, True), (128, 96, True, True), (2000, 72, False, False),
                          (2000, 768, False, True),
                                                          (6, 3072, True, False)])
def test_register_tiles_ask_for_the_next_panel_of_packed_columns_that_are_not_in_l2(rows, columns, packed, asks):
    """Not if they were just packed and stay there, nor if each is used but once; all of a panel by all register tiles
    of the one before it.
    """
    b = Builder()
    b.matmul(b.input("x", f32[rows, 768]), b.input("w", f32[768, columns]))
    ins, outs = (tuple(ViewType(v.type.dtype, v.type.shape, contiguous_strides(v.type.shape)) for v in values)
                 for values in (b.nodes[0].inputs, b.nodes[0].outputs))
    schedule = schedule_node(b.nodes[0], ins, outs, AVX2, (False, packed))
    tiles, = schedule.phases
    downs, lines = -(-min(tiles.blocking.mc, rows) // tiles.blocking.mr), tiles.blocking.nr * 768 // 16
    assert bool(tiles.prefetch_lines) == asks
    each = downs * (768 // STEPS)
    assert not asks or each * (tiles.prefetch_lines - 1) < lines <= each * tiles.prefetch_lines
    text = print_function(lower(KernelRequest(b.nodes[0], ins, outs, schedule, AVX2)))
    assert ("_ahead" in text) == asks


@pytest.mark.parametrize("columns, k, asks", [(512, 4608, True), (256, 128, False)])
def test_few_rows_ask_step_by_step_for_weights_that_l2_cannot_hold(columns, k, asks):
    """As many lines as steps have; of the last panel of a tile for the next part of the sum in the first one."""
    b = Builder()
    b.matmul(b.input("x", f32[4, k]), b.input("w", f32[k, columns]))
    ins = ViewType(f32, (4, k), (k, 1)), ViewType(f32, (k, columns), (1, k))
    outs = ViewType(f32, (4, columns), (columns, 1)),
    schedule = schedule_node(b.nodes[0], ins, outs, AVX512, (False, True))
    text = print_function(lower(KernelRequest(b.nodes[0], ins, outs, schedule, AVX512)))
    tiles, = schedule.phases
    nr, steps = tiles.blocking.nr, tiles.blocking.kc.length((k,))
    assert (f"_ahead{nr * STEPS // 16}(" in text) == asks
    last = tiles.width(schedule.form.phases[0]) // nr - 1
    further, back = (k * (last + 1) - steps) * nr, (k * last - steps) * nr
    assert bool(re.search(rf"min\*{further}.* - {back}\)", text)) == asks


def test_last_rows_ask_for_such_weights_where_they_are_the_only_ones():
    """As many rows as come with the call; not behind others, which have asked for the next panel."""
    graph = traced(nn.Conv2d(128, 3, stride=2, padding=1), False, {"x": gc.f32["B", 256, 4, 4]}).graph
    loops = Compilation(open_graph(graph, {})[0], target=AVX512).text("loops")
    calls = re.findall(r"(if v\d+|else):\s+call any_\w*_b64(_ahead16)?\(", loops)
    assert ("else", "_ahead16") not in calls and ("else", "") in calls and any(ahead for _, ahead in calls)


def test_gates_ask_for_what_is_added_to_their_sums():
    """For each row of a register tile, before its sums, a line of each vector of columns; nobody else in the kernel
    asks for anything.
    """
    loops = Compilation(gc.compile(nn.LSTM(512), x=gc.f32[8, 32, 512], seed=0).graph, target=AVX512).text("loops")
    kernel = next(k for k in loops.split("\n\n") if "sigmoid" in k and "call tile_f32_8x32" in k)
    asked = re.findall(r"prefetch (\w+)\[(.*)\] to L2", kernel[:kernel.index("call tile")])
    assert [view for view, _ in asked] == ["in2"] * 2 and kernel.count("prefetch") == 2
    assert "load in2" in kernel[kernel.index("call tile"):] and all("*512" in index for _, index in asked)


def test_parts_of_a_sum_ask_for_the_next_part_of_their_panel():
    """Which the same thread reads next, and which lies behind it in memory."""
    b = Builder()
    b.matmul(b.input("x", f32[48, 4608]), b.input("w", f32[4608, 512]))
    ins, outs = (tuple(ViewType(v.type.dtype, v.type.shape, contiguous_strides(v.type.shape)) for v in values)
                 for values in (b.nodes[0].inputs, b.nodes[0].outputs))
    schedule = schedule_node(b.nodes[0], ins, outs, AVX512, (False, True))
    tiles, = schedule.phases
    assert tiles.splits > 1 and tiles.width(schedule.form.phases[0]) == tiles.blocking.nr
    calls = [line for line in print_function(lower(KernelRequest(b.nodes[0], ins, outs, schedule, AVX512))).splitlines()
             if "call" in line]
    assert calls and all(line.endswith(f" + {tiles.blocking.kc.length((4608,)) * tiles.blocking.nr})")
                         for line in calls), calls


def kernel(a: RowLayout, b: ColumnLayout) -> str:
    return print_function(micro_kernel(MicroKernelSpec(ProductTypes(f32, f32, f32), MicroTileShape(6, 2, 8), a, b)))


def test_the_micro_kernel_asks_line_after_line():
    text = kernel(RowLayout(1, scattered=True), ColumnLayout(16, prefetch_lines=3))
    assert text.count("to L2") == 3 and text.count("fma") == 12
    many = kernel(RowLayout(1, scattered=True), ColumnLayout(16, prefetch_lines=8))
    assert many.count("to L2") == 2 and many.count("fma") == 12


def test_the_micro_kernel_packs_what_it_reads():
    """Row i of step k, which lies where the row begins, at k * 6 + i."""
    text = kernel(RowLayout(100, scattered=True, packs=6), ColumnLayout(16))
    pairs = re.findall(r"(v\d+): f32 = load a\[row(\d) \+ (\w)\*100\]\s+store kept\[(\w)\*6(?: \+ (\d))?\] = (v\d+)",
                       text)
    assert [(int(row), int(at or 0)) for _, row, _, _, at, _ in pairs] == [(i, i) for i in range(6)]
    assert all(loaded == stored and k == place for loaded, _, k, place, _, stored in pairs)


@pytest.mark.parametrize("rows, target, asks", [(4096, AVX512, True), (64, AVX512, False), (4096, AVX512_AMX, False)])
def test_epilogues_ask_for_what_they_read_and_write_where_l2_cannot_hold_it(rows, target, asks):
    """Before the sums of a register tile, once for each line of its rows: of the residual, of the results, and half as
    often of those that are rounded to bf16; not of the bias, which is the same for all rows."""
    @gc.graph
    def f(x: gc.bf16[rows, 256], w: gc.bf16[256, 512], bias: gc.f32[512], r: gc.f32[rows, 512]):
        y = gc.relu(gc.matmul(x, w, dtype=gc.f32) + bias + r)
        return y, y.astype(gc.bf16)
    loops = Compilation(gc.compile(f, compute="bf16").graph, target=target).text("loops")
    kernel = next(k for k in loops.split("\n\n") if "prefetch" in k and "max" in k) if asks else loops
    found = re.findall(r"prefetch (\w+)\[", kernel)
    assert sorted(found) == ["in3"] * 4 + ["out0"] * 4 + ["out1"] * 2 if asks else "out0" not in found


def test_epilogues_ask_with_the_last_part_of_their_sums():
    @gc.graph
    def f(x: gc.f32[2048, 8192], w: gc.f32[8192, 1024], r: gc.f32[2048, 1024]):
        return gc.relu(x @ w + r)
    loops = Compilation(gc.compile(f).graph, target=AVX512).text("loops")
    kernel = next(k for k in loops.split("\n\n") if "prefetch out0" in k)
    assert re.search(r"if v\d+:\n[^\n]* = min[^\n]*\n\s+for [^\n]*\n\s+prefetch in2", kernel[:kernel.index("call tile")])


@pytest.mark.parametrize("side, asks", [(56, True), (12, False)])
@pytest.mark.parametrize("channels_last", [True, False])
def test_winograd_tiles_ask_for_the_next_ones_of_images_that_l2_cannot_hold(side, asks, channels_last):
    """One line for each 16 channels of each new pixel of a tile; not of planes, whose lines hold pixels of several."""
    b = Builder()
    x, g = (b.input(n, f32[4, 64, side, side]) for n in "xg")
    b.apply(WinogradWeightGrad(4, ((1, 1), (1, 1))), (x, g))
    text = lowered(b.nodes[-1], {4: (0, 2, 3, 1)} if channels_last else None)
    found = re.findall(r"prefetch (\w+)\[", text)
    assert found == (["in0"] * 4 + ["in1"] * 4 if asks and channels_last else [])
