"""What `gc.to_onnx` takes, what it calls things, and what it says."""
from __future__ import annotations

import numpy as np
import pytest
from peer import onnx, run, runtime, session

import graphc as gc
from graphc import nn, optim
from graphc.dsl.function import GraphFunction
from graphc.ir.builder import Builder
from graphc.ir.ops.conv import Conv


@gc.graph
def scores(x: gc.f32["B", 4], w: gc.f32[4, 3]):
    return {"p": gc.softmax(x @ w), "best": gc.argmax(x @ w, axis=1)}


def arrays(rows: int = 5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"x": rng.standard_normal((rows, 4), np.float32), "w": rng.standard_normal((4, 3), np.float32)}


def shape(info) -> list:
    return [d.dim_param or d.dim_value for d in info.type.tensor_type.shape.dim]


def test_a_padding_stays_apart_from_the_pooling_behind_it():
    """The runtime would make it one of the pooling, which it does not take when it is as wide as the window."""
    @gc.graph
    def f(x: gc.f32[1, 1, 4, 4]):
        return gc.max_pool2d(gc.pad(x, [(0, 0), (0, 0), (0, 2), (1, 0)]), 2)
    x = np.random.default_rng(0).standard_normal((1, 1, 4, 4), np.float32)
    np.testing.assert_array_equal(run(gc.to_onnx(f), {"x": x})["result"], f(x))


def test_a_graph_with_names():
    model = gc.to_onnx(scores)
    assert [(i.name, shape(i)) for i in model.graph.input] == [("x", ["B", 4]), ("w", [4, 3])]
    assert [(o.name, shape(o)) for o in model.graph.output] == [("p", ["B", 3]), ("best", ["B"])]
    for rows in (5, 2):
        results = run(model, arrays(rows))
        expect = scores(**arrays(rows))
        np.testing.assert_allclose(results["p"], expect["p"], rtol=1e-6)
        np.testing.assert_array_equal(results["best"], expect["best"])
    assert [shape(i) for i in gc.to_onnx(scores, B=7).graph.input] == [[7, 4], [4, 3]]


def test_a_network_with_its_parameters(tmp_path):
    net = nn.Linear(8) >> nn.relu >> nn.Linear(2)
    step = gc.train_step(net, loss=nn.mse, optimizer=optim.SGD(0.1), x=gc.f32[5, 4], y=gc.f32[5, 2])
    step(arrays()["x"], np.ones((5, 2), np.float32))
    gc.to_onnx(step.model, tmp_path / "net.onnx", x=gc.f32["B", 4], outputs=["0"])
    model = onnx.load(tmp_path / "net.onnx")
    held = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    for name in ("0.weight", "0.bias", "2.weight", "2.bias"):
        np.testing.assert_array_equal(held[name], step.state[name])
    results = run(model, arrays())
    expect = gc.compile(step.model, x=gc.f32[5, 4], outputs=["0"])(arrays()["x"])
    for name in ("result", "0"):
        np.testing.assert_allclose(results[name], expect[name], rtol=1e-5, atol=1e-6)


def test_state_from_a_seed_and_a_mapping():
    net = nn.Linear(3)
    x = arrays()["x"]
    expect = gc.compile(net, x=gc.f32[5, 4], seed=3)(x)
    np.testing.assert_allclose(run(gc.to_onnx(net, x=gc.f32[5, 4], seed=3), {"x": x})["result"], expect, atol=1e-6)
    given = {"weight": np.ones((3, 4), np.float32), "bias": np.zeros(3, np.float32)}
    np.testing.assert_allclose(run(gc.to_onnx(net, x=gc.f32[5, 4], state=given), {"x": x})["result"],
                               x.sum(1, keepdims=True) * np.ones(3), rtol=1e-5, atol=1e-5)
    with pytest.raises(gc.GraphError, match="has 2 parameters"):
        gc.to_onnx(net, x=gc.f32[5, 4])


def test_what_a_call_changes_goes_in_and_out():
    step = gc.train_step(nn.Linear(2), loss=nn.mse, optimizer=optim.Adam(0.1), x=gc.f32["B", 4], y=gc.f32["B", 2])
    model = gc.to_onnx(step)
    changed = {"weight", "bias", "step", *(f"optim.{a}.{p}" for a in ("exp_avg", "exp_avg_sq") for p in ("weight", "bias"))}
    assert {i.name for i in model.graph.input} == {"x", "y"} | changed
    assert {o.name for o in model.graph.output} == {"result"} | {f"{name}.new" for name in changed}
    assert {t.name for t in model.graph.initializer} >= changed | {"optim.lr"}
    assert {i.name for i in session(model).get_overridable_initializers()} == changed
    with pytest.raises(gc.GraphError, match="brings its state"):
        gc.to_onnx(step, seed=0)
    with pytest.raises(gc.GraphError, match="several functions and the sums between them, and a model holds one"):
        gc.to_onnx(gc.train_step(nn.Linear(2), loss=nn.mse, optimizer=optim.Adam(0.1), x=gc.f32[8, 4], y=gc.f32[8, 2],
                                 shards=2))


def test_training_mode_of_a_network():
    """Batch norm takes the moments of the batch and returns new running averages."""
    net = nn.BatchNorm1d()
    x = arrays()["x"]
    results = run(gc.to_onnx(net, x=gc.f32[5, 4], seed=0, training=True), {"x": x})
    np.testing.assert_allclose(results["result"], (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5), atol=1e-5)
    np.testing.assert_allclose(results["running_mean.new"], 0.1 * x.mean(0), atol=1e-6)


def test_stored_types():
    """They compute in f32 and round each result, as graphc does."""
    f = lambda x, y: gc.concat([gc.tanh(x @ y), x], axis=1)
    x, y = (np.random.default_rng(i).uniform(-1, 1, (4, 4)).astype(np.float16) for i in (0, 1))
    types = {"x": gc.f16[4, 4], "y": gc.f16[4, 4]}
    np.testing.assert_allclose(run(gc.to_onnx(f, **types), {"x": x, "y": y})["result"], gc.compile(f, **types)(x, y), atol=1e-3)


def test_bf16():
    """numpy's arrays of it do not go into the runtime, so it is converted inside."""
    f = lambda x, y: gc.cast(gc.concat([gc.tanh(gc.cast(x, gc.bf16) @ gc.cast(y, gc.bf16))], axis=1) * 1.5, gc.f32)
    x, y = (np.random.default_rng(i).uniform(-1, 1, (4, 4)).astype(np.float32) for i in (0, 1))
    types = {"x": gc.f32[4, 4], "y": gc.f32[4, 4]}
    np.testing.assert_array_equal(run(gc.to_onnx(f, **types), {"x": x, "y": y})["result"], gc.compile(f, **types)(x, y))


@gc.graph
def cubes(x: gc.f64["N"]):
    return gc.sum(gc.sin(x) ** 3)


def test_a_gradient_and_several_results():
    x = np.linspace(-1, 2, 7)
    model = gc.to_onnx(gc.value_and_grad(cubes, "x"))
    value, slope = run(model, {"x": x}).values()
    assert [o.name for o in model.graph.output] == ["result0", "result1"]
    np.testing.assert_allclose(value, (np.sin(x) ** 3).sum())
    np.testing.assert_allclose(slope, 3 * np.sin(x) ** 2 * np.cos(x))


def test_loops_see_the_names_around_them():
    """A scan in a scan, a branch and a while loop, each with captured values and named sizes."""
    @gc.graph
    def f(x: gc.f32["T", "B"], w: gc.f32["B"], n: gc.i64[()]):
        def inner(c, v):
            return c + v * gc.sum(w), c

        def outer(c, row):
            total, seen = gc.scan(inner, gc.sum(c), row * w)
            return c + total, gc.cond(total > 0, lambda: gc.sum(seen), lambda: gc.mean(seen))
        last, rows = gc.scan(outer, w, x, reverse=True)
        count, (_, y) = gc.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, c[1] * 0.5 + gc.sum(w)), (gc.full((), 0, gc.i64), last),
                                 max_trips=20)
        return last, rows, count, y
    for t, b in ((3, 4), (2, 5)):
        rng = np.random.default_rng(t)
        given = {"x": rng.standard_normal((t, b), np.float32), "w": rng.standard_normal(b, np.float32), "n": np.array(6)}
        for actual, expect in zip(run(gc.to_onnx(f), given).values(), f(**given), strict=True):
            np.testing.assert_allclose(actual, expect, rtol=1e-4, atol=1e-4)


def test_random_numbers_are_the_same_bits():
    f, x = lambda x: (gc.normal(x.shape), gc.permutation(9), gc.where(gc.bernoulli(0.3, x.shape), x, 0.0)), np.ones((3, 5), np.float32)
    model = gc.to_onnx(f, x=gc.f32["B", 5], seed=5)
    run_it = gc.compile(f, x=gc.f32[3, 5], seed=5)
    results = run(model, {"x": x})
    for actual, expect in zip(results.values(), run_it(x)):
        np.testing.assert_allclose(actual, expect, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(results["random.key.new"], [5, 1])


def test_sizes_that_follow_from_others():
    f = lambda x, y: (gc.reshape(gc.concat([x, y], axis=0), (-1, 2)), gc.mean(y))
    given = {"x": np.ones((8, 4), np.float32), "y": np.arange(48, dtype=np.float32).reshape(12, 4)}
    both, mean = run(gc.to_onnx(f, x=gc.f32["2*N + 2", 4], y=gc.f32["N*M", 4]), given).values()
    np.testing.assert_array_equal(both, np.concatenate([given["x"], given["y"]]).reshape(-1, 2))
    assert mean == 23.5


@pytest.mark.parametrize("external", (None, True, False))
def test_arrays_in_a_file_of_their_own(tmp_path, external):
    net = nn.Linear(64)
    gc.to_onnx(net, tmp_path / "net.onnx", x=gc.f32[2, 64], seed=0, external=external)
    data = tmp_path / "net.onnx.data"
    assert data.exists() == bool(external)
    x = np.ones((2, 64), np.float32)
    opened = runtime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(opened.run(None, {"x": x})[0], gc.compile(net, x=gc.f32[2, 64], seed=0)(x), atol=1e-5)
    if external:
        assert data.stat().st_size == 64 * 64 * 4           # the bias is small enough to stay
        onnx.checker.check_model(str(tmp_path / "net.onnx"))


def test_recurrent_layers_are_those_of_onnx():
    for layer, kind in ((nn.LSTM(3), "LSTM"), (nn.GRU(3), "GRU"), (nn.RNN(3), "RNN"), (nn.GRU(3, bias=False), "GRU")):
        kinds = [n.op_type for n in gc.to_onnx(layer, x=gc.f32["T", 2, 4], seed=0).graph.node]
        assert kinds.count(kind) == 1 and "Scan" not in kinds and "MatMul" not in kinds


def test_composites_keep_their_names():
    net = nn.MultiHeadAttention(2) >> nn.LayerNorm() >> nn.gelu
    kinds = {n.op_type for n in gc.to_onnx(net, x=gc.f32["B", 6, 8], seed=0).graph.node}
    assert {"Attention", "LayerNormalization", "Gelu"} <= kinds
    older = {n.op_type for n in gc.to_onnx(net, x=gc.f32["B", 6, 8], seed=0, opset=18).graph.node}
    assert {"LayerNormalization", "Softmax", "Erf"} & older and not {"Attention", "Gelu"} & older


def test_mistakes():
    for wrong in (17, 99):
        with pytest.raises(gc.GraphError, match="opset is an int from 18"):
            gc.to_onnx(scores, opset=wrong)
    with pytest.raises(gc.GraphError, match="no named dimension 'C'"):
        gc.to_onnx(scores, C=3)
    with pytest.raises(gc.GraphError, match="takes a graph"):
        gc.to_onnx(3)
    with pytest.raises(gc.GraphError, match="the size . does not follow"):
        gc.to_onnx(lambda x: x + 1, x=gc.f32["N*M"])
    with pytest.raises(OSError):
        gc.to_onnx(scores, "/nowhere/at/all.onnx")


def test_convolutions_of_bytes():
    """In i32, as graphs have them after compute="int8"."""
    b = Builder("bytes")
    x, w = b.input("x", gc.u8[1, 8, 6, 6]), b.input("w", gc.i8[5, 8, 3, 3])
    op = Conv.at(2)((2, 1), ((1, 1), (0, 1)), (1, 1), 1, gc.i32)
    f = GraphFunction(b.finish(b.apply(op, [x, w])))
    model = gc.to_onnx(f)
    assert [n.op_type for n in model.graph.node] == ["ConvInteger"]
    rng = np.random.default_rng(0)
    given = rng.integers(0, 256, x.type.shape).astype(np.uint8), rng.integers(-128, 128, w.type.shape).astype(np.int8)
    found, = run(model, dict(zip("xw", given))).values()
    assert np.array_equal(found, f(*given))
