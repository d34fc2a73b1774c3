"""Command lines and files of every kind, right and wrong: each ends with an exit status, and never with a traceback of graphc or an internal error."""
from __future__ import annotations

import contextlib
import io
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from graphc.cli import main
from tests.fuzz.damage import damaged
from tests.fuzz.texts import sound_texts

COMMANDS = ("run", "dump", "dump", "dump", "opt", "opt", "profile", "fly")
NAMES = ("a.txt", "b.txt", "lesson.py", "lesson.py:double", "lesson.py:layer", "lesson.py:", "lesson.py:é", "folder", "nowhere", "a.txt:f", "a.npy",
         "", ":", "-", "folder/..", "\udcff")
OPTIONS = (("--bind", "B=2"), ("--bind", "T=3"), ("--bind", "K=1"), ("--bind", "B=²"), ("--bind", "B=-1"), ("--bind", "B"), ("--bind",
           "B=999999999999999999"), ("--bind", "B=" + "9" * 30), ("--bind", ""),
           ("--bind",), ("x=a.npy",), ("x0=a.npy",), ("x0=b.npy",), ("x=folder",), ("x=nowhere.npy",), ("x",), ("=",), ("x0=",), ("--out", "out"),
           ("--out", "a.txt"), ("--out", ""), ("--threads", "2"),
           ("--threads", "-1"), ("--threads", "many"), ("--runs", "0"), ("--stage", "graph"), ("--stage", "simplified"), ("--stage", "fused"),
           ("--stage", "loops"), ("--stage", "fly"), ("--target", "avx512"),
           ("--target", "neon"), ("--target", ""), ("--passes", "decompose,cse"), ("--passes", "fuse"), ("--passes", "fold_constants,,"),
           ("--passes", "fly"), ("--svg", "folder"), ("--svg", "nowhere/a"), ("--é",), ("--version",))
LESSON = b"import graphc as gc\n\n@gc.graph\ndef double(x: gc.f32[4]):\n    return x * 2\n\nlayer = gc.nn.Linear(3)\n"


def run(rng: np.random.Generator, deadline: float) -> int:
    """Until the deadline; returns how many command lines were tried. AssertionError with the line and its files at the first that ends wrongly."""
    count, here = 0, os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            Path("folder").mkdir()
            while not count or time.monotonic() < deadline:
                _write_files(rng)
                check(_line(rng))
                count += 1
        finally:
            os.chdir(here)
    return count


def check(line: list[str]) -> None:
    """AssertionError unless the command ends as a command does."""
    out, err = io.StringIO(), io.StringIO()
    status: object = None
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(line)
    except SystemExit as error:
        status = error.code
    except BaseException as error:
        raise AssertionError(f"{type(error).__name__}: {error} for {line}\n{_files()}") from error
    said = err.getvalue()
    ours = "bug in graphc" in said or "internal error" in said or "Traceback" in said and "does not run" not in said
    silent = status != 0 and not said
    assert status in (0, 1, 2) and not ours and not silent, f"status {status} for {line}:\n{said}\n{_files()}"


def _line(rng: np.random.Generator) -> list[str]:
    command = COMMANDS[int(rng.integers(len(COMMANDS)))]
    name = NAMES[int(rng.integers(4 if rng.integers(4) else len(NAMES)))]
    options = [word for _ in range(int(rng.integers(4))) for word in OPTIONS[int(rng.integers(len(OPTIONS)))]]
    if command == "profile":                        # measuring takes seconds, so only what is refused before
        options += ["--runs", "no"]
    return [command, name, *options]


def _write_files(rng: np.random.Generator) -> None:
    """a.txt is sound, b.txt damaged, lesson.py and the arrays either."""
    texts = sound_texts()
    text = texts[int(rng.integers(len(texts)))]
    Path("a.txt").write_text(text, encoding="utf-8")
    Path("b.txt").write_bytes(_bytes(damaged(text, rng).encode("utf-8", "surrogatepass"), rng, 4))
    Path("lesson.py").write_bytes(_bytes(LESSON, rng, 2))
    shapes = ((), (3,), (2, 3), (4,), (0,), (33,))
    array = rng.standard_normal(shapes[int(rng.integers(len(shapes)))]).astype(("f4", "f8", "i4", "i8", "?", ">f4", "c8", "S3")[int(rng.integers(8))])
    with io.BytesIO() as file:
        np.save(file, array)
        Path("a.npy").write_bytes(file.getvalue())
        Path("b.npy").write_bytes(_bytes(file.getvalue(), rng, 1))


def _bytes(data: bytes, rng: np.random.Generator, sound: int) -> bytes:
    """The data, once in `sound` + 1 times with some bytes changed, or cut."""
    if rng.integers(sound + 1) < sound or not data:
        return data
    changed = bytearray(data[:int(rng.integers(len(data))) + 1] if rng.integers(3) == 0 else data)
    for place in rng.integers(len(changed), size=int(rng.integers(1, 4))):
        changed[place] = int(rng.integers(256))
    return bytes(changed)


def _files() -> str:
    return "\n".join(f"{p.name}: {p.read_bytes()!r}" for p in sorted(Path().iterdir()) if p.is_file())[:8000]
