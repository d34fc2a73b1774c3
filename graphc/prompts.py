"""Prompts as users give them, as padded arrays and lengths."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc.dsl.context import user_loc
from graphc.dsl.literal import array_of
from graphc.errors import GraphError
from graphc.ir.convert import is_integer, is_sequence, items

SMALLEST = 16                       # prompts are padded to so many tokens, or 1.5, 2, 3, 4, 6 … times as many


def padded_prompts(prompt: object, lengths: object, inputs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Ids [B, T], padded behind, and lengths i64 [B]."""
    if is_integer(prompt) or (isinstance(prompt, np.ndarray) and prompt.ndim == 0):
        batch = next((a.shape[0] for a in inputs.values() if a.ndim), 1)
        prompt = np.full((batch, 1), prompt)
    ids, counts = _padded(items(prompt, "a prompt")) if lengths is None else (array_of(prompt), array_of(lengths))
    if ids.dtype not in (np.int32, np.int64) or ids.ndim != 2 or 0 in ids.shape:
        raise GraphError(f"a prompt is integers [batch, time], [time], or lists of them, of one token or more; got "
                         f"{ids.dtype} {list(ids.shape)}", user_loc())
    if (counts.shape != ids.shape[:1] or counts.dtype.kind not in "iu" or counts.min() < 1
        or counts.max() > ids.shape[1]):
        raise GraphError(f"lengths are {len(ids)} integers from 1 to {ids.shape[1]}, got {counts.tolist()}", user_loc())
    return ids, counts.astype(np.int64)


def _padded(prompt: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """A prompt or several as one array, and their lengths."""
    single = bool(prompt) and not is_sequence(prompt[0])
    rows = [array_of(row) for row in ([prompt] if single else prompt)]
    if any(row.ndim != 1 for row in rows):
        raise GraphError("prompts are integers [time] each", user_loc())
    lengths = np.array([len(row) for row in rows], np.int64)
    dtype = np.result_type(*rows) if rows else np.int64
    ids = np.zeros((len(rows), max(lengths, default=0)), dtype)
    for row, to in zip(rows, ids):
        to[:len(row)] = row
    return ids, lengths


def resized(ids: np.ndarray, size: int) -> np.ndarray:
    """ids [B, T] with so many columns: of padding, cut or added."""
    kept = ids[:, :size]
    return np.ascontiguousarray(np.pad(kept, ((0, 0), (0, size - kept.shape[1]))))


def grown(n: int, size: int, factor: int = 2) -> int:
    """The first of size, factor * size, factor² * size … that is n or more."""
    while size < n:
        size *= factor
    return size


def padded_size(n: int) -> int:
    return min(grown(n, SMALLEST), grown(n, 3 * SMALLEST // 2))
