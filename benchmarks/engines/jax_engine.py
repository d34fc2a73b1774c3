"""JAX, jit on the CPU."""
from __future__ import annotations

import os

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.engines.case import Case
from benchmarks.networks_jax import NETWORKS, attention
from benchmarks.operators_jax import OPERATORS
from benchmarks.turned_weights import RUNNING, nhwc, turned, with_options
from benchmarks.workloads import GRADIENTS, INFER, TRAIN

CONFIGURATION = "jit, parameters donated in training, images NHWC, recurrence by lax.scan"


class Jax:
    def __init__(self, case: Case):
        os.environ["NPROC"] = str(case.threads)         # XLA sizes its pools by it when the first array is made
        jax.config.update("jax_platforms", "cpu")
        arranged = (lambda a: a) if case.workload.is_operator else nhwc
        self.batches = [tuple(jnp.array(arranged(a)) for a in batch) for batch in case.batches]
        self.run = MODES[case.workload.mode](self, case)

    def arrays(self, result) -> tuple[np.ndarray, ...]:
        values = result if isinstance(result, tuple) else (result,)
        return tuple(np.asarray(v) for v in values)

    def inference(self, case: Case):
        if case.workload.is_operator:
            return _blocking(jax.jit(_function(case)).lower(*self.batches[0]).compile())
        network, parameters = _network(case)
        compiled = jax.jit(lambda p, x: network(p, x, False)[0]).lower(parameters, self.batches[0][0]).compile()
        return _blocking(lambda x: compiled(parameters, x))

    def training(self, case: Case):
        (network, parameters), rate = _network(case), case.workload.rate
        fixed = {n: a for n, a in parameters.items() if RUNNING in n}
        free = {n: a for n, a in parameters.items() if RUNNING not in n}

        def loss(free, fixed, x, y):
            scores, stats = network(free | fixed, x, True)
            scores = jax.nn.log_softmax(scores.reshape(-1, scores.shape[-1]))
            return -jnp.take_along_axis(scores, y.reshape(-1, 1), 1).mean(), stats

        def step(free, fixed, x, y):
            (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(free, fixed, x, y)
            return value, jax.tree.map(lambda a, g: a - rate * g, free, grads), stats
        compiled = jax.jit(step, donate_argnums=(0, 1)).lower(free, fixed, *self.batches[0]).compile()
        state = [free, fixed]

        def run(x, y):
            value, *state[:] = compiled(*state, x, y)
            jax.block_until_ready(state)
            return float(value)
        return run

    def gradients(self, case: Case):
        f = _function(case)

        def step(*arrays):
            *xs, g = arrays
            y, pull = jax.vjp(f, *xs)
            return (y, *(slope for x, slope in zip(xs, pull(g)) if jnp.issubdtype(x.dtype, jnp.floating)))
        return _blocking(jax.jit(step).lower(*self.batches[0]).compile())


def _function(case: Case):
    return (OPERATORS[case.workload.network](**case.workload.options) if case.workload.network in OPERATORS
            else attention)


def _network(case: Case):
    weights = {n: jnp.array(w) for n, w in turned(case.workload.network, case.weights).items()}
    return with_options(NETWORKS, case.workload.network, case.workload.options), weights


def _blocking(compiled):
    return lambda *arrays: jax.block_until_ready(compiled(*arrays))


MODES = {INFER: Jax.inference, TRAIN: Jax.training, GRADIENTS: Jax.gradients}
make = Jax
