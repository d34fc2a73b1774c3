"""From a file to its first result in a new process with an empty disk cache: reading, compiling (what is loaded for
these at first use, and workers that compile parts, counts too), packing of weights and the first call.

`python -m benchmarks.onnx_cold` is that process: it reads the job from its standard input and writes its times.
"""
from __future__ import annotations

import json
import os
import pickle
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import graphc as gc

HERE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class FirstResult:
    """Seconds on the clock of reading the file, of compiling and of the first call; `cpu`: of all, with workers."""
    read: float
    compile: float
    call: float
    cpu: float

    @property
    def seconds(self) -> float:
        return self.read + self.compile + self.call


def first_result(path: str, given: Mapping[str, Any], inputs: Mapping[str, np.ndarray], cache: str,
                 threads: int) -> FirstResult:
    """Of a new process, which fills the folder `cache`."""
    job = pickle.dumps((path, dict(given), dict(inputs), threads))
    done = subprocess.run([sys.executable, "-m", "benchmarks.onnx_cold"], input=job, capture_output=True, cwd=HERE,
                          env={**os.environ, "GRAPHC_CACHE": cache, "PYTHONPATH": str(HERE)})
    if done.returncode:
        raise RuntimeError(done.stderr.decode()[-300:])
    return FirstResult(**json.loads(done.stdout))


def fresh_cache() -> tempfile.TemporaryDirectory[str]:
    """A folder that nobody else may write to: the disk cache takes no other."""
    return tempfile.TemporaryDirectory(prefix="graphc-models-")


def _spent(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def _measured(path: str, given: Mapping[str, Any], inputs: Mapping[str, np.ndarray], threads: int) -> FirstResult:
    start, before = perf_counter(), _spent(resource.RUSAGE_SELF)
    net = gc.from_onnx(path, sizes=given)
    read = perf_counter()
    run = gc.compile(net, threads=threads)
    compiled = perf_counter()
    run(**inputs)
    end, cpu = perf_counter(), _spent(resource.RUSAGE_SELF) - before
    if workers := sys.modules.get("graphc.codegen.llvm.workers"):
        workers.WORKERS.end_idle()              # what they took is known when they have ended
    return FirstResult(read - start, compiled - read, end - compiled, cpu + _spent(resource.RUSAGE_CHILDREN))


if __name__ == "__main__":
    print(json.dumps(asdict(_measured(*pickle.load(sys.stdin.buffer)))))
