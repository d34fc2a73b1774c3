"""From a vector to a token: scores, and how one of them is chosen."""
from __future__ import annotations

from typing import Any, cast
import graphc as gc
from graphc.dsl.array import Array, as_array
from graphc.dsl.form import formed
from graphc.dsl.random import Key
from graphc.errors import GraphError
from graphc.ir.convert import integer, is_number
from graphc.ir.dims import Dim
from graphc.ir.ops.attention import MASKED
from graphc.nn.linear import Embedding
from graphc.nn.module import Module
from graphc.nn.parameter import ZEROS, fan_in_uniform


class GenerateToken(Module):
    """Scores x · EmbedToken(y) of every token y: x [..., E] -> [..., count], for `embedding`, nn.Embedding(count, E).

    The weights are those of the embedding (Press and Wolf 2017), unless `tied` is False: then the layer has its own,
    weight [count, width of x].
    `bias` adds bias [count]. `probabilities(x)` is the softmax of the scores; `choose(x)` samples tokens, as
    `nn.sample`.
    """

    def __init__(self, embedding: Embedding, *, tied: bool = True, bias: bool = False) -> None:
        super().__init__()
        if not isinstance(embedding, Embedding):
            raise GraphError(f"GenerateToken takes the nn.Embedding of the tokens, got {embedding!r}")
        self.embedding, self.tied, self.biased = embedding, tied, bias

    def forward(self, x: Array) -> Array:
        if not x.shape:
            raise GraphError("GenerateToken takes vectors [..., features], got a scalar")
        scores = self._tied(x) if self.tied else x @ self._own_weight(x).T
        return scores + self.parameter("bias", (self.embedding.count,), ZEROS, x.dtype) if self.biased else scores

    def probabilities(self, x: Array) -> Array:
        return gc.softmax(self(x), axis=-1)

    def choose(self, x: Array, **options: Any) -> Array:
        return sample(self(x), **options)

    def _tied(self, x: Array) -> Array:
        if x.shape[-1] != self.embedding.features:
            raise GraphError(f"GenerateToken compares x with embeddings of {self.embedding.features} features, "
                             f"x has {x.shape[-1]}: "
                             f"put nn.Linear({self.embedding.features}) in front, or take tied=False")
        return self.embedding.attend(x)

    def _own_weight(self, x: Array) -> Array:
        return self.parameter("weight", (self.embedding.count, x.shape[-1]), fan_in_uniform(_width(x)), x.dtype)


@formed
def sample(scores: Array, temperature: float | Array = 1.0, top_k: int | None = None,
           top_p: float | Array | None = None, key: Key = None) -> Array:
    """Tokens drawn from softmax(scores / temperature): scores [..., count] -> i64 [...].

    `top_k`: from the k most likely alone. `top_p`: from the nucleus alone, the fewest tokens whose probabilities sum
    to p or more (Holtzman et al. 2020); with both, of what top_k leaves. Equal scores are kept or left out together.
    temperature 0 is argmax. `key` as in `gc.uniform`.
    """
    scores = as_array(scores)
    if is_number(temperature) and temperature <= 0:
        if temperature < 0:
            raise GraphError(f"sample: temperature must be 0 or more, got {temperature}")
        return gc.argmax(scores, axis=-1)
    scores = likeliest(scores / temperature, top_k, top_p)
    p = gc.exp(scores - gc.max(scores, axis=-1, keepdims=True))
    reached = gc.cumsum(p, axis=-1)
    # below the last sum, as uniform is below 1
    threshold = gc.uniform(scores.shape[:-1], dtype=scores.dtype, key=key) * reached[..., -1]
    return gc.sum((reached <= gc.expand_dims(threshold, -1)).astype(gc.i64), axis=-1)


@formed
def likeliest(scores: Array, top_k: int | None = None, top_p: float | Array | None = None) -> Array:
    """scores [..., count] with a very low number for tokens that are not among the `top_k` or not in the nucleus
    `top_p` (see `sample`)."""
    scores = as_array(scores)
    if top_k is not None:
        ranked, _ = gc.topk(scores, _checked_k(top_k, scores.shape[-1]))
    elif top_p is not None:
        ranked = gc.sort(scores, axis=-1, descending=True)
    else:
        return scores
    lowest = ranked[..., -1:] if top_p is None else _nucleus_edge(ranked, top_p)
    return gc.where(scores >= lowest, scores, MASKED)


def _nucleus_edge(ranked: Array, p: float | Array) -> Array:
    """The lowest score of the nucleus, [..., 1], of scores [..., k] that fall."""
    if is_number(p) and not 0 < p <= 1:
        raise GraphError(f"sample: top_p is a probability above 0, got {p}")
    before = gc.cumsum(gc.softmax(ranked, axis=-1), axis=-1, exclusive=True)
    return gc.min(gc.where(before < p, ranked, ranked[..., :1]), axis=-1, keepdims=True)


def _width(x: Array) -> int:
    """The last size, which a parameter's first value depends on; a symbolic one is refused by `Module.parameter`."""
    return cast(int, x.shape[-1])


def _checked_k(k: int, count: Dim) -> int:
    k = integer(k, "sample: top_k", 1)
    return min(k, count) if isinstance(count, int) else k
