"""The training step: both forms, state, evaluation, named dimensions, what is trained, and mistakes."""
import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(32, 4)).astype(np.float32)
Y = (X @ [1, -1, 2, 0] > 0).astype(np.int32)


def classifier():
    return nn.Linear(16) >> nn.tanh >> nn.Linear(2)


def supervised(net=None, **options):
    options = {"optimizer": optim.Adam(0.05), "x": gc.f32[32, 4], "y": gc.i32[32], "seed": 0} | options
    return gc.train_step(net or classifier(), loss=nn.cross_entropy, **options)


def test_loss_falls_and_metrics_follow(engine):
    step = supervised()
    losses = [step(X, Y) for _ in range(30)]
    assert losses[-1] < 0.3 * losses[0]
    found = step.evaluate([(X[:20], Y[:20]), (X[20:], Y[20:])], accuracy=nn.accuracy)
    assert found["accuracy"] > 0.9 and found["loss"] == pytest.approx(step(X, Y), rel=1e-5)


def test_general_form_reports_values_by_name(engine):
    net = classifier()

    def objective(x, y):
        logits = net(x)
        return nn.cross_entropy(logits, y), {"accuracy": nn.accuracy(logits, y), "logits": logits}
    step = gc.train_step(objective, optimizer=optim.SGD(0.1), x=gc.f32[32, 4], y=gc.i32[32])
    found = step(x=X, y=Y)
    assert set(found) == {"loss", "accuracy", "logits"} and found["logits"].shape == (32, 2)
    assert found["accuracy"] == np.mean(found["logits"].argmax(1) == Y)
    assert list(step.state)[:2] == ["net.0.weight", "net.0.bias"]
    assert step.evaluate([(X, Y)])["loss"] < found["loss"]


def test_both_forms_take_the_same_steps(engine):
    net = classifier()
    first, second = supervised(net), gc.train_step(lambda x, y: nn.cross_entropy(net(x), y), optimizer=optim.Adam(0.05),
                                                   x=gc.f32[32, 4], y=gc.i32[32])
    for name in ("0.weight", "0.bias", "2.weight", "2.bias"):
        second.state["net." + name] = first.state[name]
    assert [first(X, Y) for _ in range(3)] == [second(X, Y) for _ in range(3)]


def test_state_is_read_and_written_by_name(engine):
    step = supervised()
    assert step.state["0.weight"].shape == (16, 4)
    step.state["2.weight"] = np.zeros((2, 16), np.float32)
    step.state["2.bias"] = np.zeros(2)
    assert step(X, Y) == pytest.approx(np.log(2))
    copy = step.state["2.bias"]
    copy[:] = 7
    assert not (step.state["2.bias"] == 7).any()


def test_mistakes_in_state_access_are_named():
    step = supervised()
    with pytest.raises(gc.GraphError, match="the state has no 'weight'; it holds 0.weight, 0.bias"):
        step.state["weight"]
    with pytest.raises(gc.GraphError, match=r"0.bias is \[16\], cannot take a value of shape \[3\]"):
        step.state["0.bias"] = np.zeros(3)
    with pytest.raises(gc.GraphError, match="step is int64, cannot take float64"):
        step.state["step"] = 0.5


def test_seed_decides_first_values_whatever_the_order(engine):
    a, b, other = supervised(), supervised(), supervised(seed=1)
    assert all(np.array_equal(a.state[n], b.state[n]) for n in a.state)
    assert not np.array_equal(a.state["0.weight"], other.state["0.weight"])
    longer = supervised(classifier() >> nn.Linear(2))
    assert np.array_equal(longer.state["2.weight"], a.state["2.weight"])


def test_named_dimensions_serve_a_smaller_last_batch(engine):
    step = supervised(x=gc.f32["B", 4], y=gc.i32["B"])
    fixed = supervised()
    assert step(X, Y) == pytest.approx(fixed(X, Y), rel=1e-6)
    assert np.isfinite(step(X[:5], Y[:5]))
    assert step.state["step"] == 2
    with pytest.raises(gc.GraphError, match="argument 'y'"):
        step(X[:5], Y[:4])


def test_batch_norm_with_a_named_batch(engine):
    net = nn.Linear(3) >> nn.BatchNorm1d() >> nn.Linear(2)
    named, fixed = supervised(net, x=gc.f32["B", 4], y=gc.i32["B"]), supervised(net)
    for _ in range(2):
        assert named(X, Y) == pytest.approx(fixed(X, Y), rel=1e-5)
    np.testing.assert_allclose(named.state["1.running_var"], fixed.state["1.running_var"], rtol=1e-5)


def test_running_statistics_are_state_and_serve_inference(engine):
    step = supervised(nn.BatchNorm1d(momentum=0.25) >> nn.Linear(2), optimizer=optim.SGD(0.0))
    step(X, Y)
    np.testing.assert_allclose(step.state["0.running_mean"], 0.25 * X.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(step.state["0.running_var"], 0.75 + 0.25 * X.var(0, ddof=1), rtol=1e-4)
    before = step.state.copy()
    step.evaluate([(X, Y)])
    assert all(np.array_equal(before[n], step.state[n]) for n in before)


def test_only_what_is_trainable_moves(engine):
    body, head = nn.Linear(8), nn.Linear(2)
    for trainable in (head, [head], lambda name: name.startswith("2")):
        step = supervised(body >> nn.relu >> head, trainable=trainable)
        before = step.state.copy()
        step(X, Y)
        assert np.array_equal(before["0.weight"], step.state["0.weight"])
        assert not np.array_equal(before["2.weight"], step.state["2.weight"])
        assert not any(name.startswith("optim.") and ".0." in name for name in step.state)


def test_dropout_draws_anew_each_step_and_repeats_with_the_seed(engine):
    def run(seed):
        step = supervised(nn.Dropout(0.5) >> nn.Linear(2), optimizer=optim.SGD(0.0), seed=seed)
        return [step(X, Y) for _ in range(3)]
    assert run(5) == run(5) and len(set(run(5))) == 3
    assert supervised(nn.Dropout(0.5) >> nn.Linear(2)).evaluate([(X, Y)]) == supervised(nn.Dropout(0.0) >> nn.Linear(2)).evaluate([(X, Y)])


def test_tied_weights_get_both_gradients(engine):
    table = nn.Embedding(5, 3)
    ids = np.array([0, 2, 4], np.int32)
    step = gc.train_step(lambda ids: gc.sum(table.attend(table(ids)) ** 2), optimizer=optim.SGD(1.0), ids=gc.i32[3])
    assert list(step.state) == ["table.weight", "step", "optim.lr"]
    w = step.state["table.weight"].astype(np.float64)
    scores = w[ids] @ w.T
    grad = 2 * scores.T @ w[ids]
    np.add.at(grad, ids, 2 * scores @ w)
    step(ids)
    np.testing.assert_allclose(step.state["table.weight"], w - grad, rtol=1e-3, atol=1e-3)


def test_mistakes_of_the_declaration():
    net = classifier()
    options = {"optimizer": optim.SGD(0.1)}
    with pytest.raises(gc.GraphError, match=r"loss must be a float scalar, got f32\[32, 2\]"):
        gc.train_step(net, **options, x=gc.f32[32, 4])
    with pytest.raises(gc.GraphError, match="there is nothing to train"):
        gc.train_step(lambda x: gc.sum(x), **options, x=gc.f32[3])
    with pytest.raises(gc.GraphError, match=r"x=f32 is an element type; write gc.f32\[\(\)\]"):
        gc.train_step(lambda x: gc.sum(x), **options, x=gc.f32)
    with pytest.raises(gc.GraphError, match="has no argument 'z'"):
        gc.train_step(lambda x: gc.sum(x), **options, z=gc.f32[3])
    with pytest.raises(gc.GraphError, match="with loss=, give the types"):
        gc.train_step(net, loss=nn.mse, **options, x=gc.f32[32, 4])
    with pytest.raises(gc.GraphError, match="the step takes x, y; got 1 arrays"):
        supervised()(X)
    with pytest.raises(gc.GraphError, match="evaluate got no batch"):
        supervised().evaluate([])
    with pytest.raises(gc.GraphError, match="compile the network inside with state=step.state"):
        gc.train_step(lambda x: gc.sum(net(x)), **options, x=gc.f32[32, 4]).model


def test_wrong_array_at_the_call(engine):
    step = supervised()
    with pytest.raises(gc.GraphError, match=r"\[32, 4\]"):
        step(X[:3], Y)
    with pytest.raises(gc.GraphError, match="i32"):
        step(X, Y.astype(np.int64))


def test_the_step_is_one_graph():
    step = supervised()
    assert len(step.graph.state) == len(step.graph.updates) == len(step.state)
    kept = [v.name for v, update in zip(step.graph.state, step.graph.updates) if update is None]
    assert kept == ["optim.lr"]
    assert "state(" in str(step.dump("graph"))


def test_a_model_sees_later_steps():
    step = supervised()
    predict = gc.compile(step.model, x=gc.f32[1, 4])
    before = predict(X[:1])
    for _ in range(5):
        step(X, Y)
    after = predict(X[:1])
    assert not np.array_equal(before, after)
    w = {name: step.state[name] for name in ("0.weight", "0.bias", "2.weight", "2.bias")}
    np.testing.assert_allclose(after, np.tanh(X[:1] @ w["0.weight"].T + w["0.bias"]) @ w["2.weight"].T + w["2.bias"], rtol=1e-4, atol=1e-5)


def test_a_saved_network_is_served_elsewhere(tmp_path):
    step = supervised()
    step(X, Y)
    step.save(tmp_path / "net.safetensors")
    served = gc.compile(classifier(), x=gc.f32[2, 4], state=tmp_path / "net.safetensors")
    np.testing.assert_array_equal(served(X[:2]), gc.compile(step.model, x=gc.f32[2, 4])(X[:2]))
    fresh = gc.compile(classifier(), x=gc.f32[2, 4], seed=0)
    np.testing.assert_array_equal(fresh(X[:2]), gc.compile(supervised().model, x=gc.f32[2, 4])(X[:2]))


def test_native_steps_match_the_oracle(monkeypatch):
    def losses(oracle):
        monkeypatch.setenv("GRAPHC_ORACLE", oracle)
        step = supervised(nn.Linear(8) >> nn.BatchNorm1d() >> nn.gelu >> nn.Dropout(0.2) >> nn.LayerNorm() >> nn.Linear(2),
                          optimizer=optim.AdamW(optim.cosine(0.01, 10), clip_norm=0.5))
        return [step(X, Y) for _ in range(5)]
    np.testing.assert_allclose(losses("0"), losses("1"), rtol=1e-4)


def test_threads_do_not_change_a_bit():
    def final(threads):
        net = nn.Linear(40) >> nn.LayerNorm() >> nn.gelu >> nn.Dropout(0.3) >> nn.Linear(2)
        step = supervised(net, threads=threads, optimizer=optim.AdamW(0.01, clip_norm=0.5))
        losses = [step(X, Y) for _ in range(3)]
        return losses, step.state.copy()
    (losses, state), others = final(1), [final(n) for n in (2, 3, 4)]
    for other, arrays in others:
        assert other == losses
        assert all(np.array_equal(arrays[n], state[n]) for n in state)


def test_a_failed_step_leaves_the_state_as_it_was():
    step = gc.train_step(nn.Embedding(5, 3) >> nn.Dropout(0.5) >> nn.Linear(2), loss=nn.cross_entropy, optimizer=optim.Adam(0.1),
                         x=gc.i32[4], y=gc.i32[4])
    x, y = np.array([0, 1, 2, 4], np.int32), np.array([0, 1, 1, 0], np.int32)
    step(x, y)
    before = step.state.copy()
    for bad in ((x + 1, y), (x, y + 5)):
        with pytest.raises(gc.GraphError, match="out of range"):
            step(*bad)
        assert all(np.array_equal(before[n], step.state[n]) for n in before)
    assert np.isfinite(step(x, y))


@pytest.mark.parametrize("x", [gc.f32[1, 4], gc.f32["B", 4]])
def test_batch_norm_of_one_example_is_refused(x):
    """It has no variance: its result would not depend on the example. In inference it is as good as any."""
    net = nn.BatchNorm1d() >> nn.Linear(2)              # the line
    with pytest.raises(gc.GraphError, match=r"batch_norm of f32\[1, 4\] has one number for each channel, whose variance is 0") as caught:
        step = supervised(net, x=x, y=gc.i32[x.shape[:1]])
        step(X, Y)                                      # sizes that are known at the call
        step(X[:1], Y[:1])
    assert "# the line" in caught.value.loc.code
    gc.compile(net, x=gc.f32[1, 4], seed=0)(X[:1])
