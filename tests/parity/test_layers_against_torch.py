"""Every layer beside its PyTorch counterpart with the same weights: results, gradients of inputs and parameters, second
gradients.
"""
from collections.abc import Callable

import numpy as np
import pytest
import torch
from layer_peers import RANDOM, Case, check_first, check_second, normal

import graphc as gc
from graphc import nn

pytestmark = pytest.mark.peers
T, F = torch.nn, torch.nn.functional

IDS = RANDOM.integers(0, 11, (3, 5)).astype(np.int32)


def first(m, *xs):
    return m(*xs)[0]


def flipped(function):
    return lambda m, x: function(x, m.weight.flip(*range(2, m.weight.ndim)), m.bias)


class AddNorm(T.Module):
    def __init__(self, pre_norm):
        super().__init__()
        self.body, self.norm, self.pre_norm = T.Linear(6, 6), T.LayerNorm(6), pre_norm

    def forward(self, x):
        return x + self.body(self.norm(x)) if self.pre_norm else self.norm(x + self.body(x))


def images(axes: int) -> dict[str, Callable[[], Case]]:
    """Convolutions and pools of so many spatial axes."""
    size = (9, 7, 5)[:axes]

    def conv(ours, theirs, inside=4, **options):
        return lambda: Case(getattr(nn, f"Conv{ours}{axes}d")(6, 3, **options),
                            getattr(T, f"Conv{ours}{axes}d")(inside, 6, 3, **options | theirs),
                            [normal(2, inside, *size)])

    def pool(name, *arguments, **options):
        return lambda: Case(getattr(nn, f"{name}{axes}d")(*arguments, **options),
                            getattr(T, f"{name}{axes}d")(*arguments, **options), [normal(2, 3, *size)])

    return {
        "conv groups": conv("", {}, stride=2, padding=1, groups=2), "conv same": conv("", {}, padding="same"),
        "conv dilation": conv("", {}, padding=2, dilation=2, bias=False), "conv depthwise": conv("", {}, 6, groups=6),
        **{f"conv {mode}": conv("", {}, padding=1, padding_mode=mode) for mode in ("reflect", "replicate", "circular")},
        "transposed": conv("Transpose", {}, stride=2, padding=1, output_padding=1),
        "transposed groups": conv("Transpose", {}, groups=2, dilation=2, output_padding=1),
        "max": pool("MaxPool", 3, 2, 1), "max ceil": pool("MaxPool", 2, 2, ceil_mode=True),
        "max dilation": pool("MaxPool", 2, 1, 1, dilation=2),
        "avg": pool("AvgPool", 3, 2, 1), "avg ceil": pool("AvgPool", 3, 2, 1, ceil_mode=True),
        "avg of the image": pool("AvgPool", 3, 2, 1, ceil_mode=True, count_include_pad=False),
        "norm": pool("LPPool", 2, 2, ceil_mode=True), "adaptive avg": pool("AdaptiveAvgPool", 3),
        "adaptive avg 1": pool("AdaptiveAvgPool", 1), "adaptive max": pool("AdaptiveMaxPool", 4)}


CASES = {
    "linear": lambda: Case(nn.Linear(5), T.Linear(4, 5), [normal(7, 4)]),
    "linear 3d": lambda: Case(nn.Linear(5, bias=False), T.Linear(4, 5, bias=False), [normal(2, 7, 4)]),
    "feed forward": lambda: Case(nn.FeedForward(5), T.Sequential(T.Linear(4, 5), T.ReLU()), [normal(7, 4)],
                                 names={"weight": "0.weight", "bias": "0.bias"}),
    "mlp": lambda: Case(nn.FeedForward(4, nn.sigmoid) ** 3,
                        T.Sequential(*[m for _ in range(3) for m in (T.Linear(4, 4), T.Sigmoid())]),
                        [normal(7, 4)],
                        names={f"{i}.{p}": f"{2 * i}.{p}" for i in range(3) for p in ("weight", "bias")}),
    "embedding": lambda: Case(nn.Embedding(11, 4), T.Embedding(11, 4), [IDS]),
    "conv1d": lambda: Case(nn.Conv1d(6, 3, padding=1, dilation=2), T.Conv1d(4, 6, 3, 1, 1, 2), [normal(2, 4, 9)]),
    "conv1d flip": lambda: Case(nn.Conv1d(6, 3, flip=True), T.Conv1d(4, 6, 3), [normal(2, 4, 9)], flipped(F.conv1d)),
    "conv2d": lambda: Case(nn.Conv2d(6, 3, stride=2, padding=1), T.Conv2d(4, 6, 3, 2, 1), [normal(2, 4, 9, 8)]),
    "conv2d flip": lambda: Case(nn.Conv2d(6, (3, 2), flip=True), T.Conv2d(4, 6, (3, 2)), [normal(2, 4, 5, 6)],
                                flipped(F.conv2d)),
    "conv2d groups": lambda: Case(nn.Conv2d(6, (3, 2), groups=2, bias=False),
                                  T.Conv2d(4, 6, (3, 2), groups=2, bias=False), [normal(2, 4, 5, 6)]),
    "conv2d depthwise": lambda: Case(nn.Conv2d(4, 3, padding="same", groups=4),
                                     T.Conv2d(4, 4, 3, padding="same", groups=4), [normal(2, 4, 5, 6)]),
    "conv_transpose2d": lambda: Case(nn.ConvTranspose2d(6, 3, stride=2, padding=1), T.ConvTranspose2d(4, 6, 3, 2, 1),
                                     [normal(2, 4, 5, 6)]),
    "batch_norm2d": lambda: Case(nn.BatchNorm2d(), T.BatchNorm2d(4), [normal(3, 4, 5, 6)], training=True),
    "batch_norm1d inference": lambda: Case(nn.BatchNorm1d(), T.BatchNorm1d(4), [normal(9, 4)]),
    "layer_norm": lambda: Case(nn.LayerNorm(), T.LayerNorm(6), [normal(2, 5, 6)]),
    "layer_norm 2 axes": lambda: Case(nn.LayerNorm(axes=2), T.LayerNorm((5, 6)), [normal(2, 5, 6)]),
    "rms_norm": lambda: Case(nn.RMSNorm(), T.RMSNorm(6, eps=1e-6), [normal(2, 5, 6)]),
    "group_norm": lambda: Case(nn.GroupNorm(2), T.GroupNorm(2, 4), [normal(3, 4, 5, 2)]),
    "add norm": lambda: Case(nn.AddNorm(nn.Linear(6)), AddNorm(False), [normal(2, 5, 6)]),
    "add norm pre": lambda: Case(nn.AddNorm(nn.Linear(6), pre_norm=True), AddNorm(True), [normal(2, 5, 6)]),
    "max pool": lambda: Case(nn.MaxPool2d(3, 2, 1), T.MaxPool2d(3, 2, 1), [normal(2, 3, 8, 9)]),
    "average pool": lambda: Case(nn.AvgPool2d((2, 3), 1), T.AvgPool2d((2, 3), 1), [normal(2, 3, 8, 9)]),
    "max pool 1d": lambda: Case(nn.MaxPool1d(3, 2, 1), T.MaxPool1d(3, 2, 1), [normal(2, 3, 9)]),
    "average pool 1d": lambda: Case(nn.AvgPool1d(3, 2, 1), T.AvgPool1d(3, 2, 1), [normal(2, 3, 9)]),
    **{f"{name} {axes}d": case for axes in (1, 2, 3) for name, case in images(axes).items()},
    "activations": lambda: Case(nn.gelu >> nn.silu >> nn.elu >> nn.softplus >> nn.tanh >> nn.sigmoid >> nn.leaky_relu
                                >> nn.softmax >> nn.log_softmax,
                                T.Sequential(T.GELU(), T.SiLU(), T.ELU(), T.Softplus(), T.Tanh(), T.Sigmoid(),
                                             T.LeakyReLU(), T.Softmax(-1), T.LogSoftmax(-1)),
                                [normal(3, 5)]),
    "rnn": lambda: Case(nn.RNN(6, layers=2, bidirectional=True), T.RNN(4, 6, 2, bidirectional=True), [normal(5, 3, 4)],
                        first),
    "rnn relu": lambda: Case(nn.RNN(6, activation="relu"), T.RNN(4, 6, nonlinearity="relu"), [normal(5, 3, 4)], first),
    "gru": lambda: Case(nn.GRU(6, layers=2, bidirectional=True), T.GRU(4, 6, 2, bidirectional=True), [normal(5, 3, 4)],
                        first),
    "gru batch first": lambda: Case(nn.GRU(6, batch_first=True, bias=False), T.GRU(4, 6, batch_first=True, bias=False),
                                    [normal(5, 3, 4)], first),
    "lstm": lambda: Case(nn.LSTM(6, layers=2, bidirectional=True), T.LSTM(4, 6, 2, bidirectional=True),
                         [normal(5, 3, 4)], first),
    "lstm batch first": lambda: Case(nn.LSTM(6, batch_first=True), T.LSTM(4, 6, batch_first=True), [normal(5, 3, 4)],
                                     first),
}


@pytest.mark.parametrize("name", CASES)
def test_first_gradients(name, engine):
    check_first(CASES[name]())


@pytest.mark.parametrize("name", CASES)
def test_second_gradients(name, engine):
    check_second(CASES[name]())


@pytest.mark.parametrize("axes", (1, 2, 3))
def test_places_of_maxima(axes, engine):
    """As torch numbers them, also where windows reach into the padding; and back at their places."""
    x = normal(2, 3, *(9, 7, 5)[:axes])
    ours, theirs = ([getattr(m, f"{name}{axes}d") for name in ("max_pool", "adaptive_max_pool", "max_unpool")]
                    for m in (gc, F))
    run = gc.compile(lambda x: (*ours[0](x, 3, 2, 1, return_indices=True), *ours[1](x, 2, return_indices=True),
                                ours[2](*ours[0](x, 2, return_indices=True), 2, output_size=x.shape[2:])),
                     x=gc.f32[x.shape])
    t = torch.tensor(x)
    wanted = (*theirs[0](t, 3, 2, 1, return_indices=True), *theirs[1](t, 2, return_indices=True),
              theirs[2](*theirs[0](t, 2, return_indices=True), 2, output_size=t.shape[2:]))
    for y, w in zip(run(x), wanted, strict=True):
        np.testing.assert_array_equal(y, w.numpy())


LOSSES = {
    "mse": (lambda y, t: nn.mse(y, t), lambda y, t: F.mse_loss(y, t), normal(4, 6)),
    "bce": (lambda y, t: nn.bce(y, t), lambda y, t: F.binary_cross_entropy_with_logits(y, t),
            RANDOM.random((4, 6)).astype(np.float32)),
    "cross entropy": (nn.cross_entropy, F.cross_entropy, np.int32([0, 5, 2, 2])),
    "sum": (lambda y, t: nn.cross_entropy(y, t, reduction="sum"), lambda y, t: F.cross_entropy(y, t, reduction="sum"),
            np.int32([0, 5, 2, 2])),
    "smoothed": (lambda y, t: nn.cross_entropy(y, t, label_smoothing=0.1),
                 lambda y, t: F.cross_entropy(y, t, label_smoothing=0.1), np.int32([0, 5, 2, 2])),
    "smoothed, one ignored": (lambda y, t: nn.cross_entropy(y, t, label_smoothing=0.1, ignore_index=2),
                              lambda y, t: F.cross_entropy(y, t, label_smoothing=0.1, ignore_index=2),
                              np.int32([0, 5, 2, 2])),
    "probabilities": (nn.cross_entropy, F.cross_entropy, np.full((4, 6), 1 / 6, np.float32)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name, engine):
    ours, theirs, target = LOSSES[name]
    y = normal(4, 6)

    def case():
        return Case(nn.Sequential(), T.Identity(), [y, target], lambda m, y, t: theirs(y, t),
                    lambda net, y, t: ours(y, t))
    check_first(case())
    check_second(case())


def sequence_losses(mean_of):
    """(our loss, torch's): cross entropy, [5, 3, 6] and [5, 3], summed over steps."""
    real = torch.arange(5)[:, None] < torch.tensor([5, 2, 3])

    def theirs(m, y, t):
        steps = F.cross_entropy(y.transpose(1, 2), t.clamp(0), reduction="none", label_smoothing=0.1) * real
        return {"mean": steps.sum(0).mean(), "sum": steps.sum(), "none": steps.sum(0),
                "step": steps.sum() / real.sum()}[mean_of]
    return theirs


@pytest.mark.parametrize("reduction", ["mean", "sum", "none", "step"])
@pytest.mark.parametrize("how", ["lengths", "mask", "ignore_index", "batch_first"])
def test_sequence_loss(how, reduction, engine):
    lengths = np.int32([5, 2, 3])
    real = np.arange(5)[:, None] < lengths
    target = np.where(real, RANDOM.integers(0, 6, (5, 3)), -1).astype(np.int32)
    options = {"lengths": {"lengths": lengths}, "mask": {"mask": real}, "ignore_index": {"ignore_index": -1},
               "batch_first": {"lengths": lengths, "batch_first": True}}[how]

    def ours(net, y, t):
        turn = (lambda a: a.swapaxes(0, 1)) if how == "batch_first" else lambda a: a
        return nn.sequence_loss(turn(y), turn(t), reduction=reduction, label_smoothing=0.1, **options)

    def case():
        return Case(nn.Sequential(), T.Identity(), [normal(5, 3, 6), target], sequence_losses(reduction), ours)
    check_first(case())
    check_second(case())


def test_sequence_loss_of_numbers_and_log_likelihood(engine):
    lengths, (y, t), ids = np.int32([5, 2, 3]), (normal(5, 3, 6),
                                                 normal(5, 3, 6)), RANDOM.integers(0, 6, (5, 3)).astype(np.int32)
    real = torch.arange(5)[:, None] < torch.tensor(lengths)
    check_first(Case(nn.Sequential(), T.Identity(), [y, t],
                     lambda m, y, t: (((y - t) ** 2).sum(-1) * real).sum(0).mean(),
                     lambda net, y, t: nn.sequence_loss(y, t, nn.mse, lengths=lengths)))
    check_first(Case(nn.Sequential(), T.Identity(), [y, ids],
                     lambda m, y, t: (y.log_softmax(-1).gather(-1, t[..., None])[..., 0] * real).sum(0),
                     lambda net, y, t: nn.log_likelihood(y, t, lengths=lengths)))


def test_embedding_in_f64():
    graph = nn.network.trace_network(nn.Embedding(11, 4, dtype=gc.f64), x=gc.i32[3]).graph
    assert str(graph.outputs[0].type) == "f64[3, 4]"
