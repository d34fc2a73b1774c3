"""PyTensor in its default mode (Numba)."""
from __future__ import annotations

import numpy as np
import pytensor
import pytensor.tensor as pt

from benchmarks.arrays import Array
from benchmarks.engines.case import Case
from benchmarks.networks_pytensor import NETWORKS, attention
from benchmarks.operators_pytensor import OPERATORS
from benchmarks.turned_weights import turned, with_options
from benchmarks.workloads import GRADIENTS, INFER, TRAIN

CONFIGURATION = ("pytensor.function in its default mode (Numba), float32, shared variables updated in place, "
                 "recurrence by scan")
pytensor.config.floatX = "float32"


class PyTensor:
    def __init__(self, case: Case):
        if case.workload.network not in (*NETWORKS, *OPERATORS, "attention"):
            raise NotImplementedError(f"no {case.workload.network} in PyTensor")
        self.batches = case.batches
        self.run = MODES[case.workload.mode](self, case)

    def arrays(self, result) -> tuple[np.ndarray, ...]:
        return tuple(result) if isinstance(result, (list, tuple)) else (np.asarray(result),)

    def inference(self, case: Case):
        inputs = [_symbol(a) for a in case.workload.arrays]
        if case.workload.is_operator:
            return _function(inputs, _operator(case)(*inputs))
        network, shared = _network(case)
        return _function(inputs, network(shared, *inputs))

    def training(self, case: Case):
        network, shared = _network(case)
        x, y = (_symbol(a) for a in case.workload.arrays)
        scores = network(shared, x)
        scores = scores.reshape((-1, scores.shape[-1]))
        logs = pt.special.log_softmax(scores, -1)
        loss = -logs[pt.arange(scores.shape[0]), y.reshape((-1,))].mean()
        slopes = pytensor.grad(loss, list(shared.values()))
        rate = np.float32(case.workload.rate)
        step = _function([x, y], loss, updates=[(v, v - rate * g) for v, g in zip(shared.values(), slopes)])
        return lambda x, y: float(step(x, y))

    def gradients(self, case: Case):
        *inputs, g = (_symbol(a) for a in case.workload.arrays)
        y = _operator(case)(*inputs)
        free = [x for x in inputs if x.dtype == "float32"]
        return _function([*inputs, g], [y, *pytensor.grad((y * g).sum(), free)])


def _operator(case: Case):
    name = case.workload.network
    return OPERATORS[name](**case.workload.options) if name in OPERATORS else attention


def _symbol(array: Array):
    return pt.tensor(dtype="int32" if array.below else "float32", shape=array.shape)


def _network(case: Case):
    weights = turned(case.workload.network, case.weights)
    shared = {n: pytensor.shared(w, name=n, shape=w.shape) for n, w in weights.items()}
    return with_options(NETWORKS, case.workload.network, case.workload.options), shared


def _function(inputs, outputs, **options):
    return pytensor.function(inputs, outputs, trust_input=False, **options)


MODES = {INFER: PyTensor.inference, TRAIN: PyTensor.training, GRADIENTS: PyTensor.gradients}
make = PyTensor
