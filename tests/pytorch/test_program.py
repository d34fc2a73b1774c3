"""A program as a network, without PyTorch: its inputs, its state, its modes, its errors."""
from __future__ import annotations

import numpy as np
import pytest
from torch_programs import TorchProgram, Ref, Step, own

import graphc as gc
from graphc import nn, optim
from graphc.doors.torch.network import TorchNetwork
from graphc.errors import GraphError, Loc

W = np.arange(6, dtype=np.float32).reshape(2, 3) / 10
X = np.random.default_rng(1).standard_normal((4, 3)).astype(np.float32)
LINE = Loc("model.py", 12, "y = self.linear(x)")


def linear(training=False, size=4):
    """x @ W.T, times the number of calls in training mode, which a buffer counts."""
    steps = [Step("y", "linear.default", (Ref("x"), Ref("w")), type=None, loc=LINE, scope="layer", kind="Linear")]
    updates = ()
    if training:
        steps += [Step("n1", "add.Tensor", (Ref("n"), 1), type=gc.i64[()]), Step("z", "mul.Tensor", (Ref("y"), Ref("n1")))]
        updates = (("n", Ref("n1")),)
    return TorchProgram("Counter", {"x": gc.f32[size, 3]}, tuple(steps), {"": Ref("z" if training else "y")},
                   (own("layer.weight", "w", W), own("count", "n", np.array(0), False)), updates=updates)


PROGRAMS = {False: linear(), True: linear(True)}
network = lambda: TorchNetwork(PROGRAMS.__getitem__)


def test_compiles_without_types_or_seed():
    np.testing.assert_allclose(gc.compile(network())(X), X @ W.T, rtol=1e-6)


def test_names_and_kinds_of_state():
    step = gc.train_step(network(), loss=nn.mse, optimizer=optim.SGD(0.0), y=gc.f32[4, 2])
    assert set(step.state) == {"layer.weight", "count", "step", "optim.lr"}
    assert step.state["count"].dtype == np.int64


def test_buffers_are_updated_in_training_alone():
    net = network()
    step = gc.train_step(net, loss=nn.mse, optimizer=optim.SGD(0.0), y=gc.f32[4, 2])
    zero = np.zeros((4, 2), np.float32)
    for n in (1, 2, 3):
        np.testing.assert_allclose(step(X, zero), np.mean((n * X @ W.T) ** 2), rtol=1e-5)
    assert step.state["count"] == 3
    np.testing.assert_allclose(gc.compile(step.model)(X), X @ W.T, rtol=1e-6)
    assert step.state["count"] == 3


def test_stands_in_a_chain_and_in_the_table_of_layers():
    net = network() >> nn.relu
    np.testing.assert_allclose(gc.compile(net)(X), np.maximum(X @ W.T, 0), rtol=1e-6)
    assert "Linear" in str(gc.plan(network()))


def test_named_sizes_come_with_the_call():
    net = TorchNetwork(lambda training: linear(size="B"))
    run = gc.compile(net)
    for rows in (1, 4):
        np.testing.assert_allclose(run(X[:rows]), X[:rows] @ W.T, rtol=1e-6)
    np.testing.assert_allclose(gc.compile(net, B=2)(X[:2]), X[:2] @ W.T, rtol=1e-6)


def test_another_size_than_the_one_that_was_read_is_an_error():
    with pytest.raises(GraphError, match=r'Counter was read for x: f32\[4, 3\], got f32\[5, 3\].*dynamic='):
        gc.compile(network(), x=gc.f32[5, 3])


def test_one_name_has_one_size():
    program = TorchProgram("Sum", {"x": gc.f32["B"], "y": gc.f32["B"]}, (Step("z", "add.Tensor", (Ref("x"), Ref("y"))),),
                      {"": Ref("z")})
    with pytest.raises(GraphError, match="was read for y"):
        gc.compile(TorchNetwork(lambda training: program), x=gc.f32[2], y=gc.f32[3])


def test_everything_that_cannot_be_taken_is_listed_at_once_with_lines():
    strange = Step("a", "strange.default", (Ref("x"),), type=gc.f32[4, 3], loc=LINE)
    steps = (strange, Step("b", "strange.default", (Ref("a"),), type=gc.f32[4, 3], loc=LINE),
             Step("c", "nonzero.default", (Ref("b"),), type=None, loc=Loc("model.py", 20, "i = y.nonzero()")))
    program = TorchProgram("Odd", {"x": gc.f32[4, 3]}, steps, {"": Ref("b")})
    with pytest.raises(GraphError) as raised:
        TorchNetwork(lambda training: program).check()
    text = str(raised.value)
    assert "Odd has 3 operations" in text and "strange.default, 2 times: no rule for it" in text
    assert "model.py:12" in text and "model.py:20" in text and "i = y.nonzero()" in text


def test_an_error_of_a_rule_has_the_line_of_the_module():
    program = TorchProgram("Odd", {"x": gc.f32[4, 3]}, (Step("y", "mm.default", (Ref("x"), Ref("x")), loc=LINE),),
                      {"": Ref("y")})
    with pytest.raises(GraphError) as raised:
        gc.compile(TorchNetwork(lambda training: program))
    assert str(raised.value.loc) == "model.py:12"


def test_results_keep_the_names_of_a_dict():
    program = TorchProgram("Two", {"x": gc.f32[4, 3]}, (Step("y", "neg.default", (Ref("x"),)),),
                      {"logits": Ref("y"), "size": 4})
    found = gc.compile(TorchNetwork(lambda training: program))(X)
    np.testing.assert_array_equal(found["logits"], -X)
    assert found["size"] == 4


def test_no_gradient_flows_out_of_no_grad():
    body = TorchProgram("region", {"a": gc.f32[3]}, (Step("b", "mul.Tensor", (Ref("a"), Ref("a"))),), {"0": Ref("b")})
    steps = (Step("r", "higher_order.wrap_with_set_grad_enabled", (False, body, Ref("x"))),
             Step("s", "operator.getitem", (Ref("r"), 0)), Step("t", "add.Tensor", (Ref("s"), Ref("x"))),
             Step("u", "sum.default", (Ref("t"),)))
    net = TorchNetwork(lambda training: TorchProgram("Held", {"x": gc.f32[3]}, steps, {"": Ref("u")}))

    @gc.graph
    def total(x: gc.f32[3]):
        return net(x)
    np.testing.assert_array_equal(gc.grad(total)(X[0]), np.ones(3, np.float32))


def test_maxima_that_share_a_place_have_its_gradient_each():
    at = np.array([[0, 2, 2]])
    step = Step("y", "max_unpool2d.default", (Ref("x"), Ref("at"), (1, 4)))
    net = TorchNetwork(lambda training: TorchProgram("Unpool", {"x": gc.f32[1, 1, 3], "at": gc.i64[1, 1, 3]}, (step,),
                                                     {"": Ref("y")}))

    @gc.graph
    def total(x: gc.f32[1, 1, 3], at: gc.i64[1, 1, 3], g: gc.f32[1, 1, 4]):
        return gc.sum(net(x, at) * g)
    x, g = np.array([[[5, 7, 7]]], np.float32), np.array([[[1, 2, 3, 4]]], np.float32)
    assert total(x, at[None], g) == 5 + 21
    np.testing.assert_array_equal(gc.grad(total, wrt="x")(x, at[None], g), [[[1, 3, 3]]])
