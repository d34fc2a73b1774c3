"""Exported libraries on processors that are not this one: they train as this process does, and with four threads they
give the bits that they give with one."""
from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from machines import HERE, MACHINES, SECONDS, LinkedMachine

import graphc as gc
from graphc import nn, optim

LINKED = [name for name, machine in MACHINES.items() if isinstance(machine, LinkedMachine)]
STEPS, BATCH, CLASSES, LOSS_ULP = 10, 8, 10, 8


def new_step():
    net = nn.Sequential(nn.Linear(256), gc.tanh, nn.Linear(16), nn.relu, nn.Linear(CLASSES))
    return gc.train_step(net, loss=nn.cross_entropy, optimizer=optim.SGD(0.05, momentum=0.9), x=gc.f32[BATCH, 64],
                         y=gc.i32[BATCH])


ENTRIES = ("net_memory", "net_init", "net_step", "net_predict")


def trained_by(machine, folder, job):
    """Losses and prediction."""
    linked = folder / "program"
    sources = [str(HERE / source) for source in ("library_driver.c", machine.sources[1])]
    done = subprocess.run([*machine.compiler, "-std=c99", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{folder}", *sources,
                           str(folder / "libnet.a"), "-o", str(linked), "-lm"], capture_output=True, text=True,
                          timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    return np.frombuffer(machine.start(linked, job), np.float32)


def trained_by_script(folder, job):
    """Losses and prediction of a module of WebAssembly, called by JavaScript."""
    found = shutil.which("wasm-ld")
    linker = [found] if found else [sys.executable, "-m", "ziglang", "wasm-ld"]
    module = folder / "net.wasm"
    done = subprocess.run([*linker, "--no-entry", *(f"--export={name}" for name in ENTRIES), str(folder / "libnet.a"),
                           "-o", str(module)], capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    ran = subprocess.run(["node", str(HERE / "library.js"), str(module)], input=job, capture_output=True,
                         timeout=SECONDS)
    assert ran.returncode == 0, (ran.returncode, ran.stderr)
    return np.frombuffer(ran.stdout, np.float32)


@pytest.mark.parametrize("platform", LINKED)
def test_a_library_trains_as_this_process_does(platform, tmp_path):
    machine = MACHINES[platform]
    if lacking := machine.lacks():
        pytest.skip(f"{lacking} not installed")
    trains(platform, tmp_path, lambda job: trained_by(machine, tmp_path, job))


def test_a_linked_module_of_webassembly_trains(tmp_path):
    """By a linker for it, of the archive alone: nothing is imported."""
    if shutil.which("node") is None or not (shutil.which("wasm-ld") or find_spec("ziglang")):
        pytest.skip("node, or wasm-ld and ziglang, not installed")
    trains("wasm32", tmp_path, lambda job: trained_by_script(tmp_path, job))


def trains(platform, folder, trained):
    """As this process, with one thread and with four."""
    step, rng = new_step(), np.random.default_rng(0)
    x = rng.standard_normal((BATCH, 64)).astype(np.float32)
    y = rng.integers(0, CLASSES, BATCH).astype(np.int32)
    predict = gc.compile(step.model, x=gc.f32["B", 64])
    gc.export({"step": step, "predict": predict}, folder, name="net", targets=platform)
    one, four = (trained(np.int32(n).tobytes() + x.tobytes() + y.tobytes()) for n in (1, 4))
    assert one.tobytes() == four.tobytes()
    losses = np.array([step(x, y) for _ in range(STEPS)], np.float32)
    np.testing.assert_allclose(one[:STEPS], losses, rtol=LOSS_ULP * np.finfo(np.float32).eps)
    np.testing.assert_allclose(one[STEPS:].reshape(BATCH, CLASSES), predict(x), rtol=1e-5, atol=1e-6)
