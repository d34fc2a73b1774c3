"""Networks of images whose number, height and width come with the call: strides, pools, Winograd's form."""
from __future__ import annotations

import re

import numpy as np
import pytest

import graphc as gc
from graphc import nn
from graphc.models.resnet import BasicBlock

RTOL = 2e-5                 # of the largest result: programs for one size may choose another form


def strided():
    return nn.Conv2d(8, 5, stride=3, padding=2) >> nn.relu >> nn.Conv2d(8, 3, stride=2, padding=1)


def pools():
    return nn.Conv2d(8, 3, padding=1) >> nn.MaxPool2d(3, 2, 1) >> nn.AvgPool2d(2)


def residual():
    return (nn.Conv2d(16, 3, stride=2, padding=1) >> nn.BatchNorm2d() >> nn.relu >> nn.MaxPool2d(3, 2, 1)
            >> BasicBlock(16, 1) >> BasicBlock(32, 2) >> nn.GlobalAvgPool2d() >> nn.Linear(5))


def halved():
    """Rows of the last convolution are positions of one image, whose number is a product of two rounded sizes."""
    first, second, third = (nn.Conv2d(features, 3, stride=2, padding=1) for features in (64, 64, 128))
    return first >> second >> third


def winograd():
    return nn.Conv2d(16, 3, padding=1) >> nn.relu >> nn.Conv2d(128, 3) >> nn.relu


def wide():
    """Weights that all positions of an image share: few positions are divided among cores, too."""
    return nn.Conv2d(96, 1) >> nn.relu >> nn.Conv2d(384, 1) >> nn.relu


def u_net():
    down, up = nn.Conv2d(16, 3, padding=1) >> nn.relu, nn.ConvTranspose2d(8, 2, stride=2)
    deep, last = nn.Conv2d(16, 3, padding=1) >> nn.relu, nn.Conv2d(2, 3, padding=1)

    def forward(x):
        y = down(x)
        return last(gc.concat([up(deep(gc.max_pool2d(y, 2))), y], axis=1))
    return forward


SIZES = (1, 16, 16), (3, 9, 21), (2, 33, 18), (1, 40, 7)
CASES = {
    "strided": (strided, gc.f32["B", 3, "H", "W"], SIZES), "pools": (pools, gc.f32["B", 3, "H", "W"], SIZES),
    "residual": (residual, gc.f32["B", 3, "H", "W"], ((1, 32, 32), (2, 45, 61), (3, 64, 33))),
    "one image": (halved, gc.f32[1, 16, "H", "W"], ((1, 16, 16), (1, 33, 18), (1, 40, 7))),
    "wide": (wide, gc.f32["B", 384, "H", "W"], ((1, 8, 10), (1, 1, 1), (1, 1, 63), (2, 3, 5), (1, 21, 40))),
    "winograd": (winograd, gc.f32["B", 16, "H", "W"], SIZES),
    "winograd of a batch": (winograd, gc.f32["B", 16, 14, 14], ((1, 14, 14), (2, 14, 14), (5, 14, 14), (33, 14, 14))),
    "u-net": (u_net, gc.f32["B", 3, "2*H", "2*W"], ((1, 8, 8), (2, 6, 20), (1, 34, 18))),
}


@pytest.mark.parametrize("name", CASES)
def test_one_program_serves_all_sizes(name):
    make, type, sizes = CASES[name]
    net, rng = make(), np.random.default_rng(0)
    run = gc.compile(net, x=type, seed=0)
    assert run.sized, run.why_not
    for batch, height, width in sizes:
        x = rng.standard_normal((batch, type.shape[1], height, width)).astype(np.float32)
        alone = gc.compile(net, x=gc.f32[x.shape], seed=0)(x)
        assert np.abs(run(x) - alone).max() <= RTOL * np.abs(alone).max()


def test_an_image_has_the_same_bits_in_every_batch():
    """Also where few images are divided into smaller blocks than many, and their features into groups."""
    run = gc.compile(winograd(), x=gc.f32["B", 16, 14, 14], seed=0)
    assert run.sized, run.why_not
    few = re.findall(r"(\d+) × (\d+) up to \d+ tiles", run.dump("planned"))
    assert any(int(rows) < 24 for rows, _ in few) and any(int(features) < 128 for _, features in few)
    x = np.random.default_rng(0).standard_normal((50, 16, 14, 14)).astype(np.float32)
    together = run(x)
    for first, count in ((0, 1), (3, 1), (49, 1), (5, 7), (2, 16), (20, 25)):
        np.testing.assert_array_equal(run(x[first:first + count]), together[first:first + count])


def test_images_of_any_number_are_in_winograds_form():
    run = gc.compile(winograd(), x=gc.f32["B", 16, "H", "W"], seed=0)
    assert run.dump("fused").count("winograd_conv2d(") == 2


@pytest.mark.parametrize("step", (2, 3))
def test_slices_with_steps(step):
    run = gc.compile(lambda x: x[::step] * 2, x=gc.f32["B"])
    assert run.sized, run.why_not
    for size in (1, 2, 3, 4, 7, 100):
        x = np.random.default_rng(size).standard_normal(size).astype(np.float32)
        np.testing.assert_array_equal(run(x), x[::step] * 2)


@gc.graph
def of_batches(x: gc.f32["B", 64, 14, 14], w: gc.f32[64, 64, 3, 3], g: gc.f32["B", 64, 14, 14]):
    return gc.sum(gc.conv2d(x, w, padding=1) * g)


@gc.graph
def of_all_sizes(x: gc.f32["B", 64, "H", "W"], w: gc.f32[64, 64, 3, 3], g: gc.f32["B", 64, "H", "W"]):
    return gc.sum(gc.conv2d(x, w, padding=1) * g)


@pytest.mark.parametrize("product, names, sizes", [
    (of_batches, "B", [(1, 14, 14), (3, 14, 14), (40, 14, 14)]),
    (of_all_sizes, "BHW", [(1, 8, 9), (5, 30, 31), (2, 4, 70)])])
def test_gradients_towards_kernels_in_winograds_form(product, names, sizes):
    """The parts of a sum have as many tiles whatever the sizes are: images that count 0 change no bits."""
    rng, gradient = np.random.default_rng(2), gc.grad(product, wrt="w")
    run = gc.compile(gradient)
    assert run.sized, run.why_not
    assert "winograd_weight_grad" in run.dump("fused")
    for shape in sizes:
        w = rng.standard_normal((64, 64, 3, 3)).astype(np.float32)
        x, g = (rng.standard_normal((shape[0], 64, *shape[1:])).astype(np.float32) for _ in range(2))
        alone, found = gc.compile(gradient, **dict(zip(names, shape)))(x, w, g), run(x, w, g)
        assert np.abs(found - alone).max() <= RTOL * np.abs(alone).max()
        more = [np.concatenate([a, np.zeros((2, *a.shape[1:]), np.float32)]) for a in (x, g)]
        np.testing.assert_array_equal(run(more[0], w, more[1]), found)


@pytest.mark.parametrize("stride, kernel, word", ((2, 3, "same"), (3, 2, "same_lower"), *(
    pytest.param(*case, marks=pytest.mark.slow) for case in ((2, 2, "same"), (2, 1, "same"), (3, 5, "same_lower"), (3, 2, "same")))))
def test_same_padding_of_steps_over_open_sizes(stride, kernel, word):
    """What stands around the image depends on its size; results are as large as the size says, whatever made them."""
    def pools(x, w):
        y, z = gc.conv2d(x, w, stride, word), gc.max_pool2d(x, kernel, stride, word)
        return (y + z, gc.avg_pool2d(x, kernel, stride, word), gc.avg_pool2d(x, kernel, stride, word, count_include_pad=False),
                gc.max_pool2d(x.astype(gc.i32), kernel, stride, word))
    w = np.random.default_rng(1).standard_normal((2, 2, kernel, kernel)).astype(np.float32)
    run = gc.compile(pools, x=gc.f32["B", 2, "H", "W"], w=gc.f32[2, 2, kernel, kernel])
    for size in ((1, 2, 7, 6), (2, 2, 9, 11), (1, 2, 8, 5)):
        x = np.random.default_rng(2).standard_normal(size).astype(np.float32) * 3
        for a, b in zip(run(x, w), gc.compile(pools, x=gc.f32[size], w=gc.f32[2, 2, kernel, kernel])(x, w), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_places_of_same_padding_need_sizes():
    with pytest.raises(gc.GraphError, match="return_indices"):
        gc.plan(lambda x: gc.max_pool2d(x, 3, 2, "same", return_indices=True), x=gc.f32["B", 2, "H", "W"])
