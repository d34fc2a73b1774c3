"""The arrays of safetensors files, mapped: pages are read when they are first touched, and the system may take them
back."""
from __future__ import annotations

import json
import math
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from graphc.dsl.context import user_loc
from graphc.errors import GraphError
from graphc.ir.types import DTYPES

INDEX, WHOLE = "model.safetensors.index.json", "model.safetensors"
CODES = {d.name.upper(): np.dtype(d.np) for d in DTYPES}          # what the format calls the types


def mapped_folder(folder: Path) -> dict[str, np.ndarray]:
    """All arrays of a folder by name: of its one safetensors file, or of the shards that its index lists. GraphError
    names what is missing or damaged."""
    index = folder / INDEX
    if index.exists():
        return _mapped_shards(folder, index)
    files = [folder / WHOLE] if (folder / WHOLE).exists() else sorted(folder.glob("*.safetensors"))
    if len(files) == 1:
        return mapped_file(files[0])
    if files:
        raise GraphError(f"{folder} has {len(files)} safetensors files and no {INDEX} that says which belong together",
                         user_loc())
    pickled = next(iter(sorted([*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.h5")])), None)
    raise GraphError(f"{folder} has no safetensors file" + (
        f", only {pickled.name}: save the model once more with transformers, model.save_pretrained(folder)"
        if pickled else ""), user_loc())


def mapped_file(path: Path) -> dict[str, np.ndarray]:
    """The arrays of one file by name. Writing to one changes a private copy of its page, never the file."""
    data = mapped_bytes(path)
    try:
        table, start = _header(data)
        return {name: _array(data, start, name, entry) for name, entry in table.items() if name != "__metadata__"}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise GraphError(f"{path} is not a whole safetensors file ({error})", user_loc()) from None


def mapped_bytes(path: Path) -> np.ndarray:
    """The bytes of a file, u8, mapped. GraphError where there is no such file."""
    try:
        with open(path, "rb") as file:
            block = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except FileNotFoundError:
        raise GraphError(f"there is no file {path}", user_loc()) from None
    except (OSError, ValueError) as error:
        raise GraphError(f"{path} cannot be read: {error}", user_loc()) from None
    return np.frombuffer(block, np.uint8)


def json_file(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds. GraphError for anything else."""
    try:
        table = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise GraphError(f"{path.parent} has no {path.name}", user_loc()) from None
    except (OSError, ValueError, RecursionError) as error:
        raise GraphError(f"{path} is no JSON file: {error}", user_loc()) from None
    if not isinstance(table, dict):
        raise GraphError(f"{path} holds no JSON object", user_loc())
    return table


def _mapped_shards(folder: Path, index: Path) -> dict[str, np.ndarray]:
    places = json_file(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise GraphError(f"{index} has no weight_map from names to files", user_loc())
    shards = {file: mapped_file(_inside(folder, file)) for file in sorted(set(places.values()))}
    if lost := next((name for name, file in places.items() if name not in shards[file]), None):
        raise GraphError(f"{index.name} says that {lost} is in {places[lost]}, which has no such array", user_loc())
    return {name: shards[file][name] for name, file in places.items()}


def _inside(folder: Path, name: str) -> Path:
    """The file of this name in the folder itself: an index leads nowhere else."""
    if Path(name).name != name:
        raise GraphError(f"{folder / INDEX} names the file {name!r}, which is not in its folder", user_loc())
    return folder / name


def _header(data: np.ndarray) -> tuple[Mapping[str, Any], int]:
    """The table of a file, and where its arrays begin."""
    if data.size < 8:
        raise ValueError("it is too short")
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    if start > data.size:
        raise ValueError("its header goes beyond its end")
    table = json.loads(data[8:start].tobytes())
    if not isinstance(table, dict):
        raise ValueError("its header is no JSON object")
    return table, start


def _array(data: np.ndarray, start: int, name: str, entry: Mapping[str, Any]) -> np.ndarray:
    shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
    dtype = CODES.get(entry["dtype"])
    if dtype is None:
        raise ValueError(f"{name} is {entry['dtype']}; known are {', '.join(CODES)}")
    if not all(isinstance(n, int) and n >= 0 for n in (*shape, begin, end)):
        raise ValueError(f"{name} has a size or an offset below 0")
    if end - begin != math.prod(shape) * dtype.itemsize or start + end > data.size:
        raise ValueError(f"{name} goes beyond what the file has of it")
    return typed_view(data[start + begin:start + end], dtype, shape)


def typed_view(part: np.ndarray, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Bytes as an array: a view where they lie at a multiple of the element's size, as native code reads them."""
    if part.__array_interface__["data"][0] % dtype.itemsize:
        part = part.copy()
    return part.view(dtype).reshape(shape)
