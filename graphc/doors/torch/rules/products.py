"""Products of matrices, convolutions, linear algebra, recurrent layers and attention."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt
from typing import Any

import graphc as gc
from graphc import nn
from graphc.doors.torch.rules.factorisations import information, symmetric
from graphc.doors.torch.rules.promotion import as_type, promoted
from graphc.doors.torch.rules.reductions import nonzero_as_one
from graphc.doors.torch.rules.shapes import axis_of
from graphc.errors import GraphError
from graphc.ir.types import bool_, i32

Array = gc.Array
Rule = Callable[..., Any]


def _plus(scale: Any, x: Array) -> Array:
    return x if scale == 1 else x * as_type(scale, x.dtype)


def _added_product(product: Callable[[Array, Array], Array]) -> Rule:
    """beta * x + alpha * product; with beta 0 x does not count, NaN neither."""
    def rule(x: Array, a: Array, b: Array, beta: Any = 1, alpha: Any = 1) -> Array:
        y = _plus(alpha, product(a, b))
        return gc.broadcast_to(y, y.shape) if beta == 0 else y + _plus(beta, x)
    return rule


def _outer(a: Array, b: Array) -> Array:
    return gc.expand_dims(a, 1) * gc.expand_dims(b, 0)


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """x @ weight.T + bias."""
    y = x @ (weight.T if weight.ndim == 2 else weight)
    return y if bias is None else y + bias


def _per_axis(values: Any, axes: int) -> tuple[Any, ...]:
    values = (values,) if isinstance(values, int) else tuple(values)
    return values * axes if len(values) == 1 else values


CONV = {1: gc.conv1d, 2: gc.conv2d, 3: gc.conv3d}
TRANSPOSED = {1: gc.conv_transpose1d, 2: gc.conv_transpose2d, 3: gc.conv_transpose3d}


def _with_bias(y: Array, bias: Array | None, axes: int) -> Array:
    return y if bias is None else y + bias.reshape(-1, *(1,) * axes)


def convolution(x: Array, weight: Array, bias: Array | None, stride: Any, padding: Any, dilation: Any,
                transposed: bool, output_padding: Any, groups: int) -> Array:
    """aten.convolution, for one to three axes of an image, with or without a batch."""
    axes = weight.ndim - 2
    alone = x.ndim == axes + 1
    x = gc.expand_dims(x, 0) if alone else x
    stride, dilation = _per_axis(stride, axes), _per_axis(dilation, axes)
    padding = padding if isinstance(padding, str) else _per_axis(padding, axes)
    if transposed:
        y = TRANSPOSED[axes](x, weight, stride, padding, _per_axis(output_padding, axes), dilation, groups)
    else:
        y = CONV[axes](x, weight, stride, padding, dilation, groups)
    y = _with_bias(y, bias, axes)
    return y.squeeze(0) if alone else y


def _conv(x: Array, weight: Array, bias: Array | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
          groups: int = 1) -> Array:
    return convolution(x, weight, bias, stride, padding, dilation, False, 0, groups)


def _conv_transposed(x: Array, weight: Array, bias: Array | None = None, stride: Any = 1, padding: Any = 0,
                     output_padding: Any = 0, groups: int = 1, dilation: Any = 1) -> Array:
    return convolution(x, weight, bias, stride, padding, dilation, True, output_padding, groups)


# attention


def attention(q: Array, k: Array, v: Array, mask: Array | None = None, dropout: float = 0.0, causal: bool = False, *,
              scale: float | None = None, enable_gqa: bool = False) -> Array:
    """scaled_dot_product_attention, fewer heads of keys and values than of queries included: torch.export says so
    (`enable_gqa`), the operators of single devices do not."""
    if enable_gqa or q.ndim == k.ndim == v.ndim == 4:
        k, v = (_of_heads(q, a) for a in (k, v))
    if mask is None:
        return _attention(q, k, v, None, dropout, causal, scale)
    mask = mask if mask.dtype is bool_ else mask.astype(q.dtype)
    mask = mask.reshape((1,)) if mask.ndim == 0 else mask
    sees = _sees(mask)
    return gc.where(sees, _attention(q, k, v, _unmasked(mask, sees), dropout, causal, scale), as_type(0, q.dtype))


def _of_heads(q: Array, x: Array) -> Array:
    """Keys or values, each head as often as it has heads of queries."""
    heads, own = q.shape[-3], x.shape[-3]
    if isinstance(heads, int) and isinstance(own, int) and 0 < own < heads:
        return gc.repeat(x, heads // own, x.ndim - 3)
    return x


def _sees(mask: Array) -> Array:
    """[…, Tq, 1]: whether a query sees any key. The results of one that sees none are 0 in PyTorch."""
    return gc.any(mask if mask.dtype is bool_ else mask != as_type(-float("inf"), mask.dtype), -1, True)


def _unmasked(mask: Array, sees: Array) -> Array:
    """The mask with all keys for queries that see none, so that nothing on the way is NaN, gradients included."""
    return mask | gc.logical_not(sees) if mask.dtype is bool_ else gc.where(sees, mask, as_type(0, mask.dtype))


def _attention(q: Array, k: Array, v: Array, mask: Array | None, dropout: float, causal: bool,
               scale: float | None) -> Array:
    if not dropout:
        return gc.attention(q, k, v, mask, causal=causal, scale=scale)
    scores = (q @ k.mT) * (1 / sqrt(q.shape[-1]) if scale is None else scale)
    if causal:
        shape = scores.shape[-2:]
        scores = gc.where(gc.iota(shape, 1) <= gc.iota(shape, 0), scores, -gc.full((), float("inf"), scores.dtype))
    if mask is not None:
        scores = scores + mask if mask.dtype is not bool_ else gc.where(mask, scores, as_type(-float("inf"),
                                                                                             scores.dtype))
    return gc.dropout(gc.softmax(scores, -1), dropout) @ v


def _flash(q: Array, k: Array, v: Array, dropout: float = 0.0, causal: bool = False, *, attn_mask: Array | None = None,
           scale: float | None = None) -> tuple[Array, Array]:
    """What attention decomposes to on a CPU: the result, and the logarithms of the sums of its softmax."""
    if dropout:
        raise GraphError("attention with dropout, whose mask its backward pass would have to know")
    y = attention(q, k, v, attn_mask, 0.0, causal, scale=scale)
    scores = (q @ _of_heads(q, k).mT) * (1 / sqrt(q.shape[-1]) if scale is None else scale)
    if causal:
        shape = scores.shape[-2:]
        scores = gc.where(gc.iota(shape, 1) <= gc.iota(shape, 0), scores, as_type(-float("inf"), scores.dtype))
    scores = scores if attn_mask is None else scores + attn_mask.astype(scores.dtype)
    return y, gc.logsumexp(scores, -1)


def _encoder_layer(x: Array, width: int, heads: int, w_qkv: Array, b_qkv: Array, w_out: Array, b_out: Array,
                   use_gelu: bool, norm_first: bool, eps: float, *weights: Any) -> Array:
    """nn.TransformerEncoderLayer as PyTorch calls it in inference, [B, T, width]."""
    gamma1, beta1, gamma2, beta2, w1, b1, w2, b2 = weights[:8]
    mask, kind = (*weights[8:], None, None)[:2]

    def attended(y: Array) -> Array:
        q, k, v = gc.split(linear(y, w_qkv, b_qkv).reshape((*y.shape[:-1], 3 * heads, width // heads)).swapaxes(-2, -3),
                           3, axis=-3)
        found = gc.attention(q, k, v, _seen(mask, kind, y))         # NaN of what sees nothing, as PyTorch's layer
        return linear(found.swapaxes(-2, -3).reshape(y.shape), w_out, b_out)

    def fed(y: Array) -> Array:
        return linear((gc.gelu if use_gelu else gc.relu)(linear(y, w1, b1)), w2, b2)
    if norm_first:
        x = x + attended(gc.layer_norm(x, gamma1, beta1, eps=eps))
        return x + fed(gc.layer_norm(x, gamma2, beta2, eps=eps))
    x = gc.layer_norm(x + attended(x), gamma1, beta1, eps=eps)
    return gc.layer_norm(x + fed(x), gamma2, beta2, eps=eps)


def _seen(mask: Array | None, kind: int | None, x: Array) -> Array | None:
    """The mask as attention takes it: in PyTorch's, True hides. kind 0: [T, T], 1: [B, T], 2: [B, heads, T, T]."""
    if mask is None:
        return None
    if mask.dtype is not bool_:
        raise GraphError("this mask is added to scores; give one of bools")
    shown = gc.logical_not(mask)
    return shown.reshape((x.shape[0], 1, 1, x.shape[1])) if kind == 1 else shown


# recurrent layers


def _directions(params: Sequence[Array], layers: int, both: bool, per: int) -> list[list[Sequence[Array]]]:
    """The parameters of each direction of each layer."""
    runs = [params[i * per:(i + 1) * per] for i in range(layers * (2 if both else 1))]
    return [list(runs[i * 2:i * 2 + 2]) if both else [runs[i]] for i in range(layers)]


def _one_direction(layer: nn.LSTM | nn.GRU | nn.RNN, x: Array, params: Sequence[Array], biased: bool,
                   carry: tuple[Array, ...], reverse: bool) -> tuple[tuple[Array, ...], Array]:
    """The loop over time of one direction."""
    biases = tuple(params[2:4]) if biased else ()
    projected, step = layer.cell(x @ params[0].T, params[1].T, biases)
    if len(params) in (3, 5):                           # LSTM with projections
        step = _projected(step, params[-1])
    return gc.scan(step, carry, projected, reverse=reverse)


def _projected(step: Callable[..., Any], weight: Array) -> Callable[..., Any]:
    def narrowed(carry: tuple[Array, ...], x: Array) -> tuple[tuple[Array, ...], Array]:
        (h, c), _ = step(carry, x)
        h = h @ weight.T
        return (h, c), h
    return narrowed


def _recurrent(make: Callable[[int], Any], gates: int, carries: int) -> Rule:
    def rule(x: Array, hx: Any, params: Sequence[Array], has_biases: bool, num_layers: int, dropout: float, train: bool,
             bidirectional: bool, batch_first: bool) -> tuple[Array, ...]:
        starts = list(hx) if carries > 1 else [hx]
        alone = x.ndim == 2
        if alone:
            x, starts, batch_first = gc.expand_dims(x, 1), [gc.expand_dims(s, 1) for s in starts], False
        x = x.swapaxes(0, 1) if batch_first else x
        hidden = _static(params[0].shape[0]) // gates
        projecting = carries == 2 and starts[0].shape[-1] != starts[1].shape[-1]
        per = 2 + 2 * has_biases + projecting
        after: list[tuple[Array, ...]] = []
        for number, directions in enumerate(_directions(params, num_layers, bidirectional, per)):
            outputs = []
            for direction, own in enumerate(directions):
                carry = tuple(s[len(after)] for s in starts)
                new, y = _one_direction(make(hidden), x, own, has_biases, carry, bool(direction))
                outputs.append(y)
                after.append(new)
            x = outputs[0] if len(outputs) == 1 else gc.concat(outputs, -1)
            if dropout and train and number < num_layers - 1:
                x = gc.dropout(x, dropout)
        finals = [gc.stack(parts, 0) for parts in zip(*after)]
        if alone:
            return x.squeeze(1), *(f.squeeze(1) for f in finals)
        return x.swapaxes(0, 1) if batch_first else x, *finals
    return rule


def _elman(activation: str) -> Callable[[int], Any]:
    return lambda hidden: nn.RNN(hidden, activation=activation)


LAYERS = {"lstm": _recurrent(nn.LSTM, 4, 2), "gru": _recurrent(nn.GRU, 3, 1),
          "rnn_tanh": _recurrent(_elman("tanh"), 1, 1), "rnn_relu": _recurrent(_elman("relu"), 1, 1)}


def _cell(make: Callable[[int], Any], carries: int) -> Rule:
    def rule(x: Array, hx: Any, w_ih: Array, w_hh: Array, b_ih: Array | None = None, b_hh: Array | None = None) -> Any:
        carry = tuple(hx) if carries > 1 else (hx,)
        biases = () if b_ih is None or b_hh is None else (b_ih, b_hh)
        projected, step = make(_static(w_hh.shape[1])).cell(x @ w_ih.T, w_hh.T, biases)
        new, _ = step(carry, projected)
        return new if carries > 1 else new[0]
    return rule


def _static(size: Any) -> int:
    if not isinstance(size, int):
        raise GraphError(f"a recurrent layer needs a known number of features, got {size}")
    return size


# linear algebra


def _cholesky(x: Array, *, upper: bool = False, check_errors: bool = False) -> tuple[Array, Array]:
    factor = gc.cholesky(symmetric(x, upper))
    return factor.mT if upper else factor, information(x)


def _solve(a: Array, b: Array, *, left: bool = True) -> Array:
    if not left:
        return _solve(a.mT, b.mT).mT
    vector = b.ndim == 1 or (b.ndim == a.ndim - 1 and b.shape == a.shape[:-1])
    return gc.solve(a, gc.expand_dims(b, b.ndim)).squeeze(-1) if vector else gc.solve(a, b)


def _solve_triangular(a: Array, b: Array, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Array:
    if not left:
        return _solve_triangular(a.mT, b.mT, upper=not upper, unitriangular=unitriangular).mT
    batch = gc.matmul(gc.stop_gradient(a), gc.stop_gradient(b)).shape[:-2]
    a, b = gc.broadcast_to(a, (*batch, *a.shape[-2:])), gc.broadcast_to(b, (*batch, *b.shape[-2:]))
    return gc.solve_triangular(a, b, lower=not upper, unit=unitriangular)


def _cholesky_solve(b: Array, factor: Array, upper: bool = False) -> Array:
    lower = factor.mT if upper else factor
    return gc.solve_triangular(lower, gc.solve_triangular(lower, b, lower=True), lower=True, transpose=True)


def _cholesky_inverse(factor: Array, upper: bool = False) -> Array:
    identity = gc.broadcast_to(gc.eye(factor.shape[-1], dtype=factor.dtype), factor.shape)
    return _cholesky_solve(identity, factor, upper)


def _det(x: Array) -> tuple[Array, Array, Array]:
    return gc.det(x), x, gc.zeros(x.shape[:-1], i32)


def _slogdet(x: Array) -> tuple[Array, Array, Array, Array]:
    return (*gc.slogdet(x), x, gc.zeros(x.shape[:-1], i32))


def _eigh(x: Array, uplo: str = "L", compute_v: bool = True) -> tuple[Array, Array]:
    return gc.eigh(symmetric(x, uplo.upper() == "U"))


def _cross(x: Array, y: Array, *, dim: int = -1) -> Array:
    return gc.cross(x, y, axis_of(dim, x.ndim))


def _cdist(x: Array, y: Array, p: float = 2.0, compute_mode: int | None = None) -> Array:
    if p == 0:                          # how many differ
        return gc.sum(nonzero_as_one(gc.expand_dims(x, x.ndim - 1) - gc.expand_dims(y, y.ndim - 2)), -1)
    return gc.cdist(x, y, p)


def _matrix_power(x: Array, n: int) -> Array:
    if n < 0:
        return _matrix_power(gc.inv(x), -n)
    if n == 0:
        return gc.broadcast_to(gc.eye(x.shape[-1], x.dtype), x.shape)
    half = _matrix_power(x, n // 2) if n > 1 else None
    return x if half is None else half @ half @ x if n % 2 else half @ half


def _trilinear(a: Array, b: Array, c: Array, *axes: Any) -> Array:
    expand1, expand2, expand3, sum_over = axes[:4]
    for dims, index in ((expand1, 0), (expand2, 1), (expand3, 2)):
        operand = (a, b, c)[index]
        for d in sorted(dims):
            operand = gc.expand_dims(operand, d)
        a, b, c = (operand if i == index else o for i, o in enumerate((a, b, c)))
    return gc.sum(a * b * c, tuple(sum_over))


def _matmul(a: Array, b: Array) -> Array:
    return gc.matmul(*promoted(a, b))


RULES: dict[str, Rule] = {
    "mm.default": _matmul, "bmm.default": _matmul, "mv.default": _matmul, "matmul.default": _matmul,
    "dot.default": _matmul, "vdot.default": _matmul, "linear.default": linear, "outer.default": _outer,
    "ger.default": _outer, "inner.default": gc.inner, "kron.default": gc.kron,
    "tensordot.default": lambda a, b, dims_a, dims_b: gc.tensordot(a, b, (tuple(dims_a), tuple(dims_b))),
    "addmm.default": lambda x, a, b, *, beta=1, alpha=1: _added_product(_matmul)(x, a, b, beta, alpha),
    "addmv.default": lambda x, a, b, *, beta=1, alpha=1: _added_product(_matmul)(x, a, b, beta, alpha),
    "baddbmm.default": lambda x, a, b, *, beta=1, alpha=1: _added_product(_matmul)(x, a, b, beta, alpha),
    "addbmm.default": lambda x, a, b, *, beta=1, alpha=1: _added_product(
        lambda p, q: gc.sum(p @ q, 0))(x, a, b, beta, alpha),
    "addr.default": lambda x, a, b, *, beta=1, alpha=1: _added_product(_outer)(x, a, b, beta, alpha),
    "_trilinear.default": _trilinear, "convolution.default": convolution,
    "_convolution.default": lambda *args: convolution(*args[:9]),
    **{f"conv{n}d.{form}": _conv for n in (1, 2, 3) for form in ("default", "padding")},
    "conv_transpose1d.default": _conv_transposed, "conv_transpose2d.input": _conv_transposed,
    "conv_transpose3d.input": _conv_transposed,
    "_transformer_encoder_layer_fwd.default": _encoder_layer,
    "scaled_dot_product_attention.default": lambda q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, **named:
    attention(q, k, v, attn_mask, dropout_p, is_causal, **named),
    "_scaled_dot_product_flash_attention_for_cpu.default": _flash,
    **{name: rule for layer, rule in LAYERS.items() for name in (f"{layer}.input", f"graphc.{layer}.default")},
    "lstm_cell.default": _cell(nn.LSTM, 2), "gru_cell.default": _cell(nn.GRU, 1),
    "rnn_tanh_cell.default": _cell(_elman("tanh"), 1), "rnn_relu_cell.default": _cell(_elman("relu"), 1),
    "linalg_cholesky_ex.default": _cholesky, "cholesky.default": lambda x, upper=False: _cholesky(x, upper=upper)[0],
    "linalg_inv_ex.default": lambda x, **_: (gc.inv(x), information(x)), "inverse.default": gc.inv,
    "_linalg_solve_ex.default": lambda a, b, *, left=True, **_: (
        _solve(a, b, left=left), a, gc.zeros(a.shape[:-1], i32), information(a)),
    "linalg_solve_ex.default": lambda a, b, *, left=True, **_: (_solve(a, b, left=left), information(a)),
    "triangular_solve.default": lambda b, a, upper=True, transpose=False, unitriangular=False: (
        gc.solve_triangular(a, b, lower=not upper, transpose=transpose, unit=unitriangular), a),
    "linalg_solve_triangular.default": _solve_triangular, "cholesky_solve.default": _cholesky_solve,
    "cholesky_inverse.default": _cholesky_inverse,
    "_linalg_det.default": _det, "_linalg_slogdet.default": _slogdet,
    "_linalg_eigh.default": _eigh, "linalg_cross.default": _cross, "_cdist_forward.default": _cdist,
    "cdist.default": _cdist, "_pdist_forward.default": gc.pdist, "pdist.default": gc.pdist,
    "linalg_matrix_power.default": _matrix_power, "matrix_power.default": _matrix_power,
    "cosine_similarity.default": lambda x, y, dim=1, eps=1e-8: gc.cosine_similarity(
        x, y, axis_of(dim, max(x.ndim, y.ndim)), eps),
    "pairwise_distance.default": lambda x, y, p=2.0, eps=1e-6, keepdim=False: gc.pairwise_distance(
        x, y, p, eps, keepdim),
    "_euclidean_dist.default": lambda x, y: gc.cdist(x, y, 2.0),
    "_int_mm.default": lambda a, b: gc.matmul(a, b, dtype=i32),
}
