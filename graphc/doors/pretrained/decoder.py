"""Causal Transformers with rotary positions, RMS norms and gated networks: Llama, Mistral, Qwen and Gemma, under the
names of transformers."""
from __future__ import annotations

from math import sqrt

import graphc as gc
from graphc import nn
from graphc.doors.pretrained.parts import (
    ACTIVATIONS, OffsetNorm, Projection, Table, heads_of, joined_heads, last_real, shown_tokens)
from graphc.doors.pretrained.rotary import Rotary, Turning
from graphc.dsl.attention import attend, seen_keys
from graphc.errors import GraphError
from graphc.ir.dims import Dim
from graphc.ir.ops.attention import MASKED
from graphc.nn.decode import attended, stepping
from graphc.records import dataclass


@dataclass(frozen=True)
class DecoderLayer:
    """What one layer has of its own: `window`, how many places it sees; how it turns by places."""
    turning: Turning
    window: int | None = None


@dataclass(frozen=True)
class DecoderShape:
    """What tells the networks of this family apart. `groups`: heads of keys and values; `head`: features of each.
    `scale`: of the scores, and `cap`, `final_cap`: c tanh(x / c) of scores and logits. `normed_heads`: queries and keys
    are normed; `offset`: norms multiply by 1 + weight; `after`: norms also stand behind attention and network."""
    vocabulary: int
    width: int
    heads: int
    groups: int
    head: int
    hidden: int
    layers: tuple[DecoderLayer, ...]
    eps: float = 1e-6
    activation: str = "silu"
    biases: tuple[bool, bool, bool] = (False, False, False)         # of q, k, v; of the output; of the network
    normed_heads: bool = False
    offset: bool = False
    after: bool = False
    embedding_scale: float = 1.0
    scale: float | None = None
    cap: float | None = None
    final_cap: float | None = None
    padding: int | None = None

    def norm(self) -> nn.Module:
        return OffsetNorm(self.eps) if self.offset else nn.RMSNorm(eps=self.eps)


class GroupedAttention(nn.Module):
    """Causal attention in which several heads of queries share one of keys and values (Ainslie et al. 2023); nothing is
    repeated in memory. x [B, T, E] -> [B, T, E]."""
    causal = True

    def __init__(self, shape: DecoderShape, layer: DecoderLayer) -> None:
        super().__init__()
        if shape.heads % shape.groups:
            raise GraphError(f"{shape.heads} heads of queries do not share {shape.groups} of keys equally")
        if shape.head < 2 or shape.head % 2:
            raise GraphError(f"{shape.width} features of {shape.heads} heads: rotary positions turn pairs of a head's "
                             f"features, it has {shape.head}")
        self.shape, self.layer, inner, (bias, out_bias, _) = shape, layer, shape.heads * shape.head, shape.biases
        self.q_proj = Projection(inner, bias=bias)
        self.k_proj, self.v_proj = (Projection(shape.groups * shape.head, bias=bias) for _ in range(2))
        self.o_proj = Projection(shape.width, bias=out_bias)
        if shape.normed_heads:
            self.q_norm, self.k_norm = shape.norm(), shape.norm()
        self.rotary = Rotary(layer.turning)

    def forward(self, x: gc.Array, mask: gc.Array | None = None) -> gc.Array:
        shape = self.shape
        q, k = heads_of(self.q_proj(x), shape.heads), heads_of(self.k_proj(x), shape.groups)
        v = heads_of(self.v_proj(x), shape.groups)
        if shape.normed_heads:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = self.rotary.turn(q), self.rotary.turn(k)
        k, v, mask, causal = attended(self, True, *seen_keys(mask, k, v), mask, None, self.layer.window)
        attention = self._of_tokens if stepping() else self._of_sequences
        return self.o_proj(joined_heads(attention(q, k, v, mask, causal)))

    def _of_tokens(self, q: gc.Array, k: gc.Array, v: gc.Array, mask: gc.Array | None, causal: bool) -> gc.Array:
        """Of one token of each sequence: the heads that share a key are its queries, which see the same places."""
        batch, heads, _, width = q.shape
        groups = self.shape.groups
        z = self._attend(q.reshape(batch, groups, heads // groups, width), k, v, mask, causal)
        return z.reshape(batch, heads, 1, width)

    def _of_sequences(self, q: gc.Array, k: gc.Array, v: gc.Array, mask: gc.Array | None, causal: bool) -> gc.Array:
        batch, heads, steps, width = q.shape
        groups = self.shape.groups
        mask = self._banded(mask, steps)
        if groups == heads:
            return self._attend(q, k, v, mask, causal)
        q = q.reshape(batch, groups, heads // groups, steps, width)
        k, v = gc.expand_dims(k, 2), gc.expand_dims(v, 2)
        mask = gc.expand_dims(mask, 1) if mask is not None and mask.ndim > 2 else mask
        return self._attend(q, k, v, mask, causal).reshape(batch, heads, steps, width)

    def _banded(self, mask: gc.Array | None, steps: Dim) -> gc.Array | None:
        """The mask that also hides what lies further back than the window."""
        window = self.layer.window
        if window is None or isinstance(steps, int) and steps <= window:
            return mask
        places = gc.iota((steps,), dtype=gc.i64)
        band = places > gc.expand_dims(places, 1) - window
        return band if mask is None else mask & band

    def _attend(self, q: gc.Array, k: gc.Array, v: gc.Array, mask: gc.Array | None, causal: bool) -> gc.Array:
        scale, cap = self.shape.scale or 1 / sqrt(self.shape.head), self.shape.cap
        if cap is None:
            return attend(q, k, v, mask, causal, scale)
        scores = capped(q @ gc.swapaxes(k, -1, -2) * scale, cap)
        if causal:
            places = gc.iota((q.shape[-2],), dtype=gc.i64)
            order = places <= gc.expand_dims(places, 1)
            mask = order if mask is None else mask & order
        return gc.softmax(scores if mask is None else gc.where(mask, scores, MASKED), axis=-1) @ v


class GatedNetwork(nn.Module):
    """W_down (activation(W_gate x) * W_up x) (Shazeer 2020): x [..., E] -> [..., E]."""

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        bias = shape.biases[2]
        self.gate_proj, self.up_proj = Projection(shape.hidden, bias=bias), Projection(shape.hidden, bias=bias)
        self.down_proj, self.activation = Projection(shape.width, bias=bias), shape.activation

    def forward(self, x: gc.Array) -> gc.Array:
        return self.down_proj(ACTIVATIONS[self.activation](self.gate_proj(x)) * self.up_proj(x))


class GroupedBlock(nn.Module):
    """x + attention(norm(x)), then x + network(norm(x)); with norms behind attention and network, too, where the shape
    says so."""

    def __init__(self, shape: DecoderShape, layer: DecoderLayer) -> None:
        super().__init__()
        self.after = shape.after
        self.self_attn, self.mlp = GroupedAttention(shape, layer), GatedNetwork(shape)
        self.input_layernorm, self.post_attention_layernorm = shape.norm(), shape.norm()
        if shape.after:
            self.pre_feedforward_layernorm, self.post_feedforward_layernorm = shape.norm(), shape.norm()

    def forward(self, x: gc.Array, mask: gc.Array | None = None) -> gc.Array:
        attention = self.self_attn(self.input_layernorm(x), mask)
        if not self.after:
            x = x + attention
            return x + self.mlp(self.post_attention_layernorm(x))
        x = x + self.post_attention_layernorm(attention)
        return x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))


class Decoder(nn.Module):
    """ids [B, T] -> [B, T, E]. `attention_mask` [B, T]: 0 for padding."""

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.embed_tokens, self.scale = Table(shape.vocabulary, shape.width), shape.embedding_scale
        self.layers = [GroupedBlock(shape, layer) for layer in shape.layers]
        self.norm = shape.norm()

    def forward(self, input_ids: gc.Array, attention_mask: gc.Array | None = None) -> gc.Array:
        x = self.embed_tokens(input_ids)
        x = x if self.scale == 1 else x * self.scale
        mask = shown_tokens(attention_mask, 4)
        for layer in self.layers:
            x = layer(x, mask)
        return self.norm(x)


class DecoderLanguage(nn.Module):
    """Logits of the next token [B, T, vocabulary]: …ForCausalLM."""

    def __init__(self, shape: DecoderShape, tied: bool) -> None:
        super().__init__()
        self.model, self.tied, self.cap = Decoder(shape), tied, shape.final_cap
        if not tied:
            self.lm_head = Projection(shape.vocabulary, bias=False)

    def forward(self, input_ids: gc.Array, attention_mask: gc.Array | None = None) -> gc.Array:
        x = self.model(input_ids, attention_mask)
        scores = self.model.embed_tokens.scores(x) if self.tied else self.lm_head(x)
        return scores if self.cap is None else capped(scores, self.cap)


class DecoderClass(nn.Module):
    """Logits of classes of a text [B, labels], of its last token: …ForSequenceClassification."""

    def __init__(self, shape: DecoderShape, labels: int) -> None:
        super().__init__()
        self.model, self.score, self.padding = Decoder(shape), Projection(labels, bias=False), shape.padding

    def forward(self, input_ids: gc.Array, attention_mask: gc.Array | None = None) -> gc.Array:
        return last_real(self.score(self.model(input_ids, attention_mask)), input_ids, self.padding)


def capped(x: gc.Array, most: float) -> gc.Array:
    """most * tanh(x / most): x where it is small, never beyond ±most."""
    return gc.tanh(x / most) * most
