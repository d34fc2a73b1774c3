"""Archives for Apple's and for Microsoft's linker, read back: their tables lead from each symbol to its object."""
from __future__ import annotations

import shutil
import struct
import subprocess

import pytest
from macho import ADDEND, BRANCH, UNSIGNED, MachObject

import graphc as gc
from graphc import nn, optim
from graphc.doors.library.archive import HEAD_BYTES, MAGIC

MACH_O, COFF = b"\xcf\xfa\xed\xfe", b"\x64\x86"


@gc.graph
def double(x: gc.f32[8]):
    return x * 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("archives")
    gc.export(double, made, name="net", targets=["aarch64-macos", "x86_64-windows", "aarch64-linux", "wasm32"])
    return made


def members(data):
    """(name field, where its header begins, content)."""
    at = len(MAGIC)
    assert data[:at] == MAGIC
    while at < len(data):
        size = int(data[at + 48:at + 58])
        assert data[at + 58:at + HEAD_BYTES] == b"`\n"
        yield data[at:at + 16].decode().strip(), at, data[at + HEAD_BYTES:at + HEAD_BYTES + size]
        at += HEAD_BYTES + size + size % 2


def test_apples_archive(folder):
    data = (folder / "aarch64-macos" / "libnet.a").read_bytes()
    found = {}
    for name, at, content in members(data):
        length = int(name.removeprefix("#1/"))
        assert (at + HEAD_BYTES + length) % 8 == 0
        found[at] = content[:length].rstrip(b"\0").decode(), content[length:]
    (_, table), *objects = found.values()
    assert len(objects) == 4 and all(content.startswith(MACH_O) for _, content in objects)
    rows, = struct.unpack_from("<I", table)
    names = table[8 + rows:]
    symbols = {}
    for start, at in struct.iter_unpack("<II", table[4:4 + rows]):
        symbols[names[start:names.index(b"\0", start)].decode()] = found[at][0]
    assert symbols["_net_run"] == "library.o" and symbols["_net_create"] == "create.o"
    assert symbols["_net_run_neon"] == "run.neon.o"


LIBC = {"_memcpy", "_memset", "_memcmp", "_bzero", "_posix_memalign", "_free", "___bzero", "_memset_pattern16"}
LIBM = {"_tanhf", "_expf", "_logf", "_powf", "_sqrt", "_pow", "_exp", "_log"}


def apples_objects(archive):
    """The objects of an archive, by name."""
    found = {}
    for name, _, content in members(archive.read_bytes()):
        length = int(name.removeprefix("#1/"))
        found[content[:length].rstrip(b"\0").decode()] = content[length:]
    return {name: MachObject(content) for name, content in found.items() if content.startswith(MACH_O)}


def test_objects_for_macos(tmp_path):
    """As Apple's linker reads them: sections lie in the file, symbols in sections, relocations are of the kinds that
    arm64 has and stand on instructions that take them, and calls lead to code."""
    net = nn.Conv2d(4, 3) >> nn.relu >> nn.Dropout(0.1) >> nn.Flatten() >> nn.Linear(32) >> nn.tanh >> nn.Linear(10)
    step = gc.train_step(net, loss=nn.cross_entropy, optimizer=optim.Adam(1e-3), x=gc.f32[8, 1, 8, 8], y=gc.i32[8])
    gc.export({"step": step, "predict": gc.compile(step.model, x=gc.f32["B", 1, 8, 8])}, tmp_path, name="net",
              targets="aarch64-macos")
    objects = apples_objects(tmp_path / "libnet.a")
    assert {"library.o", "create.o", "step.neon.o", "predict.neon.o"} <= set(objects)
    defined = {s.name: (o, s) for o in objects.values() for s in o.symbols if s.defined and s.kind & 1}
    assert sum(s.defined and s.kind & 1 for o in objects.values() for s in o.symbols) == len(defined)
    wanted = {s.name for o in objects.values() for s in o.symbols if not s.defined} - set(defined)
    assert wanted <= LIBC | LIBM, wanted
    assert all(name.startswith("_net_") for name, (_, s) in defined.items() if s.visible)
    kinds = set()
    for each in objects.values():
        assert each.minimum >= 11 << 16                 # of macOS, from which on there are Arm processors
        for section in each.sections:
            for _, target, kind, size in each.relocations(section):
                kinds.add(kind)
                assert size == (3 if kind in (UNSIGNED, 1) else 2)
                home, symbol = defined.get(getattr(target, "name", ""), (each, target))
                if kind == BRANCH and symbol.name not in wanted:
                    assert home.sections[symbol.section - 1].holds_code, symbol
    assert BRANCH in kinds and len(kinds - {ADDEND}) >= 4


def test_microsofts_archive(folder):
    (first, _, table), _, *objects = members((folder / "x86_64-windows" / "net.lib").read_bytes())
    assert first == "/" and len(objects) == 6 and all(content.startswith(COFF) for *_, content in objects)
    count = int.from_bytes(table[:4], "big")
    places = struct.unpack_from(f">{count}I", table, 4)
    assert set(places) <= {at for _, at, _ in objects} and b"net_run\0" in table


def test_others_read_them(folder):
    if shutil.which("llvm-nm") is None:
        pytest.skip("llvm-nm not installed")
    for path in (*folder.rglob("*.a"), *folder.rglob("*.lib")):
        done = subprocess.run(["llvm-nm", "--print-armap", str(path)], capture_output=True, text=True)
        assert done.returncode == 0 and "net_create in create.o" in done.stdout, done.stderr
