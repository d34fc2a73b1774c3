"""From a sequence to another: an encoder reads the one, a decoder writes the other."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import graphc as gc
from graphc.dsl.array import Array
from graphc.errors import GraphError
from graphc.nn.attention import Attention
from graphc.nn.decode import decoding
from graphc.nn.language_model import check_batch_first, check_ids
from graphc.nn.linear import Linear
from graphc.nn.loss import sequence_loss
from graphc.nn.module import Module, as_module, chosen


class Seq2Seq(Module):
    """(source ids [B, S], target ids [B, T]) -> the scores of what follows each target token, [B, T, count].

    The decoder, ids [B, T] -> scores, gets of the encoder's work what its layers take: `start`, the last state of a
    recurrent encoder (Sutskever et al. 2014), and `memory` with `memory_lengths`, all its steps [B, S, H]
    (nn.DecoderBlock: Vaswani et al. 2017; nn.AttendTo: Luong et al. 2015).

        LSTM         Seq2Seq(embed >> nn.LSTM(h, batch_first=True), embed_out >> nn.LSTM(h, batch_first=True) >>
        nn.Linear(count)) Transformer  Seq2Seq(embed >> position >> nn.TransformerBlock(4) ** 2, embed >> position >>
        nn.DecoderBlock(4) ** 2 >> nn.GenerateToken(embed))

    A recurrent encoder is a chain that ends in its one recurrent layer. `bridge`: a function of its state that gives
    the decoder's.
    `source_lengths`, integers [B], of padded sources. Targets start with a token that says "start": `loss` predicts
    target[:, 1:].
    """
    generates = "target"

    def __init__(self, encoder: Callable[..., Any], decoder: Callable[..., Any],
                 bridge: Callable[..., Any] | None = None) -> None:
        super().__init__()
        self.encoder, self.decoder = as_module(encoder), as_module(decoder)
        self.bridge = None if bridge is None else as_module(bridge)

    def forward(self, source: Array, target: Array, source_lengths: Array | None = None) -> Array:
        check_ids("Seq2Seq: target", target)
        check_batch_first(self)
        now = decoding()
        encoded = now.once(self, "encoded",
                           lambda: self.encode(source, source_lengths)) if now else self.encode(source, source_lengths)
        return self.decoder(target, **encoded)

    def encode(self, source: Array, lengths: Array | None = None) -> dict[str, Any]:
        """What the decoder takes: {"start": …, "memory": [B, S, H], "memory_lengths": [B]}, or those of them that it
        does."""
        check_ids("Seq2Seq: source", source)
        padded = {} if lengths is None else {"lengths": lengths}
        if "start" in self.decoder.takes():
            memory, state = self._recurrent(source, padded)
            encoded = {"memory": memory, "start": self.bridge(state) if self.bridge else state}
        else:
            encoded = {"memory": self.encoder(source, **chosen(self.encoder, padded))}
        encoded = chosen(self.decoder, {**encoded, **({} if lengths is None else {"memory_lengths": lengths})})
        return encoded or self._unused()

    def loss(self, source: Array, target: Array, source_lengths: Array | None = None,
             lengths: Array | None = None) -> Array:
        """Minus the log-likelihood of a target token given the source and the tokens before it, the mean over
        target[:, 1:]; `lengths`, integers [B], of padded targets, with the first token."""
        scores = self(source, target[:, :-1], source_lengths=source_lengths)
        counted = None if lengths is None else gc.maximum(lengths - 1, 0)
        return sequence_loss(scores, target[:, 1:], lengths=counted, batch_first=True, reduction="step")

    def _recurrent(self, source: Array, padded: dict[str, Any]) -> tuple[Array, Any]:
        if "return_state" not in self.encoder.takes():
            raise GraphError("Seq2Seq: the decoder is recurrent, so the encoder must end in a recurrent layer, "
                             "whose state it starts with")
        return self.encoder(source, return_state=True, **chosen(self.encoder, padded))

    def _unused(self) -> NoReturn:
        raise GraphError("Seq2Seq: the decoder takes nothing from the encoder; it needs a recurrent layer, "
                         "nn.DecoderBlock or nn.AttendTo")


class AttendTo(Module):
    """tanh(W [x; c] + b), c what x attends to in a memory (Luong et al. 2015, global attention): x [B, T, E], memory
    [B, S, M] -> [B, T, E].

    Scores are x · m / sqrt(E), so M = E; with `features` those of x and m mapped to so many numbers (see
    nn.Attention), whatever M is.
    `memory_lengths`, integers [B], of padded memories.
    """

    def __init__(self, features: int | None = None) -> None:
        super().__init__()
        self.attention, self.out_proj = Attention(features), Linear(None)

    def forward(self, x: Array, memory: Array | None = None, memory_lengths: Array | None = None) -> Array:
        if memory is None:
            raise GraphError("AttendTo attends to what an encoder made: give memory=, [batch, time, features]")
        self.out_proj.features = x.shape[-1]
        return gc.tanh(self.out_proj(gc.concat([x, self.attention(x, memory, lengths=memory_lengths)], axis=-1)))
