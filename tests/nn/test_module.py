"""Composition, names, sharing, copies, and the mistakes one can make with layers."""
import numpy as np
import pytest
from network import normal, run

import graphc as gc
from graphc import nn
from graphc.nn.network import trace_network

X = normal(3, 4)


def names(net, *arrays):
    return list(run(net, *(arrays or (X,)))[1])


def test_a_chain_is_flat_however_it_is_built():
    a, b, c = nn.Linear(2), nn.Linear(3), nn.Linear(5)
    wanted = ["0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"]
    assert names((a >> b) >> c) == names(a >> (b >> c)) == names(nn.Sequential(a, b, c)) == wanted


def test_explicit_sequentials_nest():
    assert names(nn.Sequential(nn.Linear(2)) >> nn.Linear(3)) == ["0.0.weight", "0.0.bias", "1.weight", "1.bias"]


def test_any_function_stands_in_a_chain():
    def double(x):
        return x * 2
    y, _ = run((lambda x: x + 1) >> nn.Sequential() >> double >> nn.relu, X)
    np.testing.assert_allclose(y, np.maximum((X + 1) * 2, 0))


def test_layers_in_a_function_are_named_by_its_variables():
    first, blocks = nn.Linear(4), [nn.Linear(4), nn.Linear(4)]

    def body(x):
        return blocks[1](blocks[0](first(x)))
    assert names(body) == [f"{n}.{p}" for n in ("first", "blocks.0", "blocks.1") for p in ("weight", "bias")]
    assert names(nn.relu >> body)[0] == "1.first.weight"


def test_layers_made_in_a_function_are_named_by_class():
    assert names(lambda x: nn.Linear(2)(nn.Linear(3)(x))) == ["linear.weight", "linear.bias", "linear_2.weight", "linear_2.bias"]


def test_a_module_names_its_attributes():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Linear(3) >> nn.relu
            self.heads = [nn.Linear(1), nn.Linear(2)]
            self.extra = {"a": nn.Linear(1, bias=False)}

        def forward(self, x):
            h = self.encoder(x)
            return [head(h) for head in self.heads] + [self.extra["a"](h)]
    assert names(Net()) == ["encoder.0.weight", "encoder.0.bias", "heads.0.weight", "heads.0.bias", "heads.1.weight", "heads.1.bias",
                            "extra.a.weight"]


def test_a_layer_used_twice_shares_and_power_copies():
    layer = nn.Linear(4)
    assert names(layer >> layer) == ["0.weight", "0.bias"]
    assert names(layer ** 3) == [f"{i}.{p}" for i in range(3) for p in ("weight", "bias")]
    _, state = run(layer ** 2, X)
    assert not np.array_equal(state["0.weight"], state["1.weight"])
    y, _ = run(layer ** 0, X)
    assert np.array_equal(y, X)


def test_power_keeps_sharing_inside_a_copy():
    inner = nn.Linear(4)
    assert names(nn.Sequential(inner, inner) ** 2) == ["0.0.weight", "0.0.bias", "1.0.weight", "1.0.bias"]


def test_parameters_of_a_network():
    net = nn.Linear(3) >> nn.BatchNorm1d()
    trace_network(net, x=gc.f32[2, 4])
    assert dict(net.named_parameters()).keys() == {"0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"}
    assert [p.type.shape for p in net.parameters()] == [(3, 4), (3,), (3,), (3,)]


def test_gradients_of_a_network_by_name():
    net = nn.Linear(2) >> nn.tanh

    @gc.graph
    def loss(x: gc.f32[3, 4]):
        return gc.sum(net(x))
    assert [v.name for v in loss.graph.state] == ["net.0.weight", "net.0.bias"]
    d = gc.grad(loss, wrt=net)
    assert d.graph.output_names == tuple(v.name for v in d.graph.state)


def test_batch_size_may_be_a_name():
    function = trace_network(nn.Linear(2) >> nn.BatchNorm1d() >> nn.relu, x=gc.f32["B", 4])
    assert str(function.graph.outputs[0].type) == "f32[B, 2]"


def test_scopes_are_paths():
    function = trace_network((nn.Linear(2) >> nn.relu) ** 2, x=gc.f32[3, 4])
    assert {n.scope for n in function.graph.nodes} >= {"0.0", "1.0"}


@pytest.mark.parametrize("make, text", [
    (lambda: nn.Linear(2) >> 3, ">> takes layers and functions of arrays, got 3"),
    (lambda: nn.Linear(2) ** -1, "takes an int n >= 0, got -1"),
    (lambda: nn.Linear(2, 3), r"Linear\(2, 3\): here it is Linear\(3\); the form is Linear\(features, \*, bias=True, "),
    (lambda: nn.Dropout(1.0), r"rate must be in \[0, 1\), got 1.0"),
    (lambda: nn.RNN(2, activation="sin"), '"tanh" or "relu"'),
    (lambda: nn.LSTM(10, 20), r"LSTM\(10, 20\): here it is LSTM\(20\); the form is LSTM\(hidden, \*, layers=1, "),
    (lambda: nn.GRU(64, layers=0), "layers of GRU is a whole number from 1 on, got 0"),
    (lambda: nn.LSTM(2.5), "hidden of LSTM is a whole number from 1 on, got 2.5"),
    (lambda: nn.MultiHeadAttention(512, 8), r"MultiHeadAttention\(512, 8\): here it is MultiHeadAttention\(8\); the form is "),
    (lambda: nn.TransformerBlock(2, activation="sin"), "activation is one of relu"),
    (lambda: nn.Conv2d(3, (1, 2, 3)), "give one number or 2"),
    (lambda: run(nn.Conv2d(3, 3), X), r"Conv2d takes \[batch, channels, height, width\], got 2 axes: \[3, 4\]"),
    (lambda: run(nn.Conv1d(3, 3, groups=3), normal(2, 4, 5)), "4 input and 3 output channels do not divide into 3 groups"),
    (lambda: run(nn.Embedding(5, 2), X), "Embedding takes integer ids, got f32"),
    (lambda: run(nn.LSTM(2), X), "LSTM takes .*got 2 axes"),
    (lambda: run(nn.GRU(2), normal(5, 3, 4), normal(1, 3, 3)), r"the state of GRU is 1 array\(s\) of shape \[1, 3, 2\], got \[1, 3, 3\]"),
    (lambda: run(nn.MultiHeadAttention(3), normal(2, 5, 4)), "features divisible by 3"),
    (lambda: run(nn.LearnedPosition(3), normal(2, 4, 5)), "LearnedPosition knows 3 places, the input has 4"),
    (lambda: run(nn.SinusoidalPosition(), X), "takes .batch, time, features."),
    (lambda: run(nn.Module(), X), r"Module defines no forward\(self, x\)"),
    (lambda: trace_network(nn.Linear(2), x=gc.f32[3, "F"]), "sizes of parameters must be ints"),
    (lambda: trace_network(nn.Linear(2)), "give the type of each input"),
    (lambda: nn.Linear(2)(X), "only while one is traced"),
])
def test_mistakes(make, text):
    with pytest.raises(gc.GraphError, match=text):
        make()


def test_a_layer_keeps_its_sizes():
    layer = nn.Linear(2)
    trace_network(layer, x=gc.f32[3, 4])
    with pytest.raises(gc.GraphError, match=r"Linear already has weight: f32\[2, 4\]; this input would need f32\[2, 5\]"):
        trace_network(layer, x=gc.f32[3, 5])


def test_an_error_in_a_chain_names_the_line_of_the_layer():
    net = (nn.Linear(2)
           >> nn.Conv2d(3, 3)
           >> nn.relu)
    with pytest.raises(gc.GraphError) as caught:
        trace_network(net, x=gc.f32[3, 4])
    assert "Conv2d(3, 3)" in caught.value.loc.code and caught.value.loc.file == __file__


def test_an_error_in_forward_names_its_line():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(2)

        def forward(self, x):
            return self.first(x) @ x        # the wrong line
    with pytest.raises(gc.GraphError) as caught:
        trace_network(nn.relu >> Net(), x=gc.f32[3, 4])
    assert "the wrong line" in caught.value.loc.code
