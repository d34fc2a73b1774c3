"""Products of bytes in i32: four factors as one element, multiplied and added by instructions or by widening, always the
same integers."""
from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

import graphc as gc
from graphc.codegen.llvm.host import can_run
from graphc.compiler import Compilation
from graphc.config import Config
from graphc.dsl.function import trace_types
from graphc.ir.builder import Builder
from graphc.ir.ops.conv import Conv
from graphc.schedule.target import AVX2, AVX2_VNNI, AVX512_VNNI, NEON, NEON_DOT, SSE2, TARGETS

HERE = [name for name in ("", "avx512", "avx512_vnni", "avx2_vnni", "avx2", "sse2") if not name or can_run(TARGETS[name])]
SIGNS = [("i8", "i8"), ("i8", "u8"), ("u8", "i8"), ("u8", "u8")]
NUMPY = {"i8": np.int8, "u8": np.uint8}
# rows, steps, columns: of each family of schedules, sums of one term and of no multiple of four, leftover rows and columns
SIZES = [(1, 64, 48), (1, 513, 1), (3, 1, 300), (7, 2, 5), (8, 96, 10), (33, 77, 50), (64, 256, 96), (130, 43, 31),
         (300, 515, 65), (5, 4096, 17), (2, 3, 2)]


def drawn(dtype: str, *shape: int) -> np.ndarray:
    """A third of the numbers are the lowest or the highest."""
    info, rng = np.iinfo(NUMPY[dtype]), np.random.default_rng((len(dtype), *shape))
    low, high, x = info.min, info.max, rng.integers(info.min, info.max + 1, shape)
    kind = rng.integers(0, 6, shape)
    return np.where(kind == 0, low, np.where(kind == 1, high, x)).astype(NUMPY[dtype])


def exact(x: np.ndarray, y: np.ndarray, multiply=np.matmul) -> np.ndarray:
    return multiply(x.astype(np.int32), y.astype(np.int32))


def products(m, k, n, dtypes):
    """x @ w.T and x @ v of these types."""
    left, right = (getattr(gc, d) for d in dtypes)
    return gc.compile(lambda x, w, v: (gc.matmul(x, w.T, dtype=gc.i32), gc.matmul(x, v, dtype=gc.i32)), x=left[m, k],
                      w=right[n, k], v=right[k, n])


@pytest.mark.parametrize("target", HERE)
@pytest.mark.parametrize("m,k,n", SIZES)
def test_products(m, k, n, target, monkeypatch):
    """Where the CPU is another one, signs take turns."""
    monkeypatch.setenv("GRAPHC_TARGET", target)
    for dtypes in SIGNS[(m + HERE.index(target)) % 2::2] if target else SIGNS:
        x, w = drawn(dtypes[0], m, k), drawn(dtypes[1], n, k)
        run = products(m, k, n, dtypes)
        for y in run(x, w, np.ascontiguousarray(w.T)):
            assert y.dtype == np.int32 and np.array_equal(y, exact(x, w.T)), dtypes
        assert "8x4[" in run.dump("planned")


@pytest.mark.parametrize("target", HERE)
@pytest.mark.parametrize("dtypes", SIGNS, ids="x".join)
def test_extremes(dtypes, target, monkeypatch):
    """Where instructions with 16-bit sums in between would saturate."""
    monkeypatch.setenv("GRAPHC_TARGET", target)
    run = products(9, 515, 34, dtypes)
    limits = [(np.iinfo(NUMPY[d]).min, np.iinfo(NUMPY[d]).max, -1 if d == "i8" else 128) for d in dtypes]
    for a, b in product(*limits):
        x, w = np.full((9, 515), a, NUMPY[dtypes[0]]), np.full((34, 515), b, NUMPY[dtypes[1]])
        assert all((y == int(a) * int(b) * 515).all() for y in run(x, w, np.ascontiguousarray(w.T)))


def check_all_sizes(k, largest, targets, signs, monkeypatch):
    """Of products of k terms, of as many rows and columns as calls say."""
    for target, dtypes in product(targets, signs):
        monkeypatch.setenv("GRAPHC_TARGET", target)
        left, right = (getattr(gc, d) for d in dtypes)
        run = gc.compile(lambda x, w: gc.matmul(x, w.T, dtype=gc.i32), x=left["M", k], w=right["N", k], threads=1)
        x, w = drawn(dtypes[0], largest, k), drawn(dtypes[1], largest, k)
        wanted = exact(x, w.T)
        for m, n in product(range(1, largest + 1), repeat=2):
            assert np.array_equal(run(x[:m], w[:n]), wanted[:m, :n]), (target, dtypes, m, k, n)


@pytest.mark.parametrize("k", (1, 5, 8, 19))
def test_every_number_of_rows_and_columns(k, monkeypatch):
    check_all_sizes(k, 20, HERE[:1], SIGNS, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("k", range(1, 41))
def test_every_size_to_forty(k, monkeypatch):
    """Signs and targets take turns."""
    check_all_sizes(k, 40, HERE[k % len(HERE):][:1], SIGNS[k // len(HERE) % 4:][:1], monkeypatch)


@pytest.mark.parametrize("equation,x,y", [
    ("bik,bkj->bij", (2, 5, 34), (2, 34, 7)), ("bkhi,bkhj->bhij", (2, 9, 3, 5), (2, 9, 3, 4)), ("ik,jk->ij", (6, 33), (8, 33)),
    ("...k,k->...", (3, 4, 16), (16,)), ("ki,kj->ji", (12, 5), (12, 6)), ("bij,bij->b", (3, 4, 5), (3, 4, 5)),
    ("ik,kjb->bji", (4, 12), (12, 3, 5))])
@pytest.mark.parametrize("dtypes", SIGNS, ids="x".join)
def test_einsums(equation, x, y, dtypes):
    """Corrections have axes of one factor, in another order than the result's."""
    a, b = drawn(dtypes[0], *x), drawn(dtypes[1], *y)
    run = gc.compile(lambda x, y: gc.einsum(equation, x.astype(gc.i32), y.astype(gc.i32)),
                     x=getattr(gc, dtypes[0])[x], y=getattr(gc, dtypes[1])[y])
    assert np.array_equal(run(a, b), exact(a, b, lambda x, y: np.einsum(equation, x, y)))


def test_broadcast_batches():
    a, b = drawn("i8", 2, 1, 5, 12), drawn("i8", 3, 12, 4)
    run = gc.compile(lambda x, y: gc.matmul(x, y, dtype=gc.i32), x=gc.i8[2, 1, 5, 12], y=gc.i8[3, 12, 4])
    assert np.array_equal(run(a, b), exact(a, b))


@pytest.mark.parametrize("target", HERE)
def test_loops(target, monkeypatch):
    """What a loop captures is packed, and summed, before it."""
    monkeypatch.setenv("GRAPHC_TARGET", target)

    def f(h: gc.i8[3, 16], w: gc.i8[16, 16]):
        def step(h, _):
            y = gc.matmul(h, w, dtype=gc.i32)
            return gc.clip(y // 64, -128, 127).astype(gc.i8), y
        return gc.scan(step, h, length=5)
    h, w = drawn("i8", 3, 16), drawn("i8", 16, 16)
    run = gc.compile(f, h=gc.i8[3, 16], w=gc.i8[16, 16])
    last, ys = run(h, w)
    for y in ys:
        wanted = exact(h, w)
        assert np.array_equal(y, wanted)
        h = np.clip(wanted // 64, -128, 127).astype(np.int8)
    assert np.array_equal(last, h)
    body = run.dump("planned").split("# body of scan")[-1]
    moved = [line for line in body.splitlines() if "= copy(" in line]
    assert "sum(" not in body and all(": i8[3, 16]" in line for line in moved)      # the carry alone


CONVS = [                               # image, kernels, attributes
    ((1, 16, 9, 9), (33, 16, 3, 3), {"padding": ((1, 1), (1, 1))}), ((2, 5, 8, 7), (7, 5, 3, 2), {"stride": (2, 1)}),
    ((2, 3, 7, 7), (4, 3, 3, 3), {"padding": ((2, 0), (0, 1)), "dilation": (2, 2)}), ((1, 64, 6, 6), (32, 64, 1, 1), {}),
    ((2, 2, 6, 6), (5, 2, 3, 3), {"padding": ((1, 1), (1, 1))}), ((1, 1, 6, 6), (5, 1, 3, 3), {}),
    ((2, 8, 6, 6), (8, 4, 3, 3), {"groups": 2, "padding": ((1, 1), (1, 1))}), ((1, 6, 5, 5), (6, 1, 3, 3), {"groups": 6}),
    ((2, 9, 20), (5, 9, 4), {"stride": (3,), "padding": ((3, 2),)}),
    ((1, 4, 4, 5, 6), (6, 4, 2, 3, 2), {"padding": ((1, 0), (1, 1), (0, 1))})]


@pytest.mark.parametrize("target", HERE)
@pytest.mark.parametrize("image,kernels,attributes", CONVS)
def test_convolutions(image, kernels, attributes, target, monkeypatch):
    """Along channels, where these nearly fill elements: around the image stands 0, whatever it was turned to."""
    monkeypatch.setenv("GRAPHC_TARGET", target)
    axes = len(image) - 2
    op = Conv.at(axes)(**{"stride": (1,) * axes, "padding": ((0, 0),) * axes, "dilation": (1,) * axes, "dtype": gc.i32}
                       | attributes)
    b = Builder("convolutions")
    x, w = ({d: b.input(name + d, getattr(gc, d)[shape]) for d in NUMPY} for name, shape in (("x", image), ("w", kernels)))
    graph = b.finish([b.apply(op, [x[left], w[right]])[0] for left, right in SIGNS], ("",) * len(SIGNS))
    arrays = {v.name: drawn(v.name[1:], *v.type.shape) for v in graph.inputs}
    found = gc.compile(graph)(**arrays)
    for (left, right), y in zip(SIGNS, found):
        wide = op.replace(dtype=None).reference(arrays["x" + left].astype(np.int32), arrays["w" + right].astype(np.int32))
        assert y.dtype == np.int32 and np.array_equal(y, wide), (left, right)


def assembly(target, dtypes) -> str:
    left, right = (getattr(gc, d) for d in dtypes)
    graph = trace_types(lambda x, w: gc.matmul(x, w.T, dtype=gc.i32), {"x": left[64, 256], "w": right[96, 256]})
    return Compilation(graph.graph, target, Config()).text("asm")


def with_features(target, *names):
    return replace(target, name="other", features=",".join((target.features, *names)))


@pytest.mark.parametrize("target,dtypes,instruction,never", [
    (AVX512_VNNI, ("u8", "i8"), "vpdpbusd\t", "vpmaddubsw"), (AVX512_VNNI, ("i8", "i8"), "vpdpbusd\t", "vpmaddubsw"),
    (AVX2_VNNI, ("u8", "u8"), "vpdpbusd\t", "vpmaddubsw"), (AVX2, ("u8", "i8"), "vpmaddwd\t", "vpmaddubsw"),
    (SSE2, ("i8", "i8"), "pmaddwd\t", "pmaddubsw"), (NEON_DOT, ("i8", "i8"), "sdot\t", "mla\tv"),
    (NEON_DOT, ("u8", "i8"), "sdot\t", "mla\tv"), (NEON_DOT, ("u8", "u8"), "udot\t", "mla\tv"),
    (with_features(AVX2_VNNI, "+avxvnniint8"), ("i8", "i8"), "vpdpbssd\t", "vpmaddwd"),
    (with_features(AVX2_VNNI, "+avxvnniint8"), ("u8", "u8"), "vpdpbuud\t", "vpmaddwd"),
    (with_features(NEON_DOT, "+i8mm"), ("u8", "i8"), "usdot\t", "mla\tv"), (NEON, ("i8", "i8"), "mla\t", "sdot")],
    ids=lambda v: getattr(v, "name", None))
def test_instructions(target, dtypes, instruction, never):
    text = assembly(target, dtypes)
    assert instruction in text and never not in text


def test_what_is_not_packed():
    """Sums in other types than i32, and factors of 16 bits."""
    for dtype, sums in ((gc.i16, gc.i32), (gc.i8, gc.i64), (gc.i8, gc.f32)):
        run = gc.compile(lambda x, y: gc.matmul(x, y, dtype=sums), x=dtype[5, 8], y=dtype[8, 7])
        a, b = drawn("i8", 5, 8).astype(dtype.np), drawn("i8", 8, 7).astype(dtype.np)
        assert np.array_equal(run(a, b), a.astype(sums.np) @ b.astype(sums.np)) and "8x4" not in run.dump("planned")


@pytest.mark.skipif(not can_run(AVX2), reason="this CPU has no AVX2")
def test_one_row_of_any_number_does_not_wait(monkeypatch):
    """Rows that come with the call: of one, steps have sums of their own; of some more one kernel computes the last again and again."""
    monkeypatch.setenv("GRAPHC_TARGET", "avx2")
    run = gc.compile(lambda x, w: gc.matmul(x, w, dtype=gc.i32), x=gc.i8["B", 72], w=gc.i8[72, 96])
    w = drawn("i8", 72, 96)
    for rows in range(1, 9):
        x = drawn("i8", rows, 72)
        assert np.array_equal(run(x, w), exact(x, w)), rows
    text = run.dump("loops")
    assert "i32_1x16_" in text and "i32_4x16_" in text and "i32_2x16_" not in text
