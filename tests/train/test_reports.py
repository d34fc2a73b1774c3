"""What a step tells besides the loss, averages of weights, and arrays in the place of parameters."""
import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(16, 3)).astype(np.float32)
Y = (X[:, :1] - X[:, 1:2]).astype(np.float32)


def step_of(net=None, optimizer=None, **options):
    return gc.train_step(net or nn.Linear(4) >> nn.tanh >> nn.Linear(1), loss=nn.mse, optimizer=optimizer or optim.SGD(0.1),
                         x=gc.f32[16, 3], y=gc.f32[16, 1], **options)


def norm(arrays):
    return np.sqrt(sum((a.astype(np.float64) ** 2).sum() for a in arrays))


def test_norms(engine):
    step = step_of(report=["grad_norm", "update_norm", "param_norm", "update_ratio"], optimizer=optim.SGD(0.1, clip_norm=1e-3))
    plain = step_of(optimizer=optim.SGD(0.1, clip_norm=1e-3))
    before = step.weights()
    found = step(X, Y)
    after = step.weights()
    assert found["loss"] == plain(X, Y) and all(np.array_equal(after[n], plain.state[n]) for n in after)
    moved = norm([after[n] - before[n] for n in before])
    assert found["param_norm"] == pytest.approx(norm(before.values()), rel=1e-5)
    assert found["update_norm"] == pytest.approx(moved, rel=1e-3) and found["update_norm"] < 1.1e-4
    assert found["update_ratio"] == pytest.approx(moved / norm(before.values()), rel=1e-3)
    unclipped = step_of()
    start = unclipped.weights()
    unclipped(X, Y)
    assert found["grad_norm"] == pytest.approx(norm([unclipped.state[n] - start[n] for n in start]) / 0.1, rel=1e-4)


def test_reports_are_in_the_history():
    step = step_of(report="grad_norm")
    history = step.fit(X, Y, epochs=2)
    assert len(history["grad_norm"]) == 2 and step.fit(X[:5], Y[:5], batch=5)["grad_norm"][0] > 0


def test_outputs_of_layers(engine):
    step = step_of(outputs=["0", "2"])
    w, b = step.state["0.weight"], step.state["0.bias"]
    found = step(X, Y)
    assert list(found) == ["loss", "0", "2"] and found["2"].shape == (16, 1)
    np.testing.assert_allclose(found["0"], X @ w.T + b, rtol=1e-4, atol=1e-5)
    with pytest.raises(gc.GraphError, match="no value or layer called 'head'"):
        step_of(outputs=["head"])


def test_an_exponential_average(engine):
    step = step_of(ema=0.9)
    with pytest.raises(gc.GraphError, match="no average before the first step"):
        step.averaged
    wanted = None
    for _ in range(4):
        step(X, Y)
        now = step.state["0.weight"].astype(np.float64)
        wanted = now if wanted is None else 0.9 * wanted + 0.1 * now
    np.testing.assert_allclose(step.state["ema.0.weight"], wanted, rtol=1e-5)
    averaged = gc.compile(step.averaged, x=gc.f32[16, 3])
    by_hand = gc.compile(step.model.net, x=gc.f32[16, 3], state={n: step.state[f"ema.{n}"] for n in step.weights()})
    assert np.array_equal(averaged(X), by_hand(X))
    step(X, Y)
    assert not np.array_equal(averaged(X), by_hand(X))              # it follows


def test_an_average_of_accumulated_updates(engine):
    step, plain = step_of(ema=0.9, optimizer=optim.SGD(0.1, accumulate=2)), step_of(ema=0.9)
    for _ in range(3):
        step(X, Y), step(X, Y), plain(X, Y)
    np.testing.assert_allclose(step.state["ema.0.weight"], plain.state["ema.0.weight"], rtol=1e-5)


def test_functional_calls():
    net = nn.Linear(4) >> nn.tanh >> nn.Linear(1)
    values = {n: RANDOM.normal(size=s).astype(np.float32) for n, s in
              {"0.weight": (4, 3), "0.bias": (4,), "2.weight": (1, 4), "2.bias": (1,)}.items()}
    given = gc.compile(lambda x, w, b, v, c: net(x, params={"0.weight": w, "0.bias": b, "2.weight": v, "2.bias": c}),
                       x=gc.f32[16, 3], w=gc.f32[4, 3], b=gc.f32[4], v=gc.f32[1, 4], c=gc.f32[1])
    own = gc.compile(net, x=gc.f32[16, 3], state=values)
    assert np.array_equal(given(X, *values.values()), own(X))
    assert not given.graph.state


def test_one_step_of_gradient_descent_inside_a_graph():
    """MAML's inner step: gradients with respect to arrays that stand for parameters."""
    net = nn.Linear(1)

    @gc.graph
    def inner(w: gc.f32[1, 3], b: gc.f32[1], x: gc.f32[16, 3], y: gc.f32[16, 1]):
        return nn.mse(net(x, params={"weight": w, "bias": b}), y)

    def adapted(x, y):
        net(x)
        dw, db = gc.grad(inner, wrt=("w", "b"))(net.weight, net.bias, x, y)
        return nn.mse(net(x, params={"weight": net.weight - 0.1 * dw, "bias": net.bias - 0.1 * db}), y)
    step = gc.train_step(adapted, optimizer=optim.SGD(0.01), x=gc.f32[16, 3], y=gc.f32[16, 1])
    assert list(step.state)[:2] == ["net.weight", "net.bias"]
    losses = [step(X, Y) for _ in range(30)]
    assert losses[-1] < losses[0]


def test_weights_are_arrays_in_a_trace(engine):
    net = nn.Linear(4) >> nn.tanh >> nn.Linear(1)

    def objective(x, y):
        return nn.mse(net(x), y) + 0.5 * gc.sum(gc.abs(net[0].weight))
    step = gc.train_step(objective, optimizer=optim.SGD(0.1), x=gc.f32[16, 3], y=gc.f32[16, 1])
    plain = gc.train_step(net, loss=nn.mse, optimizer=optim.SGD(0.1), x=gc.f32[16, 3], y=gc.f32[16, 1], state="own")
    plain.state.load({n: step.state[f"net.{n}"] for n in plain.weights()}, partial=True)
    w = step.state["net.0.weight"]
    step(X, Y), plain(X, Y)
    np.testing.assert_allclose(step.state["net.0.weight"], plain.state["0.weight"] - 0.05 * np.sign(w), rtol=1e-4, atol=1e-6)


def test_files_of_weights(tmp_path):
    net, path = nn.Linear(4) >> nn.tanh >> nn.Linear(1), tmp_path / "w.safetensors"
    step = step_of(net)
    gc.save_weights(path, {f"encoder.{n}": a for n, a in step.weights().items()} | {"other": X})
    weights = gc.load_weights(path, prefix="encoder.")
    assert set(weights) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert np.array_equal(gc.compile(net, x=gc.f32[16, 3], state=weights)(X), step.predict(X))
    assert "net.0.weight" in gc.load_weights(path, prefix="encoder.", under="net.")
    with pytest.raises(gc.GraphError, match="begin with 'encoder.': gc.load_weights"):
        gc.compile(net, x=gc.f32[16, 3], state=path)
    with pytest.raises(gc.GraphError, match="lack 'net.' at the beginning"):
        gc.compile(lambda x: net(x), x=gc.f32[16, 3], state=weights)
    with pytest.raises(gc.GraphError, match="has no name that begins with 'decoder.'"):
        gc.load_weights(path, prefix="decoder.")


@pytest.mark.parametrize("make, text", [
    (lambda: step_of(report="norm"), "report= takes names among grad_norm"),
    (lambda: step_of(ema=1.5), r"ema= is a decay in \[0, 1\)"),
    (lambda: step_of().averaged, "make it with ema=0.999"),
    (lambda: gc.compile(lambda x: nn.Linear(2)(x, params={"w": x}), x=gc.f32[2, 2], seed=0), "Linear has no parameter 'w'; it has weight, bias"),
    (lambda: gc.compile(lambda x: nn.Linear(3)(x, params={"weight": x}), x=gc.f32[2, 2], seed=0),
     r"params= gives weight of Linear as f32\[2, 2\], it is f32\[3, 2\]"),
    (lambda: gc.compile(lambda x: nn.Linear(3)(x, params=3), x=gc.f32[2, 2], seed=0), "params= takes a mapping"),
])
def test_mistakes(make, text):
    with pytest.raises(gc.GraphError, match=text):
        make()


def test_a_weight_before_the_first_call():
    layer = nn.Linear(2)
    with pytest.raises(AttributeError, match="once it has been called"):
        layer.weight
    gc.compile(layer, x=gc.f32[2, 2], seed=0)
    with pytest.raises(gc.GraphError, match="weight is an array inside of a graph"):
        layer.weight
    assert not hasattr(layer, "nothing")


def test_no_layer_hides_a_parameter_behind_an_option():
    layers = [nn.Linear(2), nn.Conv1d(2, 1), nn.Conv2d(2, 1), nn.ConvTranspose2d(2, 1), nn.LSTM(2), nn.GRU(2), nn.RNN(2), nn.Embedding(3, 2),
              nn.BatchNorm1d(), nn.LayerNorm(), nn.RMSNorm(), nn.GroupNorm(1), nn.MultiHeadAttention(1)]
    for layer in layers:
        shape = gc.i32[2, 3] if isinstance(layer, nn.Embedding) else (
            gc.f32[2, 4, 5, 5] if "2d" in layer.kind else gc.f32[2, 4] if layer.kind == "BatchNorm1d" else gc.f32[2, 4, 4])
        gc.plan(layer, x=shape)
        assert layer._parameters and not layer._parameters.keys() & vars(layer).keys(), layer.kind
