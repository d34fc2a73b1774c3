"""graphc."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
from safetensors.numpy import save_file

import graphc as gc
from benchmarks.engines.case import WEIGHTS, Case
from benchmarks.networks import NETWORKS
from benchmarks.workloads import GRADIENTS, INFER, TRAIN, Array
from graphc import nn, optim

CONFIGURATION = "as it comes; a call without out= (new arrays); nothing from the disk cache"


class Graphc:
    """`run` is the compiled function itself."""

    def __init__(self, case: Case):
        self.batches, self._mode = case.batches, case.workload.mode
        self.run = MODES[case.workload.mode](case)
        self.memory = self.run.memory           # compiles a training step

    def planned(self, threads: int) -> dict[str, int]:
        """Bytes of the whole plan, and of what comes after compiling: all but parameters (for inference, packed ones too) and inputs."""
        m = self.memory
        calls = m.arena + m.scratch * threads + m.consts + m.outputs + (m.derived if self._mode == TRAIN else 0)
        return {"plan": m.total + m.scratch * (threads - 1), "planned": calls}

    def arrays(self, result) -> tuple[np.ndarray, ...]:
        return result if isinstance(result, tuple) else (np.asarray(result),)


def prepare(case: Case) -> None:
    """Writes initial weights, where nobody but graphc takes part."""
    (case.folder / WEIGHTS).unlink(missing_ok=True)
    if case.workload.network == "attention":
        save_file({}, case.folder / WEIGHTS)
        return
    trained = replace(case.workload, mode=TRAIN)
    step = gc.train_step(network(case), loss=nn.cross_entropy, optimizer=optim.SGD(0.0), seed=0,
                         **{name: array_type(array) for name, array in zip("xy", trained.arrays)})
    save_file({name: np.asarray(step.state[name]) for name in step.state}, case.folder / WEIGHTS)


def network(case: Case):
    return NETWORKS[case.workload.network](**case.workload.options)


def types(case: Case, names) -> dict:
    return {name: array_type(array) for name, array in zip(names, case.workload.arrays)}


def array_type(array: Array):
    return (gc.i32 if array.below else gc.f32)[array.shape]


def _infer(case: Case):
    if case.workload.network == "attention":
        return gc.compile(network(case), threads=case.threads, **types(case, "qkv"))
    return gc.compile(network(case), x=array_type(case.workload.arrays[0]), state=case.weights, threads=case.threads)


def _train(case: Case):
    step = gc.train_step(network(case), loss=nn.cross_entropy, optimizer=optim.SGD(case.workload.rate), threads=case.threads, **types(case, "xy"))
    step.load(case.folder / WEIGHTS, partial=True)
    return step


def _gradients(case: Case):
    """The output with its gradients, given that of a loss with respect to it."""
    attend = network(case)
    t = array_type(case.workload.arrays[0])

    @gc.graph
    def product(q: t, k: t, v: t, g: t):
        return gc.sum(attend(q, k, v) * g)

    @gc.graph
    def step(q: t, k: t, v: t, g: t):
        return (attend(q, k, v), *gc.grad(product, wrt=("q", "k", "v"))(q, k, v, g))
    return gc.compile(step, threads=case.threads)


MODES = {INFER: _infer, TRAIN: _train, GRADIENTS: _gradients}
make = Graphc
