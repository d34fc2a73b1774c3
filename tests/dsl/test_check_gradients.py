"""gc.check_gradients: right gradients pass, wrong ones are found and located, kinks are told."""
import importlib
import importlib.util
import pkgutil

import numpy as np
import pytest

import graphc as gc
from graphc import nn

RANDOM = np.random.default_rng(0)


@gc.graph
def several(x: gc.f32[4, 5], w: gc.f32[5, 3], ids: gc.i32[2]):
    return {"p": gc.mean(gc.sigmoid(x @ w), axis=0), "rows": gc.take(gc.exp(x), ids, 0), "n": gc.argmax(x, axis=1)}


def exponential(rule):
    """exp with a gradient of one's own."""
    return gc.custom_vjp(gc.exp, lambda ins, y, g: rule(ins[0], y, g))


def checked_exponential(rule, shape=(4, 50), **options):
    own = exponential(rule)

    @gc.graph
    def f(x: gc.f32[shape], y: gc.f32[3]):
        return own(x), y * y
    return gc.check_gradients(f, **options)


def row(report, name):
    return next(a for a in report.arguments if a.name == name)


def test_a_right_graph():
    report = gc.check_gradients(several, ids=np.int32([3, 1]))
    assert report.ok and [a.name for a in report.arguments] == ["x", "w"]
    assert row(report, "x").tried == "all 20" and len(row(report, "x").verdicts) == 20
    assert row(report, "x").worst.error < 1e-8 and not row(report, "x").kinks


def test_the_reported_derivatives_are_the_derivatives():
    @gc.graph
    def f(x: gc.f64[()]):
        return x * x * x
    verdict, = row(gc.check_gradients(f, x=np.float64(2)), "x").verdicts
    weight = np.random.default_rng(0).standard_normal()
    assert verdict.analytic == pytest.approx(12 * weight, rel=1e-12) and verdict.numeric == pytest.approx(12 * weight, rel=1e-8)


def test_f32_graphs_are_checked_in_f64():
    """In f32 differences with this step would be noise."""
    @gc.graph
    def f(x: gc.f32[30]):
        return gc.sum(gc.exp(x.astype(gc.f32)) + gc.arange(30).astype(gc.f32) * 10.0)
    assert row(gc.check_gradients(f), "x").worst.error < 1e-6


@pytest.mark.parametrize("make, shape", [
    (lambda: nn.Linear(3) >> nn.relu >> nn.Linear(2), (4, 5)),
    (lambda: nn.Conv2d(4, 3, stride=2, padding=1) >> nn.MaxPool2d(2), (2, 3, 9, 8)),
    (lambda: nn.LSTM(4, bidirectional=True), (5, 2, 3)),
    (lambda: nn.TransformerBlock(2, causal=True, pre_norm=True), (2, 5, 8)),
    (lambda: nn.BatchNorm2d() >> nn.gelu, (3, 2, 4, 4)),
], ids=["mlp", "conv", "lstm", "transformer", "batch norm"])
@pytest.mark.parametrize("training", [False, True])
def test_layers(make, shape, training):
    net = make()
    report = gc.check_gradients(net, x=gc.f32[shape], training=training)
    assert report.ok, str(report)
    assert {a.name for a in report.arguments} >= {"x", *(n for n, p in net.named_parameters() if p.trainable)}


def test_dropout_draws_the_same_each_time():
    assert gc.check_gradients(nn.Linear(30) >> nn.Dropout(0.5) >> nn.Linear(3), x=gc.f32[2, 5], training=True).ok


def test_a_factor_slightly_wrong():
    assert checked_exponential(lambda x, y, g: g * y).ok
    report = checked_exponential(lambda x, y, g: g * y * 1.0001)
    assert not report.ok and not row(report, "x").ok and row(report, "y").ok
    worst = row(report, "x").worst
    assert worst.analytic / worst.numeric == pytest.approx(1.0001, rel=1e-6)


def test_one_wrong_element_of_many_is_found():
    """Twenty samples miss it; a direction in which all move does not, and halving says which it is."""
    def rule(x, y, g):
        return g * y * gc.where((gc.iota((300, 70), 0) == 123) & (gc.iota((300, 70), 1) == 45), 0.0, 1.0)
    report = checked_exponential(rule, (300, 70))
    assert row(report, "x").worst.where == "[123, 45]" and row(report, "x").worst.analytic == 0 and not report.ok


def test_a_missing_term_and_a_wrong_sign():
    assert not checked_exponential(lambda x, y, g: -g * y).ok
    assert not checked_exponential(lambda x, y, g: None).ok
    assert not checked_exponential(lambda x, y, g: gc.zeros((4, 50)) / 0.0).ok          # NaN is not right


def test_a_stopped_gradient_is_wrong():
    @gc.graph
    def f(x: gc.f32[3]):
        return x * gc.stop_gradient(x)
    assert not gc.check_gradients(f).ok


def test_a_kink_is_told():
    @gc.graph
    def f(x: gc.f32[50]):
        return gc.relu(x)
    x = RANDOM.normal(size=50)
    x[[3, 7]] = 0
    report = gc.check_gradients(f, x=x, samples=50)
    assert report.ok and report.arguments[0].kinks == 2
    assert [v.where for v in report.arguments[0].verdicts if v.kink] == ["[3]", "[7]"]
    assert "all 50 (2 at kinks)" in str(report) and "2 at a kink, where any slope between" in str(report)


def test_a_kink_in_a_direction_is_told():
    @gc.graph
    def f(x: gc.f32[500]):
        return gc.relu(x)
    x = RANDOM.normal(size=500)
    x[123] = 0
    report = gc.check_gradients(f, x=x)
    assert report.ok and {v.where for v in report.arguments[0].verdicts if v.kink} == {"[123]"}


@pytest.mark.parametrize("slope, right", [(0.0, True), (0.3, True), (1.0, True), (1.5, False), (-0.2, False)])
def test_what_is_right_at_a_kink(slope, right):
    own = gc.custom_vjp(gc.relu, lambda ins, y, g: g * gc.where(ins[0] == 0, slope, (ins[0] > 0).astype(ins[0].dtype)))

    @gc.graph
    def f(x: gc.f32[6]):
        return own(x)
    report = gc.check_gradients(f, x=np.array([0.0, 1, 2, -1, -2, 3]))
    assert report.ok == right and report.arguments[0].kinks == 1


def test_a_kink_nearby_is_left_behind_by_smaller_steps():
    @gc.graph
    def f(x: gc.f32[4]):
        return gc.abs(x)
    report = gc.check_gradients(f, x=np.array([3e-6, -2e-6, 1.0, -1.0]))
    assert report.ok and not report.arguments[0].kinks


def test_the_text():
    def rule(x, y, g):
        return 2 * g * y
    text = str(checked_exponential(rule, (2, 2)))
    lines = text.splitlines()
    assert lines[0] == "gradients of f: 1 of 2 arguments agree with central differences (f64, step 1e-05)"
    assert lines[1].split() == ["argument", "type", "tried", "largest", "error", "at", "gradient", "differences"]
    assert lines[2].startswith("WRONG  x         f32[2, 2]  all 4") and lines[3].startswith("ok     y         f32[3]     all 3")


def test_raises():
    with pytest.raises(gc.GraphError, match="gradients of f: 1 of 2 arguments agree") as error:
        checked_exponential(lambda x, y, g: 2 * g * y, raises=True)
    assert error.value.loc.file == __file__
    assert checked_exponential(lambda x, y, g: g * y, raises=True).ok


def test_a_report_is_true_if_all_agree():
    """`assert gc.check_gradients(f)` proves something."""
    wrong, right = checked_exponential(lambda x, y, g: 2 * g * y), checked_exponential(lambda x, y, g: g * y)
    assert right and not wrong
    assert row(wrong, "y") and not row(wrong, "x") and not row(wrong, "x").worst
    with pytest.raises(gc.GraphError, match="several: there is no argument to check"):
        gc.check_gradients(several, ids=np.int32([3, 1]), wrt=[])


def test_every_object_with_a_verdict_has_its_truth():
    """No class of the package says `ok` and is true all the same when it is not."""
    absent = {"demo", "__main__"} | ({"torch"} if importlib.util.find_spec("torch") is None else set())      # doors of packages that are not here
    modules = [importlib.import_module(m.name) for m in pkgutil.walk_packages(gc.__path__, "graphc.", onerror=lambda name: None) if not absent & set(m.name.split("."))]
    judging = {c for m in modules for c in vars(m).values() if isinstance(c, type) and c.__module__.startswith("graphc.") and hasattr(c, "ok")}
    assert {c.__name__ for c in judging} >= {"GradientReport", "ArgumentCheck", "Verdict"}
    assert not [c for c in judging if not hasattr(c, "__bool__")]


def test_only_some_arguments():
    report = checked_exponential(lambda x, y, g: 2 * g * y, wrt=["y"])
    assert report.ok and [a.name for a in report.arguments] == ["y"]


def test_named_dimensions():
    @gc.graph
    def f(x: gc.f32["B", 3], y: gc.f32["B"]):
        return gc.sum(gc.tanh(x), axis=1) * y
    assert row(gc.check_gradients(f, B=4), "x").type == gc.f32[4, 3]
    assert row(gc.check_gradients(f, x=RANDOM.normal(size=(2, 3))), "y").type == gc.f32[2]
    with pytest.raises(gc.GraphError, match="needs the sizes of B, for example B=4"):
        gc.check_gradients(f)


def test_given_state():
    net = nn.Linear(2)
    state = {"weight": np.full((2, 3), 1000.0), "bias": np.zeros(2)}
    verdicts = row(gc.check_gradients(net, x=gc.f32[1, 3], state=state), "x").verdicts
    weights = np.random.default_rng(0).normal(size=3 + 2)[3:]           # drawn after x
    assert verdicts[0].analytic == pytest.approx(1000 * weights.sum(), rel=1e-9)
    with pytest.raises(gc.GraphError, match=r"state has no bias: f32\[2\]"):
        gc.check_gradients(net, x=gc.f32[1, 3], state={"weight": state["weight"]})


def test_the_model_of_a_step():
    """At the parameters that it has now."""
    step = gc.train_step(nn.Linear(2, bias=False), loss=nn.mse, optimizer=gc.optim.SGD(0.1), x=gc.f32[4, 3], y=gc.f32[4, 2], seed=0)
    step.state["weight"] = np.full((2, 3), 100, np.float32)
    verdict = row(gc.check_gradients(step.model, x=gc.f32[1, 3]), "x").worst
    assert verdict.ok and abs(verdict.analytic) > 10


@pytest.mark.parametrize("call, text", [
    (lambda: gc.check_gradients(several), r"ids of several is i32\[2\], which is not drawn: give an array, ids="),
    (lambda: gc.check_gradients(several, ids=np.int32([0, 1]), wrt=["z"]), "several has no float argument 'z'; it has x, w"),
    (lambda: gc.check_gradients(several, idx=np.int32([0, 1])), "several has no argument 'idx'; it takes x, w, ids"),
    (lambda: gc.check_gradients(several, ids=np.int32([0, 1, 2])), r"argument 'ids' is i32\[2\], got i32\[3\]"),
    (lambda: gc.check_gradients(logarithm, x=-np.ones(3)), "results that are not finite"),
    (lambda: gc.check_gradients(counted), "returns no float array"),
])
def test_mistakes(call, text):
    with pytest.raises(gc.GraphError, match=text):
        call()


@gc.graph
def logarithm(x: gc.f32[3]):
    return gc.log(x)


@gc.graph
def counted(x: gc.f32[3]):
    return gc.sum(x > 0)
