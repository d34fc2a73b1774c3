"""Files, functions and their parameters have a size that is taken in at a glance. What is larger stands below, and only
what is.
"""
from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent.parent / "graphc"
FILE, FUNCTION, PARAMETERS = 400, 50, 7                 # lines, lines, and parameters without a default

LONG_FILES: set[str] = set()
LONG_FUNCTIONS: set[str] = set()
# rules have the arguments of the operators that they are for
ARGUMENTS_OF_OTHERS = ("doors/torch/rules/", "doors/torch/recurrent.py:")
MANY_PARAMETERS = {"schedule/choose_contraction.py:contraction_schedule", "schedule/loop_nest.py:_build"}

TEXTS = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def functions() -> list[tuple[str, ast.FunctionDef]]:
    """Each function as file:name, those of classes with the class."""
    return [(f"{file}:{name}", f) for file, text in TEXTS.items() for name, f in _inside(ast.parse(text), "")]


def _inside(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef):
            yield prefix + child.name, child
        if isinstance(child, ast.stmt):
            yield from _inside(child, f"{child.name}." if isinstance(child, ast.ClassDef) else "")


def parameters(f: ast.FunctionDef) -> int:
    """Those that a caller must keep in mind: `self`, and options that have a default, are not counted."""
    plain = [a for a in (*f.args.posonlyargs, *f.args.args) if a.arg not in ("self", "cls")]
    return len(plain) - len(f.args.defaults) + sum(default is None for default in f.args.kw_defaults)


def test_files():
    assert {file for file, text in TEXTS.items() if text.count("\n") > FILE} == LONG_FILES


def test_functions():
    assert {name for name, f in functions() if f.end_lineno - f.lineno + 1 > FUNCTION} == LONG_FUNCTIONS


def test_parameters():
    many = {name for name, f in functions() if parameters(f) > PARAMETERS}
    assert {name for name in many if not name.startswith(ARGUMENTS_OF_OTHERS)} == MANY_PARAMETERS
