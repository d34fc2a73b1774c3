"""PyTorch: eager, and compiled by Inductor."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from safetensors.numpy import save_file

from benchmarks.engines.case import ONNX, WEIGHTS, Case
from benchmarks.networks_torch import build, weights
from benchmarks.operators_torch import OPERATORS
from benchmarks.workloads import GRADIENTS, INFER, TRAIN

CONFIGURATION = "images channels-last, inference_mode, fused SGD"


class Eager:
    """`wrap` is applied to the function that is measured."""

    def __init__(self, case: Case, wrap=lambda f: f):
        torch.set_num_threads(case.threads)
        if case.workload.network in OPERATORS:
            self.net = OPERATORS[case.workload.network](**case.workload.options)
            self.batches = [tuple(torch.from_numpy(a.astype(np.int64) if a.dtype == np.int32 else a) for a in batch)
                            for batch in case.batches]
        else:
            self.net = _module(case)
            self.batches = [tuple(map(_tensor, batch)) for batch in case.batches]
        self.run = MODES[case.workload.mode](self, case, wrap)

    def arrays(self, result) -> tuple[np.ndarray, ...]:
        values = result if isinstance(result, tuple) else (result,)
        return tuple(np.asarray(v.numpy() if isinstance(v, torch.Tensor) else v) for v in values)

    def owned(self, result, batch) -> int:
        """Bytes of the result that lie in no argument's memory, each counted once however often it is repeated."""
        values = result if isinstance(result, tuple) else (result,)
        place = lambda t: t.untyped_storage().data_ptr()
        given, found = {place(t) for t in batch}, dict[int, int]()
        for t in values:
            if place(t) not in given:
                found[place(t)] = min(found.get(place(t), 0) + t.nbytes, t.untyped_storage().nbytes())
        return sum(found.values())

    def inference(self, case: Case, wrap):
        net = wrap(self.net)

        def run(*inputs):
            with torch.inference_mode():
                return net(*inputs)
        return run

    def training(self, case: Case, wrap):
        optimizer = torch.optim.SGD(self.net.parameters(), case.workload.rate, fused=True)

        @wrap
        def loss_of(x, y):
            scores = self.net(x)
            return torch.nn.functional.cross_entropy(scores.reshape(-1, scores.shape[-1]), y.reshape(-1))

        def run(x, y):
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(x, y)
            loss.backward()
            optimizer.step()
            return loss.item()
        return run

    def gradients(self, case: Case, wrap):
        f = wrap(self.net)

        def run(*arrays):
            *xs, g = arrays
            xs = [x.detach().requires_grad_() if x.is_floating_point() else x for x in xs]
            y = f(*xs)
            return (y.detach(), *torch.autograd.grad(y, [x for x in xs if x.requires_grad], g, materialize_grads=True))
        return run


def _module(case: Case) -> torch.nn.Module:
    net = build(case.workload.network, case.workload.options)
    net.train(case.workload.mode == TRAIN)
    with torch.no_grad():
        for name, tensor in weights(net).items():
            tensor.copy_(torch.from_numpy(case.weights[name]))
    return net.to(memory_format=torch.channels_last)


def prepare(case: Case) -> None:
    """Writes weights and, for inference, the network as ONNX."""
    torch.set_num_threads(case.threads)
    net = build(case.workload.network, case.workload.options).eval()
    save_file({name: tensor.detach().numpy() for name, tensor in weights(net).items()}, case.folder / WEIGHTS)
    if case.workload.mode == INFER:
        batch = tuple(map(_tensor, case.batches[0]))
        torch.onnx.export(net, batch, str(case.folder / ONNX), dynamo=False, opset_version=20,
                          input_names=[f"x{i}" for i in range(len(batch))])


def _tensor(array: np.ndarray) -> torch.Tensor:
    if array.dtype == np.int32:
        return torch.from_numpy(array).long()
    tensor = torch.from_numpy(array)
    is_image = array.ndim == 4 and array.shape[1] <= 4 < array.shape[2]
    return tensor.contiguous(memory_format=torch.channels_last) if is_image else tensor


@contextmanager
def in_f64() -> Iterator[None]:
    """What operators make of nothing is f64 inside."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


MODES = {INFER: Eager.inference, TRAIN: Eager.training, GRADIENTS: Eager.gradients}
make = Eager
