"""One name, one class: a layer and its operator may share theirs, and an initializer the name of what it fills with."""
from __future__ import annotations

import re
from collections import defaultdict

from source import PACKAGE, sources


def test_no_two_classes_have_one_name():
    homes: dict[str, list[str]] = defaultdict(list)
    for file, source in sources().items():
        for name in source.classes:
            homes[name].append(file)
    shared = {name: [f for f in files if not f.startswith("nn/")] for name, files in homes.items() if len(files) > 1}
    assert not {name: homes[name] for name, outside in shared.items() if len(outside) != 1
                or not outside[0].startswith("ir/")}


def test_operators_are_not_told_apart_by_their_names():
    """`node.op is ADD`, `isinstance`, a trait or a table keyed by `opcode`: names are for texts."""
    compared = re.compile(r"\bop\.name (?:==|!=|in|not in) |\bop\.fn (?:==|!=|in) |\[[\w.]*\bop\.name\]")
    assert not [f"{p}: {line}" for p in sorted(PACKAGE.rglob("*.py")) for line in p.read_text().splitlines()
                if compared.search(line)]
