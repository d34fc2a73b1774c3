"""A language model: the probability of each token given those before it."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphc as gc
from graphc.dsl.array import Array
from graphc.errors import GraphError
from graphc.nn.collapse import Collapse
from graphc.nn.generate import GenerateToken
from graphc.nn.linear import Embedding
from graphc.nn.loss import log_likelihood, sequence_loss
from graphc.nn.module import Module, as_module, chosen
from graphc.nn.recurrent import Recurrent


class LanguageModel(Module):
    """GenerateToken ∘ Collapse ∘ SequenceModel ∘ EmbedToken: ids [B, T] -> the scores of what follows each token, [B,
    T, count].

    `sequence_model`: [B, T, E] -> [B, T, H], what it says of a step depends on earlier steps alone: recurrent layers
    with batch_first, causal Transformer blocks, chains of them. `collapse`, as in nn.Collapse, makes one vector of
    the steps up to each step: one call predicts after every prefix. `generate`: GenerateToken with the weights of
    `embed` unless given; any layer [B, T, H] -> [B, T, count] will do. Training with teacher forcing: `loss`, or
    `train_step(model, loss=nn.cross_entropy, x=…, y=…)` with y = x moved by one.
    """

    def __init__(self, embed: Embedding, sequence_model: Callable[..., Any], collapse: str = "last",
                 generate: Callable[..., Any] | None = None) -> None:
        super().__init__()
        self.embed, self.sequence_model = embed, as_module(sequence_model)
        self.collapse = Collapse(collapse, batch_first=True)
        self.generate = GenerateToken(embed) if generate is None else as_module(generate)

    def forward(self, ids: Array, lengths: Array | None = None) -> Array:
        check_ids(type(self).__name__, ids)
        check_batch_first(self)
        options = {} if lengths is None else {"lengths": lengths}
        x = self.sequence_model(self.embed(ids), **chosen(self.sequence_model, options))
        return self.generate(self.collapse.prefixes(x))

    def loss(self, ids: Array, lengths: Array | None = None) -> Array:
        """Minus the log-likelihood of a token given those before it, the mean over the tokens ids[:, 1:]; `lengths`,
        integers [B], of padded ids."""
        return sequence_loss(self(ids[:, :-1]), ids[:, 1:], lengths=_less(lengths), batch_first=True, reduction="step")

    def log_likelihood(self, ids: Array, lengths: Array | None = None) -> Array:
        """log p(ids[1:] | ids[0]) of each sequence, [B]."""
        return log_likelihood(self(ids[:, :-1]), ids[:, 1:], lengths=_less(lengths), batch_first=True)


def check_ids(layer: str, ids: Array) -> None:
    if len(ids.shape) != 2 or not ids.dtype.is_int:
        raise GraphError(f"{layer} takes integer ids [batch, time], got {ids.type}")


def check_batch_first(net: Module) -> None:
    """GraphError for recurrent layers that would take the batch for time."""
    for name, layer in net.named_modules():
        if isinstance(layer, Recurrent) and not layer.batch_first:
            raise GraphError(f"{type(net).__name__} takes ids [batch, time]: make {name}, {type(layer).__name__}, "
                             "with batch_first=True")


def _less(lengths: Array | None) -> Array | None:
    """The number of tokens that have one before them."""
    return None if lengths is None else gc.maximum(lengths - 1, 0)
