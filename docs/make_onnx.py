"""Writes the tables of docs/onnx.md from the rules themselves: python docs/make_onnx.py"""
from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from onnx import defs  # noqa: E402

from benchmarks.onnx_suite import REASONS  # noqa: E402
from graphc.doors.onnx.older import OLDER  # noqa: E402
from graphc.doors.onnx.table import RULES, has_rule, key_of, schema_of  # noqa: E402

PAGE = ROOT / "docs" / "onnx.md"
OPERATORS, SUITE = "operators", "suite"
# domains whose operators a page of the package onnx lists; those of others are the rules that there are
DOMAINS = {"": defs.onnx_opset_version(), "ai.onnx.ml": 5, "ai.onnx.preview.training": 1}


def known_operators() -> dict[str, tuple[str, str]]:
    """(domain, operator) by the key of the tables: what onnx lists, and what there are rules for."""
    listed = {key_of(s.domain, s.name): (s.domain, s.name) for s in defs.get_all_schemas()
              if s.domain in DOMAINS and not s.deprecated}
    more = {key: tuple(key.rpartition(":")[::2]) for key in RULES}
    return dict(sorted({**listed, **more}.items(), key=lambda item: (item[1][0], item[1][1])))


def row(domain: str, op: str) -> str:
    """One line of the table."""
    key, opset = key_of(domain, op), DOMAINS.get(domain, 1)
    schema = schema_of(domain, op, opset)
    since = "–" if schema is None else str(schema.since_version)
    how = "rule" if key in RULES else "body" if has_rule(domain, op, DOMAINS) else "no"
    older = ", ".join(f"below {below}" for below, _ in OLDER.get(key, ()))
    return f"| {domain or 'ai.onnx'} | `{op}` | {since} | {how} | {older or '–'} |"


def operators() -> str:
    rows = [row(*pair) for pair in known_operators().values()]
    return "\n".join(["| domain | operator | newest form since | imported by | forms of older opsets |",
                      "|---|---|---|---|---|", *rows])


def suite() -> str:
    rows = [f"| `{pattern}` | {reason} |" for pattern, reason in REASONS.items()]
    return "\n".join(["| cases | why they do not pass |", "|---|---|", *rows])


def text(page: str) -> str:
    """The page with its tables as they are now."""
    for name, table in ((OPERATORS, operators()), (SUITE, suite())):
        page = re.sub(rf"(<!-- {name} -->\n).*?(<!-- end -->)", lambda m, t=table: f"{m[1]}{t}\n{m[2]}", page,
                      flags=re.DOTALL)
    return page


if __name__ == "__main__":
    PAGE.write_text(text(PAGE.read_text()))
