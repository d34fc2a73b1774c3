"""Layers that people look for beside PyTorch's of the same names: results, gradients, second gradients; first values in
distribution."""
import numpy as np
import pytest
import torch
from layer_peers import RANDOM, Case, check_first, check_second, normal

import graphc as gc
from graphc import nn, optim

pytestmark = pytest.mark.peers
T, F = torch.nn, torch.nn.functional
IDS = np.int32([[3, 1, 0], [4, 0, 0], [0, 0, 0], [2, 2, 1]])
IMAGE, ROW, VOLUME = (2, 4, 5, 6), (2, 4, 7), (2, 4, 3, 4, 5)


def same(name, *shapes, ours=(), theirs=None, **options):
    """The layer of one name in both, called with the same arguments but for sizes that graphc finds out."""
    theirs = ours if theirs is None else theirs
    return lambda: Case(getattr(nn, name)(*ours, **options), getattr(T, name)(*theirs, **options),
                        [normal(*s) for s in shapes])


def function(ours, theirs, *shapes):
    return lambda: Case(ours, T.Identity(), [normal(*s) for s in shapes], lambda m, *xs: theirs(*xs))


LAYERS = {
    "Identity": same("Identity", (2, 3)), "Unflatten": same("Unflatten", (2, 12, 3), ours=(1, (2, -1, 3)), theirs=(1, (2, 2, 3))),
    "Flatten": same("Flatten", (2, 3, 4, 5), ours=(1, 2)), "PixelShuffle": same("PixelShuffle", (2, 12, 3, 4), ours=(2,)),
    "PixelUnshuffle": same("PixelUnshuffle", (2, 3, 4, 6), ours=(2,)), "ChannelShuffle": same("ChannelShuffle", (2, 6, 4), ours=(3,)),
    "Unfold": lambda: Case(nn.Unfold((2, 3), dilation=(1, 2), padding=1, stride=(2, 1)), T.Unfold((2, 3), (1, 2), 1, (2, 1)), [normal(*IMAGE)]),
    "Fold": lambda: Case(nn.Fold((5, 6), (2, 3), dilation=(1, 2), padding=1, stride=(2, 1)), T.Fold((5, 6), (2, 3), (1, 2), 1, (2, 1)), [normal(2, 18, 12)]),
    "PReLU": same("PReLU", ROW), "PReLU 4": same("PReLU", IMAGE, ours=(4, 0.1)),
    "Bilinear": lambda: Case(nn.Bilinear(5), T.Bilinear(3, 4, 5), [normal(2, 6, 3), normal(2, 6, 4)]),
    "Bilinear, no bias": lambda: Case(nn.Bilinear(5, bias=False), T.Bilinear(3, 4, 5, bias=False), [normal(2, 3), normal(2, 4)]),
    "CosineSimilarity": same("CosineSimilarity", (2, 5, 3), (2, 5, 3)), "PairwiseDistance": same("PairwiseDistance", (4, 5), (4, 5)),
    "RReLU": same("RReLU", (3, 4)),
    "LocalResponseNorm": same("LocalResponseNorm", (2, 7, 4), ours=(3, 0.5, 0.6, 1.5)), "LocalResponseNorm 4": same("LocalResponseNorm", IMAGE, ours=(4, 0.5)),
    "RNNCell": lambda: Case(nn.RNNCell(5), T.RNNCell(3, 5), [normal(4, 3), normal(4, 5)]),
    "RNNCell relu": lambda: Case(nn.RNNCell(5, activation="relu", bias=False), T.RNNCell(3, 5, False, "relu"), [normal(4, 3), normal(4, 5)]),
    "GRUCell": lambda: Case(nn.GRUCell(5), T.GRUCell(3, 5), [normal(4, 3), normal(4, 5)]),
    "GRUCell, no state, no batch": lambda: Case(nn.GRUCell(5), T.GRUCell(3, 5), [normal(3)]),
    "LSTMCell": lambda: Case(nn.LSTMCell(5), T.LSTMCell(3, 5), [normal(4, 3), normal(4, 5), normal(4, 5)],
                             lambda m, x, h, c: m(x, (h, c)), lambda net, x, h, c: net(x, (h, c))),
    "LSTMCell, no state": lambda: Case(nn.LSTMCell(5, bias=False), T.LSTMCell(3, 5, False), [normal(4, 3)]),
    "Embedding padding_idx": lambda: Case(nn.Embedding(5, 3, padding_idx=0), T.Embedding(5, 3, padding_idx=0), [IDS]),
    **{f"EmbeddingBag {mode}": lambda mode=mode: Case(nn.EmbeddingBag(5, 3, mode=mode, padding_idx=0),
                                                      T.EmbeddingBag(5, 3, mode=mode, padding_idx=0), [IDS]) for mode in ("sum", "mean", "max")},
    "EmbeddingBag weights": lambda: Case(nn.EmbeddingBag(5, 3, mode="sum"), T.EmbeddingBag(5, 3, mode="sum"), [IDS, normal(4, 3)],
                                         lambda m, i, w: m(i, per_sample_weights=w)),
    "GroupNorm affine": lambda: Case(nn.GroupNorm(2, affine=False), T.GroupNorm(2, 4, affine=False), [normal(*IMAGE)]),
    "RMSNorm affine": lambda: Case(nn.RMSNorm(eps=1e-5, affine=False), T.RMSNorm(6, 1e-5, elementwise_affine=False), [normal(*IMAGE)]),
    "Upsample": function(lambda x: nn.Upsample((7, 9))(x), lambda x: F.interpolate(x, (7, 9)), IMAGE),
    "UpsamplingNearest2d": same("UpsamplingNearest2d", IMAGE, scale_factor=2), "UpsamplingBilinear2d": same("UpsamplingBilinear2d", IMAGE, size=(7, 11)),
    **{f"interpolate {mode} {corners} {size} {scale}": function(
        lambda x, o=(size, scale, mode, corners): gc.interpolate(x, *o),
        lambda x, o=(size, scale, mode, None if "nearest" in mode else corners): F.interpolate(x, *o), shape)
       for mode, shape in (("nearest", ROW), ("nearest-exact", IMAGE), ("linear", ROW), ("bilinear", IMAGE), ("trilinear", VOLUME), ("bicubic", IMAGE))
       for corners in ((False,) if "nearest" in mode else (False, True))
       for size, scale in ((9, None), (2, None), (None, 1.7))},
    **{f"{kind}{axes}d": same(f"{kind}{axes}d", shape, ours=((1, 2, 2, 1, 1, 0)[:2 * axes], *([1.5] if kind == "ConstantPad" else [])))
       for kind in ("ConstantPad", "ZeroPad", "ReflectionPad", "ReplicationPad", "CircularPad") for axes, shape in ((1, ROW), (2, IMAGE), (3, VOLUME))},
    "ConstantPad2d cut": same("ConstantPad2d", IMAGE, ours=((-1, 2, 0, -2), 0.5)), "ReflectionPad2d one": same("ReflectionPad2d", IMAGE, ours=(2,)),
}
for rank, shape in ((1, ROW), (2, IMAGE), (3, VOLUME)):
    for training in (True, False):
        for affine, tracked in ((False, False), (True, True)):
            LAYERS[f"InstanceNorm{rank}d {training} {tracked}"] = lambda rank=rank, shape=shape, o=(affine, tracked), training=training: Case(
                getattr(nn, f"InstanceNorm{rank}d")(affine=o[0], track_running_stats=o[1]), getattr(T, f"InstanceNorm{rank}d")(
                    4, affine=o[0], track_running_stats=o[1]), [normal(*shape)], training=training)
        LAYERS[f"BatchNorm3d {training}"] = lambda training=training: Case(nn.BatchNorm3d(), T.BatchNorm3d(4), [normal(*VOLUME)], training=training)
        LAYERS[f"BatchNorm1d untracked {training}"] = lambda training=training: Case(
            nn.BatchNorm1d(track_running_stats=False), T.BatchNorm1d(4, track_running_stats=False), [normal(*ROW)], training=training)


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name):
    check_first(LAYERS[name]())
    if name not in ("RReLU", "EmbeddingBag weights"):           # a mean of f32 numbers; a table that is f32
        check_second(LAYERS[name](), rtol=1e-7)


def test_running_statistics_of_instance_norm_and_of_the_mean_over_all_batches():
    for ours, theirs, shape in ((nn.InstanceNorm2d(track_running_stats=True, momentum=0.3), T.InstanceNorm2d(4, track_running_stats=True, momentum=0.3), IMAGE),
                                (nn.BatchNorm1d(momentum=None), T.BatchNorm1d(4, momentum=None), ROW)):
        step = gc.train_step(lambda x: gc.mean(nn.Linear(1)(gc.mean(ours(x), axis=-1))), optimizer=gc.optim.SGD(0.0), x=gc.f32[shape])
        for _ in range(3):
            x = normal(*shape) + 1
            theirs.train()(torch.tensor(x))
            step(x)
        for name in ("running_mean", "running_var"):
            found = next(step.state[n] for n in step.state if n.endswith(name))
            np.testing.assert_allclose(found, getattr(theirs, name).numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name, ours, theirs", [
    ("xavier_normal", nn.XavierNormal(2.0), lambda w: T.init.xavier_normal_(w, 2.0)), ("kaiming_uniform", nn.KaimingUniform(0.3), lambda w: T.init.kaiming_uniform_(w, 0.3)),
    ("kaiming_normal", nn.KaimingNormal(mode="fan_out", nonlinearity="relu"), lambda w: T.init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu")),
    ("trunc_normal", nn.TruncNormal(0.5, 0.2, -0.3, 0.9), lambda w: T.init.trunc_normal_(w, 0.2, 0.5, -0.3, 0.9)),
    ("orthogonal", nn.Orthogonal(1.5), lambda w: T.init.orthogonal_(w, 1.5)), ("dirac", nn.Dirac(2), lambda w: T.init.dirac_(w, 2))])
@pytest.mark.parametrize("shape", [(40, 60, 3), (120, 20, 2, 3)])
def test_first_values(name, ours, theirs, shape):
    """Mean, spread and largest element; what is not drawn, exactly."""
    found, wanted = ours(np.random.default_rng(0), shape), theirs(torch.empty(shape)).numpy()
    if name == "dirac":
        np.testing.assert_array_equal(found, wanted)
        return
    np.testing.assert_allclose(found.std(), wanted.std(), rtol=0.03)
    np.testing.assert_allclose(found.mean(), wanted.mean(), atol=0.03 * wanted.std())
    np.testing.assert_allclose(np.abs(found).max(), np.abs(wanted).max(), rtol=0.25)


def test_gains():
    for name in ("linear", "conv1d", "conv_transpose3d", "sigmoid", "tanh", "relu", "selu", "leaky_relu"):
        assert nn.calculate_gain(name) == pytest.approx(T.init.calculate_gain(name))
    assert nn.calculate_gain("leaky_relu", 0.3) == pytest.approx(T.init.calculate_gain("leaky_relu", 0.3))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("steps, labels, blank", [(9, 3, 0), (6, 1, 4), (1, 1, 0)])
def test_ctc(steps, labels, blank, reduction):
    x, y = normal(steps, 4, 5), RANDOM.integers(0, 4, (4, labels)).astype(np.int32) + (blank == 0)
    n, m = np.int32([steps, steps, max(steps - 3, 1), steps]), np.int32([labels, labels, max(labels - 1, 1), 0])
    y[1] = y[1, 0]                      # repeated labels need a blank between them
    case = Case(lambda x: nn.ctc_loss(gc.log_softmax(x), y, n, m, blank=blank, reduction=reduction), T.Identity(), [x],
                lambda _, x: F.ctc_loss(x.log_softmax(-1), torch.tensor(y).long(), torch.tensor(n).long(), torch.tensor(m).long(), blank, reduction))
    check_first(case)
    check_first(case, np.float64)


def test_ctc_without_an_alignment():
    y, n, m = np.int32([[1, 1, 1]]), np.int32([3]), np.int32([3])
    x = normal(3, 1, 3)
    run = gc.compile(lambda x: (nn.ctc_loss(x, y, n, m), nn.ctc_loss(x, y, n, m, zero_infinity=True)), x=gc.f32[3, 1, 3])
    assert run(x)[0] == np.inf and run(x)[1] == 0


@pytest.mark.parametrize("name, options", [("weight_norm", {}), ("weight_norm", {"axis": 1}), ("weight_norm", {"axis": None}), ("spectral_norm", {}),
                                           ("spectral_norm", {"n_power_iterations": 3})])
def test_weights_made_of_others(name, options):
    """Five steps of either, from the same state: its names are torch's."""
    theirs = {"dim" if k == "axis" else k: -1 if v is None else v for k, v in options.items()}
    there, here = getattr(T.utils.parametrizations, name), getattr(nn, name)
    x, y = (np.random.default_rng(0).normal(size=shape).astype(np.float32) for shape in ((4, 3, 6), (4, 2)))
    net = here(nn.Conv1d(4, 3), **options) >> nn.tanh >> nn.Flatten() >> here(nn.Linear(2), **options)
    step = gc.train_step(net, loss=nn.mse, optimizer=optim.SGD(0.1), x=gc.f32[4, 3, 6], y=gc.f32[4, 2])
    peer = T.Sequential(there(T.Conv1d(3, 4, 3), **theirs), T.Tanh(), T.Flatten(), there(T.Linear(16, 2), **theirs))
    peer.load_state_dict({n: torch.tensor(step.state[n]) for n in peer.state_dict()})
    descent = torch.optim.SGD(peer.parameters(), lr=0.1)
    for _ in range(5):
        descent.zero_grad()
        loss = F.mse_loss(peer(torch.tensor(x)), torch.tensor(y))
        loss.backward()
        descent.step()
        assert step(x, y) == pytest.approx(loss.item(), rel=1e-5)
    np.testing.assert_allclose(gc.compile(step.model, x=gc.f32[4, 3, 6])(x), peer.eval()(torch.tensor(x)).detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axes, shape, kernel, size", [(2, (2, 3, 7, 9), 2, (3, 5)), (2, (1, 2, 5, 6), (2, 3), (1, 4)), (3, (2, 2, 5, 6, 7), (2, 1, 3), (3, 5, 2))])
def test_fractional_max_pool(axes, shape, kernel, size):
    """With the same random numbers: values, indices and gradients."""
    x, samples = np.random.default_rng(0).normal(size=shape), np.random.default_rng(1).random((*shape[:2], axes))
    name = f"fractional_max_pool{axes}d"
    there = torch.tensor(x, requires_grad=True)
    y, at = getattr(F, name)(there, kernel, size, return_indices=True, _random_samples=torch.tensor(samples))
    y.square().sum().backward()

    @gc.graph
    def f(a: gc.f64[shape], s: gc.f64[samples.shape]):
        return getattr(gc, name)(a, kernel, size, return_indices=True, random_samples=s.astype(gc.f32))

    @gc.graph
    def total(a: gc.f64[shape], s: gc.f64[samples.shape]):
        return gc.sum(f(a, s)[0] ** 2)
    samples = samples.astype(np.float32).astype(np.float64)
    found, places = gc.compile(f)(x, samples)
    np.testing.assert_array_equal(found, y.detach().numpy())
    np.testing.assert_array_equal(places, at.numpy())
    np.testing.assert_allclose(gc.compile(gc.grad(total, "a"))(x, samples), there.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("size", [(2, 3, 4, 5), (1, 1, 1, 3), (2, 1, 3, 2, 4)])
def test_affine_grid(size, align):
    axes = len(size) - 2
    theta = np.random.default_rng(0).normal(size=(size[0], axes, axes + 1))
    there = torch.tensor(theta, requires_grad=True)
    wanted = F.affine_grid(there, size, align_corners=align)
    wanted.sin().sum().backward()

    @gc.graph
    def f(t: gc.f64[theta.shape]):
        return gc.affine_grid(t, size, align)

    @gc.graph
    def total(t: gc.f64[theta.shape]):
        return gc.sum(gc.sin(f(t)))
    np.testing.assert_allclose(gc.compile(f)(theta), wanted.detach().numpy(), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(gc.compile(gc.grad(total))(theta), there.grad.numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"div_value": 2.0, "head_bias": True}])
def test_adaptive_softmax(options):
    peer = T.AdaptiveLogSoftmaxWithLoss(16, 20, [4, 9], **options)
    x, ids = np.random.default_rng(0).normal(size=(12, 16)).astype(np.float32), np.random.default_rng(1).integers(0, 20, 12)
    layer = nn.AdaptiveLogSoftmaxWithLoss(20, [4, 9], **options)

    def f(x, target):
        found, loss = layer(x, target)
        return loss, {"found": found, "all": layer.log_prob(x), "best": layer.predict(x)}
    step = gc.train_step(f, optimizer=optim.SGD(0.1), x=gc.f32[12, 16], target=gc.i64[12])
    names = {n: f"layer.{n}" for n in peer.state_dict()}
    assert set(names.values()) <= set(step.state)
    for n, array in peer.state_dict().items():
        step.state[names[n]] = array.numpy()
    wanted, loss = peer(torch.tensor(x), torch.tensor(ids))
    there = {"all": peer.log_prob(torch.tensor(x)), "best": peer.predict(torch.tensor(x))}
    loss.backward()
    result = step(x, ids)
    assert result["loss"] == pytest.approx(loss.item(), rel=1e-5)
    np.testing.assert_allclose(result["found"], wanted.detach().numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(result["all"], there["all"].detach().numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(result["best"], there["best"].numpy())
    for n, p in peer.named_parameters():
        np.testing.assert_allclose(step.state[names[n]], (p - 0.1 * p.grad).detach().numpy(), rtol=1e-4, atol=1e-6, err_msg=n)
