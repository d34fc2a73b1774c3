"""What users of numpy and torch write by habit, and graphc's name for it."""
from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn

from graphc.errors import GraphError

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

# methods of torch's tensors
METHODS: dict[str, str] = {
    "unsqueeze": "expand_dims", "permute": "transpose", "view": "reshape", "detach": "stop_gradient",
    "masked_fill": "where", "mm": "matmul",
    "bmm": "matmul", "expand": "broadcast_to", "amax": "max", "amin": "min", "chunk": "split", "index_select": "take",
    "scatter_add_": "scatter_add", "float": "cast", "long": "cast", "to": "cast", "type_as": "cast",
    "repeat_interleave": "repeat"}

# the arguments of torch's layers, optimizers and functions in their order, by the names of their counterparts here
_CONV = "in_channels out_channels kernel_size stride padding dilation groups bias padding_mode"
_BATCH_NORM = "num_features eps momentum affine track_running_stats"
_MAX_POOL = "kernel_size stride padding dilation return_indices ceil_mode"
_AVG_POOL = "kernel_size stride padding ceil_mode count_include_pad"
_RECURRENT = "input_size hidden_size num_layers bias batch_first dropout bidirectional proj_size"
_BLOCK = "d_model nhead dim_feedforward dropout activation layer_norm_eps batch_first norm_first bias"
_ADAM = "params lr betas eps weight_decay amsgrad"
ORDERS: dict[str, str] = {
    "Linear": "in_features out_features bias",
    "Embedding": "num_embeddings embedding_dim padding_idx max_norm norm_type scale_grad_by_freq sparse",
    "Flatten": "start_dim end_dim", "Conv1d": _CONV, "Conv2d": _CONV,
    "ConvTranspose2d":
        "in_channels out_channels kernel_size stride padding output_padding groups bias dilation padding_mode",
    "MaxPool1d": _MAX_POOL, "MaxPool2d": _MAX_POOL,
    "AvgPool1d": _AVG_POOL, "AvgPool2d": f"{_AVG_POOL} divisor_override",
    "BatchNorm1d": _BATCH_NORM, "BatchNorm2d": _BATCH_NORM, "LayerNorm": "normalized_shape eps elementwise_affine bias",
    "RMSNorm": "normalized_shape eps elementwise_affine", "GroupNorm": "num_groups num_channels eps affine",
    "Dropout": "p inplace",
    "RNN": "input_size hidden_size num_layers nonlinearity bias batch_first dropout bidirectional",
    "LSTM": _RECURRENT, "GRU": _RECURRENT,
    "MultiHeadAttention": "embed_dim num_heads dropout bias add_bias_kv add_zero_attn kdim vdim batch_first",
    "TransformerBlock": _BLOCK, "DecoderBlock": _BLOCK,
    "SGD": "params lr momentum dampening weight_decay nesterov", "Adam": _ADAM, "AdamW": _ADAM,
    "RMSprop": "params lr alpha eps weight_decay momentum centered",
    "cross_entropy": "logits target weight size_average ignore_index reduce reduction label_smoothing",
    "mse": "y target size_average reduce reduction weight",
    "bce": "logits target weight size_average reduce reduction pos_weight",
    "relu": "x inplace", "leaky_relu": "x negative_slope inplace", "elu": "x alpha inplace", "silu": "x inplace",
    "gelu": "x approximate",
    "softplus": "x beta threshold", "dropout": "x p training inplace", "attention": "q k v mask dropout_p causal scale",
    "avg_pool1d": f"x {_AVG_POOL}", "avg_pool2d": f"x {_AVG_POOL} divisor_override",
    "layer_norm": "x normalized_shape gamma beta eps",
    "rms_norm": "x normalized_shape gamma eps", "group_norm": "x num_groups gamma beta eps", "softmax": "x dim",
    "log_softmax": "x dim", "topk": "x k dim largest sorted"}

# torch's names of arguments that have another here; "": there is none, as it is found in x, or means nothing here
WORDS: dict[str, str] = {
    **dict.fromkeys(("in_features", "in_channels", "input_size", "num_features", "num_channels", "embed_dim", "d_model",
                     "kdim", "vdim", "params",
                     "inplace"), ""),
    "out_features": "features", "out_channels": "channels", "kernel_size": "kernel", "num_embeddings": "count",
    "embedding_dim": "features",
    "start_dim": "start_axis", "elementwise_affine": "affine", "num_groups": "groups", "p": "rate",
    "hidden_size": "hidden", "num_layers": "layers",
    "nonlinearity": "activation", "num_heads": "heads", "nhead": "heads", "dim_feedforward": "hidden",
    "norm_first": "pre_norm",
    "negative_slope": "slope", "dim": "axis", "keepdim": "keepdims", "dims": "axis", "correction": "ddof", "input": "x",
    "other": "y"}

# arguments of torch's that have no counterpart, of all or of one ("Name.argument"), and the value that they have here
ONLY: dict[str, object] = {
    "end_dim": -1, "padding_mode": "zeros", "output_padding": 0, "return_indices": False, "ceil_mode": False,
    "AvgPool1d.count_include_pad": True, "AvgPool2d.count_include_pad": True,
    "divisor_override": None, "track_running_stats": True, "proj_size": 0, "padding_idx": None, "max_norm": None,
    "norm_type": 2.0,
    "scale_grad_by_freq": False, "sparse": False, "weight": None, "pos_weight": None, "size_average": None,
    "reduce": None, "dampening": 0,
    "amsgrad": False, "centered": False, "threshold": 20, "layer_norm_eps": 1e-5, "add_bias_kv": False,
    "add_zero_attn": False,
    "topk.largest": True, "topk.sorted": True, "unbiased": False, "out": None, "where": None, "training": True,
    "dropout_p": 0.0, "MaxPool1d.dilation": 1, "MaxPool2d.dilation": 1, "LayerNorm.bias": True,
    "RMSNorm.elementwise_affine": True, "GroupNorm.affine": True,
    "MultiHeadAttention.dropout": 0.0, "MultiHeadAttention.batch_first": True, "TransformerBlock.batch_first": True,
    "DecoderBlock.batch_first": True, "TransformerBlock.bias": True, "DecoderBlock.bias": True}


@dataclass(frozen=True)
class ForeignCall:
    """A call by the user: of what, with which arguments by position and by name."""
    name: str
    args: tuple
    options: Mapping[str, object]


def translated(call: ForeignCall) -> Iterator[tuple[ForeignCall, list[str]]]:
    """What a call with torch's arguments may be here, with torch's order, then with this one's; each with the names
    of those without a counterpart."""
    order = ORDERS.get(call.name, "").split()
    if order[:1] == ["params"] and call.args and isinstance(call.args[0], (int, float)):
        order = order[1:]
    if len(call.args) <= len(order):
        yield _renamed(call, (), {**dict(zip(order, call.args)), **call.options})
    yield _renamed(call, call.args, call.options)


def _renamed(call: ForeignCall, args: tuple, named: Mapping[str, object]) -> tuple[ForeignCall, list[str]]:
    options: dict[str, object] = {}
    without: list[str] = []
    for word, value in named.items():
        alone = next((key for key in (f"{call.name}.{word}", word) if key in ONLY), None)
        if word == "normalized_shape":
            options |= {"axes": len(value)} if isinstance(value, (tuple, list)) and len(value) > 1 else {}
        elif alone is not None:
            without += [] if repr(value) == repr(ONLY[alone]) else [word]
        elif WORDS.get(word, word):
            options[WORDS.get(word, word)] = value
    return ForeignCall(call.name, args, options), without


def refuse(function: str) -> NoReturn:
    """GraphError for a numpy function on a symbolic array."""
    name = FUNCTIONS.get(function, function)
    hint = f"use gc.{name}" if _public(name) else "write it with graphc's functions, or compute it outside the graph"
    raise GraphError(f"numpy's {function} cannot work on a symbolic array: {hint}")


def no_method(name: str) -> str:
    """The message for an attribute that arrays do not have."""
    here = METHODS.get(name, name)
    return f"a symbolic array has no attribute {name!r}" + (f": use gc.{here}(x, …)" if _public(here) else "")


def _public(name: str) -> bool:
    return hasattr(sys.modules["graphc"], name)
