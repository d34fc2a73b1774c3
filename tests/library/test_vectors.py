"""Test vectors, which this process computes, against exported libraries, called as their headers say."""
from __future__ import annotations

import re

import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim
from graphc.checkpoint import load_arrays
from graphc.doors.library.linking import linker

import networks
from exported import Instance

pytestmark = pytest.mark.skipif(not linker(), reason="there is no C compiler to link a shared library")
SHOWN = 4                       # each named size in the vectors
TABLE = np.random.default_rng(0).standard_normal((300, 30)).astype(np.float32)


def functions(header: str):
    """For each function: its name, how many sizes it takes, the names of its inputs and results."""
    for name, params in re.findall(r"int net_(\w+)\(net \*instance,([^;]*)\);", header):
        words = [re.sub(r"\[.*", "", p).split() for p in params.split(",")]
        if name not in ("init", "load", "parallel"):
            sizes = [w for w in words if w[0] == "int64_t" and not w[1].startswith("*")]
            given = [w[-1].lstrip("*") for w in words if w[0] == "const"]
            yield name, len(sizes), given, [w[-1].lstrip("*") for w in words if w[0] != "const" and w not in sizes]


def agrees(folder) -> None:
    """One instance with 1 thread and one with 2."""
    vectors, header = load_arrays(folder / "vectors.safetensors"), (folder / "net.h").read_text()
    found = list(functions(header))
    assert found and {f"{name}.{a}" for name, _, *both in found for arrays in both for a in arrays} == set(vectors)
    names = re.search(r"int64_t net_memory\((.*)int threads\)", header)[1].count("int64_t")
    for threads in (1, 2):
        n = Instance(folder, sizes=(SHOWN,) * names, threads=threads)
        for name, sizes, given, results in found:
            want = [vectors[f"{name}.{r}"] for r in results]
            outputs = [np.full_like(w, 1) for w in want]
            assert n.call(name, [vectors[f"{name}.{g}"] for g in given], outputs, (SHOWN,) * sizes) == 0, n.message
            assert [o.tobytes() for o in outputs] == [w.tobytes() for w in want]


def operators():
    @gc.graph
    def f(x: gc.f32["B", 6], ids: gc.i32["B"], w: gc.f64[5, 5]):
        values, places = gc.topk(x, 2)
        return {"sorted": gc.sort(x, axis=1), "sums": gc.cumsum(x, axis=0), "values": values, "places": places,
                "wave": gc.sin(x) * gc.tanh(x) + gc.pow(gc.abs(x), 1.7), "gamma": gc.lgamma(gc.abs(x) + 1),
                "solved": gc.solve(w + 9 * gc.eye(5, dtype=gc.f64), w), "rows": gc.embedding(x, ids * 0),
                "cond": gc.cond(gc.sum(x) > 0, lambda: x * 2, lambda: x - 1)}
    return f


def constants():
    @gc.graph
    def f(x: gc.f32["B", 300]):
        return x @ TABLE
    return f


def reports():
    net = nn.Linear(8) >> nn.Dropout(0.5) >> nn.BatchNorm1d() >> nn.Linear(2)
    return gc.train_step(net, loss=nn.mse, optimizer=optim.Adam(1e-3), x=gc.f32["B", 4], y=gc.f32["B", 2], seed=0,
                         report=["grad_norm"])


def two_steps():
    """That train layers of one another's."""
    made, judge = nn.Linear(8) >> nn.tanh >> nn.Linear(2), nn.Linear(8) >> nn.relu >> nn.Linear(1)
    one = gc.train_step(lambda z, real: gc.mean(judge(made(z))) - gc.mean(judge(real)), optimizer=optim.Adam(1e-3),
                        trainable=judge, z=gc.f32[8, 4], real=gc.f32[8, 2])
    two = gc.train_step(lambda z: -gc.mean(judge(made(z))), optimizer=optim.Adam(1e-3), trainable=made, z=gc.f32[8, 4],
                        state=one.state)
    return {"judge": one, "deceive": two}


def two_sizes():
    net = nn.GRU(8) >> nn.Linear(3)
    return gc.compile(net, x=gc.f32["T", "B", 4], seed=0)


@pytest.mark.parametrize("make", [operators, constants, reports, two_steps, two_sizes])
def test_vectors(make, tmp_path):
    gc.export(make(), tmp_path, targets=networks.here())
    agrees(tmp_path)


def test_imported_onnx_file(tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("graphc.doors.onnx")
    from onnx import TensorProto, helper, numpy_helper
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((6, 4)).astype(np.float32), "b": rng.standard_normal(4).astype(np.float32)}
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["h"]), helper.make_node("Softmax", ["h"], ["y"])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size]) for name, size in (("x", 6), ("y", 4))]
    graph = helper.make_graph(nodes, "m", ends[:1], ends[1:], [numpy_helper.from_array(a, n) for n, a in weights.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    gc.export(gc.from_onnx(model.SerializeToString()), tmp_path, targets=networks.here())
    agrees(tmp_path)
