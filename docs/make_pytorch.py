"""Writes the table of docs/pytorch.md: python docs/make_pytorch.py. Needs PyTorch."""
from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))

import torch  # noqa: E402

from graphc.doors.torch.read import target_name  # noqa: E402
from graphc.doors.torch.rules import (  # noqa: E402
    complex_numbers, creation, factorisations, gradients, indexing, layers, losses, pointwise, products, reductions,
    shapes, special)

PAGE = ROOT / "docs" / "pytorch.md"
BEGIN, END = "<!-- core operators -->\n", "<!-- end of core operators -->\n"
ROOMS = {"elementwise": pointwise, "shape": shapes, "creation": creation, "reduction": reductions,
         "product": products, "layer": layers, "index": indexing, "loss": losses, "gradient": gradients,
         "factorisation": factorisations, "special function": special,
         "complex": complex_numbers}
# rules that only say what would be right: their results have sizes that values decide
REFUSED = {"nonzero.default": "refused: its size depends on values",
           "_local_scalar_dense.default": "refused: a Python number depends on values"}


def core() -> list[str]:
    """The overloads that PyTorch tags as core."""
    found = []
    for name in torch._C._dispatch_get_all_op_names():
        if name.startswith("aten::"):
            packet, _, overload = name.removeprefix("aten::").partition(".")
            made = getattr(getattr(torch.ops.aten, packet), overload or "default", None)
            if made is not None and torch.Tag.core in made.tags:
                found.append(target_name(made))
    return sorted(found)


def row(name: str) -> str:
    """One line of the table."""
    room = next((text for text, module in ROOMS.items() if name in module.RULES), None)
    return f"| `{name}` | {REFUSED.get(name) or room or 'no'} |\n"


def table() -> str:
    """The table of all of them, with their number."""
    names = core()
    taken = sum(name not in REFUSED and any(name in m.RULES for m in ROOMS.values()) for name in names)
    rules = len({name for m in ROOMS.values() for name in m.RULES})
    version = torch.__version__.partition("+")[0]
    return (f"{taken} of the {len(names)} core operators of PyTorch {version} are taken; "
            f"the table has {rules} overloads in all.\n\n| operator | rule |\n|---|---|\n" + "".join(map(row, names)))


def text() -> str:
    """The page with its table renewed."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    return before + BEGIN + table() + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(text())
