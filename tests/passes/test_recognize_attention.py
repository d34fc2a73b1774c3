"""Attention that is spelled out becomes the operator: which spellings do, which must not, numbers against numpy, memory."""
from __future__ import annotations

import math

import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim
from graphc.analysis.mask_analysis import MaskFacts, Number, Ramp, TriangleStep
from graphc.compiler import Compilation
from graphc.dsl.array import as_array
from graphc.ir.interp import evaluate

B, H, T, S, D, E = 2, 3, 37, 50, 16, 8
Q, K, V = gc.f32[B, H, T, D], gc.f32[B, H, S, D], gc.f32[B, H, S, E]
FILL = np.finfo(np.float32).min


def arrays(*types, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(t.shape).astype(np.float32) for t in types]


def operators(f) -> list[str]:
    """Names of the simplified graph's operators."""
    return [node.op.name for node in Compilation(f.graph).simplified.nodes]


def attention_of(f):
    found = [node.op for node in Compilation(f.graph).simplified.nodes if node.op.name == "attention"]
    assert len(found) == 1 and not {"exp", "softmax"} & set(operators(f)), operators(f)
    return found[0]


def expected(q, k, v, scale=1.0, causal=False):
    """softmax(q kᵀ scale) v in f64."""
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    s = q @ np.swapaxes(k, -1, -2) * scale
    s = np.where(np.tri(*s.shape[-2:], dtype=bool), s, -np.inf) if causal else s
    p = np.exp(s - s.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True) @ v


def swapped(x):
    return x.transpose(*range(x.ndim - 2), x.ndim - 1, x.ndim - 2)


# ---- spellings of the product and the scale

def plain(q, k, v):
    return gc.softmax(q @ swapped(k) / math.sqrt(D)) @ v


def by_einsum(q, k, v):
    p = gc.softmax(gc.einsum("bhqd,bhkd->bhqk", q, k) * D ** -0.5)
    return gc.einsum("bhqk,bhkd->bhqd", p, v)


def operands_of_einsum_exchanged(q, k, v):
    p = gc.softmax(gc.einsum("bhkd,bhqd->bhqk", k, q) * D ** -0.5)
    return gc.einsum("bhke,bhqk->bhqe", v, p)


def ellipsis(q, k, v):
    p = gc.softmax(gc.einsum("...qd,...kd->...qk", q, k) / D ** 0.5)
    return gc.einsum("...qk,...kd->...qd", p, v)


def queries_scaled(q, k, v):
    return gc.softmax((q * D ** -0.5) @ swapped(k)) @ v


def keys_scaled_behind_a_transpose(q, k, v):
    return gc.softmax(q @ (swapped(k) / math.sqrt(D))) @ v


def both_scaled(q, k, v):
    return gc.softmax((q * D ** -0.25) @ swapped(k * D ** -0.25)) @ v


def scaled_by_a_root_in_the_graph(q, k, v):
    return gc.softmax(q @ swapped(k) / gc.sqrt(gc.full((), float(D), q.dtype))) @ v


def softmax_in_parts(q, k, v):
    s = q @ swapped(k) / math.sqrt(D)
    e = gc.exp(s - s.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True) @ v


def softmax_in_parts_without_keepdims(q, k, v):
    s = q @ swapped(k) / math.sqrt(D)
    e = gc.exp(s - gc.expand_dims(gc.stop_gradient(s.max(-1)), -1))
    return e * (1 / gc.expand_dims(e.sum(-1), -1)) @ v


def by_log_softmax(q, k, v):
    return gc.exp(gc.log_softmax(q @ swapped(k) * D ** -0.5)) @ v


def by_logsumexp(q, k, v):
    s = q @ swapped(k) * D ** -0.5
    return gc.exp(s - gc.logsumexp(s, -1, keepdims=True)) @ v


def negated_twice(q, k, v):
    return gc.softmax(-((-q) @ swapped(k)) / math.sqrt(D)) @ v


SPELLINGS = (plain, by_einsum, operands_of_einsum_exchanged, ellipsis, queries_scaled, keys_scaled_behind_a_transpose, both_scaled,
             scaled_by_a_root_in_the_graph, softmax_in_parts, softmax_in_parts_without_keepdims, by_log_softmax, by_logsumexp, negated_twice)


def traced(body, *types):
    """The graph of a function of q, k, v."""
    names = "qkv"[:len(types)]
    body.__annotations__ = dict(zip(names, types))
    return gc.graph(body)


@pytest.mark.parametrize("spelled", SPELLINGS, ids=lambda f: f.__name__)
def test_spellings(spelled):
    f = traced(spelled, Q, K, V)
    op = attention_of(f)
    assert not op.causal and math.isclose(op.scale, D ** -0.5, rel_tol=1e-6)
    args = arrays(Q, K, V)
    np.testing.assert_allclose(gc.compile(f)(*args), expected(*args, scale=D ** -0.5), rtol=0, atol=1e-5)


@pytest.mark.parametrize("spelled", SPELLINGS, ids=lambda f: f.__name__)
def test_gradients_of_spellings(spelled):
    """Through the operator, so that no array of the size of the scores is left; against the gradient of plain matmuls in f64."""
    loss, reference = loss_of(spelled, gc.f32), loss_of(spelled, gc.f64)
    wrt = ("q", "k", "v")
    f = gc.value_and_grad(loss, wrt=wrt)
    names = operators(f)
    assert (names.count("attention"), names.count("attention_grad"), names.count("exp")) == (1, 1, 0)
    args = [a * 0.5 for a in arrays(Q, K, V)]
    for mine, exact in zip(gc.compile(f)(*args), differences(reference, args)):
        np.testing.assert_allclose(mine, exact, rtol=0, atol=2e-5 * max(1.0, abs(exact).max()))


def loss_of(spelled, dtype):
    q, k, v = (dtype[t.shape] for t in (Q, K, V))

    @gc.graph
    def loss(q: q, k: k, v: v):
        y = spelled(q, k, v)
        return gc.sum(y * y)
    return loss


def differences(f, args):
    """The value, and gradients of plain numpy: y = p v, p = softmax(s)."""
    q, k, v = (a.astype(np.float64) for a in args)
    s = q @ np.swapaxes(k, -1, -2) * D ** -0.5
    p = np.exp(s - s.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    y = p @ v
    value, = evaluate(f.graph, [a.astype(np.float64) for a in args])
    np.testing.assert_allclose(value, np.sum(y * y), rtol=1e-10)
    dp = 2 * y @ np.swapaxes(v, -1, -2)
    ds = p * (dp - np.sum(dp * p, -1, keepdims=True)) * D ** -0.5
    return value, ds @ k, np.swapaxes(ds, -1, -2) @ q, np.swapaxes(p, -1, -2) @ (2 * y)


# ---- layouts

def heads_inside(q, k, v):
    p = gc.softmax(gc.einsum("bqhd,bkhd->bhqk", q, k) * D ** -0.5)
    return gc.einsum("bhqk,bkhd->bqhd", p, v)


def scores_with_heads_inside(q, k, v):
    p = gc.softmax(gc.einsum("bqhd,bkhd->bqhk", q, k) * D ** -0.5)
    return gc.einsum("bqhk,bkhd->bqhd", p, v)


@pytest.mark.parametrize("spelled", (heads_inside, scores_with_heads_inside), ids=lambda f: f.__name__)
def test_heads_inside(spelled):
    f = traced(spelled, gc.f32[B, T, H, D], gc.f32[B, S, H, D], gc.f32[B, S, H, E])
    attention_of(f)
    q, k, v = arrays(*(x.type for x in f.graph.inputs))
    turned = expected(*(x.transpose(0, 2, 1, 3) for x in (q, k, v)), scale=D ** -0.5)
    np.testing.assert_allclose(gc.compile(f)(q, k, v), turned.transpose(0, 2, 1, 3), rtol=0, atol=1e-5)


def test_keys_of_one_head_serve_all():
    @gc.graph
    def f(q: Q, k: gc.f32[B, S, D], v: gc.f32[B, S, E]):
        p = gc.softmax(gc.einsum("bhqd,bkd->bhqk", q, k))
        return gc.einsum("bhqk,bkd->bhqd", p, v)
    attention_of(f)
    q, k, v = arrays(*(x.type for x in f.graph.inputs))
    np.testing.assert_allclose(gc.compile(f)(q, k, v), expected(q, k[:, None], v[:, None]), rtol=0, atol=1e-5)


def test_matrices_and_broadcast_batches():
    for shapes in (((T, D), (S, D), (S, E)), ((5, T, D), (S, D), (5, S, E)), ((5, T, D), (1, S, D), (S, E)), ((2, 1, T, D), (3, S, D), (2, 3, S, E))):
        f = traced(lambda q, k, v: gc.softmax(q @ swapped(k)) @ v, *(gc.f32[s] for s in shapes))
        attention_of(f)
        args = arrays(*(x.type for x in f.graph.inputs))
        np.testing.assert_allclose(gc.compile(f)(*args), expected(*args), rtol=0, atol=1e-5)


def test_projections_of_one_array():
    """Keys that were transposed together with the heads are found as they are."""
    @gc.graph
    def f(x: gc.f32[B, T, 3, H, D]):
        q, k, v = x[:, :, 0].transpose(0, 2, 1, 3), x[:, :, 1].transpose(0, 2, 3, 1), x[:, :, 2].transpose(0, 2, 1, 3)
        return (gc.softmax(q @ k / 4) @ v).transpose(0, 2, 1, 3)
    attention_of(f)
    x, = arrays(f.graph.inputs[0].type)
    q, k, v = (x[:, :, i].transpose(0, 2, 1, 3) for i in range(3))
    np.testing.assert_allclose(gc.compile(f)(x), expected(q, k, v, 0.25).transpose(0, 2, 1, 3), rtol=0, atol=1e-5)


# ---- causal masks

def index_compared(t, s):
    return gc.arange(t)[:, None] >= gc.arange(s)[None, :]


CAUSAL = {
    "where tril": lambda s: gc.where(gc.tril(gc.ones(s.shape[-2:])) != 0, s, -np.inf),
    "where tril of bool": lambda s: gc.where(gc.tril(gc.ones(s.shape[-2:], gc.bool_)), s, FILL),
    "where indices": lambda s: gc.where(index_compared(*s.shape[-2:]), s, -1e9),
    "later keys": lambda s: gc.where(gc.arange(s.shape[-1]) > gc.expand_dims(gc.arange(s.shape[-2]), 1), -1e10, s),
    "distance": lambda s: gc.where(gc.iota(s.shape, 2) - gc.iota(s.shape, 3) >= 0, s, -np.inf),
    "not tril": lambda s: gc.where(gc.tril(gc.ones(s.shape[-2:])) == 0, -np.inf, s),
    "with the batch": lambda s: gc.where(gc.tril(gc.ones((1, 1, *s.shape[-2:]))) != 0, s, -np.inf),
    "numpy": lambda s: gc.where(np.tri(*s.shape[-2:], dtype=bool), s, -np.inf),
    "cut from a longer one": lambda s: gc.where(as_array(np.tri(64, 64, dtype=bool))[:s.shape[-2], :s.shape[-1]], s, -np.inf),
    "added": lambda s: s + gc.where(index_compared(*s.shape[-2:]), 0.0, -np.inf),
    "triu added": lambda s: gc.triu(gc.full(s.shape[-2:], -np.inf), 1) + s,
    "ones minus tril": lambda s: s - (1 - gc.tril(gc.ones(s.shape[-2:]))) * 1e9,
    "numpy added": lambda s: s + np.triu(np.full(s.shape[-2:], -np.inf, np.float32), 1),
    "twice": lambda s: gc.where(index_compared(*s.shape[-2:]), gc.where(index_compared(*s.shape[-2:]), s, -np.inf), -np.inf),
}


@pytest.mark.parametrize("first", (True, False), ids=("scaled first", "masked first"))
@pytest.mark.parametrize("name", CAUSAL)
def test_causal_masks(name, first):
    def spelled(q, k, v):
        s = q @ swapped(k)
        return gc.softmax(CAUSAL[name](s / 4.0) if first else CAUSAL[name](s) * 2.0) @ v
    f = traced(spelled, Q, K, V)
    assert attention_of(f).causal
    args = arrays(Q, K, V)
    np.testing.assert_allclose(gc.compile(f)(*args), expected(*args, 0.25 if first else 2.0, causal=True), rtol=0, atol=1e-5)


def test_a_causal_mask_between_two_scales():
    f = traced(lambda q, k, v: gc.softmax(gc.where(index_compared(T, S), (q * 0.5) @ swapped(k) * 0.25, -np.inf) * 3.0) @ v, Q, K, V)
    op = attention_of(f)
    assert op.causal and op.scale == 0.375


def test_named_lengths():
    @gc.graph
    def loss(q: gc.f32["B", "T", 8], k: gc.f32["B", "T", 8], v: gc.f32["B", "T", 8]):
        t = q.shape[-2]
        s = gc.where(gc.arange(t)[:, None] >= gc.arange(t), gc.einsum("bqd,bkd->bqk", q, k), -np.inf)
        y = gc.softmax(s) @ v
        return gc.sum(y * y)
    f = gc.grad(loss, wrt="q")
    assert {"attention", "attention_grad"} <= {n.op.name for n in f.graph.nodes}
    q, k, v = (a * 0.3 for a in arrays(*[gc.f32[2, 21, 8]] * 3))
    mine = gc.compile(f)(q, k, v)
    reference, = evaluate(gc.grad(_whole_loss(), wrt="q").graph, (q, k, v))
    np.testing.assert_allclose(mine, reference, rtol=0, atol=1e-5)


def _whole_loss():
    @gc.graph
    def loss(q: gc.f32[2, 21, 8], k: gc.f32[2, 21, 8], v: gc.f32[2, 21, 8]):
        y = gc.attention(q, k, v, causal=True, scale=1.0)
        return gc.sum(y * y)
    return loss


# ---- other masks

def seen_keys(batch, keys):
    """bool [B, 1, 1, S]: nothing of the first sequence, all of the last."""
    return gc.arange(keys).reshape(1, 1, 1, keys) < gc.arange(batch).reshape(batch, 1, 1, 1) * keys


MASKS = {
    "padding": (lambda s: gc.where(seen_keys(B, S), s, -np.inf), False),
    "padding by a large number": (lambda s: gc.where(seen_keys(B, S), s, -1e9), False),
    "hidden keys": (lambda s: gc.where(gc.arange(S) >= 40, -np.inf, s), False),
    "window": (lambda s: gc.where(gc.abs(gc.arange(T)[:, None] - gc.arange(S)) < 4, s, FILL), False),
    "earlier keys only": (lambda s: gc.where(gc.arange(T)[:, None] > gc.arange(S), s, -np.inf), False),
    "earlier keys, by a large number": (lambda s: gc.where(gc.arange(T)[:, None] > gc.arange(S), s, -1e9), False),
    "one key more": (lambda s: gc.where(gc.tril(gc.ones((T, S)), 1) != 0, s, -1e9), False),
    "by head": (lambda s: gc.where(gc.arange(H).reshape(H, 1, 1) >= gc.arange(S), s, -1e9), False),
    "padding and causal": (lambda s: gc.where(index_compared(T, S), gc.where(seen_keys(B, S), s, -np.inf), -np.inf), True),
    "causal and left padding": (lambda s: gc.where(gc.arange(S) > 4, gc.where(index_compared(T, S), s, -1e9), -1e9), True),
    "two masks": (lambda s: gc.where(gc.arange(T)[:, None] > 4, gc.where(seen_keys(B, S), s, -1e9), -1e9), False),
    "added": (lambda s: s + gc.where(seen_keys(B, S), 0.0, FILL), False),
    "added infinity": (lambda s: s + gc.where(seen_keys(B, S), 0.0, -np.inf), False),
    "distance": (lambda s: s - gc.abs(gc.arange(T)[:, None] - gc.arange(S)).astype(s.dtype) * 0.1, False),
    "distance and causal": (lambda s: gc.where(index_compared(T, S), s - 0.1 * (gc.arange(T)[:, None] - gc.arange(S)).astype(s.dtype), -np.inf), True),
}


def masked(name, types, scale):
    return traced(lambda q, k, v: gc.softmax(MASKS[name][0](q @ swapped(k) / 4.0) * scale) @ v, *types)


@pytest.mark.parametrize("scale", (1.0, 2.0), ids=("", "scaled after"))
@pytest.mark.parametrize("name", MASKS)
def test_masks(name, scale):
    """Rows that are hidden whole included: NaN after -inf, the mean of the values after a large number."""
    f = masked(name, (Q, K, V), scale)
    assert attention_of(f).causal is MASKS[name][1]
    args = arrays(Q, K, V)
    np.testing.assert_allclose(gc.compile(f)(*args), evaluate(f.graph, args)[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", MASKS)
def test_gradients_under_masks(name):
    """Under a mask that hides, no scores are kept; where numbers are added, they are."""
    added = "added" in name or "distance" in name
    types = gc.f32[B, H, T, D], gc.f32[B, H, S, D], gc.f32[B, H, S, E]
    f = gc.grad(traced(lambda q, k, v: gc.sum(gc.softmax(MASKS[name][0](q @ swapped(k) / 4.0)) @ v * gc.cos(gc.iota((T, E), 0, gc.f32))), *types), wrt=("q", "k", "v"))
    assert ({"attention", "attention_grad"} <= set(operators(f))) is not added and ("exp" in operators(f)) is added
    args = arrays(*types)
    for mine, reference in zip(gc.compile(f)(*args), by_softmax(name, args, added)):
        np.testing.assert_allclose(mine, reference, rtol=0, atol=1e-4)


def by_softmax(name, args, added):
    """The gradients as numpy has them, from the masked scores that the graph makes."""
    q, k, v = (a.astype(np.float64) for a in args)
    scores = traced(lambda q, k: MASKS[name][0](q @ swapped(k) / 4.0), Q, K)
    s = evaluate(scores.graph, args[:2])[0].astype(np.float64)
    g = np.cos(np.arange(T))[:, None] * np.ones((B, H, T, E))
    with np.errstate(all="ignore"):
        p = np.exp(s - s.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        ds = p * (g @ np.swapaxes(v, -1, -2) - np.sum(g * (p @ v), -1, keepdims=True)) / 4
    ds = ds if added else np.where(s > -1e8, ds, 0)
    return ds @ k, np.swapaxes(ds, -1, -2) @ q, np.swapaxes(p, -1, -2) @ g


def test_a_bias_that_is_trained_gets_its_gradient():
    """The scores are kept then."""
    @gc.graph
    def loss(q: gc.f32[19, 4], k: gc.f32[19, 4], v: gc.f32[19, 3], bias: gc.f32[19, 19]):
        y = gc.softmax(q @ k.T + bias) @ v
        return gc.sum(y * y)
    args = arrays(*(x.type for x in loss.graph.inputs))
    assert "attention" in operators(loss)
    f = gc.grad(loss, wrt=("q", "bias"))
    q, k, v, bias = (a.astype(np.float64) for a in args)
    s = q @ k.T + bias
    p = np.exp(s - s.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    ds = p * (2 * p @ v @ v.T - np.sum(2 * (p @ v) * (p @ v), -1, keepdims=True))
    for mine, reference in zip(gc.compile(f)(*args), (ds @ k, ds)):
        np.testing.assert_allclose(mine, reference, rtol=0, atol=1e-5)


# ---- what is something else

def scores_returned(q, k, v):
    s = q @ swapped(k)
    return gc.softmax(s) @ v, s


def probabilities_returned(q, k, v):
    p = gc.softmax(q @ swapped(k))
    return p @ v, gc.max(p)


def over_queries(q, k, v):
    return gc.softmax(q @ swapped(k), axis=-2) @ v


def with_dropout(q, k, v):
    return gc.dropout(gc.softmax(q @ swapped(k)), 0.1) @ v


def masked_after_softmax(q, k, v):
    p = gc.softmax(q @ swapped(k))
    return gc.where(gc.tril(gc.ones((T, S))) != 0, p, 0.0) @ v


def small_fill(q, k, v):
    return gc.softmax(gc.where(index_compared(T, S), q @ swapped(k), -1e4)) @ v


def fill_made_small(q, k, v):
    return gc.softmax(gc.where(index_compared(T, S), q @ swapped(k), -1e9) * 1e-6) @ v


def turned_upside_down(q, k, v):
    return gc.softmax(gc.where(index_compared(T, S), q @ swapped(k), -1e9) * -1.0) @ v


def two_fills(q, k, v):
    """A row of which all is hidden would look where the larger number is."""
    s = gc.where(gc.arange(S) < 3, q @ swapped(k), -1e10)
    return gc.softmax(gc.where(gc.arange(S) > 5, s, -1e9)) @ v


def bias_on_a_finite_fill(q, k, v):
    s = gc.where(gc.arange(S) < 3, q @ swapped(k), -1e10)
    return gc.softmax(s + gc.iota((T, S), 1, gc.f32)) @ v


def bias_of_a_layer(q, k, v):
    return gc.softmax(q @ swapped(k) + gc.arange(S).astype(gc.f32)) @ v


def without_maximum(q, k, v):
    e = gc.exp(q @ swapped(k))
    return e / e.sum(-1, keepdims=True) @ v


def other_total(q, k, v):
    s = q @ swapped(k)
    e = gc.exp(s - s.max(-1, keepdims=True))
    return e / (e.sum(-1, keepdims=True) + 1) @ v


def scaled_by_zero(q, k, v):
    return gc.softmax(q @ swapped(k) * 0.0) @ v


def scaled_by_key(q, k, v):
    return gc.softmax(q @ swapped(k) * gc.arange(S).astype(gc.f32)) @ v


def two_axes_summed(q, k, v):
    p = gc.softmax(gc.einsum("bhqd,bhkd->bqk", q, k))
    return gc.einsum("bqk,bhkd->bhqd", p, v)


def summed_over_heads(q, k, v):
    return gc.einsum("bhqk,bhkd->bqd", gc.softmax(q @ swapped(k)), v)


def values_of_each_query(q, k, v):
    p = gc.softmax(q @ swapped(k))
    return gc.einsum("bhqk,bhqkd->bhqd", p, gc.broadcast_to(gc.expand_dims(v, 2), (B, H, T, S, E)) * 2.0)


OTHERS = (scores_returned, probabilities_returned, over_queries, with_dropout, masked_after_softmax, small_fill, fill_made_small, turned_upside_down,
          without_maximum, two_fills, bias_on_a_finite_fill, bias_of_a_layer, other_total, scaled_by_zero, scaled_by_key,
          two_axes_summed, summed_over_heads, values_of_each_query)


@pytest.mark.parametrize("spelled", OTHERS, ids=lambda f: f.__name__)
def test_other_things_stay(spelled):
    f = traced(spelled, Q, K, V)
    assert "attention" not in operators(f)
    if spelled is not with_dropout:
        for mine, reference in zip(_tuple(gc.compile(f)(*arrays(Q, K, V))), evaluate(f.graph, arrays(Q, K, V))):
            np.testing.assert_allclose(mine, reference, rtol=1e-4, atol=1e-4)


def _tuple(x):
    return x if isinstance(x, tuple) else (x,)


def test_a_matrix_against_another_sum_is_no_attention():
    """The probabilities are summed over queries, or stand on the wrong side."""
    square = gc.f32[16, 16]
    for body in (lambda q, k, v: swapped(gc.softmax(q @ k)) @ v, lambda q, k, v: v @ gc.softmax(q @ k), lambda q, k, v: v @ swapped(gc.softmax(q @ k)) @ q):
        f = traced(body, square, square, square)
        assert "attention" not in operators(f)


def test_a_product_without_a_transpose_is_attention_with_other_keys():
    square = gc.f32[16, 16]
    f = traced(lambda q, k, v: gc.softmax(q @ k) @ v, square, square, square)
    attention_of(f)
    q, k, v = arrays(square, square, square)
    np.testing.assert_allclose(gc.compile(f)(q, k, v), expected(q, k.T, v), rtol=0, atol=1e-5)


# ---- gradients

def test_probabilities_in_the_loss_too():
    """Where the loss looks at the probabilities as well, gradients through both add up."""
    def body(q, k, v):
        p = gc.softmax(gc.einsum("qd,kd->qk", q, k))
        y = p @ v
        return gc.sum(y * y) + gc.sum(p * gc.log(p))
    types = gc.f32[19, 4], gc.f32[21, 4], gc.f32[21, 5]
    f = gc.grad(traced(body, *types), wrt=("q", "k", "v"))
    wide = gc.grad(traced(body, *(gc.f64[t.shape] for t in types)), wrt=("q", "k", "v"))
    args = arrays(*types)
    for mine, reference in zip(gc.compile(f)(*args), evaluate(wide.graph, [a.astype(np.float64) for a in args])):
        np.testing.assert_allclose(mine, reference, rtol=0, atol=1e-4)


def test_the_gradient_of_a_gradient():
    q, k, v = (a * 0.5 for a in arrays(gc.f64[17, 4], gc.f64[17, 4], gc.f64[17, 3]))

    def second(attend):
        def loss(q, k, v):
            y = attend(q, k, v)
            return gc.sum(y * y * y)
        return gc.hvp(traced(loss, gc.f64[17, 4], gc.f64[17, 4], gc.f64[17, 3]), wrt=("q", "k"))
    spelled = second(lambda q, k, v: gc.softmax(gc.where(gc.tril(gc.ones((17, 17))) != 0, q @ k.T, -np.inf)) @ v)
    whole = second(lambda q, k, v: gc.attention(q, k, v, causal=True, scale=1.0))
    args = [x.astype(np.float64) for x in (q, k, v, k, q)]
    for mine, reference in zip(gc.compile(spelled)(*args), evaluate(whole.graph, args)):
        np.testing.assert_allclose(mine, reference, rtol=1e-8, atol=1e-10)


def test_a_gradient_towards_the_scores_is_not_cut():
    """wrt names a value between the products."""
    @gc.graph
    def loss(q: gc.f32[15, 4], k: gc.f32[16, 4], v: gc.f32[16, 3]):
        kt = gc.name(k.T, "kt")
        y = gc.softmax(q @ kt) @ v
        return gc.sum(y * y)
    args = arrays(*(x.type for x in loss.graph.inputs))
    towards_kt, towards_k = gc.compile(gc.grad(loss, wrt="kt"))(*args), gc.compile(gc.grad(loss, wrt="k"))(*args)
    np.testing.assert_allclose(towards_kt, towards_k.T, rtol=0, atol=1e-5)
    assert np.abs(towards_k).max() > 0.01


class OwnHead(nn.Module):
    """A causal head as a user writes it."""

    def __init__(self, size: int):
        super().__init__()
        self.key, self.query, self.value = (nn.Linear(size, bias=False) for _ in range(3))

    def forward(self, x):
        t, k, q = x.shape[-2], self.key(x), self.query(x)
        s = q @ swapped(k) * k.shape[-1] ** -0.5
        s = gc.where(gc.tril(gc.ones((t, t))) != 0, s, -np.inf)
        return gc.softmax(s) @ self.value(x)


def test_training():
    """One attention forward, one backward; and the loss falls."""
    x = np.random.default_rng(0).standard_normal((4, 24, 8)).astype(np.float32)
    step = gc.train_step(nn.Linear(16) >> OwnHead(16) >> nn.Linear(8), loss=nn.mse, optimizer=optim.Adam(1e-2), x=gc.f32[4, 24, 8], y=gc.f32[4, 24, 8])
    nodes = Compilation(step.graph).simplified.nodes
    assert [node.op.name for node in nodes].count("attention") == 1 and not [v for node in nodes for v in node.outputs if v.type.shape[-2:] == (24, 24)]
    y = np.cumsum(x, axis=1) / np.arange(1, 25, dtype=np.float32)[:, None]
    losses = [step(x, y) for _ in range(60)]
    assert losses[-1] < 0.5 * losses[0]


# ---- promises

def _training_graph(t):
    @gc.graph
    def loss(q: gc.f32[4, t, 32], k: gc.f32[4, t, 32], v: gc.f32[4, t, 32]):
        y = gc.softmax(gc.where(gc.tril(gc.ones((t, t))) != 0, q @ swapped(k) / 6.0, -np.inf)) @ v
        return gc.sum(y * y)
    return gc.value_and_grad(loss, wrt=("q", "k", "v"))


def test_the_same_bits_for_any_number_of_threads():
    f = _training_graph(300)
    args = arrays(*(v.type for v in f.graph.inputs))
    runs = [gc.compile(f, threads=n)(*args) for n in (1, 2, 3, 4)]
    for other in runs[1:]:
        assert [x.tobytes() for x in other] == [x.tobytes() for x in runs[0]]


def test_memory_is_linear_in_the_length():
    short, long = (Compilation(_training_graph(t).graph).memory.total for t in (1024, 4096))
    assert long < 4.2 * short


def test_large_scores_do_not_overflow():
    f = traced(plain, *[gc.f32[20, D]] * 3)
    q, k, v = arrays(*[gc.f32[20, D]] * 3)
    np.testing.assert_allclose(gc.compile(f)(q * 1e3, k, v), expected(q * 1e3, k, v, D ** -0.5), rtol=0, atol=1e-3)


# ---- what is known of masks

def test_facts():
    t = 7

    @gc.graph
    def f(x: gc.f32[t]):
        i = gc.arange(t)
        return (gc.tril(gc.ones((t, t)), -1), (1 - gc.tril(gc.ones((t, t)))) * -1e9, gc.iota((t, t), 0) + 2 > gc.iota((t, t), 1), (i[:, None] >= i).T,
                (gc.iota((9, 9), 0) >= gc.iota((9, 9), 1))[2:9, 1:8], gc.triu(gc.ones((t, t), gc.bool_), 2), gc.arange(3, 3 + t), gc.full((t,), 2.5) * 2,
                as_array(np.full((2, 3), True)), as_array(np.tri(t, t, 2)), i % 2, x, as_array(np.eye(t, dtype=np.float32)), i[:, None] >= 2 * i)
    facts = MaskFacts()
    found = [facts(v) for v in f.graph.outputs]
    kinds = [TriangleStep] * 6 + [Ramp, Number, Number, TriangleStep] + [type(None)] * 4
    assert [type(x) for x in found] == kinds
    for known, array in zip(found, evaluate(f.graph, [np.zeros(t, np.float32)])):
        if isinstance(known, TriangleStep):
            np.testing.assert_array_equal(np.where(np.tri(t, t, known.diagonal, dtype=bool), known.lower, known.upper), array)
