"""Storage orders of images, and the copies that pooling wants."""
from __future__ import annotations

import pytest

from graphc.compiler import Compilation
from graphc.ir.builder import Builder
from graphc.ir.ops.winograd import WinogradConv2d
from graphc.ir.printer import print_graph
from graphc.ir.types import f32
from graphc.passes.layout import ArrangeImages, storage_orders
from graphc.passes.pipeline import apply
from graphc.schedule.target import AVX2, AVX512
from graphc.stages import FusedGraphs

POOL = {"kernel": (2, 2), "stride": (2, 2)}


def test_pooling_of_an_argument_or_of_a_view_is_copied_once():
    b = Builder()
    x, flat = b.input("x", f32[2, 8, 4, 4]), b.input("flat", f32[2, 32])
    dy = b.reshape(b.exp(flat), shape=(2, 8, 2, 2))
    graph = b.finish([b.max_pool2d_grad(x, dy, **POOL), b.max_pool2d(x, **POOL)], ("", ""))
    after = ArrangeImages(AVX2).run(graph)
    assert print_graph(after) == """\
graph graph(x: f32[2, 8, 4, 4], flat: f32[2, 32]) {
  %0 = exp(flat) : f32[2, 32]
  %1 = reshape(%0) {shape=(2, 8, 2, 2)} : f32[2, 8, 2, 2]
  %2 = copy(x) : f32[2, 8, 4, 4]
  %3 = copy(%1) : f32[2, 8, 2, 2]
  %4 = max_pool2d_grad(%2, %3) {kernel=(2, 2), stride=(2, 2)} : f32[2, 8, 4, 4]
  %5 = max_pool2d(%2) {kernel=(2, 2), stride=(2, 2)} : f32[2, 8, 2, 2]
  return (%4, %5)
}"""
    orders = storage_orders(after, AVX2)
    assert all(orders[v] == (0, 2, 3, 1) for node in after.nodes[2:] for v in node.outputs)


def test_what_a_kernel_computes_is_stored_as_pooling_wants_it():
    b = Builder()
    graph = b.finish([b.max_pool2d(b.exp(b.input("x", f32[2, 8, 4, 4])), **POOL)])
    assert ArrangeImages(AVX2).run(graph) is graph


def test_convolutions_read_any_order():
    b = Builder()
    graph = b.finish([b.conv2d(b.input("x", f32[2, 8, 4, 4]), b.input("w", f32[4, 8, 3, 3]))])
    assert ArrangeImages(AVX2).run(graph) is graph


def attended(build):
    """The storage order of what attention gives to `build`."""
    b = Builder()
    out, lse = b.attention(*(b.input(n, f32[2, 6, 16, 8]) for n in "qkv"))
    outputs = build(b, out, lse)
    return storage_orders(b.finish(outputs, ("",) * len(outputs)), AVX2).get(out)


def side_by_side(b, out):
    return b.reshape(b.transpose(out, perm=(0, 2, 1, 3)), shape=(2, 16, 48))


def test_heads_are_stored_side_by_side_where_they_are_read_so():
    assert attended(lambda b, out, lse: [side_by_side(b, out)]) == (0, 2, 1, 3)
    gradient = lambda b, out, lse: b.attention_grad(*(b.input(n, out.type) for n in "abc"), out, lse, b.input("g", out.type))
    assert attended(lambda b, out, lse: [side_by_side(b, out), *gradient(b, out, lse)]) == (0, 2, 1, 3)
    for other in (lambda b, out: b.exp(out), lambda b, out: out, lambda b, out: b.transpose(out, perm=(0, 1, 3, 2))):
        assert attended(lambda b, out, lse: [side_by_side(b, out), other(b, out)]) is None
    assert attended(lambda b, out, lse: [b.transpose(out, perm=(0, 1, 3, 2))]) is None


def gradient_towards(channels: int, size: int = 32):
    """The storage order of the gradient with respect to an image of so many channels of a convolution's."""
    b = Builder()
    dy = b.input("dy", f32[2, 64, size, size])
    dx = b.conv2d_input_grad(b.input("w", f32[64, channels, 3, 3]), dy, x_shape=(2, channels, size, size),
                             stride=(1, 1), padding=((1, 1), (1, 1)))
    return [storage_orders(b.finish([dx]), target).get(dx) for target in (AVX2, AVX512)]


def test_images_of_few_channels_lie_as_convolutions_compute_them_fastest():
    """Vectors along a row of pixels are full where those along three channels are not."""
    assert gradient_towards(3) == [None, None]
    assert gradient_towards(8) == [(0, 2, 3, 1), None]          # a vector of AVX2 has eight


def given(channels: int, size: int, groups: int = 1, stride: int = 1, owned: bool = True):
    """The storage order of a convolution's 64 features, which go to the graph's owner, or to a function before."""
    b = Builder()
    y = b.conv2d(b.input("x", f32[8, channels, size, size]), b.input("w", f32[64, channels // groups, 1, 1]),
                 groups=groups, stride=(stride, stride))
    return storage_orders(b.finish([y if owned else b.sum(b.exp(y), axes=(1, 2, 3))]), AVX512).get(y)


def test_images_for_the_owner_are_not_turned_where_kernels_need_not_turn_them():
    """A product by positions stores rows of pixels as well as rows of channels; every second pixel takes two loads."""
    assert given(1, 48) is None and given(64, 56) is None
    assert given(64, 56, owned=False) == (0, 2, 3, 1)
    assert given(64, 20, groups=64, stride=2) is None


@pytest.mark.parametrize("size, copied", [(28, False), (64, True), (32, True), (8, False)])
def test_channels_a_power_of_two_apart_are_copied_for_tiles(size, copied):
    """Lines of 64 channels that are 4096 bytes apart go to one set of the cache."""
    b = Builder()
    y, = b.apply(WinogradConv2d(4, 64, ((1, 1), (1, 1))),
                 (b.input("x", f32[4, 64, size, size]), b.input("u", f32[36, 2, 64, 32])))
    arranged = apply(ArrangeImages(AVX512), b.finish([y]))
    assert (len(arranged.nodes) == 2) == copied


def test_images_of_few_channels_that_pooling_reads_lie_as_pooling_wants_them():
    b = Builder()
    y = b.exp(b.conv2d(b.input("x", f32[2, 64, 32, 32]), b.input("w", f32[3, 64, 3, 3])))
    assert storage_orders(b.finish([b.avg_pool2d(y, **POOL)]), AVX512)[y] == (0, 2, 3, 1)


def fused_orders(b, *outputs, target=AVX512):
    """The graph that kernels are made of, and the storage orders of its values."""
    graph = Compilation(b.finish(outputs, ("",) * len(outputs)), target).stage(FusedGraphs).main
    return graph, storage_orders(graph, target)


def test_images_are_turned_together_or_not_at_all():
    """The result of a depthwise convolution is dear by rows only while the image that it reads lies by channels: where
    nobody else wants it so, neither does."""
    b = Builder()
    x, w = b.input("x", f32[1, 442, 85, 85]), b.input("w", f32[442, 1, 3, 3])
    y = b.conv2d(b.maximum(x, 0), w, groups=442, stride=(3, 3), padding=((1, 1), (1, 1)), dilation=(2, 2))
    _, found = fused_orders(b, y)
    assert not found


@pytest.mark.parametrize("target", (AVX2, AVX512), ids=lambda t: t.name)
def test_what_was_turned_as_the_source_of_others_is_not_turned_again(target):
    b = Builder()
    x, w, dy = b.input("x", f32[9, 92, 57]), b.input("w", f32[92, 1, 2]), b.input("dy", f32[9, 92, 19])
    h, how = b.maximum(x, 0), {"groups": 92, "stride": (3,)}
    zero = b.constant(0.0, f32)
    dw = b.conv1d_weight_grad(h, dy, w_shape=w.type.shape, **how)
    dx = b.where(b.le(h, zero), zero, b.conv1d_input_grad(w, dy, x_shape=x.type.shape, **how))
    outputs = b.conv1d(h, w, **how), dx, dw
    graph, orders = fused_orders(b, *outputs, target=target)
    assert len({orders.get(v) for node in graph.nodes for v in node.outputs if v.type == x.type}) == 1


def computed(features: int, groups: int = 1):
    """The storage order of a computed image of 64 channels in each group, from which a convolution makes so many."""
    b = Builder()
    h = b.exp(b.input("x", f32[2, 64 * groups, 32, 32]))
    y = b.conv2d(h, b.input("w", f32[features * groups, 64, 3, 3]), groups=groups, padding=((1, 1), (1, 1)))
    graph, orders = fused_orders(b, y)
    return orders.get(graph.nodes[0].outputs[0])


def test_images_of_which_few_channels_are_made_may_lie_in_rows():
    """Runs of pixels are then read as they lie; in each group, too."""
    assert computed(4) is computed(2, groups=8) is None
    assert computed(64) == (0, 2, 3, 1)


def test_what_other_images_have_become_is_counted():
    """While the features of a product by positions lie in rows of channels, so does the gradient that reads them; once
    they lie as their owner wants them, it reads rows of pixels, and gives them."""
    b = Builder()
    x, w, dy = b.input("x", f32[1, 22, 1, 3029]), b.input("w", f32[538, 22, 1, 1]), b.input("dy", f32[1, 538, 1, 3029])
    image = b.exp(x)
    y = b.conv2d(image, w)
    dx = b.mul(b.conv2d_input_grad(w, b.mul(y, dy), x_shape=x.type.shape), image)
    graph, orders = fused_orders(b, y, dx)
    assert not any(v in orders for node in graph.nodes for v in node.outputs), graph


def test_gradients_of_strided_products_are_costed():
    """Between the positions that have windows they are zeros."""
    b = Builder()
    w, dy = b.input("w", f32[96, 64, 1, 1]), b.input("dy", f32[4, 96, 40, 40])
    dx = b.conv2d_input_grad(w, dy, x_shape=(4, 64, 79, 79), stride=(2, 2))
    assert storage_orders(b.finish([dx]), AVX512).get(dx) is None
