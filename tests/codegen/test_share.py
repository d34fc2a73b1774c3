"""Functions that differ in numbers alone are one, called with these, and compute what they computed apart."""
from __future__ import annotations

import re

import numpy as np
import pytest
from loop_run import Compiled

import graphc as gc
from graphc import nn
from graphc.codegen.llvm.emit import emit_module, scratch_bytes
from graphc.codegen.llvm.share import shared
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


def gathered(name: str, distance: int) -> LoopFunction:
    """y[i] = x[i, 0] + x[i, 1] where what is added lies `distance` apart: an offset in the innermost loop."""
    f = LoopFunction(name)
    x, y = f.view("x", f32, (2, 8), (distance, 1)), f.view("y", f32, (8,))
    with f.loop(0, 8) as L:
        f.store(y, [L.index], f.load(x, [0, L.index]) + f.load(x, [1, L.index]))
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


def test_what_is_shared_computes_what_it_did():
    functions = [scaled("a", 3, 16, 20), scaled("b", 5, 24, 40), scaled("c", 4, 8, 9, by=3.0), gathered("d", 100),
                 gathered("e", 8)]
    main = called(*functions)
    c = Compiled(emit_module(list(functions), main, AVX2), scratch_bytes(list(functions), main))
    rng = np.random.default_rng(0)
    xs = [rng.standard_normal(200).astype(np.float32) for _ in functions]
    ys = [np.zeros(f.views[1].shape, np.float32) for f in functions]
    assert c.run(xs, ys) == 0
    for (rows, columns, distance, by), x, y in zip([(3, 16, 20, 2), (5, 24, 40, 2), (4, 8, 9, 3)], xs, ys):
        wanted = np.lib.stride_tricks.as_strided(x, (rows, columns), (4 * distance, 4)) * np.float32(by)
        np.testing.assert_array_equal(y, wanted)
    for distance, x, y in zip((100, 8), xs[3:], ys[3:]):
        np.testing.assert_array_equal(y, x[:8] + x[distance:distance + 8])


def test_offsets_in_innermost_loops_stay_numbers():
    functions = [gathered("d", 100), gathered("e", 8)]
    assert definitions(emit_module(list(functions), called(*functions), AVX2)) == ["e", "d"]


def test_divisors_in_loops_stay_numbers():
    def divided(name: str, by: int) -> LoopFunction:
        f = LoopFunction(name)
        x, y = f.view("x", f32, (8, 8)), f.view("y", f32, (8, 8))
        with f.loop(0, 8) as L:
            row, rest = f.divmod(L.index, by)
            with f.loop(0, 8) as inner:
                f.store(y, [row + rest, inner.index], f.load(x, [L.index, inner.index]))
        return f
    functions = [divided("a", 2), divided("b", 4)]
    assert definitions(emit_module(list(functions), called(*functions), AVX2)) == ["b", "a"]


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


def test_code_does_not_grow_with_shapes():
    """Every layer of a dense block has kernels of its own shape; they come down to the same functions."""
    counts = []
    for layers in (6, 12):
        run = gc.compile(dense(layers), x=gc.f32[1, 32, 16, 16], seed=0, threads=1)
        text = Compilation(run.compilation.graph, AVX2).text("llvm")
        counts.append(len(definitions(text)))
    assert counts[1] <= counts[0] + 2, counts
