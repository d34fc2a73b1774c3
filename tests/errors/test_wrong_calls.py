"""No call with a wrong number of arguments, or with names that are none, is a raw TypeError: for every public
function, class and method.

The message names the user's line and the form that is right.
"""
import inspect
import pickle
import types
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import pytest

import graphc as gc
from graphc import models, nn, optim
from graphc.dsl.array import Array
from graphc.dsl.function import trace_types

NOT_CALLED = {                      # by users: made or called by graphc itself
    "gc.Array", "gc.DType", "gc.TensorType", "gc.GraphError", "gc.InternalError",
    "optim.Slots",
    "forward", "within", "at", "bind", "evaluated", "with_dtype", "with_shape"}
MODULES = {"gc": gc, "nn": nn, "optim": optim, "models": models}
OURS = "graphc"


@gc.graph
def double(x: gc.f32["B", 3]):
    return gc.name(gc.sum(x * 2), "y")


def step():
    return gc.train_step(nn.Linear(2), loss=nn.mse, optimizer=optim.SGD(0.1), x=gc.f32[4, 3], y=gc.f32[4, 2])


def samples() -> Iterator[object]:
    """An object of every public class, or what a public function returns, whose methods a user calls."""
    net = nn.Linear(2) >> nn.relu
    trained = step()
    run = gc.compile(double, B=2)
    yield from (double, net, net.items[0], run, gc.compile(double), trained, trained.state, trained.model,
                gc.plan(double, B=2), run.memory)
    yield from (gc.f32, gc.f32["B", 3], gc.f32["B"].shape[0], optim.AdamW(0.1), optim.cosine(0.1, 10),
                gc.check_gradients(double, B=2))
    yield nn.Constant(0.5)


@cache
def functions() -> dict[str, Callable]:
    """Public functions and classes, by how a user writes them."""
    found = {}
    for name, module in MODULES.items():
        for member, value in ((n, getattr(module, n)) for n in dir(module)):
            ours = OURS if module is gc else f"{OURS}.{name}"
            if not member.startswith("_") and callable(value) and getattr(value, "__module__", ours).startswith(ours):
                found[f"{name}.{member}"] = value
    return {name: f for name, f in found.items() if name not in NOT_CALLED}


@cache
def methods() -> dict[str, Callable]:
    """Methods of such objects that graphc defines, by class and name; those of arrays are looked up on the array of a
    trace."""
    found = {f"Array.{name}": getattr(Array, name) for name in dir(Array)
             if inspect.isfunction(getattr(Array, name, None)) and not name.startswith("_")}
    for thing in samples():
        cls = type(thing)
        for name in dir(cls):
            method = getattr(thing, name) if not name.startswith("_") and callable(getattr(cls, name, None)) else None
            if isinstance(method,
                          types.MethodType) and method.__func__.__module__.startswith(OURS) and name not in NOT_CALLED:
                found[f"{cls.__name__}.{name}"] = method
        if "__call__" in dir(cls) and cls not in (types.FunctionType, nn.Constant):
            found[f"{cls.__name__}.__call__"] = thing
    return found


WAYS = 7


def wrong_calls(first) -> Iterator[tuple[tuple, dict]]:
    """Arguments that do not fit: too many, names that are none, one twice, none at all."""
    yield (first,) * 14, {}
    yield (), {"no_such_argument": 1}
    yield (first,), {"no_such_argument": 1}
    yield (first,), {"dim": 1}
    yield (first,), {"keepdim": True}
    yield (first, first), {"dim": 1, "keepdim": True}
    yield (), {}


def outcome(call: Callable) -> str:
    """"" for a result or for a GraphError with a line of this file; else what went wrong."""
    try:
        call()
    except gc.GraphError as error:
        here = error.loc is not None and error.loc.file == __file__
        return "" if here else f"GraphError without the line: {error.text}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def traced(call: Callable) -> Callable:
    """`call(x)` with an array of a graph, while that is traced."""
    def body(x):
        call(x)
        return x
    return lambda: trace_types(body, {"x": gc.f32[3, 4]})


@pytest.mark.parametrize("name", sorted(functions().keys() | methods().keys()))
def test_a_wrong_call_says_the_right_form(name):
    f = (functions() | methods())[name]
    bad = []
    for n in range(WAYS):
        def call(x, n=n):
            args, options = list(wrong_calls(x))[n]
            (getattr(x, name.removeprefix("Array.")) if name.startswith("Array.") else f)(*args, **options)
        found = outcome(traced(call))
        bad += [f"call {n}: {found}"] if found else []
    assert not bad, "\n".join(bad)


HABITS = {                          # by habit of torch or numpy, and what the message says
    "x.max(dim=1)": "here it is x.max(1); the form is x.max(axis=None, keepdims=False)",
    "x.sum(dim=1, keepdim=True)": "here it is x.sum(1, True)",
    "x.mean(1, True, 3)": "the form is x.mean(axis=None, keepdims=False)",
    "x.view(2, 6)": "use gc.reshape(x, …)", "x.view(gc.i32)": "use gc.bitcast(x, dtype)",
    "x.view(dtype='int32')": "use gc.bitcast(x, dtype)",
    "x.var(unbiased=True)": "here it is x.var() without unbiased",
    "gc.topk(x)": "missing a required argument: 'k'; the form is topk(x, k, axis=-1)",
    "gc.topk(x, 2, dim=0)": "here it is topk(<Array>, 2, 0)",
    "gc.topk(x, 2, 1, True, True)": "here it is topk(<Array>, 2, 1)",
    "gc.max(x, dim=1)": "here it is max(<Array>, 1)",
    "gc.softmax(x, dim=-1)": "here it is softmax(<Array>, -1)",
    "gc.where(x > 0)": "the form is where(condition, x, y)",
    "gc.resize(x)": "the form is resize(",
    "gc.transpose()": "the form is transpose(x, axes=None)",
    "gc.leaky_relu(x, negative_slope=0.1)": "here it is leaky_relu(<Array>, 0.1)",
    "gc.elu(x, 1.0, True)": "elu(<Array>, 1.0, True): here it is elu(<Array>, 1.0)",
    "gc.normal(0., 1.)": "",
    "nn.Linear(2)(x, 5)": "Linear(<Array>, 5): too many positional arguments; the form is Linear(x)",
    "nn.relu(x, x)": "the form is",
    "gc.parse()": "the form is parse(text, file='<graph text>')",
}


@pytest.mark.parametrize("call", HABITS)
def test_habits_are_answered_with_the_right_form(call):
    with pytest.raises(gc.GraphError) as caught:
        traced(lambda x: eval(call, {"x": x, "gc": gc, "nn": nn}))()
    assert HABITS[call] in caught.value.text, caught.value.text


def test_functions_and_methods_stay_picklable():
    """By their qualified names, as Python's own are."""
    for f in functions().values():
        if isinstance(f, types.FunctionType):
            assert pickle.loads(pickle.dumps(f)) is f


def test_what_users_print_says_what_it_is():
    """In one line, without addresses or contents, however large what it holds."""
    large = np.zeros((300, 300), np.float32)
    things = double, gc.compile(double), gc.compile(double, B=2), step(), gc.compile(gc.graph(_plus(large)))
    texts = {repr(x) for x in things}
    assert texts == {
        "<graph double(x: f32[B, 3]) -> f32[]>", "<compiled double(x: f32[B, 3]) -> f32[], for each size of B>",
        "<compiled double(x: f32[2, 3]) -> f32[]>", "<compiled plus(x: f32[300]) -> f32[300, 300]>",
        "<training step train_linear(x: f32[4, 3], y: f32[4, 2]), 4 arrays of state>"}


def _plus(array):
    def plus(x: gc.f32[300]):
        return x + array
    return plus


@pytest.mark.parametrize("use", [gc.compile, gc.plan])
def test_a_bare_graph_does_not_say_how_its_state_begins(use):
    run = gc.compile(nn.Linear(3), x=gc.f32["B", 4], seed=0)
    with pytest.raises(gc.GraphError, match=r"\(weight, bias\).*the network or function"):
        use(run.graph, B=2)
