"""Faults that are known and not mended yet, by what their outcome says: findings of these are counted, not printed."""
from __future__ import annotations

from collections.abc import Callable

from tests.random.check import Outcome

IMAGES = ("conv2d", "pool2d", "conv_transpose")


def known(found: Outcome, text: str = "") -> str:
    """The known fault that explains the finding of the graph `text`, or ""."""
    return next((name for name, explains in KNOWN.items() if explains(found, text)), "")


KNOWN: dict[str, Callable[[Outcome, str], bool]] = {
    "layout of cond results": lambda f, t: f.kind == "wrong" and "cond(" in t and any(i in t for i in IMAGES),
    "regions that return captured values": lambda f, t: f.kind == "crashed" and "KeyError: <" in f.text,
    "scan of 0 steps": lambda f, t: (f.kind == "wrong" or "SIG" in f.where) and "length=0" in t,
}
