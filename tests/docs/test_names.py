"""One name, one class: a layer and its operator may share theirs, and an initializer the name of what it fills with."""
from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent.parent / "graphc"


def test_no_two_classes_have_one_name():
    homes: dict[str, list[str]] = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(path.relative_to(PACKAGE).as_posix())
    shared = {name: [f for f in files if not f.startswith("nn/")] for name, files in homes.items() if len(files) > 1}
    assert not {name: homes[name] for name, outside in shared.items() if len(outside) != 1 or not outside[0].startswith("ir/")}
