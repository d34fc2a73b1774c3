"""Whose files the disk cache reads, which it touches, and what becomes of damaged ones."""
from __future__ import annotations

import ast
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.build import Build
from graphc.codegen.llvm import cache, jit
from graphc.codegen.llvm.cache import FOLDER, Cache, code_key, make_key
from graphc.codegen.llvm.packing import pack, unpack
from graphc.compiled import CompiledGraph
from graphc.compiler import Compilation
from graphc.errors import InternalError
from graphc.ir.types import f32
from graphc.runtime.native import runtime_target
from graphc.runtime.signature import ArraySpec, Signature
from tests.fuzz import cache as fuzz

PACKAGE = Path(gc.__file__).parent
TEXT = "define i32 @gc_main(ptr %ctx) nounwind {\n  ret i32 5\n}\n"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("link", [False, True])
def test_a_folder_with_files_of_the_user(given, monkeypatch, tmp_path, link):
    """What the user has in the folder that he names stays, names of the cache's form included, and so do its modes."""
    real = tmp_path / "real" if link else given
    (real / "below").mkdir(parents=True)
    if link:
        given.parent.mkdir()
        given.symlink_to(real)
    names = ("thesis.tex", "0" * 64, "new.abcdefgh", "below/data")
    for name in names:
        (real / name).write_bytes(bytes(100_000))
        os.utime(real / name, (1000, 1000))
    for path in (real, real / "below"):
        path.chmod(0o777)
    monkeypatch.setenv("GRAPHC_CACHE_MB", "0")
    store = cache.default()
    assert store.folder.parent == given
    for k in range(20):
        store.put(make_key(str(k)), bytes(10_000))
    store.clear()
    assert all((real / name).stat().st_size == 100_000 for name in names) and given.is_symlink() == link
    assert mode(real) == mode(real / "below") == 0o777 and mode(real / FOLDER) == 0o700
    assert sorted(os.listdir(real)) == sorted(["0" * 64, "below", FOLDER, "new.abcdefgh", "thesis.tex"])


def test_files_in_its_own_folder_that_it_did_not_make(folder):
    folder.mkdir(parents=True)
    for name in ("notes", "0" * 63, "0" * 64 + ".txt", "new.", "New.abcdefgh"):
        (folder / name).write_bytes(bytes(10))
        os.utime(folder / name, (1000, 1000))
    store = cache.default()
    store.clear()
    Cache(folder, 1).trim()
    assert len(os.listdir(folder)) == 5 and store.size == 0


@pytest.mark.parametrize("bits", [0o777, 0o770, 0o720, 0o702])
def test_a_folder_that_others_may_write_is_refused(folder, bits):
    """Its mode is not changed, and nothing in it is read: what others put there would run."""
    folder.mkdir(parents=True)
    Cache(folder, 1000).put("0" * 64, b"planted")
    folder.chmod(bits)
    with pytest.warns(RuntimeWarning, match="others may write") as warned:
        assert cache.default() is None
        assert cache.default() is None and Cache(folder, 1000).get("0" * 64) is None
    assert len(warned) == 1 and mode(folder) == bits and os.listdir(folder) == ["0" * 64]


def test_a_folder_of_another_user_is_refused(folder, monkeypatch):
    folder.mkdir(parents=True, mode=0o700)
    store = Cache(folder, 1000)
    store.put("0" * 64, b"planted")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.warns(RuntimeWarning, match="belongs to another user") as warned:
        assert cache.default() is None and store.get("0" * 64) is None
        store.put("1" * 64, b"ours")
    assert len(warned) == 1 and os.listdir(folder) == ["0" * 64]


def test_a_folder_that_turns_bad_is_refused(folder):
    """Every access looks again."""
    store = cache.default()
    store.put("0" * 64, b"ours")
    folder.chmod(0o777)
    with pytest.warns(RuntimeWarning):
        assert store.get("0" * 64) is None
    folder.chmod(0o700)
    assert store.get("0" * 64) == b"ours"


def test_the_folder_may_be_a_link_of_ours(folder, tmp_path, monkeypatch):
    (tmp_path / "large disk").mkdir(mode=0o700)
    folder.parent.mkdir(parents=True)
    folder.symlink_to(tmp_path / "large disk")
    store = cache.default()
    store.put("0" * 64, b"ours")
    assert store.get("0" * 64) == b"ours" and os.listdir(tmp_path / "large disk") == ["0" * 64]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes links of others")
def test_the_folder_may_not_be_a_link_of_others(folder, tmp_path):
    (tmp_path / "ours").mkdir(mode=0o700)
    folder.parent.mkdir(parents=True)
    folder.symlink_to(tmp_path / "ours")
    os.chown(folder, 1234, 1234, follow_symlinks=False)
    with pytest.warns(RuntimeWarning):
        assert cache.default() is None


@pytest.mark.parametrize("foreign", [
    pytest.param(lambda path: os.chown(path, 1234, -1),
                 marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")),
    lambda path: path.chmod(0o620), lambda path: path.chmod(0o602)])
def test_entries_of_others_are_refused(folder, foreign):
    """With one warning, however many; what we store takes their place."""
    store = cache.default()
    keys = [make_key(str(k)) for k in range(3)]
    for key in keys:
        store.put(key, b"planted")
        foreign(folder / key)
    with pytest.warns(RuntimeWarning, match="files that belong to another user or that others may write") as warned:
        assert [store.get(key) for key in keys] == [None] * 3
    assert len(warned) == 1
    store.put(keys[0], b"ours")
    assert store.get(keys[0]) == b"ours" and mode(folder / keys[0]) == 0o600


@pytest.mark.parametrize("seed", range(2))
def test_a_share_of_all_damages(seed):
    fuzz.run(np.random.default_rng(seed), 0)


def test_a_program_that_does_not_load_is_built_again(folder):
    """Its sum is right, its object code is none."""
    first = CompiledGraph(fuzz.other.graph)
    key, built = Compilation(fuzz.other.graph).key, first.compilation.build
    payload = b"".join(pack(built)).replace(b"\x7fELF", b"\x7fFLE")
    cache.default().put(key, payload)
    x = np.arange(5, dtype=np.float32)
    again = CompiledGraph(fuzz.other.graph)
    assert again.compilation.found and again(x).tobytes() == first(x).tobytes()
    assert cache.default().get(key) == b"".join(pack(built))
    third = Compilation(fuzz.other.graph)
    third.load(lambda built: built)
    with pytest.raises(InternalError, match="other"):
        third.load(lambda built: (_ for _ in ()).throw(InternalError("other", "run")))


def test_runtime_code_that_does_not_load_is_compiled_again(folder):
    cache.default().put(code_key(TEXT, runtime_target(), f"{jit.PASSES} {jit.OPT}"), b"\x7fELF and no more")
    assert jit.load_cached(TEXT, runtime_target(), ("gc_main",)).address("gc_main")


def test_programs_survive_packing(folder):
    """Every field, in its declared type; constants lie where they were read."""
    for function in (fuzz.looked_up, fuzz.other):
        built = Compilation(function.graph).stage(Build)
        data = memoryview(b"".join(pack(built)))
        found = unpack(Build, data)
        assert found == built and found.program.consts.obj is data.obj and type(found.program.object_code) is bytes
        assert found.program.signature.inputs[0].type.dtype is f32


def test_a_word_of_none_of_the_declared_ones_is_refused():
    signature = Signature((ArraySpec("x", f32[3]),), (ArraySpec("y", f32[3]),))
    data = b"".join(pack(signature))
    assert unpack(Signature, memoryview(data)) == signature
    with pytest.raises(ValueError, match="'wrong' is no typing.Literal"):
        unpack(Signature, memoryview(data.replace(b'"tuple"', b'"wrong"')))


def test_a_large_captured_array_is_not_copied(folder):
    """Compiling from the cache takes the array's own copy in the graph, and that of the program; its text alone would
    be twice as large.
    """
    script = """
import resource
import numpy as np, graphc as gc
w = np.random.default_rng(0).standard_normal((2000, 4000)).astype(np.float32)
@gc.graph
def f(x: gc.f32[8, 2000]):
    return gc.tanh(x @ w)
@gc.graph
def warm(x: gc.f32[4]):
    return gc.tanh(x)
gc.compile(warm)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
g = gc.compile(f)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / w.nbytes, float(np.abs(g(np.ones((8, 2000), np.float32))).sum()))
"""
    env = dict(os.environ, PYTHONPATH=str(Path(__file__).parents[2]))
    runs = [subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=120)
            for _ in range(2)]
    (cold, a), (cached, b) = (map(float, run.stdout.split()) for run in runs)
    assert a == b and cold < 2.5 and cached < 2, (cold, cached)


# annotations of the user's function; the module that a command names; methods of a dataclass, made of its fields' names;
# formulas of sizes, made of integers and of names as literals
EVALUATES = {"dsl/signature.py: eval", "cli_sources.py: exec_module", "records.py: exec", "ir/size_formulas.py: exec",
             "doors/mpi/communicator.py: pickle"}          # what ranks of one job send each other


def test_the_stamp_is_of_all_sources():
    """An edited file of any folder makes another key."""
    stamped = {line.split(" ")[0] for line in cache._source_stamp().splitlines()}
    assert stamped == {p.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("*.py")}


def test_nothing_else_runs_what_a_file_holds():
    """No module of graphc unpickles, and only these evaluate: what is the user's own code, or made here."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        name, nodes = path.relative_to(PACKAGE).as_posix(), list(ast.walk(ast.parse(path.read_text())))
        imported = [a.name for n in nodes if isinstance(n, ast.Import) for a in n.names]
        imported += [n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)]
        found |= {f"{name}: {m}"
                  for m in imported if m.split(".")[0] in ("pickle", "marshal", "shelve", "dill", "joblib", "runpy")}
        calls = [getattr(n.func, "attr", getattr(n.func, "id", "")) for n in nodes if isinstance(n, ast.Call)]
        found |= {f"{name}: {c}" for c in calls if c in ("eval", "exec", "exec_module")}
        found |= {f"{name}: {n.arg}" for n in nodes
                  if isinstance(n, ast.keyword) and n.arg == "allow_pickle" and ast.unparse(n.value) != "False"}
    assert found == EVALUATES
