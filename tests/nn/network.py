"""Runs a layer by the oracle on fresh parameters."""
import inspect

import numpy as np

from graphc.ir.types import TensorType, dtype_of
from graphc.nn import Module
from graphc.nn.network import entries, trace_network
from graphc.oracle import OracleExecutable
from graphc.state import State


def run(net, *arrays, training=False, seed=0, state=None):
    """(result, state): the layer's result, and the state before the run or as given."""
    names = [f"input{i}" for i in range(len(arrays))] if isinstance(net, Module) else inspect.signature(net).parameters
    function = trace_network(net, training, **{n: TensorType(dtype_of(a), a.shape) for n, a in zip(names, arrays)})
    state = state or State.create(entries(function), seed)
    return OracleExecutable(function.graph, [state.array(e) for e in entries(function)])(*arrays), state


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)
