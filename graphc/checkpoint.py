"""Checkpoints in safetensors. A crash while saving never leaves half a file; a damaged file is refused, naming the
tensor.

The header of a file written by graphc begins with `MARK` and the SHA-256 of the header (its length included) with that
sum left blank; its metadata hold the SHA-256 of each array. The format has no byte outside the header and the arrays,
so every bit of a file is covered. A file that begins almost as `MARK`, or that names a sum, was written by graphc and
is damaged: damage of a few bytes cannot turn it into a file of another program, which has no sums. A file that another
program made from one of graphc's, metadata included, is refused too, because its sums do not fit its content.
"""
from __future__ import annotations

import hashlib
import json
import os
import stat
import zlib
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError, safe_open

from graphc.dsl.context import user_loc
from graphc.errors import GraphError
from graphc.ir.types import DTYPES, of_numpy
from graphc.once import loaded
from graphc.replacing import OPEN_FILES, replacing
from graphc.runtime.memory import aligned_empty

METADATA, SUM, SUMS = "__metadata__", "graphc.sha256", "graphc.sums"
MARK = f'{{"{METADATA}":{{"format":"graphc","{SUM}":"'.encode()
DIGITS = 64
BLANK = b"0" * DIGITS
# bytes of MARK that may be wrong: far more than accidents change, and far fewer than other files differ in
NEAR = 8
LARGE = 32 << 20                        # bytes of a file that is read by several threads
READERS = 4
TYPES = {d.name.upper(): d for d in DTYPES}         # by what the format calls them
FOREIGN = {np.dtype(np.complex64): "C64"}       # types of the format that graphc does not have


def save_arrays(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Replaces the file `path` (see `replacing`) by one that holds `arrays`, of any shapes and of numpy's numbers of up
    to 64 bits.

    Raises GraphError for another dtype, or the name that the format keeps for itself; OSError when the file cannot be
    written.
    """
    # all stay aligned
    dense = {name: _dense(name, a)
             for name, a in sorted(arrays.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))}
    with replacing(path) as file:
        file.write(_header(dense))
        for array in dense.values():
            file.write(_bytes(array))


def load_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """All arrays of a safetensors file, graphc's or another program's. GraphError when it is missing or damaged."""
    try:
        # before it is opened, which waits for who writes into a pipe
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ValueError("it is no file")
        with open(path, "rb") as opened, safe_open(_again(opened, path), framework="numpy") as file:
            header = _header_of(opened)
            check = _checked_header(path, header, file.metadata() or {})
            table, fitting = json.loads(header[8:]), dict[str, bool]()

            def read(name: str) -> np.ndarray:
                array = _array(opened.fileno(), table[name], len(header))
                array = file.get_tensor(name) if array is None else array
                fitting[name] = check(name, array)
                return array
            names = list(file.keys())
            arrays = dict(zip(names, _side_by_side(read, names, os.fstat(opened.fileno()).st_size)))
    except FileNotFoundError:
        raise GraphError(f"there is no checkpoint {path}", user_loc()) from None
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise GraphError(f"{path} is not a whole safetensors file ({error}); load an older checkpoint",
                         user_loc()) from None
    for name in names:
        if not fitting[name]:
            raise _damaged(path, f"the bytes of {name} do not match their checksum")
    return arrays


def _array(file: int, entry: Mapping[str, Any], start: int) -> np.ndarray | None:
    """An array in memory of its own, as the header has it (which safetensors found to be right) and its bytes follow
    from `start` on; None: of another type than graphc's. ValueError when the file has become shorter."""
    type = TYPES.get(entry["dtype"])
    if type is None:
        return None
    array = aligned_empty(tuple(entry["shape"]), type.np)
    first, end = entry["data_offsets"]
    rest, at = memoryview(_bytes(array)), start + first
    while len(rest):
        count = os.preadv(file, [rest], at)
        if not count:
            raise ValueError("it has become shorter")
        rest, at = rest[count:], at + count
    return array


def _side_by_side(read: Callable[[str], np.ndarray], names: list[str], nbytes: int) -> list[np.ndarray]:
    """What `read` gives for each of the names: of a large file by several threads, since the sums take longer than
    reading."""
    if nbytes < LARGE:
        return list(map(read, names))
    with loaded("concurrent.futures", "ThreadPoolExecutor")(READERS) as pool:
        return list(pool.map(read, names))


def _header(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Length and header, its own sum included."""
    table, start = {}, 0
    for name, a in arrays.items():
        table[name] = dict(dtype=_code(a.dtype), shape=a.shape, data_offsets=(start, start + a.nbytes))
        start += a.nbytes
    sums = json.dumps({name: _sha256(a) for name, a in arrays.items()})
    text = json.dumps({METADATA: {"format": "graphc", SUM: BLANK.decode(), SUMS: sums}, **table},
                      separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    blank = len(text).to_bytes(8, "little") + text
    return _with_sum(blank, hashlib.sha256(blank).hexdigest().encode())


def _with_sum(header: bytes, digest: bytes) -> bytes:
    start = 8 + len(MARK)
    return header[:start] + digest + header[start + DIGITS:]


def _again(opened: BinaryIO, path: str | os.PathLike[str]) -> str:
    """A path of the very file that is open: another may take the place of `path` meanwhile."""
    same = f"{OPEN_FILES}/{opened.fileno()}"
    return same if os.path.exists(same) else os.fspath(path)


def _header_of(file: BinaryIO) -> bytes:
    """With the eight bytes before it that say how long it is."""
    start = file.read(8)
    return start + file.read(int.from_bytes(start, "little"))


def _checked_header(path: str | os.PathLike[str], header: bytes,
                    metadata: Mapping[str, str]) -> Callable[[str, np.ndarray], bool]:
    """check(name, array) -> whether the array is the one that was saved. GraphError or ValueError when the header
    itself is damaged.
    """
    json.loads(header[8:], object_pairs_hook=_unique)
    is_named = any(f'"{key}"'.encode() in header for key in (SUM, SUMS))
    if is_named or sum(a == b for a, b in zip(MARK, header[8:])) >= len(MARK) - NEAR:
        found = header[8 + len(MARK):8 + len(MARK) + DIGITS]
        if not header[8:].startswith(MARK) or hashlib.sha256(_with_sum(header, BLANK)).hexdigest().encode() != found:
            raise _damaged(path, "its header does not match its checksum")
        sums = _table(metadata.get(SUMS, ""))
        return lambda name, array: sums.get(name) == _sha256(array)
    # of graphc's older files
    sums = _table(metadata.get("crc32", "{}")) if metadata.get("format") == "graphc" else {}
    return lambda name, array: name not in sums or sums[name] == zlib.crc32(_bytes(array))


def _table(text: str) -> dict[str, object]:
    table = json.loads(text)
    if not isinstance(table, dict):
        raise ValueError("its checksums are no table")
    return table


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object of the header. ValueError when a name comes twice: readers would differ in which they take."""
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name comes twice in its header")
    return table


def _dense(name: str, array: np.ndarray) -> np.ndarray:
    """`array` as the format stores it: row-major, little-endian."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(array.shape)
    if name == METADATA:
        raise GraphError(f"no array can be saved under the name {METADATA}, which safetensors keeps for itself",
                         user_loc())
    if _code(little.dtype) is None:
        known = ", ".join([*(d.numpy for d in DTYPES), *map(str, FOREIGN)])
        raise GraphError(f"{name} is {array.dtype}, which cannot be saved; convert it with .astype to one of {known}",
                         user_loc())
    return little


def _code(dtype: np.dtype) -> str | None:
    """What the format calls a type; None if it has none."""
    known = of_numpy(dtype)
    return known.name.upper() if known else FOREIGN.get(dtype)


def _bytes(array: np.ndarray) -> memoryview:
    """The bytes of an array, not copied where it is row-major."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _sha256(array: np.ndarray) -> str:
    return hashlib.sha256(_bytes(array)).hexdigest()


def _damaged(path: str | os.PathLike[str], how: str) -> GraphError:
    return GraphError(f"{path} is damaged: {how}; load an older checkpoint", user_loc())
