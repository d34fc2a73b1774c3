"""The page of `gc.explore`: what is in it, and how it behaves in a browser."""
from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim
from graphc.analysis.phases import BACKWARD, BOTH, FORWARD, LOSS, UPDATE, phases
from graphc.cli import main

net = nn.Conv2d(8, 3) >> nn.relu >> nn.Flatten() >> nn.Linear(10)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def make_step():
    return gc.train_step(net, loss=nn.cross_entropy, optimizer=optim.Adam(1e-3), x=gc.f32[32, 1, 8, 8], y=gc.i32[32], seed=0)


def data_of(path: Path) -> dict:
    packed = re.search(r'id="data">([^<]*)<', path.read_text(encoding="utf-8"))[1]
    return json.loads(gzip.decompress(base64.b64decode(packed)))


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "step.html"
    make_step().explore(path)
    return path


def test_it_is_one_file_that_needs_no_other(page):
    text = page.read_text(encoding="utf-8")
    scripts = re.sub(r'<script type="text/plain".*?</script>', "", text, flags=re.DOTALL)
    assert not re.search(r"(?:src|href)=|@import|url\(|fetch\(|XMLHttpRequest|WebSocket", scripts)
    assert "/*" + "page*/" not in text


def test_stages_are_those_of_dump(page):
    """All but the planned graph word for word; that one names each node's kernel too."""
    step, data = make_step(), data_of(page)
    for stage in data["stages"]:
        text = re.sub(r"; kernel \w+", "", stage["text"]) if stage["name"] == "planned" else stage["text"]
        assert text == step.dump(stage["name"]).rpartition("\n# memory:")[0] or text == step.dump(stage["name"]), stage["name"]
        assert sum(run[0] for run in stage["runs"]) == stage["text"].count("\n") + 1


def lines_of(data, stage: str) -> list[tuple[str, list[int], list[int]]]:
    found = next(s for s in data["stages"] if s["name"] == stage)
    belongs = [run[1:] for run in found["runs"] for _ in range(run[0])]
    return [(line, *both) for line, both in zip(found["text"].split("\n"), belongs, strict=True)]


def test_every_node_knows_its_line_and_layer(page):
    data = data_of(page)
    for stage in ("graph", "simplified", "fused"):
        for line, locs, _ in lines_of(data, stage):
            if "  # " in line:
                place = [data["locs"][n] for n in locs]
                assert place and all(f"{Path(file).name}:{number}" in line for file, number, _ in place), line
    layers = {data["locs"][n][2] for line, locs, _ in lines_of(data, "graph") if "conv2d" in line for n in locs}
    assert layers == {"0"}


def test_every_kernel_is_found_in_every_stage_of_kernels(page):
    data = data_of(page)
    assert data["kernels"]
    for number, name in enumerate(data["kernels"]):
        for stage in ("planned", "loops", "llvm", "asm"):
            assert any(number in kernels for _, _, kernels in lines_of(data, stage)), (name, stage)


def test_functions_belong_to_their_kernel(page):
    data = data_of(page)
    for stage, heading in (("loops", r"(k\d+_\w+)\("), ("llvm", r'define .*@"?k\.(k\d+_\w+)"?\('), ("asm", r"k\.(k\d+_\w+):")):
        found = [(m[1], kernels) for line, _, kernels in lines_of(data, stage) if (m := re.match(heading, line))]
        assert found and all(name in [data["kernels"][k] for k in kernels] for name, kernels in found), stage
        assert stage != "loops" or all(len(kernels) == 1 for _, kernels in found)


def test_rows_have_layers_phases_times_and_rivals(page):
    data = data_of(page)
    rows = data["rows"]
    assert all(row["seconds"] is not None and 0 <= (row["share"] or 0) <= 1 for row in rows)
    assert {FORWARD, LOSS} <= {row["phase"] for row in rows} and {BACKWARD, BOTH, UPDATE} & {row["phase"] for row in rows}
    assert any(row["candidates"] for row in rows) and {"1", "3"} <= {row["scope"] for row in rows}


def test_memory_is_that_of_the_plan(page):
    data, plan = data_of(page), make_step().compilation.plan
    rectangles = data["arena"]["rectangles"]
    assert 0 <= plan.arena_bytes - max(r["high"] for r in rectangles) < 64       # the arena's end is aligned
    for i, a in enumerate(rectangles):
        for b in rectangles[:i]:
            apart = a["high"] <= b["low"] or b["high"] <= a["low"] or a["last"] < b["first"] or b["last"] < a["first"]
            assert apart, (a, b)


def test_passes_tell_what_they_changed(page):
    passes = data_of(page)["passes"]
    assert [p["name"] for p in passes][:2] == ["dce", "compute_stored"] and passes[-1]["name"] == "order"
    fuse = next(p for p in passes if p["name"] == "fuse")
    assert fuse["after"] < fuse["before"] and any(line.startswith("+") and "fused(" in line for line in fuse["lines"])


def test_phases_of_a_declared_step():
    graph = make_step().graph
    found = phases(graph)
    by_name = {}
    for node, phase in found.items():
        by_name.setdefault(phase, set()).add(node.op.name)
    assert "conv2d" in by_name[FORWARD] and "cross_entropy" in by_name[LOSS]
    assert "conv2d_weight_grad" in by_name[BACKWARD] and "sqrt" in by_name[UPDATE]
    assert set(found) == set(graph.nodes)
    assert not phases(gc.compile(net, x=gc.f32[1, 1, 8, 8], seed=0).graph)


@gc.graph
def loop(x: gc.f32["T", 3]):
    return gc.scan(lambda c, row: (gc.tanh(c + row), None), gc.zeros(3), x)[0]


@pytest.mark.parametrize("what", ["graph", "text", "network", "named", "named network", "loop", "compiled"])
def test_whatever_is_compiled_can_be_explored(tmp_path, what):
    path, x = tmp_path / "p.html", np.ones((4, 3), np.float32)
    if what == "graph":
        gc.explore(loop, path, T=5)
    elif what == "text":
        gc.parse("graph g(x: f32[3]) {\n  %0 = tanh(x) : f32[3]\n  return %0\n}").explore(path)
    elif what == "network":
        gc.explore(net, path, x=gc.f32[2, 1, 8, 8])
    elif what == "named":
        loop.explore(path)
    elif what == "named network":
        gc.explore(nn.Linear(3), path, x=gc.f32["B", 3])
    elif what == "loop":
        loop.explore(path, x)
    else:
        gc.compile(loop, T=4).explore(path, x)
    data = data_of(path)
    assert (data["profile"] is None) == what.startswith("named")
    assert data["rows"] and all(s["text"] for s in data["stages"])


def test_what_is_wrong_is_said(tmp_path):
    with pytest.raises(gc.GraphError, match=r"ends in \.html, got 'p.txt'"):
        gc.explore(loop, "p.txt", T=3)


def test_on_the_command_line(tmp_path, capsys):
    model = tmp_path / "lesson.py"
    model.write_text("import graphc as gc\nfrom graphc import nn, optim\nnet = nn.Linear(3)\n"
                     "step = gc.train_step(net, loss=nn.mse, optimizer=optim.SGD(0.1), x=gc.f32[4, 2], y=gc.f32[4, 3], seed=0)\n")
    for arguments in (["step"], ["net", "--type", "x=f32[4, 2]"], ["net", "--type", "x=f32[B, 2]", "--bind", "B=3"]):
        out = tmp_path / "p.html"
        assert main(["explore", f"{model}:{arguments[0]}", "-o", str(out), *arguments[1:]]) == 0
        assert data_of(out)["rows"]
        assert arguments != ["step"] or data_of(out)["sources"][0]["name"] == "lesson.py"
    assert main(["dump", f"{model}:step", "--stage", "graph"]) == 0
    assert "update" in capsys.readouterr().out
    for arguments, said in ((["net"], "--type x='f32[1, 784]'"), (["net", "--type", "x=f33[2]"], "no type"),
                            (["step", "--type", "x=f32[4, 2]"], "--type is for networks"), (["step", "--bind", "B=3"], "--bind is for")):
        assert main(["explore", f"{model}:{arguments[0]}", "-o", str(out), *arguments[1:]]) == 1
        assert said in capsys.readouterr().err


# ---- in a browser
@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="the browser tests need playwright")
    if CHROMIUM is None:
        pytest.skip("there is no chromium")
    with sync_api.sync_playwright() as play:
        found = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


@pytest.fixture
def opened(browser, page):
    """The page, ready; at the end no error must have been said."""
    tab, errors = browser.new_page(viewport={"width": 1600, "height": 900}), []
    tab.on("console", lambda m: errors.append(m.text) if m.type in ("error", "warning") else None)
    tab.on("pageerror", lambda e: errors.append(str(e)))
    tab.goto(page.as_uri())
    tab.wait_for_selector("body[data-ready]")
    yield tab
    tab.close()
    assert not errors


def lit(tab, pane: str) -> int:
    return int(tab.locator(f"[data-pane='{pane}'] h2 span").inner_text().split()[0])


def test_a_click_lights_up_what_belongs_together(opened):
    opened.locator("[data-pane=graph] .row", has_text="conv2d(").first.click()
    counts = {pane: lit(opened, pane) for pane in ("test_page.py", "graph", "planned", "loops", "asm")}
    assert counts["test_page.py"] == 1 and all(counts.values())
    assert "layer 0" in opened.locator("#selection").inner_text()
    opened.keyboard.press("Escape")
    assert not opened.locator(".row.lit").count()


def test_source_and_assembly_both_ways(opened):
    """A kernel's instruction lights up its source line, and that line the instruction."""
    call = opened.locator("[data-pane=asm] .row", has_text="callq").first
    number = call.get_attribute("data-line")
    call.click()
    assert opened.locator("[data-pane='test_page.py'] .row.lit").count()
    opened.locator("[data-pane='test_page.py'] .row.lit").first.click()
    opened.locator("[data-pane=asm] .code").evaluate("e => e.scrollTop = 0")
    opened.wait_for_selector(f"[data-pane=asm] .row.lit[data-line='{number}']")


def test_keys_alone_are_enough(opened):
    pane = opened.locator("[data-pane=graph] .code")
    pane.focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowDown", "Enter"):
        opened.keyboard.press(key)
    assert lit(opened, "loops")
    opened.locator("[data-tab=code]").focus()
    opened.keyboard.press("ArrowRight")
    assert opened.locator("[data-tab=graph]").get_attribute("aria-selected") == "true"
    node = opened.locator("[data-node]", has_text="backward").first
    before = opened.locator("[data-node]").count()
    node.focus()
    opened.keyboard.press("Enter")
    assert opened.locator("[data-node]").count() > before


def test_all_views_open(opened):
    for name, seen in (("graph", "svg [data-node]"), ("memory", "svg [data-rectangle]"), ("kernels", "tr[data-kernel]"), ("passes", "details")):
        opened.click(f"[data-tab={name}]")
        assert opened.locator(seen).first.is_visible(), name
    opened.click("[data-tab=kernels]")
    opened.locator("tr[data-kernel*=conv2d]").first.click()
    opened.wait_for_selector("tr.detail .nest.parallel, tr.detail .nest.serial")
    opened.click("[data-tab=passes]")
    opened.click("details[data-pass=fuse] summary")
    opened.wait_for_selector("details[data-pass=fuse] .plus")
    for stage in ("simplified", "fused"):
        opened.click("[data-tab=graph]")
        opened.select_option("select", stage)
        assert opened.locator("svg [data-node]").first.is_visible()


def test_dark_and_light(opened):
    background = "getComputedStyle(document.body).backgroundColor"
    before = opened.evaluate(background)
    opened.click("#theme")
    assert opened.evaluate(background) != before


def test_it_opens_in_less_than_a_second(browser, page):
    tab = browser.new_page()
    tab.goto("about:blank")
    tab.goto(page.as_uri())
    tab.wait_for_selector("body[data-ready]")
    assert tab.evaluate("performance.now()") < 5000          # alone: 0.3 s; other tests run beside it
    tab.close()
