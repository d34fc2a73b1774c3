"""Layers. They are functions of arrays that own parameters; `>>` composes them, `**` repeats them with fresh
parameters."""
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from graphc.dsl.other_names import other_name as _other_name
from graphc.once import loaded as _loaded
from graphc.nn.activation import (
    celu, elu, gelu, glu, hardshrink, hardsigmoid, hardswish, hardtanh, leaky_relu, log_softmax, logsigmoid, mish, relu,
    relu6, selu, sigmoid, silu, softmax, softmin, softplus, softshrink, softsign, tanh, tanhshrink, threshold)
from graphc.nn.attention import Attention, MultiHeadAttention
from graphc.nn.classes import nll_loss
from graphc.nn.collapse import Collapse
from graphc.nn.conv import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from graphc.nn.decode import decoding
from graphc.nn.generate import GenerateToken, likeliest, sample
from graphc.nn.language_model import LanguageModel
from graphc.nn.linear import Embedding, EmbeddingBag, FeedForward, Flatten, Linear
from graphc.nn.loss import accuracy, bce, cross_entropy, log_likelihood, mse, sequence_loss
from graphc.nn.module import Module, Sequential
from graphc.nn.norm import (
    BatchNorm1d, BatchNorm2d, BatchNorm3d, Dropout, GroupNorm, InstanceNorm1d, InstanceNorm2d, InstanceNorm3d,
    LayerNorm, LocalResponseNorm, RMSNorm)
from graphc.nn.parameter import Constant, Normal, Parameter, Uniform, Value, XavierUniform
from graphc.nn.pool import (
    AdaptiveAvgPool1d, AdaptiveAvgPool2d, AdaptiveAvgPool3d, AdaptiveMaxPool1d, AdaptiveMaxPool2d, AdaptiveMaxPool3d,
    AvgPool1d, AvgPool2d, AvgPool3d, GlobalAvgPool2d, LPPool1d, LPPool2d, LPPool3d, MaxPool1d, MaxPool2d, MaxPool3d,
    MaxUnpool1d, MaxUnpool2d, MaxUnpool3d)
from graphc.nn.position import LearnedPosition, RelativePosition, RotaryPosition, SinusoidalPosition
from graphc.nn.recurrent import GRU, LSTM, RNN
from graphc.nn.residual import AddNorm, Residual, residual
from graphc.nn.seq2seq import AttendTo, Seq2Seq
from graphc.nn.transformer import DecoderBlock, TransformerBlock

if _TYPE_CHECKING:
    from graphc.nn.adaptive_softmax import AdaptiveLogSoftmaxWithLoss
    from graphc.nn.cells import GRUCell, LSTMCell, RNNCell
    from graphc.nn.ctc import ctc_loss
    from graphc.nn.dropouts import AlphaDropout, Dropout1d, Dropout2d, Dropout3d, FeatureAlphaDropout, RReLU
    from graphc.nn.initial import (
        Dirac, Eye, KaimingNormal, KaimingUniform, LecunNormal, Orthogonal, Sparse, TruncNormal, XavierNormal,
        calculate_gain)
    from graphc.nn.lora import LoRA, add_lora
    from graphc.nn.margins import (
        cosine_embedding_loss, hinge_embedding_loss, margin_ranking_loss, multi_margin_loss, multilabel_margin_loss,
        multilabel_soft_margin_loss, soft_margin_loss, triplet_margin_loss, triplet_margin_with_distance_loss)
    from graphc.nn.parametrized import spectral_norm, weight_norm
    from graphc.nn.pads import (
        CircularPad1d, CircularPad2d, CircularPad3d, ConstantPad1d, ConstantPad2d, ConstantPad3d, ReflectionPad1d,
        ReflectionPad2d, ReflectionPad3d, ReplicationPad1d, ReplicationPad2d, ReplicationPad3d, ZeroPad1d, ZeroPad2d,
        ZeroPad3d)
    from graphc.nn.random_pool import FractionalMaxPool2d, FractionalMaxPool3d
    from graphc.nn.rearrange import (
        ChannelShuffle, Fold, Identity, PixelShuffle, PixelUnshuffle, Unflatten, Unfold, Upsample, UpsamplingBilinear2d,
        UpsamplingNearest2d)
    from graphc.nn.regression import (
        binary_cross_entropy, dice_loss, gaussian_nll_loss, huber_loss, kl_div, l1_loss, log_cosh_loss,
        poisson_nll_loss, sigmoid_focal_loss, smooth_l1_loss)
    from graphc.nn.similarity import Bilinear, CosineSimilarity, PairwiseDistance, PReLU

_LATER = {name: f"graphc.nn.{file}" for file, names in {              # loaded at the first use
    "adaptive_softmax": "AdaptiveLogSoftmaxWithLoss", "random_pool": "FractionalMaxPool2d FractionalMaxPool3d",
    "cells": "GRUCell LSTMCell RNNCell",
    "ctc": "ctc_loss",
    "dropouts": "AlphaDropout Dropout1d Dropout2d Dropout3d FeatureAlphaDropout RReLU",
    "initial": "Dirac Eye KaimingNormal KaimingUniform LecunNormal Orthogonal Sparse TruncNormal XavierNormal "
        "calculate_gain",
    "lora": "LoRA add_lora",
    "margins": "cosine_embedding_loss hinge_embedding_loss margin_ranking_loss multi_margin_loss "
        "multilabel_margin_loss multilabel_soft_margin_loss soft_margin_loss triplet_margin_loss "
        "triplet_margin_with_distance_loss",
    "parametrized": "spectral_norm weight_norm",
    "pads": "CircularPad1d CircularPad2d CircularPad3d ConstantPad1d ConstantPad2d ConstantPad3d ReflectionPad1d "
        "ReflectionPad2d ReflectionPad3d ReplicationPad1d ReplicationPad2d ReplicationPad3d ZeroPad1d ZeroPad2d "
        "ZeroPad3d",
    "rearrange": "ChannelShuffle Fold Identity PixelShuffle PixelUnshuffle Unflatten Unfold Upsample "
        "UpsamplingBilinear2d UpsamplingNearest2d",
    "regression": "binary_cross_entropy dice_loss gaussian_nll_loss huber_loss kl_div l1_loss log_cosh_loss "
        "poisson_nll_loss sigmoid_focal_loss smooth_l1_loss",
    "similarity": "Bilinear CosineSimilarity PairwiseDistance PReLU",
}.items() for name in names.split()}


def __getattr__(name: str) -> _Any:
    if name not in _LATER:
        return _other_name("nn", name)
    return globals().setdefault(name, _loaded(_LATER[name], name))


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
