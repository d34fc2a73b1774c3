"""Scaled dot-product attention."""
from __future__ import annotations

from graphc.dsl.array import Array, as_array, emit
from graphc.dsl.form import formed


@formed
def attention(q: Array, k: Array, v: Array, mask: Array | None = None, *, causal: bool = False, scale: float | None = None) -> Array:
    """softmax(q k^T * scale + mask) v for q [..., Tq, D], k [..., Tk, D], v [..., Tk, E] -> [..., Tq, E]; scale = 1 / sqrt(D) unless given.

    mask broadcasts to [..., Tq, Tk]: bool (True = may look) or float (added to the scores). causal: query i sees keys j <= i, as in torch.
    """
    operands = [as_array(a) for a in (q, k, v, mask) if a is not None]
    return emit("attention", *operands, scale=None if scale is None else float(scale), causal=bool(causal))[0]
