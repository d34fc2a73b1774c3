"""Products by matrix registers (AMX): any number of rows, columns and terms, threads and forks, and systems that refuse them."""
from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest

import graphc as gc
from graphc import nn
from graphc.codegen.llvm import host, matrix_permission
from graphc.codegen.llvm.emit import emit_module
from graphc.codegen.llvm.jit import assembly
from graphc.codegen.lower.contraction.matrix_kernel import MatrixKernelSpec, matrix_kernel
from graphc.codegen.lower.contraction.micro_kernel import ProductTypes
from graphc.codegen.loops.builder import LoopFunction
from graphc.codegen.loops.verify import verify
from graphc.compiler import Compilation
from graphc.config import Config
from graphc.doors.library.export import _as_here
from graphc.dsl.function import trace_types
from graphc.errors import InternalError
from graphc.ir.types import bf16x2, f32, i8x4, i32, u8x4
from graphc.schedule.platforms import PLATFORMS
from graphc.schedule.target import AVX512_AMX, AVX512_BF16, SAPPHIRERAPIDS

here = pytest.mark.skipif(not host.can_run(AVX512_AMX), reason="this CPU has no matrix registers, or the system refuses them")


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(np.float32)


def product_of(m, k, n, threads=1):
    return gc.compile(lambda x, w: x @ w, x=gc.f32[m, k], w=gc.f32[k, n], compute="bf16", threads=threads)


def rounded(x: np.ndarray) -> np.ndarray:
    return x.astype(ml_dtypes.bfloat16).astype(np.float64)


def close(y: np.ndarray, x: np.ndarray, w: np.ndarray) -> bool:
    x, w = rounded(x), rounded(w)
    return bool((np.abs(y - x @ w) <= 2e-7 * np.sqrt(x.shape[-1]) * (np.abs(x) @ np.abs(w)) + 1e-30).all())


# rows, terms, columns: tails of each, sums of several blocks, and of a few terms
SIZES = [(17, 200, 48), (31, 130, 100), (48, 96, 65), (100, 1030, 50), (300, 31, 300), (64, 4200, 48)]


@here
@pytest.mark.parametrize("m,k,n", SIZES)
def test_products(m, k, n, monkeypatch):
    x, w = drawn(m, k), drawn(k, n)
    run = product_of(m, k, n)
    y = run(x, w)
    assert "matrices of" in run.dump("planned") and close(y, x, w)
    assert product_of(m, k, n, threads=2)(x, w).tobytes() == y.tobytes()
    monkeypatch.setenv("GRAPHC_TARGET", "avx512_bf16")
    other = product_of(m, k, n)
    assert "matrices of" not in other.dump("planned") and close(other(x, w), x, w)


@here
def test_both_gradients():
    """Rows that lie across the sum are turned."""
    @gc.graph
    def f(x: gc.f32[70, 130], g: gc.f32[70, 90], w: gc.f32[130, 90]):
        x, g = x + 0.0, g + 0.0
        return x.T @ g, g @ w.T
    x, g, w = drawn(70, 130), drawn(70, 90), drawn(130, 90)
    run = gc.compile(f, compute="bf16")
    dw, dx = run(x, g, w)
    assert run.dump("planned").count("matrices of") == 2 and close(dw, x.T, g) and close(dx, g, w.T)


@here
def test_batches():
    x, y = drawn(3, 40, 300), drawn(3, 300, 50)
    run = gc.compile(lambda x, y: x @ y, x=gc.f32[x.shape], y=gc.f32[y.shape], compute="bf16")
    assert "matrices of" in run.dump("planned") and all(close(*each) for each in zip(run(x, y), x, y))


@here
@pytest.mark.parametrize("channels,size,stride", [(32, (13, 11), 1), (36, (23, 19), 1), (64, (9, 30), 2)])
def test_windows(channels, size, stride):
    """Rows of windows end at lines of the image, and steps of sums at its channels."""
    x, w = drawn(2, channels, *size), drawn(40, channels, 3, 3)
    run = gc.compile(lambda x, w: gc.conv2d(x, w, stride=stride, padding=1), x=gc.f32[x.shape], w=gc.f32[w.shape], compute="bf16")
    assert "matrices of" in run.dump("planned")
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::stride, ::stride]
    rows = windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, channels * 9)
    y = run(x, w).transpose(0, 2, 3, 1).reshape(-1, 40)
    assert close(y, rows, w.reshape(40, -1).T)


@here
@pytest.mark.parametrize("size", [(23, 19), (32, 32)])
def test_gradients_towards_kernels(size):
    """Steps of sums are pairs of images, in runs of lines of these."""
    x, w, g = drawn(4, 36, *size), drawn(40, 36, 3, 3), drawn(4, 40, *size)

    @gc.graph
    def loss(w: gc.f32[w.shape], x: gc.f32[x.shape], g: gc.f32[g.shape]):
        return gc.sum(gc.conv2d(x, w, padding=1) * g)
    run = gc.compile(gc.grad(loss, wrt="w"), compute="bf16")
    assert "matrices of" in run.dump("planned")
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), axis=(2, 3))
    rows = windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, 36 * 9)
    assert close(run(w, x, g).reshape(40, -1), g.transpose(1, 0, 2, 3).reshape(40, -1), rows)


@here
@pytest.mark.parametrize("types", [("u8", "i8"), ("i8", "i8"), ("u8", "u8")])
def test_integers_are_exact(types):
    rng = np.random.default_rng(0)
    x, w = (rng.integers(*((-128, 128) if t == "i8" else (0, 256)), shape).astype(t.replace("8", "1"))
            for t, shape in zip(types, ((150, 900), (900, 210))))
    run = gc.compile(lambda x, w: gc.matmul(x, w, dtype=gc.i32), x=getattr(gc, types[0])[150, 900], w=getattr(gc, types[1])[900, 210])
    assert "matrices of" in run.dump("planned")
    assert np.array_equal(run(x, w), x.astype(np.int32) @ w.astype(np.int32))


@here
@pytest.mark.parametrize("signs", ["ui", "ii"])
@pytest.mark.parametrize("channels,size,window", [
    (3, (29, 31), {"stride": 2, "padding": 3}), (4, (20, 17), {}), (20, (13, 18), {"padding": 2, "dilation": 2}),
    (64, (11, 9), {"padding": 1}), (66, (12, 12), {"stride": (2, 1), "padding": 1})])
def test_windows_of_bytes_are_exact(signs, channels, size, window):
    kernel = 7 if channels == 3 else 3
    rng = np.random.default_rng(0)
    x, w = (rng.integers(0 if s == "u" else -128, 256 if s == "u" else 128, shape).astype(f"{s}1")
            for s, shape in zip(signs, ((2, channels, *size), (40, channels, kernel, kernel))))
    run = gc.compile(lambda x, w: gc.conv2d(x.astype(gc.i32), w.astype(gc.i32), **window), x=getattr(gc, f"{signs[0]}8")[x.shape], w=gc.i8[w.shape])
    assert "matrices of" in run.dump("planned")
    wide = gc.compile(lambda x, w: gc.conv2d(x, w, **window), x=gc.f64[x.shape], w=gc.f64[w.shape])
    assert np.array_equal(run(x, w), wide(x.astype(float), w.astype(float)).astype(np.int32))


@here
def test_rows_have_the_same_bits_in_any_batch():
    net = nn.Linear(80) >> nn.relu >> nn.Linear(33)
    run = gc.compile(net, x=gc.f32["B", 70], seed=0, compute="bf16")
    assert "matrices of" in run.dump("planned")
    x = drawn(200, 70)
    whole = run(x)
    for count in (*range(1, 36), 64, 97, 129):
        assert run(x[:count]).tobytes() == whole[:count].tobytes(), count


@here
def test_few_rows_of_bytes():
    """By vectors, of the columns that matrix registers read; steps of short sums beside each other."""
    net = nn.LSTM(64, batch_first=True)
    run = gc.compile(net, x=gc.f32["B", 3, 70], seed=0, compute="int8")
    assert re.search(r"4 gates; up to \d+ rows: \d+×32 .* more: matrices of", run.dump("planned"))
    x = drawn(40, 3, 70)
    whole = run(x)
    for count in (1, 2, 3, 7, 8, 9, 17):
        assert run(x[:count]).tobytes() == whole[:count].tobytes(), count


@here
def test_threads_and_forks():
    """Registers are each thread's own, and a process that was forked may use them too."""
    runs = [(product_of(*size, threads=2), drawn(*size[:2]), drawn(*size[1:])) for size in ((40, 70, 50), (130, 64, 32))]
    wanted = [run(x, w).tobytes() for run, x, w in runs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: runs[i % 2][0](*runs[i % 2][1:]).tobytes(), range(80)))
    assert all(bits == wanted[i % 2] for i, bits in enumerate(found))
    child = os.fork()
    if not child:
        os._exit(0 if [run(x, w).tobytes() for run, x, w in runs] == wanted else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.fixture
def refusing(monkeypatch):
    """A CPU that has the registers, and a system that keeps them."""
    names = [feature.lstrip("+") for feature in AVX512_AMX.features.split(",")]
    monkeypatch.setattr(host, "host_features", lambda: dict.fromkeys(names, True))
    monkeypatch.setattr(host, "may_use_matrices", lambda: False)


@pytest.mark.skipif(not host.can_run(host.SSE2), reason="not x86-64")
def test_a_system_that_refuses(refusing, monkeypatch):
    assert host.lacking(AVX512_AMX) == ("amx-tile",) and host.refuses_matrices()
    assert host.preferred(host.BY_PREFERENCE["x86_64"], "a CPU of next year") is AVX512_BF16
    assert host.preferred(host.BY_PREFERENCE["x86_64"], "sapphirerapids") is SAPPHIRERAPIDS
    monkeypatch.setenv("GRAPHC_TARGET", AVX512_AMX.name)
    with pytest.raises(gc.GraphError, match="GRAPHC_TARGET=avx512_amx: .* the system does not let this process use"):
        host.host_target()


@here
def test_permission_is_asked_once(monkeypatch):
    assert matrix_permission.may_use_matrices() and matrix_permission.may_use_matrices.cache_info().misses == 1


def compiled(function, types, target) -> Compilation:
    return Compilation(trace_types(function, types).graph, target, Config())


@pytest.mark.parametrize("types,names", [((bf16x2, bf16x2, f32), "tdpbf16ps"), ((i8x4, i8x4, i32), "tdpbssd"), ((u8x4, i8x4, i32), "tdpbusd"),
                                         ((i8x4, u8x4, i32), "tdpbsud"), ((u8x4, u8x4, i32), "tdpbuud")])
def test_instructions(types, names):
    """On any host: shapes are set, and given back on each way out."""
    kernel = matrix_kernel(MatrixKernelSpec(ProductTypes(*types), 64, 32, 48, 2, True))
    verify(kernel)
    text = assembly(emit_module([kernel], None, AVX512_AMX), AVX512_AMX)
    assert len(re.findall(rf"\t{names}\t", text)) >= 8
    assert text.count("ldtilecfg") == text.count("tilerelease") == 2 and "tilestored" in text


def test_programs_of_int8():
    text = compiled(lambda x, w: gc.matmul(x, w.T, dtype=gc.i32), {"x": gc.i8[64, 256], "w": gc.i8[96, 256]}, AVX512_AMX).text("asm")
    assert "tdpbusd" in text and "vpdpbusd" not in text


@pytest.mark.parametrize("wrong,said", [
    (lambda f, x: f.matrix_load(0, x, 0, 16), "used before its shape"),
    (lambda f, x: f.matrix_shapes((16, 16)), "other shapes where"),
    (lambda f, x: (f.matrix_shapes((16, 16)), f.matrix_load(0, x, 1, 16), f.matrix_shapes()), "cannot prove that"),
    (lambda f, x: (f.matrix_shapes((17, 16)), f.matrix_shapes()), "1 to 16 rows"),
    (lambda f, x: (f.matrix_shapes((16, 16), (8, 16), (16, 16)), f.matrix_dot(0, 1, 2, (bf16x2, bf16x2)), f.matrix_shapes()), "do not fit"),
    (lambda f, x: (f.matrix_shapes(*[(16, 16)] * 3), f.matrix_dot(0, 1, 2, (bf16x2, i8x4)), f.matrix_shapes()), "no product of matrices")])
def test_what_the_verifier_refuses(wrong, said):
    f = LoopFunction("wrong")
    x = f.view("x", bf16x2, (256,))
    with pytest.raises(InternalError, match=said):
        wrong(f, x)
        verify(f)


def test_exported_libraries_have_none():
    """A library runs in processes that asked for nothing."""
    for platform in PLATFORMS.values():
        assert not any(_as_here(t).has_matrices for t in platform.instruction_sets)
