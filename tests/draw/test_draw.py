"""gc.draw and pictures in notebooks: what is drawn, as data, as Graphviz's text and as SVG."""
import xml.etree.ElementTree as ET
from collections import Counter

import pytest

import graphc as gc
from graphc import nn, optim
from graphc.api import traced
from graphc.drawing import draw as drawing
from graphc.drawing.dot import dot_text
from graphc.drawing.picture import PictureCluster, Vertex, picture_of
from graphc.errors import Loc

SVG = "{http://www.w3.org/2000/svg}"


@gc.graph
def f(x: gc.f64[()], y: gc.f64[()]):
    return y * (x ** 2 + x)


def net():
    return nn.Conv2d(8, 3) >> nn.relu >> nn.MaxPool2d(2) >> nn.Flatten() >> nn.Linear(10)


def picture(function, depth=None):
    return picture_of(function.graph, {call.path: call.kind for call in getattr(function, "calls", ())}, depth)


def lines(p) -> dict[str, str]:
    """First line of each vertex by name."""
    return {v.name: v.lines[0] for v in p.vertices}


def named_edges(p, kind="data") -> Counter:
    names = lines(p)
    return Counter((names[e.tail], names[e.head]) for e in p.edges if e.kind == kind)


def test_each_node_is_a_vertex_and_each_use_an_edge():
    p = picture(f)
    assert Counter(lines(p).values()) == Counter(["x", "y", "mul", "add", "mul", "result"])
    assert named_edges(p) == Counter({("x", "mul"): 2, ("mul", "add"): 1, ("x", "add"): 1, ("y", "mul"): 1, ("add", "mul"): 1, ("mul", "result"): 1})
    assert not p.clusters


def test_small_constants_stand_in_their_readers():
    @gc.graph
    def g(x: gc.f32[3]):
        return 1 - gc.name(x * 0.5, "half")
    assert list(lines(picture(g)).values()) == ["x", "half = mul(·, 0.5)", "sub(1, ·)", "result"]


def test_constants_that_are_results_are_drawn():
    @gc.graph
    def g(x: gc.f32[3]):
        return 1.0, x
    assert set(lines(picture(g)).values()) >= {"1", "x", "result 0", "result 1"}


def test_layers_are_clusters_with_their_parameters():
    p = picture(traced(net(), False, {"x": gc.f32[4, 1, 12, 12]}).function)
    assert [c.label for c in p.clusters] == ["0 Conv2d", "1 relu", "2 MaxPool2d", "3 Flatten", "4 Linear"]
    inside = {c.label: [i.lines[0] for i in c.items] for c in p.clusters}
    assert inside["1 relu"] == ["relu"] and {"0.weight", "0.bias"} < set(inside["0 Conv2d"])
    assert "x" in {i.lines[0] for i in p.root.items if isinstance(i, Vertex)}


def test_inner_layers_are_clusters_in_clusters():
    stack = nn.Linear(4) >> (nn.Linear(4) >> nn.tanh) ** 2
    p = picture(traced(stack, False, {"x": gc.f32[2, 4]}).function)
    outer = next(c for c in p.clusters if c.label.startswith("1 "))
    assert [c.label for c in outer.items] == ["0 Sequential", "1 Sequential"]
    assert [c.label for c in outer.items[0].items] == ["0 Linear", "1 tanh"]


@pytest.mark.parametrize("depth, clusters, boxes", [(0, 0, ["0 Linear", "1 Sequential"]), (1, 2, ["0 Sequential", "1 Sequential"])])
def test_depth_draws_deeper_layers_as_boxes_with_their_parameters(depth, clusters, boxes):
    stack = nn.Linear(4) >> (nn.Linear(4) >> nn.tanh) ** 2
    p = picture(traced(stack, False, {"x": gc.f32[2, 4]}).function, depth)
    assert [v.lines[0] for v in p.vertices if v.kind == "layer"] == boxes
    assert len(p.clusters) == clusters
    assert not [v for v in p.vertices if v.kind == "state" and v.lines[0].startswith("1.")]
    assert named_edges(p)[(boxes[0], boxes[1])] == 1


def test_kernels_of_compiled_graphs_are_clusters():
    run = gc.compile(net(), x=gc.f32[4, 1, 12, 12], seed=0)
    p = picture_of(run.compilation.fused)
    kernels = [c for c in p.clusters if c.kind == "kernel"]
    assert len(kernels) == run.dump("fused").count("= fused(") > 0
    assert {i.lines[0] for i in kernels[0].items} >= {"conv2d", "maximum(·, 0)"}
    assert gc.draw(run) == dot_text(p) != gc.draw(run, stage="graph")


def test_loops_feed_their_carries_back():
    @gc.graph
    def total(x: gc.f32[5, 3], rate: gc.f32[()]):
        def body(carry, row):
            carry = carry * rate + row
            return carry, gc.exp(carry)
        return gc.scan(body, gc.zeros(3), x)
    p = picture(total)
    loop, = p.clusters
    assert loop.label == "scan, 5 steps" and loop.kind == "loop"
    back, = named_edges(p, "carry")
    assert back[0] == "add" and back[1].startswith("carry")
    assert {("rate", "mul"): 1, ("exp", "result 1"): 1, ("add", "result 0"): 1}.items() <= named_edges(p).items()


def test_branches_meet_in_a_choice():
    @gc.graph
    def either(x: gc.f32[3], positive: gc.bool_[()]):
        return gc.cond(positive, lambda: gc.exp(x), lambda: gc.sin(x))
    edges = named_edges(picture(either))
    assert {("positive", "choose"), ("exp", "choose"), ("sin", "choose"), ("choose", "result"), ("x", "exp"), ("x", "sin")} == set(edges)


def test_while_loops_show_their_condition():
    @gc.graph
    def halved(x: gc.f32[()]):
        return gc.while_loop(lambda x: x > 1, lambda x: x / 2, x, max_trips=20)
    p = picture(halved)
    assert p.clusters[0].label == "while, at most 20 steps"
    assert any(back[0].startswith("div") and back[1].startswith("carry") for back in named_edges(p, "carry"))
    assert any(name.startswith("gt") for name in lines(p).values())


def test_training_steps_lead_back_to_their_parameters():
    step = gc.train_step(nn.Linear(2), loss=nn.mse, optimizer=optim.SGD(0.1), x=gc.f32[4, 3], y=gc.f32[4, 2])
    p = picture_of(step.graph)
    assert {head for _, head in named_edges(p, "carry")} == {"weight", "bias", "step"}
    forward, backward = [c for c in picture_of(gc.train_step(net(), loss=nn.cross_entropy, optimizer=optim.SGD(0.1), x=gc.f32[4, 1, 12, 12],
                                                             y=gc.i32[4]).graph).clusters if c.label == "0"]
    assert "conv2d" in {i.lines[0] for i in forward.items} and any("weight_grad" in i.lines[0] for i in backward.items)


def nodes_and_clusters(svg: bytes) -> tuple[Counter, Counter]:
    """Texts of nodes and of clusters in Graphviz's SVG."""
    root = ET.fromstring(svg)
    groups = list(root.iter(f"{SVG}g"))
    def texts(kind):
        return Counter(g.find(f".//{SVG}text").text for g in groups if g.get("class") == kind)
    return texts("node"), texts("cluster")


def test_svg_has_every_node_edge_and_cluster(tmp_path):
    pytest.importorskip("pygraphviz")
    path = tmp_path / "net.svg"
    gc.draw(net(), path, x=gc.f32[4, 1, 12, 12])
    p = picture(traced(net(), False, {"x": gc.f32[4, 1, 12, 12]}).function)
    nodes, clusters = nodes_and_clusters(path.read_bytes())
    assert nodes == Counter(lines(p).values()) and clusters == Counter(c.label for c in p.clusters)
    root = ET.fromstring(path.read_bytes())
    assert sum(g.get("class") == "edge" for g in root.iter(f"{SVG}g")) == len(p.edges)


NAMES = ['<b> & "quotes"', "back\\slash \\N \\", "&lt; stays", "ünï → ∂", "tab\tbell\x07 line\nend"]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_gives_valid_xml(name):
    pytest.importorskip("pygraphviz")
    p = picture(f)
    p.root.items += [Vertex("v100", "op", (name, "f32[]"), Loc(name, 1, name)), PictureCluster("c100", "layer", name, [Vertex("v101", "op", ("inner",))])]
    nodes, clusters = nodes_and_clusters(drawing.rendered(dot_text(p), "svg"))
    shown = name.replace("\x07", "\ufffd").replace("\n", "\ufffd")
    assert any(" ".join(text.replace("\xa0", " ").split()) == " ".join(shown.split()) for text in nodes), nodes
    assert sum(clusters.values()) == 1


def test_the_same_text_and_picture_every_time(tmp_path):
    pytest.importorskip("pygraphviz")
    files = [tmp_path / "1.svg", tmp_path / "2.svg"]
    texts = [gc.draw(net(), path, x=gc.f32[4, 1, 12, 12], stage="fused") for path in files]
    assert texts[0] == texts[1] and files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("suffix, start", [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("dot", b"digraph")])
def test_other_formats(tmp_path, suffix, start):
    if suffix != "dot":
        pytest.importorskip("pygraphviz")
    gc.draw(f, tmp_path / f"f.{suffix}")
    assert (tmp_path / f"f.{suffix}").read_bytes().startswith(start)


def test_without_graphviz_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(drawing, "pygraphviz", None)
    with pytest.raises(gc.GraphError, match=r"pip install 'graphc\[draw\]'"):
        gc.draw(f, tmp_path / "f.svg")
    assert not (tmp_path / "f.svg").exists()
    assert gc.draw(f, tmp_path / "f.dot").startswith("digraph") and (tmp_path / "f.dot").exists()
    assert f._repr_html_().startswith("<pre>graph f(x: f64[], y: f64[]) {")


@pytest.mark.parametrize("wrong, text", [
    (dict(path="f.gif"), "draw writes files that end in .svg, .png, .pdf, .dot; got 'f.gif'"), (dict(stage="asm"), "draw shows the stages graph, simplified, fused"),
    (dict(depth=-1), "depth must be an int >= 0")])
def test_mistakes(wrong, text):
    with pytest.raises(gc.GraphError, match=text):
        gc.draw(f, **wrong)


def test_a_stage_needs_sizes():
    @gc.graph
    def g(x: gc.f32["B", 3]):
        return gc.exp(x)
    with pytest.raises(gc.GraphError, match="the fused graph needs the sizes of B"):
        gc.draw(g, stage="fused")
    assert "kernel" in gc.draw(g, stage="fused", B=4) or "exp" in gc.draw(g, stage="fused", B=4)
    assert "f32[B, 3]" in gc.draw(g)


class TestNotebook:
    def shown(self):
        step = gc.train_step(net(), loss=nn.cross_entropy, optimizer=optim.SGD(0.1), x=gc.f32[4, 1, 12, 12], y=gc.i32[4])
        return [f, f.graph, gc.grad(f, "x"), gc.compile(f), step, gc.compile(net(), x=gc.f32["B", 1, 12, 12], seed=0)]

    def test_everything_that_holds_a_graph_is_inline_svg(self):
        pytest.importorskip("pygraphviz")
        for each in self.shown():
            assert ET.fromstring(each._repr_html_()).tag == f"{SVG}svg"

    def test_large_graphs_show_their_layers_only(self):
        pytest.importorskip("pygraphviz")
        stack = nn.Embedding(50, 16) >> nn.TransformerBlock(heads=2) ** 30
        function = traced(stack, False, {"x": gc.i32[2, 8]}).function
        nodes, _ = nodes_and_clusters(function._repr_html_().encode())
        assert "29 TransformerBlock" in nodes and sum(nodes.values()) < drawing.READABLE

    def test_what_cannot_be_drawn_is_text(self, monkeypatch):
        def broken(dot, format):
            raise OSError("no library")
        monkeypatch.setattr(drawing, "rendered", broken)
        for each in self.shown():
            html = each._repr_html_()
            assert html.startswith("<pre>graph ") and "&lt;" in html or "<" not in html[5:-6]
