"""BERT: Devlin et al. (2019), "Pre-training of deep bidirectional Transformers", arXiv:1810.04805."""
from __future__ import annotations

from functools import partial
from typing import Any

import graphc as gc
from graphc import nn
from graphc.dsl.form import formed

# the second names are those of the first published files
_NORM = (("(?:weight|gamma)", "weight"), ("(?:bias|beta)", "bias"))
_BLOCK = r"(?:bert\.)?encoder\.layer\.(\d+)\."
BERT_NAMES = (
    (r"(?:bert\.)?embeddings\.position_ids", ""), (r"cls\..*", ""), (r"(?:bert\.)?pooler\.(.*)", r"2.\1"),
    *((rf"(?:bert\.)?embeddings\.{old}_embeddings\.(\w+)", rf"0.{new}.\1") for old, new in (
        ("word", "tokens"), ("position", "positions"), ("token_type", "segments"))),
    *((rf"(?:bert\.)?embeddings\.LayerNorm\.{old}", f"0.norm.{new}") for old, new in _NORM),
    *((_BLOCK + rf"attention\.self\.{part}\.(\w+)", rf"1.\1.self_attn.in_proj_\2[{i}]")
      for i, part in enumerate(("query", "key", "value"))),
    *((_BLOCK + rf"{old}\.(\w+)", rf"1.\1.{new}.\2") for old, new in (
        (r"attention\.output\.dense", "self_attn.out_proj"), (r"intermediate\.dense", "linear1"),
        (r"output\.dense", "linear2"))),
    *((_BLOCK + rf"{layer}\.LayerNorm\.{old}", rf"1.\1.{norm}.{new}")
      for layer, norm in ((r"attention\.output", "norm1"), ("output", "norm2")) for old, new in _NORM),
)
"""Rules for `renamed`: from BERT of the library transformers. Heads for masked words ("cls.…") are dropped."""


class BertEmbedding(nn.Module):
    """norm(token + position + segment): ids [B, T], T <= context -> [B, T, width]. `segments`: ids [B, T], all 0 unless
    given."""

    def __init__(self, vocabulary: int, width: int, context: int, segments: int = 2, dropout: float = 0.0,
                 eps: float = 1e-12) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width, std=0.02), nn.LearnedPosition(context)
        self.segments = nn.Embedding(segments, width, std=0.02)
        self.norm, self.dropout = nn.LayerNorm(eps=eps), nn.Dropout(dropout)

    def forward(self, ids: gc.Array, segments: gc.Array | None = None) -> gc.Array:
        x = self.positions(self.tokens(ids))
        x = x + self.segments(ids * 0 if segments is None else segments)
        return self.dropout(self.norm(x))


class Pooler(nn.Module):
    """tanh(W x₀ + b) of the first token, [CLS]: [B, T, E] -> [B, E]."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(None)        # as wide as its input

    def forward(self, x: gc.Array) -> gc.Array:
        self.dense.features = x.shape[-1]
        return nn.tanh(self.dense(x[:, 0]))


@formed
def bert(vocabulary: int = 30522, width: int = 768, layers: int = 12, heads: int = 12, context: int = 512,
         segments: int = 2, pooled: bool = False, dropout: float = 0.0, eps: float = 1e-12) -> nn.Module:
    """TransformerBlock¹² ∘ EmbedToken: ids [B, T], T <= context -> [B, T, width], or with `pooled` [B, width] for a
    classifier.

    BERT-base unless sizes are given: 109.5 M parameters with the pooler. Options of the network: `segments` (ids [B,
    T]), and `mask` and `lengths`, which go to every block (see nn.TransformerBlock).
    """
    block = nn.TransformerBlock(heads, dropout=dropout, norm=partial(nn.LayerNorm, eps=eps))
    net = BertEmbedding(vocabulary, width, context, segments, dropout, eps) >> block ** layers
    return net >> Pooler() if pooled else net


@formed
def bert_large(**options: Any) -> nn.Module:
    """TransformerBlock²⁴ ∘ EmbedToken: BERT-large, 335 M parameters with the pooler."""
    return bert(**{"width": 1024, "layers": 24, "heads": 16, **options})
