"""The documentation is true: its Python runs, and what it shows as output is the output."""
from __future__ import annotations

import re
import shlex
import sys
from dataclasses import fields
from functools import reduce
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "docs"))

import make_names  # noqa: E402
import make_operators  # noqa: E402
import pages  # noqa: E402

import graphc as gc  # noqa: E402
from graphc import cli  # noqa: E402
from graphc.codegen.llvm.host import can_run  # noqa: E402
from graphc.config import Config  # noqa: E402
from graphc.schedule.target import TARGETS  # noqa: E402
from graphc.train import TrainStep  # noqa: E402


@pytest.mark.parametrize("path", pages.PAGES)
def test_python_of_the_page(path, tmp_path, monkeypatch):
    if not can_run(TARGETS[pages.TARGET]):
        pytest.skip(f"the pages show {pages.TARGET}")
    monkeypatch.setenv("GRAPHC_TARGET", pages.TARGET)
    page = pages.Page.read(ROOT / path)
    printed = page.run(pages.PAGES[path], tmp_path)
    assert page.blocks and page.outputs
    for output in page.outputs:
        assert output.text, "run python docs/pages.py"
        assert not output.compared or output.text == output.of(printed[output.block]), "run python docs/pages.py"


def test_table_of_operators_is_current():
    assert make_operators.PAGE.read_text() == make_operators.text(), "run python docs/make_operators.py"


def test_names_of_pytorch_are_current():
    assert len(make_names.names()) > 300 and make_names.PAGE.read_text() == make_names.text(), "run python docs/make_names.py"


@pytest.mark.parametrize("path",
                         [p.relative_to(ROOT).as_posix() for p in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]])
def test_links_lead_somewhere(path):
    page = ROOT / path
    for target in pages.links(page.read_text()):
        file, _, anchor = target.partition("#")
        found = page.parent / file if file else page
        assert found.exists(), f"{path} links {target}"
        assert not anchor or anchor in pages.anchors(found.read_text()), f"{path} links {target}"


def test_commands_of_the_readme_are_commands():
    shell = "".join(body for kind, body in pages.FENCE.findall((ROOT / "README.md").read_text()) if kind == "sh")
    lines = [line.split("#")[0] for line in shell.splitlines() if line.startswith("graphc ")]
    assert len(lines) >= 5
    for line in lines:
        cli._parser().parse_args(shlex.split(line.replace("[", "").replace("]", ""))[1:])


def test_the_table_of_knobs_names_every_knob():
    text = (ROOT / "README.md").read_text()
    assert [f.name for f in fields(Config) if f"`GRAPHC_{f.name.upper()}`" not in text] == []


def test_the_table_of_errors_is_the_measured_one():
    page = (ROOT / "docs" / "numerics.md").read_text()
    assert "| exp | " in page and page == pages.with_errors(page), "run python docs/pages.py"


def test_cells_of_the_measured_table_are_short():
    page = (ROOT / "README.md").read_text()
    table = page[page.index("## Measured"):page.index("### Whole networks")]
    cells = [cell.strip() for line in table.splitlines() if line.startswith("| ")
             for cell in line.strip("|").split("|")]
    assert len(cells) > 40 and [cell for cell in cells if len(cell.split()) > 15] == []


def test_the_list_of_notes_has_every_note():
    folder = ROOT / "docs" / "notes"
    notes = {p.name for p in folder.glob("*.md")} - {"README.md"}
    assert notes and notes == {t for t in pages.links((folder / "README.md").read_text()) if "/" not in t}
    for name in notes:
        first = (folder / name).read_text().split("\n\n")[1]
        assert first.startswith("This note "), f"{name} begins with a sentence that says what it is"


@pytest.mark.parametrize("page", ("coming_from_pytorch", "coming_from_jax", "coming_from_keras"))
def test_names_that_a_table_gives_exist(page):
    """Those of the right column: what one writes here."""
    rows = [line.strip("|").rpartition(" | ")[2] for line in (ROOT / "docs" / f"{page}.md").read_text().splitlines() if line.startswith("| ")]
    named = {name for cell in rows for name in re.findall(r"\b(?:gc|nn|optim|metrics|callbacks|step)(?:\.\w+)+", cell)}
    places = {"gc": gc, "nn": gc.nn, "optim": gc.optim, "metrics": gc.metrics, "callbacks": gc.callbacks}
    absent = []
    for place, *path in (name.split(".") for name in named):
        if place == "step":
            absent += [path[0]] if path[0] not in {*dir(TrainStep), "state"} else []
            continue
        try:
            reduce(getattr, path, places[place])
        except AttributeError:
            absent.append(path)
    assert len(named) > 60 and absent == []
