"""Recurrent layers with lengths and states, attention in all its forms, Transformer blocks and position embeddings against PyTorch."""
import math

import numpy as np
import pytest
import torch
from layer_peers import RANDOM, Case, check_first, check_second, normal

import graphc as gc
from graphc import nn

pytestmark = pytest.mark.peers
T, F = torch.nn, torch.nn.functional
LENGTHS = np.int32([3, 6, 1, 4])        # of sequences of at most 6 or 7 steps


def packed(m, x, *rest):
    """PyTorch's recurrent layer on a padded batch; the last input is the lengths, those before it the state."""
    *state, n = rest
    p = T.utils.rnn.pack_padded_sequence(x, n, batch_first=m.batch_first, enforce_sorted=False)
    y, h = m(p, *([] if not state else [state[0] if len(state) == 1 else tuple(state)]))
    return T.utils.rnn.pad_packed_sequence(y, batch_first=m.batch_first, total_length=x.shape[1 if m.batch_first else 0])[0], h


def ours(net, x, *rest):
    *state, n = rest
    return net(x, None if not state else state[0] if len(state) == 1 else tuple(state), return_state=True, lengths=n)


PEERS = {"rnn": (nn.RNN, T.RNN), "gru": (nn.GRU, T.GRU), "lstm": (nn.LSTM, T.LSTM)}


def recurrent(kind, layers, bidirectional, batch_first, with_state):
    net, peer = PEERS[kind]
    options = {"bidirectional": bidirectional, "batch_first": batch_first}
    x = normal(4, 7, 3) if batch_first else normal(7, 4, 3)
    state = [normal(layers * (1 + bidirectional), 4, 5) for _ in range(2 if kind == "lstm" else 1)] if with_state else []
    return Case(net(5, layers=layers, **options), peer(3, 5, layers, **options), [x, *state, LENGTHS], packed, ours)


@pytest.mark.parametrize("kind", PEERS)
@pytest.mark.parametrize("layers, bidirectional, batch_first, with_state", [
    (1, False, False, False), (1, True, False, True), (2, True, True, False), (3, False, True, True)])
def test_padded_batches(kind, layers, bidirectional, batch_first, with_state, engine):
    check_first(recurrent(kind, layers, bidirectional, batch_first, with_state))
    check_second(recurrent(kind, layers, bidirectional, batch_first, with_state))


@pytest.mark.parametrize("kind", PEERS)
def test_states_are_taken_and_given(kind, engine):
    net, peer = PEERS[kind]
    count = 2 if kind == "lstm" else 1

    def case():
        return Case(net(5, layers=2), peer(3, 5, 2), [normal(6, 4, 3), *(normal(2, 4, 5) for _ in range(count))],
                    lambda m, x, *s: m(x, s if count == 2 else s[0]), lambda net, x, *s: net(x, s))
    check_first(case())
    check_second(case())


COLLAPSES = {
    "last": lambda y, n: y[n - 1, torch.arange(4)],
    "first": lambda y, n: y[0],
    "average": lambda y, n: torch.stack([y[:k, i].mean(0) for i, k in enumerate(n)]),
}


@pytest.mark.parametrize("how", COLLAPSES)
def test_many_to_one(how, engine):
    """Collapse after a bidirectional layer over a padded batch."""
    def case():
        return Case(nn.GRU(5, bidirectional=True) >> nn.Collapse(how), T.GRU(3, 5, bidirectional=True), [normal(6, 4, 3), LENGTHS],
                    lambda m, x, n: COLLAPSES[how](packed(m, x, n)[0], n), lambda net, x, n: net(x, lengths=n),
                    names={f"0.{p}_l0{d}": f"{p}_l0{d}" for p in ("weight_ih", "weight_hh", "bias_ih", "bias_hh") for d in ("", "_reverse")})
    check_first(case())
    check_second(case())


class Projected(T.Module):
    def __init__(self):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = T.Linear(6, 5, bias=False), T.Linear(4, 5, bias=False), T.Linear(3, 5, bias=False)

    def forward(self, q, k, v):
        return F.scaled_dot_product_attention(self.q_proj(q), self.k_proj(k), self.v_proj(v))


MASK = RANDOM.random((4, 3, 6)) < 0.7
MASK[..., 0] = True
PADDING = torch.arange(6) < torch.tensor(LENGTHS)[:, None]
ATTENTION = {
    "query": lambda: Case(nn.Attention(), T.Identity(), [normal(4, 5), normal(4, 6, 5)],
                          lambda m, y, x: F.scaled_dot_product_attention(y[:, None], x, x)[:, 0]),
    "query, no batch": lambda: Case(nn.Attention(), T.Identity(), [normal(5), normal(6, 5)],
                                    lambda m, y, x: F.scaled_dot_product_attention(y[None], x, x)[0]),
    "unscaled": lambda: Case(nn.Attention(scaled=False), T.Identity(), [normal(4, 3, 5), normal(4, 6, 5), normal(4, 6, 2)],
                             lambda m, q, k, v: F.scaled_dot_product_attention(q, k, v, scale=1.0)),
    "self causal": lambda: Case(nn.Attention(causal=True), T.Identity(), [normal(4, 6, 5)],
                                lambda m, x: F.scaled_dot_product_attention(x, x, x, is_causal=True)),
    "projected": lambda: Case(nn.Attention(5), Projected(), [normal(4, 3, 6), normal(4, 6, 4), normal(4, 6, 3)]),
    "masked": lambda: Case(nn.Attention(), T.Identity(), [normal(4, 3, 5), normal(4, 6, 5)],
                           lambda m, q, x: F.scaled_dot_product_attention(q, x, x, attn_mask=torch.tensor(MASK)),
                           lambda net, q, x: net(q, x, mask=MASK)),
    "lengths": lambda: Case(nn.Attention(), T.Identity(), [normal(4, 5), normal(4, 6, 5), LENGTHS],
                            lambda m, q, x, n: F.scaled_dot_product_attention(q[:, None], x, x, attn_mask=PADDING[:, None])[:, 0],
                            lambda net, q, x, n: net(q, x, lengths=n)),
}


def mha(**options):
    return T.MultiheadAttention(8, 2, batch_first=True, **options)


def self_attention(**options):
    def apply(m, x, *rest):
        return m(x, x, x, need_weights=False, **options)[0]
    return apply


HEAD_MASK = RANDOM.random((4, 2, 6, 6)) < 0.7
HEAD_MASK |= np.eye(6, dtype=bool)
FIRST_SEEN = HEAD_MASK | (np.arange(6) == 0)
BIAS = normal(2, 6, 6)
ATTENTION |= {
    "heads": lambda: Case(nn.MultiHeadAttention(2), mha(), [normal(4, 6, 8)], self_attention()),
    "heads, no bias": lambda: Case(nn.MultiHeadAttention(2, bias=False), mha(bias=False), [normal(4, 6, 8)], self_attention()),
    "heads, cross": lambda: Case(nn.MultiHeadAttention(2), mha(), [normal(4, 3, 8), normal(4, 6, 8)],
                                 lambda m, q, x: m(q, x, x)[0]),
    "heads, three arrays": lambda: Case(nn.MultiHeadAttention(2), mha(), [normal(4, 3, 8), normal(4, 6, 8), normal(4, 6, 8)],
                                        lambda m, q, k, v: m(q, k, v)[0]),
    "heads, other widths": lambda: Case(nn.MultiHeadAttention(2), mha(kdim=5, vdim=3), [normal(4, 3, 8), normal(4, 6, 5), normal(4, 6, 3)],
                                        lambda m, q, k, v: m(q, k, v)[0]),
    "heads, lengths": lambda: Case(nn.MultiHeadAttention(2), mha(), [normal(4, 6, 8), LENGTHS], lambda m, x, n: m(x, x, x, key_padding_mask=~PADDING)[0],
                                   lambda net, x, n: net(x, lengths=n), real=PADDING.numpy()),
    "heads, lengths, causal": lambda: Case(nn.MultiHeadAttention(2, causal=True), mha(), [normal(4, 6, 8), LENGTHS],
                                           lambda m, x, n: m(x, x, x, key_padding_mask=~PADDING, attn_mask=~torch.ones(6, 6).tril().bool())[0],
                                           lambda net, x, n: net(x, lengths=n), real=PADDING.numpy()),
    "heads, mask": lambda: Case(nn.MultiHeadAttention(2), mha(), [normal(4, 6, 8)], self_attention(attn_mask=~torch.tensor(HEAD_MASK).flatten(0, 1)),
                                lambda net, x: net(x, mask=HEAD_MASK)),
    "heads, mask, lengths": lambda: Case(
        nn.MultiHeadAttention(2), mha(), [normal(4, 6, 8), LENGTHS],
        lambda m, x, n: m(x, x, x, attn_mask=~torch.tensor(FIRST_SEEN & PADDING.numpy()[:, None, None]).flatten(0, 1))[0],
        lambda net, x, n: net(x, mask=FIRST_SEEN, lengths=n), real=PADDING.numpy()),
    "heads, float mask": lambda: Case(nn.MultiHeadAttention(2), mha(), [normal(4, 6, 8), BIAS],
                                      lambda m, x, b: m(x, x, x, attn_mask=b.repeat(4, 1, 1))[0], lambda net, x, b: net(x, mask=b)),
    "heads, float mask, lengths": lambda: Case(
        nn.MultiHeadAttention(2), mha(), [normal(4, 6, 8), BIAS, LENGTHS],
        lambda m, x, b, n: m(x, x, x, attn_mask=(b.repeat(4, 1, 1, 1) + torch.where(PADDING, 0, -torch.inf)[:, None, None]).flatten(0, 1))[0],
        lambda net, x, b, n: net(x, mask=b, lengths=n), real=PADDING.numpy()),
}


class Positioned(T.Module):
    """Attention of two heads with rotated queries and keys (by complex numbers), or with T5's bias."""

    def __init__(self, halves=False, bias=False, bidirectional=True):
        super().__init__()
        self.attention, self.halves, self.bidirectional = mha(), halves, bidirectional
        self.table = T.Parameter(torch.randn(8, 2)) if bias else None

    def turn(self, x):
        x = x.unflatten(-1, (2, 2)).transpose(-1, -2) if self.halves else x.unflatten(-1, (2, 2))
        angle = torch.outer(torch.arange(6, dtype=x.dtype), 10000 ** (-torch.arange(2, dtype=x.dtype) / 2))
        y = torch.view_as_real(torch.view_as_complex(x.contiguous()) * torch.polar(torch.ones_like(angle), angle))
        return (y.transpose(-1, -2) if self.halves else y).flatten(-2)

    def bias(self):
        """As in T5 with 8 buckets and a maximal distance of 20."""
        d, count, base = torch.arange(6) - torch.arange(6)[:, None], 8, 0
        if self.bidirectional:
            count, base, d = 4, (d > 0) * 4, d.abs()
        else:
            d = (-d).clamp(min=0)
        exact = count // 2
        far = exact + (torch.log(d.clamp(min=1) / exact) / math.log(20 / exact) * (count - exact)).long()
        return self.table[base + torch.where(d < exact, d, far.clamp(max=count - 1))].permute(2, 0, 1)

    def forward(self, x, lengths=None):
        a = self.attention
        q, k, v = (p.unflatten(-1, (2, 4)).transpose(1, 2) for p in F.linear(x, a.in_proj_weight, a.in_proj_bias).chunk(3, -1))
        if self.table is None:
            y = F.scaled_dot_product_attention(self.turn(q), self.turn(k), v)
        else:
            bias = self.bias() if self.bidirectional else self.bias() + torch.full((6, 6), -torch.inf, dtype=x.dtype).triu(1)
            bias = bias if lengths is None else bias + torch.where(PADDING, 0, -torch.inf)[:, None, None]
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return a.out_proj(y.transpose(1, 2).flatten(-2))


INSIDE = {n: f"attention.{n}" for n in ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")} | {"position.weight": "table"}
ATTENTION |= {
    "rotary": lambda: Case(nn.MultiHeadAttention(2, position=nn.RotaryPosition()), Positioned(), [normal(4, 6, 8)], names=INSIDE),
    "rotary halves": lambda: Case(nn.MultiHeadAttention(2, position=nn.RotaryPosition(halves=True)), Positioned(True), [normal(4, 6, 8)], names=INSIDE),
    "relative": lambda: Case(nn.MultiHeadAttention(2, position=nn.RelativePosition(8, max_distance=20)), Positioned(bias=True), [normal(4, 6, 8)], names=INSIDE),
    "relative, lengths": lambda: Case(nn.MultiHeadAttention(2, position=nn.RelativePosition(8, max_distance=20)), Positioned(bias=True), [normal(4, 6, 8), LENGTHS],
                                      call=lambda net, x, n: net(x, lengths=n), names=INSIDE, real=PADDING.numpy()),
    "relative causal": lambda: Case(nn.MultiHeadAttention(2, causal=True, position=nn.RelativePosition(8, max_distance=20, bidirectional=False)),
                                    Positioned(bias=True, bidirectional=False), [normal(4, 6, 8)], names=INSIDE),
}


@pytest.mark.parametrize("name", ATTENTION)
def test_attention(name, engine):
    check_first(ATTENTION[name]())
    check_second(ATTENTION[name]())


def encoder(**options):
    return T.TransformerEncoderLayer(8, 2, 32, 0.0, batch_first=True, **options)


def decoder(**options):
    return T.TransformerDecoderLayer(8, 2, 32, 0.0, batch_first=True, **options)


def square(x):
    return T.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=x.dtype)


def sequence_of(make, count):
    """Layers one after the other that take the same options; named as in `make() ** count`."""
    class Stack(T.Sequential):
        def forward(self, x, *rest, **options):
            for m in self:
                x = m(x, *rest, **options)
            return x
    return Stack(*(make() for _ in range(count)))


BLOCKS = {
    "post-norm": lambda: Case(nn.TransformerBlock(2), encoder(activation="gelu"), [normal(4, 6, 8)]),
    "pre-norm relu": lambda: Case(nn.TransformerBlock(2, pre_norm=True, activation="relu"), encoder(norm_first=True), [normal(4, 6, 8)]),
    "causal": lambda: Case(nn.TransformerBlock(2, causal=True), encoder(activation="gelu"), [normal(4, 6, 8)],
                           lambda m, x: m(x, src_mask=square(x), is_causal=True)),
    "lengths": lambda: Case(nn.TransformerBlock(2) ** 2, sequence_of(lambda: encoder(activation="gelu"), 2), [normal(4, 6, 8), LENGTHS],
                            lambda m, x, n: m(x, src_key_padding_mask=~PADDING), lambda net, x, n: net(x, lengths=n), real=PADDING.numpy()),
    "decoder": lambda: Case(nn.DecoderBlock(2), decoder(activation="gelu"), [normal(4, 5, 8), normal(4, 6, 8)],
                            lambda m, y, x: m(y, x, tgt_mask=square(y), tgt_is_causal=True)),
    "decoder, lengths": lambda: Case(nn.DecoderBlock(2, pre_norm=True, activation=nn.silu) ** 2,
                                     sequence_of(lambda: decoder(activation=F.silu, norm_first=True), 2), [normal(4, 6, 8), normal(4, 6, 8), LENGTHS],
                                     lambda m, y, x, n: m(y, x, tgt_mask=square(y), memory_key_padding_mask=~PADDING,
                                                          tgt_key_padding_mask=torch.where(PADDING, 0.0, -torch.inf).to(y.dtype)),
                                     lambda net, y, x, n: net(y, memory=x, memory_lengths=n, lengths=n), real=PADDING.numpy()),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks(name, engine):
    check_first(BLOCKS[name]())
    check_second(BLOCKS[name](), rtol=1e-7)


class Places(T.Module):
    def __init__(self):
        super().__init__()
        self.weight = T.Parameter(torch.randn(7, 8))

    def forward(self, x):
        return x + self.weight[:x.shape[1]]


def test_learned_positions(engine):
    def case():
        return Case(nn.LearnedPosition(7), Places(), [normal(4, 5, 8)])
    check_first(case())
    check_second(case())


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("buckets, furthest", [(32, 128), (8, 20), (64, 1000)])
def test_buckets_are_those_of_t5(buckets, furthest, bidirectional):
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5").T5Attention
    distances = np.arange(-3000, 3000)
    wanted = t5._relative_position_bucket(torch.tensor(distances), bidirectional, buckets, furthest)
    np.testing.assert_array_equal(nn.RelativePosition(buckets, max_distance=furthest, bidirectional=bidirectional).bucket(distances), wanted.numpy())


def test_rotation_is_that_of_llama():
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    angles = np.arange(6)[:, None] / 10000 ** (np.arange(4) / 4)
    cos, sin = (torch.tensor(np.concatenate([f(angles)] * 2, -1)[None]) for f in (np.cos, np.sin))
    q, k = normal(2, 3, 6, 8), normal(2, 3, 6, 8)
    wanted = llama.apply_rotary_pos_emb(torch.tensor(q), torch.tensor(k), cos, sin)
    turn = gc.compile(nn.RotaryPosition(halves=True), x=gc.f32[2, 3, 6, 8])
    for x, w in zip((q, k), wanted):
        np.testing.assert_allclose(turn(x), w.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch, steps, width, heads", [(1, 1, 4, 1), (5, 17, 33, 3), (3, 70, 48, 4), (9, 33, 64, 2)])
def test_sizes(batch, steps, width, heads):
    """Native code only: sizes that leave tails, fill vectors, and take several blocks."""
    lengths = RANDOM.integers(1, steps + 1, batch).astype(np.int32)
    lengths[0] = steps
    padding = torch.arange(steps) >= torch.tensor(lengths)[:, None]
    for kind in PEERS:
        net, peer = PEERS[kind]
        check_first(Case(net(width, bidirectional=True), peer(7, width, bidirectional=True), [normal(steps, batch, 7), lengths], packed, ours))
    x = normal(batch, steps, width)
    check_first(Case(nn.MultiHeadAttention(heads, causal=True), T.MultiheadAttention(width, heads, batch_first=True), [x, lengths],
                     lambda m, x, n: m(x, x, x, key_padding_mask=padding, attn_mask=torch.ones(steps, steps).triu(1).bool())[0],
                     lambda net, x, n: net(x, lengths=n), real=~padding.numpy()))
    check_first(Case(nn.TransformerBlock(heads), T.TransformerEncoderLayer(width, heads, 4 * width, 0.0, F.gelu, batch_first=True), [x, lengths],
                     lambda m, x, n: m(x, src_key_padding_mask=padding), lambda net, x, n: net(x, lengths=n), real=~padding.numpy()))
    check_first(Case(nn.DecoderBlock(heads), T.TransformerDecoderLayer(width, heads, 4 * width, 0.0, F.gelu, batch_first=True),
                     [normal(batch, steps + 3, width), x, lengths], lambda m, y, x, n: m(y, x, tgt_mask=square(y), memory_key_padding_mask=padding),
                     lambda net, y, x, n: net(y, memory=x, memory_lengths=n)))
    check_first(Case(nn.GRU(width, batch_first=True) >> nn.Collapse("average", batch_first=True), T.GRU(width, width, batch_first=True), [x, lengths],
                     lambda m, x, n: torch.stack([y[:k].mean(0) for y, k in zip(packed(m, x, n)[0], n)]), lambda net, x, n: net(x, lengths=n),
                     names={f"0.{p}_l0": f"{p}_l0" for p in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}))
