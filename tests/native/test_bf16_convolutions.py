"""`compute="bf16"`: convolutions and both gradients of factors that are rounded to bf16, in pairs, beside the same of rounded arrays in f64."""
from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim
from graphc.bf16_products import NO_PAIRS, Bf16Products
from graphc.codegen.llvm.host import can_run, host_target
from graphc.compiler import Compilation
from graphc.config import Config
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.ops.conv import Conv, ConvInputGrad, ConvTranspose, ConvWeightGrad
from graphc.runtime.executable import Executable
from graphc.schedule.target import AVX2, AVX512_BF16, NEON_BF16

pairs = pytest.mark.skipif(not host_target().multiplies_pairs, reason="this CPU multiplies f32 as fast")
# image, kernels, attributes: odd numbers of channels, features and images, strides, dilation, uneven padding, one to three axes
CONVS = [
    ((2, 16, 9, 9), (33, 16, 3, 3), {"padding": ((1, 1), (1, 1))}), ((2, 5, 8, 7), (7, 5, 3, 2), {"stride": (2, 1)}),
    ((3, 3, 7, 7), (4, 3, 3, 3), {"padding": ((2, 0), (0, 1)), "dilation": (2, 2)}), ((4, 64, 6, 6), (32, 64, 1, 1), {}),
    ((2, 2, 6, 6), (5, 2, 3, 3), {"padding": ((1, 1), (1, 1)), "stride": (2, 2)}), ((5, 9, 20), (5, 9, 4), {"stride": (3,), "padding": ((3, 2),)}),
    ((2, 4, 4, 5, 6), (6, 4, 2, 3, 2), {"padding": ((1, 0), (1, 1), (0, 1))}), ((8, 512, 7, 7), (48, 512, 3, 3), {"padding": ((1, 1), (1, 1))}),
    ((4, 3, 40, 40), (64, 3, 7, 7), {"stride": (2, 2), "padding": ((3, 3), (3, 3))})]


def rounded(x: np.ndarray) -> np.ndarray:
    return x.astype(ml_dtypes.bfloat16).astype(np.float64)


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(np.float32)


def operators(image, kernels, attributes):
    """A convolution and its gradients, with arrays for each."""
    axes = len(image) - 2
    op = Conv.at(axes)(**{"stride": (1,) * axes, "padding": ((0, 0),) * axes, "dilation": (1,) * axes} | attributes)
    x, w = drawn(*image), drawn(*kernels, seed=1)
    dy = drawn(*op.output_shape(image, kernels), seed=2)
    return [(op, x, w), (op.like(ConvInputGrad, x_shape=image), w, dy), (op.like(ConvWeightGrad, w_shape=kernels), x, dy)]


def graph_of(cases) -> tuple[Graph, list[np.ndarray]]:
    b, outs, arrays = Builder("convolutions"), [], []
    for op, *factors in cases:
        ins = [b.input(f"x{len(arrays) + i}", gc.f32[a.shape]) for i, a in enumerate(factors)]
        outs += b.apply(op, ins)
        arrays += factors
    return b.finish(outs, ("",) * len(outs)), arrays


def close(actual: np.ndarray, op, left: np.ndarray, right: np.ndarray) -> None:
    """Of rounded factors, exactly but for the rounding of an f32 sum."""
    left, right = rounded(left), rounded(right)
    exact, size = op.reference(left, right), op.reference(abs(left), abs(right))
    terms = 2 * left.size * right.size / max(actual.size, 1)
    assert (np.abs(actual - exact) <= 4 * np.finfo(np.float32).eps * size * max(1.0, terms) ** 0.25 + 1e-12).all(), op


@pairs
@pytest.mark.parametrize("case", CONVS, ids=lambda case: f"{case[0]} {case[1]}")
def test_convolutions_and_their_gradients(case, monkeypatch):
    monkeypatch.setenv("GRAPHC_WINOGRAD", "0")
    cases = operators(*case)
    graph, arrays = graph_of(cases)
    run, again = (gc.compile(graph, compute="bf16", threads=n) for n in (1, 2))
    assert {p.bits for p in run.quantisation().products} == {16}
    for y, other, (op, left, right) in zip(run(*arrays), again(*arrays), cases):
        close(y, op, left, right)
        assert y.tobytes() == other.tobytes()
    assert run.dump("planned").count("dtype=f32") == 3


@pytest.mark.parametrize("case", CONVS[:6], ids=lambda case: f"{case[0]} {case[1]}")
def test_elsewhere_what_is_rounded_is_multiplied_in_f32(case):
    """A program that was rounded for pairs, compiled for a target that has none."""
    if not can_run(AVX2):
        pytest.skip("this CPU has no AVX2")
    cases = operators(*case)
    graph, arrays = graph_of(cases)
    made = Compilation(Bf16Products(AVX512_BF16).whole(graph), AVX2, Config(winograd=False))
    assert "bf16x2" not in made.text("planned")
    for y, (op, left, right) in zip(Executable(made.build.program, 1).slow(*arrays), cases):
        close(y, op, left, right)


@pairs
@pytest.mark.parametrize("sizes", [(1, 2, 15, 40), pytest.param(range(1, 41), marks=pytest.mark.slow)], ids=["some", "all"])
def test_every_number_of_channels_and_features(sizes):
    cases = [case for c in sizes for case in operators((2 + c % 3, c, 5, 4), (41 - c, c, 2, 3), {"padding": ((1, 0), (1, 1))})]
    graph, arrays = graph_of(cases)
    for y, (op, left, right) in zip(gc.compile(graph, compute="bf16")(*arrays), cases):
        alone = left.shape[1] == 1 if isinstance(op, Conv) else left.shape[0] == 1
        if alone:                                           # one term: left in f32
            assert np.allclose(y, op.reference(left.astype(np.float64), right.astype(np.float64)), rtol=1e-5, atol=1e-5)
        else:
            close(y, op, left, right)


@pairs
def test_a_sample_has_the_same_bits_in_any_batch():
    net = nn.Conv2d(24, 5, stride=2) >> nn.relu >> nn.Conv2d(17, 1) >> nn.relu >> nn.ConvTranspose2d(6, 3, stride=2)
    run = gc.compile(net, x=gc.f32["B", 7, 15, 15], seed=0, compute="bf16")
    x = drawn(5, 7, 15, 15)
    whole, plain = run(x), gc.compile(net, x=gc.f32["B", 7, 15, 15], seed=0)(x)
    assert {p.bits for p in run.quantisation().products} == {16} and "of" in str(run.quantisation())
    for n in (1, 2, 3):
        assert run(x[:n]).tobytes() == whole[:n].tobytes()
    assert np.linalg.norm(whole - plain) < 0.01 * np.linalg.norm(plain) and (whole != plain).any()


@pairs
@pytest.mark.parametrize("channels,size,stride,groups", [(32, 12, 1, 32), (20, 9, 2, 20), (24, 7, 1, 24), (16, 8, 1, 4)])
def test_images_of_convolutions_in_groups_are_rounded_where_they_are_made(channels, size, stride, groups):
    """They lie as bf16, with the zeros around them; kernels stay f32. What is made of the sums is rounded as by itself, also where
    it is less than the least normal number."""
    op = Conv.at(2)(stride=(stride, stride), padding=((1, 1), (1, 1)), groups=groups)
    x, w = drawn(2, channels, size, size), drawn(channels, channels // groups, 3, 3, seed=1)
    x[:, ::3] *= 1e-39

    def graph(last) -> gc.GraphFunction:
        b = Builder("groups")
        image, kernels = b.input("x", gc.f32[x.shape]), b.input("w", gc.f32[w.shape])
        return b.finish([last(b, b.maximum(b.apply(op, [b.maximum(image, 0.0), kernels])[0], -0.5))])
    run, again, low = (gc.compile(graph(last), compute="bf16", threads=n) for n, last in (
        (1, lambda b, y: y), (2, lambda b, y: y), (1, lambda b, y: b.cast(y, dtype=gc.bf16))))
    y, image = run(x, w), rounded(np.maximum(x, 0))
    exact = np.maximum(op.reference(image, w.astype(np.float64)), -0.5)
    assert (np.abs(y - exact) <= 1e-5 * op.reference(image, np.abs(w.astype(np.float64))) + 1e-44).all()
    assert again(x, w).tobytes() == y.tobytes() and low(x, w).tobytes() == y.astype(ml_dtypes.bfloat16).tobytes()
    text, plain = run.dump("planned"), gc.compile(graph(lambda b, y: y)).dump("planned")
    assert f"bf16[2, {channels}, {size}, {size}]" in text and text.count("padded copy") <= plain.count("padded copy")
    assert run.quantisation().products[0].bits == 16


@pairs
def test_what_stays_in_f32_is_said(monkeypatch):
    """Where Winograd's form is faster, in groups, of one channel: these keep the bits of f32. Matrix registers are faster than that form."""
    monkeypatch.setenv("GRAPHC_TARGET", AVX512_BF16.name)
    for net, shape, why in ((nn.Conv2d(64, 3, padding=1), (8, 64, 56, 56), "Winograd's form in f32 is faster"),
                            (nn.Conv2d(16, 3, groups=16), (2, 16, 9, 9), "a convolution in groups"),
                            (nn.Conv2d(16, 3), (2, 1, 9, 9), "there is one term along the axis that pairs are made along")):
        both = net >> nn.GlobalAvgPool2d() >> nn.Linear(8)
        run = gc.compile(both, x=gc.f32[shape], seed=0, compute="bf16")
        first, second = run.quantisation().products
        assert first.bits == 32 and first.why_not.startswith(why) and second.bits == 16 and second.relative < 2 ** -8
        assert f"stays f32: {why}" in run.explain()
        with pytest.raises(gc.GraphError, match=f"has no product of f32 .* that would be one of bf16\n.*{why}"):
            gc.compile(net, x=gc.f32[shape], seed=0, compute="bf16")


def test_targets_without_such_an_instruction(monkeypatch):
    """Convolutions stay f32, products are those of rounded factors, computed in f32, and both is said."""
    if not can_run(AVX2):
        pytest.skip("this CPU has no AVX2")
    monkeypatch.setenv("GRAPHC_TARGET", "avx2")
    net = nn.Conv2d(8, 3, stride=2) >> nn.Flatten() >> nn.Linear(4)
    run = gc.compile(net, x=gc.f32[2, 4, 9, 9], seed=0, compute="bf16")
    assert [p.bits for p in run.quantisation().products] == [32, 16]
    text = run.explain()
    assert f"stays f32: {NO_PAIRS}" in text and f"{NO_PAIRS}: factors are rounded and multiplied in f32" in text


@pairs
def test_batch_norm_leaves_rounded_weights_alone():
    """Inference: one factor for each channel behind the convolution, whose weights are the rounded ones."""
    net = nn.Conv2d(24, 3, stride=2, bias=False) >> nn.BatchNorm2d() >> nn.relu >> nn.Conv2d(9, 1) >> nn.BatchNorm2d()
    run, plain = (gc.compile(net, x=gc.f32[2, 6, 11, 11], seed=0, compute=c) for c in ("bf16", None))
    planned = run.dump("planned").split('\n\ngraph "prepare')[0]
    assert planned.count("conv2d(") == planned.count("dtype=f32") == 2
    x = drawn(2, 6, 11, 11)
    assert np.linalg.norm(run(x) - plain(x)) < 0.01 * np.linalg.norm(plain(x)) and (run(x) != plain(x)).any()


@pairs
def test_training_follows_f32():
    """A small residual network: parameters and updates are f32, the loss is that of f32 within a percent."""
    net = (nn.Conv2d(16, 3, stride=2, padding=1) >> nn.BatchNorm2d() >> nn.relu >> nn.Conv2d(32, 3, stride=2, padding=1)
           >> nn.BatchNorm2d() >> nn.relu >> nn.GlobalAvgPool2d() >> nn.Linear(10))
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((32, 3, 16, 16)).astype(np.float32), rng.integers(0, 10, 32).astype(np.int32)
    losses = []
    for compute in (None, "bf16"):
        step = gc.train_step(net, loss=nn.cross_entropy, optimizer=optim.SGD(0.1, momentum=0.9), x=gc.f32[32, 3, 16, 16],
                             y=gc.i32[32], seed=0, state="own", compute=compute)
        losses.append([step(x, y) for _ in range(40)])
        assert step.dump("planned").count("bf16x2") > 8 * (compute is not None) - 1
    plain, low = map(np.asarray, losses)
    assert plain[-1] < 0.7 * plain[0] and (plain != low).any() and (np.abs(plain - low) <= 0.01 * plain + 2e-3).all()


@pairs
def test_a_training_step_says_what_stays_in_f32():
    net = nn.Conv2d(16, 3, stride=2) >> nn.relu >> nn.Conv2d(16, 3, groups=16) >> nn.GlobalAvgPool2d() >> nn.Linear(4)
    text = gc.train_step(net, loss=nn.cross_entropy, optimizer=optim.SGD(0.1), x=gc.f32[4, 3, 9, 9], y=gc.i32[4], seed=0,
                         compute="bf16").explain()
    left = [line.split(":")[1].split()[0] for line in text.splitlines() if line.endswith("stays f32: a convolution in groups")]
    assert left == ["conv2d", "conv2d_input_grad", "conv2d_weight_grad"] and text.count("stays f32") == 3


@pytest.mark.parametrize("target,instruction,other", [(AVX512_BF16, "vdpbf16ps", "vfmadd231ps"), (NEON_BF16, "bfdot", "fmla\tv")],
                         ids=lambda v: getattr(v, "name", None))
def test_code_for_pairs(target, instruction, other):
    """Foreign CPUs with the instruction: it is in the code of all three."""
    graph, _ = graph_of(operators((4, 32, 9, 9), (32, 32, 3, 3), {"stride": (2, 2)}))
    text = Compilation(Bf16Products(target).whole(graph), target, Config()).text("asm")
    assert text.count(instruction) > 100 and other not in text


def test_transposed_convolutions_are_gradients():
    b = Builder("transposed")
    x, w = b.input("x", gc.f32[2, 6, 5, 5]), b.input("w", gc.f32[6, 4, 3, 3])
    op = ConvTranspose.at(2)(stride=(2, 2), padding=((1, 1), (1, 1)))
    rounder = Bf16Products(AVX512_BF16)
    rounder.whole(b.finish(b.apply(op, [x, w]), ("",)))
    assert [p.why_not for p in rounder.found] == [""]
