"""The number types of GGUF: whole numbers, or integers of few bits in blocks with a scale and perhaps a minimum.
Layouts and formulas are those of ggml (ggml-quants.c)."""
from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np

from graphc.doors.gguf.read import GgufTensor
from graphc.doors.pretrained.safetensors_map import typed_view
from graphc.records import dataclass
from graphc.runtime.memory import SharedBlocks

LONG = 256                          # elements of a K-block


@dataclass(frozen=True)
class Quantised:
    """An array [..., K] as integers, a scale of each block, [..., K / size], and None or what is added to its elements:
    integers * scale + minimum, in f32. codes: the integers, i8 [..., K]; or, where they have 4 bits, what they are
    above `least`, u8 [..., K / 2]: of each block the first half in the low bits, the second half in the high ones."""
    codes: np.ndarray
    scale: np.ndarray
    minimum: np.ndarray | None = None
    least: int | None = None

    @property
    def block(self) -> int:
        return self.codes.shape[-1] * (1 if self.least is None else 2) // self.scale.shape[-1]

    def whole(self) -> np.ndarray:
        """The numbers that are meant, f32."""
        codes = self.codes.reshape(*self.scale.shape, -1)
        if self.least is not None:
            codes = np.concatenate([codes & 15, codes >> 4], axis=-1).view(np.int8) + np.int8(self.least)
        y = codes * self.scale.astype(np.float32)[..., None]
        y = y if self.minimum is None else y + self.minimum.astype(np.float32)[..., None]
        return y.reshape(*self.scale.shape[:-1], -1)


@dataclass(frozen=True)
class NumberKind:
    """A number type: elements and bytes of a block, and what its blocks [n, bytes] are; `read` None: whole numbers of
    the type `dtype`. `least`: of codes with 4 bits, the least there can be."""
    name: str
    elements: int
    nbytes: int
    read: Callable[[np.ndarray, SharedBlocks], tuple[np.ndarray, ...]] | None = None
    dtype: np.dtype | None = None
    least: int | None = None


def decoded(tensor: GgufTensor, memory: SharedBlocks) -> np.ndarray | Quantised:
    """An array of the file: mapped, if it has whole numbers, else in `memory`, there perhaps later."""
    kind = KINDS[tensor.kind]
    if kind.read is None:
        assert kind.dtype is not None
        return typed_view(tensor.data, kind.dtype, tensor.shape)
    codes, scale, *minimum = (a.reshape(*tensor.shape[:-1], -1)
                              for a in kind.read(tensor.data.reshape(-1, kind.nbytes), memory))
    return Quantised(codes, scale, minimum[0] if minimum else None, kind.least)


def _halves(blocks: np.ndarray, at: int) -> np.ndarray:
    return blocks[:, at:at + 2].view(np.float16)


def _split(blocks: np.ndarray, halves: int, memory: SharedBlocks) -> tuple[np.ndarray, ...]:
    """The codes, u8, which stand behind so many f16 numbers; and these."""
    return memory.rows(blocks[:, 2 * halves:]), *(memory.rows(blocks[:, 2 * i:2 * i + 2]).view(np.float16)
                                                  for i in range(halves))


def _nibbles(packed: np.ndarray) -> np.ndarray:
    """u8 [..., n] as [..., 2, n]: the low four bits of all, then the high ones."""
    return np.stack([packed & 15, packed >> 4], axis=-2)


def _q8_0(blocks: np.ndarray, memory: SharedBlocks) -> tuple[np.ndarray, ...]:
    codes, scale = _split(blocks, 1, memory)
    return codes.view(np.int8), scale


def _q4_0(blocks: np.ndarray, memory: SharedBlocks) -> tuple[np.ndarray, ...]:
    return _split(blocks, 1, memory)


def _q4_1(blocks: np.ndarray, memory: SharedBlocks) -> tuple[np.ndarray, ...]:
    return _split(blocks, 2, memory)


def _k_scales(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scales and minima, f32 [n, 8] each, of Q4_K and Q5_K: two halves, and 6 bits of each in 12 bytes."""
    whole, least = (_halves(blocks, at).astype(np.float32) for at in (0, 2))
    a, b, c = (blocks[:, 4 + 4 * i:8 + 4 * i] for i in range(3))
    scale = np.concatenate([a & 63, (c & 15) | (a >> 6 << 4)], axis=1)
    minimum = np.concatenate([b & 63, (c >> 4) | (b >> 6 << 4)], axis=1)
    return whole * scale.astype(np.float32), -(least * minimum.astype(np.float32))


def _q4_k(blocks: np.ndarray, memory: SharedBlocks) -> tuple[np.ndarray, ...]:
    first, second = blocks[:, 16:].reshape(-1, 4, 2, 16).swapaxes(0, 2)       # halves of two blocks, low and high bits
    pairs = np.stack([first & 15 | second << 4, first >> 4 | second & 240], axis=2)
    return memory.copy(pairs.swapaxes(0, 1)), *map(memory.copy, _k_scales(blocks))


def _q5_k(blocks: np.ndarray, memory: SharedBlocks) -> tuple[np.ndarray, ...]:
    low = _nibbles(blocks[:, 48:].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    high = blocks[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None] & 1
    return memory.copy((low | high << 4).view(np.int8)), *map(memory.copy, _k_scales(blocks))


def _q6_k(blocks: np.ndarray, memory: SharedBlocks) -> tuple[np.ndarray, ...]:
    low = blocks[:, :128].reshape(-1, 2, 1, 64) >> np.array([0, 4], np.uint8)[:, None] & 15
    high = blocks[:, 128:192].reshape(-1, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3
    codes = low.reshape(-1, LONG) | high.reshape(-1, LONG) << 4
    scale = _halves(blocks, 208).astype(np.float32) * np.ascontiguousarray(blocks[:, 192:208]).view(np.int8)
    return memory.copy(codes.view(np.int8) - np.int8(32)), memory.copy(scale)


KINDS = {
    0: NumberKind("F32", 1, 4, dtype=np.dtype(np.float32)), 1: NumberKind("F16", 1, 2, dtype=np.dtype(np.float16)),
    30: NumberKind("BF16", 1, 2, dtype=np.dtype(ml_dtypes.bfloat16)),
    2: NumberKind("Q4_0", 32, 18, _q4_0, least=-8), 3: NumberKind("Q4_1", 32, 20, _q4_1, least=0),
    8: NumberKind("Q8_0", 32, 34, _q8_0),
    12: NumberKind("Q4_K", LONG, 144, _q4_k, least=0), 13: NumberKind("Q5_K", LONG, 176, _q5_k),
    14: NumberKind("Q6_K", LONG, 210, _q6_k)}
"""By the numbers that files give the types."""
