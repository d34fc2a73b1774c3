"""Checkpoints in safetensors. A crash while saving never leaves half a file; a damaged file is refused, naming the tensor."""
from __future__ import annotations

import json
import os
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from graphc.dsl.context import user_loc
from graphc.errors import GraphError


def save_arrays(path: str | os.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes to a temporary file beside `path`, syncs it, and renames it over `path`."""
    dense = {name: np.ascontiguousarray(a).reshape(a.shape) for name, a in arrays.items()}
    data = save(dense, {"format": "graphc", "crc32": json.dumps({name: _crc(a) for name, a in dense.items()})})
    path = Path(path)
    handle, temporary = tempfile.mkstemp(prefix=path.name, suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def load_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """All arrays of a safetensors file, graphc's or another program's. GraphError when it is missing or damaged."""
    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            sums = json.loads((file.metadata() or {}).get("crc32", "{}"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except FileNotFoundError:
        raise GraphError(f"there is no checkpoint {path}", user_loc()) from None
    except (SafetensorError, OSError, ValueError) as error:
        raise GraphError(f"{path} is not a whole safetensors file ({error}); load an older checkpoint", user_loc()) from None
    for name, array in arrays.items():
        if name in sums and sums[name] != _crc(array):
            raise GraphError(f"{path} is damaged: the bytes of {name} do not match their checksum; load an older checkpoint", user_loc())
    return arrays


def _crc(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def _sync_folder(folder: Path) -> None:
    """Makes the rename itself survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
