"""Whoever writes a user's file: links, modes, long names, special files, failures and kills, for every door that saves something."""
from __future__ import annotations

import ast
import os
import signal
import stat
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc import checkpoint, cli, nn, optim, replacing
from graphc.profile import Profile
from graphc.train import TrainStep

PACKAGE = Path(gc.__file__).parent


@gc.graph
def double(x: gc.f32[4]):
    return x * 2


@cache
def step() -> TrainStep:
    return gc.train_step(nn.Linear(2), loss=nn.mse, optimizer=optim.SGD(0.1), x=gc.f32[2, 3], y=gc.f32[2, 2])


def run_command(path):
    """The command line names its files itself: `y.npy` in a folder."""
    text = path.parent / "graph.txt"
    text.write_text('graph g(x: f32[3]) {\n  %0 = mul(x, x) : f32[3]\n  return {' + path.stem + ': %0}\n}\n')
    assert cli.main(["run", str(text), "--out", str(path.parent)]) == 0
    text.unlink()


DOORS = {                                   # whoever saves something -> the suffix that it wants
    "checkpoint": (lambda path: checkpoint.save_arrays(path, {"a": np.arange(3.0)}), ".safetensors"),
    "step.save": (lambda path: step().save(path), ".safetensors"),
    "draw": (lambda path: gc.draw(double, path), ".dot"),
    "profile": (lambda path: Profile((), 1.0, 1.0, 1, 1.0, 1.0).save(path), ".svg"),
    "graphc run": (run_command, ".npy"),
}


@pytest.fixture(params=DOORS)
def door(request, tmp_path):
    save, suffix = DOORS[request.param]
    return save, tmp_path / ("saved" + suffix)


@pytest.fixture(params=["unnamed", "named", "never named"])
def kind(request, monkeypatch):
    """File systems with files that have no name yet, without, and with such as get none."""
    if request.param == "named":
        monkeypatch.setattr(replacing, "UNNAMED", 0)
    if request.param == "never named":
        monkeypatch.setattr(os, "link", lambda *args, **kwargs: (_ for _ in ()).throw(PermissionError(1, "not permitted")))
    return request.param


def mode(path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.fixture
def umask():
    old = os.umask(0o027)
    yield
    os.umask(old)


def test_new_files_have_the_mode_of_new_files(door, kind, umask):
    save, path = door
    save(path)
    assert mode(path) == 0o640 and path.stat().st_size and os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("bits", [0o644, 0o600, 0o664, 0o755])
def test_files_keep_their_mode(door, kind, umask, bits):
    save, path = door
    path.write_text("old")
    path.chmod(bits)
    save(path)
    assert mode(path) == bits and path.read_bytes() != b"old" and os.listdir(path.parent) == [path.name]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_files_keep_their_owner(door, kind):
    save, path = door
    path.write_text("old")
    os.chown(path, 1234, 4321)
    path.chmod(0o640)
    save(path)
    info = path.stat()
    assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (1234, 4321, 0o640)


@pytest.mark.parametrize("there", [True, False])
def test_links_stay(door, kind, tmp_path, there):
    """Also over two folders, and where what they lead to is not there yet."""
    save, path = door
    (tmp_path / "real").mkdir()
    real = tmp_path / "real" / "target"
    if there:
        real.write_text("old")
    (tmp_path / "real" / "middle").symlink_to("target")
    path.symlink_to(Path("real") / "middle")
    save(path)
    assert path.is_symlink() and (tmp_path / "real" / "middle").is_symlink() and real.read_bytes() not in (b"", b"old")
    assert sorted(os.listdir(real.parent)) == ["middle", "target"]


@pytest.mark.parametrize("length", [240, 241, 250, 255])
def test_long_names(door, kind, length):
    save, path = door
    path = path.with_name("n" * (length - len(path.suffix)) + path.suffix)
    save(path)
    save(path)
    assert path.stat().st_size and os.listdir(path.parent) == [path.name]


def test_what_is_no_file_is_written_to(door):
    save, path = door
    os.mkfifo(path)
    read = []
    reader = threading.Thread(target=lambda: read.append(path.read_bytes()), daemon=True)
    reader.start()
    save(path)
    reader.join(20)
    assert read[0] and stat.S_ISFIFO(path.stat().st_mode)


def test_a_failure_leaves_what_was_there(door, kind, monkeypatch):
    save, path = door
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "disk full")))
    with pytest.raises((OSError, AssertionError)):          # the command line prints it
        save(path)
    monkeypatch.undo()
    (path.parent / "graph.txt").unlink(missing_ok=True)
    assert path.read_text() == "old" and os.listdir(path.parent) == [path.name]


def test_interrupts_leave_what_was_there(tmp_path, kind):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        with replacing.replacing(path) as file:
            file.write(b"new")
            raise KeyboardInterrupt
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file"]


def test_many_writers(tmp_path, kind):
    """Whoever reads finds the whole of what one of them wrote."""
    path = tmp_path / "file"
    arrays = {"a": np.arange(5000.0)}
    checkpoint.save_arrays(path, arrays)
    writers = [threading.Thread(target=lambda n=n: [checkpoint.save_arrays(path, {"a": arrays["a"] + n}) for _ in range(40)]) for n in range(3)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        found = checkpoint.load_arrays(path)["a"] - arrays["a"]
        assert found[0] in range(3) and (found == found[0]).all()
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("unnamed", [True, False])
def test_a_kill_leaves_nothing(tmp_path, unnamed):
    """Not even while it writes, where the system has files without a name; elsewhere the next one to save cleans up."""
    path = tmp_path / "file"
    path.write_text("old")
    script = f"""
import sys, time
from graphc import replacing
replacing.UNNAMED *= {unnamed}
with replacing.replacing({str(path)!r}) as file:
    file.write(bytes(1 << 20))
    print("writing", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=dict(os.environ, PYTHONPATH=str(PACKAGE.parent))) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    left = [p for p in tmp_path.iterdir() if p != path]
    assert path.read_text() == "old" and len(left) <= (not unnamed or not replacing.UNNAMED)
    for p in left:
        replacing.write_file(path, "new")
        assert p.exists()                               # it may be another's who is still writing
        os.utime(p, (1000, 1000))
    (tmp_path / ".graphc.other.part").write_text("")    # names that are not of this file's writers stay
    replacing.write_file(path, "newer")
    assert path.read_text() == "newer" and sorted(os.listdir(tmp_path)) == [".graphc.other.part", "file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to all files")
def test_protected_files_stay(door):
    save, path = door
    path.write_text("old")
    path.chmod(0o444)
    with pytest.raises((OSError, AssertionError)):
        save(path)
    assert path.read_text() == "old"


def test_errors_name_the_users_file(tmp_path, kind):
    with pytest.raises(FileNotFoundError, match="missing/file"):
        replacing.write_file(tmp_path / "missing" / "file", "")
    with pytest.raises(IsADirectoryError, match=tmp_path.name):
        replacing.write_file(tmp_path, "")


def test_outputs_stay_in_their_folder(tmp_path, capsys):
    (tmp_path / "inside").mkdir()
    (tmp_path / "g.txt").write_text('graph g(x: f32[3]) {\n  %0 = mul(x, x) : f32[3]\n  return {"../outside": %0}\n}\n')
    assert cli.main(["run", str(tmp_path / "g.txt"), "--out", str(tmp_path / "inside")]) == 1
    assert "../outside" in capsys.readouterr().err and sorted(os.listdir(tmp_path)) == ["g.txt", "inside"]


WRITERS = ("write_text", "write_bytes", "savefig", "save_file", "mkstemp", "tofile")
ALLOWED = {"doors/library/export.py: write_bytes",         # objects for the linker, in a temporary folder
           "roofline_figure.py: savefig",               # into memory
           "passes/pipeline.py: write_text",            # dumps of every pass for whoever debugs: many, and worth nothing tomorrow
           "cli_answers.py: open"}                      # /dev/null


def test_every_writer_goes_through_it():
    """No part of graphc writes a file in another way; the cache has files of its own, which no user names."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        if name in ("replacing.py", "codegen/llvm/cache.py"):
            continue
        for call in (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)):
            last = getattr(call.func, "attr", getattr(call.func, "id", ""))
            if last not in (*WRITERS, "save", "savez", "open", "fdopen"):
                continue
            text, first = ast.unparse(call.func), ast.unparse(call.args[0]) if call.args else ""
            if last in WRITERS and first != "file" or text in ("np.save", "np.savez") and first != "file":
                found.add(f"{name}: {last}")
            others = [ast.unparse(a) for a in (*call.args[1:], *(k.value for k in call.keywords))]
            if text in ("open", "os.open", "os.fdopen") and any("w" in a or "WR" in a for a in others):
                found.add(f"{name}: {last}")
    assert found <= ALLOWED, found - ALLOWED
