"""Modules that write into tensors: as functions of what is written, read as they are where nothing else is a view of
it, and decomposed by PyTorch where something is."""
from __future__ import annotations

import copy

import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim

torch = pytest.importorskip("torch")
from torch_steps import trained_alike  # noqa: E402

pytestmark = pytest.mark.peers
T, F = torch.nn, torch.nn.functional


def a_chain(x):
    y = x.sin()
    a = y.add_(x)
    b = a.mul_(2)
    y.relu_()
    return a, b, y.exp_().squeeze_(), y


def a_view_afterwards(x):
    y = x * 2
    y += x
    z = y.t()
    return z, y.reshape(-1), z + 1


def a_view_before_that_is_read_no_more(x):
    y = x * 2
    z = y.sum() + y.view(-1)[0]
    y.fill_(1.5)
    return z, y


def a_view_that_is_read(x):
    y = x * 2
    z = y.view(-1)
    y.mul_(3)
    return z, y


def a_part_that_is_written(x):
    y = x * 2
    y[0] = 7
    y[:, 1:].add_(1)
    return y, y.diagonal()


def an_alias_without_gradient(x):
    y = x * 2
    z = y.detach()
    z.add_(5)
    return y, z


def what_may_be_a_view(x):
    y = x * 2
    z = y.contiguous()
    z.neg_()
    return y, y.to(torch.float32).abs_()


def a_tensor_that_is_made(x):
    y = (x * 2).detach_()
    return y + torch.tensor([1., 2, 3, 4])


ALONE = (a_tensor_that_is_made, a_chain, a_view_afterwards, a_view_before_that_is_read_no_more, what_may_be_a_view)
SHARED = (a_view_that_is_read, a_part_that_is_written, an_alias_without_gradient)


class Of(T.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x):
        return self.f(x)


def decomposes(monkeypatch):
    """A list that grows with each program that PyTorch decomposes."""
    from graphc.doors.torch import read
    found, own = [], read._decomposed
    monkeypatch.setattr(read, "_decomposed", lambda exported: found.append(exported) or own(exported))
    return found


@pytest.mark.parametrize("f", ALONE + SHARED)
def test_writes_follow_pytorch(f, monkeypatch):
    found, x = decomposes(monkeypatch), torch.randn(3, 4)
    for a, b in zip(gc.compile(gc.from_torch(Of(f), x))(x), f(x.clone()), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert bool(found) == (f in SHARED)


def the_argument(x):
    y = x + 1
    z = F.dropout(y, 0.5, False)
    y.sub_(1)
    return z


def the_result(x):
    y = x + 1
    z = F.dropout(y.view(-1), 0.0, True)
    z.sub_(1)
    return y


@pytest.mark.parametrize("f", [the_argument, the_result])
def test_a_write_into_what_a_dropout_hands_on_is_an_error(f):
    with pytest.raises(gc.GraphError, match="which are one tensor") as raised:
        gc.from_torch(Of(f), torch.randn(3))
    assert "test_writes.py" in str(raised.value)


class Counts(T.Module):
    """A norm that is called twice, a count, and a mean that is read behind its write."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = T.Conv1d(2, 3, 3), T.BatchNorm1d(3, momentum=0.3)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x):
        self.calls += 1
        y = self.norm(F.relu(self.norm(self.conv(x)), inplace=True))
        self.mean.mul_(0.9).add_(y.detach().mean((0, 2)), alpha=0.1)
        with torch.no_grad():
            scale = y.std() + self.calls
        return y * scale + self.mean[:, None]


def test_buffers_that_are_written(monkeypatch):
    found, x, y = decomposes(monkeypatch), torch.randn(4, 2, 8), torch.randn(4, 3, 6)
    torch.manual_seed(0)
    module = Counts().train()
    other = copy.deepcopy(module)
    step = gc.train_step(gc.from_torch(module, x), loss=nn.mse, optimizer=optim.SGD(0.01), y=gc.f32[4, 3, 6])
    trained_alike(step, module, other, x, y, 0.01, rtol=1e-3, atol=1e-4)
    assert not found


def test_a_view_of_a_buffer_is_decomposed(monkeypatch):
    class Held(T.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("cache", torch.zeros(4, 3))

        def forward(self, x):
            row = self.cache[1]
            self.cache.add_(1)
            return row * x, self.cache
    found, x = decomposes(monkeypatch), torch.randn(3)
    for a, b in zip(gc.compile(gc.from_torch(Held(), x))(x), Held()(x), strict=True):
        np.testing.assert_allclose(a, b)
    assert found


@pytest.mark.parametrize("f", [F.relu6, F.hardtanh, F.hardsigmoid, F.hardswish, F.relu, F.softplus, F.softshrink, F.hardshrink,
                               lambda x: x.clamp(-1, 1), lambda x: F.threshold(x, 1, 2), F.leaky_relu, torch.abs,
                               lambda x: torch.fmax(x, x.relu()), lambda x: torch.fmod(x, 2), lambda x: (x * 0).std(),
                               lambda x: (x * 0).norm(3), torch.median, torch.nanmedian, lambda x: F.celu(x, 2.),
                               lambda x: F.cross_entropy(x[None], torch.full((1, 11), 1 / 11), label_smoothing=0.3),
                               lambda x: torch.full((3,), 9.).scatter_reduce(
                                   0, torch.tensor([0, 0, 1, 1, 2, 2, 1, 1, 0, 0, 0]), x.abs(), "amax", include_self=False)])
def test_gradients_where_a_function_has_a_corner(f):
    x = torch.tensor([-6., -3, -1, -0.5, -0.0, 0, 0.5, 1, 3, 6, 20], requires_grad=True)
    net = gc.from_torch(Of(f), x)

    @gc.graph
    def total(x: gc.f32[11]):
        return gc.sum(net(x))
    wanted, = torch.autograd.grad(f(x).sum(), x)
    np.testing.assert_allclose(gc.grad(total)(x.detach()), wanted, rtol=1e-5)
