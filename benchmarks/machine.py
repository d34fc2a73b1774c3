"""python -m benchmarks machine: the fields of `graphc.schedule.machine.Machine` for the CPU it runs on: what schedules
assume, beside what is measured."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from time import perf_counter

import numpy as np

import graphc as gc
from graphc.codegen.llvm import jit
from graphc.codegen.llvm.emit import emit_module, scratch_bytes
from graphc.codegen.llvm.host import detected_target, host_target
from graphc.codegen.loops.builder import LoopFunction
from graphc.ir.ops.elementwise import ROWS
from graphc.ir.types import TensorType, f32
from graphc.peak import copy_rate, fma_peak, read_probe
from graphc.runtime.executable import Executable, Program
from graphc.runtime.signature import ArraySpec, Signature
from graphc.schedule.target import Target

CHAIN, TILE_CHAIN = 200_000, 20_000         # dependent multiply-adds
DOTS = 16                                   # sums side by side: more than begin before the first ends
MAX_TILES = 1024
# elements of arrays that stay in L1: a call on one, less a call on the other, is the loop alone
LONG, SHORT = 4096, 64
REPEATS = 300


def exponentials(x):
    return gc.exp(x)


def lookups(x, i):
    return gc.take(x, i)


def main(threads: int) -> None:
    """Peak and copy rate, then the fields."""
    print(f"{threads} threads: {fma_peak(threads):.1f} GF/s f32, copy {copy_rate(threads):.1f} GB/s")
    target = detected_target()
    found = measured(target, threads)
    print(f"{target.name}    assumed, measured")
    for field in fields(target.machine):
        value = f"{found[field.name]:>12.4g}" if field.name in found else ""
        print(f"  {field.name:24}{getattr(target.machine, field.name):>12,}{value}".rstrip())


def measured(target: Target, threads: int) -> dict[str, float]:
    """The clock is that of a chain of multiply-adds, whose latency is documented; the other figures are in its
    cycles."""
    machine, lanes, mega = target.machine, target.lanes(f32.itemsize), 1 << 20
    clock = CHAIN * machine.fma_latency / seconds(_run(_chain(lanes), 1)) / 1e9
    index = np.arange(LONG, dtype=np.int32)[::-1].copy()
    exp, lookup = per_element(exponentials), per_element(lookups, index)
    dots = {"bf16_dots_per_cycle": DOTS * TILE_CHAIN / seconds(_run(_dots(lanes), 1)) / 1e9 / clock}
    return {
        **(dots if target.has_bf16_dot else {}),
        "clock_ghz": clock, "handover_ns": handover_ns(threads), "fma_per_cycle": fma_peak(1) / (2 * lanes * clock),
        "vector_op_cycles": exp * clock * lanes / ROWS["exp"].flops, "scalar_element_cycles": lookup * clock,
        "l2_bytes_per_cycle": read_probe(1, machine.l2_bytes // 2 / mega).best() / clock,
        "l3_bytes_per_cycle": read_probe(1, machine.l3_bytes // 2 / mega).best() / clock,
        "memory_bytes_per_cycle": read_probe(threads, 8 * machine.l3_bytes / mega).best() / threads / clock}


def seconds(run: Callable[[], object]) -> float:
    """Of the fastest of several runs: what a shared machine gives at its quietest."""
    def one() -> float:
        start = perf_counter()
        run()
        return perf_counter() - start
    return min(one() for _ in range(REPEATS))


def per_element(function, *more: np.ndarray) -> float:
    """Nanoseconds of an element of an array in L1, on one thread."""
    def call(n: int) -> float:
        run, x = _compiled(function, n), np.linspace(-1, 1, n, dtype=np.float32)
        arrays = (x, *(np.minimum(a[:n], n - 1) for a in more))
        return seconds(lambda: run(*arrays))
    return (call(LONG) - call(SHORT)) / (LONG - SHORT) * 1e9


def _compiled(function, n: int):
    types = {"x": gc.f32[n], "i": gc.i32[n]}
    return gc.compile(function, threads=1, **{name: types[name] for name in function.__code__.co_varnames})


def handover_ns(threads: int) -> float:
    """What a parallel loop of one tile for each thread takes longer than one tile."""
    many, lanes = max(2, threads), host_target().lanes(f32.itemsize)
    return (seconds(_run(_chain(lanes, TILE_CHAIN, many), many)) - seconds(_run(_chain(lanes, TILE_CHAIN), 1))) * 1e9


def _chain(lanes: int, length: int = CHAIN, tiles: int = 1) -> LoopFunction:
    """Tiles that each add up a chain of multiply-adds."""
    main = LoopFunction("main")
    out = main.buffer("output", 0, 0, f32, (MAX_TILES * lanes,))
    with main.parallel(tiles, "tiles") as t:
        one = main.const(1.0 + 2.0 ** -20, f32, lanes)
        with main.loop(0, length, carry=(main.const(0.5, f32, lanes),)) as loop:
            loop.next(main.fma(loop.carried[0], one, one))
        main.store(out, [t * lanes], loop.results[0])
    return main


def _dots(lanes: int) -> LoopFunction:
    """Sums of products of pairs of bf16, none of which waits for another."""
    main = LoopFunction("main")
    out = main.buffer("output", 0, 0, f32, (MAX_TILES * lanes,))
    with main.parallel(1, "tiles"):
        ones = main.const(1.0, f32, lanes)
        pair = main.rounded_pair(ones, ones)
        with main.loop(0, TILE_CHAIN, carry=(ones,) * DOTS) as loop:
            loop.next(*(main.dot(pair, pair, total) for total in loop.carried))
        for i, total in enumerate(loop.results):
            main.store(out, [i * lanes], total)
    return main


def _run(main: LoopFunction, threads: int) -> Callable[[], object]:
    target = host_target()
    out = np.zeros(MAX_TILES * target.lanes(f32.itemsize), np.float32)
    signature = Signature((), (ArraySpec("y", TensorType(f32, out.shape)),), "array", "machine")
    program = Program(jit.compile_object(emit_module([], main, target), target), signature, 0, scratch_bytes([], main))
    executable = Executable(program, threads)
    return lambda: executable.run([], [out])
