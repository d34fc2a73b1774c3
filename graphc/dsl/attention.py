"""Scaled dot-product attention."""
from __future__ import annotations

from graphc.dsl.array import Array, as_array, emit, emit_all
from graphc.dsl.form import formed
from graphc.errors import GraphError, Unsized
from graphc.ir.convert import flag, real
from graphc.ir.dims import Dims
from graphc.ir.types import bool_, broadcast_shapes, shape_text


@formed
def attention(q: Array, k: Array, v: Array, mask: Array | None = None, *, causal: bool = False,
              scale: float | None = None) -> Array:
    """softmax(q k^T * scale + mask) v for q [..., Tq, D], k [..., Tk, D], v [..., Tk, E] -> [..., Tq, E]; scale = 1 /
    sqrt(D) unless given.

    mask broadcasts to [..., Tq, Tk]: bool (True = may look) or float (added to the scores). causal: query i sees keys
    j <= i, as in torch. What a bool mask hides from every query does not count at all, NaN and infinity neither
    (torch: 0 * NaN = NaN).
    """
    q, k, v = map(as_array, (q, k, v))
    return attend(q, *seen_keys(mask, k, v), mask, causal, scale)


def seen_keys(mask: Array | None, k: Array, v: Array) -> tuple[Array, Array]:
    """k and v with 0 for keys that a bool mask hides from every query. As they are where several of a batch share
    them and the mask does not, and where the mask does not fit, which `attend` says."""
    mask = None if mask is None else as_array(mask)
    if mask is None or mask.dtype != bool_ or mask.ndim == 0:
        return k, v
    seen = mask if mask.ndim == 1 else mask[..., 0, :] if mask.shape[-2] == 1 else mask.any(-2)
    seen = seen.reshape(*seen.shape, 1)

    def shown(x: Array) -> Array:
        return emit("where", seen, x, as_array(0, x.dtype)) if _broadcasts_to(seen.shape, x.shape) else x
    return shown(k), shown(v)


def _broadcasts_to(shape: Dims, target: Dims) -> bool:
    """Whether an array of this shape may stand where one of the target's is."""
    try:
        return broadcast_shapes(shape, target) == target
    except GraphError:
        return False


def attend(q: Array, k: Array, v: Array, mask: Array | None = None, causal: bool = False,
           scale: float | None = None) -> Array:
    """`attention` where what nobody sees is known to be finite."""
    operands = [as_array(a) for a in ((q, k, v) if mask is None else (q, k, v, mask))]
    scale = None if scale is None else real(scale, "attention: the scale")
    causal = flag(causal, "attention: causal")
    try:
        return emit_all("attention", *operands, scale=scale, causal=causal)[0]
    except Unsized:
        raise
    except GraphError as error:
        raise error if mask is None else _of_mask(error, *operands) from None


def _of_mask(error: GraphError, q: Array, k: Array, v: Array, mask: Array) -> GraphError:
    """What is wrong with the mask, if it is the mask."""
    if min(q.ndim, k.ndim) < 2:
        return error
    scores = (*q.shape[:-1], k.shape[-2])
    if _broadcasts_to(mask.shape, scores):
        return error
    return GraphError(f"attention: the mask is {mask.type}, and does not broadcast to the scores {shape_text(scores)}; "
                      "of keys it is mask[:, None, None, :], of padding lengths= says all")
