"""Damaged checkpoints: every single flip of a bit, pairs of flips, and a bounded share of what
`tests.fuzz.checkpoint` does. Whole ones: of graphc, of its older versions, of other programs.
"""
from __future__ import annotations

import json
import time
import zlib

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save, save_file

import graphc as gc
from graphc.checkpoint import MARK, load_arrays, save_arrays
from tests.fuzz import checkpoint as fuzz

SMALL = {"w": np.array([7, -1], np.int32), "v": np.array([True])}


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "net.safetensors"
    save_arrays(path, SMALL)
    return path, path.read_bytes()


def undetected(path, whole: bytes, flips) -> list:
    found = []
    with open(path, "r+b") as file:
        for bits in flips:
            file.seek(0)
            file.write(fuzz.flipped(whole, bits))
            file.flush()
            try:
                load_arrays(path)
                found.append(bits)
            except gc.GraphError:
                pass
    return found


def test_every_single_flip_is_found(saved):
    path, whole = saved
    assert not undetected(path, whole, ([bit] for bit in range(8 * len(whole))))
    assert undetected(path, whole, [[]])                    # as it was, it loads


def test_flips_in_header_and_data(tmp_path):
    """All pairs of one in the header and one in the data."""
    path = tmp_path / "net.safetensors"
    save_arrays(path, {"v": np.array([True])})
    whole = path.read_bytes()
    start = 8 * (len(whole) - 1)
    assert not undetected(path, whole, ([a, start + b] for a in range(start) for b in range(8)))


def test_pairs_of_flips(saved):
    """Of all the pairs a sample, the more of those at the beginning, which says whose file it is."""
    path, whole = saved
    rng = np.random.default_rng(0)
    near = 8 * (8 + len(MARK))
    pairs = [rng.choice(bits, 2, replace=False) for bits in [near] * 5000 + [8 * len(whole)] * 5000]
    assert not undetected(path, whole, pairs)


def test_a_share_of_all_damages():
    assert fuzz.run(np.random.default_rng(0), time.monotonic() + 1) >= len(fuzz.DAMAGES)


def test_other_programs_read_it(saved, tmp_path):
    """The file is plain safetensors, with aligned arrays; empty checkpoints and odd names included."""
    path, whole = saved
    assert all(np.array_equal(a, SMALL[n]) and a.dtype == SMALL[n].dtype for n, a in load_file(path).items())
    odd = {"quote\"d \\ ü 漢": np.arange(3), "": np.zeros((0, 2), np.float32), "c": np.float32(2),
           "b": np.ones((2, 3), bool), "t": np.ones((3, 2)).T,
           "swapped": np.arange(3, dtype=">f8"), "half": np.ones(3, np.float16), "byte": np.ones(5, np.uint8),
           "z": np.ones(2, np.complex64)}
    for arrays in (odd, {}):
        save_arrays(path, arrays)
        for found in (load_file(path), load_arrays(path)):
            assert found.keys() == arrays.keys()
            assert all(np.array_equal(found[n], a) and found[n].shape == a.shape
                       and found[n].dtype == a.dtype.newbyteorder("=") for n, a in arrays.items())
    with safe_open(path, "numpy") as file:
        assert file.metadata()["format"] == "graphc"


def test_other_programs_files_load(tmp_path):
    arrays = {"a": np.arange(4.0), "b": np.arange(3, dtype=np.int32)}
    for metadata in (None, {"format": "pt"}, {"format": "np", "sha256": "of something", "crc32": "too"},
                     {"format": "graphc"}, {"crc32": "[]"}):
        save_file(arrays, tmp_path / "a", metadata)
        assert all(np.array_equal(load_arrays(tmp_path / "a")[n], a) for n, a in arrays.items())


def test_older_files_load_and_their_sums_count(tmp_path):
    arrays, path = {"a": np.arange(4.0), "b": np.arange(3, dtype=np.int32)}, tmp_path / "a"
    sums = {name: zlib.crc32(a.tobytes()) for name, a in arrays.items()}
    path.write_bytes(save(arrays, {"format": "graphc", "crc32": json.dumps(sums)}))
    assert all(np.array_equal(load_arrays(path)[n], a) for n, a in arrays.items())
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(gc.GraphError, match="damaged: the bytes of b do not match"):
        load_arrays(path)
    path.write_bytes(save(arrays, {"format": "graphc", "crc32": "[1]"}))
    with pytest.raises(gc.GraphError, match="not a whole safetensors file"):
        load_arrays(path)


def test_what_another_program_made_of_it_is_not_taken_for_it(saved):
    """Arrays were changed, our sums kept."""
    path, whole = saved
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
    save_file({**SMALL, "w": np.array([7, 1], np.int32)}, path, metadata)
    with pytest.raises(gc.GraphError, match="damaged"):
        load_arrays(path)


def test_names_that_come_twice(tmp_path):
    """The library takes the last; another reader may take the first."""
    header = b'{"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
    (tmp_path / "a").write_bytes(len(header).to_bytes(8, "little") + header + b"\xff")
    with pytest.raises(gc.GraphError, match="not a whole safetensors file"):
        load_arrays(tmp_path / "a")


def test_what_cannot_be_saved_or_loaded(tmp_path):
    with pytest.raises(gc.GraphError, match="a is .*, which cannot be saved"):
        save_arrays(tmp_path / "a", {"a": np.array(["text"])})
    with pytest.raises(gc.GraphError, match="keeps for itself"):
        save_arrays(tmp_path / "a", {"__metadata__": np.zeros(2)})
    for path in (tmp_path, "/dev/zero", "/dev/null"):
        with pytest.raises(gc.GraphError, match="not a whole safetensors file"):
            load_arrays(path)
