"""Gradients of convolutions with strides in one program for all lengths, heights and widths. Every residue class of the
positions is a product of its own, and has elements from the least sizes of the program on."""
import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim
from graphc.ir.builder import bind_graph
from graphc.ir.interp import evaluate

IMAGE, SEQUENCE = ("B", 3, "H", "W"), ("B", 3, "T")
# of the second convolution stride, padding, groups and kernel; the image; its sizes
CASES = {
    "2d": (2, 1, 1, 3, IMAGE, ((1, 3, 3), (2, 17, 8))),
    "2d of points, with groups": (2, 0, 4, 1, IMAGE, ((1, 7, 7), (2, 16, 9))),
    "1d": (2, 2, 1, 5, SEQUENCE, ((1, 3), (2, 40), (5, 17))),
    "1d by threes": (3, 1, 1, 4, SEQUENCE, ((2, 40), (5, 18), (1, 25))),
}


def gradients(stride, padding, groups, kernel, image):
    """Of two convolutions, the first with stride 2, towards image and kernels."""
    rank = len(image) - 2
    conv = {1: gc.conv1d, 2: gc.conv2d}[rank]

    @gc.graph
    def total(x: gc.f64[image], w: gc.f64[(4, 3, *(3,) * rank)], v: gc.f64[(4, 4 // groups, *(kernel,) * rank)]):
        y = gc.tanh(conv(x, w, stride=2, padding=1))
        return gc.sum(gc.sin(conv(y, v, stride=stride, padding=padding, groups=groups)))
    return gc.grad(total, wrt=("x", "w", "v"))


@pytest.mark.parametrize("name", CASES)
def test_one_program_gives_what_the_reference_gives(name):
    *how, image, sizes = CASES[name]
    run, rng = gc.compile(gradients(*how, image), threads=1), np.random.default_rng(0)
    assert run.sized, run.why_not
    for found in sizes:
        bound = dict(zip((n for n in image if isinstance(n, str)), found))
        assert run.sized.serves(bound)
        graph = bind_graph(run.graph, bound)
        arrays = [rng.standard_normal(v.type.shape) for v in graph.inputs]
        for got, wanted in zip(run(*arrays), evaluate(graph, arrays), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-10)


def test_smaller_images_have_programs_of_their_own():
    """Of an image of which a convolution reads one row there is no second residue class."""
    run, rng = gc.compile(gradients(*CASES["1d"][:4], SEQUENCE), threads=1), np.random.default_rng(0)
    assert run.sized and run.sized.bounds["T"].low == 3
    arrays = [rng.standard_normal(shape) for shape in ((2, 3, 1), (4, 3, 3), (4, 4, 5))]
    for got, wanted in zip(run(*arrays), evaluate(bind_graph(run.graph, {"B": 2, "T": 1}), arrays), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-10)


def test_norms_of_few_numbers_too():
    """Of height, width and batch together one is at least so large that there are two numbers."""
    net = nn.Conv2d(4, 3, stride=2, padding=1) >> nn.BatchNorm2d() >> nn.GlobalAvgPool2d() >> nn.Linear(3)

    def step(x, y):
        return gc.train_step(net, loss=nn.cross_entropy, optimizer=optim.SGD(0.1), x=x, y=y, seed=0, threads=1)
    together, rng = step(gc.f32["B", 3, "H", "W"], gc.i32["B"]), np.random.default_rng(0)
    assert together._programs.sized, together._programs.why_not
    for b, h, w in ((1, 9, 6), (3, 4, 7)):
        x, y = rng.standard_normal((b, 3, h, w)).astype(np.float32), rng.integers(0, 3, b).astype(np.int32)
        alone = step(gc.f32[x.shape], gc.i32[b])
        for name in alone.state:
            alone.state[name] = together.state[name]
        np.testing.assert_allclose(together(x, y), alone(x, y), rtol=1e-6)
        for name in alone.state:
            np.testing.assert_allclose(together.state[name], alone.state[name], rtol=1e-5, atol=1e-6)
