"""Layers in a `@gc.graph` function, which is traced by itself, do in a network around it what they do there without
the function."""
import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim

X, Y = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32), np.zeros((4, 2), np.float32)


def trained(middle, head, trainable):
    """The state after a step of `head` behind what `middle` makes of the norm's input, and the loss."""
    step = gc.train_step(lambda x, y: nn.mse(head(middle(x)), y), optimizer=optim.SGD(0.5), trainable=trainable,
                         x=gc.f32[4, 3], y=gc.f32[4, 2])
    loss = step(X, Y)
    return loss, {name: value for name, value in step.state.items() if "running" in name}


def plainly(norm):
    return norm


def in_a_graph(norm):
    @gc.graph
    def inner(x: gc.f32[4, 3]):
        return norm(x)
    return inner


def in_a_graph_for_training(norm):
    @gc.graph(training=True)
    def inner(x: gc.f32[4, 3]):
        return norm(x)
    return inner


def in_two_graphs(norm):
    inner = in_a_graph(norm)

    @gc.graph
    def outer(x: gc.f32[4, 3]):
        return inner(x) * 1.0
    return outer


def behind_a_gradient(norm):
    @gc.graph
    def energy(x: gc.f32[4, 3]):
        y = norm(x)
        return gc.sum(y * y) * 0.5 + gc.sum(x)
    return gc.grad(energy, "x")


GRAPHS = (in_a_graph, in_a_graph_for_training, in_two_graphs, behind_a_gradient)


@pytest.mark.parametrize("wrapped", GRAPHS)
@pytest.mark.parametrize("by", ("network", "predicate", "all"))
def test_a_batch_norm_knows_that_it_is_frozen(wrapped, by):
    found = {}
    for way in (wrapped, plainly if wrapped is not behind_a_gradient else wrapped):
        norm, head = nn.BatchNorm1d(), nn.Linear(2)
        trainable = {"network": head, "predicate": lambda name: name.startswith("head"),
                     "all": None}[by]
        found[way] = trained(way(norm), head, trainable)
    for loss, running in found.values():
        moved = any(np.any(value != (1 if "var" in name else 0)) for name, value in running.items())
        assert len(running) == 2 and moved == (by == "all")
    losses = [loss for loss, _ in found.values()]
    assert losses[0] == losses[-1]


def test_a_function_is_traced_once_for_each_step_that_trains_others():
    """Of two steps that share the function, one that trains the norm and one that does not, each has its own."""
    norm, head = nn.BatchNorm1d(), nn.Linear(2)
    inner = in_a_graph(norm)
    _, frozen = trained(inner, head, head)
    _, moving = trained(inner, head, None)
    _, again = trained(inner, head, head)
    assert all(np.array_equal(frozen[n], again[n]) and not np.array_equal(frozen[n], moving[n]) for n in frozen)


SEQUENCE = gc.f32[2, 5, 3]          # [batch, time, features]


def test_results_of_a_graph_keep_the_order_of_batch_and_time():
    gru = nn.GRU(4, batch_first=True)

    @gc.graph
    def inner(x: SEQUENCE):
        return gru(x) * 2.0

    def last(f):
        run = gc.compile(lambda x: nn.Collapse("last")(f(x)), x=SEQUENCE, seed=0)
        return run(np.ones((2, 5, 3), np.float32))
    assert last(inner).shape == (2, 4)
    np.testing.assert_array_equal(last(inner), last(lambda x: gru(x) * 2.0))


@pytest.mark.parametrize("told, first, fits", [(None, True, False), (None, False, True), (True, False, False),
                                               (True, True, True), (False, True, False)])
def test_a_layer_in_a_graph_gets_the_order_that_it_was_traced_for(told, first, fits):
    """It was traced when nobody knew what it would get; what it took for an array of the other order is an error
    where it gets one."""
    gru, collapse = nn.GRU(3, batch_first=first), nn.Collapse("last", batch_first=told)

    @gc.graph
    def inner(y: SEQUENCE):
        return collapse(y * 2.0)

    def net(x):
        return inner(gru(x))
    if fits:
        result = gc.compile(net, x=SEQUENCE, seed=0)(np.ones((2, 5, 3), np.float32))
        assert result.shape == ((2, 3) if first else (5, 3))
        return
    with pytest.raises(gc.GraphError, match="Collapse takes .*batch") as caught:
        gc.compile(net, x=SEQUENCE, seed=0)
    assert caught.value.loc.file == __file__


def test_orders_pass_through_derivatives():
    gru = nn.GRU(3, batch_first=True)

    @gc.graph
    def inner(x: SEQUENCE):
        return gc.sum(nn.Collapse("last")(gru(x)))
    run = gc.compile(lambda x: gc.grad(inner, "x")(x), x=SEQUENCE, seed=0)
    assert run(np.ones((2, 5, 3), np.float32)).shape == (2, 5, 3)
