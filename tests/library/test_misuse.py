"""What callers may do wrong: a status and a message, never a crash; and the instance is as before."""
from __future__ import annotations

import ctypes

import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim
from graphc.checkpoint import load_arrays, save_arrays
from graphc.runtime.instances import status
from graphc.doors.library.linking import linker

import networks
from exported import INT, POINTER, WORD, Instance
from test_same_bytes import state_bytes

pytestmark = pytest.mark.skipif(not linker(), reason="there is no C compiler to link a shared library")


@pytest.fixture
def net(trained):
    case, folder = trained
    return Instance(folder)


def arrays(trained):
    (_, (x, y)), = trained[0].batches(1)
    return x, y, np.zeros((), np.float32)


def test_memory(trained):
    _, folder = trained
    least = Instance(folder).bytes
    for nbytes in (0, 1, 64, 640, least // 2, least - 1):
        assert Instance(folder, nbytes=nbytes).status == status.MEMORY.code
    assert Instance(folder, nbytes=least).status == 0
    assert Instance(folder, nbytes=-5).status == status.MEMORY.code
    assert Instance(folder, nbytes=least, threads=64).status == status.MEMORY.code


@pytest.mark.parametrize("shift", [1, 8, 32])
def test_unaligned_memory(net, shift):
    there = POINTER(net.memory.ctypes.data + shift)
    assert net.of("init", INT, there, WORD(net.bytes - 64), INT(1)) == status.UNALIGNED.code
    assert net.of("step", INT, there, None, None, None) == status.UNALIGNED.code


def test_no_instance(net, trained):
    x, y, loss = arrays(trained)
    for pointer in (None, POINTER(np.zeros(4096, np.int64).ctypes.data // 64 * 64 + 64)):
        code = net.of("step", INT, pointer, *(POINTER(a.ctypes.data) for a in (x, y, loss)))
        assert code == status.UNREADY.code
        assert net.of("load", INT, pointer, None, WORD(0)) == status.UNREADY.code
        assert net.of("state", POINTER, pointer) is None
        assert net.of("message", ctypes.c_char_p, pointer) == b"there is no instance"
        assert net.of("parallel", INT, pointer, None, None) == status.UNREADY.code
    net.of("free", None, None)


def test_arguments(net, trained):
    x, y, loss = arrays(trained)
    before = net.state(state_bytes(trained[1]))
    for place in range(3):
        for wrong in (None, POINTER(x.ctypes.data + 1)):
            given = [POINTER(a.ctypes.data) for a in (x, y, loss)]
            given[place] = wrong
            assert net.of("step", INT, net.pointer, *given) == status.ARGUMENT.code
            assert f"argument {place}," in net.message
    assert net.state(len(before)) == before
    assert net.call("step", [x, y], [loss]) == 0 and net.message == ""


def test_weights(net, trained, tmp_path):
    size = state_bytes(trained[1])
    good = net.state(size)
    (tmp_path / "s").write_bytes(good)
    values = {name: a for name, a in load_arrays(tmp_path / "s").items() if not name.startswith("graphc.")}
    for cut in (0, 1, 7, 8, 9, 100, len(good) // 2, len(good) - 1):
        assert net.load(good[:cut]) == status.WEIGHTS.code
    other = {**values, "0.weight": values["0.weight"].astype(np.float64)}
    turned = {**values, "0.weight": values["0.weight"].T}
    lacking = {name: a for name, a in values.items() if name != "0.weight"}
    for wrong in (other, turned, lacking):
        save_arrays(tmp_path / "s", wrong)
        assert net.load((tmp_path / "s").read_bytes()) == status.WEIGHTS.code
        assert '"0.weight":{"dtype":"F32","shape":[32,5]' in net.message
    assert net.of("load", INT, net.pointer, None, WORD(1000)) == status.WEIGHTS.code
    assert net.load(b"\xff" * 8 + good[8:]) == status.WEIGHTS.code
    assert net.state(size) == good


def test_damaged_headers_read_nothing_astray(net, trained):
    """Bytes of the header replaced: offsets that lie, quotes that go missing. Each is refused or taken, and nothing
    crashes."""
    good, rng = bytearray(net.state(state_bytes(trained[1]))), np.random.default_rng(0)
    length = int.from_bytes(good[:8], "little")
    for _ in range(300):
        bad = bytearray(good)
        for place in rng.integers(0, length + 8, 1 + rng.integers(4)):
            bad[place] = rng.integers(256) if rng.random() < 0.5 else ord("9")
        assert net.load(bytes(bad)) in (0, status.WEIGHTS.code)


def test_sizes(sized):
    n, table = Instance(sized, "look", sizes=(32,)), np.ones((10, 4), np.float32)
    for count in (2, 32, 7):
        ids, out = np.arange(count, dtype=np.int32) % 10, np.zeros((count, 4), np.float32)
        assert n.call("run", [table, ids], [out], (count,)) == 0 and (out == 2).all()
    ids, out = np.zeros(65, np.int32), np.zeros((65, 4), np.float32)
    for count in (0, 1, 65, -1, 1 << 62, -(1 << 63)):
        assert n.call("run", [table, ids], [out], (count,)) == status.SIZE.code and "bounds" in n.message
        assert n.of("memory", WORD, WORD(count), INT(1)) == 0
        assert n.of("create", POINTER, WORD(count), INT(1)) is None


def test_indices(sized):
    n, table = Instance(sized, "look", sizes=(8,)), np.ones((10, 4), np.float32)
    ids, out = np.array([0, 3, -1, 10], np.int32), np.zeros((4, 4), np.float32)
    ids[2] = 77
    assert n.call("run", [table, ids], [out], (4,)) == status.INDEX.code
    assert n.message.startswith("embedding got id 10, which is out of range: there are 10 rows") and n.index == 10
    assert "return gc.embedding(table, ids) * 2" in n.message and "conftest.py:" in n.message


def test_a_failed_step_leaves_the_state(tmp_path):
    step = gc.train_step(nn.Linear(3), loss=nn.cross_entropy, optimizer=optim.SGD(0.1), x=gc.f32[4, 2], y=gc.i32[4],
                         seed=0)
    gc.export(step, tmp_path, targets=networks.here())
    n, x, y, loss = Instance(tmp_path), np.ones((4, 2), np.float32), np.array([0, 1, 2, 3], np.int32), np.zeros(())
    before = n.state(state_bytes(tmp_path))
    assert n.call("step", [x, y], [loss.astype(np.float32)]) == status.INDEX.code and n.index == 3
    assert n.state(len(before)) == before


def test_workers_that_there_are_not(trained):
    _, folder = trained
    n = Instance(folder, threads=2)
    task = ctypes.CFUNCTYPE(None, POINTER, WORD, INT)
    loop = ctypes.CFUNCTYPE(None, POINTER, task, POINTER, WORD)
    x, y, loss = arrays(trained)
    for worker, code in ((0, 0), (1, 0), (2, status.WORKER.code), (-1, status.WORKER.code)):
        own = loop(lambda _, task, job, tiles: [task(job, t, worker) for t in range(tiles)] and None)
        assert n.of("parallel", INT, n.pointer, own, None) == 0
        found = n.call("step", [x, y], [loss])
        assert found in (0, code)           # a small network has no parallel loop
