"""TensorFlow, compiled by XLA."""
from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from benchmarks.engines.case import Case  # noqa: E402
from benchmarks.networks_tensorflow import NETWORKS, attention  # noqa: E402
from benchmarks.turned_weights import RUNNING, nhwc, turned, with_options  # noqa: E402
from benchmarks.workloads import GRADIENTS, INFER, TRAIN  # noqa: E402

CONFIGURATION = "tf.function(jit_compile=True), variables updated in place, images NHWC, recurrence by tf.scan"


class TensorFlow:
    def __init__(self, case: Case):
        tf.config.threading.set_intra_op_parallelism_threads(case.threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        arranged = (lambda a: a) if case.workload.is_operator else nhwc
        self.batches = [tuple(tf.constant(arranged(a)) for a in batch) for batch in case.batches]
        self.run = MODES[case.workload.mode](self, case)

    def arrays(self, result) -> tuple[np.ndarray, ...]:
        values = result if isinstance(result, (tuple, list)) else (result,)
        return tuple(np.asarray(v) for v in values)

    def inference(self, case: Case):
        if case.workload.is_operator:
            return _finished(tf.function(attention, jit_compile=True))
        network, parameters = _network(case)
        return _finished(tf.function(lambda x: network(parameters, x, False)[0], jit_compile=True))

    def training(self, case: Case):
        network, parameters = _network(case)
        variables = {n: tf.Variable(a) for n, a in parameters.items()}
        free = [v for n, v in variables.items() if RUNNING not in n]

        @tf.function(jit_compile=True)
        def step(x, y):
            with tf.GradientTape() as tape:
                scores, stats = network(variables, x, True)
                scores = tf.reshape(scores, (-1, scores.shape[-1]))
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.reshape(y, (-1,)), scores)
                loss = tf.reduce_mean(losses)
            for variable, slope in zip(free, tape.gradient(loss, free)):
                variable.assign_sub(case.workload.rate * tf.convert_to_tensor(slope))
            for name, value in stats.items():
                variables[name].assign(value)
            return loss
        return lambda x, y: float(step(x, y))

    def gradients(self, case: Case):
        @tf.function(jit_compile=True)
        def step(q, k, v, g):
            with tf.GradientTape() as tape:
                tape.watch((q, k, v))
                y = attention(q, k, v)
            return (y, *tape.gradient(y, (q, k, v), g))
        return _finished(step)


def _network(case: Case):
    weights = {n: tf.constant(w) for n, w in turned(case.workload.network, case.weights).items()}
    return with_options(NETWORKS, case.workload.network, case.workload.options), weights


def _finished(f):
    """Calls return when the numbers are there."""
    def run(*arrays):
        result = f(*arrays)
        for value in result if isinstance(result, tuple) else (result,):
            value.numpy()
        return result
    return run


MODES = {INFER: TensorFlow.inference, TRAIN: TensorFlow.training, GRADIENTS: TensorFlow.gradients}
make = TensorFlow
