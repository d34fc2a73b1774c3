"""Functions that differ in numbers alone are one, called with these, and compute what they computed apart."""
from __future__ import annotations

import re

import numpy as np
import pytest
from loop_run import Compiled

import graphc as gc
from graphc import nn
from graphc.codegen.llvm.emit import emit_module, scratch_bytes
from graphc.codegen.llvm.share import _magic, shared
from graphc.codegen.loops.builder import LoopFunction
from graphc.codegen.loops.verify import verify
from graphc.compiler import Compilation
from graphc.ir.types import f32
from graphc.schedule.target import AVX2, AVX512, NEON


def scaled(name: str, rows: int, columns: int, distance: int, by: float = 2.0) -> LoopFunction:
    """y[j] = 2 x[j] by rows, of which x lies `distance` apart, in tiles of one row."""
    f = LoopFunction(name)
    x, y = f.view("x", f32, (rows, columns), (distance, 1)), f.view("y", f32, (rows, columns))
    with f.parallel(rows, "rows") as t, f.loop(0, columns, 8) as L:
        f.store(y, [t, L.index], f.load(x, [t, L.index], lanes=8) * by)
    return f


def gathered(name: str, distance: int, rows: int) -> LoopFunction:
    """y[i] = x[0, i] + x[1, i] + … of rows that lie `distance` apart: offsets in the innermost loop."""
    f = LoopFunction(name)
    x, y = f.view("x", f32, (rows, 8), (distance, 1)), f.view("y", f32, (8,))
    with f.loop(0, 8) as L:
        total = f.load(x, [0, L.index])
        for row in range(1, rows):
            total = total + f.load(x, [row, L.index])
        f.store(y, [L.index], total)
    return f


def divided(name: str, by: int, inner: bool = False) -> LoopFunction:
    """Rows i // by + i % by of y are rows i of x; inner: elements of one row, so that the innermost loop divides."""
    f = LoopFunction(name)
    x, y = f.view("x", f32, (40, 8)), f.view("y", f32, (40, 8))
    with f.loop(0, 40) as L:
        if inner:
            row, rest = f.divmod(L.index, by)
            f.store(y, [row + rest, 0], f.load(x, [L.index, 0]))
        else:
            row, rest = f.divmod(L.index, by)
            with f.loop(0, 8) as across:
                f.store(y, [row + rest, across.index], f.load(x, [L.index, across.index]))
    return f


def called(*functions: LoopFunction) -> LoopFunction:
    """main, which calls each with input and output of its number."""
    main = LoopFunction("main")
    for k, f in enumerate(functions):
        verify(f)
        main.call(f, [main.buffer(space, k, 0, v.dtype, v.shape, v.strides)
                      for space, v in zip(("input", "output"), f.views)])
    verify(main)
    return main


def definitions(text: str) -> list[str]:
    return re.findall(r'^define internal void @"k\.([^"]+)"', text, re.MULTILINE)


@pytest.mark.parametrize("target", [AVX2, AVX512, NEON], ids=lambda t: t.name)
def test_kernels_that_differ_in_sizes_and_distances_are_one_with_their_tiles(target):
    functions = [scaled("a", 3, 16, 20), scaled("b", 5, 24, 40), scaled("c", 5, 24, 40, by=3.0)]
    text = emit_module(list(functions), called(*functions), target)
    assert definitions(text) == ["c.rows.1", "c", "b.rows.2", "b"]
    assert re.findall(r'^; also "k\.(.*)"', text, re.MULTILINE) == ["a.rows.3", "a"]


def run(functions: list[LoopFunction], xs: list[np.ndarray], ys: list[np.ndarray]) -> str:
    """The LLVM text, after a call."""
    main = called(*functions)
    text = emit_module(functions, main, AVX2)
    assert Compiled(text, scratch_bytes(functions, main)).run(xs, ys) == 0
    return text


def test_what_is_shared_computes_what_it_did():
    cases = [(3, 16, 20, 2.0), (5, 24, 40, 2.0), (4, 8, 9, 3.0)]
    functions = [scaled(f"f{i}", *case) for i, case in enumerate(cases)]
    rng = np.random.default_rng(0)
    xs = [rng.standard_normal(200).astype(np.float32) for _ in functions]
    ys = [np.zeros(f.views[1].shape, np.float32) for f in functions]
    run(functions, xs, ys)
    for (rows, columns, distance, by), x, y in zip(cases, xs, ys):
        wanted = np.lib.stride_tricks.as_strided(x, (rows, columns), (4 * distance, 4)) * np.float32(by)
        np.testing.assert_array_equal(y, wanted)


def test_offsets_in_innermost_loops_stay_numbers():
    functions = [gathered("d", 40, 3), gathered("e", 8, 3)]
    xs, ys = [np.arange(200, dtype=np.float32)] * 2, [np.zeros(8, np.float32) for _ in functions]
    assert definitions(run(functions, xs, ys)) == ["e", "d"]
    for distance, y in zip((40, 8), ys):
        np.testing.assert_array_equal(y, sum(xs[0][row * distance:row * distance + 8] for row in range(3)))


def summed(name: str, distance: int, sums: int, together: int | None) -> LoopFunction:
    """y = x[0] + x[1] + … of rows that lie `distance` apart, in so many vectors of sums, `together` rows at a time."""
    f = LoopFunction(name)
    x, y = f.view("x", f32, (10, 8 * sums), (distance, 1)), f.view("y", f32, (8 * sums,))
    with f.loop(0, 10, carry=[f.const(0.0, f32, 8)] * sums, unroll=together) as L:
        L.next(*[v + f.load(x, [L.index, 8 * i], lanes=8) for i, v in enumerate(L.carried)])
    for i, v in enumerate(L.results):
        f.store(y, [8 * i], v)
    return f


@pytest.mark.parametrize(("sums", "together", "count"), [(2, None, 2), (8, None, 1), (2, 2, 2), (8, 2, 1)])
def test_distances_in_loops_with_many_sums_become_arguments(sums, together, count):
    """As in micro-kernels: the step of one is hidden behind so many additions."""
    distances = 64, 80
    xs = [np.arange(9 * d + 8 * sums, dtype=np.float32) for d in distances]
    ys = [np.zeros(8 * sums, np.float32) for _ in distances]
    text = run([summed(f"by{d}", d, sums, together) for d in distances], xs, ys)
    assert len(definitions(text)) == count
    for x, y, d in zip(xs, ys, distances):
        np.testing.assert_array_equal(y, sum(x[row * d:][:8 * sums] for row in range(10)))


@pytest.mark.parametrize("inner, found", [(False, 1), (True, 4)])
def test_divisions_become_multiplications_but_not_in_innermost_loops(inner, found):
    divisors = (2, 3, 7, 32)
    functions = [divided(f"by{n}", n, inner) for n in divisors]
    xs, ys = [np.arange(320, dtype=np.float32)] * 4, [np.zeros((40, 8), np.float32) for _ in divisors]
    text = run(functions, xs, ys)
    assert len(definitions(text)) == found and ("umul.fix" in text) != inner
    for n, y in zip(divisors, ys):
        wanted = np.zeros((40, 8), np.float32)
        for i in range(40):
            wanted[i // n + i % n, :1 if inner else 8] = xs[0].reshape(40, 8)[i, :1 if inner else 8]
        np.testing.assert_array_equal(y, wanted)


@pytest.mark.parametrize("divisor", [2, 3, 7, 641, (1 << 31) - 1, (1 << 32) - 1])
def test_the_multiplier_of_a_divisor_is_right_for_all_numbers_of_32_bits(divisor):
    magic = int(_magic(str(divisor))) % (1 << 64)
    around = [k * divisor + d for k in (0, 1, 2, ((1 << 32) - 1) // divisor) for d in (-1, 0, 1)]
    for n in (*around, (1 << 32) - 1, (1 << 32) - 2):
        if 0 <= n < 1 << 32:
            assert n * magic >> 64 == n // divisor, n


def test_what_is_called_with_other_numbers_alone_is_equal_too():
    """Functions above others that became one: main has calls left, whatever the depth."""
    def outer(name: str, inner: LoopFunction) -> LoopFunction:
        f = LoopFunction(name)
        x, y = [f.view(n, f32, v.shape, v.strides) for n, v in zip("xy", inner.views)]
        f.call(inner, [x, y])
        return f
    functions = [outer(name, scaled(f"in_{name}", rows, 8 * rows, 80)) for name, rows in (("a", 2), ("b", 5), ("c", 9))]
    text = emit_module(list(functions), called(*functions), AVX2)
    assert definitions(text) == ["c", "in_c.rows.1", "in_c"]


def test_texts_without_equals_stay_as_they_are():
    texts = ['define i32 @gc_main(ptr %ctx) #0 {\nentry:\n  ret i32 0\n}\n',
             'define internal void @"k.a"(ptr %ctx, ptr %scratch) #0 {\nentry:\n  ret void\n}\n']
    assert shared(texts, "i64") == texts


def dense(layers: int) -> gc.nn.Module:
    """Dense layers (Huang et al. 2017): each adds 16 channels to those that it reads."""
    def forward(x: gc.Array) -> gc.Array:
        for norm, conv in parts:
            x = gc.concat([x, conv(nn.relu(norm(x)))], axis=1)
        return x
    parts = [(nn.BatchNorm2d(), nn.Conv2d(16, 3, padding=1)) for _ in range(layers)]
    return nn.Conv2d(32, 1) >> forward


def test_code_hardly_grows_with_shapes():
    """Every layer of a dense block has kernels of its own shape, of which many become one: without that, six more layers
    are 61 more functions and 1.85 times the code."""
    counts = []
    for layers in (6, 12):
        run = gc.compile(dense(layers), x=gc.f32[1, 32, 16, 16], seed=0, threads=1)
        text = Compilation(run.compilation.graph, AVX2).text("llvm")
        counts.append((len(definitions(text)), text.count("\n")))
    (functions, lines), (more_functions, more_lines) = counts
    assert more_functions < functions + 30 and more_lines < 1.6 * lines, counts
