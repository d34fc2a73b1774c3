"""Damaged copies of ONNX models through `gc.from_onnx`: each is read all the same or refused, none crashes."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import onnx

import graphc as gc
from benchmarks.onnx_suite import cases

NUMBERS = (-1, 0, 1, 2, 7, 63, 1 << 31, 1 << 40, (1 << 62) + 1, -(1 << 62))


def mutated(data: bytes, random: np.random.Generator) -> bytes:
    """A damaged copy: bytes changed, left out, doubled or cut off, or fields of the message changed, which leaves it
    readable."""
    if random.integers(0, 4):
        model = onnx.ModelProto.FromString(data)
        for _ in range(int(random.integers(1, 4))):
            _mutate_message(model, random)
        return model.SerializeToString()
    damaged = bytearray(data)
    for _ in range(int(random.integers(1, 6))):
        at, length = int(random.integers(0, max(len(damaged), 1))), int(random.integers(1, 9))
        kind = int(random.integers(0, 4))
        if kind == 0:
            damaged[at:at + length] = bytes(int(v) for v in random.integers(0, 256, length))
        elif kind == 1:
            del damaged[at:at + length]
        elif kind == 2:
            damaged[at:at] = damaged[at:at + length]
        else:
            del damaged[max(at, len(damaged) // 2):]
    return bytes(damaged)


def _mutate_message(message: Any, random: np.random.Generator) -> None:
    """One field, anywhere in the message, becomes another value."""
    fields = list(_fields(message))
    owner, field = fields[int(random.integers(len(fields)))]
    value = getattr(owner, field.name)
    if field.is_repeated:
        at, kind = int(random.integers(len(value))), int(random.integers(0, 3))
        if field.message_type is None and kind == 2:
            with suppress(ValueError):      # a field of 32 bits does not take it
                value[at] = _other(value[at], fields, random)
        elif kind == 1:
            value.extend([value[at]])
        else:
            del value[at]
    elif field.message_type is not None:
        owner.ClearField(field.name)
    else:
        try:
            setattr(owner, field.name, _other(value, fields, random))
        except ValueError:              # an enumeration without this number
            owner.ClearField(field.name)


def _fields(message: Any) -> Iterator[tuple[Any, Any]]:
    """All fields that are set, those of inner messages too."""
    for kind, value in message.ListFields():
        yield message, kind
        if kind.message_type is not None:
            for inner in value if kind.is_repeated else (value,):
                yield from _fields(inner)


def _other(value: Any, fields: Sequence[tuple[Any, Any]], random: np.random.Generator) -> Any:
    """Another value of the kind; for texts one that stands elsewhere in the model."""
    if isinstance(value, bool | float):
        return float(random.choice([0.0, -1.0, np.nan, np.inf, 1e30]))
    if isinstance(value, int):
        number = int(random.choice(len(NUMBERS)))
        return int(np.int32(NUMBERS[number] & 0x7FFFFFFF)) if abs(NUMBERS[number]) > 1 << 31 and random.integers(
            0, 2) else NUMBERS[number]
    if isinstance(value, bytes):
        return value[:int(random.integers(0, len(value) + 1))]
    texts = [getattr(m, f.name) for m, f in fields if f.type == f.TYPE_STRING and not f.is_repeated]
    return str(random.choice([*texts, "", "x" * 50])) if texts else ""


def survives(data: bytes) -> str:
    """What reading and tracing a file gives: "read", or the GraphError that refuses it. Anything else is raised."""
    try:
        gc.plan(gc.from_onnx(data))
        return "read"
    except gc.GraphError as error:
        return error.text


def small_models() -> list[bytes]:
    """Models of a few hundred bytes, of many operators: those of the backend suite."""
    return [data for case in cases(("node",)) if len(data := case.model.SerializeToString()) < 1500]


def main(words: Sequence[str], count: int = 10_000) -> None:
    """So many damaged models; the counts of what became of them. What is neither read nor refused is printed."""
    models, random, read = small_models(), np.random.default_rng(0), 0
    count = int(words[0]) if words else count
    for number in range(count):
        data = mutated(models[int(random.integers(len(models)))], random)
        try:
            read += survives(data) == "read"
        except Exception as error:      # a fault of graphc: shown, with the number that makes it again
            print(f"{number}: {type(error).__name__}: {str(error)[:200]}", flush=True)
    print(f"{read} read all the same, {count - read} refused")
