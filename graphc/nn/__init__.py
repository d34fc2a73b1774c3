"""Layers. They are functions of arrays that own parameters; `>>` composes them, `**` repeats them with fresh parameters."""
from graphc.nn.activation import elu, gelu, leaky_relu, log_softmax, relu, sigmoid, silu, softmax, softplus, tanh
from graphc.nn.attention import MultiHeadAttention, TransformerBlock
from graphc.nn.conv import Conv1d, Conv2d, ConvTranspose2d
from graphc.nn.linear import Embedding, Flatten, Linear
from graphc.nn.loss import accuracy, bce, cross_entropy, mse
from graphc.nn.module import Module, Sequential
from graphc.nn.norm import BatchNorm1d, BatchNorm2d, Dropout, GroupNorm, LayerNorm, RMSNorm
from graphc.nn.parameter import Constant, Normal, Parameter, Uniform, Value, XavierUniform
from graphc.nn.pool import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from graphc.nn.position import LearnedPosition, SinusoidalPosition
from graphc.nn.recurrent import GRU, LSTM, RNN
from graphc.nn.residual import Residual, residual
