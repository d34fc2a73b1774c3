"""What an engine is given: a workload, its weights and batches from files, and a number of threads."""
from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from safetensors.numpy import load_file, save_file

from benchmarks.workloads import Workload

WEIGHTS, BATCHES, ONNX = "weights.safetensors", "batches.safetensors", "network.onnx"


class Runner(Protocol):
    """A network ready to run. `batches` are in the engine's own types; `run` returns when the result is there;
    `arrays` gives it as numpy's: the outputs, or the loss.
    """
    batches: list[tuple]

    def run(self, *batch): ...

    def arrays(self, result) -> tuple[np.ndarray, ...]: ...


@dataclass(frozen=True)
class Case:
    """`folder` holds the files."""
    workload: Workload
    folder: Path
    threads: int

    @cached_property
    def weights(self) -> dict[str, np.ndarray]:
        return load_file(self.folder / WEIGHTS)

    @cached_property
    def batches(self) -> list[tuple[np.ndarray, ...]]:
        arrays = load_file(self.folder / BATCHES)
        count = 1 + max(int(name.split(".")[0]) for name in arrays)
        width = len(arrays) // count
        return [tuple(arrays[f"{i}.{k}"] for k in range(width)) for i in range(count)]


def save_batches(workload: Workload, folder: Path) -> None:
    save_file({f"{i}.{k}": a for i, batch in enumerate(workload.batches()) for k, a in enumerate(batch)},
              folder / BATCHES)


def onnx_batches(case: Case) -> list[tuple[np.ndarray, ...]]:
    """Ids are int64 in the exported network."""
    return [tuple(a.astype(np.int64) if a.dtype.kind == "i" else a for a in batch) for batch in case.batches]
