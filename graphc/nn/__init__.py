"""Layers. They are functions of arrays that own parameters; `>>` composes them, `**` repeats them with fresh
parameters."""
from graphc.nn.activation import elu, gelu, leaky_relu, log_softmax, relu, sigmoid, silu, softmax, softplus, tanh
from graphc.nn.attention import Attention, MultiHeadAttention
from graphc.nn.collapse import Collapse
from graphc.nn.conv import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from graphc.nn.decode import decoding
from graphc.nn.generate import GenerateToken, likeliest, sample
from graphc.nn.language_model import LanguageModel
from graphc.nn.linear import Embedding, FeedForward, Flatten, Linear
from graphc.nn.loss import accuracy, bce, cross_entropy, log_likelihood, mse, sequence_loss
from graphc.nn.module import Module, Sequential
from graphc.nn.norm import BatchNorm1d, BatchNorm2d, Dropout, GroupNorm, LayerNorm, RMSNorm
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
