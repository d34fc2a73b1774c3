"""Attention of com.microsoft: with projections of its own, of several heads, of groups of heads with a cache, and
rotary positions."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import sqrt
from typing import Any

import numpy as np

import graphc as gc
from graphc.doors.onnx.call import Call, as_known
from graphc.doors.onnx.known import number_of
from graphc.doors.onnx.ops.microsoft import MICROSOFT
from graphc.doors.onnx.rule import Known, Operand, Unsupported
from graphc.dsl.array import Array
from graphc.errors import GraphError
from graphc.ir.dims import Dim, static_dim
from graphc.ir.types import i64

MASKED = -10000.0                   # what is added to a score that a mask hides, unless a node says otherwise


def heads_first(x: Array, heads: int) -> Array:
    """[B, T, heads * D] as [B, heads, T, D]."""
    b, t, width = x.shape
    return x.reshape((b, t, heads, width // heads)).transpose(0, 2, 1, 3)


def heads_last(x: Array) -> Array:
    """[B, heads, T, D] as [B, T, heads * D]."""
    b, n, t, d = x.shape
    return x.transpose(0, 2, 1, 3).reshape((b, t, n * d))


def _causal(queries: Array, keys: Array) -> Array:
    """bool [Tq, Tk]: the last query sees all keys."""
    tq, tk = queries.shape[-2], keys.shape[-2]
    return gc.expand_dims(gc.arange(tq), 1) + number_of(tk - tq) >= gc.expand_dims(gc.arange(tk), 0)


def _padding(mask: Array, b: Any, keys: Any) -> Array:
    """bool [B, 1, 1 or Tq, Tk] of lengths [B], or of a mask of 0 and 1 [B, Tk] or [B, Tq, Tk]."""
    if mask.ndim == 1:
        if mask.shape[0] != b:
            raise Unsupported("a mask of starts and ends")
        return (gc.expand_dims(gc.arange(keys), 0) < gc.expand_dims(mask.astype(i64), 1)).reshape((b, 1, 1, keys))
    if mask.ndim == 2:
        return (mask > 0).reshape((b, 1, 1, keys))
    if mask.ndim == 3:
        return gc.expand_dims(mask > 0, 1)
    raise Unsupported(f"a mask {mask.type}")


def attended(q: Array, k: Array, v: Array, scale: float, masks: Sequence[Array], bias: Array | None = None,
             hidden: float = MASKED) -> Array:
    """softmax(q kᵀ scale + bias) v, where each mask (bool, true: seen) adds `hidden` to what it hides."""
    if not masks and bias is None:
        return gc.attention(q, k, v, scale=scale)
    scores = q @ gc.swapaxes(k, -1, -2) * scale
    scores = scores if bias is None else scores + bias
    for mask in masks:
        scores = scores + gc.where(mask, 0.0, gc.full((), hidden, scores.dtype))
    return gc.softmax(scores, -1) @ v


def _joined(past: Array | None, new: Array) -> Array:
    return new if past is None else gc.concat([past, new], axis=2)


def attention(x: Array, weights: Array, bias: Array | None = None, mask: Array | None = None,
              past: Array | None = None, attention_bias: Array | None = None, past_length: Array | None = None, *,
              num_heads: int, unidirectional: int = 0, qkv_hidden_sizes: Sequence[int] = (),
              mask_filter_value: float = MASKED, scale: float = 0.0, do_rotary: int = 0,
              past_present_share_buffer: int = 0, rotary_embedding_dim: int = 0, call: Call) -> tuple[Any, ...]:
    """x [B, T, C], weights [C, 3 widths] of queries, keys and values side by side; past [2, B, heads, P, D]."""
    if do_rotary or past_present_share_buffer or past_length is not None:
        raise Unsupported("rotary positions or a shared buffer")
    y = x @ weights
    y = y if bias is None else y + bias
    widths = list(qkv_hidden_sizes) or [static_dim(weights.shape[1]) // 3] * 3
    ends = np.cumsum([0, *widths]).tolist()
    q, k, v = (heads_first(y[..., a:b], num_heads) for a, b in zip(ends, ends[1:]))
    if past is not None:
        k, v = _joined(past[0], k), _joined(past[1], v)
    masks = [_causal(q, k)] if unidirectional else []
    if mask is not None:
        masks.append(_padding(mask, x.shape[0], k.shape[2]))
    out = attended(q, k, v, scale or 1 / sqrt(widths[0] // num_heads), masks, attention_bias, mask_filter_value)
    return (heads_last(out), gc.stack([k, v], axis=0))[:call.wanted]


def multi_head_attention(query: Array, key: Array | None = None, value: Array | None = None,
                         bias: Array | None = None, mask: Array | None = None, attention_bias: Array | None = None,
                         past_key: Array | None = None, past_value: Array | None = None, *, num_heads: int,
                         mask_filter_value: float = MASKED, scale: float = 0.0, unidirectional: int = 0,
                         call: Call) -> tuple[Any, ...]:
    """Queries, keys and values [B, T, width], or packed [B, T, heads, 3, D]; keys and values that are laid out already
    are [B, heads, T, D]."""
    if query.ndim == 5:
        q, k, v = (query[:, :, :, i].transpose(0, 2, 1, 3) for i in range(3))
    elif key is None:
        raise Unsupported("queries without keys")
    else:
        q, k, v = _parts(query, key, value, bias, num_heads)
    k, v = _joined(past_key, k), _joined(past_value, v)
    masks = [_causal(q, k)] if unidirectional else []
    if mask is not None:
        masks.append(_padding(mask, q.shape[0], k.shape[2]))
    size = q.shape[-1]
    if not isinstance(size, int):
        raise GraphError(f"heads of the size {size}")
    out = attended(q, k, v, scale or 1 / sqrt(size), masks, attention_bias, mask_filter_value)
    return (heads_last(out), k, v)[:call.wanted]


def _parts(query: Array, key: Array, value: Array | None, bias: Array | None,
           heads: int) -> tuple[Array, Array, Array]:
    if bias is not None:
        width = query.shape[-1]
        query = query + bias[:width]
        if key.ndim == 3 and value is not None:
            keys = key.shape[-1]
            key, value = key + bias[width:width + keys], value + bias[width + keys:]
    q = heads_first(query, heads)
    if key.ndim == 5:                   # keys and values side by side
        return q, key[:, :, :, 0].transpose(0, 2, 1, 3), key[:, :, :, 1].transpose(0, 2, 1, 3)
    if value is None:
        raise Unsupported("keys without values")
    k, v = (x if x.ndim == 4 else heads_first(x, heads) for x in (key, value))
    return q, k, v


def rotated(x: Array, angles: tuple[Array, Array], interleaved: bool, size: int = 0) -> Array:
    """x [B, heads, T, D] turned by angles of these cosines and sines [B, 1, T, size / 2], in its first `size` features
    (0: all)."""
    size = size or static_dim(x.shape[-1])
    (cos, sin), rest = angles, x[..., size:]
    x = x[..., :size]
    if interleaved:
        pairs = x.reshape((*x.shape[:-1], size // 2, 2))
        a, b = pairs[..., 0], pairs[..., 1]
        turned = gc.stack([a * cos - b * sin, b * cos + a * sin], axis=-1).reshape(x.shape)
    else:
        a, b = x[..., :size // 2], x[..., size // 2:]
        turned = gc.concat([a * cos - b * sin, b * cos + a * sin], axis=-1)
    return gc.concat([turned, rest], axis=-1) if rest.shape[-1] != 0 else turned


def _angles(cos: Array, sin: Array, at: Array) -> tuple[Array, Array]:
    """Those of positions [B, T], with an axis for the heads."""
    return gc.expand_dims(gc.embedding(cos, at), 1), gc.expand_dims(gc.embedding(sin, at), 1)


def rotary_embedding(x: Array, positions: Array, cos: Array, sin: Array, *, interleaved: int = 0, num_heads: int = 0,
                     rotary_embedding_dim: int = 0, scale: float = 1.0, is_packed_batching: int = 0) -> Array:
    """x [B, T, width] or [B, heads, T, D]; positions [B, T], or the first one, [1]."""
    if is_packed_batching or scale != 1:
        raise Unsupported("packed batches, or scaled positions")
    size = rotary_embedding_dim or 2 * static_dim(cos.shape[-1])
    wide = x if x.ndim == 4 else heads_first(x, num_heads or static_dim(x.shape[-1] // size))
    t = wide.shape[2]
    at = positions.reshape((-1, 1)) + gc.arange(t).astype(positions.dtype) if positions.ndim == 1 else positions
    y = rotated(wide, _angles(cos, sin, at), bool(interleaved), rotary_embedding_dim)
    return y if x.ndim == 4 else heads_last(y)


def group_query_attention(query: Array, *rest: Operand, num_heads: int, kv_num_heads: int, do_rotary: int = 0,
                          rotary_interleaved: int = 0, local_window_size: int = -1, scale: float = 0.0,
                          softcap: float = 0.0, smooth_softmax: int = 0, call: Call) -> tuple[Any, ...]:
    """Causal attention, of whose heads each group shares keys and values. `rest`: keys and values, past ones [B,
    groups, P, D] that come before, the number of the last key of each sequence [B], the total, cosines, sines,
    positions, what is added to scores. The new keys stand behind those that a sequence has; all are P + T, or as many
    as the total says where the file knows it."""
    given = [None if v is None else call.array(v) for v in (*rest, *[None] * (10 - len(rest)))]
    key, value, past_key, past_value, seqlens_k, total, cos, sin, positions, attention_bias = given[:10]
    if seqlens_k is None or total is None:
        raise GraphError("GroupQueryAttention needs seqlens_k and total_sequence_length")
    if smooth_softmax:
        raise Unsupported("smooth_softmax")
    q, k, v = _grouped(query, key, value, num_heads, kv_num_heads)
    b, t, size = q.shape[0], q.shape[2], q.shape[3]
    first = gc.zeros((b, 1), i64)
    if past_key is not None:
        before = (seqlens_k.astype(i64) + 1 - number_of(t)).reshape((-1, 1))
        first = gc.where(total.reshape(()).astype(i64) == number_of(t), first, before)
    at = first + gc.expand_dims(gc.arange(t).astype(i64), 0)                       # [B, T]
    if do_rotary:
        if cos is None or sin is None:
            raise GraphError("GroupQueryAttention needs cos_cache and sin_cache")
        angles = _angles(cos, sin, at if positions is None else positions)
        q, k = (rotated(x, angles, bool(rotary_interleaved), 2 * static_dim(cos.shape[-1])) for x in (q, k))
    held = as_known(rest[5]).item("total_sequence_length") if isinstance(rest[5], Known) else None
    k, v = (_placed(past, new, at, held) for past, new in ((past_key, k), (past_value, v)))
    own = gc.arange(k.shape[2]).astype(i64).reshape((1, 1, 1, -1))
    place = at.reshape((b, 1, t, 1))
    seen = own <= place
    if local_window_size >= 0:
        seen = gc.logical_and(seen, own > place - local_window_size)
    groups = num_heads // kv_num_heads
    wide_k, wide_v = (gc.repeat(x, groups, axis=1) if groups > 1 else x for x in (k, v))
    scores = q @ gc.swapaxes(wide_k, -1, -2) * (scale or 1 / sqrt(size))
    scores = gc.tanh(scores / softcap) * softcap if softcap else scores
    scores = scores if attention_bias is None else scores + attention_bias
    p = gc.softmax(gc.where(seen, scores, -np.inf), -1)
    return (heads_last(p @ wide_v), k, v)[:call.wanted]


def _placed(past: Array | None, new: Array, at: Array, total: Dim | None) -> Array:
    """Keys or values [B, groups, T, D] at the places [B, T] behind past ones, whose array may have room for them."""
    if past is None:
        return new
    have, count = past.shape[2], new.shape[2]
    more = max(total - have, 0) if isinstance(total, int) and isinstance(have, int) else count
    room = gc.pad(past, [(0, 0), (0, 0), (0, more), (0, 0)]) if more != 0 else past
    places = gc.broadcast_to(at.reshape((at.shape[0], 1, count, 1)), new.shape)
    return gc.scatter_along_axis(room, places, new, 2, partial=True)


def _grouped(query: Array, key: Array | None, value: Array | None, heads: int,
             groups: int) -> tuple[Array, Array, Array]:
    if key is None or value is None:            # all in one, side by side
        size = query.shape[-1] // (heads + 2 * groups)
        ends = [0, heads * size, (heads + groups) * size, (heads + 2 * groups) * size]
        query, key, value = (query[..., a:b] for a, b in zip(ends, ends[1:]))
    return heads_first(query, heads), heads_first(key, groups), heads_first(value, groups)


RULES: Mapping[str, Callable[..., Any]] = {f"{MICROSOFT}:{name}": rule for name, rule in (
    ("Attention", attention), ("MultiHeadAttention", multi_head_attention), ("RotaryEmbedding", rotary_embedding),
    ("GroupQueryAttention", group_query_attention))}
