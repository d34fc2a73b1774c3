"""`graphc doctor`: what this installation runs on, quick checks that it works, and what is untested here."""
from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from graphc.codegen.llvm import cache
from graphc.codegen.llvm.host import REFUSED, host_target, refuses_matrices
from graphc.compiled import CompiledGraph
from graphc.compiler import Compilation
from graphc.ir.builder import Builder
from graphc.ir.dims import static_shape
from graphc.ir.graph import Graph
from graphc.ir.interp import evaluate
from graphc.ir.types import f32
from graphc.runtime.pool import default_threads
from graphc.schedule.target import AVX2, AVX512, NEON, Target

PACKAGES = ("graphc", "numpy", "llvmlite", "networkx", "safetensors", "ml_dtypes")


def report() -> int:
    """Prints the findings; returns 1 when a check failed."""
    print(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}; "
          + ", ".join(f"{p} {_version(p)}" for p in PACKAGES))
    target = host_target()
    machine = target.machine
    print(f"CPU target {target.name}: {target.vector_bytes * 8}-bit vectors, {target.vector_registers} registers, "
          f"L1 {machine.l1_bytes >> 10} KB, L2 {machine.l2_bytes >> 10} KB, L3 {machine.l3_bytes >> 10} KB; "
          f"{default_threads()} threads")
    if refuses_matrices():
        print(REFUSED)
    store = cache.default()
    print(f"cache {store.folder}, {store.size >> 10} KB" if store else "cache: off")
    failed = [name for name, check in CHECKS.items() if not _passes(name, check)]
    for line in untested(target):
        print(f"untested: {line}")
    return int(bool(failed))


def untested(target: Target) -> list[str]:
    """What the tests on a machine like this one do not run."""
    lines = []
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        lines.append(f"{platform.system()} on {platform.machine()}: only Linux on x86-64 is supported")
    if target.name != NEON.name:
        lines.append(f"{NEON.name} code is run in a simulator only, where one is installed")
    for other in (AVX2, AVX512):
        if other.name != target.name:
            lines.append(f"{other.name} code is generated and its assembly checked, but not run where the target is "
                         f"{target.name}")
    return lines


def _version(package: str) -> str:
    """As installed; graphc itself may run from its source."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"


def _passes(name: str, check: Callable[[], None]) -> bool:
    try:
        check()
    except Exception as error:
        print(f"FAILED {name}: {type(error).__name__}: {error}", file=sys.stderr)
        return False
    print(f"ok: {name}")
    return True


def _probe() -> Graph:
    b = Builder("probe")
    x, w = b.input("x", f32[37, 50]), b.input("w", f32[50, 19])
    return b.finish([b.softmax(b.matmul(b.tanh(x), w), axis=1)])


def _check_numbers() -> None:
    arrays = _probe_inputs()
    np.testing.assert_allclose(CompiledGraph(_probe())(*arrays), evaluate(_probe(), arrays)[0], rtol=1e-4)


def _check_threads() -> None:
    arrays = _probe_inputs()
    first, *others = (CompiledGraph(_probe(), threads=n)(*arrays).tobytes() for n in (1, 2, 4))
    assert all(bits == first for bits in others), "the bits depend on the number of threads"


def _check_targets() -> None:
    for target in (AVX512, NEON):
        assert Compilation(_probe(), target).text("asm"), target.name


def _probe_inputs() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(static_shape(v.type.shape)).astype(np.float32) for v in _probe().inputs]


CHECKS: dict[str, Callable[[], None]] = {
    "native code computes what numpy does": _check_numbers,
    "the same bits with 1, 2 and 4 threads": _check_threads,
    "code for AVX-512 and NEON is generated": _check_targets,
}
