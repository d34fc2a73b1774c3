"""What a notebook shows: pictures that are whole, need no network, and have no colour that only one ground can bear."""
from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim
from graphc.drawing import charts, draw, notebook
from graphc.memory.memory_map import rectangles
from graphc.report import PlanReport

X, Y = np.zeros((16, 3, 8, 8), np.float32), np.zeros(16, np.int32)


def network():
    block = nn.Conv2d(8, 3, padding=1) >> nn.BatchNorm2d() >> nn.relu
    return block >> nn.Residual(nn.Conv2d(8, 3, padding=1) >> nn.relu) >> nn.Flatten() >> nn.Linear(10)


@pytest.fixture(scope="module")
def things():
    net = network()
    step = gc.train_step(net, loss=nn.cross_entropy, optimizer=optim.AdamW(1e-3), x=gc.f32[16, 3, 8, 8], y=gc.i32[16])
    history = step.fit(X, Y, epochs=3, batch=16, progress=False)
    return {"network": net, "step memory": step.memory, "state": step.state, "history": history,
            "profile": step.profile(X, Y, runs=1),
            "step plan": gc.plan(net, optimizer=optim.AdamW(1e-3), loss=nn.cross_entropy, x=gc.f32[16, 3, 8, 8],
                                 y=gc.i32[16]),
            "plan": gc.plan(net, x=gc.f32["B", 3, 8, 8]),
            "gradients": gc.check_gradients(nn.Linear(2), x=gc.f32[3, 4])}


KINDS = ("network", "step memory", "state", "history", "profile", "step plan", "plan", "gradients")


@pytest.mark.parametrize("kind", KINDS)
def test_is_a_whole_picture(things, kind):
    html = things[kind]._repr_html_()
    root = ET.fromstring(html.replace("&nbsp;", " "))
    assert root.tag == "div" and len(html) < 200_000
    assert "http" not in html.replace("http://www.w3.org/2000/svg", "")
    for text in re.findall(r"<text[^>]*>", html):
        assert "#" not in text, "text has the colour of the page"


@pytest.mark.parametrize("kind, words", [
    ("network", ("Conv2d", "BatchNorm2d", "Residual", "weight: f32[8, 3, 3, 3]", "running_mean")),
    ("step memory", ("arena", "state", "inputs")), ("state", ("optim.exp_avg.", "running_var", "arrays")),
    ("history", ("epoch", "loss", "polyline")), ("profile", ("GFLOP/s", "roofline", "forward", "backward")),
    ("step plan", ("parameters", "where values lie", "first kernel", "the peak", "backward")),
    ("plan", ("· B", "Linear")), ("gradients", ("agree with central differences", "✓"))])
def test_says_what_matters(things, kind, words):
    html = things[kind]._repr_html_()
    assert not [word for word in words if word not in html]


def test_the_memory_map_has_a_rectangle_for_each_buffer(things):
    plan = things["step plan"].planned()
    svg = charts.memory_map(plan)
    found = re.findall(r"<rect [^>]*>", svg)
    assert len(found) == len(rectangles(plan)) > 5
    for rect in found:
        x, y, width, height = (float(re.search(rf' {n}="([-\d.]+)"', rect)[1]) for n in ("x", "y", "width", "height"))
        assert charts.LEFT <= x and x + width <= charts.WIDTH + 1 and y >= -0.1 and y + height <= charts.HEIGHT + 0.5


def test_names_are_escaped():
    state = gc.train_step(nn.Linear(2), loss=nn.mse, optimizer=optim.SGD(0.1), x=gc.f32[3, 4], y=gc.f32[3, 2]).state
    assert "<b>" not in notebook.html(state)
    assert notebook._table(("a",), [("<b>",)], left=1).count("&lt;b&gt;") == 1


def test_what_fails_leaves_the_text(monkeypatch, things):
    def fails(shown):
        raise RuntimeError
    monkeypatch.setitem(notebook.PICTURES, PlanReport, fails)
    assert things["plan"]._repr_html_().startswith("<pre>layer")


def test_what_draw_returns_is_a_picture(monkeypatch):
    @gc.graph
    def f(x: gc.f32[3]):
        return gc.exp(x)
    text = gc.draw(f)
    assert isinstance(text, str) and text.startswith("digraph")
    monkeypatch.setattr(draw, "rendered", lambda dot, format: b"<?xml?><svg></svg>")
    monkeypatch.setattr(draw, "pygraphviz", object())
    assert text._repr_html_() == "<svg></svg>"
    monkeypatch.setattr(draw, "pygraphviz", None)
    assert text._repr_html_() is None
