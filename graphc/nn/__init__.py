"""Layers. They are functions of arrays that own parameters; `>>` composes them, `**` repeats them with fresh
parameters."""
from graphc.nn.activation import (
    celu, elu, gelu, glu, hardshrink, hardsigmoid, hardswish, hardtanh, leaky_relu, log_softmax, logsigmoid, mish, relu,
    relu6, selu, sigmoid, silu, softmax, softmin, softplus, softshrink, softsign, tanh, tanhshrink, threshold)
from graphc.nn.attention import Attention, MultiHeadAttention
from graphc.nn.classes import nll_loss
from graphc.nn.collapse import Collapse
from graphc.nn.conv import Conv1d, Conv2d, ConvTranspose2d
from graphc.nn.decode import decoding
from graphc.nn.generate import GenerateToken, likeliest, sample
from graphc.nn.language_model import LanguageModel
from graphc.nn.linear import Embedding, FeedForward, Flatten, Linear
from graphc.nn.loss import accuracy, bce, cross_entropy, log_likelihood, mse, sequence_loss
from graphc.nn.margins import (
    cosine_embedding_loss, hinge_embedding_loss, margin_ranking_loss, multi_margin_loss, multilabel_margin_loss,
    multilabel_soft_margin_loss, soft_margin_loss, triplet_margin_loss, triplet_margin_with_distance_loss)
from graphc.nn.module import Module, Sequential
from graphc.nn.norm import BatchNorm1d, BatchNorm2d, Dropout, GroupNorm, LayerNorm, RMSNorm
from graphc.nn.parameter import Constant, Normal, Parameter, Uniform, Value, XavierUniform
from graphc.nn.pool import AvgPool1d, AvgPool2d, GlobalAvgPool2d, MaxPool1d, MaxPool2d
from graphc.nn.position import LearnedPosition, RelativePosition, RotaryPosition, SinusoidalPosition
from graphc.nn.recurrent import GRU, LSTM, RNN
from graphc.nn.regression import (
    binary_cross_entropy, dice_loss, gaussian_nll_loss, huber_loss, kl_div, l1_loss, log_cosh_loss, poisson_nll_loss,
    sigmoid_focal_loss, smooth_l1_loss)
from graphc.nn.residual import AddNorm, Residual, residual
from graphc.nn.seq2seq import AttendTo, Seq2Seq
from graphc.nn.transformer import DecoderBlock, TransformerBlock
