"""GPT-2, under the names of transformers."""
from __future__ import annotations

from math import sqrt

import graphc as gc
from graphc import nn
from graphc.doors.pretrained.encoder import activation_of
from graphc.doors.pretrained.fields import Fields
from graphc.doors.pretrained.parts import (
    ACTIVATIONS, Planted, Projection, Table, heads_of, joined_heads, last_real, shown_tokens)
from graphc.dsl.attention import attend, seen_keys
from graphc.errors import GraphError
from graphc.nn.decode import attended
from graphc.records import dataclass

BLOCK = {"norm1": "ln_1", "joint": "attn.c_attn", "out": "attn.c_proj", "norm2": "ln_2", "up": "mlp.c_fc",
         "down": "mlp.c_proj"}


@dataclass(frozen=True)
class Gpt2Shape:
    """Sizes of GPT-2. `scaled`: scores are divided by sqrt(D); `by_layer`: and by the number of the layer."""
    vocabulary: int
    width: int
    layers: int
    heads: int
    hidden: int
    context: int
    eps: float
    activation: str
    scaled: bool
    by_layer: bool
    padding: int | None

    def scale(self, layer: int) -> float:
        """What the scores of a layer, counted from 0, are multiplied by."""
        whole = 1 / sqrt(self.width // self.heads) if self.scaled else 1.0
        return whole / (layer + 1) if self.by_layer else whole


def gpt2_shape(fields: Fields) -> Gpt2Shape:
    """What the config says. GraphError for what changes the network and is not known."""
    fields.only("add_cross_attention", False)
    fields.only("reorder_and_upcast_attn", True, False)         # of numbers of 16 bits; graphc computes in f32
    fields.only("pruned_heads", {})
    width = fields.integer("n_embd")
    return Gpt2Shape(fields.integer("vocab_size"), width, fields.integer("n_layer"), fields.integer("n_head"),
                     fields.integer("n_inner", 4 * width), fields.integer("n_positions"),
                     fields.number("layer_norm_epsilon", 1e-5),
                     activation_of(fields, "activation_function", "gelu_new"),
                     fields.flag("scale_attn_weights", True), fields.flag("scale_attn_by_inverse_layer_idx", False),
                     fields.optional("pad_token_id", lambda name: fields.integer(name, least=0)))


class Gpt2Block(Planted):
    """x + attention(norm(x)), then x + network(norm(x)): x [B, T, E] -> [B, T, E]. It generates."""
    causal = True

    def __init__(self, shape: Gpt2Shape, number: int) -> None:
        if shape.width % shape.heads:
            raise GraphError(f"{shape.width} features do not divide by {shape.heads} heads")
        super().__init__(BLOCK, norm1=nn.LayerNorm(eps=shape.eps), joint=Projection(3 * shape.width, turned=True),
                         out=Projection(shape.width, turned=True), norm2=nn.LayerNorm(eps=shape.eps),
                         up=Projection(shape.hidden, turned=True), down=Projection(shape.width, turned=True))
        self.shape, self.number = shape, number

    def forward(self, x: gc.Array, mask: gc.Array | None = None) -> gc.Array:
        x = x + self.part("out")(joined_heads(self._attention(self.part("norm1")(x), mask)))
        hidden = ACTIVATIONS[self.shape.activation](self.part("up")(self.part("norm2")(x)))
        return x + self.part("down")(hidden)

    def _attention(self, x: gc.Array, mask: gc.Array | None) -> gc.Array:
        width, joint = self.shape.width, self.part("joint")(x)
        q, k, v = (heads_of(joint[..., i * width:(i + 1) * width], self.shape.heads) for i in range(3))
        k, v, mask, causal = attended(self, True, *seen_keys(mask, k, v), mask, None)
        return attend(q, k, v, mask, causal, self.shape.scale(self.number))


class Gpt2(nn.Module):
    """ids [B, T], T <= context -> [B, T, E]. `attention_mask` [B, T]: 0 for padding."""

    def __init__(self, shape: Gpt2Shape) -> None:
        super().__init__()
        self.wte, self.wpe = Table(shape.vocabulary, shape.width), nn.LearnedPosition(shape.context)
        self.h = [Gpt2Block(shape, number) for number in range(shape.layers)]
        self.ln_f = nn.LayerNorm(eps=shape.eps)

    def forward(self, input_ids: gc.Array, attention_mask: gc.Array | None = None) -> gc.Array:
        x, mask = self.wpe(self.wte(input_ids)), shown_tokens(attention_mask, 4)
        for block in self.h:
            x = block(x, mask)
        return self.ln_f(x)


class Gpt2Language(nn.Module):
    """Logits of the next token [B, T, vocabulary]: GPT2LMHeadModel."""

    def __init__(self, shape: Gpt2Shape, tied: bool) -> None:
        super().__init__()
        self.transformer = Gpt2(shape)
        if not tied:
            self.lm_head = Projection(shape.vocabulary, bias=False)
        self.tied = tied

    def forward(self, input_ids: gc.Array, attention_mask: gc.Array | None = None) -> gc.Array:
        x = self.transformer(input_ids, attention_mask)
        return self.transformer.wte.scores(x) if self.tied else self.lm_head(x)


class Gpt2Class(nn.Module):
    """Logits of classes of a text [B, labels], of its last token: GPT2ForSequenceClassification."""

    def __init__(self, shape: Gpt2Shape, labels: int) -> None:
        super().__init__()
        self.transformer, self.score, self.padding = Gpt2(shape), Projection(labels, bias=False), shape.padding

    def forward(self, input_ids: gc.Array, attention_mask: gc.Array | None = None) -> gc.Array:
        return last_real(self.score(self.transformer(input_ids, attention_mask)), input_ids, self.padding)
