"""Every layer, initializer, optimizer and schedule, with everything in the place of every argument: what works when it is used, or a GraphError with
the user's line, when it is made or when it is used."""
import inspect
import re

import numpy as np
import pytest
from kinds import VALUES, shown, wrong

import graphc as gc
from graphc import nn, optim

WIDE, LONG, IMAGE, IDS = (lambda: gc.ones((2, 3, 4))), (lambda: gc.ones((1, 2, 6))), (lambda: gc.ones((1, 2, 6, 6))), (lambda: gc.zeros((2, 3), gc.i64))
IMAGES = {1: LONG, 2: IMAGE, 3: lambda: gc.ones((1, 2, 4, 4, 4))}
LAYERS = {                                                  # arguments that are needed, and an input
    "AddNorm": ({"body": nn.relu}, WIDE), "AttendTo": ({}, lambda: [WIDE(), WIDE()]), "Attention": ({}, WIDE),
    "BatchNorm1d": ({}, LONG), "BatchNorm2d": ({}, IMAGE), "Collapse": ({}, WIDE),
    **{f"{kind}{axes}d": ({"channels": 2, "kernel": 3}, data) for kind in ("Conv", "ConvTranspose") for axes, data in IMAGES.items()},
    **{f"{kind}Pool{axes}d": ({"kernel": 2}, data) for kind in ("Max", "Avg") for axes, data in IMAGES.items()},
    **{f"Adaptive{kind}Pool{axes}d": ({"size": 2}, data) for kind in ("Max", "Avg") for axes, data in IMAGES.items()},
    **{f"LPPool{axes}d": ({"norm": 2, "kernel": 2}, data) for axes, data in IMAGES.items()},
    **{f"MaxUnpool{axes}d": ({"kernel": 2}, lambda data=data: [data(), gc.zeros(data().shape, gc.i32)]) for axes, data in IMAGES.items()},
    "DecoderBlock": ({"heads": 2}, lambda: [WIDE(), WIDE()]), "Dropout": ({}, WIDE), "Embedding": ({"count": 5, "features": 4}, IDS),
    "FeedForward": ({"features": 3}, WIDE), "Flatten": ({}, WIDE), "GRU": ({"hidden": 3}, WIDE), "GenerateToken": ({"embedding": nn.Embedding(5, 4)}, WIDE),
    "GlobalAvgPool2d": ({}, IMAGE), "GroupNorm": ({"groups": 1}, IMAGE), "LSTM": ({"hidden": 3}, WIDE),
    "LanguageModel": ({"embed": nn.Embedding(5, 4), "sequence_model": nn.LSTM(4, batch_first=True)}, IDS), "LayerNorm": ({}, WIDE),
    "LearnedPosition": ({}, WIDE), "Linear": ({"features": 3}, WIDE), "LoRA": ({"layer": nn.Linear(3), "rank": 2}, WIDE),
    "MultiHeadAttention": ({"heads": 2}, WIDE), "RMSNorm": ({}, WIDE), "RNN": ({"hidden": 3}, WIDE), "RelativePosition": ({}, None),
    "Residual": ({"body": nn.relu}, WIDE), "RotaryPosition": ({}, lambda: gc.ones((1, 2, 3, 4))),
    "Seq2Seq": ({"encoder": nn.Embedding(5, 4) >> nn.LSTM(4, batch_first=True), "decoder": nn.LSTM(4)}, None),
    "Sequential": ({}, WIDE), "SinusoidalPosition": ({}, WIDE), "TransformerBlock": ({"heads": 2}, WIDE), "Module": ({}, WIDE),
}
VOLUME = lambda: gc.ones((1, 2, 3, 4, 5))
LAYERS |= {
    "Identity": ({}, WIDE), "Unflatten": ({"axis": 2, "sizes": (2, 2)}, WIDE), "PixelShuffle": ({"upscale_factor": 1}, IMAGE),
    "PixelUnshuffle": ({"downscale_factor": 2}, IMAGE), "ChannelShuffle": ({"groups": 2}, IMAGE), "Unfold": ({"kernel": 2}, IMAGE),
    "Fold": ({"size": 4, "kernel": 2}, lambda: gc.ones((1, 4, 9))), "Upsample": ({"size": 3}, IMAGE), "UpsamplingNearest2d": ({"size": 3}, IMAGE),
    "UpsamplingBilinear2d": ({"size": 3}, IMAGE), "PReLU": ({}, WIDE), "RReLU": ({}, WIDE),
    "Bilinear": ({"features": 2}, lambda: [WIDE(), WIDE()]), "CosineSimilarity": ({}, lambda: [WIDE(), WIDE()]), "PairwiseDistance": ({}, lambda: [WIDE(), WIDE()]),
    "RNNCell": ({"hidden": 3}, lambda: gc.ones((2, 4))), "LSTMCell": ({"hidden": 3}, lambda: gc.ones((2, 4))), "GRUCell": ({"hidden": 3}, lambda: gc.ones((2, 4))),
    "EmbeddingBag": ({"count": 5, "features": 4}, IDS), "AlphaDropout": ({}, WIDE), "FeatureAlphaDropout": ({}, WIDE),
    "Dropout1d": ({}, WIDE), "Dropout2d": ({}, IMAGE), "Dropout3d": ({}, VOLUME),
    "BatchNorm3d": ({}, VOLUME), "InstanceNorm1d": ({}, LONG), "InstanceNorm2d": ({}, IMAGE),
    "AdaptiveLogSoftmaxWithLoss": ({"classes": 6, "cutoffs": [2]}, lambda: [gc.ones((3, 8)), gc.iota((3,))]),
    "FractionalMaxPool2d": ({"kernel": 2, "size": 2}, IMAGE), "FractionalMaxPool3d": ({"kernel": 2, "size": 2}, VOLUME),
    "InstanceNorm3d": ({}, VOLUME), "LocalResponseNorm": ({"size": 2}, IMAGE)}
LAYERS |= {f"{kind}Pad{n}d": ({"padding": 1, **({"value": 0.5} if kind == "Constant" else {})}, data) for kind in ("Constant", "Zero", "Reflection", "Replication", "Circular")
           for n, data in ((1, LONG), (2, IMAGE), (3, VOLUME))}
INITIALIZERS = {**dict.fromkeys("KaimingNormal KaimingUniform LecunNormal Orthogonal Sparse TruncNormal XavierNormal Eye".split(), {}),
                "Constant": {"value": 1.0}, "Normal": {}, "Uniform": {"bound": 1.0}, "Value": {"array": 1.0}, "XavierUniform": {}}
FUNCTIONS = {                                               # of arrays; `x` is f32[3, 4]
    "accuracy": lambda x: {"logits": x, "target": gc.iota((3,))}, "bce": lambda x: {"logits": x, "target": x},
    "cross_entropy": lambda x: {"logits": x, "target": gc.iota((3,))}, "likeliest": lambda x: {"scores": x},
    "log_likelihood": lambda x: {"logits": gc.stack([x, x]), "target": gc.zeros((2, 3), gc.i64)}, "mse": lambda x: {"y": x, "target": x},
    "add_lora": lambda x: {"net": nn.Linear(3), "rank": 2}, "residual": lambda x: {"body": nn.relu}, "sample": lambda x: {"scores": x},
    "sequence_loss": lambda x: {"y": gc.stack([x, x]), "target": gc.zeros((2, 3), gc.i64)},
}
FUNCTIONS |= {name: lambda x: {"input": x, "target": x} for name in (
    "l1_loss", "huber_loss", "smooth_l1_loss", "log_cosh_loss", "kl_div", "poisson_nll_loss", "binary_cross_entropy", "sigmoid_focal_loss", "dice_loss",
    "soft_margin_loss", "hinge_embedding_loss", "multilabel_soft_margin_loss")}
FUNCTIONS |= {
    "gaussian_nll_loss": lambda x: {"input": x, "target": x, "var": 1.0}, "multi_margin_loss": lambda x: {"input": x, "target": gc.iota((3,))},
    "nll_loss": lambda x: {"input": x, "target": gc.iota((3,))}, "multilabel_margin_loss": lambda x: {"input": x, "target": gc.zeros((3, 4), gc.i64)},
    "margin_ranking_loss": lambda x: {"input1": x, "input2": x, "target": x}, "cosine_embedding_loss": lambda x: {"input1": x, "input2": x, "target": x[:, 0]},
    "triplet_margin_loss": lambda x: {"anchor": x, "positive": x, "negative": x},
    "triplet_margin_with_distance_loss": lambda x: {"anchor": x, "positive": x, "negative": x},
}
ACTIVATIONS = {"celu", "glu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "logsigmoid", "mish", "relu6", "selu", "softmin", "softshrink", "softsign",
               "tanhshrink", "threshold",
               "elu", "gelu", "leaky_relu", "log_softmax", "relu", "sigmoid", "silu", "softmax", "softplus", "tanh"}
OTHERS = {"spectral_norm", "weight_norm", "Parameter", "decoding", "Dirac", "calculate_gain", "ctc_loss"}                          # made by layers; without arguments
OPTIMIZERS = {"SGD": {"lr": 0.1}, **dict.fromkeys("ScheduleFreeSGD ScheduleFreeAdamW ASGD Adadelta Adafactor Adagrad Adam AdamW Adamax LAMB Lion Muon NAdam RAdam RMSprop Rprop LBFGS".split(), {})}
SCHEDULES = {"constant": {"lr": 0.1}, "cosine": {"lr": 0.1, "steps": 5}, "exponential": {"lr": 0.1, "factor": 0.5}, "step_decay": {"lr": 0.1, "every": 2},
             "warmup": {"schedule": 0.1, "steps": 3}, "linear": {"lr": 0.1, "steps": 3}, "polynomial": {"lr": 0.1, "steps": 3},
             "multi_step": {"lr": 0.1, "milestones": [2]}, "cosine_restarts": {"lr": 0.1, "steps": 2}, "one_cycle": {"lr": 0.1, "steps": 9},
             "cyclic": {"low": 0.1, "high": 0.2}, "inverse_sqrt": {"lr": 0.1, "steps": 3},
             "sequential": {"schedules": [0.1, 0.2], "milestones": [3]}}
PARTS = {"as_like", "averages", "from_torch", "Group", "Item", "Optimizer", "Slots", "apply", "global_norm", "group", "hyperparameters", "is_schedule",
         "no_decay", "schedule"}        # of optimizers


def public(module):
    return {n for n, v in ((n, getattr(module, n)) for n in dir(module)) if not n.startswith("_") and callable(v) and getattr(v, "__module__", "").startswith("graphc.")}


def test_nothing_is_left_out():
    assert public(nn) == LAYERS.keys() | INITIALIZERS.keys() | FUNCTIONS.keys() | ACTIVATIONS | OTHERS
    assert {n for n in public(optim) if getattr(optim, n).__module__.startswith("graphc.optim.")} == OPTIMIZERS.keys() | SCHEDULES.keys() | PARTS


def everything(function, use):
    """What `use(argument, value, x)` does wrong for every argument of the function."""
    bad = []
    for argument, parameter in inspect.signature(function).parameters.items():
        for value in VALUES:
            if parameter.kind is parameter.VAR_KEYWORD or re.search("Callable|Schedule|Where", str(parameter.annotation)) and callable(value):
                continue
            name = f"*{argument}" if parameter.kind is parameter.VAR_POSITIONAL else argument
            found = wrong(lambda value, x, i, b, name=name: use(name, value, x), value)
            bad += [f"{name}={shown(value)}: {found}"] if found else []
    assert not bad, "\n".join(bad)


def made(function, given, argument, value):
    return function(value, value) if argument.startswith("*") else function(**given | {argument: value})


@pytest.mark.parametrize("name", sorted(LAYERS.keys() - {"Module"}))
def test_layers(name):
    needed, data = LAYERS[name]

    def use(argument, value, x):
        layer = made(getattr(nn, name), needed, argument, value)
        if data is not None:
            given = data()
            layer(*given) if isinstance(given, list) else layer(given)
    everything(getattr(nn, name), use)


@pytest.mark.parametrize("name", sorted(LAYERS.keys() - {"Module", "Seq2Seq", "RelativePosition"}))
def test_the_layer_itself_is_right(name):
    needed, data = LAYERS[name]
    made = []

    def use(value, x, i, b):
        given = data()
        made.append(getattr(nn, name)(**needed)(*given if isinstance(given, list) else [given]))
    assert wrong(use, None) is None and made


@pytest.mark.parametrize("name", sorted(LAYERS.keys() - {"Module", "Seq2Seq", "RelativePosition"}))
def test_inputs_of_layers(name):
    layer = getattr(nn, name)
    needed = LAYERS[name][0]
    bad = [f"{shown(value)}: {found}" for value in VALUES if (found := wrong(lambda value, x, i, b: layer(**needed)(value), value))]
    assert not bad, "\n".join(bad)


@pytest.mark.parametrize("name", sorted(INITIALIZERS))
def test_initializers(name):
    random = np.random.default_rng(0)
    with np.errstate(over="ignore"):
        everything(getattr(nn, name), lambda argument, value, x: np.asarray(made(getattr(nn, name), INITIALIZERS[name], argument, value)(random, (2, 3)), np.float32))


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_functions(name):
    everything(getattr(nn, name), lambda argument, value, x: made(getattr(nn, name), FUNCTIONS[name](x), argument, value))


class Kept:
    """Slots that start as zeros."""
    def __init__(self, like):
        self.like = like

    def read(self, slot, shape):
        return gc.zeros(shape, self.like.dtype)

    def write(self, slot, value):
        assert value.dtype == self.like.dtype


def stepped(optimizer, x):
    optim.apply(optimizer, [optim.Item("w", x, x * 2, Kept(x))], gc.zeros((), gc.i64))


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_optimizers(name):
    everything(getattr(optim, name), lambda argument, value, x: stepped(made(getattr(optim, name), OPTIMIZERS[name], argument, value), x))


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_schedules(name):
    everything(getattr(optim, name), lambda argument, value, x: stepped(optim.SGD(made(getattr(optim, name), SCHEDULES[name], argument, value)), x))


def option_of_a_group(value: "float | Schedule"):
    """Has the one argument that is varied."""


def test_groups():
    everything(optim.no_decay, lambda argument, value, x: stepped(optim.AdamW(groups=[optim.no_decay(value)]), x))
    for option in ("lr", "weight_decay", "betas", "eps"):
        everything(option_of_a_group, lambda argument, value, x: stepped(optim.AdamW(groups=[optim.group(lambda name, shape: True, **{option: value})]), x))
