"""Dataclasses as bytes, for the disk cache. Reading checks every value against the type that its field declares, and
runs no code but these classes' own.

JSON holds the structure; after it follow the blocks of bytes, each at a multiple of `ALIGNMENT`,
so that they can be used without a copy.
"""
from __future__ import annotations

import json
import typing
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from functools import cache as once
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar

from graphc.errors import GraphError, InternalError
from graphc.ir.dim_rows import dim_of, rows_of
from graphc.ir.dims import Poly
from graphc.ir.types import BY_NAME, DType
from graphc.schedule.target import ALIGNMENT

SCALARS = (NoneType, bool, int, float, str)
Block = bytes | bytearray | memoryview
T = TypeVar("T")


def pack(record: object) -> list[Block]:
    """The bytes of a dataclass, in parts. InternalError when a field is not of its declared type."""
    blocks: list[Block] = []
    tree = _write(type(record), record, blocks)
    text = json.dumps([tree, [len(block) for block in blocks]], separators=(",", ":")).encode()
    parts = [len(text).to_bytes(8, "little") + text, *blocks]
    return [piece for part in parts for piece in (part, bytes(-len(part) % ALIGNMENT))]


def unpack(kind: type[T], data: memoryview) -> T:
    """The record of type `kind` that `pack` made `data` of; fields declared as memoryview lie in `data`. ValueError
    when there is none."""
    try:
        size = 8 + int.from_bytes(data[:8], "little")
        tree, lengths = json.loads(bytes(data[8:size]))
        return _read(kind, tree, _blocks(data, size, lengths))
    except (TypeError, LookupError, RecursionError, GraphError, InternalError) as error:
        raise ValueError(f"no {kind.__name__}: {error}") from None


def _blocks(data: memoryview, end: int, lengths: Sequence[int]) -> list[memoryview]:
    blocks = []
    for length in lengths:
        start = end + -end % ALIGNMENT
        end = start + _read(int, length, ())
        if not start <= end <= len(data):
            raise ValueError("a block reaches beyond the end")
        blocks.append(data[start:end])
    return blocks


def _write(kind: Any, value: Any, blocks: list[Block]) -> object:
    """`value`, which is declared as `kind`, as JSON and blocks."""
    form, parts = _form(kind)
    if form is UnionType:
        return _write(next((part for part in parts if part is type(value)), NoneType), value, blocks)
    if form in (tuple, frozenset) and type(value) is form:
        return [_write(parts[0], v, blocks) for v in (value if form is tuple else sorted(value))]
    if form is Poly and type(value) is Poly:
        return rows_of(value)
    if form is object and type(value) is kind:
        return [_write(part, getattr(value, name), blocks) for name, part in parts]
    if form is DType and value in BY_NAME.values():
        return value.name
    if form in (bytes, memoryview) and isinstance(value, Block):
        blocks.append(value)
        return len(blocks) - 1
    if form in SCALARS and type(value) is form or form is Literal and value in parts:
        return value
    raise InternalError(f"{value!r} is declared as {kind}", "packing")


def _read(kind: Any, tree: Any, blocks: Sequence[memoryview]) -> Any:
    """The value that `_write` made `tree` of."""
    form, parts = _form(kind)
    if form is UnionType:
        return _read(next((part for part in parts if part is type(tree) or type(tree) is list and is_dataclass(part)),
                          NoneType), tree, blocks)
    if form in (tuple, frozenset) and type(tree) is list:
        return form([_read(parts[0], t, blocks) for t in tree])
    if form is Poly and type(tree) is list:
        return dim_of(tree)
    if form is object and type(tree) is list and len(tree) == len(parts):
        return kind(*[_read(part, t, blocks) for t, (_, part) in zip(tree, parts)])
    if form is DType and type(tree) is str and tree in BY_NAME:
        return BY_NAME[tree]
    if form in (bytes, memoryview) and type(tree) is int and 0 <= tree < len(blocks):
        return form(blocks[tree])
    if form in SCALARS and type(tree) is form or form is Literal and type(tree) is str and tree in parts:
        return tree
    raise ValueError(f"{tree!r} is no {kind}")


@once
def _form(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    """How values declared as `kind` are written, and what they are made of: `object` are dataclasses, with their
    fields."""
    origin = typing.get_origin(kind) or kind
    if origin in (DType, Poly) or not is_dataclass(origin):
        return origin, typing.get_args(kind)
    hints = typing.get_type_hints(kind)
    return object, tuple((field.name, hints[field.name]) for field in fields(kind))
