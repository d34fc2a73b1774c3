"""Machines that are not this one, simulated: compiled graphs are linked with driver.c and run there."""
from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from wasm_module import module

from graphc.build import Build
from graphc.codegen.abi import ENTRIES
from graphc.compiler import Compilation
from graphc.config import Config
from graphc.ir.graph import Graph
from graphc.runtime.executable import Program
from graphc.schedule.platforms import PLATFORMS
from graphc.schedule.target import Target

HERE = Path(__file__).parent
SECONDS = 300             # a busy machine is slow
STATUS_BYTES = 8


@dataclass(frozen=True)
class Machine:
    """`simulator`: what runs programs, with its options; `libm`: whether C's mathematical functions are there, which
    f64 needs; `subnormals`: whether f32 keeps them."""
    platform: str
    simulator: tuple[str, ...]
    libm: bool = field(default=True, kw_only=True)
    subnormals: bool = field(default=True, kw_only=True)

    @property
    def target(self) -> Target:
        return PLATFORMS[self.platform].baseline

    @property
    def tools(self) -> tuple[str, ...]:
        return (self.simulator[0],)

    def lacks(self) -> str:
        """What is not installed here; empty when all is there."""
        return ", ".join(tool for tool in self.tools if shutil.which(tool) is None)

    def run(self, program: Program, job: bytes) -> bytes:
        """The results of a job."""
        with tempfile.TemporaryDirectory() as folder:
            linked = Path(folder, "program")
            self.link(program, linked)
            return self.start(linked, job)

    def start(self, linked: Path, job: bytes) -> bytes:
        ran = subprocess.run([*self.simulator, str(linked)], input=job, capture_output=True, timeout=SECONDS)
        assert ran.returncode == 0, (ran.returncode, ran.stderr)
        return ran.stdout

    def link(self, program: Program, to: Path) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class WasmMachine(Machine):
    """An engine of WebAssembly."""

    def link(self, program: Program, to: Path) -> None:
        to.write_bytes(module(program.object_code, ENTRIES))


@dataclass(frozen=True)
class LinkedMachine(Machine):
    """`compiler`: a C compiler for it, with options; `sources`: of the driver."""
    compiler: tuple[str, ...]
    sources: tuple[str, ...] = ("driver.c", "hosted.c")
    libraries: tuple[str, ...] = ("-lm",)

    @property
    def tools(self) -> tuple[str, ...]:
        return (self.simulator[0], self.compiler[0])

    def link(self, program: Program, to: Path) -> None:
        code = to.with_suffix(".o")
        code.write_bytes(program.object_code)
        done = subprocess.run([*self.compiler, *self.driver(bool(program.derived)), str(code), "-o", str(to),
                               *self.libraries], capture_output=True, text=True, timeout=SECONDS)
        assert done.returncode == 0, done.stderr

    @cache
    def driver(self, prepares: bool) -> tuple[str, ...]:
        """The driver's object files, compiled once."""
        folder, made = _folder(), []
        for source in self.sources:
            made.append(str(Path(folder, f"{self.platform}.{prepares}.{source}.o")))
            done = subprocess.run([*self.compiler, "-std=c99", "-O1", *["-DPREPARE"] * prepares, "-c",
                                   str(HERE / source), "-o", made[-1]], capture_output=True, text=True, timeout=SECONDS)
            assert done.returncode == 0, done.stderr
        return tuple(made)


@dataclass(frozen=True)
class BareMachine(LinkedMachine):
    """A processor alone: job and results are files in the program's folder."""

    def start(self, linked: Path, job: bytes) -> bytes:
        linked.with_name("job").write_bytes(job)
        ran = subprocess.run([*self.simulator, linked.name], capture_output=True, timeout=SECONDS, cwd=linked.parent)
        assert ran.returncode == 0, (ran.returncode, ran.stderr)
        return linked.with_name("results").read_bytes()


@cache
def _folder() -> str:
    return tempfile.mkdtemp(prefix="graphc-targets-")


CORTEX_M4 = ("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16", "-nostartfiles", "-static",
             "-Wl,--build-id=none", f"-T{HERE / 'bare.ld'}")
BOARD = ("qemu-system-arm", "-M", "mps2-an386", "-nographic", "-monitor", "none", "-serial", "none",
         "-semihosting-config", "enable=on,target=native", "-kernel")
MACHINES = {m.platform: m for m in (
    LinkedMachine("aarch64-linux", ("qemu-aarch64",), ("aarch64-linux-gnu-gcc", "-static")),
    LinkedMachine("armv7-linux", ("qemu-arm",), ("arm-linux-gnueabihf-gcc", "-static"),
                  subnormals=False),
    LinkedMachine("riscv64-linux", ("qemu-riscv64",), ("riscv64-linux-gnu-gcc", "-static")),
    BareMachine("thumbv7em-none", BOARD, ("arm-none-eabi-gcc", *CORTEX_M4), ("driver.c", "bare.c")),
    WasmMachine("wasm32", ("node", str(HERE / "driver.js")), libm=False))}


@dataclass(frozen=True)
class Results:
    outputs: list[np.ndarray]
    state: list[np.ndarray]
    status: int


def built(graph: Graph, target: Target) -> Build:
    return Compilation(graph, target, Config()).build


def run_on(machine: Machine, graph: Graph, inputs: Sequence[np.ndarray], state: Sequence[np.ndarray] = (),
           runs: int = 1) -> Results:
    """What the graph's code for this machine computes there, from copies of the state."""
    program = built(graph, machine.target).program
    answer = machine.run(program, job_of(program, inputs, state, runs))
    return results_of(program, answer, state)


def job_of(program: Program, inputs: Sequence[np.ndarray], state: Sequence[np.ndarray], runs: int) -> bytes:
    """As driver.c reads it."""
    consts = [np.frombuffer(program.consts, np.uint8)] if len(program.consts) else []
    given = [*consts, *inputs], [np.ascontiguousarray(a) for a in state]
    outputs = [spec.type.nbytes for spec in program.signature.outputs]
    counts = [len(consts), len(inputs), len(outputs), len(state), len(program.derived)]
    nbytes = [*(a.nbytes for a in given[0]), *outputs, *(a.nbytes for a in given[1]), *program.derived]
    head = [runs, program.arena_bytes, program.scratch_bytes, len(program.sizes), int(bool(program.derived)), *counts,
            *program.sizes, *nbytes]
    return b"".join([np.array(head, np.int64).tobytes(), *(np.ascontiguousarray(a).tobytes() for part in given
                                                           for a in part)])


def results_of(program: Program, answer: bytes, state: Sequence[np.ndarray]) -> Results:
    """Of what driver.c writes."""
    at, found = STATUS_BYTES, []
    for dtype, shape in [*((s.type.dtype.np, s.type.shape) for s in program.signature.outputs),
                         *((a.dtype, a.shape) for a in state)]:
        array = np.frombuffer(answer, dtype, int(np.prod(shape, dtype=np.int64)), at).reshape(shape)
        found.append(array)
        at += array.nbytes
    assert at == len(answer)
    outputs = len(program.signature.outputs)
    return Results(found[:outputs], found[outputs:], int.from_bytes(answer[:STATUS_BYTES], "little", signed=True))
