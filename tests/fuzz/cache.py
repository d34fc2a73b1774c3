"""Damaged entries of the disk cache: each counts as missing, whatever it is, and is there again after the next compile.
"""
from __future__ import annotations

import json
import os
import pickle
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.build import Build
from graphc.codegen.llvm import cache
from graphc.codegen.llvm.cache import FOLDER, HEAD, Cache
from graphc.codegen.llvm.packing import pack, unpack
from graphc.compiled import CompiledGraph
from graphc.compiler import Compilation
from tests.fuzz.checkpoint import flipped

ROUNDS = 200                    # payloads that are read for each entry that is compiled again


@gc.graph
def looked_up(x: gc.f32[4, 3], ids: gc.i32[2]):
    return gc.take(gc.tanh(x) + np.arange(12, dtype=np.float32).reshape(4, 3), ids)


@gc.graph
def other(x: gc.f32[5]):
    return gc.exp(x) * np.arange(5, dtype=np.float32)


def run(rng: np.random.Generator, deadline: float) -> int:
    """Damages entries in every way until `deadline` (time.monotonic), once at least; returns how many.
    AssertionError shows the one that had an effect.
    """
    cases = 0
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPHC_CACHE", folder)
        built, other_built = (CompiledGraph(f.graph).compilation.build for f in (looked_up, other))
        entry = Path(folder, FOLDER, Compilation(looked_up.graph).key)
        whole, store = entry.read_bytes(), cache.default()
        while True:
            for name, damage in DAMAGES.items():
                damage(rng, store, entry, whole, other_built)
                case = f"{name}: {entry.read_bytes() if entry.is_file() else None!r}"
                assert Compilation(looked_up.graph).build == built, case
                assert entry.is_file() and not entry.is_symlink() and entry.read_bytes() == whole, f"stays, {case}"
                assert not PLANTED, f"its code ran, {case}"
                _read_damaged(rng, b"".join(pack(built)))
            cases += (1 + ROUNDS) * len(DAMAGES)
            if time.monotonic() >= deadline:
                return cases


def _read_damaged(rng: np.random.Generator, payload: bytes) -> None:
    """With a right sum, what is read is a program or refused: nothing else is raised."""
    for _ in range(ROUNDS):
        data = PAYLOADS[rng.integers(len(PAYLOADS))](rng, payload)
        try:
            found = unpack(Build, memoryview(data))
        except ValueError:
            continue
        except Exception as error:
            raise AssertionError(f"{error!r} for the payload {data!r}") from error
        assert isinstance(found, Build), data


def _header_as(change: Callable[[np.random.Generator, object], object]):
    """The payload with another structure of JSON, of which `change` gives one part anew."""
    def changed(rng, payload: bytes) -> bytes:
        size = int.from_bytes(payload[:8], "little")
        tree = json.loads(payload[8:8 + size])
        at, inside = rng.integers(2), tree
        while isinstance(inside[at], list) and inside[at] and rng.random() < 0.8:
            inside = inside[at]
            at = rng.integers(len(inside))
        inside[at] = change(rng, inside[at])
        text = json.dumps(tree).encode()
        return len(text).to_bytes(8, "little") + text + payload[8 + size:]
    return changed


def _other_value(rng, old):
    values = (None, True, -1, 10**30, 0.5, float("nan"), "", "f32", [], {}, [old], {"a": old}, [[[]]], "\ud800", old)
    return values[rng.integers(len(values))]


PAYLOADS: tuple[Callable[[np.random.Generator, bytes], bytes], ...] = (
    _header_as(_other_value), _header_as(lambda rng, old: old[:-1] if isinstance(old, list) else [old]),
    lambda rng, payload: flipped(payload, [rng.integers(8 * len(payload))]),
    lambda rng, payload: payload[:rng.integers(len(payload))],
    lambda rng, payload: rng.bytes(int(rng.integers(300))),
    lambda rng, payload: int(rng.integers(1 << 40)).to_bytes(8, "little") + payload[8:],
    lambda rng, payload: (100_000).to_bytes(8, "little") + b"[" * 100_000,
)


def _write(change: Callable[[np.random.Generator, bytes], bytes]):
    """Another content of the file, with whatever sum that has."""
    return lambda rng, store, entry, whole, other: entry.write_bytes(change(rng, whole))


def _store(payload: Callable[[np.random.Generator, bytes, Build], bytes]):
    """Another content with the right sum."""
    return lambda rng, store, entry, whole, other: store.put(entry.name, payload(rng, whole[HEAD:], other))


def _in_place(make: Callable[[Path], None]):
    """Something that is no file of ours."""
    def damage(rng, store: Cache, entry: Path, whole: bytes, other: Build) -> None:
        entry.unlink()
        make(entry)
    return damage


def _swap(rng, store: Cache, entry: Path, whole: bytes, other: Build) -> None:
    """What another entry holds, with its sum."""
    names = [n for n in os.listdir(store.folder) if n != entry.name]
    entry.write_bytes((store.folder / names[rng.integers(len(names))]).read_bytes())


class Planted:
    """Whose pickle calls a function when it is loaded."""

    def __reduce__(self):
        return plant, ()


PLANTED: list[int] = []


def plant() -> None:
    PLANTED.append(1)


DAMAGES: dict[str, Callable] = {
    "1 flip": _write(lambda rng, whole: flipped(whole, [rng.integers(8 * len(whole))])),
    "2 flips": _write(lambda rng, whole: flipped(whole, rng.choice(8 * len(whole), 2, replace=False))),
    "flip in the head": _write(lambda rng, whole: flipped(whole, [rng.integers(8 * HEAD)])),
    "truncated": _write(lambda rng, whole: whole[:rng.integers(len(whole))]),
    "extended": _write(lambda rng, whole: whole + rng.bytes(3)),
    "random": _write(lambda rng, whole: rng.bytes(len(whole))), "empty": _write(lambda rng, whole: b""),
    "swapped": _swap,
    "random, right sum": _store(lambda rng, payload, other: rng.bytes(200)),
    "empty, right sum": _store(lambda rng, payload, other: b""),
    "pickle, right sum": _store(lambda rng, payload, other: pickle.dumps(Planted())),
    "object code, right sum": _store(lambda rng, payload, other: bytes(other.program.object_code)),
    "a part, right sum": _store(lambda rng, payload, other: b"".join(pack(other.memory))),
    "truncated, right sum": _store(lambda rng, payload, other: payload[:64 * rng.integers(len(payload) // 64)]),
    "link": _in_place(lambda entry: entry.symlink_to("/dev/zero")),
    "link to nothing": _in_place(lambda entry: entry.symlink_to("nothing")),
    "pipe": _in_place(os.mkfifo), "gone": _in_place(lambda entry: None),
}
