"""Writes docs/operators.md from the operators themselves: python docs/make_operators.py"""
from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path += [str(ROOT), str(ROOT / "tests" / "ops")]

# the explicit list; a test holds that every other operator has a gradient
from samples import NON_DIFFERENTIABLE  # noqa: E402

from graphc.ir.op import Composite, Op  # noqa: E402
from graphc.ir.ops import OPS  # noqa: E402
from graphc.ir.ops.elementwise import ROWS, Elementwise  # noqa: E402

PAGE = ROOT / "docs" / "operators.md"

FORMULAS = {
    "add": "x1 + x2", "sub": "x1 - x2", "mul": "x1 * x2", "div": "x1 / x2",
    "floordiv": "the whole number at or below x1 / x2",
    "mod": "x1 - floordiv(x1, x2) * x2, with the sign of x2", "pow": "x1 to the power x2",
    "minimum": "the lesser; NaN if an operand is",
    "maximum": "the greater; NaN if an operand is", "copy": "x", "neg": "-x", "abs": "|x|",
    "sign": "-1, 0 or 1; NaN of NaN",
    "floor": "rounded down", "ceil": "rounded up", "round": "rounded, halves to even", "exp": "e^x",
    "expm1": "e^x - 1", "log": "natural logarithm",
    "log1p": "log(1 + x)", "sqrt": "square root", "rsqrt": "1 / sqrt(x)", "sin": "sine", "cos": "cosine",
    "tanh": "hyperbolic tangent",
    "sigmoid": "1 / (1 + e^-x)", "erf": "error function",
    "erfc": "1 - erf(x)", "erfinv": "the number whose erf is x", "lgamma": "log of the absolute gamma function",
    "digamma": "the slope of lgamma", "i0": "modified Bessel function of the first kind, order 0",
    "i1": "modified Bessel function of the first kind, order 1", "exp2": "2^x", "log2": "logarithm to base 2",
    "log10": "logarithm to base 10", "cbrt": "cube root",
    "lt": "x1 < x2", "le": "x1 <= x2", "gt": "x1 > x2",
    "ge": "x1 >= x2",
    "eq": "x1 == x2", "ne": "x1 != x2", "isnan": "whether x is NaN",
    "isfinite": "whether x is neither infinite nor NaN",
    "bitand": "bits of both", "bitor": "bits of either", "bitxor": "bits of one",
    "bitnot": "bits inverted; of bool: not",
    "shift_left": "x1 * 2^x2; 0 where x2 is not a number of bits",
    "shift_right": "arithmetic; the sign where x2 is not a number of bits",
    "where": "x2 where x1, else x3",
}

HEAD = """# Operators

Written by `python docs/make_operators.py` from the classes in `graphc/ir/ops`; a test fails when it is not current.

These are the operators of the graph text: what `dump("graph")` prints and `gc.parse` reads. The functions you call
in Python (`gc.softmax`, `x[1:]`, `x @ w`) build them. Operands are arrays, attributes stand in braces. Operands of
elementwise operators broadcast as in numpy; dtypes must agree. **C** marks a composite: it is replaced by its
decomposition before fusion. The gradient column says whether a gradient can flow: "yes" goes to any order; "no" is the
explicit list of operators through which none flows.

"""


def text() -> str:
    """The whole page."""
    parts = [HEAD, f"{len(OPS)} operators.\n"]
    module = ""
    for name, make in OPS.items():
        cls = Elementwise if name in ROWS else make
        if cls.__module__ != module:
            module = cls.__module__
            parts.append(_section(module))
        parts.append(_row(name, cls))
    return "".join(parts)


def _section(module: str) -> str:
    file = module.rsplit(".", 1)[1]
    return (f"\n## {file}\n\n[graphc/ir/ops/{file}.py](../graphc/ir/ops/{file}.py)\n\n"
            "| operator | operands | attributes | computes | gradient |\n|---|---|---|---|---|\n")


def _row(name: str, cls: type[Op]) -> str:
    kind = " **C**" if issubclass(cls, Composite) else ""
    gradient = "no" if name in NON_DIFFERENTIABLE else "yes"
    cells = (f"`{name}`{kind}", _operands(name, cls), _attributes(cls),
             FORMULAS[name] if name in ROWS else _sentence(cls), gradient)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _operands(name: str, cls: type[Op]) -> str:
    if name in ROWS:
        arity = ROWS[name].arity
        return ", ".join(f"x{i + 1}" for i in range(arity)) if arity > 1 else "x"
    rule = cls.decompose if issubclass(cls, Composite) else cls.infer
    names = [("*" if p.kind is p.VAR_POSITIONAL else "") + p.name for p in inspect.signature(rule).parameters.values()]
    return ", ".join(n for n in names if n not in ("self", "b")).replace("*", "\\*") or "–"


def _attributes(cls: type[Op]) -> str:
    if cls is Elementwise:
        return "–"
    return ", ".join(f"{n}={cls.DEFAULTS[n]!r}" if n in cls.DEFAULTS else n for n in cls.FIELDS) or "–"


def _sentence(cls: type[Op]) -> str:
    """The docstring up to the first full stop that ends a sentence, on one line."""
    return re.split(r"(?<!et al)(?<!\.)\.(?:\s|$)",
                    " ".join(inspect.cleandoc(cls.__doc__).split("\n\n")[0].split()))[0].replace("*", "\\*")


if __name__ == "__main__":
    PAGE.write_text(text())
