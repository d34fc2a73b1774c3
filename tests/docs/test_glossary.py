"""docs/glossary.md: its order, no term twice, and every name in code font is a name or a word of what graphc prints."""
from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
from source import sources

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs" / "glossary.md").read_text()
ENTRY = re.compile(r"^- \*\*(.+?)\*\*: (.+?)(?=^- |^#|\Z)", re.MULTILINE | re.DOTALL)
SECTIONS = {title: ENTRY.findall(body)
            for title, body in re.findall(r"^## (.+?)$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)}


def order(term: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", term.lower()).strip()


@cache
def words() -> frozenset[str]:
    """Names that the package defines or uses, its modules and folders, and the words of its texts (docstrings are
    none).
    """
    return frozenset().union(*(source.words for source in sources().values()))


def test_there_are_enough_terms_each_with_a_sentence():
    entries = [e for section in SECTIONS.values() for e in section]
    assert len(entries) == PAGE.count("\n- ") >= 100
    assert [term for term, text in entries if not text.strip().endswith(".")] == []


def test_no_term_is_there_twice():
    terms = [order(term) for section in SECTIONS.values() for term, _ in section]
    assert len(set(terms)) == len(terms), sorted({t for t in terms if terms.count(t) > 1})


@pytest.mark.parametrize("title", SECTIONS)
def test_terms_are_in_alphabetical_order(title):
    terms = [order(term) for term, _ in SECTIONS[title]]
    assert terms == sorted(terms)


@pytest.mark.parametrize("title", SECTIONS)
def test_names_in_code_font_exist(title):
    """Digits at the end of a word (x16, d0, n0, f32x8) are those of the example."""
    for term, text in SECTIONS[title]:
        for code in re.findall(r"`([^`]+)`", f"{term} {text}"):
            missing = [w
                       for w in re.findall(r"[A-Za-z_]\w*", code) if not {w, re.sub(r"x?\d+$", "", w) or "x"} & words()]
            assert not missing, f"{term}: {', '.join(missing)} of `{code}` is nowhere in graphc"
