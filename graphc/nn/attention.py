"""Attention layers and the Transformer block. Parameter names as in torch.nn.MultiheadAttention and TransformerEncoderLayer."""
from __future__ import annotations

import graphc as gc
from graphc.errors import GraphError
from graphc.nn.activation import NAMED
from graphc.nn.linear import Linear
from graphc.nn.module import Module
from graphc.nn.norm import Dropout, LayerNorm, RMSNorm
from graphc.nn.parameter import ZEROS, XavierUniform

NORMS = {"layer": LayerNorm, "rms": RMSNorm}


class MultiHeadAttention(Module):
    """Scaled dot-product attention of `heads` heads (Vaswani et al. 2017); batch first.

    x [B, T, E] -> [B, T, E] attends to itself; `layer(q, k, v)` with k, v [B, S, E] attends across. `mask` broadcasts to
    [B, heads, T, S]: bool (True = may look) or float (added to the scores). E must divide by heads.
    """

    def __init__(self, heads: int, causal: bool = False, bias: bool = True):
        super().__init__()
        self.heads, self.causal, self.bias = heads, causal, bias
        self.out_proj = Linear(None, bias, bias_init=ZEROS)

    def forward(self, q, k=None, v=None, mask=None):
        width = self.out_proj.features = q.shape[-1]
        if len(q.shape) != 3 or width % self.heads:
            raise GraphError(f"MultiHeadAttention({self.heads}) takes [batch, time, features] with features divisible by {self.heads}, "
                             f"got {list(q.shape)}")
        weight = self.parameter("in_proj_weight", (3 * width, width), XavierUniform(), q.dtype)
        bias = self.parameter("in_proj_bias", (3 * width,), ZEROS, q.dtype) if self.bias else None
        y = gc.attention(*self._project(q, k, v, weight, bias), mask=mask, causal=self.causal)
        return self.out_proj(y.transpose(0, 2, 1, 3).reshape(*q.shape))

    def _project(self, q, k, v, weight, bias) -> list:
        """q, k, v as [B, heads, T, E / heads]; one product when all three come from the same array."""
        width = q.shape[-1]
        if k is None:
            joined = _affine(q, weight, bias)
            parts = [joined[..., i * width:(i + 1) * width] for i in range(3)]
        else:
            rows = [slice(i * width, (i + 1) * width) for i in range(3)]
            parts = [_affine(x, weight[r], None if bias is None else bias[r]) for x, r in zip((q, k, k if v is None else v), rows)]
        return [p.reshape(*p.shape[:2], self.heads, width // self.heads).transpose(0, 2, 1, 3) for p in parts]


class TransformerBlock(Module):
    """Self-attention and a two-layer network, each with a residual and a norm; x [B, T, E].

    Post-norm (Vaswani et al. 2017) unless `pre_norm`. `hidden` is 4 E unless given. As torch.nn.TransformerEncoderLayer with
    batch_first, but GELU, hidden = 4 E and dropout 0 are the defaults.
    """

    def __init__(self, heads: int, hidden: int | None = None, causal: bool = False, pre_norm: bool = False, dropout: float = 0.0,
                 activation: str = "gelu", norm: str = "layer"):
        super().__init__()
        if activation not in NAMED or norm not in NORMS:
            raise GraphError(f"activation is one of {', '.join(NAMED)} and norm one of {', '.join(NORMS)}, got {activation!r} and {norm!r}")
        self.heads, self.hidden, self.pre_norm, self.activation = heads, hidden, pre_norm, NAMED[activation]
        self.self_attn = MultiHeadAttention(heads, causal)
        self.linear1, self.linear2 = Linear(hidden), Linear(None)         # None: follows the input
        self.norm1, self.norm2, self.dropout = NORMS[norm](), NORMS[norm](), Dropout(dropout)

    def forward(self, x, mask=None):
        self.linear2.features = x.shape[-1]
        self.linear1.features = self.hidden or 4 * x.shape[-1]
        x = self._add(self.norm1, x, lambda h: self.self_attn(h, mask=mask))
        return self._add(self.norm2, x, lambda h: self.linear2(self.dropout(self.activation(self.linear1(h)))))

    def _add(self, norm: Module, x, f):
        """The residual x + f(x), with the norm before f or after the sum."""
        if self.pre_norm:
            return x + self.dropout(f(norm(x)))
        return norm(x + self.dropout(f(x)))


def _affine(x, weight, bias):
    y = x @ weight.T
    return y if bias is None else y + bias
