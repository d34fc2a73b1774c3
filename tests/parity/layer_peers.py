"""Compares a layer with a PyTorch module that has the same weights: results, gradients, and gradients of functions of
gradients.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

import graphc as gc
from graphc import nn
from graphc.execute import make_executable
from graphc.ir.types import TensorType, dtype_of
from graphc.nn.network import entries, trace_network
from graphc.state import State

RANDOM = np.random.default_rng(0)
FIRST = {np.dtype(np.float32): (1e-3, 1e-4), np.dtype(np.float64): (1e-9, 1e-10)}       # rtol, atol


def normal(*shape) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


@dataclass
class Case:
    """A layer and its peer. `call(net, *arrays)` and `apply(peer, *tensors)` say how they are called, if not with
    all inputs in order; results may be tuples. `names`: ours to the peer's, for parameters that are called
    otherwise. `real`: bool, the first axes of the result: which steps of which sequences are no padding; at the others
    nothing is promised (graphc reads 0 there, PyTorch what the padding happens to hold), so they are not compared, and
    no gradient comes from them.
    """
    net: Callable
    peer: torch.nn.Module
    inputs: Sequence[np.ndarray]
    apply: Callable = lambda m, *xs: m(*xs)
    call: Callable = lambda net, *xs: net(*xs)
    training: bool = False
    names: dict[str, str] = field(default_factory=dict)
    real: np.ndarray | None = None

    def __post_init__(self):
        self.peer = self.peer.train(self.training)
        for p in self.peer.parameters():                    # away from zeros and ones
            p.data += 0.1 * torch.tensor(normal(*p.shape))

    def promised(self, y: np.ndarray) -> np.ndarray:
        """The result with 0 in place of what is not promised."""
        return y if self.real is None else np.where(self.real.reshape(*self.real.shape, *(1,) * (y.ndim - 2)), y, 0)

    def in_dtype(self, dtype) -> list[np.ndarray]:
        return [a.astype(dtype) if a.dtype == np.float32 else a for a in self.inputs]


class Weighted(nn.Module):
    """A layer's results, and the sum of all their elements times fixed weights; the layer's own names stay as they are.
    """

    def __init__(self, case: Case, weights: Sequence[np.ndarray], loss_only: bool):
        super().__init__()
        self.net, self.case, self.weights, self.loss_only = nn.module.as_module(case.net), case, weights, loss_only

    def children(self):
        yield "", self.net

    def forward(self, *arrays):
        ys = flat(self.case.call(self.net, *arrays))
        loss = sum(gc.sum(y.astype(w.dtype) * w) for y, w in zip(ys, self.weights))
        return loss if self.loss_only else (loss, *ys)


def flat(result) -> list:
    return [x for r in result for x in flat(r)] if isinstance(result, (tuple, list)) else [result]


@dataclass
class Torch:
    """The peer's results, weighted sum, leaves (inputs, then parameters by our names) and gradients."""
    ys: list[np.ndarray]
    weights: list[np.ndarray]
    leaves: dict[str, torch.Tensor]
    loss: torch.Tensor

    @staticmethod
    def run(case: Case, dtype) -> "Torch":
        case.peer.to(torch.float64 if dtype == np.float64 else torch.float32)
        tensors = [torch.tensor(a, requires_grad=True) if a.dtype.kind == "f" else torch.tensor(a)
                   for a in case.in_dtype(dtype)]
        tensors = [t.long() if t.dtype == torch.int32 else t for t in tensors]
        with sdpa_kernel(SDPBackend.MATH):
            ys = flat(case.apply(case.peer, *tensors))
        weights = [case.promised(normal(*y.shape).astype(dtype)) for y in ys]
        loss = sum((y * torch.tensor(w)).sum() for y, w in zip(ys, weights))
        ours = {theirs: name for name, theirs in case.names.items()}
        leaves = {f"x{i}": t for i, t in enumerate(tensors) if t.requires_grad}
        leaves |= {ours.get(name, name): p for name, p in case.peer.named_parameters()}
        return Torch([y.detach().numpy() for y in ys], weights, leaves, loss)

    def gradients(self) -> dict[str, np.ndarray]:
        found = torch.autograd.grad(self.loss, list(self.leaves.values()), retain_graph=True)
        return {name: g.numpy() for name, g in zip(self.leaves, found)}

    def second(self, directions: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The gradients of sum(gradient * direction)."""
        leaves = list(self.leaves.values())
        found = torch.autograd.grad(self.loss, leaves, create_graph=True)
        along = sum((g * torch.tensor(d)).sum() for g, d in zip(found, directions.values()))
        if not along.requires_grad:
            return {name: np.zeros(t.shape) for name, t in self.leaves.items()}
        again = torch.autograd.grad(along, leaves, allow_unused=True)
        return {name: np.zeros(t.shape) if g is None else g.numpy() for (name, t), g in zip(self.leaves.items(), again)}


def state_of(case: Case, function) -> State:
    """The layer's parameters with the values of the peer's."""
    state = State.create(entries(function), 0)
    theirs = case.peer.state_dict()
    for entry in entries(function):
        name = case.names.get(entry.name, entry.name)
        if not (case.training and "running" in name):
            state[entry.name] = theirs.pop(name).numpy()
    left = [name for name in theirs if "running" not in name and "num_batches" not in name]
    assert not left, f"the layer has no {left}"
    return state


def run(function, state: State, arrays: Sequence[np.ndarray]):
    return make_executable(function.graph, [state.array(e) for e in entries(function)], state.lock)(*arrays)


def check_first(case: Case, dtype=np.float32) -> None:
    """Results and first gradients towards every float input and every parameter."""
    peer, arrays = Torch.run(case, dtype), case.in_dtype(dtype)
    types = {f"x{i}": TensorType(dtype_of(a), a.shape) for i, a in enumerate(arrays)}
    function = trace_network(Weighted(case, peer.weights, False), case.training, **types)
    state = state_of(case, function)
    rtol, atol = FIRST[np.dtype(dtype)]
    for y, wanted in zip(run(function, state, arrays)[1:], peer.ys, strict=True):
        assert y.shape == wanted.shape
        np.testing.assert_allclose(case.promised(y), case.promised(wanted), rtol=rtol, atol=atol)
    if peer.leaves:
        loss = trace_network(Weighted(case, peer.weights, True), case.training, **types)
        found = run(gc.grad(loss, wrt=tuple(peer.leaves)), state, arrays)
        compare(dict(zip(peer.leaves, found)), peer.gradients(), rtol, atol)


def check_second(case: Case, rtol: float = 1e-8, atol: float = 1e-9) -> None:
    """Hessian times vector towards every float input and every parameter, in f64."""
    peer, arrays = Torch.run(case, np.float64), case.in_dtype(np.float64)
    types = {f"x{i}": TensorType(dtype_of(a), a.shape) for i, a in enumerate(arrays)}
    loss = trace_network(Weighted(case, peer.weights, True), case.training, **types)
    state = state_of(case, loss)
    directions = {name: normal(*t.shape).astype(np.float64) for name, t in peer.leaves.items()}
    given = [d.astype(np.float32) if name in state and state[name].dtype == np.float32 else d
             for name, d in directions.items()]
    found = run(gc.hvp(loss, wrt=tuple(peer.leaves)), state, [*arrays, *given])
    compare(dict(zip(peer.leaves, found)), peer.second(directions), rtol, atol)


def compare(found: dict, wanted: dict, rtol: float, atol: float) -> None:
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert found[name].shape == wanted[name].shape, name
        np.testing.assert_allclose(found[name], wanted[name], rtol=rtol, atol=atol, err_msg=name)
