"""Blocks of a Transformer. Parameter names as in torch.nn.TransformerEncoderLayer and TransformerDecoderLayer."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.dsl.array import Array
from graphc.errors import GraphError
from graphc.nn.activation import activation_named
from graphc.nn.attention import MultiHeadAttention
from graphc.nn.linear import Linear
from graphc.nn.module import Module
from graphc.nn.norm import Dropout
from graphc.nn.padding import shown_steps
from graphc.nn.position import InnerPosition
from graphc.nn.residual import add_norm, norm_named


class TransformerBlock(Module):
    """Self-attention and a two-layer network, each with a residual and a norm; x [B, T, E] -> [B, T, E].

    Post-norm (Vaswani et al. 2017) unless `pre_norm`. `hidden` is 4 E unless given. `norm`: "layer", "rms", or a
    function that makes a norm layer. `mask`, `lengths`, `causal` and `position` as in `MultiHeadAttention`. As
    torch.nn.TransformerEncoderLayer with batch_first, but GELU, hidden = 4 E and dropout 0 are the defaults, and
    dropout spares the attention weights.
    """

    def __init__(self, heads: int, *, hidden: int | None = None, causal: bool = False, pre_norm: bool = False,
                 dropout: float = 0.0,
                 activation: Callable[..., Any] | str = "gelu", norm: Callable[..., Any] | str = "layer",
                 position: InnerPosition | None = None) -> None:
        super().__init__()
        self.heads, self.hidden, self.pre_norm, self.activation = heads, hidden, pre_norm, activation_named(activation)
        self.self_attn = MultiHeadAttention(heads, causal=causal, position=position)
        self.linear1, self.linear2 = Linear(hidden), Linear(None)         # None: follows the input
        self.norm1, self.norm2, self.dropout = norm_named(norm), norm_named(norm), Dropout(dropout)

    def forward(self, x: Array, mask: Array | None = None, lengths: Array | None = None) -> Array:
        x = shown_steps("TransformerBlock", x, lengths)
        x = self._add(self.norm1, x, lambda h: self.self_attn(h, mask=mask, lengths=lengths))
        return self._add(self.norm2, x, self._feed_forward)

    def _feed_forward(self, h: Array) -> Array:
        self.linear1.features, self.linear2.features = self.hidden or 4 * h.shape[-1], h.shape[-1]
        return self.linear2(self.dropout(self.activation(self.linear1(h))))

    def _add(self, norm: Module, x: Array, f: Callable[..., Any]) -> Array:
        return add_norm(norm, x, lambda h: self.dropout(f(h)), self.pre_norm)


class DecoderBlock(TransformerBlock):
    """A block of an encoder–decoder Transformer (Vaswani et al. 2017): causal self-attention, attention to the
    encoder's result, network.

    `block(x, memory=m)`: x [B, T, E], m [B, S, M] -> [B, T, E]; `memory_mask` [B, heads, T, S] and `memory_lengths`
    [B] hide parts of m. In a chain, `decoder(ids, memory=m)` gives m to every block. As
    torch.nn.TransformerDecoderLayer but for the defaults of
    `TransformerBlock`, and causal.
    """

    def __init__(self, heads: int, *, causal: bool = True, norm: Callable[..., Any] | str = "layer",
                 **options: Any) -> None:
        super().__init__(heads, causal=causal, norm=norm, **options)
        self.multihead_attn, self.norm3 = MultiHeadAttention(heads), norm_named(norm)

    # memory comes second, as torch's decoder has it
    def forward(self, x: Array, memory: Array | None = None,                    # type: ignore[override]
                mask: Array | None = None, lengths: Array | None = None, memory_mask: Array | None = None,
                memory_lengths: Array | None = None) -> Array:
        if memory is None:
            raise GraphError("DecoderBlock attends to what an encoder made: give memory=, [batch, time, features]")
        x = shown_steps("DecoderBlock", x, lengths)
        x = self._add(self.norm1, x, lambda h: self.self_attn(h, mask=mask, lengths=lengths))
        x = self._add(self.norm2, x, lambda h: self.multihead_attn(h, memory, mask=memory_mask, lengths=memory_lengths))
        return self._add(self.norm3, x, self._feed_forward)
