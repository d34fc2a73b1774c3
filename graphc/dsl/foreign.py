"""What users of numpy and torch write by habit, and graphc's name for it."""
from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping
from typing import NoReturn

import numpy as np

from graphc.errors import GraphError
from graphc.ir.types import DType
from graphc.records import dataclass

# numpy functions whose name differs
FUNCTIONS: dict[str, str] = {
    "concatenate": "concat", "absolute": "abs", "fabs": "abs", "power": "pow", "float_power": "pow", "negative": "neg",
    "rint": "round",
    "around": "round", "matvec": "matmul", "vecmat": "matmul", "vecdot": "einsum",
    "amax": "max", "amin": "min", "copyto": "where", "invert": "bitwise_not",
    "divide": "div",
    "floor_divide": "floordiv", "remainder": "mod", "multiply": "mul", "subtract": "sub", "array": "stack",
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arctan2": "atan2", "arcsinh": "asinh", "arccosh": "acosh",
    "arctanh": "atanh"}
UNLIKE = frozenset({"cond"})        # numpy's names of something else: the condition of a matrix is no branch

# methods of torch's tensors
METHODS: dict[str, str] = {
    "unsqueeze": "expand_dims", "permute": "transpose", "detach": "stop_gradient",
    "masked_fill": "where", "mm": "matmul",
    "bmm": "matmul", "expand": "broadcast_to", "amax": "max", "amin": "min", "chunk": "split", "index_select": "take",
    "scatter_add_": "scatter_add", "float": "cast", "long": "cast", "to": "cast", "type_as": "cast",
    "repeat_interleave": "repeat"}

# the arguments of torch's layers, optimizers and functions in their order, by the names of their counterparts here
_CONV = "in_channels out_channels kernel_size stride padding dilation groups bias padding_mode"
_BATCH_NORM = "num_features eps momentum affine track_running_stats"
_CONV_TRANSPOSE = "in_channels out_channels kernel_size stride padding output_padding groups bias dilation padding_mode"
_LP_POOL = "norm_type kernel_size stride ceil_mode"
_MAX_POOL = "kernel_size stride padding dilation return_indices ceil_mode"
_AVG_POOL = "kernel_size stride padding ceil_mode count_include_pad"
_RECURRENT = "input_size hidden_size num_layers bias batch_first dropout bidirectional proj_size"
_BLOCK = "d_model nhead dim_feedforward dropout activation layer_norm_eps batch_first norm_first bias"
_ADAM = "params lr betas eps weight_decay amsgrad"
_REDUCE = "size_average reduce reduction"
ORDERS: dict[str, str] = {
    "Linear": "in_features out_features bias",
    "Embedding": "num_embeddings embedding_dim padding_idx max_norm norm_type scale_grad_by_freq sparse",
    "EmbeddingBag": "num_embeddings embedding_dim max_norm norm_type scale_grad_by_freq mode sparse "
                    "include_last_offset padding_idx",
    **dict.fromkeys(("InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d", "BatchNorm3d"), _BATCH_NORM),
    **dict.fromkeys(("Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout"), "p inplace"),
    "RNNCell": "input_size hidden_size bias nonlinearity", "LSTMCell": "input_size hidden_size bias",
    "GRUCell": "input_size hidden_size bias", "Bilinear": "in1_features in2_features out_features bias",
    "CosineSimilarity": "dim eps", "PairwiseDistance": "p eps keepdim", "RReLU": "lower upper inplace",
    "Unflatten": "dim unflattened_size", "Unfold": "kernel_size dilation padding stride",
    "Fold": "output_size kernel_size dilation padding stride",
    "Flatten": "start_dim end_dim",
    **{f"{name}{axes}d": order for axes in (1, 2, 3) for name, order in (
        ("Conv", _CONV), ("ConvTranspose", _CONV_TRANSPOSE), ("MaxPool", _MAX_POOL),
        ("AvgPool", f"{_AVG_POOL}{' divisor_override' * (axes > 1)}"), ("LPPool", _LP_POOL),
        ("AdaptiveAvgPool", "output_size"), ("AdaptiveMaxPool", "output_size return_indices"),
        ("MaxUnpool", "kernel_size stride padding"))},
    "BatchNorm1d": _BATCH_NORM, "BatchNorm2d": _BATCH_NORM, "LayerNorm": "normalized_shape eps elementwise_affine bias",
    "RMSNorm": "normalized_shape eps elementwise_affine", "GroupNorm": "num_groups num_channels eps affine",
    "Dropout": "p inplace",
    "RNN": "input_size hidden_size num_layers nonlinearity bias batch_first dropout bidirectional",
    "LSTM": _RECURRENT, "GRU": _RECURRENT,
    "MultiHeadAttention": "embed_dim num_heads dropout bias add_bias_kv add_zero_attn kdim vdim batch_first",
    "TransformerBlock": _BLOCK, "DecoderBlock": _BLOCK,
    "SGD": "params lr momentum dampening weight_decay nesterov", "Adam": _ADAM, "AdamW": _ADAM,
    "RMSprop": "params lr alpha eps weight_decay momentum centered",
    "Adadelta": "params lr rho eps weight_decay", "Adafactor": "params lr beta2_decay eps d weight_decay",
    "Adagrad": "params lr lr_decay weight_decay initial_accumulator_value eps",
    "Adamax": "params lr betas eps weight_decay", "ASGD": "params lr lambd alpha t0 weight_decay",
    "Muon": "params lr weight_decay momentum nesterov ns_coefficients eps ns_steps adjust_lr_fn",
    "NAdam": "params lr betas eps weight_decay momentum_decay decoupled_weight_decay",
    "RAdam": "params lr betas eps weight_decay decoupled_weight_decay", "Rprop": "params lr etas step_sizes",
    "Lion": "params lr betas weight_decay",
    "LBFGS": "params lr max_iter max_eval tolerance_grad tolerance_change history_size line_search_fn",
    "ScheduleFreeSGD": "params lr momentum weight_decay",
    "ScheduleFreeAdamW": "params lr betas eps weight_decay", "LAMB": "params lr betas eps weight_decay",
    "AdaptiveLogSoftmaxWithLoss": "in_features n_classes cutoffs div_value head_bias",
    **dict.fromkeys(("FractionalMaxPool2d", "FractionalMaxPool3d"),
                    "kernel_size output_size output_ratio return_indices _random_samples"),
    "cross_entropy": "logits target weight size_average ignore_index reduce reduction label_smoothing",
    "mse": "y target size_average reduce reduction weight",
    "l1_loss": f"input target {_REDUCE}", "soft_margin_loss": f"input target {_REDUCE}",
    "huber_loss": "input target reduction delta", "smooth_l1_loss": f"input target {_REDUCE} beta",
    "kl_div": f"input target {_REDUCE} log_target",
    "nll_loss": "input target weight size_average ignore_index reduce reduction",
    "poisson_nll_loss": "input target log_input full size_average eps reduce reduction",
    "gaussian_nll_loss": "input target var full eps reduction",
    "binary_cross_entropy": f"input target weight {_REDUCE}", "multilabel_margin_loss": f"input target {_REDUCE}",
    "multilabel_soft_margin_loss": f"input target weight {_REDUCE}",
    "hinge_embedding_loss": f"input target margin {_REDUCE}",
    "margin_ranking_loss": f"input1 input2 target margin {_REDUCE}",
    "cosine_embedding_loss": f"input1 input2 target margin {_REDUCE}",
    "triplet_margin_loss": f"anchor positive negative margin p eps swap {_REDUCE}",
    "multi_margin_loss": f"input target p margin weight {_REDUCE}",
    "sigmoid_focal_loss": "input target alpha gamma reduction", "relu6": "x inplace", "celu": "x alpha inplace",
    "selu": "x inplace", "mish": "x inplace", "hardsigmoid": "x inplace", "hardswish": "x inplace",
    "hardtanh": "x min_val max_val inplace", "threshold": "x threshold value inplace",
    "softmin": "x dim", "glu": "x dim", "hardshrink": "x lambd", "softshrink": "x lambd",
    "bce": "logits target weight size_average reduce reduction pos_weight",
    "relu": "x inplace", "leaky_relu": "x negative_slope inplace", "elu": "x alpha inplace", "silu": "x inplace",
    "gelu": "x approximate",
    "softplus": "x beta threshold", "dropout": "x p training inplace", "attention": "q k v mask dropout_p causal scale",
    **{f"{name}{axes}d": f"x {order}" for axes in (1, 2, 3) for name, order in (
        ("lp_pool", _LP_POOL), ("max_pool", "kernel_size stride padding dilation ceil_mode return_indices"),
        ("avg_pool", f"{_AVG_POOL}{' divisor_override' * (axes > 1)}"))},
    "layer_norm": "x normalized_shape gamma beta eps",
    "rms_norm": "x normalized_shape gamma eps", "group_norm": "x num_groups gamma beta eps", "softmax": "x dim",
    "log_softmax": "x dim", "topk": "x k dim largest sorted"}

# torch's names of arguments that have another here; "": there is none, as it is found in x, or means nothing here
WORDS: dict[str, str] = {
    **dict.fromkeys(("in_features", "in_channels", "input_size", "num_features", "num_channels", "embed_dim", "d_model",
                     "kdim", "vdim", "params", "in1_features", "in2_features",
                     "inplace"), ""),
    "learning_rate": "lr",
    "out_features": "features", "out_channels": "channels", "kernel_size": "kernel", "num_embeddings": "count",
    "embedding_dim": "features", "norm_type": "norm",
    "start_dim": "start_axis", "end_dim": "end_axis",
    "unflattened_size": "sizes", "output_size": "size", "elementwise_affine": "affine",
    "num_groups": "groups", "p": "rate",
    "hidden_size": "hidden", "num_layers": "layers",
    "nonlinearity": "activation", "num_heads": "heads", "nhead": "heads", "dim_feedforward": "hidden",
    "norm_first": "pre_norm", "n_classes": "classes", "_random_samples": "random_samples",
    "negative_slope": "slope", "dim": "axis", "keepdim": "keepdims", "dims": "axis", "correction": "ddof", "input": "x",
    "other": "y"}

# arguments of torch's that have no counterpart, of all or of one ("Name.argument"), and the value that they have here
ONLY: dict[str, object] = {
    "include_last_offset": False, **{f"ConvTranspose{axes}d.padding_mode": "zeros" for axes in (1, 2, 3)},
    "divisor_override": None, "track_running_stats": True, "proj_size": 0, "padding_idx": None, "max_norm": None,
    "Embedding.norm_type": 2.0, "EmbeddingBag.norm_type": 2.0,
    "scale_grad_by_freq": False, "sparse": False, "weight": None, "pos_weight": None, "size_average": None,
    "reduce": None, "dampening": 0,
    "amsgrad": False, "centered": False, "threshold": 20, "layer_norm_eps": 1e-5, "add_bias_kv": False,
    "add_zero_attn": False,
    "topk.largest": True, "topk.sorted": True, "unbiased": False, "out": None, "where": None, "training": True,
    "dropout_p": 0.0, "LayerNorm.bias": True,
    "RMSNorm.elementwise_affine": True, "GroupNorm.affine": True,
    "MultiHeadAttention.dropout": 0.0, "MultiHeadAttention.batch_first": True, "TransformerBlock.batch_first": True,
    "DecoderBlock.batch_first": True, "TransformerBlock.bias": True, "DecoderBlock.bias": True,
    "max_iter": 1, "max_eval": None, "tolerance_grad": 1e-7, "line_search_fn": None}


@dataclass(frozen=True)
class ForeignCall:
    """A call by the user: of what, with which arguments by position and by name."""
    name: str
    args: tuple
    options: Mapping[str, object]


def translated(call: ForeignCall, own: Collection[str]) -> Iterator[tuple[ForeignCall, list[str]]]:
    """What a call with torch's arguments may be here, with torch's order, then with this one's; each with the names
    of those without a counterpart. `own`: names of arguments that mean the same here."""
    order = ORDERS.get(call.name, "").split()
    if order[:1] == ["params"] and call.args and isinstance(call.args[0], (int, float)):
        order = order[1:]
    if len(call.args) <= len(order):
        yield _renamed(call, (), {**dict(zip(order, call.args)), **call.options}, own)
    yield _renamed(call, call.args, call.options, own)


def _renamed(call: ForeignCall, args: tuple, named: Mapping[str, object],
             own: Collection[str]) -> tuple[ForeignCall, list[str]]:
    options: dict[str, object] = {}
    without: list[str] = []
    for word, value in named.items():
        keys = (f"{call.name}.{word}", *(() if word in own else (word,)))
        alone = next((key for key in keys if key in ONLY), None)
        if word == "normalized_shape":
            options |= {"axes": len(value)} if isinstance(value, (tuple, list)) and len(value) > 1 else {}
        elif alone is not None:
            without += [] if repr(value) == repr(ONLY[alone]) else [word]
        elif word in own:
            options[word] = value
        elif WORDS.get(word, word):
            options[WORDS.get(word, word)] = value
    return ForeignCall(call.name, args, options), without


def refuse(function: str) -> NoReturn:
    """GraphError for a numpy function on a symbolic array."""
    name = FUNCTIONS.get(function, function)
    same = function not in UNLIKE and _public(name)
    hint = f"use gc.{name}" if same else "write it with graphc's functions, or compute it outside the graph"
    raise GraphError(f"numpy's {function} cannot work on a symbolic array: {hint}")


def no_method(name: str) -> str:
    """The message for an attribute that arrays do not have."""
    here = METHODS.get(name, name)
    return f"a symbolic array has no attribute {name!r}" + (f": use gc.{here}(x, …)" if _public(here) else "")


def no_view(form: tuple[object, ...]) -> str:
    """The message for x.view(*form), which asks for sizes, or for the bits as another dtype."""
    asks_bits = len(form) == 1 and (isinstance(form[0], DType | np.dtype | type | str)
                                    or type(form[0]).__name__ == "dtype")       # torch's
    return ("a symbolic array has no view(dtype): use gc.bitcast(x, dtype) for its bits, x.astype(dtype) for numbers"
            if asks_bits else "a symbolic array has no view: use gc.reshape(x, …)")


def _public(name: str) -> bool:
    return hasattr(sys.modules["graphc"], name)
