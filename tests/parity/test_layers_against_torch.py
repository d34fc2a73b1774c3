"""Every layer beside its PyTorch counterpart with the same weights: results, gradients of the inputs, gradients of the parameters."""
import numpy as np
import pytest
import torch

import graphc as gc
from graphc import nn
from graphc.execute import make_executable
from graphc.ir.types import TensorType, dtype_of
from graphc.nn.network import entries, trace_network
from graphc.state import State

pytestmark = pytest.mark.peers
T = torch.nn
RANDOM = np.random.default_rng(0)


def normal(*shape):
    return RANDOM.normal(size=shape).astype(np.float32)


IDS = RANDOM.integers(0, 11, (3, 5)).astype(np.int32)
MASK = RANDOM.random((2, 1, 5, 7)) < 0.7
MASK[..., 0] = True


def causal(m, x):
    return m(x, src_mask=T.Transformer.generate_square_subsequent_mask(x.shape[1]), is_causal=True)


def first(m, *xs):
    return m(*xs)[0]


def block(**options):
    return T.TransformerEncoderLayer(8, 2, 32, 0.0, batch_first=True, **options)


# name: (layer, PyTorch's layer, inputs, how PyTorch's layer is called, training)
CASES = {
    "linear": (nn.Linear(5), T.Linear(4, 5), [normal(7, 4)]),
    "linear 3d": (nn.Linear(5, bias=False), T.Linear(4, 5, bias=False), [normal(2, 7, 4)]),
    "embedding": (nn.Embedding(11, 4), T.Embedding(11, 4), [IDS]),
    "conv1d": (nn.Conv1d(6, 3, padding=1, dilation=2), T.Conv1d(4, 6, 3, 1, 1, 2), [normal(2, 4, 9)]),
    "conv2d": (nn.Conv2d(6, 3, stride=2, padding=1), T.Conv2d(4, 6, 3, 2, 1), [normal(2, 4, 9, 8)]),
    "conv2d groups": (nn.Conv2d(6, (3, 2), groups=2, bias=False), T.Conv2d(4, 6, (3, 2), groups=2, bias=False), [normal(2, 4, 5, 6)]),
    "conv2d depthwise": (nn.Conv2d(4, 3, padding="same", groups=4), T.Conv2d(4, 4, 3, padding="same", groups=4), [normal(2, 4, 5, 6)]),
    "conv_transpose2d": (nn.ConvTranspose2d(6, 3, stride=2, padding=1), T.ConvTranspose2d(4, 6, 3, 2, 1), [normal(2, 4, 5, 6)]),
    "batch_norm2d": (nn.BatchNorm2d(), T.BatchNorm2d(4), [normal(3, 4, 5, 6)], None, True),
    "batch_norm1d inference": (nn.BatchNorm1d(), T.BatchNorm1d(4), [normal(9, 4)]),
    "layer_norm": (nn.LayerNorm(), T.LayerNorm(6), [normal(2, 5, 6)]),
    "layer_norm 2 axes": (nn.LayerNorm(axes=2), T.LayerNorm((5, 6)), [normal(2, 5, 6)]),
    "rms_norm": (nn.RMSNorm(), T.RMSNorm(6, eps=1e-6), [normal(2, 5, 6)]),
    "group_norm": (nn.GroupNorm(2), T.GroupNorm(2, 4), [normal(3, 4, 5, 2)]),
    "pools": (nn.MaxPool2d(3, 2, 1) >> nn.AvgPool2d(2, 1), T.Sequential(T.MaxPool2d(3, 2, 1), T.AvgPool2d(2, 1)), [normal(2, 3, 8, 9)]),
    "rnn": (nn.RNN(6, 2, bidirectional=True), T.RNN(4, 6, 2, bidirectional=True), [normal(5, 3, 4)], first),
    "rnn relu": (nn.RNN(6, activation="relu"), T.RNN(4, 6, nonlinearity="relu"), [normal(5, 3, 4)], first),
    "gru": (nn.GRU(6, 2, bidirectional=True), T.GRU(4, 6, 2, bidirectional=True), [normal(5, 3, 4)], first),
    "gru batch first": (nn.GRU(6, batch_first=True, bias=False), T.GRU(4, 6, batch_first=True, bias=False), [normal(5, 3, 4)], first),
    "lstm": (nn.LSTM(6, 2, bidirectional=True), T.LSTM(4, 6, 2, bidirectional=True), [normal(5, 3, 4)], first),
    "lstm batch first": (nn.LSTM(6, batch_first=True), T.LSTM(4, 6, batch_first=True), [normal(5, 3, 4)], first),
    "attention": (nn.MultiHeadAttention(2), T.MultiheadAttention(8, 2, batch_first=True), [normal(3, 5, 8)], lambda m, x: m(x, x, x)[0]),
    "cross attention": (nn.MultiHeadAttention(2), T.MultiheadAttention(8, 2, batch_first=True), [normal(3, 5, 8), normal(3, 7, 8), normal(3, 7, 8)], first),
    "block": (nn.TransformerBlock(2), block(activation="gelu"), [normal(3, 5, 8)]),
    "block pre-norm relu": (nn.TransformerBlock(2, pre_norm=True, activation="relu"), block(norm_first=True), [normal(3, 5, 8)]),
    "block causal": (nn.TransformerBlock(2, causal=True), block(activation="gelu"), [normal(3, 5, 8)], causal),
}


@pytest.mark.parametrize("name", CASES)
def test_layer(name, engine):
    net, peer, arrays, *rest = CASES[name]
    apply, training = (rest + [None, False][len(rest):])
    peer.train(training)
    tensors = [torch.tensor(a, requires_grad=True) if a.dtype == np.float32 else torch.tensor(a).long() for a in arrays]
    y = (apply or (lambda m, *xs: m(*xs)))(peer, *tensors)
    weights = normal(*y.shape)
    peer.zero_grad()
    (y * torch.tensor(weights)).sum().backward()

    types = {f"x{i}": TensorType(dtype_of(a), a.shape) for i, a in enumerate(arrays)}
    function = trace_network(_weighted(net, weights), training, **types)
    state = State.create(entries(function), 0)
    for key, value in peer.state_dict().items():
        if key in state and not (training and key.startswith("running")):
            state[key] = value.numpy()
    found = _run(function, state, arrays)
    np.testing.assert_allclose(found[1], y.detach().numpy(), rtol=1e-4, atol=2e-5)

    loss = trace_network(_weighted(net, weights, loss_only=True), training, **types)
    floats = tuple(n for n, t in types.items() if t.dtype.is_float)
    for array, tensor in zip(_run(gc.grad(loss, wrt=floats), state, arrays) if floats else (), [t for t in tensors if t.requires_grad]):
        np.testing.assert_allclose(array, tensor.grad.numpy(), rtol=1e-3, atol=5e-5)
    parameters = dict(peer.named_parameters())
    if parameters:
        grads = _run(gc.grad(loss, wrt=net), state, arrays)
        assert grads.keys() == parameters.keys()
        for key, array in grads.items():
            np.testing.assert_allclose(array, parameters[key].grad.numpy(), rtol=1e-3, atol=1e-4, err_msg=key)


class _weighted(nn.Module):
    """The layer's result and its weighted sum; the layer's own names stay as they are."""

    def __init__(self, net, weights, loss_only=False):
        super().__init__()
        self.net, self.weights, self.loss_only = net, weights, loss_only

    def children(self):
        yield "", self.net

    def forward(self, *arrays):
        y = self.net(*arrays)
        loss = gc.sum(y * self.weights)
        return loss if self.loss_only else (loss, y)


def _run(function, state, arrays):
    return make_executable(function.graph, [state.array(e) for e in entries(function)], state.lock)(*arrays)
