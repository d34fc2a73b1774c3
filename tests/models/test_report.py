"""The table that gc.plan prints."""
import pytest

import graphc as gc
from graphc import models, nn
from graphc.report import scaled

CHAIN = """\
layer         kind        result     parameters    flops
0             Linear      f32[2, 8]          48      176
1             Sequential  f32[2, 8]         216      864
  1.0 … 1.2   Residual    f32[2, 8]      3 × 72  3 × 288
    1.0.body  Linear      f32[2, 8]          72      272
2             tanh        f32[2, 8]                  192
total                                       264   1.23 k"""


def chain():
    return nn.Linear(8) >> nn.residual(nn.Linear(8)) ** 3 >> nn.tanh


def row(plan, path):
    return next(r for r in plan.layers if r.path == path)


def test_table_of_a_chain():
    """Linear: 2 × 2 × 8 × (5 or 8) and 16 for the bias; tanh counts 12 an element."""
    assert gc.plan(chain(), x=gc.f32[2, 5]).table(3) == CHAIN


def test_rows():
    plan = gc.plan(chain(), x=gc.f32[2, 5])
    assert row(plan, "0").parameters == 5 * 8 + 8 and row(plan, "0").results == ("f32[2, 8]",)
    assert row(plan, "0").flops == 2 * 2 * 5 * 8 + 2 * 8
    assert row(plan, "1").parameters == 3 * row(plan, "1.1.body").parameters == 3 * (8 * 8 + 8)
    assert plan.flops == sum(row(plan, p).flops
                             for p in "012") and plan.parameters == sum(row(plan, p).parameters for p in "012")


def test_named_dimensions_are_bound():
    assert row(gc.plan(chain(), x=gc.f32["B", 5], B=7), "1.2").results == ("f32[7, 8]",)


def test_repeated_layers_share_a_line_only_when_equal():
    table = gc.plan(models.resnet50(), x=gc.f32[1, 3, 64, 64]).table(2)
    assert "layer1.1 … layer1.2" in table and "  layer1.0 " in table
    assert "12 ×" in gc.plan(models.gpt(), x=gc.i32[1, 16]).table(2)


def test_a_graph_without_layers_has_no_table():
    @gc.graph
    def f(x: gc.f32[3]):
        return x * 2
    assert str(gc.plan(f)).startswith("0 parameters, 3 flops a run, 1 kernel calls")


def test_scaled():
    assert [scaled(n) for n in (0, 7, 999, 1000, 1234567, 999_999,
                                725_355_805_814_784)] == ["0", "7", "999", "1 k", "1.23 M", "1 M", "725 T"]


def test_plan_of_a_training_step():
    """As much memory as the step itself says, with the state of the optimizer, before any of it exists."""
    types = {"x": gc.f32[4, 1, 8, 8], "y": gc.i32[4]}
    how = {"loss": nn.cross_entropy, "optimizer": gc.optim.AdamW(1e-3)}
    plan = gc.plan(models.lenet(), **how, **types)
    step = gc.train_step(models.lenet(), **how, **types)
    assert plan.memory == step.memory
    assert plan.memory.state >= 3 * 4 * plan.parameters and plan.flops > 2 * gc.plan(models.lenet(), x=types["x"]).flops
    assert gc.plan(models.lenet(), **how, x=gc.f32["B", 1, 8, 8], y=gc.i32["B"], B=4).memory == plan.memory


def test_mistakes():
    with pytest.raises(gc.GraphError, match="give optimizer= too"):
        gc.plan(models.lenet(), loss=nn.cross_entropy, x=gc.f32[4, 1, 8, 8], y=gc.i32[4])
    with pytest.raises(gc.GraphError, match="leave out training= and outputs="):
        gc.plan(models.lenet(), optimizer=gc.optim.SGD(0.1), outputs=["0"], loss=nn.cross_entropy, x=gc.f32[4, 1, 8, 8],
                y=gc.i32[4])
