"""graphc."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from inspect import Parameter, Signature

import numpy as np
from safetensors.numpy import save_file

import graphc as gc
from benchmarks.engines.case import WEIGHTS, Case
from benchmarks.networks import NETWORKS
from benchmarks.operators_graphc import OPERATORS
from benchmarks.arrays import Array
from benchmarks.workloads import INFER, TRAIN, Workload
from graphc import nn, optim

CONFIGURATION = "as it comes; a call without out= (new arrays); nothing from the disk cache"


class Graphc:
    """`run` is the compiled function itself."""

    def __init__(self, case: Case):
        self.batches, self._mode = case.batches, case.workload.mode
        self.run = (_operator if case.workload.is_operator else MODES[case.workload.mode])(case)
        self.memory = self.run.memory           # compiles a training step

    def planned(self, threads: int) -> dict[str, int]:
        """Bytes of the whole plan, and of what comes after compiling: all but parameters (for inference, packed ones
        too) and inputs.
        """
        m = self.memory
        calls = m.arena + m.scratch * threads + m.consts + m.outputs + (m.derived if self._mode == TRAIN else 0)
        return {"plan": m.total + m.scratch * (threads - 1), "planned": calls}

    def arrays(self, result) -> tuple[np.ndarray, ...]:
        return result if isinstance(result, tuple) else (np.asarray(result),)


def prepare(case: Case) -> None:
    """Writes initial weights, where nobody but graphc takes part."""
    (case.folder / WEIGHTS).unlink(missing_ok=True)
    if case.workload.is_operator:
        save_file({}, case.folder / WEIGHTS)
        return
    trained = replace(case.workload, mode=TRAIN)
    step = gc.train_step(network(case), loss=nn.cross_entropy, optimizer=optim.SGD(0.0), seed=0,
                         **{name: array_type(array) for name, array in zip("xy", trained.arrays)})
    # without the optimizer's numbers: a learning rate of 0 that a step reads would keep it from training
    save_file({name: np.asarray(step.state[name]) for name in step.state
               if not name.startswith("optim.")}, case.folder / WEIGHTS)


def network(case: Case):
    return NETWORKS[case.workload.network](**case.workload.options)


def types(case: Case, names) -> dict:
    return {name: array_type(array) for name, array in zip(names, case.workload.arrays)}


def array_type(array: Array):
    return (gc.i32 if array.below else gc.f32)[array.shape]


def _infer(case: Case):
    return gc.compile(network(case), x=array_type(case.workload.arrays[0]), state=case.weights, threads=case.threads)


def _train(case: Case):
    step = gc.train_step(network(case), loss=nn.cross_entropy, optimizer=optim.SGD(case.workload.rate),
                         threads=case.threads, **types(case, "xy"))
    step.load(case.folder / WEIGHTS, partial=True)
    return step


def _operator(case: Case):
    return gc.compile(operator(case.workload), threads=case.threads, seed=0)


def operator(workload: Workload) -> gc.GraphFunction:
    """An operator as a graph of arrays x0, x1, …: its result; with gradients, the last array is that of a loss with
    respect to the result, and those with respect to all that is no index follow.
    """
    f, arrays = (OPERATORS | NETWORKS)[workload.network](**workload.options), workload.arrays
    if workload.mode == INFER:
        return gc.graph(_declared(f, arrays))
    wrt = tuple(f"x{i}" for i, a in enumerate(arrays[:-1]) if not a.below)
    product = gc.graph(_declared(lambda *xs: gc.sum(f(*xs[:-1]) * xs[-1]), arrays))
    slopes = gc.grad(product, wrt=wrt)

    def step(*xs):
        found = slopes(*xs)
        return (f(*xs[:-1]), *(found if isinstance(found, tuple) else (found,)))
    return gc.graph(_declared(step, arrays))


def _declared(f: Callable, arrays: Sequence[Array]) -> Callable:
    """f as a function of arrays x0, x1, … of these types."""
    declared = lambda *xs, **named: f(*xs, *named.values())
    declared.__signature__ = Signature([Parameter(f"x{i}", Parameter.POSITIONAL_OR_KEYWORD, annotation=array_type(a))
                                        for i, a in enumerate(arrays)])
    return declared


MODES = {INFER: _infer, TRAIN: _train}
make = Graphc
