"""Names that people know from elsewhere: an AttributeError that says what to write, and is right."""
import re

import pytest

import graphc as gc
from graphc import nn, optim
from graphc.dsl.other_methods import OF_FUNCTIONS, OF_LAYERS, OF_OPTIMIZERS, OF_RUNS, OF_STEPS
from graphc.dsl.other_names import ANSWERS, PLACES, answer

MODULES = {"gc": gc, "nn": nn, "optim": optim}


@pytest.mark.parametrize("name, text", [
    ("nn.ReLU", "graphc.nn has no ReLU: write nn.relu"), ("nn.MSELoss", "graphc.nn has no MSELoss: write nn.mse"),
    ("nn.SmoothL1Loss", "graphc.nn has no SmoothL1Loss: write nn.smooth_l1_loss"),
    ("nn.MultiheadAttention", "graphc.nn has no MultiheadAttention: write nn.MultiHeadAttention"),
    ("nn.ReLU6x", "graphc.nn has no ReLU6x: did you mean nn.relu6"), ("gc.cat", "graphc has no cat: write gc.concat"),
    ("gc.float32", "graphc has no float32: write gc.f32"), ("gc.concatenate", "graphc has no concatenate: write gc.concat"),
    ("gc.Linear", "graphc has no Linear: write nn.Linear"), ("gc.adam", "graphc has no adam: write optim.Adam"),
    ("nn.functional.softplus", "graphc.nn.functional has no softplus: write gc.softplus"),
    ("nn.functional.l1_loss", "graphc.nn.functional has no l1_loss: write nn.l1_loss"),
    ("nn.init.xavier_uniform_", "graphc.nn.init has no xavier_uniform_: write nn.XavierUniform"),
    ("optim.lr_scheduler.StepLR", "graphc.optim.lr_scheduler has no StepLR: write optim.step_decay(lr, every, factor)"),
    ("nn.LazyLinear", "graphc.nn has no LazyLinear: write the layer without Lazy"), ("nn.utils.remove_weight_norm", "has no remove_weight_norm: no need"),
    ("gc.linalg.norm", "graphc.linalg has no norm: write gc.norm"), ("gc.random.randn", "graphc.random has no randn: write gc.normal"),
    ("gc.random.PRNGKey", "write seed= of gc.compile"), ("gc.special.expit", "graphc.special has no expit: write gc.sigmoid"),
    ("gc.nanpercentile", "graphc has no nanpercentile: write gc.nanquantile(x, q / 100)"), ("gc.addmm", "graphc has no addmm: write bias + x @ y"),
    ("gc.conj", "graphc has no conj: no complex numbers"), ("gc.compiel", "did you mean gc.compile"),
    ("gc.zzzzzz", "graphc has no zzzzzz$")])
def test_the_answer(name, text):
    with pytest.raises(AttributeError) as caught:
        eval(name, MODULES)
    assert re.search(text if text.endswith("$") else re.escape(text), str(caught.value)), str(caught.value)


def test_python_may_ask():
    for module in MODULES.values():
        assert not hasattr(module, "__wrapped__") and not hasattr(module, "no_such_name")
        assert getattr(module, "no_such_name", 7) == 7 and "functional" not in dir(module)
    assert "answers each with the one here" in repr(nn.functional)
    with pytest.raises(ImportError):
        exec("from graphc.nn import NoSuchLayer")


def test_what_is_to_be_written_is_there():
    """Every name of graphc's that an answer mentions."""
    for key, text in ANSWERS.items():
        for module, name in re.findall(r"\b(gc|nn|optim)\.(\w+)", text):
            assert name in dir(MODULES[module]), f"{key}: {text}"
        assert key.rpartition(".")[0] in PLACES
    assert answer("nn", "SiLU") == "nn.silu" and answer("nn", "NoSuchLayer") is None


@pytest.fixture(scope="module")
def things():
    """One of each that users hold, with what is said to the attributes that it has not."""

    @gc.graph
    def double(x: gc.f32[3]):
        return x * 2

    @gc.graph
    def doubles(x: gc.f32["B"]):
        return x * 2

    step = gc.train_step(nn.Linear(1), loss=nn.mse, optimizer=optim.SGD(0.5), x=gc.f32[2, 1], y=gc.f32[2, 1])
    return [(step, OF_STEPS), (optim.Adam(1e-3), OF_OPTIMIZERS), (nn.Linear(3), OF_LAYERS), (double, OF_FUNCTIONS),
            (gc.compile(double), OF_RUNS), (gc.compile(doubles), OF_RUNS)]


def test_methods_of_other_frameworks(things):
    for thing, answers in things:
        for name, text in answers.items():
            with pytest.raises(AttributeError, match=rf"^{type(thing).__name__} has no {name}: {re.escape(text)}$"):
                getattr(thing, name)
        assert not hasattr(thing, "__wrapped__") and not hasattr(thing, "_no_such") and not hasattr(thing, "no_such")


def test_what_the_answers_call_is_there(things):
    """What they mention of modules, of a step, and of a compiled function."""
    places = MODULES | {"step": things[0][0], "run": things[4][0], "state": things[0][0].state}
    for _, answers in things:
        for text in answers.values():
            for place, name in re.findall(r"\b(gc|nn|optim|step|run|state)\.(\w+)", text):
                assert hasattr(type(places[place]), name) or name in dir(places[place]), text


def test_answers_cost_no_call_anything(things):
    """Python finds attributes of types with `__getattr__` the slow way."""
    for thing, answers in things:
        if answers is not OF_LAYERS:            # which have one for parameters
            assert not hasattr(type(thing), "__getattr__")
            assert not answers.keys() & set(dir(thing))
