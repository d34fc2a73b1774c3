"""Code for Windows, called as Windows calls it, gives the bits of code for Linux."""
from __future__ import annotations

import ctypes
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from coff import Loaded

import graphc as gc
from graphc import nn, optim
from graphc.codegen import abi
from graphc.codegen.llvm.host import can_run
from graphc.codegen.llvm.jit import compile_object
from graphc.compiler import Compilation
from graphc.runtime.executable import Executable
from graphc.runtime.lock import StateLock
from graphc.schedule.platforms import PLATFORMS
from graphc.schedule.target import TARGETS

sys.path.insert(0, str(Path(__file__).parent.parent / "codegen"))
from loop_run import PARALLEL  # noqa: E402

SETS = [pytest.param(t, id=t.name, marks=pytest.mark.skipif(not can_run(TARGETS[t.name]), reason="not this CPU"))
        for t in PLATFORMS["x86_64-windows"].instruction_sets]


def aligned(nbytes):
    raw = np.zeros(nbytes + 64, np.uint8)
    return raw[-raw.ctypes.data % 64:][:nbytes]


def pointers(arrays):
    return (ctypes.c_void_p * max(1, len(arrays)))(*[a.ctypes.data for a in arrays])


def run_windows(program, text, target, inputs, state):
    """Outputs; the state changes."""
    derived = [aligned(nbytes) for nbytes in program.derived]
    loaded = Loaded(compile_object(text + PARALLEL, target))
    outputs = [np.empty(s.type.shape, s.type.dtype.np) for s in program.signature.outputs]
    consts = aligned(len(program.consts))
    consts[:] = np.frombuffer(program.consts, np.uint8)
    memory = [aligned(program.arena_bytes), aligned(program.scratch_bytes), consts]
    tables = [pointers(a) for a in (inputs, outputs, [*state, *derived])]
    fields = dict(parallel=loaded.address("test.parallel"), threads=1, arena=memory[0].ctypes.data,
                  scratch=memory[1].ctypes.data, consts=consts.ctypes.data, status=abi.STATUS_OK,
                  **{name: ctypes.addressof(t) for name, t in zip(("inputs", "outputs", "state"), tables)})
    context = (ctypes.c_int64 * len(abi.FIELDS))(*[fields.get(name, 0) for name in abi.FIELDS])
    for entry in abi.ENTRIES[::-1] if derived else (abi.MAIN,):
        assert loaded.call(entry, ctypes.addressof(context)) == abi.RETURN_OK
    return outputs


@pytest.mark.parametrize("target", SETS)
def test_a_training_step_for_windows(target):
    net = nn.Sequential(nn.Linear(256), gc.tanh, nn.Linear(128), nn.relu, nn.Linear(10))
    step = gc.train_step(net, loss=nn.cross_entropy, optimizer=optim.SGD(0.05, momentum=0.9), x=gc.f32[64, 96],
                         y=gc.i32[64])
    r = np.random.default_rng(0)
    inputs = [r.standard_normal((64, 96)).astype(np.float32), r.integers(0, 10, 64).astype(np.int32)]
    states = [[np.array(step.state[v.name]) for v in step.graph.state] for _ in range(2)]
    linux = Compilation(step.graph, replace(target, triple=TARGETS[target.name].triple))
    program = linux.build.program
    found = run_windows(program, Compilation(step.graph, target).llvm, target, inputs, states[0])
    executable = Executable(program, 1, states[1], StateLock())
    expected = [np.empty_like(a) for a in found]
    executable.run(inputs, expected, 1)
    for a, b in zip((*found, *states[0]), (*expected, *executable.state.arrays)):
        assert a.tobytes() == b.tobytes()
