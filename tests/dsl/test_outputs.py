"""`outputs=`: intermediate values by name, beside the results."""
import numpy as np
import pytest

import graphc as gc
from graphc import nn

X = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)


@gc.graph
def two_layers(x: gc.f32[4, 5]):
    h = gc.name(gc.tanh(x), "h")
    k = gc.name(h * 2, "k")
    return k + 1


def network():
    return nn.Linear(8) >> nn.relu >> nn.Linear(6) >> nn.relu >> nn.Dropout(0.5)


def test_named_values():
    found = gc.compile(two_layers, outputs=["k", "h"])(X)
    assert list(found) == ["result", "k", "h"]
    np.testing.assert_allclose(found["h"], np.tanh(X), rtol=1e-6)
    assert (found["k"] == 2 * found["h"]).all() and (found["result"] == found["k"] + 1).all()
    assert (gc.compile(two_layers)(X) == found["result"]).all()


def test_no_names_gives_a_dict_of_the_results():
    assert list(gc.compile(two_layers, outputs=[])(X)) == ["result"]


def test_results_of_a_tuple_and_of_a_dict_keep_their_order():
    @gc.graph
    def pair(x: gc.f32[4, 5]):
        h = gc.name(gc.exp(x), "h")
        return h + 1, h + 2

    @gc.graph
    def named(x: gc.f32[4, 5]):
        h = gc.name(gc.exp(x), "h")
        return {"a": h + 1, "h": h}
    assert list(gc.compile(pair, outputs=["h"])(X)) == ["result0", "result1", "h"]
    found = gc.compile(named, outputs=["h"])(X)
    assert list(found) == ["a", "h"] and (found["a"] == found["h"] + 1).all()


def test_layers_of_a_network_by_path():
    net = network()
    y = gc.compile(net, x=gc.f32[4, 5], seed=0)(X)
    found = gc.compile(net, x=gc.f32[4, 5], seed=0, outputs=["0", "1", "2", "3", "4"])(X)
    assert (found["result"] == y).all()
    assert (found["1"] == np.maximum(found["0"], 0)).all() and (found["3"] == np.maximum(found["2"], 0)).all()
    assert (found["4"] == y).all()
    state = {name: p.initial(p.type, 0, name) for name, p in net.named_parameters()}
    np.testing.assert_allclose(found["0"], X @ state["0.weight"].T + state["0.bias"], rtol=1e-5, atol=1e-6)


def test_inner_layers_and_a_class_of_the_users():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.features, self.head = network(), nn.Linear(3)

        def forward(self, x):
            return self.head(self.features(x))
    found = gc.compile(Net(), x=gc.f32[4, 5], seed=0, outputs=["features", "features.3", "features.1"])(X)
    assert (found["features"] == found["features.3"]).all() and found["features.1"].shape == (4, 8)


def test_the_same_layer_at_two_places():
    """One object without parameters, such as nn.relu, stands at several; each place has its own name."""
    pool = nn.residual(nn.tanh)
    net = pool >> nn.Linear(5) >> pool
    found = gc.compile(net, x=gc.f32[4, 5], seed=0, outputs=["0", "0.body", "1", "2", "2.body"])(X)
    np.testing.assert_allclose(found["0.body"], np.tanh(X), rtol=1e-6)
    np.testing.assert_allclose(found["2.body"], np.tanh(found["1"]), rtol=1e-5, atol=1e-6)
    assert (found["2"] == found["result"]).all()


def test_a_layer_called_twice_is_counted():
    shared = nn.Linear(5)

    def net(x):
        return shared(gc.tanh(shared(x)))
    found = gc.compile(net, x=gc.f32[4, 5], seed=0, outputs=["shared#1", "shared#2"])(X)
    assert (found["shared#2"] == found["result"]).all() and (found["shared#1"] != found["result"]).any()
    with pytest.raises(gc.GraphError, match="has 2 values called 'shared': ask for 'shared#1' to 'shared#2'"):
        gc.compile(net, x=gc.f32[4, 5], seed=0, outputs=["shared"])


def test_a_layer_with_several_results_is_counted():
    found = gc.compile(lambda x: (lstm := nn.LSTM(3))(x, return_state=True)[0], x=gc.f32[2, 4, 5], seed=0,     # noqa: F841 (its name is that of the variable)
                       outputs=["lstm#1", "lstm#3"])
    y = found(np.stack([X, X]))
    assert y["lstm#1"].shape == (2, 4, 3) and y["lstm#3"].shape == (1, 4, 3)


def test_layers_in_a_decorated_function_and_through_inlining():
    net = network()

    @gc.graph
    def inner(x: gc.f32["B", 5]):
        return gc.name(net(x) * 2, "twice")

    @gc.graph
    def outer(x: gc.f32[4, 5]):
        return gc.sum(inner(x))
    found = gc.compile(outer, seed=0, outputs=["net.1", "twice", "net"])(X)
    assert (found["twice"] == 2 * found["net"]).all() and found["net.1"].shape == (4, 8)


def test_with_named_dimensions():
    run = gc.compile(network(), x=gc.f32["B", 5], seed=0, outputs=["1"])
    assert run(X)["1"].shape == (4, 8) and run(X[:3])["1"].shape == (3, 8)


def test_model_of_a_training_step():
    net = network()
    step = gc.train_step(net, loss=nn.mse, optimizer=gc.optim.SGD(0.1), x=gc.f32[4, 5], y=gc.f32[4, 6], seed=0)
    run = gc.compile(step.model, x=gc.f32[4, 5], outputs=["0"])
    before = run(X)["0"]
    step(X, np.ones((4, 6), np.float32))
    after = run(X)["0"]
    np.testing.assert_allclose(after, X @ step.state["0.weight"].T + step.state["0.bias"], rtol=1e-5, atol=1e-6)
    assert (after != before).any()


def saliency():
    net = nn.Linear(8) >> nn.tanh >> nn.Linear(3)

    @gc.graph
    def score(x: gc.f32[4, 5]):
        return gc.sum(net(x)[:, 1])
    return net, score


def test_gradient_towards_the_input_with_feature_maps():
    net, score = saliency()
    found = gc.compile(gc.grad(score, "x"), seed=0, outputs=["net.1", "net.2"])(X)
    w = {name: p.initial(p.type, 0, f"net.{name}") for name, p in net.named_parameters()}
    h = np.tanh(X @ w["0.weight"].T + w["0.bias"])
    np.testing.assert_allclose(found["net.1"], h, rtol=1e-5, atol=1e-6)
    # the gradient itself does not need it
    np.testing.assert_allclose(found["net.2"], h @ w["2.weight"].T + w["2.bias"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["result"], (1 - h ** 2) * w["2.weight"][1] @ w["0.weight"], rtol=1e-5, atol=1e-6)


def test_gradient_towards_a_layer_and_a_named_value():
    net, score = saliency()
    w = gc.compile(gc.grad(score, "net.1"), seed=0)(X)
    start = dict(net.named_parameters())["2.weight"]
    np.testing.assert_allclose(w, np.broadcast_to(start.initial(start.type, 0, "net.2.weight")[1], (4, 8)), rtol=1e-6)

    @gc.graph
    def f(x: gc.f32[4, 5]):
        h = gc.name(gc.exp(x), "h")
        return gc.sum(h * h)
    dh, dx = gc.compile(gc.grad(f, ("h", "x")))(X)
    np.testing.assert_allclose(dh, 2 * np.exp(X), rtol=1e-5)
    np.testing.assert_allclose(dx, 2 * np.exp(2 * X), rtol=1e-5)


def test_an_unknown_name_lists_near_ones():
    with pytest.raises(gc.GraphError, match="has no value or layer called 'hh'; it has h and 1 more") as error:
        gc.compile(two_layers, outputs=["hh"])
    assert error.value.loc.file == __file__
    with pytest.raises(gc.GraphError, match="no value or layer called 'features'; it has 0, 1, 2, 3, 4"):
        gc.compile(network(), x=gc.f32[4, 5], seed=0, outputs=["features"])
    with pytest.raises(gc.GraphError, match="none with a name"):
        gc.compile(plain, outputs=["h"])


@gc.graph
def plain(x: gc.f32[3]):
    return x + 1


def test_a_value_inside_a_loop():
    inner = nn.Linear(5)

    @gc.graph
    def f(x: gc.f32[4, 5]):
        return gc.scan(lambda c, r: ((gc.name(gc.tanh(inner(c[0])), "h"),), r), (x[0],), x)[0][0]
    for name in ("h", "inner"):
        with pytest.raises(gc.GraphError, match=f"'{name}' is made inside a loop or branch"):
            gc.compile(f, seed=0, outputs=[name])


def test_wrong_arguments():
    with pytest.raises(gc.GraphError, match="takes a list of names"):
        gc.compile(two_layers, outputs="h")

    @gc.graph
    def f(x: gc.f32[4, 5]):
        h = gc.name(gc.exp(x), "h")
        return {"h": h + 1}
    with pytest.raises(gc.GraphError, match="returns another array under the name 'h'"):
        gc.compile(f, outputs=["h"])


def test_plan_counts_them():
    net = network()
    assert gc.plan(net, x=gc.f32[4, 5],
                   outputs=["0"]).memory.outputs == gc.plan(net, x=gc.f32[4, 5]).memory.outputs + 4 * 8 * 4
