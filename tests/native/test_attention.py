"""Attention taken whole against its numpy reference in f64: blocks with tails, strided views, broadcast heads, the same bits for any number of threads."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.compiler import Compilation
from graphc.ir.builder import Builder
from graphc.ir.interp import evaluate
from graphc.ir.ops.attention import Attention, AttentionGrad
from graphc.ir.types import TensorType, dtype_of
from graphc.runtime.executable import Executable

SHAPES = (((2,), 131, 70, 33, 65), ((2,), 70, 131, 40, 17), ((), 1, 200, 8, 8), ((3, 1), 97, 1, 200, 256), ((2, 2), 5, 6, 3, 1), ((1, 2), 200, 200, 64, 64))


def arrays_of(lead, tq, tk, d, e, dtype):
    rng = np.random.default_rng(0)
    return [rng.standard_normal((*lead, *s)).astype(dtype) for s in ((tq, d), (tk, d), (tk, e))]


def compiled(op, arrays):
    b = Builder("attention")
    outs = b.apply(op, [b.input(f"x{i}", TensorType(dtype_of(a), a.shape)) for i, a in enumerate(arrays)])
    return Compilation(b.finish(outs, ("",) * len(outs)))


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
@pytest.mark.parametrize("causal", (False, True))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_blocks_are_the_reference(shape, causal, dtype):
    op, arrays = Attention(causal=causal), arrays_of(*shape, dtype)
    c = compiled(op, arrays)
    assert [n.op.name for n in c.fused.nodes] == ["attention"]
    one, three = (Executable(c.built.program, threads).slow(*arrays) for threads in (1, 3))
    for x, y, expected in zip(one, three, op.reference(*(a.astype(np.float64) for a in arrays))):
        assert x.tobytes() == y.tobytes()
        np.testing.assert_allclose(x, expected, rtol=0, atol=1e-5 if dtype == np.float32 else 1e-13)


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
@pytest.mark.parametrize("causal", (False, True))
@pytest.mark.parametrize("shape", (*SHAPES, ((), 700, 300, 16, 24), ((40,), 9, 20, 8, 8)), ids=str)
def test_blocks_of_the_gradient_are_the_reference(shape, causal, dtype):
    q, k, v = arrays_of(*shape, dtype)
    out, lse = (x.astype(dtype) for x in Attention(causal=causal).reference(q, k, v))
    op, arrays = AttentionGrad(causal=causal), [q, k, v, out, lse, np.random.default_rng(1).standard_normal(out.shape).astype(dtype)]
    c = compiled(op, arrays)
    assert [n.op.name for n in c.fused.nodes] == ["attention_grad"]
    one, three = (Executable(c.built.program, threads).slow(*arrays) for threads in (1, 3))
    for x, y, expected in zip(one, three, op.reference(*(a.astype(np.float64) for a in arrays))):
        assert x.tobytes() == y.tobytes()
        np.testing.assert_allclose(x, expected, rtol=0, atol=2e-5 if dtype == np.float32 else 1e-12)


def test_few_heads_are_parted_and_many_are_not():
    few, many = (compiled(AttentionGrad(), _gradient_arrays(lead, 512)).plan for lead in ((2,), (64,)))
    assert [s.parts for s in few.schedules.values()] == [8] and [s.parts for s in many.schedules.values()] == [1]


def test_memory_of_training_is_linear_in_the_length():
    short, long = (compiled(AttentionGrad(causal=True), _gradient_arrays((8,), t)).memory.total for t in (1024, 4096))
    assert long < 4.2 * short


def test_a_gradient_with_a_mask_or_shared_keys_is_decomposed():
    q, k, v, out, lse, g = _gradient_arrays((4,), 32)
    mask = np.ones((32, 32), bool)
    for arrays in ((q, k, v, mask, out, lse, g), (q, k[:1], v[:1], out, lse, g)):
        assert "attention_grad" not in [n.op.name for n in compiled(AttentionGrad(), arrays).fused.nodes]


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
    out, _ = Executable(compiled(Attention(), (q, k, v)).built.program, 1).slow(q, k, v)
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
