"""Object code for every platform, without any of their tools: its format, its size, what it asks of a C library."""
from __future__ import annotations

import re
from functools import cache

import pytest

import graphc as gc
from graphc import nn, optim
from graphc.cli import main
from graphc.codegen.llvm.jit import compile_object
from graphc.compiler import Compilation
from graphc.errors import GraphError
from graphc.schedule.platforms import PLATFORMS
from graphc.schedule.target import TARGETS, Target

MAGIC = {"elf": b"\x7fELF", "wasm": b"\0asm", "coff": b"\x64\x86", "macho": b"\xcf\xfa\xed\xfe"}
SETS = [pytest.param(p, t, id=f"{p.name}-{t.name}") for p in PLATFORMS.values() for t in p.instruction_sets]
KB = 1 << 10


@cache
def mlp():
    net = nn.Sequential(nn.Linear(32), gc.tanh, nn.Linear(16), nn.relu, nn.Linear(10))
    return gc.train_step(net, loss=nn.cross_entropy, optimizer=optim.Adam(1e-3), x=gc.f32[8, 64], y=gc.i32[8]).graph


@cache
def lenet():
    net = nn.Sequential(
        nn.Conv2d(6, 5, padding=2), nn.relu, nn.MaxPool2d(2), nn.Conv2d(16, 5), nn.relu, nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(120), nn.relu, nn.Linear(84), nn.relu, nn.Linear(10))
    return gc.train_step(net, loss=nn.cross_entropy, optimizer=optim.Adam(1e-3), x=gc.f32[4, 1, 28, 28],
                         y=gc.i32[4]).graph


def compiled(graph, target: Target) -> bytes:
    return compile_object(Compilation(graph, target).llvm, target)


@pytest.mark.parametrize("system, target", SETS)
def test_a_training_step_is_object_code_of_the_system(system, target):
    code = compiled(mlp(), target)
    assert code.startswith(MAGIC[system.object_format]) and len(code) < 64 * KB
    text = Compilation(mlp(), target).llvm
    assert not re.search(r"\basm\b", text) and ("preserve_allcc" not in text or target.can_preserve_registers)


def test_a_cortex_m4_trains_in_little_code():
    """Symbols and relocations included."""
    target = PLATFORMS["thumbv7em-none"].baseline
    assert len(compiled(mlp(), target)) < 16 * KB and len(compiled(lenet(), target)) < 64 * KB


def test_lenet_is_small_everywhere():
    for name in ("x86_64-linux", "aarch64-linux", "armv7-linux", "wasm32"):
        assert len(compiled(lenet(), PLATFORMS[name].instruction_sets[-1])) < 128 * KB, name


def test_without_threads_there_are_no_atomic_words_nor_tiles_for_others():
    for each in PLATFORMS.values():
        text = Compilation(mlp(), each.baseline).llvm
        atomic = re.search(r"\batomic|cmpxchg", text) is not None
        assert atomic == each.baseline.has_threads, each.name
        assert each.baseline.has_threads or "%frame" not in text


def test_indices_are_as_wide_as_pointers():
    for each in PLATFORMS.values():
        widths = set(re.findall(r"phi (i\d+)", Compilation(mlp(), each.baseline).llvm))
        assert widths <= {f"i{each.baseline.pointer_bits}", "i1"}, each.name


def test_programs_for_others_leave_those_for_this_machine_alone():
    """The target is an argument, not a state of the process."""
    before = Compilation(mlp()).llvm
    for each in PLATFORMS.values():
        Compilation(mlp(), each.baseline).text("llvm")
    assert Compilation(mlp()).llvm == before


def test_targets_of_this_process_are_those_of_the_platforms():
    """One entry for one instruction set."""
    known = {t.name: t for t in TARGETS.values()}
    for each in (PLATFORMS["x86_64-linux"], PLATFORMS["aarch64-linux"]):
        assert all(known[t.name] is t for t in each.instruction_sets)


def test_code_for_others_is_printed(tmp_path, capsys):
    path = tmp_path / "model.py"
    path.write_text("import graphc as gc\n\n\n@gc.graph\ndef f(x: gc.f32[8]):\n    return x * 2\n")
    assert main(["dump", f"{path}:f", "--stage", "asm", "--target", "cortex-m4"]) == 0
    assert ".fpu\tfpv4-sp-d16" in capsys.readouterr().out


def test_memory_beyond_what_pointers_reach():
    @gc.graph
    def large(x: gc.f32[1 << 29]):
        return x + 1
    with pytest.raises(GraphError, match="takes 4.0 GB of memory.*cortex-m4 reaches 2.0 GB"):
        Compilation(large.graph, PLATFORMS["thumbv7em-none"].baseline).text("llvm")
