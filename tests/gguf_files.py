"""GGUF files with networks of random weights, written here."""
from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from graphc.doors.gguf.blocks import KINDS
from graphc.doors.gguf.config import network_names

NUMBER = {kind.name: number for number, kind in KINDS.items()}
CODES = {int: (4, "<I"), float: (6, "<f"), bool: (7, "<?")}


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def field(value) -> bytes:
    """The type and the bytes of a field."""
    if isinstance(value, str):
        return struct.pack("<I", 8) + text(value)
    if isinstance(value, list):
        kind, code = (8, "") if isinstance(value[0], str) else CODES[type(value[0])]
        inside = b"".join(text(v) if kind == 8 else struct.pack(code, v) for v in value)
        return struct.pack("<IIQ", 9, kind, len(value)) + inside
    kind, code = CODES[type(value)]
    return struct.pack("<I", kind) + struct.pack(code, value)


def write(path: Path, fields: dict, tensors: dict[str, tuple[str, tuple[int, ...], bytes]]) -> Path:
    """A file of these fields, and tensors by name: type, shape, bytes."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(fields))
    head += b"".join(text(name) + field(value) for name, value in fields.items())
    at, data = 0, b""
    for name, (kind, shape, raw) in tensors.items():
        head += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape[::-1])
        head += struct.pack("<IQ", NUMBER[kind], at)
        data += raw + bytes(-len(raw) % 32)
        at = len(data)
    path.write_bytes(head + bytes(-len(head) % 32) + data)
    return path


def whole(array: np.ndarray) -> tuple[str, tuple[int, ...], bytes]:
    return "F32", array.shape, array.astype(np.float32).tobytes()


def random_blocks(kind: str, shape: tuple[int, ...], seed: int, spread: float = 0.02) -> tuple[str, tuple[int, ...], bytes]:
    """An array of random blocks, whose scales are about `spread`."""
    rng, known = np.random.default_rng(seed), KINDS[NUMBER[kind]]
    if known.read is None:
        return kind, shape, rng.normal(0, spread, shape).astype(known.dtype).tobytes()
    raw = rng.integers(0, 256, (int(np.prod(shape)) // known.elements, known.nbytes), np.uint8)
    places = {"Q4_0": (0,), "Q8_0": (0,), "Q4_1": (0, 2), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}[kind]
    levels = {"Q8_0": 64, "Q4_K": 400, "Q5_K": 800, "Q6_K": 1200}.get(kind, 8)
    for i, at in enumerate(places):
        scale = rng.uniform(0.5, 1, len(raw)) * spread / levels * (1 if i == 0 else -levels / 2 if kind == "Q4_1" else levels / 8)
        raw[:, at:at + 2] = scale.astype(np.float16)[:, None].view(np.uint8)
    return kind, shape, raw.tobytes()


def from_names_of_transformers(kind: str, arrays: dict[str, np.ndarray], heads: int, groups: int) -> dict:
    """Arrays of a causal network as a file of the architecture `kind` has them: Llama's queries and keys with the pairs
    that turn together side by side, Gemma's norms with their 1."""
    parts = {new: old for old, new in network_names(kind).items()}
    outer = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    tensors = {}
    for name, a in arrays.items():
        base, _, last = name.rpartition(".")
        if base in outer:
            new = outer[base]
        else:
            _, _, layer, part = base.split(".", 3)
            new = f"blk.{layer}.{parts[part]}"
        for what, count in (("attn_q", heads), ("attn_k", groups)):
            if kind == "llama" and new.endswith(what):
                a = a.reshape(count, 2, a.shape[0] // count // 2, *a.shape[1:]).swapaxes(1, 2).reshape(a.shape)
        tensors[f"{new}.{last}"] = whole(a + 1 if kind.startswith("gemma") and "norm" in new else a)
    return tensors


def fields_of(kind: str, width: int, layers: int, heads: int, groups: int, hidden: int, **more) -> dict:
    own = {"block_count": layers, "context_length": 64, "embedding_length": width, "feed_forward_length": hidden,
           "attention.head_count": heads, "attention.head_count_kv": groups,
           "attention.layer_norm_rms_epsilon": 1e-6, **more}
    return {"general.architecture": kind, **{f"{kind}.{name}": value for name, value in own.items()}}
