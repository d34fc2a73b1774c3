"""Products by weights so small that processors take a hundred times as long for each: those below the least normal
number. Training with decay leaves such where an input is no longer used."""
from __future__ import annotations

import numpy as np

import graphc as gc
from graphc.doors.onnx.call import Call
from graphc.doors.onnx.known import Known
from graphc.dsl.array import Array
from graphc.ir.types import f32

FACTOR = 2.0 ** 23                  # makes a normal number of every f32 but 0
MOST = 2.0 ** -48                   # of weights that get it
NORMAL = 0x800000                   # the bits of the least normal number
SMALL = np.float32(MOST).view(np.uint32)


def normal_weights(call: Call, x: Array, w: Array, along: int, of: int) -> tuple[Array, Array]:
    """Data and weights with the same products, of sums along axis `along` of the data and `of` of the weights, in
    inference: where all weights of an input are at most `MOST`, these times `FACTOR`, and that input by as much less.

    No bit changes while products are added exactly, rounded once (fma). Powers of two round nothing in the weights,
    nor in data of at least 2^-103, which stay normal. Of smaller data such a product is below 2^-151, however the data
    were rounded, less than half of the least f32: no sum changes by it, but that a sum of nothing else may be 0 with
    another sign.
    """
    known = call.operands[1]
    if call.training or not isinstance(known, Known) or not known.is_weight or w.dtype is not f32 or x.dtype is not f32:
        return x, w
    if not _has_tiny(known.numbers, of):
        return x, w
    axes = tuple(a for a in range(w.ndim) if a != of)
    is_small = gc.max(gc.abs(w), axes) <= MOST          # of the weights as they are when it runs
    factors = gc.where(is_small, FACTOR, 1.0).astype(f32)
    own = [factors.shape[0] if a == of else 1 for a in range(w.ndim)]
    return x * (1.0 / factors).reshape((-1, *(1,) * (x.ndim - 1 - along % x.ndim))), w * factors.reshape(tuple(own))


def _has_tiny(w: np.ndarray, of: int) -> bool:
    """Whether there is an input all of whose weights are small, some below the least normal number but not 0. Mostly
    one weight of an input tells that it is not such: the others are not read then, which may still be in a file."""
    if not w.size:
        return False
    first = w[tuple([slice(None) if a == of else 0 for a in range(w.ndim)])]
    bits = _magnitudes(np.moveaxis(w, of, 0)[_magnitudes(first) <= SMALL])
    axes = tuple(range(1, w.ndim))
    tiny = bits - np.uint32(1) < NORMAL - 1
    return bool((tiny.any(axes) & (bits.max(axes, initial=0) <= SMALL)).any())


def _magnitudes(w: np.ndarray) -> np.ndarray:
    """The bits of the absolute values: greater for greater ones."""
    return np.ascontiguousarray(w).view(np.uint32) & 0x7fffffff
