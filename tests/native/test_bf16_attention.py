"""Attention and its gradient of factors that are rounded to bf16, in pairs, beside the reference that rounds the same in f64."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc import nn, simplification
from graphc.bf16_products import Bf16Products
from graphc.codegen.llvm.host import can_run, host_target
from graphc.compiler import Compilation
from graphc.config import Config
from graphc.ir.builder import Builder
from graphc.ir.ops.attention import Attention, AttentionGrad
from graphc.ir.printer import print_graph
from graphc.ir.types import TensorType, bf16, dtype_of
from graphc.runtime.executable import Executable
from graphc.schedule.attention_support import is_whole
from graphc.schedule.target import AVX2, AVX512_AMX, AVX512_BF16, NEON, SAPPHIRERAPIDS, SSE2

pairs = pytest.mark.skipif(not host_target().multiplies_pairs, reason="this CPU multiplies f32 as fast")
# odd numbers of queries, keys, features and values; one of each; blocks with tails
SHAPES = (((2,), 131, 70, 33, 65), ((2,), 70, 131, 40, 17), ((), 12, 200, 8, 8), ((2, 2), 13, 6, 3, 1), ((1, 2), 200, 200, 64, 64), ((), 40, 1100, 64, 64))
HALF = 2.0 ** -8                        # the largest relative error of a rounded factor


@pytest.fixture(autouse=True)
def whole(monkeypatch):
    """Attention is one kernel, whatever it costs."""
    monkeypatch.setattr(simplification, "is_kept", lambda op, types, beside=None, target=None: is_whole(op, types))


def drawn(lead, tq, tk, d, e) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((*lead, *s)).astype(np.float32) for s in ((tq, d), (tk, d), (tk, e))]


def compiled(op, arrays, *target) -> Compilation:
    b = Builder("attention")
    outs = b.apply(op, [b.input(f"x{i}", TensorType(dtype_of(a), a.shape)) for i, a in enumerate(arrays)])
    return Compilation(b.finish(outs, ("",) * len(outs)), *target)


def run(op, arrays, *target) -> list[np.ndarray]:
    """The same bits for any number of threads."""
    made = compiled(op, arrays, *target)
    assert [n.op.name for n in made.fused.nodes] == [op.name]
    one, three = (Executable(made.build.program, threads).slow(*arrays) for threads in (1, 3))
    assert all(x.tobytes() == y.tobytes() for x, y in zip(one, three))
    return one


def rounded(x: np.ndarray) -> np.ndarray:
    return x.astype(bf16.np).astype(np.float64)


def exact(q, k, v, causal, mask=None, scale=None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """With rounded queries, keys and values, and exact probabilities: output, logsumexp, and the sum of the sizes of what the output is the sum of."""
    scale = 1 / np.sqrt(q.shape[-1]) if scale is None else scale
    s = rounded(q * np.float32(scale / np.log(2))) @ np.swapaxes(rounded(k), -1, -2) * np.log(2)
    seen = np.tril(np.ones(s.shape[-2:], bool)) if causal else np.ones(s.shape[-2:], bool)
    s = np.where(seen if mask is None else seen & mask, s, -np.inf)
    top = s.max(-1, keepdims=True)
    e = np.exp(s - top)
    p = e / e.sum(-1, keepdims=True)
    return p @ rounded(v), (top + np.log(e.sum(-1, keepdims=True)))[..., 0], p @ np.abs(rounded(v))


@pytest.mark.parametrize("causal", (False, True))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_only_the_rounding_of_probabilities_is_left(shape, causal):
    """On this CPU: by the instruction, or in two steps. Scores are exact but for the rounding of f32."""
    arrays = drawn(*shape)
    out, lse = run(Attention(causal=causal, factors=bf16), arrays)
    wanted, wanted_lse, size = exact(*arrays, causal)
    assert (np.abs(out - wanted) <= 1.02 * HALF * size + 1e-6).all() and (np.abs(lse - wanted_lse) <= 2e-6).all()


def exact_gradients(q, k, v, out, lse, dout, causal) -> list[tuple[np.ndarray, np.ndarray]]:
    """The same of dq, dk and dv, with exact gradients of scores: what these lose in f32 is a part of the sizes."""
    scale = 1 / np.sqrt(q.shape[-1])
    s = rounded(q * np.float32(scale / np.log(2))) @ np.swapaxes(rounded(k), -1, -2) * np.log(2)
    p = np.where(np.tril(np.ones(s.shape[-2:], bool)) | (not causal), np.exp(s - lse[..., None]), 0.0)
    (q, k, v, g), delta = map(rounded, (q, k, v, dout)), (dout * out.astype(np.float64)).sum(-1, keepdims=True)
    turned = lambda x: np.swapaxes(x, -1, -2)                                                   # noqa: E731
    ds, lost = p * (g @ turned(v) - delta), p * (np.abs(g) @ turned(np.abs(v)) + np.abs(dout * out).sum(-1, keepdims=True))
    size = np.abs(ds) + 2 ** -12 * lost
    return [(scale * ds @ k, scale * size @ np.abs(k)), (scale * turned(ds) @ q, scale * turned(size) @ np.abs(q)), (turned(p) @ g, turned(p) @ np.abs(g))]


@pytest.mark.parametrize("causal", (False, True))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients(shape, causal):
    """Beside the reference; and element by element no further from exact gradients than the rounding of probabilities and of the scores' gradients goes."""
    arrays = drawn(*shape)
    out, lse = Attention(causal=causal, factors=bf16).reference(*arrays)
    arrays += [out, lse, np.random.default_rng(1).standard_normal(out.shape).astype(np.float32)]
    wide = [a.astype(np.float64) for a in arrays]
    wanted, plain = (AttentionGrad(causal=causal, factors=f).reference(*wide) for f in (bf16, None))
    for y, w, p, (close, bound) in zip(run(AttentionGrad(causal=causal, factors=bf16), arrays), wanted, plain, exact_gradients(*arrays, causal)):
        size = np.linalg.norm(w)
        assert np.linalg.norm(y - w) < 2e-4 * size and np.linalg.norm(p - w) > 5e-4 * size     # the latter is what rounding makes
        assert (np.abs(y - close) <= 1.02 * HALF * bound + 1e-6).all()


def test_an_odd_number_of_keys_whose_scores_are_low():
    """What fills up the last pair of keys has no share, although 2 to the power of 0 less such a logsumexp is infinite."""
    q, k, v = drawn((), 40, 67, 8, 8)
    q, k = q / 10 - 10, k / 10 + 10
    out, lse = Attention(factors=bf16).reference(q, k, v)
    arrays = [q, k, v, out, lse, v[:40]]
    wanted = AttentionGrad(factors=bf16).reference(*(a.astype(np.float64) for a in arrays))
    assert lse.max() < -200
    for y, w in zip(run(AttentionGrad(factors=bf16), arrays), wanted):
        assert np.linalg.norm(y - w) < 0.01 * np.linalg.norm(w)


@pairs
def test_gradients_of_lengths_that_come_with_the_call():
    """Of few and of many keys, by the kernels for both: the same bits in any batch, and those of the reference, given the same output, but for rounding."""
    @gc.graph
    def attention(q: gc.f32["B", "T", 24], k: gc.f32["B", "T", 24], v: gc.f32["B", "T", 24]):
        return gc.attention(q, k, v, causal=True)
    gradients = gc.vjp(attention, wrt=["q", "k", "v"])
    forward, *backward = (gc.compile(f, compute="bf16", threads=n) for f, n in ((attention, 1), (gradients, 1), (gradients, 2)))
    for t in (13, 33, 64, 131):
        arrays = [*drawn((3,), t, t, 24, 24), np.random.default_rng(t).standard_normal((3, t, 24)).astype(np.float32)]
        (q, k, v, g), alone = arrays, backward[0](*(a[1:2] for a in arrays))
        out, lse = forward(q, k, v), Attention(causal=True, factors=bf16).reference(q, k, v)[1]
        wanted = AttentionGrad(causal=True, factors=bf16).reference(*(a.astype(np.float64) for a in (q, k, v, out, lse, g)))
        for y, other, one, w in zip(*(run_(*arrays) for run_ in backward), alone, wanted):
            assert y.tobytes() == other.tobytes() and y[1:2].tobytes() == one.tobytes()
            assert np.linalg.norm(y - w) < 1e-3 * np.linalg.norm(w)


@pytest.mark.parametrize("target", (AVX2, SSE2), ids=lambda t: t.name)
def test_targets_without_the_instruction(target):
    """The same factors, products in two steps."""
    if not can_run(target):
        pytest.skip("this CPU does not run it")
    arrays = drawn((2,), 37, 51, 20, 9)
    out, _ = run(Attention(causal=True, factors=bf16), arrays, target)
    wanted, _, size = exact(*arrays, True)
    assert (np.abs(out - wanted) <= 1.02 * HALF * size + 1e-6).all()


@pytest.mark.parametrize("target", (AVX512_AMX, AVX512_BF16, NEON), ids=lambda t: t.name)
def test_code_of_other_targets(target):
    """Matrix registers take all products."""
    arrays = drawn((2,), 37, 51, 20, 9)
    out, lse = Attention(factors=bf16).reference(*arrays)
    for op, ins in ((Attention(causal=True, factors=bf16), arrays), (AttentionGrad(causal=True, factors=bf16), [*arrays, out, lse, out])):
        text = compiled(op, ins, target, Config()).text("asm")
        assert ("\tvdpbf16ps" in text) == (target is AVX512_BF16) and ("\ttdpbf16ps" in text) == target.has_matrices and len(text) > 1000


@pairs
def test_masks_and_rows_that_see_nothing():
    q, k, v = drawn((3,), 40, 50, 16, 24)
    mask = np.random.default_rng(1).random((3, 40, 50)) < 0.5
    mask[:, 7] = False
    f = gc.compile(lambda q, k, v, m: gc.attention(q, k, v, mask=m), q=gc.f32[q.shape], k=gc.f32[k.shape], v=gc.f32[v.shape],
                   m=gc.bool_[mask.shape], compute="bf16")
    y = f(q, k, v, mask)
    with np.errstate(invalid="ignore"):
        wanted, _, size = exact(q, k, v, False, mask)
    rows = np.arange(40) != 7
    assert (np.abs(y - wanted)[:, rows] <= 1.02 * HALF * size[:, rows] + 1e-6).all() and (y[:, 7] == 0).all()
    assert [(p.bits, p.product.split()[0]) for p in f.quantisation().products] == [(16, "attention")]


@pairs
def test_lengths_that_come_with_the_call():
    """A query's bits do not depend on how many keys there are beyond those that it sees, nor on the batch."""
    net = nn.MultiHeadAttention(2, causal=True)
    run_, plain = (gc.compile(net, x=gc.f32["B", "T", 24], seed=0, compute=c) for c in ("bf16", None))
    x = np.random.default_rng(0).standard_normal((3, 61, 24)).astype(np.float32)
    y = run_(x)
    assert np.linalg.norm(y - plain(x)) < 0.01 * np.linalg.norm(y) and (y != plain(x)).any()
    for t in (13, 30, 60):
        assert run_(x[:, :t]).tobytes() == np.ascontiguousarray(y[:, :t]).tobytes()
    assert run_(x[1:2]).tobytes() == y[1:2].tobytes()


def test_what_is_decomposed_rounds_the_same(monkeypatch):
    """Products in parts."""
    monkeypatch.setattr(simplification, "is_kept", lambda op, types, beside=None, target=None: False)
    q, k, v = drawn((2,), 3, 20, 8, 8)
    made = compiled(Attention(factors=bf16), (q, k, v))
    assert "attention" not in [n.op.name for n in made.fused.nodes]
    out, lse = Executable(made.build.program, 1).slow(q, k, v)
    wanted, wanted_lse, size = exact(q, k, v, False)
    assert (np.abs(out - wanted) <= 1.02 * HALF * size + 1e-6).all() and np.allclose(lse, wanted_lse, atol=2e-6)


def test_what_is_rewritten():
    b = Builder("attention")
    q, k, v = (b.input(name, gc.f32[2, 16, 8]) for name in "qkv")
    graph = b.finish(b.attention(q, k, v)[:1], ("",))
    texts = [print_graph(Bf16Products(target).whole(graph)) for target in (AVX512_BF16, NEON, SAPPHIRERAPIDS)]
    assert "factors=bf16" in texts[0] and not any("factors" in t for t in texts[1:]) and gc.parse(texts[0])
    with pytest.raises(gc.GraphError, match="factors are rounded to bf16, or not, got f16"):
        Attention(factors=gc.f16).infer(gc.f32[2, 3], gc.f32[2, 3], gc.f32[2, 3])


# by rows and by columns, whole register tiles and not; results of queries that see nothing
@pytest.mark.parametrize("factors", [None, pytest.param(bf16, marks=pairs)], ids=str)
def test_hidden_values_are_zero_whatever_they_are(factors):
    op = Attention(factors=factors, hides_values=True)
    for queries, keys, values in ((6, 200, 40), (100, 75, 7)):
        (q, k, v), seen = drawn((3,), queries, keys, 12, values), np.random.default_rng(1).random((3, 1, keys)) < 0.6
        seen[2] = False
        v[~seen[:, 0]] = np.nan
        wanted, found = op.reference(q, k, v, seen)[0], run(op, (q, k, v, seen), host_target())[0]
        assert np.isfinite(found).all() and not found[2].any()
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=4 * HALF if factors else 1e-5)
    with pytest.raises(gc.GraphError, match="the same for all queries"):
        compiled(op, (q, k, v, np.ones((100, 75), bool)))
