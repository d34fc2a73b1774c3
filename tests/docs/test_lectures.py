"""docs/lectures.md: every name, example and test of its tables exists."""
import ast
import re
from pathlib import Path

import pytest

import graphc as gc

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/lectures.md").read_text()
ROWS = [cells for line in PAGE.splitlines() if line.startswith("| ")
        and len(cells := [c.strip() for c in line.strip("|").split("|")]) == 4 and cells[0] != "lecture"]


HELPERS = ("examples/language_model.py", "graphc/demo.py", "graphc/models/alexnet.py")


def source(example: str) -> str:
    """Of an example and of the files that hold what it shows."""
    text = (ROOT / f"examples/{example}.py").read_text()
    return text + "".join((ROOT / file).read_text() for file in HELPERS if Path(file).stem in text)


def test_there_are_tables():
    assert len(ROWS) > 30 and len({row[0] for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=[row[0][:40] for row in ROWS])
def test_names_examples_and_tests_exist(row):
    concept, names, examples, tests = row
    found = re.findall(r"`(?:gc\.)?([\w.]+)`", names)
    assert found and re.sub(r"`[\w.]+`(, )?", "", names) == ""
    for name in found:
        value = gc
        for part in name.split("."):
            value = getattr(value, part)
        assert callable(value) and value.__doc__, name
    for title, link in re.findall(r"\[(\w+)\]\((.+?)\)", examples):
        assert (ROOT / "docs" / link).is_file() and Path(link).stem == title
        assert any(name.rpartition(".")[2] in source(title) for name in found), (title, found)
    cited = re.findall(r"`([\w/]+\.py)::(\w+)`", tests)
    assert cited
    for file, test in cited:
        assert test in {node.name for node in ast.walk(ast.parse((ROOT / file).read_text()))
                        if isinstance(node, ast.FunctionDef)}, f"{file}::{test}"


def test_every_example_is_in_a_table():
    shared, without_concept = {"text", "language_model"}, {"c_library"}
    examples = {p.stem for p in (ROOT / "examples").glob("*.py")} - shared - without_concept
    assert examples <= {title for row in ROWS for title in re.findall(r"\[(\w+)\]", row[2])}
