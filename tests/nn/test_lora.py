"""Low-rank changes of layers that stay."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim
from graphc.errors import GraphError

RNG = np.random.default_rng(0)
X = RNG.standard_normal((16, 6)).astype(np.float32)
Y = RNG.standard_normal((16, 3)).astype(np.float32)


def step_of(net, rate=0.05, **options):
    return gc.train_step(net, loss=nn.mse, optimizer=optim.Adam(rate), x=gc.f32[16, 6], y=gc.f32[16, 3], seed=0, **options)


def test_the_first_result_is_that_of_the_layer_and_only_the_change_is_trained(tmp_path):
    base = nn.Linear(8) >> nn.tanh >> nn.Linear(3)
    trained = step_of(base)
    trained(X, Y)
    trained.save(tmp_path / "base.safetensors")
    expected = gc.compile(trained.model, x=gc.f32[16, 6])(X)

    net = nn.LoRA(nn.Linear(8), 2, alpha=4) >> nn.tanh >> nn.LoRA(nn.Linear(3), 2)
    step = step_of(net)
    step.load(tmp_path / "base.safetensors", partial=True)
    run = gc.compile(step.model, x=gc.f32[16, 6])
    np.testing.assert_array_equal(run(X), expected)
    before = {name: np.array(step.state[name]) for name in step.state}
    losses = [float(step(X, Y)) for _ in range(40)]
    assert losses[-1] < 0.8 * losses[0]
    changed = {name for name, array in before.items() if name[0].isdigit() and not np.array_equal(array, step.state[name])}
    assert changed == {"0.lora_a", "0.lora_b", "2.lora_a", "2.lora_b"}
    assert not [name for name in step.state if name.startswith("optim.") and name.endswith("weight")]

    s = {name: np.asarray(step.state[name], np.float64) for name in step.state}
    w = [s[f"{i}.weight"] + scale * s[f"{i}.lora_b"] @ s[f"{i}.lora_a"] for i, scale in ((0, 2), (2, 1))]
    expected = np.tanh(X @ w[0].T + s["0.bias"]) @ w[1].T + s["2.bias"]
    np.testing.assert_allclose(run(X), expected, rtol=1e-5, atol=1e-5)


def test_what_is_held_keeps_its_statistics():
    net = nn.LoRA(nn.Linear(4) >> nn.BatchNorm1d() >> nn.Linear(3), 1)
    step = step_of(net)
    before = np.array(step.state["1.running_mean"])
    step(X, Y)
    np.testing.assert_array_equal(step.state["1.running_mean"], before)


def test_a_layer_that_was_trained_before_is_trained_no_more():
    layer = nn.Linear(3)
    step_of(layer)(X, Y)
    with pytest.raises(GraphError, match="nothing to train"):
        step_of(nn.LoRA(layer, 1), trainable=lambda name: "lora" not in name).compile()


def test_weights_that_are_held_are_kept_in_fewer_bits():
    net = nn.LoRA(nn.Linear(64), 2)
    x = RNG.standard_normal((4, 128)).astype(np.float32)
    whole, few = (gc.compile(net, x=gc.f32[4, 128], seed=0, store=store) for store in (None, "int8"))
    assert few.memory.derived
    error = np.abs(whole(x) - few(x)).max()
    assert 0 < error < 0.02 * np.abs(whole(x)).max()


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.rest = nn.Linear(5), [nn.Linear(4), nn.relu, {"last": nn.Linear(3)}]

    def forward(self, x):
        return self.rest[2]["last"](self.rest[1](self.rest[0](self.first(x))))


@pytest.mark.parametrize(("make", "names"), [
    (lambda: nn.add_lora(Block() >> nn.Linear(3), 2),
     {"0.first", "0.rest.0", "0.rest.2.last", "1"}),
    (lambda: nn.add_lora(Block(), 2, where=lambda path, layer: path == "first"), {"first"}),
    (lambda: nn.add_lora(nn.add_lora(Block(), 2, where=lambda path, layer: path == "first"), 2),
     {"first", "rest.0", "rest.2.last"}),
    (lambda: nn.add_lora(nn.Linear(3), 2), {""}),
])
def test_add_lora_changes_the_chosen_layers(make, names):
    net = make()
    step = step_of(net, trainable=lambda name: "lora_" in name)
    step(X, Y)
    prefixes = {f"{name}." if name else "" for name in names}
    assert {name for name in step.state if "lora_" in name and "optim." not in name} == {
        f"{p}lora_{c}" for p in prefixes for c in "ab"}
    assert all(f"{p}weight" in step.state for p in prefixes)


def test_a_layer_at_two_places_has_one_change():
    shared = nn.Linear(6)
    net = nn.add_lora(nn.Sequential(shared, nn.tanh, shared, nn.Linear(3)), 1)
    assert net[0] is net[2]


def closed():
    inner = nn.Linear(3)
    return nn.Sequential(lambda x: inner(x), nn.Linear(3))


@pytest.mark.parametrize(("make", "message"), [
    (lambda: nn.LoRA(nn.Linear(3), 0), "rank >= 1, got 0"),
    (lambda: nn.LoRA(8, 8), "takes a layer and a rank"),
    (lambda: step_of(nn.LoRA(nn.Flatten() >> (lambda x: x.reshape(4, 4, 6)), 2)).compile(), "maps the last axis"),
    (lambda: nn.add_lora(nn.relu >> nn.tanh, 2), "no layer to change"),
    (lambda: nn.add_lora(closed(), 2), "a variable of a function"),
    (lambda: gc.compile(nn.LoRA(nn.Linear(3), 1), x=gc.i32[4, 6]), "floats"),
])
def test_what_cannot_be_changed_so(make, message):
    with pytest.raises(GraphError, match=message):
        make()
