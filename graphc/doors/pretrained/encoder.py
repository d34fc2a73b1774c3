"""BERT, RoBERTa and DistilBERT, under the names of transformers."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import graphc as gc
from graphc import nn
from graphc.doors.pretrained.fields import Fields
from graphc.doors.pretrained.parts import (
    ACTIVATIONS, Holder, Planted, Projection, Table, heads_of, joined_heads, shown_tokens)
from graphc.dsl.attention import attend, seen_keys
from graphc.errors import GraphError
from graphc.records import dataclass

Layout = Mapping[str, str]
BERT_BLOCK = {"query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value",
              "out": "attention.output.dense", "norm1": "attention.output.LayerNorm", "up": "intermediate.dense",
              "down": "output.dense", "norm2": "output.LayerNorm"}
DISTIL_BLOCK = {"query": "attention.q_lin", "key": "attention.k_lin", "value": "attention.v_lin",
                "out": "attention.out_lin", "norm1": "sa_layer_norm", "up": "ffn.lin1", "down": "ffn.lin2",
                "norm2": "output_layer_norm"}


@dataclass(frozen=True)
class EncoderShape:
    """Sizes of an encoder. `segments` 0: no token types; `padding`: of RoBERTa, whose places count from there on."""
    vocabulary: int
    width: int
    layers: int
    heads: int
    hidden: int
    context: int
    segments: int
    eps: float
    activation: str
    padding: int | None = None


def bert_shape(fields: Fields, roberta: bool) -> EncoderShape:
    """What the config of BERT or RoBERTa says. GraphError for what changes the network and is not known."""
    fields.only("position_embedding_type", "absolute")
    fields.only("is_decoder", False)
    fields.only("add_cross_attention", False)
    fields.only("pruned_heads", {})
    return EncoderShape(
        fields.integer("vocab_size"), fields.integer("hidden_size"), fields.integer("num_hidden_layers"),
        fields.integer("num_attention_heads"), fields.integer("intermediate_size"),
        fields.integer("max_position_embeddings"), fields.integer("type_vocab_size", 2),
        fields.number("layer_norm_eps", 1e-12), activation_of(fields, "hidden_act", "gelu"),
        fields.integer("pad_token_id", 1, 0) if roberta else None)


def distil_shape(fields: Fields) -> EncoderShape:
    """What the config of DistilBERT says."""
    fields.only("pruned_heads", {})
    return EncoderShape(fields.integer("vocab_size"), fields.integer("dim"), fields.integer("n_layers"),
                        fields.integer("n_heads"), fields.integer("hidden_dim"),
                        fields.integer("max_position_embeddings"), 0, 1e-12,
                        activation_of(fields, "activation", "gelu"))


def activation_of(fields: Fields, name: str, default: str) -> str:
    """A name that `ACTIVATIONS` has. GraphError for another one."""
    fields.only(name, *ACTIVATIONS)
    return fields.text(name, default)


class EncoderBlock(Planted):
    """Self-attention and a two-layer network, each with a residual and a norm behind it: x [B, T, E] -> [B, T, E]."""

    def __init__(self, shape: EncoderShape, layout: Layout) -> None:
        if shape.width % shape.heads:
            raise GraphError(f"{shape.width} features do not divide by {shape.heads} heads")
        super().__init__(layout, **{role: Projection(shape.width) for role in ("query", "key", "value", "out")},
                         norm1=nn.LayerNorm(eps=shape.eps), up=Projection(shape.hidden), down=Projection(shape.width),
                         norm2=nn.LayerNorm(eps=shape.eps))
        self.shape = shape

    def forward(self, x: gc.Array, mask: gc.Array | None = None) -> gc.Array:
        part, heads = self.part, self.shape.heads
        q, k, v = (heads_of(part(role)(x), heads) for role in ("query", "key", "value"))
        z = attend(q, *seen_keys(mask, k, v), mask)
        x = part("norm1")(part("out")(joined_heads(z)) + x)
        return part("norm2")(part("down")(ACTIVATIONS[self.shape.activation](part("up")(x))) + x)


class Encoder(nn.Module):
    """ids [B, T], T <= context -> [B, T, E]. `attention_mask` [B, T]: 0 for padding; `token_type_ids` [B, T]: all 0
    unless given."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.shape = shape
        words = dict(word_embeddings=Table(shape.vocabulary, shape.width),
                     position_embeddings=Table(shape.context, shape.width))
        types = dict(token_type_embeddings=Table(shape.segments, shape.width)) if shape.segments else {}
        self.embeddings = Holder(**words, **types, LayerNorm=nn.LayerNorm(eps=shape.eps))
        block = DISTIL_BLOCK if not shape.segments else BERT_BLOCK
        blocks = Holder()
        vars(blocks)["layer"] = [EncoderBlock(shape, block) for _ in range(shape.layers)]
        vars(self)["encoder" if shape.segments else "transformer"] = blocks

    def forward(self, input_ids: gc.Array, attention_mask: gc.Array | None = None,
                token_type_ids: gc.Array | None = None) -> Any:
        parts = vars(self.embeddings)
        x = parts["word_embeddings"](input_ids) + parts["position_embeddings"](self._places(input_ids))
        if self.shape.segments:
            x = x + parts["token_type_embeddings"](input_ids * 0 if token_type_ids is None else token_type_ids)
        elif token_type_ids is not None:
            raise GraphError("DistilBERT takes no token_type_ids")
        x, mask = parts["LayerNorm"](x), shown_tokens(attention_mask, 4)
        for block in vars(vars(self)["encoder" if self.shape.segments else "transformer"])["layer"]:
            x = block(x, mask)
        return x

    def _places(self, ids: gc.Array) -> gc.Array:
        """Of each token, the row of its position embedding: [T], or [B, T] where padding does not count."""
        if self.shape.padding is None:
            steps = ids.shape[1]
            if isinstance(steps, int) and steps > self.shape.context:
                raise GraphError(f"the network knows {self.shape.context} places, the input has {steps}")
            return gc.iota((steps,), dtype=gc.i64)
        real = (ids != self.shape.padding).astype(gc.i64)
        return gc.cumsum(real, axis=1) * real + self.shape.padding


class PooledEncoder(Encoder):
    """An encoder with BERT's pooler: {"last_hidden_state": [B, T, E], "pooler_output": tanh(W x₀ + b) [B, E]}."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__(shape)
        self.pooler = Holder(dense=Projection(shape.width))

    def forward(self, input_ids: gc.Array, attention_mask: gc.Array | None = None,
                token_type_ids: gc.Array | None = None) -> Any:
        x = super().forward(input_ids, attention_mask, token_type_ids)
        return {"last_hidden_state": x, "pooler_output": nn.tanh(vars(self.pooler)["dense"](x[:, 0]))}
