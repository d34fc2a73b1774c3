"""BERT-base with drawn batches and lengths, as a server meets them: graphc's one program beside ONNX Runtime with free
axes. Each runs in a process of its own and the same order of sizes; all counts, from loading to the last result.

Also what memory the process takes after the first call, which has the greatest sizes, and after all.
"""
from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import graphc as gc
from graphc import models

WANTED, MEMORY_WANTED = 0.8, 1.05       # of ONNX Runtime's time; of the memory after the first call
MOST = {"B": 8, "T": 256}
WORDS = 1000                            # ids are drawn below
MODEL, PARAMETERS = "bert.onnx", "bert.safetensors"
TYPE = gc.i32["B", "T"]
AGREE = 1e-3                            # of the largest result
Run = Callable[[np.ndarray], np.ndarray]


def main(threads: int, pairs: int, seed: int) -> list[str]:
    """Rows of the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            _write_model(folder)
            theirs = _process("onnx", folder, threads, pairs, seed)
        except (ImportError, subprocess.CalledProcessError, gc.GraphError) as reason:
            theirs, why = None, str(reason).splitlines()[0]
        ours = _process("graphc", folder, threads, pairs, seed)
        beside = f"ONNX Runtime was not measured: {why}" if theirs is None else _times(ours, theirs, pairs, folder)
        return [_memory(ours, pairs), beside]


def _write_model(folder: Path) -> None:
    """The network as an ONNX file, and its parameters alone."""
    from onnx.numpy_helper import to_array
    model = gc.to_onnx(models.bert(), folder / MODEL, seed=0, x=TYPE)
    arrays = {each.name: to_array(each) for each in model.graph.initializer if "." in each.name}     # no constants
    gc.save_weights(folder / PARAMETERS, arrays)


def _memory(ours: dict, pairs: int) -> str:
    ratio = ours["after all"] / ours["after one"]
    return (f"BERT-base, memory of the process after {pairs} sizes: {ours['after all'] / 1e6:.0f} MB, {ratio:.3f} of "
            f"that after one, the greatest (at most {MEMORY_WANTED})")


def _times(ours: dict, theirs: dict, pairs: int, folder: Path) -> str:
    a, b = (np.load(folder / f"{engine}.npy") for engine in ("graphc", "onnx"))
    error = float(np.abs(a - b).max() / np.abs(b).max())
    differs = "" if error <= AGREE else f"; RESULTS DIFFER by {error:.1e}"
    return (f"BERT-base, {pairs} drawn pairs (B ≤ {MOST['B']}, T ≤ {MOST['T']}), from loading to the last result: "
            f"{ours['seconds']:.2f} s, {ours['seconds'] / theirs['seconds']:.2f} of ONNX Runtime's "
            f"{theirs['seconds']:.2f} s (at most {WANTED}; loading {ours['load']:.2f} and {theirs['load']:.2f} s), "
            f"memory {ours['after all'] / 1e6:.0f} and {theirs['after all'] / 1e6:.0f} MB{differs}")


def _process(engine: str, folder: Path, threads: int, pairs: int, seed: int) -> dict:
    """What one engine takes, its code compiled anew."""
    command = [sys.executable, "-m", "benchmarks.sizes_serving", engine, str(folder), *map(str, (threads, pairs, seed))]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env={**os.environ, "GRAPHC_CACHE": "off"})
    return json.loads(done.stdout)


def _graphc(folder: Path, threads: int) -> Run:
    file = folder / PARAMETERS
    given = {"state": file} if file.exists() else {"seed": 0}
    return gc.compile(models.bert(), threads=threads, x=TYPE, **given)


def _onnx(folder: Path, threads: int) -> Run:
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    session = onnxruntime.InferenceSession(str(folder / MODEL), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def serve(engine: str, folder: Path, threads: int, pairs: int, seed: int) -> dict[str, float]:
    """Loads the network and calls it once with each of the drawn sizes, the greatest first. Seconds and bytes."""
    rng = np.random.default_rng(seed)
    sizes = [tuple(MOST.values()), *zip(*(rng.integers(1, most, pairs - 1, endpoint=True) for most in MOST.values()))]
    batches = [rng.integers(0, WORDS, size).astype(np.int32) for size in sizes]
    load = {"graphc": _graphc, "onnx": _onnx}[engine]
    start = time.perf_counter()
    run = load(folder, threads)
    loaded = time.perf_counter()
    result = run(batches[0])
    after_one, last = _resident(), result
    for batch in batches[1:]:
        last = run(batch)
    end = time.perf_counter()
    np.save(folder / f"{engine}.npy", np.asarray(last))
    return {"seconds": end - start, "load": loaded - start, "after one": after_one, "after all": _resident()}


def _resident() -> int:
    """Bytes of memory that the process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    engine, folder, *numbers = sys.argv[1:]
    print(json.dumps(serve(engine, Path(folder), *map(int, numbers))))
