"""Sequences and optionals, which are Python's lists and None while importing: everything about them is known then, but
for the arrays."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import graphc as gc
from graphc.doors.onnx.call import Call, Item
from graphc.doors.onnx.known import MOST_PARTS, computable
from graphc.doors.onnx.rule import Known, Operand, Unsupported
from graphc.errors import GraphError
from graphc.ir.types import normalize_axis


def _list(value: Item, what: str) -> list[Item]:
    if not isinstance(value, list):
        raise GraphError(f"{what} takes a sequence")
    return value


def _place(position: Known | None, size: int, most: int) -> int:
    """A position counted from the front; None: the end."""
    if position is None:
        return size
    at = int(position.item("position"))
    if not -size <= at <= most:
        raise GraphError(f"position {at} is not in a sequence of {size}")
    return at % size if at < 0 else at


def construct(*items: Operand) -> list[Item]:
    return list(items)


def empty(*, dtype: int = 1) -> list[Item]:
    return []


def insert(sequence: Operand, item: Operand, position: Known | None = None) -> list[Item]:
    items = _list(sequence, "SequenceInsert")
    at = _place(position, len(items), len(items))
    return [*items[:at], item, *items[at:]]


def erase(sequence: Operand, position: Known | None = None) -> list[Item]:
    items = _list(sequence, "SequenceErase")
    at = len(items) - 1 if position is None else _place(position, len(items), len(items) - 1)
    return [*items[:at], *items[at + 1:]]


def at(sequence: Operand, position: Known) -> Item:
    items = _list(sequence, "SequenceAt")
    return items[_place(position, len(items), len(items) - 1)]


def length(sequence: Operand) -> Known:
    return Known.of(np.array(len(_list(sequence, "SequenceLength")), np.int64))


def concat_from(sequence: Operand, *, axis: int, new_axis: int = 0, call: Call) -> Item:
    items = [call.array(v) for v in _list(sequence, "ConcatFromSequence")]
    return gc.stack(items, axis=axis) if new_axis else gc.concat(items, axis=axis)


def split_to(x: Operand, split: Known | None = None, *, axis: int = 0, keepdims: int = 1, call: Call) -> list[Item]:
    """Parts of these sizes, or of one size each; without `split` slices, which `keepdims` gives an axis."""
    array = call.array(x)
    axis = normalize_axis(axis, array.ndim)
    size = array.shape[axis]
    if split is not None and split.numbers.ndim:
        sizes = [int(n) for n in split.dims("split")]
    elif not isinstance(size, int):
        raise Unsupported(f"a sequence of parts of the named size {size}: give it a number by sizes=")
    else:
        step = 1 if split is None else int(split.item("split"))
        computable(-(-size // max(step, 1)), MOST_PARTS)
        sizes = [min(step, size - i) for i in range(0, size, step)]
    ends = np.cumsum([0, *sizes])
    parts = [array[(slice(None),) * axis + (slice(int(a), int(b)),)] for a, b in zip(ends, ends[1:])]
    return parts if split is not None or keepdims else [gc.squeeze(p, axis) for p in parts]


def optional(value: Operand = None, *, type: object = None) -> Item:
    return value


def has_element(value: Operand = None) -> Known:
    return Known.of(np.array(value is not None))


def get_element(value: Operand) -> Item:
    if value is None:
        raise GraphError("OptionalGetElement of an optional without a value")
    return value


RULES: Mapping[str, Callable[..., Any]] = {
    "SequenceConstruct": construct, "SequenceEmpty": empty, "SequenceInsert": insert, "SequenceErase": erase,
    "SequenceAt": at, "SequenceLength": length, "ConcatFromSequence": concat_from, "SplitToSequence": split_to,
    "Optional": optional, "OptionalHasElement": has_element, "OptionalGetElement": get_element}
