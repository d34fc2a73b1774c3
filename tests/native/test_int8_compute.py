"""`compute="int8"`: products by weights of 8-bit integers, by row or by the ranges of a calibration."""
from __future__ import annotations


import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim
from graphc.codegen.llvm.host import host_target
from graphc.nn.network import trace_network
from graphc.quantized_products import products_of

def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(np.float32)


def codes(x: np.ndarray, axis, exact: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The integers and scales that the documentation says."""
    largest = np.maximum(np.abs(x).max(axis=axis, keepdims=True), np.float32(1e-30))
    scale = largest / np.float32(127)
    return np.rint(x / scale if exact else x * (np.float32(127) / largest)).astype(np.int32), scale


def product(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """x @ w.T of integers, scaled in the order of the compiled code."""
    (q, sx), (k, sw) = codes(x, -1), codes(w, 1, exact=True)
    return (q @ k.T).astype(np.float32) * sx * sw.T


def error(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.mark.parametrize("rows,inner,columns", [(1, 64, 48), (7, 33, 17), (40, 96, 160), (3, 130, 31)])
def test_a_layer_is_what_the_documentation_says(rows, inner, columns):
    w, b, x = drawn(columns, inner, seed=1), drawn(columns, seed=2), drawn(rows, inner)
    x[0, :3] = 0, 50, -50
    run = gc.compile(nn.Linear(columns), x=gc.f32[rows, inner], state={"weight": w, "bias": b}, compute="int8")
    assert np.array_equal(run(x), product(x, w) + b)
    assert error(run(x), x @ w.T + b) < 0.02


def test_rows_of_zeros_and_of_what_is_not_finite():
    w = drawn(32, 16)
    run = gc.compile(nn.Linear(32, bias=False), x=gc.f32[4, 16], state={"weight": w}, compute="int8")
    x = drawn(4, 16)
    x[0], x[1, 3], x[2, 5] = 0, np.nan, np.inf
    y = run(x)
    assert (y[0] == 0).all() and np.isnan(y[1]).all() and not np.isfinite(y[2]).any()
    assert np.array_equal(y[3:], product(x[3:], w))


def networks():
    yield "mlp", nn.Linear(64) >> nn.relu >> nn.Linear(48) >> nn.relu >> nn.Linear(3), {"x": gc.f32["B", 40]}
    yield "lstm", nn.LSTM(32, batch_first=True), {"x": gc.f32["B", 6, 24]}
    yield "gru", nn.GRU(32, batch_first=True), {"x": gc.f32["B", 6, 24]}
    yield "transformer", nn.TransformerBlock(heads=2) ** 2, {"x": gc.f32["B", 9, 32]}
    yield "convolutions", (nn.Conv2d(24, 3, padding=1) >> nn.relu >> nn.Conv2d(16, 3, stride=2) >> nn.relu >> nn.Flatten()
                           >> nn.Linear(20)), {"x": gc.f32["B", 6, 10, 10]}
    yield "series", nn.Conv1d(16, 5, padding=2) >> nn.relu >> nn.Conv1d(16, 3), {"x": gc.f32["B", 5, 30]}


def first(y) -> np.ndarray:
    return y[0] if isinstance(y, tuple) else y


@pytest.mark.parametrize("name,net,types", [*networks()], ids=lambda v: v if isinstance(v, str) else "")
def test_networks(name, net, types):
    """Near f32; a sample's bits depend neither on the batch nor on the number of threads."""
    (x_type,) = types.values()
    x = drawn(5, *x_type.shape[1:])
    plain = first(gc.compile(net, seed=0, **types)(x))
    calibration = gc.calibrate(net, [x[:3], (x[3:],)], seed=0, **types)
    for compute in ("int8", calibration):
        run = gc.compile(net, seed=0, compute=compute, threads=1, **types)
        y = first(run(x))
        assert 0 < error(y, plain) < 0.04, (name, compute)
        again = gc.compile(net, seed=0, compute=compute, threads=2, **types)
        assert first(again(x)).tobytes() == y.tobytes()
        assert first(run(x[:2])).tobytes() == y[:2].tobytes()
        report = run.quantisation()
        assert sum(p.bits == 8 for p in report.products) >= 2 and all(p.why_not or 0 < p.relative < 0.03 for p in report.products)


class Shortcut(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(n, 3, padding=1) for n in (32, 32, 24))

    def forward(self, x):
        x = nn.relu(self.a(x))
        x = gc.max_pool2d(x, 2)
        return self.c(nn.relu(self.b(x) + x))


def test_integers_between_convolutions():
    """What convolutions read in fixed ranges is kept as integers, behind pools and on the way around convolutions too."""
    net, types, x = Shortcut(), {"x": gc.f32[2, 3, 12, 12]}, drawn(2, 3, 12, 12)
    state = {f"{name}.bias": drawn(n, seed=n) for name, n in (("a", 32), ("b", 32), ("c", 24))}
    state |= {f"{name}.weight": drawn(n, m, 3, 3, seed=m) * np.float32(0.1)
              for name, n, m in (("a", 32, 3), ("b", 32, 32), ("c", 24, 32))}
    calibration = gc.calibrate(net, [x], state=state, **types)
    run = gc.compile(net, state=state, compute=calibration, **types)
    main = run.dump("planned").split('\n\ngraph "prepare')[0]
    made = [v for node in run.compilation.plan.graph.nodes for v in node.outputs if v.type.shape[:2] == (2, 32)]
    assert len(made) >= 3 and {v.type.dtype.name for v in made} == {"u8"} and "pack_four" in main

    def rounded(v, name):
        a = calibration.ranges[name]
        return gc.fake_quantize(v, a.scale, low=a.dtype.range[0], high=a.dtype.range[1])

    @gc.graph
    def by_hand(x: gc.f32[2, 3, 12, 12]):
        def conv(v, name):
            k, scale = codes(state[f"{name}.weight"], (1, 2, 3), exact=True)
            return gc.conv2d(v, k.astype(np.float32) * scale, padding=1) + state[f"{name}.bias"][:, None, None]
        x = gc.max_pool2d(rounded(nn.relu(conv(rounded(x, "a.weight"), "a")), "b.weight"), 2)
        return conv(rounded(nn.relu(conv(x, "b") + x), "c.weight"), "c")
    assert error(run(x), gc.compile(by_hand)(x)) < 1e-3
    assert 1e-3 < error(run(x), gc.compile(net, state=state, **types)(x)) < 0.03


def test_products_are_packed_and_weights_made_once():
    net = nn.Linear(64) >> nn.relu >> nn.Linear(32)
    run = gc.compile(net, x=gc.f32[8, 40], seed=0, compute="int8")
    main = run.dump("planned").split('\n\ngraph "prepare')[0]
    assert main.count("{dtype=i32}") == 2 and "8x4[" in main and "= copy(" not in main


def test_what_stays_in_f32_is_said():
    net = nn.Linear(64) >> nn.relu >> nn.Linear(3)
    run = gc.compile(net, x=gc.f32[8, 40], seed=0, compute="int8")
    wide, narrow = run.quantisation().products
    assert (wide.name, wide.bits, narrow.name, narrow.bits) == ("0.weight", 8, "2.weight", 32)
    assert "2.weight: matmul f32[8, 64] x f32[64, 3] stays f32: 3 columns" in run.explain()
    assert "2.weight" in str(run.quantisation()) and "3 columns of sums of 64 terms" in str(run.quantisation())
    weights = run.quantisation().products[0]
    w = gc.compile(net, x=gc.f32[8, 40], seed=0).graph      # the same numbers by hand
    assert w.state[0].name == "0.weight" and 0 < weights.largest < 0.01


def test_errors_of_results():
    """Of each product alone, on what it reads in f32."""
    net = nn.Linear(48) >> nn.relu >> nn.Linear(32)
    x, types = drawn(16, 40), {"x": gc.f32[16, 40]}
    a, b = drawn(48, 40, seed=3), drawn(32, 48, seed=4)
    state = {"0.weight": a, "0.bias": np.zeros(48, np.float32), "2.weight": b, "2.bias": np.zeros(32, np.float32)}
    calibration = gc.calibrate(net, [x], state=state, **types)
    report = gc.compile(net, compute=calibration, state=state, **types).quantisation().products
    for row, given, w in zip(report, (x, np.maximum(x @ a.T, 0)), (a, b)):
        fixed, (k, sw) = calibration.ranges[row.name], codes(w, 1, exact=True)
        y = (fixed.codes(given) * np.float32(fixed.scale)) @ (k * sw).T
        assert np.isclose(row.relative, error(y, given @ w.T), rtol=1e-2) and row.of == "results"
        assert np.isclose(row.largest, np.abs(y - given @ w.T).max(), rtol=1e-2)


def reasons(target: str, net, monkeypatch, **types) -> list[str]:
    monkeypatch.setenv("GRAPHC_TARGET", target)
    return [p.why_not for p in products_of(trace_network(net, False, **types).graph)]


def test_what_gains_nothing_depends_on_the_cpu(monkeypatch):
    """Convolutions that Winograd's form computes, without instructions; everything where there are only slow ones."""
    net = nn.Conv2d(32, 3, padding=1) >> nn.relu >> nn.Conv2d(32, 3, stride=2) >> nn.Flatten() >> nn.Linear(64)
    types = {"x": gc.f32[1, 16, 9, 9]}
    assert reasons("avx512_bf16", net, monkeypatch, **types) == ["", "", ""]
    assert reasons("avx2_vnni", net, monkeypatch, **types) == ["", "", ""]
    assert reasons("avx2", net, monkeypatch, **types) == ["Winograd's form in f32 is as fast", "", ""]
    assert reasons("neon_dot", net, monkeypatch, **types) == ["", "", ""]
    assert set(reasons("neon", net, monkeypatch, **types)) == {"this CPU has no instructions for products of bytes"}


def test_plans():
    """Of integers too, before there is a weight."""
    net, types = nn.Linear(512) >> nn.relu >> nn.Linear(512), {"x": gc.f32[8, 512]}
    plain, small = (gc.plan(net, compute=c, **types) for c in (None, "int8"))
    assert "8x4" not in str(plain.kernels) and small.parameters == plain.parameters
    assert small.memory.derived < plain.memory.derived or not plain.memory.derived


def test_errors_of_weights():
    w = drawn(32, 64)
    run = gc.compile(nn.Linear(32, bias=False), x=gc.f32[4, 64], state={"weight": w}, compute="int8")
    k, scale = codes(w, 1, exact=True)
    (row,) = run.quantisation().products
    assert np.isclose(row.largest, np.abs(k * scale - w).max()) and np.isclose(row.relative, error(k * scale, w))


def test_a_live_state_is_followed():
    step = gc.train_step(nn.Linear(32), loss=nn.mse, optimizer=optim.SGD(0.1), x=gc.f32[8, 16], y=gc.f32[8, 32])
    run = gc.compile(step.model, x=gc.f32[8, 16], compute="int8")
    x = drawn(8, 16)
    before = run(x), run.quantisation().products[0].largest
    step.state["weight"] = drawn(32, 16, seed=5)
    assert np.array_equal(run(x), product(x, step.state["weight"]) + step.state["bias"])
    assert (run(x) != before[0]).any() and run.quantisation().products[0].largest != before[1]


def test_ranges():
    """By the lowest and highest, by a share, by the least error: numbers outside saturate."""
    w, x = np.eye(32, dtype=np.float32), np.abs(drawn(64, 32))
    x[0, 0] = 100
    net, kw = nn.Linear(32, bias=False), {"x": gc.f32[64, 32], "state": {"weight": w}}
    ranges = {}
    for method in ("minmax", "percentile", "mse"):
        calibration = gc.calibrate(net, [x], method=method, percentile=99.0, **kw)
        a = calibration.ranges["weight"]
        ranges[method] = a.high
        step = np.float32(a.scale)
        steps = np.clip(np.rint(x * np.float32(1 / a.scale)), 0, 255)
        y = gc.compile(net, compute=calibration, **kw)(x)
        assert a.low == 0 and a.dtype is gc.u8 and np.allclose(y, steps * step, rtol=1e-6)
    assert ranges["minmax"] == 100 and np.isclose(ranges["percentile"], np.percentile(x, 99), rtol=1e-3)
    assert ranges["percentile"] < ranges["mse"] <= 100
    signed = gc.calibrate(net, [x - 1], **kw).ranges["weight"]
    assert signed.dtype is gc.i8 and signed.low < 0


def test_digits():
    """A trained network of convolutions loses at most half a point, calibrated or not."""
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    x, y = (digits.images[:, None] / 16).astype(np.float32), digits.target.astype(np.int32)
    order = np.random.default_rng(0).permutation(len(x))
    train, test = order[:1200], order[1200:]
    net = (nn.Conv2d(16, 3, padding=1) >> nn.relu >> nn.Conv2d(32, 3, padding=1) >> nn.relu >> nn.MaxPool2d(2)
           >> nn.Conv2d(32, 3, padding=1) >> nn.relu >> nn.Flatten() >> nn.Linear(64) >> nn.relu >> nn.Linear(10))
    step = gc.train_step(net, loss=nn.cross_entropy, optimizer=optim.AdamW(2e-3), x=gc.f32[60, 1, 8, 8], y=gc.i32[60], seed=0)
    for _ in range(12):
        for at in range(0, len(train), 60):
            step(x[train[at:at + 60]], y[train[at:at + 60]])
    types = {"x": gc.f32[len(test), 1, 8, 8]}

    def accuracy(**options) -> float:
        return float((gc.compile(step.model, **options, **types)(x[test]).argmax(1) == y[test]).mean())
    plain = accuracy()
    assert plain > 0.95
    for method in ("minmax", "percentile", "mse"):
        calibration = gc.calibrate(step.model, [x[train[:597]]], method=method, **types)
        assert len(calibration.ranges) == 3
        assert accuracy(compute=calibration) >= plain - 0.005, method
    assert accuracy(compute="int8") >= plain - 0.005


def test_what_is_wrong_is_said():
    types = {"x": gc.f32[8, 40]}
    with pytest.raises(gc.GraphError, match="compute='int8': linear has no product by weights .*\n  weight: 3 columns"):
        gc.compile(nn.Linear(3), seed=0, compute="int8", **types)
    run = gc.compile(nn.Linear(32), seed=0, **types)
    with pytest.raises(gc.GraphError, match='there is no quantisation: compile with compute="int8" or "bf16"'):
        run.quantisation()
    calibration = gc.calibrate(nn.Linear(32), [drawn(8, 40)], seed=0, **types)
    with pytest.raises(gc.GraphError, match="a calibration is of a network that is trained"):
        gc.train_step(nn.Linear(32), loss=nn.mse, optimizer=optim.SGD(0.1), y=gc.f32[8, 32], compute=calibration, **types)
    with pytest.raises(gc.GraphError, match="a calibration of another network: sequential has no product 'weight'"):
        gc.compile(nn.Linear(32) >> nn.relu, seed=0, compute=calibration, **types)
    with pytest.raises(gc.GraphError, match="at least one batch"):
        gc.calibrate(nn.Linear(32), [], seed=0, **types)
    with pytest.raises(gc.GraphError, match="method= is one of minmax, percentile, mse, got 'best'"):
        gc.calibrate(nn.Linear(32), [drawn(8, 40)], method="best", seed=0, **types)
    with pytest.raises(gc.GraphError, match="percentile= is from 50 to 100, got 10"):
        gc.calibrate(nn.Linear(32), [drawn(8, 40)], percentile=10, seed=0, **types)
    with pytest.raises(gc.GraphError, match="not all finite"):
        gc.calibrate(nn.Linear(32), [np.full((8, 40), np.inf, np.float32)], seed=0, **types)
    with pytest.raises(gc.GraphError, match="no product by weights that would be one of 8-bit integers"):
        gc.calibrate(nn.Linear(3), [drawn(8, 40)], seed=0, **types)


@pytest.mark.skipif(not host_target().rounds_to_bf16(host_target().lanes(4)), reason="this CPU rounds to bf16 by arithmetic")
def test_images_of_convolutions_in_groups_are_kept_as_bf16():
    """Of those that an activation computes for it alone; its kernels stay f32."""
    net = (nn.Conv2d(32, 1) >> nn.relu >> nn.Conv2d(32, 3, padding=1, groups=32) >> nn.relu >> nn.Conv2d(24, 1)
           >> nn.GlobalAvgPool2d() >> nn.Linear(16))
    x = np.random.default_rng(0).standard_normal((2, 16, 12, 12)).astype(np.float32)
    plain = gc.compile(net, x=gc.f32[x.shape], seed=0)
    for compute in ("int8", gc.calibrate(net, [(x,)], x=gc.f32[x.shape], seed=0)):
        run, other = (gc.compile(net, x=gc.f32[x.shape], seed=0, compute=compute, threads=n) for n in (1, 2))
        _, second, *_ = run.quantisation().products
        assert (second.bits, second.why_not) == (32, "a convolution in groups, whose image is kept as bf16")
        assert "bf16[2, 32, 12, 12]" in run.dump("planned") and run(x).tobytes() == other(x).tobytes()
        assert np.linalg.norm(run(x) - plain(x)) < 0.03 * np.linalg.norm(plain(x))
