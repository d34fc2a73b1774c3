"""Which convolutions take Winograd's form, and what the graph is then."""
from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest

from graphc.compiler import Compilation
from graphc.config import Config
from graphc.ir.builder import Builder
from graphc.ir.dims import size_name
from graphc.ir.graph import Graph
from graphc.ir.interp import evaluate
from graphc.ir.open import open_graph
from graphc.ir.ops.conv import Conv, ConvInputGrad, ConvWeightGrad
from graphc.ir.ops.winograd import WinogradConv2d, WinogradWeightGrad, WinogradWeights
from graphc.ir.printer import print_graph
from graphc.ir.types import f32, f64
from graphc.passes.precompute import split_derived
from graphc.passes.winograd import Winograd
from graphc.schedule.choose_winograd import panel_width
from graphc.schedule.target import AVX2, AVX512, NEON, SSE2
from graphc.shard_tree import additions

SAME = ((1, 1), (1, 1))


def _graph(image=(1, 64, 56, 56), features=64, kernel=(3, 3), dtype=f32, lasting=True, **attributes) -> Graph:
    b = Builder()
    groups = attributes.get("groups", 1)
    w = dtype[features, image[1] // groups, *kernel]
    x, w = b.input("x", dtype[image]), b.state_input("w", w) if lasting else b.input("w", w)
    return b.finish([b.apply(Conv.at(2)(**{"padding": SAME, **attributes}), (x, w))[0]])


def _tile(graph: Graph, target=AVX2) -> int:
    """The tile's size; 0: the direct algorithm."""
    found = [n.op.tile for n in Winograd(target).run(graph).nodes if n.op.name == "winograd_conv2d"]
    return found[0] if found else 0


def test_text():
    after = Winograd(AVX2).run(_graph())
    assert print_graph(split_derived(after).main) == """\
graph graph(x: f32[1, 64, 56, 56]) state(w: f32[64, 64, 3, 3], "derived.0": f32[36, 4, 64, 16]) {
  %0 = winograd_conv2d(x, "derived.0") {tile=4, features=64, padding=((1, 1), (1, 1))} : f32[1, 64, 56, 56]
  return %0
}"""


def test_gradient_towards_the_image():
    b = Builder()
    w, dy = b.input("w", f32[48, 40, 3, 3]), b.input("dy", f32[2, 48, 17, 12])
    op = ConvInputGrad.at(2)(padding=((0, 1), (2, 1)), x_shape=(2, 40, 18, 11))
    graph = b.finish([b.apply(op, (w, dy))[0]])
    after = Winograd(AVX2).run(graph)
    assert [n.op.name for n in after.nodes] == ["winograd_weights", "winograd_conv2d"]
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=v.type.shape).astype("f") for v in graph.inputs]
    (direct,), (ours,) = evaluate(graph, arrays), evaluate(after, arrays)
    np.testing.assert_allclose(ours, direct, rtol=0, atol=2e-4)


def test_gradient_towards_kernels():
    b = Builder()
    x, dy = b.input("x", f32[2, 40, 18, 11]), b.input("dy", f32[2, 48, 17, 12])
    graph = b.finish([b.apply(ConvWeightGrad.at(2)(padding=((0, 1), (2, 1)), w_shape=(48, 40, 3, 3)), (x, dy))[0]])
    after = Winograd(AVX2).run(graph)
    assert [n.op.name for n in after.nodes] == ["winograd_weight_grad"]
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=v.type.shape).astype("f") for v in graph.inputs]
    (direct,), (ours,) = evaluate(graph, arrays), evaluate(after, arrays)
    np.testing.assert_allclose(ours, direct, rtol=0, atol=4e-4)


def test_weights_of_two_convolutions_are_transformed_once():
    b = Builder()
    x, w = b.input("x", f32[1, 64, 28, 28]), b.state_input("w", f32[64, 64, 3, 3])
    y = b.conv2d(b.conv2d(x, w, padding=SAME), w, padding=SAME)
    names = [n.op.name for n in Winograd(AVX2).run(b.finish([y])).nodes]
    assert sorted(names) == ["winograd_conv2d", "winograd_conv2d", "winograd_weights"]


@pytest.mark.parametrize("attributes", [
    {"stride": (2, 2)}, {"dilation": (2, 2), "padding": ((2, 2), (2, 2))}, {"groups": 2}, {"kernel": (3, 5)},
    {"kernel": (1, 1)}, {"dtype": f64},
    {"image": (1, 3, 56, 56)}, {"features": 3}, {"image": (0, 64, 56, 56)}], ids=str)
def test_others_stay(attributes):
    graph = _graph(**attributes)
    assert Winograd(AVX2).run(graph) is graph


def test_gradients_with_more_padding_than_a_kernel_stay():
    b = Builder()
    w, dy = b.input("w", f32[64, 64, 3, 3]), b.input("dy", f32[1, 64, 60, 60])
    graph = b.finish([b.apply(ConvInputGrad.at(2)(padding=((3, 3), (3, 3)), x_shape=(1, 64, 56, 56)), (w, dy))[0]])
    assert Winograd(AVX2).run(graph) is graph


@pytest.mark.parametrize("target", [AVX2, AVX512, NEON, SSE2], ids=lambda t: t.name)
def test_large_tiles_where_weights_are_used_often(target):
    assert _tile(_graph((16, 128, 28, 28), 128), target) == 4
    # one look at weights that must be transformed first
    assert _tile(_graph((1, 512, 4, 4), 512, lasting=False), target) == 0


def test_direct_where_a_few_tiles_read_many_weights():
    """Whatever the size of a cache that others use, too."""
    shared = replace(AVX512, machine=replace(AVX512.machine, l3_bytes=300 << 20))
    assert _tile(_graph((1, 512, 7, 7), 512), shared) == 0


def test_captured_weights_last():
    b, rng = Builder(), np.random.default_rng(0)
    w = b.constant(rng.standard_normal((64, 64, 3, 3), np.float32))
    assert _tile(b.finish([b.conv2d(b.input("x", f32[1, 64, 7, 7]), w, padding=SAME)])) == (
        _tile(_graph((1, 64, 7, 7)))) > 0


def test_of_any_number_of_images_neither_one_nor_many_lose_most():
    """One image is best computed directly, many by large tiles."""
    graph, _ = open_graph(_graph((size_name("B"), 256, 7, 7), 256), {})
    assert _tile(graph, AVX512) == 2


@pytest.mark.parametrize("target", [AVX2, AVX512, NEON, SSE2], ids=lambda t: t.name)
@pytest.mark.parametrize("shape", [(2, 65, 14, 9), (16, 64, 30, 30)], ids=str)
def test_every_target_lowers(target, shape):
    """Loops are verified on the way. Vectors are whole registers, and the transforms are functions that convolutions
    share.
    """
    text = Compilation(_graph(shape, 37), target).llvm
    assert "winograd_bt_" in text and "winograd_at_" in text and f"<{target.lanes(4)} x float>" in text


@pytest.mark.parametrize("target", [AVX2, AVX512, NEON, SSE2], ids=lambda t: t.name)
def test_every_target_lowers_the_gradient(target):
    b = Builder()
    x, dy = b.input("x", f32[16, 64, 30, 30]), b.input("dy", f32[16, 37, 30, 30])
    text = Compilation(b.finish([b.apply(ConvWeightGrad.at(2)(padding=SAME, w_shape=(37, 64, 3, 3)), (x, dy))[0]]),
                       target).llvm
    assert "winograd_a_" in text and "winograd_gt_" in text and f"<{target.lanes(4)} x float>" in text


def test_equal_convolutions_share_their_kernels():
    b = Builder()
    y = b.input("x", f32[1, 64, 28, 28])
    for i in range(3):
        y = b.conv2d(y, b.state_input(f"w{i}", f32[64, 64, 3, 3]), padding=SAME)
    names = [f.name for f in Compilation(b.finish([y]), AVX2).loops.kernels]
    assert len([n for n in names if "conv2d" in n]) <= 2          # the last one stores the output as NCHW


def test_direct_when_asked_for():
    ops = {knob: [n.op.name for n in Compilation(_graph(), AVX2, knob).simplified.nodes]
           for knob in (Config(), Config(winograd=False), Config(check_nan=True))}
    assert list(ops.values()) == [["winograd_weights", "winograd_conv2d"], ["conv2d"], ["conv2d"]]


def test_large_batches_need_no_large_scratch():
    """Transformed tiles of a whole batch are kept only while the shared cache can hold them. Besides there are image and
    result, channels last."""
    few, many = (Compilation(_graph((n, 256, 28, 28), 256), AVX2).memory for n in (1, 64))
    assert few.arena > 2 * few.outputs and many.arena <= 2 * many.outputs


def test_parts_of_the_tiles_are_worth_what_they_cost():
    """Each part makes and writes all kernels: the more there are of these, the fewer parts."""
    def schedule(channels: int, size: int) -> str:
        b = Builder()
        x, dy = (b.input(name, f32[4, channels, size, size]) for name in ("x", "dy"))
        return Compilation(b.finish(b.apply(WinogradWeightGrad(4, SAME), (x, dy))), AVX512).text("planned")
    assert "split 17" in schedule(64, 56) and "split 3" in schedule(128, 28)
    assert "split" not in schedule(256, 14) and "streamed" not in schedule(256, 14)
    assert "streamed" in schedule(1024, 7)


@pytest.mark.parametrize("seed", range(12))
def test_loops_of_any_shape_verify(seed):
    """Every access is proved to be inside, on every target: blocks, groups and vectors that are not whole."""
    r = Random(seed)
    target, m = r.choice([AVX2, AVX512, NEON, SSE2]), r.choice([2, 4])
    n, c, f = r.choice((1, 2, 16)), r.choice((1, 7, 31, 64, 67, 129, 600)), r.choice((1, 17, 48, 65, 70, 130, 257))
    size = r.randint(5, 33), r.randint(5, 33)
    padding = tuple((r.randint(0, 2), r.randint(0, 2)) for _ in size)
    out = tuple(s + sum(p) - 2 for s, p in zip(size, padding))
    tiles = n * -(-out[0] // m) * -(-out[1] // m)
    b = Builder()
    x, dy, w = b.input("x", f32[n, c, *size]), b.input("dy", f32[n, f, *out]), b.input("w", f32[f, c, 3, 3])
    u, = b.apply(WinogradWeights(m, panel_width(tiles, f, f32, target)), (w,))
    results = [*b.apply(WinogradConv2d(m, f, padding), (x, u)),
               *b.apply(WinogradWeightGrad(m, padding, additions(0, r.choice((1, n)))), (x, dy))]
    assert len(Compilation(b.finish(results, ("", "")), target).loops.kernels) >= 3
