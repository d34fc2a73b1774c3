"""Nested tuples, lists and dicts of arrays, flattened to a list and back (lists come back as tuples)."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from graphc.records import dataclass


@dataclass(frozen=True)
class Structure:
    """What a tree looks like without its leaves. `kind`: leaf, none, tuple (of lists too) or dict."""
    kind: str
    keys: tuple = ()
    parts: tuple[Structure, ...] = ()

    @property
    def leaves(self) -> int:
        return 1 if self.kind == "leaf" else sum(p.leaves for p in self.parts)


LEAF, NONE = Structure("leaf"), Structure("none")


def flatten(tree: object) -> tuple[list, Structure]:
    """The leaves in order, and the structure. None is a tree without leaves."""
    if tree is None:
        return [], NONE
    if isinstance(tree, dict):
        return _flatten("dict", tuple(tree), tree.values())
    if isinstance(tree, (tuple, list)):
        return _flatten("tuple", (), tree)
    return [tree], LEAF


def unflatten(structure: Structure, leaves: Iterable[Any]) -> Any:
    """The tree of this structure with these leaves."""
    return _build(structure, iter(leaves))


def tree_map(f: Callable, tree: object) -> Any:
    """`tree` with `f` applied to every leaf."""
    leaves, structure = flatten(tree)
    return unflatten(structure, map(f, leaves))


def _flatten(kind: str, keys: tuple, items: Iterable[object]) -> tuple[list, Structure]:
    pairs = [flatten(item) for item in items]
    return [leaf for leaves, _ in pairs for leaf in leaves], Structure(kind, keys, tuple(s for _, s in pairs))


def _build(structure: Structure, leaves: Iterator) -> Any:
    if structure.kind == "none":
        return None
    if structure.kind == "leaf":
        return next(leaves)
    parts = [_build(p, leaves) for p in structure.parts]
    if structure.kind == "dict":
        return dict(zip(structure.keys, parts))
    return tuple(parts)
