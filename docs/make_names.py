"""Writes the right side of the tables in docs/coming_from_pytorch.md: what graphc has for each name of PyTorch's.

    python docs/make_names.py                   rewrites the tables

The names are those of the left side; tests/parity checks that none of PyTorch's is missing there.
"""
from __future__ import annotations

import re
from pathlib import Path

import graphc as gc
from graphc.dsl.other_names import PLACES, answer

PAGE = Path(__file__).resolve().parent / "coming_from_pytorch.md"
ROW = re.compile(r"^\| `torch\.([\w.]+)` \|.*$", re.MULTILINE)
CODE = re.compile(r"(?:gc|nn|optim)\.\w+(?:\([^()]*\))?")


def text() -> str:
    """The page as it should be."""
    return ROW.sub(lambda row: f"| `torch.{row[1]}` | {here(row[1])} |", PAGE.read_text())


def names() -> list[str]:
    """Of the left side."""
    return ROW.findall(PAGE.read_text())


def here(name: str) -> str:
    """What graphc has for "nn.ReLU" or "optim.lr_scheduler.StepLR", as a cell of the table."""
    place, _, last = name.rpartition(".")
    if place not in PLACES:
        raise ValueError(f"{name} is in none of {', '.join(PLACES)}")
    module = {"nn": gc.nn, "optim": gc.optim}.get(place)
    found = name if module is not None and last in dir(module) else answer(place, last)
    if found is None:
        raise ValueError(f"graphc has no {name}, and does not say what to write: graphc/dsl/other_names.py")
    return f"`{found}`" if CODE.fullmatch(found) else found.replace("|", "\\|").replace("*", "\\*")


if __name__ == "__main__":
    PAGE.write_text(text())
