"""GGUF files, versions 2 and 3: what they say of a network, and where its arrays lie. The file is mapped."""
from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np

from graphc.doors.pretrained.safetensors_map import mapped_bytes
from graphc.dsl.context import user_loc
from graphc.errors import GraphError
from graphc.records import dataclass

MAGIC, VERSIONS, ALIGNMENT = b"GGUF", (2, 3), 32
STRING, ARRAY, BOOL = 8, 9, 7
NUMBERS = {0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", BOOL: "?", 10: "<u8", 11: "<i8",
           12: "<f8"}
MOST_AXES = 4
MOST_BYTES = 32                                 # of a string and its length, on average, where many are read together


@dataclass(frozen=True)
class GgufTensor:
    """An array as it lies in the file: its type's number, its shape in numpy's order, and its bytes."""
    kind: int
    shape: tuple[int, ...]
    data: np.ndarray


@dataclass(frozen=True)
class GgufFile:
    """`fields`: what the file says, by key. `tensors`: by name."""
    path: Path
    fields: dict[str, Any]
    tensors: dict[str, GgufTensor]


def read_gguf(path: Path, size_of: dict[int, tuple[int, int]]) -> GgufFile:
    """The fields and arrays of a file. `size_of`: of each known type, elements and bytes of a block. GraphError for a
    file that is damaged or has arrays of other types."""
    cursor = _Cursor(mapped_bytes(path))
    try:
        if cursor.take(4) != MAGIC:
            raise ValueError("it does not begin with GGUF")
        if (version := cursor.number("<u4")) not in VERSIONS:
            raise ValueError(f"version {version}; known are {VERSIONS}")
        tensors, count = cursor.number("<u8"), cursor.number("<u8")
        fields = {cursor.string(): cursor.value(cursor.number("<u4")) for _ in range(count)}
        infos = [cursor.info() for _ in range(tensors)]
        alignment = fields.get("general.alignment", ALIGNMENT)
        start = -(-cursor.at // alignment) * alignment
        found = {name: _tensor(cursor.data, start + offset, name, kind, shape, size_of)
                 for name, shape, kind, offset in infos}
    except (ValueError, IndexError, TypeError, struct.error, ZeroDivisionError, OverflowError, MemoryError) as error:
        raise GraphError(f"{path} is no GGUF file that can be read: {error}", user_loc()) from None
    return GgufFile(path, fields, found)


class _Cursor:
    """Reads one value after the other."""

    def __init__(self, data: np.ndarray):
        self.data, self.at = data, 0
        self.bytes = data.data

    def take(self, count: int) -> bytes:
        if count > len(self.bytes) - self.at:
            raise ValueError("it ends too early")
        self.at += count
        return bytes(self.bytes[self.at - count:self.at])

    def number(self, code: str) -> Any:
        dtype = np.dtype(code)
        return np.frombuffer(self.take(dtype.itemsize), dtype)[0].item()

    def string(self) -> str:
        return self.take(self.number("<u8")).decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind in NUMBERS:
            return self.number(NUMBERS[kind])
        if kind == STRING:
            return self.string()
        if kind != ARRAY:
            raise ValueError(f"a field of type {kind}")
        inner, count = self.number("<u4"), self.number("<u8")
        if inner in NUMBERS:
            dtype = np.dtype(NUMBERS[inner])
            return np.frombuffer(self.take(count * dtype.itemsize), dtype).tolist()
        return self._strings(count) if inner == STRING else [self.value(inner) for _ in range(count)]

    def _strings(self, count: int) -> list[str]:
        """Tokens, of which there are many."""
        return self._short_strings(count) or self._any_strings(count)

    def _short_strings(self, count: int) -> list[str]:
        """The same where all are shorter than 256 bytes and have no zeros: a length is then a byte and seven zeros,
        and these are nowhere else. Nothing where it is not so, or nobody knows."""
        start = self.at
        room = self.data[start:start + MOST_BYTES * (count + 1)].copy()
        zeros = np.flatnonzero(room == 0)[:7 * count]
        if len(zeros) < 7 * count or count == 0:
            return []
        at = zeros[::7] - 1                     # of the lengths, if each string ends where the next one's stands
        ends = at + 8 + room[at]
        if at[0] != 0 or (ends[:-1] != at[1:]).any() or (zeros[6::7] - at != 7).any() or ends[-1] > len(room):
            return []
        room[at] = ord("x")
        self.at += int(ends[-1])
        return room[:ends[-1]].tobytes().decode("utf-8", "replace").split("x" + 7 * "\0")[1:]

    def _any_strings(self, count: int) -> list[str]:
        result, at, data, unpack = [], self.at, self.bytes, struct.Struct("<Q").unpack_from
        for _ in range(count):
            end = at + 8 + unpack(data, at)[0]
            if end > len(data):
                raise ValueError("it ends too early")
            result.append(str(data[at + 8:end], "utf-8", "replace"))
            at = end
        self.at = at
        return result

    def info(self) -> tuple[str, tuple[int, ...], int, int]:
        """Name, shape, type and offset of an array."""
        name, axes = self.string(), self.number("<u4")
        if axes > MOST_AXES:
            raise ValueError(f"{name} has {axes} axes")
        shape = tuple(self.number("<u8") for _ in range(axes))[::-1]
        return name, shape, self.number("<u4"), self.number("<u8")


def _tensor(data: np.ndarray, at: int, name: str, kind: int, shape: tuple[int, ...],
            size_of: dict[int, tuple[int, int]]) -> GgufTensor:
    if kind not in size_of:
        raise ValueError(f"{name} has the type number {kind}, which is not supported")
    elements, nbytes = size_of[kind]
    if 0 in shape or not shape:
        raise ValueError(f"{name} has no elements")
    if shape[-1] % elements:
        raise ValueError(f"the rows of {name} are {shape[-1]} long, no multiple of {elements}")
    size = math.prod(shape) // elements * nbytes
    if at + size > data.size:
        raise ValueError(f"{name} goes beyond the end")
    return GgufTensor(kind, shape, data[at:at + size])
