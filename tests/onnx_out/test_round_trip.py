"""What `gc.to_onnx` writes comes back through `gc.from_onnx`: the numbers of the graph that was written."""
from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from peer import OPSETS, assert_same
from test_exported_networks import GRAPHS, NETS, STEPS, inputs_of
from test_exported_operators import EXPORTED

import graphc as gc
from graphc.api import state_for, traced
from graphc.doors.onnx_out.model import model_of
from graphc.errors import GraphError
from graphc.ir.builder import bind_graph
from graphc.ir.interp import evaluate
from graphc.nn.network import entries


def numbers(model, arrays) -> list[np.ndarray]:
    """What the model makes of the inputs that it has, by numpy."""
    net = gc.from_onnx(model)
    if not net.declared_inputs():
        pytest.skip("a network takes an input")
    function = traced(net, False, net.declared_inputs()).function
    owner = state_for("net", entries(function), 0, None)
    state = list(map(np.asarray, owner.arrays(entries(function)))) if owner else []
    given = [arrays[v.name] for v in function.graph.inputs]
    names = {name: size for v, a in zip(function.graph.inputs, given) for name, size in zip(map(str, v.type.shape), a.shape)
             if name in function.graph.dim_names}
    with np.errstate(all="ignore"):
        return list(evaluate(bind_graph(function.graph, names), [*given, *state]))


@pytest.mark.parametrize("name", [n for n in NETS if n not in ("resnet18", "seq2seq.lstm")])
def test_network(name):
    make, types = NETS[name]
    net = make()
    function = traced(net, False, types).function
    owner = state_for("net", entries(function), 0, None)
    graph, sizes = function.graph, {n: 3 for n in function.graph.dim_names}
    arrays = inputs_of(graph, sizes)
    with np.errstate(all="ignore"):
        expect = evaluate(bind_graph(graph, sizes), [*arrays, *map(np.asarray, owner.arrays(entries(function)))])
    found = numbers(gc.to_onnx(net, seed=0, **types), dict(zip((v.name for v in graph.inputs), arrays)))
    assert_same(found, expect, 2e-5)


@pytest.mark.parametrize("name", [n for n in GRAPHS])
def test_graph(name):
    f, _ = GRAPHS[name]
    sizes = {n: 3 for n in f.graph.dim_names}
    arrays = inputs_of(f.graph, sizes)
    with np.errstate(all="ignore"):
        expect = evaluate(bind_graph(f.graph, sizes), arrays)
    assert_same(numbers(gc.to_onnx(f), dict(zip((v.name for v in f.graph.inputs), arrays))), expect, 2e-5)


def split(model) -> dict[str, np.ndarray]:
    """The state of a training step's file, which is taken out of it: what had a value is an input like others."""
    inputs = {v.name for v in model.graph.input}
    state = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.name in inputs}
    kept = [t for t in model.graph.initializer if t.name not in inputs]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return state


@pytest.mark.parametrize("name", [n if n in ("dropout", "gru", "glove") else pytest.param(n, marks=pytest.mark.slow)
                                  for n in STEPS])
def test_training_step(name):
    """Trains in graphc again: the same losses, random numbers included."""
    step = STEPS[name]()
    model = gc.to_onnx(step)
    state = split(model)
    again = gc.compile(gc.from_onnx(model), threads=1)
    names = [v.name for v in step.graph.inputs]
    for rows in (3, 4, 3):
        graph = bind_graph(step.graph, {n: rows for n in step.graph.dim_names})
        batch = inputs_of(graph, {})[:len(names)]
        found = again(**dict(zip(names, batch)), **state)
        np.testing.assert_allclose(found["result"], step(*batch), rtol=1e-5)
        state = {n.removesuffix(".new"): a for n, a in found.items() if n.endswith(".new")}


def some() -> list:
    seen: Counter[str] = Counter()
    rows = []
    for sample in EXPORTED:
        usual = all(a.size and a.dtype in (np.float32, np.int32, bool, np.int64) for a in sample.arrays)
        if sample.arrays and usual and "special" not in sample.name and "odd" not in sample.tag:
            seen[sample.op.name] += 1
            if seen[sample.op.name] <= 1:
                rows.append(pytest.param(sample, id=sample.name))
    return rows


@pytest.mark.parametrize("sample", some())
def test_operator(sample):
    graph = sample.graph()
    model = model_of(graph, [], OPSETS.get(sample.op.name, 23), "0")
    arrays = {v.name: a for v, a in zip(graph.inputs, sample.arrays)}
    try:
        found = numbers(model, arrays)
    except GraphError as error:
        pytest.fail(str(error))
    for a, e in zip(found, map(np.asarray, sample.expected()), strict=True):
        assert (a.dtype, a.shape) == (e.dtype, e.shape)
        np.testing.assert_allclose(a, e, rtol=2e-4, atol=2e-5 * max(1.0, np.abs(e[np.isfinite(e)]).max(initial=0)) if e.dtype.kind == "f" else 0)
