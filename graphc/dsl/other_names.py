"""Names that people know from PyTorch, numpy and JAX, and what to write here: the answer to an attribute that graphc,
graphc.nn or graphc.optim does not have.

Names that differ by capitals, underscores or "Loss" alone are found by themselves: `nn.LeakyReLU` is `nn.leaky_relu`.
"""
from __future__ import annotations

import sys
from collections.abc import Iterator
from difflib import get_close_matches
from types import ModuleType

from graphc.dsl.array_names import ARRAY_NAMES
from graphc.dsl.foreign import FUNCTIONS

# where a name of each place may be found here, the likeliest first
PLACES: dict[str, tuple[str, ...]] = {
    "gc": ("gc", "nn", "optim"), "gc.linalg": ("gc",), "gc.random": ("gc",), "gc.special": ("gc",),
    "nn": ("nn", "gc", "optim"), "nn.functional": ("gc", "nn"), "nn.init": ("nn",),
    "nn.utils": ("optim", "nn", "gc"), "optim": ("optim", "nn", "gc"), "optim.lr_scheduler": ("optim",),
    "optim.swa_utils": ("optim",), "metrics": ("metrics", "nn"), "callbacks": ("callbacks",), "models": ("models",)}
NOT_HERE = "no "                    # begins the reason why there is none

_QUANTISED = "no counterpart: quantised products and products of groups of matrices are not public"
_LAZY = "no need: all layers find the sizes of their inputs at the first call"
_SPACE = "no need: graphs are not changed in place"
# place.name: what to write, or why there is none
ANSWERS: dict[str, str] = {
    # torch.nn
    "nn.BCELoss": "nn.binary_cross_entropy, of probabilities; nn.bce takes logits",
    "nn.BCEWithLogitsLoss": "nn.bce", "nn.binary_cross_entropy_with_logits": "nn.bce",
    "nn.NLLLoss2d": "nn.nll_loss(…, axis=1)", "nn.Softmax2d": "nn.softmax(axis=1)",
    "nn.Sigmoid": "nn.sigmoid", "nn.CrossMapLRN2d": "nn.LocalResponseNorm",
    "nn.TransformerEncoderLayer": "nn.TransformerBlock(heads, activation=\"relu\")",
    "nn.TransformerDecoderLayer": "nn.DecoderBlock(heads, activation=\"relu\")",
    "nn.TransformerEncoder": "nn.TransformerBlock(heads) ** layers",
    "nn.TransformerDecoder": "nn.DecoderBlock(heads) ** layers",
    "nn.Transformer": "nn.Seq2Seq(embed >> nn.TransformerBlock(heads) ** n, nn.DecoderBlock(heads) ** n, output)",
    "nn.ModuleList": "a Python list as an attribute of the layer", "nn.ModuleDict": "a Python dict as an attribute",
    "nn.ParameterList": "self.parameter(f\"weight_{i}\", shape, init) in forward",
    "nn.ParameterDict": "self.parameter(name, shape, init) in forward", "nn.Container": "nn.Module",
    "nn.Buffer": "self.buffer(name, shape, init) in forward", "nn.RNNBase": "nn.RNN, nn.LSTM or nn.GRU",
    "nn.RNNCellBase": "nn.RNNCell, nn.LSTMCell or nn.GRUCell",
    "nn.DataParallel": "gc.compile(…, threads=n): one call uses several cores by itself",
    "nn.SyncBatchNorm": "nn.BatchNorm2d: one process sees the whole batch",
    "nn.UninitializedParameter": _LAZY, "nn.UninitializedBuffer": _LAZY,
    "nn.LinearCrossEntropyLoss": "nn.Linear(classes), then nn.cross_entropy: the graph is fused as a whole",
    "nn.LinearCrossEntropyOptions": "nn.Linear(classes), then nn.cross_entropy",
    **{f"nn.Lazy{name}": f"the layer without Lazy: {_LAZY}" for name in (
        "Linear", *(f"{kind}{n}d" for n in (1, 2, 3)
                    for kind in ("Conv", "ConvTranspose", "BatchNorm", "InstanceNorm")))},
    # torch.nn.functional
    "nn.functional.linear": "x @ weight.T + bias", "nn.functional.mse_loss": "nn.mse",
    "nn.functional.binary_cross_entropy_with_logits": "nn.bce",
    "nn.functional.scaled_dot_product_attention": "gc.attention", "nn.functional.instance_norm": "nn.InstanceNorm2d",
    "nn.functional.multi_head_attention_forward": "nn.MultiHeadAttention",
    "nn.functional.linear_cross_entropy": "nn.cross_entropy(x @ weight.T + bias, target)",
    "nn.functional.bilinear": "nn.Bilinear, or gc.einsum of two products",
    "nn.functional.conv_tbc": "gc.conv1d of x.transpose(1, 2, 0)", "nn.functional.embedding_bag": "nn.EmbeddingBag",
    "nn.functional.local_response_norm": "nn.LocalResponseNorm", "nn.functional.rrelu": "nn.RReLU",
    "nn.functional.alpha_dropout": "nn.AlphaDropout", "nn.functional.feature_alpha_dropout": "nn.FeatureAlphaDropout",
    "nn.functional.native_channel_shuffle": "gc.channel_shuffle", "nn.functional.upsample": "gc.interpolate",
    "nn.functional.upsample_nearest": "gc.interpolate",
    "nn.functional.upsample_bilinear": "gc.interpolate(x, size, mode=\"bilinear\", align_corners=True)",
    "nn.functional.grouped_mm": _QUANTISED,
    "nn.functional.scaled_mm": _QUANTISED, "nn.functional.scaled_grouped_mm": _QUANTISED,
    **{f"nn.functional.{kind}max_pool{n}d_with_indices": f"gc.{kind}max_pool{n}d(…, return_indices=True)"
       for kind in ("", "adaptive_") for n in (1, 2, 3)},
    **{f"nn.functional.fractional_max_pool{n}d_with_indices": f"gc.fractional_max_pool{n}d(…, return_indices=True)"
       for n in (2, 3)},
    # torch.nn.init, torch.nn.utils
    "nn.init.ones_": "nn.Constant(1.0)", "nn.init.zeros_": "nn.Constant(0.0)",
    "nn.utils.clip_grad_norm_": "the option clip_norm= of the optimizer",
    "nn.utils.clip_grad_norm": "the option clip_norm= of the optimizer",
    "nn.utils.clip_grads_with_norm_": "the option clip_norm= of the optimizer",
    "nn.utils.clip_grad_value_": "the option clip_value= of the optimizer",
    "nn.utils.get_total_norm": "optim.global_norm",
    "nn.utils.parameters_to_vector": "np.concatenate([a.ravel() for a in step.state.values()])",
    "nn.utils.vector_to_parameters": "step.state[name] = array",
    "nn.utils.parametrizations": "nn.weight_norm, nn.spectral_norm; an orthogonal one: gc.qr in a layer of your own",
    "nn.utils.remove_weight_norm": _SPACE, "nn.utils.remove_spectral_norm": _SPACE,
    "nn.utils.skip_init": "gc.compile(…, state=file): first values are made when a state is",
    **{f"nn.utils.{name}": "no need: gc.compile folds and orders weights itself" for name in (
        "convert_conv2d_weight_memory_format", "convert_conv3d_weight_memory_format", "fuse_conv_bn_eval",
        "fuse_conv_bn_weights", "fuse_linear_bn_eval", "fuse_linear_bn_weights")},
    "nn.utils.rnn": "lengths= of the layers: nn.LSTM(20)(x, lengths=n)",
    # torch.optim
    "optim.SparseAdam": "optim.Adam: gradients of nn.Embedding are sparse where that is the same",
    "optim.lr_scheduler.StepLR": "optim.step_decay(lr, every, factor)",
    "optim.lr_scheduler.MultiStepLR": "optim.multi_step(lr, milestones, factor)",
    "optim.lr_scheduler.ConstantLR": "optim.constant(lr, factor, steps)",
    "optim.lr_scheduler.LinearLR": "optim.linear(lr, steps, start, final)",
    "optim.lr_scheduler.ExponentialLR": "optim.exponential(lr, factor)",
    "optim.lr_scheduler.PolynomialLR": "optim.polynomial(lr, steps, power)",
    "optim.lr_scheduler.CosineAnnealingLR": "optim.cosine(lr, steps, final)",
    "optim.lr_scheduler.CosineAnnealingWarmRestarts": "optim.cosine_restarts(lr, steps, growth, final)",
    "optim.lr_scheduler.OneCycleLR": "optim.one_cycle(lr, steps)",
    "optim.lr_scheduler.CyclicLR": "optim.cyclic(low, high, up)",
    "optim.lr_scheduler.SequentialLR": "optim.sequential(schedules, milestones)",
    "optim.lr_scheduler.ChainedScheduler": "a function of the schedules: lambda step: first(step) * second(step) / lr",
    "optim.lr_scheduler.LambdaLR": "any function of the number of updates: lr=lambda step: 0.1 / (step + 1)",
    "optim.lr_scheduler.MultiplicativeLR": "optim.exponential(lr, factor), or a function of the number of updates",
    "optim.lr_scheduler.ReduceLROnPlateau": "no schedule: it depends on the losses; train in stages, a step for each",
    "optim.lr_scheduler.LRScheduler": "a function of the number of updates (docs/extending.md)",
    "optim.swa_utils.AveragedModel": "optim.ASGD, whose slot is a mean: optim.averages(step.state, \"ax\")",
    "optim.swa_utils.SWALR": "optim.sequential", "optim.swa_utils.update_bn": "no need: running statistics are state",
    **{f"gc.{name}": answer for name, answer in ARRAY_NAMES.items()},
    # numpy.random, jax.random, scipy.special
    **dict.fromkeys((f"gc.random.{name}" for name in ("seed", "PRNGKey", "key", "split", "fold_in", "default_rng")),
                    "seed= of gc.compile and gc.train_step: each call draws anew, and each place apart"),
    "gc.random.categorical": "gc.argmax(logits - gc.log(-gc.log(gc.uniform(logits.shape))), axis=-1)",
    "gc.random.choice": "gc.take(x, gc.floor(gc.uniform(shape) * len(x)).astype(gc.i64), axis=0)",
    "gc.random.shuffle": "gc.take(x, gc.permutation(n), axis=0)",
    "gc.random.exponential": "-gc.log(1 - gc.uniform(shape))",
    "gc.special.gammaln": "gc.lgamma", "gc.special.expit": "gc.sigmoid",
    # keras, flax, optax
    "nn.Dense": "nn.Linear", "nn.Embed": "nn.Embedding",
    "nn.Input": "the types of inputs: gc.compile(net, x=gc.f32[…])",
    "nn.Activation": "nn.relu and its like", "nn.Lambda": "any function of arrays", "nn.SimpleRNN": "nn.RNN",
    "nn.Reshape": "a function of arrays: lambda x: gc.reshape(x, shape)",
    "nn.Permute": "a function of arrays: lambda x: gc.transpose(x, axes)", "nn.Concatenate": "gc.concat",
    "nn.Add": "nn.residual, or + in a function", "nn.Bidirectional": "the option: nn.LSTM(64, bidirectional=True)",
    "nn.TimeDistributed": "the layer itself: nn.Linear works on the last axis",
    "nn.Conv": "nn.Conv2d", "nn.LayerNormalization": "nn.LayerNorm",
    **dict.fromkeys(("nn.BatchNormalization", "nn.BatchNorm"), "nn.BatchNorm1d, nn.BatchNorm2d or nn.BatchNorm3d"),
    "nn.GroupNormalization": "nn.GroupNorm", "nn.RMSNormalization": "nn.RMSNorm",
    "nn.MultiHeadDotProductAttention": "nn.MultiHeadAttention",
    "nn.GlobalAveragePooling1D": "nn.Collapse(\"average\")", "nn.GlobalAveragePooling2D": "nn.GlobalAvgPool2d",
    "nn.DepthwiseConv2D": "nn.Conv2d(…, groups=channels)",
    **{f"nn.{there}{n}D": f"nn.{here}{n}d" for n in (1, 2, 3) for there, here in (
        ("MaxPooling", "MaxPool"), ("AveragePooling", "AvgPool"), ("SpatialDropout", "Dropout"),
        ("ZeroPadding", "ZeroPad"))},
    **{f"nn.UpSampling{n}D": "nn.Upsample" for n in (1, 2, 3)},
    **{f"nn.Conv{n}DTranspose": f"nn.ConvTranspose{n}d" for n in (1, 2, 3)},
    "nn.SparseCategoricalCrossentropy": "nn.cross_entropy", "nn.CategoricalCrossentropy": "nn.cross_entropy",
    "nn.BinaryCrossentropy": "nn.bce", "nn.MeanSquaredError": "nn.mse", "nn.MeanAbsoluteError": "nn.l1_loss",
    "optim.CosineDecay": "optim.cosine(lr, steps)", "optim.ExponentialDecay": "optim.exponential(lr, factor)",
    "optim.PiecewiseConstantDecay": "optim.multi_step(lr, milestones, factor)",
    "optim.PolynomialDecay": "optim.polynomial(lr, steps, power)",
    "optim.clip_by_global_norm": "the option clip_norm= of the optimizer",
    "metrics.F1Score": "metrics.F1", "metrics.R2Score": "metrics.R2", "metrics.RMSE": "metrics.RootMeanSquaredError",
    "metrics.MSE": "metrics.MeanSquaredError", "metrics.MAE": "metrics.MeanAbsoluteError",
    **dict.fromkeys(("metrics.AUROC", "metrics.ROCAUC"), "metrics.AUC"), "metrics.Acc": "metrics.Accuracy",
    **dict.fromkeys(("metrics.TopK", "metrics.TopKCategoricalAccuracy"), "metrics.TopKAccuracy"),
    **{f"metrics.{kind}Accuracy": "metrics.Accuracy" for kind in ("Binary", "Categorical", "SparseCategorical")},
    "callbacks.ModelCheckpoint": "callbacks.Checkpoint", "callbacks.ReduceLROnPlateau": "callbacks.ReduceOnPlateau",
    "callbacks.BackupAndRestore": "callbacks.Checkpoint, and resume= of step.fit",
    "callbacks.CSVLogger": "callbacks.CSVLog", "callbacks.LearningRateScheduler": "callbacks.LearningRate",
    "callbacks.LambdaCallback": "a function (run, row)", "callbacks.History": "what step.fit returns",
    "callbacks.ProgbarLogger": "progress= of step.fit",
    "callbacks.TerminateOnNaN": "GRAPHC_CHECK_NAN=1, which names the operator that made the first NaN",
}


class OtherPlace:
    """A module of torch's, numpy's or jax's that has no counterpart as a whole; its names have."""
    __slots__ = ("_place",)

    def __init__(self, place: str) -> None:
        self._place = place

    def __getattr__(self, name: str) -> object:
        raise unknown(self._place, name)

    def __repr__(self) -> str:
        place = f"graphc.{self._place}".replace("graphc.gc", "graphc")
        return f"<names from elsewhere: {place} answers each with the one here>"


def other_name(module: str, name: str) -> OtherPlace:
    """What the attribute `name` of a module is that has none: one of PLACES; AttributeError with what to write."""
    if f"{module}.{name}" in PLACES:
        return OtherPlace(f"{module}.{name}")
    raise unknown(module, name)


def unknown(place: str, name: str) -> AttributeError:
    """The error for a name of one of PLACES, with the right one if it is known."""
    where = f"graphc.{place}".replace("graphc.gc", "graphc")
    if name.startswith("__"):               # Python asks
        return AttributeError(f"module {where!r} has no attribute {name!r}", name=name)
    text = answer(place, name)
    if text is None:
        near = list(dict.fromkeys(_near(place, name)))[:3]
        return AttributeError(f"{where} has no {name}{': did you mean ' * bool(near)}{' or '.join(near)}", name=name)
    return AttributeError(f"{where} has no {name}: {'' if text.startswith(NOT_HERE) else 'write '}{text}", name=name)


def answer(place: str, name: str) -> str | None:
    """What to write for a name of that place, or why there is none; None if it is not known."""
    known = ANSWERS.get(f"{place}.{name}") or (ANSWERS.get(f"gc.{name}") if place.startswith("gc.") else None)
    if known:
        return known
    for plain in (_plain(name), _plain(name).removesuffix("loss")):
        for module in PLACES[place]:
            found = next((n for n in _public(module) if plain in (_plain(n), _plain(n).removesuffix("loss"))), None)
            if found is not None and plain:
                return f"{module}.{found}"
    here = FUNCTIONS.get(name)
    return f"gc.{here}" if here is not None and place.startswith("gc") else None


def _near(place: str, name: str) -> Iterator[str]:
    """Names that are written nearly so."""
    for module in PLACES[place]:
        names = {n.lower(): n for n in _public(module)}
        yield from (f"{module}.{names[n]}" for n in get_close_matches(name.lower(), names, 2, 0.75))


def _public(module: str) -> list[str]:
    package = sys.modules["graphc" if module == "gc" else f"graphc.{module}"]
    return [n for n in dir(package) if not n.startswith("_")
            and (n in PLACES or not isinstance(vars(package).get(n), ModuleType))]


def _plain(name: str) -> str:
    """Without capitals and underscores."""
    return name.replace("_", "").lower()
