"""Modules that state gradients themselves: functions of torch.autograd are followed, hooks and parameters in the memory of
others are refused where a gradient is asked for."""
from __future__ import annotations

import copy
import random
import types

import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim
from graphc.errors import GraphError

torch = pytest.importorskip("torch")
from graphc.doors.torch.read import TYPES  # noqa: E402
from torch_steps import trained_alike  # noqa: E402

pytestmark = pytest.mark.peers
T, F = torch.nn, torch.nn.functional


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, scale):
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx, g):
        return g.neg() * ctx.scale, None


class Straight(torch.autograd.Function):
    """Signs, and the positions of those that are clear; a gradient where the argument is small, by what is kept."""

    @staticmethod
    def forward(ctx, x, weight):
        near = x.abs() < 0.8
        ctx.save_for_backward(near, weight, x)
        ctx.mark_non_differentiable(near)
        return torch.sign(x) * weight, near

    @staticmethod
    def backward(ctx, g, _):
        near, weight, x = ctx.saved_tensors
        return torch.where(near, g * weight, 0.0), (g * torch.sign(x)).sum(0) * 2


class Halved(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return x * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, g):
        return Reversed.apply(g * ctx.saved_tensors[0], -1.0)


class Net(T.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.scale = T.Linear(4, 6), T.Linear(6, 3), T.Parameter(torch.rand(6))

    def forward(self, x):
        y, near = Straight.apply(self.first(x), self.scale)
        with torch.no_grad():
            shift = Reversed.apply(y.mean(), 3.0)
        return Halved.apply(self.second(Reversed.apply(y, 0.5) + near)) + shift


def followed(module, x, dynamic=None):
    """A step of SGD against PyTorch's, and inference."""
    other = copy.deepcopy(module)
    net = gc.from_torch(module, x, dynamic=dynamic)
    y = torch.randn(copy.deepcopy(module)(x).shape)
    step = gc.train_step(net, loss=nn.mse, optimizer=optim.SGD(0.1), x=gc.f32[tuple(x.shape)], y=gc.f32[tuple(y.shape)])
    trained_alike(step, module, other, x, y, 0.1, rtol=1e-4, atol=1e-5)
    other.eval()
    np.testing.assert_allclose(gc.compile(net)(x), module.eval()(x).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dynamic", [None, {"x": {0: "B"}}])
def test_functions_of_autograd_keep_their_gradients(dynamic):
    torch.manual_seed(0)
    apply = vars(torch.autograd.Function)["apply"]
    followed(Net().train(), torch.randn(5, 4), dynamic)
    assert vars(torch.autograd.Function)["apply"] is apply


def observed(module):
    module.second.register_full_backward_hook(lambda *_: None)


def watched(module):
    module.first.weight.register_hook(lambda g: g * 2)


class Hooked(Net):
    def forward(self, x):
        y = self.first(x)
        if y.requires_grad:
            y.register_hook(lambda g: g * 5)
        return self.second(y)




@pytest.mark.parametrize("make, change, text", [
    (Net, observed, "second has a hook of the backward pass"), (Net, watched, "first.weight has a hook"),
    (Hooked, lambda module: None, "register_hook changes gradients")])
def test_gradients_that_hooks_change_are_refused_and_results_are_not(make, change, text):
    module, x = make(), torch.randn(5, 4)
    change(module)
    net = gc.from_torch(module.train(), x)
    np.testing.assert_allclose(gc.compile(net)(x), copy.deepcopy(module).eval()(x).detach(), rtol=1e-4, atol=1e-5)
    with pytest.raises(GraphError, match=text) as raised:
        gc.train_step(net, loss=nn.mse, optimizer=optim.SGD(0.1), y=gc.f32[5, 3])
    assert "test_own_gradients.py" in str(raised.value)


class Sharing(T.Module):
    def __init__(self, shared):
        super().__init__()
        self.first = T.Linear(4, 4)
        self.second = T.Parameter(shared(self.first.weight))

    def forward(self, x):
        return self.first(x) @ self.second.t()


@pytest.mark.parametrize("shared", [lambda w: w.data, lambda w: w.data[1:3], lambda w: w.data.t()])
def test_other_parameters_in_the_same_memory_are_refused(shared):
    module, x = Sharing(shared), torch.randn(5, 4)
    net = gc.from_torch(module.train(), x)
    np.testing.assert_allclose(gc.compile(net)(x), module(x).detach(), rtol=1e-4, atol=1e-5)
    with pytest.raises(GraphError, match="lies in the memory of"):
        gc.train_step(net, loss=nn.mse, optimizer=optim.SGD(0.1), y=gc.f32[tuple(module(x).shape)])


class Halves(T.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = T.Linear(4, 4).half(), T.Linear(4, 4)

    def forward(self, x):
        return self.second(self.first(x.half()).float())


class Clipped(T.Module):
    def __init__(self):
        super().__init__()
        self.first = T.Linear(4, 4)

    def forward(self, x):
        self.first.weight.data.clamp_(-0.1, 0.1)
        return self.first(x)


class Kept(T.Module):
    """A constant that is a view of a parameter."""

    def __init__(self):
        super().__init__()
        self.first = T.Linear(4, 4)
        self.rows = self.first.weight.detach()[:2]

    def forward(self, x):
        return self.first(x)[:, :2] + x @ self.rows.t()


@pytest.mark.parametrize("make, text", [(Halves, "first.weight and 1 more of the type f16, in which none is trained"),
                                        (lambda: T.Linear(4, 4).bfloat16(), "of the type bf16"),
                                        (Clipped, "writes into the parameter first.weight"), (Kept, "in the memory of")])
def test_parameters_that_would_be_trained_otherwise_are_refused(make, text):
    module = make().train()
    x = torch.randn(5, 4, dtype=torch.bfloat16 if isinstance(module, T.Linear) else torch.float32)
    net = gc.from_torch(module, x)
    wanted = copy.deepcopy(module)(x).detach()
    np.testing.assert_allclose(np.asarray(gc.compile(net)(x), np.float32), wanted.float(), rtol=1e-2, atol=1e-2)
    with pytest.raises(GraphError, match=text):
        gc.train_step(net, loss=nn.mse, optimizer=optim.SGD(0.1), y=TYPES[wanted.dtype][tuple(wanted.shape)])


class Regions(T.Module):
    """What trains in PyTorch and what does not: modes, `.data`, layers that are computed again, statistics."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = T.Linear(4, 6), T.Linear(6, 6), T.Linear(6, 3)
        self.norm = T.InstanceNorm1d(6, affine=True, track_running_stats=True)
        self.register_buffer("count", torch.zeros(()), persistent=False)
        self.seen = None

    @torch.inference_mode()
    def scale(self, x):
        return self.second(x).abs().mean()

    def forward(self, x):
        self.count += 1
        y = torch.utils.checkpoint.checkpoint(torch.tanh, self.first(x), use_reentrant=True)
        self.seen = y
        z = torch.utils.checkpoint.checkpoint(self.second, y, use_reentrant=False)
        z = self.norm(z[:, :, None].expand(-1, -1, 2) * torch.arange(1., 3)).mean(-1)
        return self.third(z / (1 + self.scale(y.data).clone()) + z.data) * self.count


def test_what_does_not_train_in_pytorch_does_not_here():
    torch.manual_seed(0)
    followed(Regions().train(), torch.randn(5, 4))


class Counting(T.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x * self.calls


class Remembering(T.Module):
    def __init__(self):
        super().__init__()
        self.last = None

    def forward(self, x):
        y = x if self.last is None else x + self.last
        self.last = y
        return y


class Differentiating(T.Module):
    def forward(self, x):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(x.sin().sum(), x)[0]


class Making(T.Module):
    """Makes a mask once, and counts what it does not use."""

    def __init__(self):
        super().__init__()
        self.mask, self.calls = None, 0

    def forward(self, x):
        self.calls += 1
        if self.mask is None or len(self.mask) != len(x):
            self.mask = torch.ones(len(x), 1).cumsum(0)
        return x * self.mask


class Holding(T.Module):
    """Remembers in what an attribute holds, and a cache that changes nothing."""

    def __init__(self, held):
        super().__init__()
        self.held, self.cache = held, {}

    def forward(self, x):
        factor = self.cache.setdefault(len(x), 2.0)
        if isinstance(self.held, dict):
            self.held[len(self.held)] = 1
        elif isinstance(self.held, list):
            self.held.append(1)
        elif self.held is not None:
            self.held.calls = [1, *getattr(self.held, "calls", ())]
        return x * factor * len(str(vars(self.held) if hasattr(self.held, "__dict__") else self.held))


@pytest.mark.parametrize("held", [{}, [], types.SimpleNamespace()], ids=["dict", "list", "object"])
def test_what_the_attributes_of_a_module_remember(held):
    x = torch.randn(3, 2)
    with pytest.raises(GraphError, match="changes its attribute 1.held"):
        gc.from_torch(T.Sequential(T.Tanh(), Holding(held)), x)
    np.testing.assert_allclose(gc.compile(gc.from_torch(Holding(None), x))(x), Holding(None)(x))


class Drawing(T.Module):
    """Computes with numbers that are not PyTorch's, or only draws them."""

    def __init__(self, draw, scale):
        super().__init__()
        self.draw, self.scale = draw, scale

    def forward(self, x):
        return x + self.draw() * self.scale


@pytest.mark.parametrize("draw, text", [(np.random.rand, "from numpy.random, and each call"), (random.random, "from random, and each call")])
def test_random_numbers_that_are_not_of_pytorch(draw, text):
    x = torch.randn(3, 2)
    with pytest.raises(GraphError, match=text):
        gc.from_torch(Drawing(draw, 1.0), x)
    np.testing.assert_allclose(gc.compile(gc.from_torch(Drawing(draw, 0.0), x))(x), x)


def test_what_a_module_remembers_beside_buffers_is_an_error_with_its_line():
    x = torch.randn(3, 2)
    for make, text, line in ((Counting, "changes its attribute calls", "self.calls += 1"),
                             (Remembering, "changes its attribute last", "self.last = y"),
                             (Differentiating, "differentiates itself", "torch.autograd.grad(")):
        with pytest.raises(GraphError, match=text) as raised:
            gc.from_torch(make(), x)
        assert line in str(raised.value)
    np.testing.assert_allclose(gc.compile(gc.from_torch(Making(), x))(x), Making()(x))
