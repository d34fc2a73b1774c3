"""The disk cache: private, atomic, bounded, and never the cause of a failure."""
from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from native_programs import add_one

from graphc.codegen.llvm import cache, jit
from graphc.codegen.llvm.cache import HEAD, Cache, code_key, make_key
from graphc.runtime.native import runtime_target
from graphc.schedule.target import AVX2, SSE2

TEXT = "define i32 @gc_main(ptr %ctx) nounwind {\n  ret i32 5\n}\n"


@pytest.fixture
def codegen_calls(monkeypatch):
    calls = []
    original = jit.compile_object
    monkeypatch.setattr(jit, "compile_object", lambda *args: calls.append(1) or original(*args))
    return calls


def test_folder_is_private(folder):
    cache.default().put(make_key("a"), b"payload")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(f.stat().st_mode) == 0o600 for f in folder.iterdir())


def test_the_users_own_folder(monkeypatch, tmp_path):
    """Without GRAPHC_CACHE; nowhere where there is no home."""
    monkeypatch.delenv("GRAPHC_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.default().folder == tmp_path / "xdg" / "graphc"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.default().folder == tmp_path / "home" / ".cache" / "graphc"
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert cache.default() is None


def test_second_compile_is_read(folder, codegen_calls):
    first = jit.compile_cached(TEXT, runtime_target())
    second = jit.compile_cached(TEXT, runtime_target())
    assert first == second and len(codegen_calls) == 1


def test_another_process_reads_it(folder):
    """The whole start of a program, runtime included, makes no code the second time."""
    script = """
from graphc.codegen.llvm import jit
import numpy as np
from native_programs import add_one
calls = []
original = jit.compile_object
jit.compile_object = lambda *args: calls.append(1) or original(*args)
assert add_one().call(np.array([1], np.float32))[0] == 2
print(len(calls))
"""
    env = dict(os.environ, PYTHONPATH=os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])]))
    counts = [subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=60).stdout
              for _ in range(2)]
    assert counts == ["2\n", "0\n"]


@pytest.mark.parametrize("damage", [
    lambda b: b"", lambda b: b[:10], lambda b: b[:-1], lambda b: b[:-1] + bytes([b[-1] ^ 1]), lambda b: b"x" + b[1:],
    lambda b: b + b"more",
    lambda b: os.urandom(len(b))])
def test_a_broken_entry_is_compiled_again(folder, codegen_calls, damage):
    jit.compile_cached(TEXT, runtime_target())
    entry, = folder.iterdir()
    intact = entry.read_bytes()
    entry.write_bytes(damage(intact))
    assert jit.load_object(jit.compile_cached(TEXT, runtime_target())).address("gc_main")
    assert len(codegen_calls) == 2 and entry.read_bytes() == intact


def test_keys():
    base = code_key("text", AVX2, "2")
    assert base == code_key("text", AVX2, "2")
    assert len({base, code_key("texu", AVX2, "2"), code_key("text", SSE2, "2"), code_key("text", AVX2, "1")}) == 4
    assert make_key("ab", "c") != make_key("a", "bc") and make_key(b"ab") == make_key("ab")


def test_oldest_use_goes_first(tmp_path):
    store = Cache(tmp_path, 100_000)
    keys = [make_key(str(k)) for k in range(12)]
    for age, key in enumerate(keys):
        store.put(key, bytes(1000))
        os.utime(tmp_path / key, (1000 + age, 1000 + age))
    assert store.get(keys[0]) is not None           # used: now the youngest
    store = Cache(tmp_path, 10_000)
    store.trim()
    assert store.size <= 10_000
    assert store.get(keys[0]) is not None and store.get(keys[1]) is None and store.get(keys[11]) is not None


def test_stores_keep_the_bound(tmp_path):
    store = Cache(tmp_path, 100_000)
    for k in range(300):
        store.put(make_key(str(k)), bytes(3000))
    assert store.size <= 100_000 + 16 * 3100


def test_a_huge_entry_does_not_stay(tmp_path):
    store = Cache(tmp_path, 1000)
    store.put(make_key("a"), bytes(5000))
    assert store.size <= 1000


def test_off_and_unusable_folders(monkeypatch, tmp_path):
    for word in ("off", "0", "No"):
        monkeypatch.setenv("GRAPHC_CACHE", word)
        assert cache.default() is None
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GRAPHC_CACHE", str(tmp_path / "file"))
    assert cache.default() is None
    monkeypatch.setenv("GRAPHC_CACHE", str(tmp_path / "file" / "below"))
    assert cache.default() is None
    assert add_one().call(np.array([1], np.float32))[0] == 2


def test_folder_removed_meanwhile(folder):
    store = cache.default()
    folder.rmdir()
    store.put(make_key("a"), b"x")
    assert store.get(make_key("a")) is None


def test_leftovers_of_a_crash_are_removed(tmp_path):
    """Also while there is room; not what somebody may still be writing."""
    store = Cache(tmp_path, 100_000)
    for name in ("new.abcdefgh", "new.12345678"):
        (tmp_path / name).write_bytes(bytes(50))
    os.utime(tmp_path / "new.abcdefgh", (1000, 1000))
    store.put(make_key("a"), b"x")
    assert sorted(os.listdir(tmp_path)) == sorted([make_key("a"), "new.12345678"])


def test_a_failed_store_leaves_nothing(tmp_path, monkeypatch):
    store = Cache(tmp_path, 1000)
    for error in (OSError(28, "disk full"), KeyboardInterrupt()):
        monkeypatch.setattr(os, "replace", lambda *args, **kwargs: (_ for _ in ()).throw(error))
        try:
            store.put(make_key("a"), b"x")
        except KeyboardInterrupt:
            pass
        assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("size", [0, HEAD - 1, 1001, 1 << 40])
def test_what_is_too_small_or_too_large_is_not_read(tmp_path, size):
    """Nor does it take memory."""
    store = Cache(tmp_path, 1000)
    with open(tmp_path / make_key("a"), "wb") as file:
        file.truncate(size)
    assert store.get(make_key("a"), memory=lambda n: pytest.fail("is read")) is None and os.listdir(tmp_path) == []


def test_many_writers(tmp_path):
    """Processes storing and reading the same keys: everybody reads whole entries only."""
    script = f"""
import sys
from pathlib import Path
from graphc.codegen.llvm.cache import Cache, make_key
store = Cache(Path({str(tmp_path)!r}), 1 << 20)
for k in range(300):
    key = make_key(str(k % 7))
    store.put(key, str(k % 7).encode() * 5000)
    assert store.get(key) in (None, str(k % 7).encode() * 5000)
"""
    env = dict(os.environ, PYTHONPATH=str(Path(__file__).parents[2]))
    processes = [subprocess.Popen([sys.executable, "-c", script], env=env) for _ in range(4)]
    assert [p.wait(60) for p in processes] == [0] * 4
