"""Where PyTorch keeps what DLPack does not tell of a tensor, so that a call need not ask PyTorch: each question takes
about as long as learning where its numbers lie.

The object of a tensor refers to its TensorImpl, which has a set of bits, one of them for numbers with the other sign,
and refers to what records its gradient, if anything does. Extensions of PyTorch have these places compiled in
(c10/core/TensorImpl.h). Here they are found in tensors whose bits PyTorch tells, and used only if each is the one place
that agrees with all of them.
"""
from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from typing import Any

from graphc.records import dataclass

WORD, FIRST, END = 8, 16, 208       # bytes: a word; behind the head of an object; where the bits are at the latest


@dataclass(frozen=True)
class TensorWords:
    """Bytes from the beginning of a tensor's object to the word that refers to its TensorImpl, and from there to two
    words: of `negated`, the bit for numbers with the other sign; and of `recorded`, which is 0 only of a tensor that
    wants no gradient."""
    inner: int
    bits: int
    negated: int
    recorded: int


def tensor_words(type: type) -> TensorWords | None:
    """Of PyTorch's tensors; None of another type, and where the places are not known for sure."""
    torch: Any = sys.modules.get("torch")
    if type is not getattr(torch, "Tensor", None):
        return None
    try:
        with torch.inference_mode(False), torch.enable_grad():
            return _found(torch)
    except Exception:               # what is asked here is no part of PyTorch's interface
        return None


def _found(torch: Any) -> TensorWords | None:
    plain = [torch.zeros(2, dtype=dtype, device="cpu") for dtype in (torch.float32, torch.float64, torch.int64)]
    leaf = torch.zeros(2, device="cpu", requires_grad=True)
    wanting = [leaf, leaf + leaf]
    negated = torch.zeros(2, dtype=torch.complex64, device="cpu").conj().imag
    tensors = [*plain, *wanting, negated]
    if any(type(t) is not torch.Tensor for t in tensors):       # a mode is on in which they are something else
        return None
    impls = [int(t._cdata) for t in tensors]
    sets = [int(torch._C._dispatch_keys(t).raw_repr()) for t in tensors]
    sign = sets[0] ^ sets[-1]
    bits = _places(impls, END, lambda words: words == sets)
    if not bits or sign.bit_count() != 1 or any(s & sign for s in sets[:-1]):
        return None
    inner = _places(list(map(id, tensors)), torch.Tensor.__basicsize__, lambda words: words == impls)
    # what lies behind the bits may be no part of it
    recorded = _places(impls[:-1], bits[0], lambda words: not any(words[:len(plain)]) and all(words[len(plain):]))
    return TensorWords(inner[0], bits[0], sign, recorded[0]) if len(inner) == len(recorded) == 1 else None


def _places(starts: Sequence[int], end: int, agrees: Callable[[list[int]], bool]) -> list[int]:
    """The places behind each of these whose words agree."""
    return [at for at in range(FIRST, end, WORD)
            if agrees([ctypes.c_uint64.from_address(start + at).value for start in starts])]
