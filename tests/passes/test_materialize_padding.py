"""Images of convolutions are made in the middle of their frame of zeros."""
from __future__ import annotations

import numpy as np
import pytest

from graphc.bf16_products import Bf16Products
from graphc.compiled import CompiledGraph
from graphc.ir.builder import Builder
from graphc.ir.interp import evaluate
from graphc.ir.ops.conv import Conv, ConvWeightGrad
from graphc.ir.ops.elementwise import Cast
from graphc.ir.ops.packed import PackPair
from graphc.ir.ops.shape import Pad
from graphc.ir.printer import print_graph
from graphc.ir.types import f32
from graphc.memory.planner import plan_memory
from graphc.passes.cse import EliminateCommonSubexpressions
from graphc.passes.dce import EliminateDeadCode
from graphc.passes.layout import storage_orders
from graphc.passes.materialize_padding import MaterializePadding
from graphc.passes.pack_factors import PackFactors
from graphc.schedule.target import AVX2, AVX512_BF16

SAME = {"padding": ((1, 1), (1, 1))}


def step(n, c, f, h, w, kernel, **shared):
    """A convolution of a computed image, and both gradients for a computed one."""
    b = Builder()
    x, weight = b.input("x", f32[n, c, h, w]), b.input("w", f32[f, c // shared.get("groups", 1), *kernel])
    image = b.tanh(x)
    y = b.conv2d(image, weight, **shared)
    g = b.sin(b.input("g", y.type))
    dx = b.conv2d_input_grad(weight, g, x_shape=x.type.shape, **shared)
    return b.finish([y, dx, b.conv2d_weight_grad(image, g, w_shape=weight.type.shape, **shared)], ("y", "dx", "dw"))


def pads(graph):
    return [n for n in graph.nodes if isinstance(n.op, Pad)]


def test_text():
    assert print_graph(MaterializePadding().run(step(1, 8, 8, 9, 9, (3, 3), stride=(2, 2), groups=8, **SAME))) == """\
graph graph(x: f32[1, 8, 9, 9], w: f32[8, 1, 3, 3], g: f32[1, 8, 5, 5]) {
  %0 = tanh(x) : f32[1, 8, 9, 9]
  %1 = pad(%0) {low=(0, 0, 1, 1), high=(0, 0, 1, 1)} : f32[1, 8, 11, 11]
  %2 = conv2d(%1, w) {stride=(2, 2), groups=8} : f32[1, 8, 5, 5]
  %3 = sin(g) : f32[1, 8, 5, 5]
  %4 = conv2d_input_grad(w, %3) {stride=(2, 2), padding=((1, 1), (1, 1)), groups=8, x_shape=(1, 8, 9, 9)} : f32[1, 8, 9, 9]
  %5 = conv2d_weight_grad(%1, %3) {stride=(2, 2), groups=8, w_shape=(8, 1, 3, 3)} : f32[8, 1, 3, 3]
  return {y: %2, dx: %4, dw: %5}
}"""


def image_and(build):
    """A graph with an image made by an elementwise operator, and what `build` makes of it."""
    b = Builder()
    outputs = build(b, b.exp(b.input("x", f32[1, 8, 9, 9])), b.input("w", f32[8, 8, 3, 3]))
    return b.finish(outputs, ("",) * len(outputs))


REFUSED = {
    "an input": lambda b, x, w: [b.conv2d(b.input("y", f32[1, 8, 9, 9]), w, **SAME)],
    "a result": lambda b, x, w: [x, b.conv2d(x, w, **SAME)],
    "no padding": lambda b, x, w: [b.conv2d(x, w)],
    "a kernel of its own kind": lambda b, x, w: [b.conv2d(b.max_pool2d(x, kernel=(2, 2), stride=(1, 1)), w, **SAME)],
}


@pytest.mark.parametrize("case", REFUSED)
def test_images_that_lie_elsewhere_are_left_alone(case):
    graph = image_and(REFUSED[case])
    assert MaterializePadding().run(graph) is graph


@pytest.mark.parametrize("stride", [1, 2])
def test_images_of_pairs_are_padded_where_they_are_rounded(stride):
    """Before their numbers are read two at a time, along channels or along the batch; the gradient towards the image reads its own."""
    rounded = Bf16Products(AVX512_BF16).whole(step(4, 8, 8, 9, 9, (3, 3), stride=(stride, stride), **SAME))
    after = MaterializePadding().run(EliminateDeadCode().run(PackFactors(AVX512_BF16).run(rounded)))
    assert sorted(str(n.inputs[0].type.dtype) for n in pads(after)) == ["bf16"] * (2 if stride == 1 else 1) + ["bf16x2"]
    assert [n.op.padding for n in after.nodes if type(n.op) in (Conv.at(2), ConvWeightGrad.at(2))] == [((0, 0), (0, 0))] * 2
    assert all(isinstance(n.inputs[0].node.op, Cast | PackPair) for n in pads(after))


def test_an_image_has_one_frame():
    wider = {"padding": ((2, 2), (2, 2)), "dilation": (2, 2)}
    after = MaterializePadding().run(image_and(lambda b, x, w: [b.conv2d(x, w, **SAME), b.conv2d(x, w, **wider)]))
    assert len(pads(after)) == 1 and after.nodes[-1].op.padding == wider["padding"]


CASES = [  # batch, channels, features, height, width, kernel, attributes
    (2, 3, 5, 8, 9, (3, 3), SAME),
    (1, 16, 24, 13, 7, (3, 3), {"stride": (2, 2), **SAME}),
    (2, 67, 67, 5, 33, (3, 3), {"groups": 67, **SAME}),
    (2, 128, 128, 14, 11, (3, 3), {"groups": 128, **SAME}),
    (2, 128, 256, 10, 9, (3, 3), {"groups": 128, "stride": (2, 1), **SAME}),
    (1, 12, 6, 11, 17, (5, 2), {"padding": ((4, 1), (0, 2)), "dilation": (2, 1), "groups": 3, "stride": (1, 3)}),
    (3, 8, 8, 6, 6, (1, 1), {"padding": ((2, 0), (1, 3)), "stride": (3, 2)}),
    (1, 1, 1, 5, 5, (5, 5), {"padding": ((4, 4), (4, 4))}),
    (2, 256, 256, 7, 7, (3, 3), {"groups": 256, "padding": ((0, 2), (1, 0))}),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values(case):
    *sizes, shared = case
    graph = step(*sizes, **shared)
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(v.type.shape, np.float32) for v in graph.inputs]
    wanted, framed = evaluate(graph, arrays), evaluate(MaterializePadding().run(graph), arrays)
    for a, b in zip(wanted, framed):
        np.testing.assert_array_equal(a, b)
    run = CompiledGraph(graph)
    for _ in range(2):                                  # memory is not fresh any more
        for got, want in zip(run(*arrays).values(), wanted):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * np.abs(want).max())
    assert "pad" in run.dump("planned")


@pytest.mark.parametrize("channels, step", [(128, 144), (64, 64)])
def test_images_read_side_by_side_lie_a_line_further_apart(channels, step):
    b = Builder()
    x, w = b.exp(b.input("x", f32[2, channels, 9, 9])), b.input("w", f32[channels, 1, 3, 3])
    y = b.exp(b.conv2d(x, w, groups=channels, **SAME))
    graph = EliminateCommonSubexpressions().run(MaterializePadding().run(b.finish([b.sum(y, axes=(0, 2, 3))])))
    plan = plan_memory(graph, AVX2, orders=storage_orders(graph, AVX2)).main
    pad, = pads(plan.graph)
    inside, whole = plan.places[pad.inputs[0]], plan.places[pad.outputs[0]]
    assert plan.borders[pad.inputs[0]] is pad and pad not in plan.schedules and inside.buffer is whole.buffer
    assert whole.strides == inside.strides == (11 * 11 * step, 1, 11 * step, step)
    assert inside.offset == 12 * step and whole.buffer.nbytes == 4 * 2 * 11 * 11 * step
