"""Attention layers, batch first. Parameter names as in torch.nn.MultiheadAttention."""
from __future__ import annotations

from typing import Any, overload
import graphc as gc
from graphc.dsl.array import Array, as_array
from graphc.dsl.attention import attend, seen_keys
from graphc.dsl.order import batch_comes_first, said
from graphc.errors import GraphError
from graphc.ir.convert import integer
from graphc.ir.dims import Dim
from graphc.ir.ops.attention import MASKED
from graphc.nn.decode import attended
from graphc.nn.linear import Linear
from graphc.nn.module import Module
from graphc.nn.padding import real_keys, shown_steps
from graphc.nn.parameter import ZEROS, XavierUniform
from graphc.nn.position import InnerPosition


class Attention(Module):
    """One head: a query y over x1 … xn gives sum over i of softmax(y · xi / sqrt(D)) xi (Bahdanau et al. 2015,
    Vaswani et al. 2017).

    `layer(y, x)`: y [B, D] or [B, T, D] and x [B, n, D] -> the shape of y (B may be any axes or none); `layer(y, k,
    v)`: v [B, n, E] are averaged instead of the keys k, -> [B, T, E]; `layer(x)`: x [B, T, D] attends to itself.
    Without `features` the layer has no parameters; with it, queries, keys and values are first mapped to `features`
    numbers by q_proj, k_proj and v_proj, whatever their widths.
    `scaled=False` leaves / sqrt(D) out. `mask` and `lengths` as in `MultiHeadAttention`; mask broadcasts to [B, T, n].
    """

    def __init__(self, features: int | None = None, *, scaled: bool = True, causal: bool = False) -> None:
        super().__init__()
        self.features, self.scaled, self.causal = features, scaled, causal
        self.q_proj, self.k_proj, self.v_proj = (Linear(features, bias=False) if features else None for _ in range(3))

    def forward(self, q: Array, k: Array | None = None, v: Array | None = None, mask: Array | None = None,
                lengths: Array | None = None) -> Array:
        own, single = k is None, k is not None and len(q.shape) == len(k.shape) - 1
        q = gc.expand_dims(q, -2) if single else q
        q, k, v = _shown("Attention", q, k, v, lengths)
        k = q if k is None else k
        v = k if v is None else v
        for x in (q, k, v):
            if len(x.shape) == 3:
                batch_comes_first("Attention", x, told=True)
        q, k, v = (p(a) if p else a for p, a in zip((self.q_proj, self.k_proj, self.v_proj), (q, k, v)))
        k, v, mask, causal = attended(self, own, *seen_keys(mask, k, v), mask, lengths)
        z = attend(q, k, v, _seen("Attention", mask, lengths, k), causal, None if self.scaled else 1.0)
        if single:
            return gc.squeeze(z, -2)
        return said(z, True) if len(z.shape) == 3 else z


class MultiHeadAttention(Module):
    """Scaled dot-product attention of `heads` heads (Vaswani et al. 2017).

    x [B, T, E] -> [B, T, E] attends to itself; `layer(q, k, v)` with k [B, S, K] and v [B, S, V] attends across (v: k
    unless given). E must divide by heads. Where K or V is not E, the weights are q_proj_weight, k_proj_weight and
    v_proj_weight, else in_proj_weight.
    `mask` broadcasts to [B, heads, T, S]: bool (True = may look; torch's layer has it the other way round) or float
    (added to the scores).
    `lengths`, integers [B]: nobody looks at keys from there on, and x there counts as 0. `causal`: nobody looks at
    later keys.
    `position`: `nn.RotaryPosition()` or `nn.RelativePosition()`, for attention of a sequence to itself.
    """

    def __init__(self, heads: int, *, causal: bool = False, bias: bool = True,
                 position: InnerPosition | None = None) -> None:
        super().__init__()
        if position is not None and not isinstance(position, InnerPosition):
            raise GraphError(f"position= takes nn.RotaryPosition() or nn.RelativePosition(), got {position!r}; "
                             "other position embeddings stand in front of the first block")
        self.heads, self.causal, self.bias, self.position = integer(heads, "heads", 1), causal, bias, position
        self.out_proj = Linear(None, bias=bias, bias_init=ZEROS)

    def forward(self, q: Array, k: Array | None = None, v: Array | None = None, mask: Array | None = None,
                lengths: Array | None = None) -> Array:
        v = k if v is None else v
        _check_sequences(q, *(() if k is None else (k, v)))
        own, width = k is None, q.shape[-1]
        self.out_proj.features = width
        if not isinstance(width, int) or width % self.heads:
            raise GraphError(f"MultiHeadAttention({self.heads}) takes [batch, time, features] with features divisible "
                             f"by {self.heads}, "
                             f"got {list(q.shape)}")
        q, k, v = (self._heads(x) for x in self._project(*_shown("MultiHeadAttention", q, k, v, lengths)))
        if self.position is not None:
            q, k = self.position.turn(q), self.position.turn(k)
        k, v, mask, causal = attended(self, own, *seen_keys(mask, k, v), mask, lengths)
        bias = None if self.position is None else self.position.bias(q, k)
        mask = _masked(_seen("MultiHeadAttention", mask, lengths, k), bias)
        y = attend(q, k, v, mask, causal)
        return said(self.out_proj(y.transpose(0, 2, 1, 3).reshape(*q.shape[:1], q.shape[2], width)), True)

    def _heads(self, x: Array) -> Array:
        """[B, T, E] as [B, heads, T, E / heads]."""
        return x.reshape(*x.shape[:2], self.heads, x.shape[2] // self.heads).transpose(0, 2, 1, 3)

    def _project(self, q: Array, k: Array | None, v: Array | None) -> list[Array]:
        """Queries, keys and values, each [B, …, E]; those of one array by one product."""
        width = q.shape[-1]
        bias = self.parameter("in_proj_bias", (3 * width,), ZEROS, q.dtype) if self.bias else None
        if k is not None and v is not None and (k.shape[-1] != width or v.shape[-1] != width):
            return [_affine(x, self.parameter(f"{name}_proj_weight", (width, x.shape[-1]), XavierUniform(), q.dtype),
                            _rows(bias, i, width))
                    for i, (name, x) in enumerate(zip("qkv", (q, k, v)))]
        weight = self.parameter("in_proj_weight", (3 * width, width), XavierUniform(), q.dtype)
        if k is None or v is None:
            return _parts(_affine(q, weight, bias), width)
        query = _affine(q, _rows(weight, 0, width), _rows(bias, 0, width))
        if k is v:
            return [query, *_parts(_affine(k, _rows(weight, 1, width, 2), _rows(bias, 1, width, 2)), width)]
        return [query, *(_affine(x, _rows(weight, i, width), _rows(bias, i, width)) for i, x in ((1, k), (2, v)))]


def _affine(x: Array, weight: Array, bias: Array | None) -> Array:
    y = x @ weight.T
    return y if bias is None else y + bias


@overload
def _rows(x: Array, i: int, width: Dim, count: int = 1) -> Array: ...


@overload
def _rows(x: None, i: int, width: Dim, count: int = 1) -> None: ...


def _rows(x: Array | None, i: int, width: Dim, count: int = 1) -> Array | None:
    """Block i of `width` rows, and those after it."""
    return None if x is None else x[i * width:(i + count) * width]


def _parts(x: Array, width: Dim) -> list[Array]:
    """x cut along its last axis into arrays of `width`."""
    return [x[..., i * width:(i + 1) * width] for i in range(x.shape[-1] // width)]


def _shown(layer: str, q: Array, k: Array | None, v: Array | None,
           lengths: Array | None) -> tuple[Array, Array | None, Array | None]:
    """q, k and v, None where they are not given, with 0 for padding in what is attended to: their weights' gradients
    are products with it."""
    if k is None:
        return shown_steps(layer, q, lengths), None, None
    keys = shown_steps(layer, k, lengths)
    return q, keys, keys if v is None or v is k else shown_steps(layer, v, lengths)


def _seen(layer: str, mask: Array | None, lengths: Array | None, k: Array) -> Array | None:
    """The mask that also hides keys from `lengths` on; it broadcasts to the scores of keys [B, …, S, D]."""
    mask = None if mask is None else as_array(mask)
    if lengths is None:
        return mask
    real = gc.expand_dims(real_keys(layer, lengths, k), -2)
    if mask is None:
        return real
    return mask & real if mask.dtype == gc.bool_ else gc.where(real, mask, MASKED)


def _masked(mask: Array | None, bias: Array | None) -> Array | None:
    """One mask from a mask (bool, float or None) and a bias that is added to the scores."""
    if mask is None or bias is None:
        return bias if mask is None else mask
    return gc.where(mask, bias, MASKED) if mask.dtype == gc.bool_ else mask + bias


def _check_sequences(*arrays: Any) -> None:
    for x in arrays:
        if len(x.shape) != 3:
            raise GraphError(f"MultiHeadAttention takes [batch, time, features], got {list(x.shape)}")
    if len({x.shape[0] for x in arrays}) > 1 or len({x.shape[1] for x in arrays[1:]}) > 1:
        raise GraphError("MultiHeadAttention: queries, keys and values must agree in the batch, keys and values also "
                         "in time, got "
                         + ", ".join(str(list(x.shape)) for x in arrays))
    for x in arrays:
        said(x, batch_comes_first("MultiHeadAttention", x, told=True))
