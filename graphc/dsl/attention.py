"""Scaled dot-product attention."""
from __future__ import annotations

from graphc.dsl.array import Array, as_array, emit, emit_all
from graphc.dsl.form import formed
from graphc.errors import GraphError
from graphc.ir.convert import flag, real
from graphc.ir.dims import Dims
from graphc.ir.types import bool_, broadcast_shapes


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
    q, k, shape = operands[0], operands[1], operands[-1].shape
    if mask is not None and 2 < q.ndim and shape == (q.shape[0], k.shape[-2]) and shape[0] not in (1, q.shape[-2]):
        raise GraphError(f"the mask {operands[-1].type} says of each example which keys are seen; a mask broadcasts to "
                         "[B, heads, T, S]: give mask[:, None, None, :], or the lengths of sequences (lengths=)")
    return emit_all("attention", *operands, scale=scale, causal=flag(causal, "attention: causal"))[0]
