"""The peak of the machine in fused multiply-adds and in memory traffic, measured by generated loops that contain
nothing else.
"""
from __future__ import annotations

import time
from functools import cache

import numpy as np

from graphc.codegen.llvm import jit
from graphc.codegen.llvm.emit import emit_module, scratch_bytes
from graphc.codegen.llvm.host import host_target
from graphc.codegen.loops.builder import LoopFunction
from graphc.ir.dims import static_dim
from graphc.ir.types import TensorType, f32
from graphc.records import dataclass
from graphc.runtime.executable import Executable, Program
from graphc.runtime.signature import ArraySpec, Signature

CHAINS = 12                     # independent accumulators: latency 4 cycles, two units
TRIPS = 200_000
TILES = 64
REPEATS = 12
READ_TILE, CHAINS_READ = 1 << 15, 8     # elements of a tile; vectors in flight


@dataclass(frozen=True)
class Probe:
    """A generated loop that does nothing but arithmetic or traffic; `work`: floating-point operations or bytes of one
    run.
    """
    executable: Executable
    inputs: tuple[np.ndarray, ...]
    output: np.ndarray
    work: float

    def rate(self, seconds: float = 0.0) -> float:
        """10^9 operations or bytes a second, of runs from now on for at least so long."""
        runs, start = 0, time.perf_counter()
        while not runs or time.perf_counter() - start < seconds:
            self.executable.run(self.inputs, [self.output])
            runs += 1
        return runs * self.work / (time.perf_counter() - start) / 1e9

    def best(self) -> float:
        """The best of several runs: on a shared machine, what it gives at its quietest."""
        return max(self.rate() for _ in range(REPEATS))


@cache
def fma_peak(threads: int) -> float:
    """GF/s of f32 fused multiply-adds on all threads together."""
    return fma_probe(threads).best()


@cache
def copy_rate(threads: int, mbytes: int = 64) -> float:
    """GB/s (read and written) of copying a large array into an existing one."""
    return copy_probe(threads, mbytes).best()


@cache
def fma_probe(threads: int) -> Probe:
    """f32 fused multiply-adds."""
    lanes = host_target().lanes(4)
    return Probe(_executable(_fma_program(lanes), threads), (), np.zeros(TILES * lanes, np.float32),
                 2.0 * lanes * CHAINS * TRIPS * TILES)


@cache
def copy_probe(threads: int, mbytes: int) -> Probe:
    """Copying an array into an existing one: bytes read and written."""
    n = mbytes * (1 << 20) // 4
    x, y = np.ones(n, np.float32), np.zeros(n, np.float32)
    return Probe(_executable(_copy_program(n, host_target().lanes(4)), threads, n), (x,), y, 2.0 * x.nbytes)


@cache
def read_probe(threads: int, mbytes: float) -> Probe:
    """Reading an array from first to last, again and again: from the caches if they hold it."""
    n, lanes = int(mbytes * (1 << 20)) // 4, host_target().lanes(4)
    x, sums = np.ones(n, np.float32), np.zeros(n // READ_TILE * lanes, np.float32)
    return Probe(_executable(_read_program(n, lanes), threads, n, sums.size), (x,), sums, float(x.nbytes))


def _read_program(n: int, lanes: int) -> LoopFunction:
    main = LoopFunction("main")
    x, y = main.buffer("input", 0, 0, f32, (n,)), main.buffer("output", 0, 0, f32, (n // READ_TILE * lanes,))
    chunk = CHAINS_READ * lanes
    with main.parallel(n // READ_TILE, "tiles") as t:
        with main.loop(0, READ_TILE // chunk, carry=(main.const(0.0, f32, lanes),) * CHAINS_READ) as loop:
            at = t * READ_TILE + loop.index * chunk
            loop.next(*(a + main.load(x, [at + i * lanes], lanes) for i, a in enumerate(loop.carried)))
        total = loop.results[0]
        for a in loop.results[1:]:
            total = total + a
        main.store(y, [t * lanes], total)
    return main


def _fma_program(lanes: int) -> LoopFunction:
    main = LoopFunction("main")
    out = main.buffer("output", 0, 0, f32, (TILES * lanes,))
    with main.parallel(TILES, "tiles") as t:
        one = main.const(1.0 + 2.0 ** -20, f32, lanes)
        start = tuple(main.const(float(i), f32, lanes) for i in range(CHAINS))
        with main.loop(0, TRIPS, carry=start) as loop:
            loop.next(*(main.fma(a, one, one) for a in loop.carried))
        total = loop.results[0]
        for a in loop.results[1:]:
            total = total + a
        main.store(out, [t * lanes], total)
    return main


def _copy_program(n: int, lanes: int) -> LoopFunction:
    main = LoopFunction("main")
    x, y = main.buffer("input", 0, 0, f32, (n,)), main.buffer("output", 0, 0, f32, (n,))
    tile = 1 << 16
    with main.parallel(n // tile, "tiles") as t:
        with main.loop(0, tile, lanes, unroll=4) as loop:
            at = t * tile + loop.index
            main.store(y, [at], main.load(x, [at], lanes))
    return main


def _executable(main: LoopFunction, threads: int, inputs: int = 0, outputs: int = 0) -> Executable:
    target = host_target()
    out = outputs or inputs or TILES * target.lanes(4)
    spec = lambda name, n: ArraySpec(name, TensorType(f32, (n,)))
    signature = Signature((spec("x", inputs),) * bool(inputs), (spec("y", out),), "array", "peak")
    code = jit.compile_object(emit_module([], main, target), target)
    return Executable(Program(code, signature, 0, static_dim(scratch_bytes([], main))), threads)
