"""Damaged checkpoints: none loads, whatever happened to the bytes; and no file at all gives another error than
GraphError.
"""
from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import save

import graphc as gc
from graphc.checkpoint import load_arrays, save_arrays
from graphc.ir.types import DTYPES

Arrays = dict[str, np.ndarray]


def run(rng: np.random.Generator, deadline: float) -> int:
    """Damages checkpoints in every way until `deadline` (time.monotonic), once at least; returns how many.
    AssertionError shows the file that was taken for whole.
    """
    cases = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.safetensors"
        while True:
            arrays = specimen(rng)
            save_arrays(path, arrays)
            whole = path.read_bytes()
            for name, damage in DAMAGES.items():
                _found(path, arrays, whole, damage(rng, whole), name)
                _harmless(path, damage(rng, _foreign(rng, arrays)))
            cases += 2 * len(DAMAGES)
            if time.monotonic() >= deadline:
                return cases


def specimen(rng: np.random.Generator) -> Arrays:
    """A few small arrays; two are of one type, so that their bytes can be exchanged."""
    shapes = [tuple(int(n) for n in rng.integers(0, 5, rng.integers(0, 3))) for _ in range(rng.integers(1, 5))]
    arrays = {f"{i}.weight": rng.integers(0, 200, shape).astype(DTYPES[rng.integers(len(DTYPES))].np)
              for i, shape in enumerate(shapes)}
    return {**arrays, "a": rng.standard_normal(3).astype(np.float32), "b": rng.standard_normal(3).astype(np.float32)}


def flipped(data: bytes, bits) -> bytes:
    damaged = bytearray(data)
    for bit in bits:
        damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def with_header(data: bytes, change: Callable[[str], str]) -> bytes:
    """`data` with another header, whose length is right."""
    size = int.from_bytes(data[:8], "little")
    text = change(data[8:8 + size].decode(errors="replace")).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size:]


def _flips(count: int):
    return lambda rng, data: flipped(data, rng.choice(8 * len(data), count, replace=False))


def _flips_around(rng, data: bytes) -> bytes:
    """One in the header, one behind it."""
    start = 8 * (8 + int.from_bytes(data[:8], "little"))
    return flipped(data, (rng.integers(start), rng.integers(start, 8 * len(data))))


def _burst(rng, data: bytes) -> bytes:
    start, size = int(rng.integers(len(data))), int(rng.integers(1, 65))
    filling = (bytes(size), b"\xff" * size, rng.bytes(size))[rng.integers(3)]
    return data[:start] + filling[:len(data) - start] + data[start + size:]


def _truncated(rng, data: bytes) -> bytes:
    return data[:rng.integers(len(data))]


def _extended(rng, data: bytes) -> bytes:
    return data + (bytes, rng.bytes)[rng.integers(2)](int(rng.integers(1, 20)))


def _inserted(rng, data: bytes) -> bytes:
    at = int(rng.integers(len(data)))
    return data[:at] + rng.bytes(int(rng.integers(1, 9))) + data[at:]


def _removed(rng, data: bytes) -> bytes:
    at = int(rng.integers(len(data)))
    return data[:at] + data[at + int(rng.integers(1, 9)):]


def _exchanged_bytes(rng, data: bytes) -> bytes:
    """The bytes of two arrays of one type change places."""
    size = int.from_bytes(data[:8], "little")
    table = json.loads(data[8:8 + size])
    (a, b), (c, d) = (table[name]["data_offsets"] for name in "ab")
    body = bytearray(data[8 + size:])
    body[a:b], body[c:d] = body[c:d], body[a:b]
    return data[:8 + size] + bytes(body)


def _header_as(change: Callable[[dict], None]):
    """The header of another table; its own text stays where nothing changes it."""
    def changed(text: str) -> str:
        table = json.loads(text)
        change(table)
        return json.dumps(table, separators=(",", ":"))
    return lambda rng, data: with_header(data, changed)


def _exchange_names(table: dict) -> None:
    table["a"], table["b"] = table["b"], table["a"]


def _overlap(table: dict) -> None:
    table["a"]["data_offsets"] = table["b"]["data_offsets"]


def _reach_out(table: dict) -> None:
    table["a"]["data_offsets"][1] += 1 << 40


def _other_type(table: dict) -> None:
    table["a"]["dtype"] = "I32"


def _other_shape(table: dict) -> None:
    table["a"]["shape"] = [3, 1]


def _rename(table: dict) -> None:
    table["c"] = table.pop("a")


def _leave_out(table: dict) -> None:
    del table["b"]


def _forget_sums(table: dict) -> None:
    table.setdefault("__metadata__", {})["graphc.sums"] = "[]"


def _twice(text: str) -> str:
    entry = json.dumps(json.loads(text)["a"], separators=(",", ":"))
    return text.rstrip()[:-1] + f',"a":{entry}}}'


def _text(change: Callable[[np.random.Generator, str], str]):
    return lambda rng, data: with_header(data, lambda text: change(rng, text))


def _other_character(rng, text: str) -> str:
    at = int(rng.integers(len(text.rstrip())))
    return text[:at] + '"\\{}[],:0a \n'[rng.integers(12)] + text[at + rng.integers(2):]


DAMAGES: dict[str, Callable[[np.random.Generator, bytes], bytes]] = {
    "1 flip": _flips(1), "2 flips": _flips(2), "3 flips": _flips(3), "20 flips": _flips(20),
    "flips around": _flips_around, "burst": _burst,
    "truncated": _truncated, "extended": _extended, "inserted": _inserted, "removed": _removed,
    "exchanged bytes": _exchanged_bytes,
    "names exchanged": _header_as(_exchange_names), "overlap": _header_as(_overlap),
    "reach out": _header_as(_reach_out),
    "other type": _header_as(_other_type), "other shape": _header_as(_other_shape), "renamed": _header_as(_rename),
    "left out": _header_as(_leave_out), "no sums": _header_as(_forget_sums),
    "twice": _text(lambda rng, text: _twice(text)),
    "character": _text(_other_character), "spaces": _text(lambda rng, text: text + "        "),
    "nested": _text(lambda rng, text: "[" * 100_000),
    "random": lambda rng, data: rng.bytes(len(data)), "nothing": lambda rng, data: b"",
}


def _foreign(rng: np.random.Generator, arrays: Arrays) -> bytes:
    """The same arrays as another program saves them, or as graphc's older versions did."""
    older = {"format": "graphc", "crc32": json.dumps({"a": 5})}
    return save(arrays, ({}, {"format": "pt"}, older, {"format": "graphc", "crc32": "[]"})[rng.integers(4)])


def _found(path: Path, arrays: Arrays, whole: bytes, damaged: bytes, name: str) -> None:
    path.write_bytes(damaged)
    try:
        loaded = load_arrays(path)
    except gc.GraphError:
        return
    except Exception as error:
        raise AssertionError(f"{error!r} for {name}: {damaged!r}") from error
    same = loaded.keys() == arrays.keys() and all(loaded[n].tobytes() == a.tobytes() for n, a in arrays.items())
    assert damaged == whole and same, f"loads in spite of {name}: {damaged!r} instead of {whole!r}"


def _harmless(path: Path, data: bytes) -> None:
    """What has no sums may load as something else, but fails in no other way."""
    path.write_bytes(data)
    try:
        load_arrays(path)
    except gc.GraphError:
        pass
    except Exception as error:
        raise AssertionError(f"{error!r} for {data!r}") from error
