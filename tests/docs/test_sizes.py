"""Files, functions and their parameters have a size that is taken in at a glance. What is larger stands below, and only
what is.
"""
from __future__ import annotations

from source import PACKAGE, Function, sources

FILE, FUNCTION, PARAMETERS = 400, 50, 7                 # lines, lines, and parameters without a default

LONG_FILES: set[str] = set()
LONG_FUNCTIONS: set[str] = set()
# rules have the arguments of the operators that they are for
ARGUMENTS_OF_OTHERS = ("doors/torch/rules/", "doors/torch/recurrent.py:")
MANY_PARAMETERS = {"schedule/choose_contraction.py:contraction_schedule", "schedule/loop_nest.py:_build"}

TEXTS = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}


def functions() -> list[tuple[str, Function]]:
    """Each function as file:name, those of classes with the class."""
    return [(f"{file}:{f.name}", f) for file, source in sources().items() for f in source.functions]


def test_files():
    assert {file for file, text in TEXTS.items() if text.count("\n") > FILE} == LONG_FILES


def test_functions():
    assert {name for name, f in functions() if f.lines > FUNCTION} == LONG_FUNCTIONS


def test_parameters():
    many = {name for name, f in functions() if f.parameters > PARAMETERS}
    assert {name for name in many if not name.startswith(ARGUMENTS_OF_OTHERS)} == MANY_PARAMETERS
