"""Attention taken whole against its numpy reference in f64: blocks with tails, strided views, broadcast heads, the same bits for any number of threads."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc import simplification
from graphc.codegen.llvm.host import can_run
from graphc.compiler import Compilation
from graphc.ir.builder import Builder
from graphc.ir.interp import evaluate
from graphc.ir.ops.attention import Attention, AttentionGrad
from graphc.ir.types import TensorType, dtype_of, f32
from graphc.runtime.executable import Executable
from graphc.schedule.attention_support import is_whole
from graphc.schedule.attention_schedule import AttentionSchedule
from graphc.schedule.target import AVX2, AVX512

RUNS = [pytest.param(t, id=t.name, marks=pytest.mark.skipif(not can_run(t), reason=f"this CPU has no {t.name}"))
        for t in (AVX2, AVX512)]
SHAPES = (((2,), 131, 70, 33, 65), ((2,), 70, 131, 40, 17), ((), 12, 200, 8, 8), ((3, 1), 97, 1, 200, 256), ((2, 2), 13, 6, 3, 1), ((1, 2), 200, 200, 64, 64), ((), 40, 2100, 64, 64))


@pytest.fixture(autouse=True)
def whole(monkeypatch):
    """Attention is one kernel, whatever it costs."""
    monkeypatch.setattr(simplification, "is_kept", lambda op, types, beside=None, target=None: is_whole(op, types))


def arrays_of(lead, tq, tk, d, e, dtype):
    rng = np.random.default_rng(0)
    return [rng.standard_normal((*lead, *s)).astype(dtype) for s in ((tq, d), (tk, d), (tk, e))]


def compiled(op, arrays, *target):
    b = Builder("attention")
    outs = b.apply(op, [b.input(f"x{i}", TensorType(dtype_of(a), a.shape)) for i, a in enumerate(arrays)])
    return Compilation(b.finish(outs, ("",) * len(outs)), *target)


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
@pytest.mark.parametrize("causal", (False, True))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_blocks_are_the_reference(shape, causal, dtype):
    op, arrays = Attention(causal=causal), arrays_of(*shape, dtype)
    c = compiled(op, arrays)
    assert [n.op.name for n in c.fused.nodes] == ["attention"]
    one, three = (Executable(c.build.program, threads).slow(*arrays) for threads in (1, 3))
    for x, y, expected in zip(one, three, op.reference(*(a.astype(np.float64) for a in arrays))):
        assert x.tobytes() == y.tobytes()
        np.testing.assert_allclose(x, expected, rtol=0, atol=1e-5 if dtype == np.float32 else 1e-13)


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
@pytest.mark.parametrize("causal", (False, True))
@pytest.mark.parametrize("shape", (*SHAPES, ((), 700, 300, 16, 24), ((40,), 14, 20, 8, 8), ((), 300, 700, 64, 64)), ids=str)
def test_blocks_of_the_gradient_are_the_reference(shape, causal, dtype):
    q, k, v = arrays_of(*shape, dtype)
    out, lse = (x.astype(dtype) for x in Attention(causal=causal).reference(q, k, v))
    op, arrays = AttentionGrad(causal=causal), [q, k, v, out, lse, np.random.default_rng(1).standard_normal(out.shape).astype(dtype)]
    c = compiled(op, arrays)
    assert [n.op.name for n in c.fused.nodes] == ["attention_grad"]
    one, three = (Executable(c.build.program, threads).slow(*arrays) for threads in (1, 3))
    for x, y, expected in zip(one, three, op.reference(*(a.astype(np.float64) for a in arrays))):
        assert x.tobytes() == y.tobytes()
        np.testing.assert_allclose(x, expected, rtol=0, atol=2e-5 if dtype == np.float32 else 1e-12)


@pytest.mark.parametrize("slope", (0.5, 3.0))
@pytest.mark.parametrize("dtype", (np.float32, np.float64))
def test_biases_by_distance(slope, dtype):
    """(ALiBi: Press et al. 2022.) Most weights are next to nothing, or nothing."""
    t = gc.f32 if dtype is np.float32 else gc.f64
    size = t[2, 200, 16]
    bias = (-slope * np.abs(np.arange(200)[:, None] - np.arange(200))).astype(dtype)

    @gc.graph
    def attend(q: size, k: size, v: size, bias: t[200, 200]):
        return gc.attention(q, k, v, mask=bias)
    q, k, v = np.random.default_rng(0).standard_normal((3, 2, 200, 16)).astype(dtype)
    s = (q @ k.mT).astype(np.float64) / 4 + bias
    p = np.exp(s - s.max(-1, keepdims=True))
    np.testing.assert_allclose(gc.compile(attend)(q, k, v, bias), p / p.sum(-1, keepdims=True) @ v, rtol=1e-4, atol=1e-5)


def test_few_heads_are_parted_and_many_are_not():
    few, many = (compiled(AttentionGrad(), _gradient_arrays(lead, 512)).plan for lead in ((2,), (64,)))
    assert [s.parts for s in few.schedules.values()] == [8] and [s.parts for s in many.schedules.values()] == [1]


@pytest.mark.parametrize("length, narrower", [(256, True), (2048, False)])
def test_tiles_that_cross_the_edge_of_short_triangles_are_narrow(length, narrower):
    def columns(causal):
        b = Builder()
        out, _ = b.attention(*(b.input(name, f32[8, length, 64]) for name in "qkv"), causal=causal)
        plan = Compilation(b.finish([out], ("",)), AVX512).plan
        s, = (s for s in plan.schedules.values() if isinstance(s, AttentionSchedule))
        return s.nr
    assert (columns(True) < columns(False)) == narrower


def test_memory_of_training_is_linear_in_the_length():
    short, long = (compiled(AttentionGrad(causal=True), _gradient_arrays((8,), t)).memory.total for t in (1024, 4096))
    assert long < 4.2 * short


def test_a_gradient_with_shared_keys_is_decomposed():
    q, k, v, out, lse, g = _gradient_arrays((4,), 32)
    assert "attention_grad" not in [n.op.name for n in compiled(AttentionGrad(), (q, k[:1], v[:1], out, lse, g)).fused.nodes]


MASKS = {"keys": (2, 1, 1, 131), "pairs": (131, 131), "heads": (1, 3, 131, 131), "queries": (2, 3, 131, 1), "one": (1, 1)}


def masks_of(shape, dtype):
    """Most may be looked at; some rows see nothing."""
    mask = np.random.default_rng(2).random(shape) < 0.7
    if shape[-2] > 1:
        mask[..., 5, :] = False
    return mask if dtype == bool else np.where(mask, np.random.default_rng(3).standard_normal(shape), -np.inf).astype(dtype)


@pytest.mark.parametrize("kind", (bool, float))
@pytest.mark.parametrize("causal", (False, True))
@pytest.mark.parametrize("shape", MASKS.values(), ids=MASKS)
def test_masks(shape, causal, kind):
    q, k, v = arrays_of((2, 3), 131, 131, 16, 24, np.float32)
    mask = masks_of(shape, bool if kind is bool else np.float32)
    op = Attention(causal=causal)
    c = compiled(op, (q, k, v, mask))
    assert [n.op.name for n in c.fused.nodes] == ["attention"]
    one, three = (Executable(c.build.program, threads).slow(q, k, v, mask) for threads in (1, 3))
    wide = [a.astype(np.float64) for a in (q, k, v)]
    for x, y, expected in zip(one, three, op.reference(*wide, mask if kind is bool else mask.astype(np.float64))):
        assert x.tobytes() == y.tobytes()
        np.testing.assert_allclose(x, expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("causal", (False, True))
@pytest.mark.parametrize("shape", MASKS.values(), ids=MASKS)
def test_gradients_under_masks(shape, causal):
    q, k, v = arrays_of((2, 3), 131, 131, 16, 24, np.float32)
    mask = masks_of(shape, bool)
    out, lse = (x.astype(np.float32) for x in Attention(causal=causal).reference(q, k, v, mask))
    op, g = AttentionGrad(causal=causal), np.random.default_rng(1).standard_normal(out.shape).astype(np.float32)
    c = compiled(op, (q, k, v, mask, out, lse, g))
    assert [n.op.name for n in c.fused.nodes] == ["attention_grad"]
    one, three = (Executable(c.build.program, threads).slow(q, k, v, mask, out, lse, g) for threads in (1, 3))
    for x, y, expected in zip(one, three, op.reference(*(a if a.dtype == bool else a.astype(np.float64) for a in (q, k, v, mask, out, lse, g)))):
        assert x.tobytes() == y.tobytes()
        np.testing.assert_allclose(x, expected, rtol=0, atol=2e-5)


def test_a_row_of_the_least_number_is_the_mean_of_the_values():
    """Added to every score it leaves nothing of them, whatever they are; -inf leaves NaN."""
    q, k, v = arrays_of((), 12, 50, 8, 8, np.float32)
    mask = np.zeros((12, 50), np.float32)
    mask[2], mask[4], mask[6, :49] = np.finfo(np.float32).min, -np.inf, np.finfo(np.float32).min
    out, _ = Executable(compiled(Attention(), (q, k, v, mask)).build.program, 1).slow(q, k, v, mask)
    np.testing.assert_allclose(out[2], v.mean(0), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(out[6], v[49])
    assert np.isnan(out[4]).all() and np.isfinite(np.delete(out, 4, 0)).all()


def test_blocks_of_whole_vectors_under_a_mask():
    """Lengths that are a multiple of a block, and tails of one key."""
    for keys in (72, 144, 288, 289):
        q, k, v = arrays_of((), 40, keys, 8, 8, np.float32)
        mask = masks_of((40, keys), bool)
        out, _ = Executable(compiled(Attention(), (q, k, v, mask)).build.program, 1).slow(q, k, v, mask)
        np.testing.assert_allclose(out, Attention().reference(q, k, v, mask)[0], rtol=0, atol=1e-5)


def test_a_turned_mask():
    @gc.graph
    def f(q: gc.f32[20, 8], m: gc.bool_[20, 20]):
        return gc.attention(q, q, q, mask=m.T)
    q, m = np.random.default_rng(0).standard_normal((20, 8)).astype(np.float32), np.tri(20, dtype=bool).T
    np.testing.assert_allclose(gc.compile(f)(q, m), Attention(causal=True).reference(q, q, q)[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("target", RUNS)
@pytest.mark.parametrize("causal", (False, True))
@pytest.mark.parametrize("shape", (((2,), 5, 300, 40, 33), ((), 9, 97, 16, 64), ((3,), 4, 4, 8, 128)), ids=str)
def test_sums_of_few_queries_are_vectors_of_values(shape, causal, target):
    """Also those of two blocks: nine queries, of which a vector of AVX2 has eight."""
    op, arrays = Attention(causal=causal), arrays_of(*shape, np.float32)
    c = compiled(op, arrays, target)
    schedule, = c.plan.schedules.values()
    assert schedule.by_rows is not None
    one, three = (Executable(c.build.program, threads).slow(*arrays) for threads in (1, 3))
    for x, y, expected in zip(one, three, op.reference(*(a.astype(np.float64) for a in arrays))):
        assert x.tobytes() == y.tobytes()
        np.testing.assert_allclose(x, expected, rtol=0, atol=1e-5)


def _gradient_arrays(lead, t, d=16):
    x = np.zeros((*lead, t, d), np.float32)
    return [x, x, x, x, np.zeros((*lead, t), np.float32), x]


def test_heads_of_a_joint_projection_are_read_where_they_lie():
    @gc.graph
    def heads(x: gc.f32[2, 50, 3, 4, 24]):
        q, k, v = (x[:, :, i].transpose(0, 2, 1, 3) for i in range(3))
        return gc.attention(q, k, v, causal=True)
    x = np.random.default_rng(1).standard_normal((2, 50, 3, 4, 24)).astype(np.float32)
    expected, _ = Attention(causal=True).reference(*(x[:, :, i].transpose(0, 2, 1, 3).astype(np.float64) for i in range(3)))
    np.testing.assert_allclose(gc.compile(heads)(x), expected, rtol=0, atol=1e-5)


def test_large_scores_and_nan():
    q, k, v = arrays_of((), 20, 40, 8, 8, np.float32)
    q[3] *= 1e4
    q[5] = np.nan
    out, _ = Executable(compiled(Attention(), (q, k, v)).build.program, 1).slow(q, k, v)
    expected, _ = Attention().reference(*(a.astype(np.float64) for a in (q, k, v)))
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-5)
    assert np.isnan(out[5]).all() and np.isfinite(np.delete(out, 5, 0)).all()


@pytest.mark.parametrize("shape", (((3, 1), 97, 1, 200, 256), ((3, 1), 33, 17, 20, 5), ((2, 3), 1, 7, 4, 4), ((1, 1), 1, 1, 1, 1)), ids=str)
@pytest.mark.parametrize("causal", (False, True))
def test_gradients_of_odd_shapes(shape, causal):
    """Axes of size 1 beside masks and epilogues."""
    q, k, v = arrays_of(*shape, np.float32)
    types = [TensorType(dtype_of(a), a.shape) for a in (q, k, v)]

    @gc.graph
    def loss(q: types[0], k: types[1], v: types[2]):
        y = gc.attention(q, k, v, causal=causal)
        return gc.sum(y * y)
    grads = gc.grad(loss, wrt=("q", "k", "v"))
    for mine, reference in zip(gc.compile(grads)(q, k, v), evaluate(grads.graph, (q, k, v))):
        np.testing.assert_allclose(mine, reference, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("low", (-np.inf, -1e35, -3e29, -1e20))
@pytest.mark.parametrize("keys", (5, 150), ids=("taken apart", "in blocks"))
@pytest.mark.parametrize("causal", (False, True))
@pytest.mark.parametrize("mask", (None, "bool", "float"))
def test_what_is_hidden_has_no_part_in_a_row_of_low_scores(mask, causal, keys, low):
    """Some queries have nothing but low scores. However low: no hidden key and no later one has a part in their result."""
    rng, n = np.random.default_rng(0), keys
    q, k, v = rng.standard_normal((n, 4)).astype(np.float32), np.ones((n, 4), np.float32), rng.standard_normal((n, 4)).astype(np.float32)
    q[::3] = [low, 0, 0, 0]
    seen = rng.random((n, n)) < 0.5
    masks = {None: [], "bool": [seen], "float": [np.where(seen, 0, -np.inf).astype(np.float32)]}[mask]
    op, arrays = Attention(scale=1.0, causal=causal), [q, k, v, *masks]
    if np.isinf(low):
        k[:, 1:] = 0                                        # 0 * -inf is no score
        q[::3, 1:] = 0
        k[:, 0] = 1
    with np.errstate(all="ignore"):
        wanted = op.reference(*arrays)[0]
        seen = seen if masks else np.ones((n, n), bool)
        seen = np.tril(seen) if causal else seen
        scores = (q @ k.T).astype(np.float64)
        for i in range(n):
            mine = scores[i][seen[i]]
            mean = np.exp(mine - mine.max(initial=-1e300)) @ v[seen[i]] / np.exp(mine - mine.max(initial=-1e300)).sum() if len(mine) else np.nan
            if mask == "bool" and (not len(mine) or mine.max() < -1e30):
                mean = 0
            np.testing.assert_allclose(wanted[i], mean if np.isfinite(scores[i]).any() or mask == "bool" else np.nan, rtol=1e-4, atol=1e-5)
    c = compiled(op, arrays)
    for native in (Executable(c.build.program, 1).slow(*arrays)[0], evaluate(_decomposed(op, arrays), arrays)[0]):
        np.testing.assert_allclose(native, wanted, rtol=1e-4, atol=1e-5)


def _decomposed(op, arrays):
    b = Builder("decomposed")
    return b.finish(op.decompose(b, *(b.input(f"x{i}", TensorType(dtype_of(a), a.shape)) for i, a in enumerate(arrays))), ("", ""))


@pytest.mark.parametrize("causal", (False, True))
def test_gradients_of_rows_of_low_scores_beside_a_bool_mask(causal):
    """Of queries that see nothing but -inf the gradients are 0, and no NaN reaches others."""
    rng, n = np.random.default_rng(0), 150
    q, k, v, g = (rng.standard_normal((n, 4)).astype(np.float32) for _ in range(4))
    q[::3], k[:, 0] = [-1e37, 0, 0, 0], 1
    seen = rng.random((n, n)) < 0.5
    out, lse = Attention(scale=1.0, causal=causal).reference(q, k, v, seen)
    op, arrays = AttentionGrad(scale=1.0, causal=causal), [q, k, v, seen, out, lse, g]
    wanted, c = op.reference(*arrays), compiled(op, arrays)
    assert np.isfinite(wanted[0]).all() and not wanted[0][::3].any()
    for x, y in zip(Executable(c.build.program, 1).slow(*arrays), wanted):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4)
