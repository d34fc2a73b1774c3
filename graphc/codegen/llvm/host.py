"""The CPU we run on, as a `Target`."""
from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from graphc.codegen.llvm.cache import default, make_key
from graphc.codegen.llvm.lazy import llvm
from graphc.codegen.llvm.matrix_permission import may_use_matrices
from graphc.codegen.llvm.packing import pack, unpack
from graphc.config import config
from graphc.errors import GraphError
from graphc.records import dataclass
from graphc.schedule.target import (
    AVX2, AVX2_VNNI, AVX512, AVX512_AMX, AVX512_BF16, AVX512_VNNI, NEON, NEON_BF16, NEON_DOT, SAPPHIRERAPIDS, SSE2,
    TARGETS, ZEN3, Target)

REFUSED = "this CPU multiplies matrices (AMX), but the system does not let this process use that"
CPU0 = Path("/sys/devices/system/cpu/cpu0/cache")
BY_PREFERENCE = {
    "x86_64": (ZEN3, AVX512_AMX, SAPPHIRERAPIDS, AVX512_BF16, AVX512_VNNI, AVX512, AVX2_VNNI, AVX2, SSE2),
    "aarch64": (NEON_BF16, NEON_DOT, NEON)}
CACHES = ("l1_bytes", "l2_bytes", "l3_bytes")         # fields of `Machine`
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
CPUS, CPU_TEXT_BYTES = Path("/proc/cpuinfo"), 1 << 14
# what the kernel says of a CPU that has nothing to do with what it can
VARYING = ("processor", "cpu MHz", "bogomips", "BogoMIPS", "apicid", "initial apicid", "physical id", "core id")


@dataclass(frozen=True)
class Host:
    """What LLVM says of this machine: its triple, the CPU's name, and which features it has (and the operating system
    saves their registers)."""
    triple: str
    cpu: str
    features: tuple[str, ...]


@cache
def host() -> Host:
    """Through the disk cache, for a CPU of which the kernel says the same: to load LLVM takes a twentieth of a second,
    and a process that finds its code on disk needs nothing else of it."""
    store, text = default(), _cpu_text()
    key = make_key("host", text, *os.uname()) if store and text else ""
    found = store.get(key, partial(unpack, Host)) if store and key else None
    if found is not None:
        return found
    has = llvm().get_host_cpu_features()
    made = Host(llvm().get_process_triple(), llvm().get_host_cpu_name(), tuple(name for name in has if has[name]))
    if store and key:
        store.put(key, *pack(made))
    return made


def _cpu_text(file: Path = CPUS) -> str:
    """What the kernel says of the first CPU: its kind and its features. Nothing where it does not."""
    with suppress(OSError, ValueError), open(file, encoding="utf-8") as lines:
        first = lines.read(CPU_TEXT_BYTES).partition("\n\n")[0].splitlines()
        return "\n".join(line for line in first if line.partition(":")[0].strip() not in VARYING)
    return ""


def host_target() -> Target:
    """The best known Target whose features this CPU has, with this CPU's cache sizes; or the one GRAPHC_TARGET
    names."""
    name = config().target
    if not name:
        return detected_target()
    if name not in TARGETS:
        raise GraphError(f"GRAPHC_TARGET={name} is not a target; known: {', '.join(TARGETS)}")
    if TARGETS[name].has_matrices and refuses_matrices():
        raise GraphError(f"GRAPHC_TARGET={name}: {REFUSED}")
    return TARGETS[name]


@cache
def detected_target() -> Target:
    """What this CPU is, whatever the environment says."""
    machine = host().triple.split("-")[0]
    candidates = BY_PREFERENCE.get(machine)
    if candidates is None:
        raise GraphError(f"graphc runs on {' and '.join(BY_PREFERENCE)}, not on {machine}")
    best = preferred(candidates, host().cpu)
    return replace(best, machine=replace(best.machine, **cache_sizes()))


def preferred(candidates: Sequence[Target], cpu: str) -> Target:
    """The first whose code runs here, of those that describe a CPU of this name (as LLVM has it)."""
    return next((t for t in candidates if (not t.cpus or cpu in t.cpus) and can_run(t)), candidates[-1])


@cache
def host_features() -> dict[str, bool]:
    """True for the LLVM names of what this CPU has."""
    return dict.fromkeys(host().features, True)


def can_run(target: Target) -> bool:
    """Whether code for `target` runs here."""
    return not lacking(target)


def lacking(target: Target) -> tuple[str, ...]:
    """What `target` needs and this machine lacks: LLVM feature names, or the architecture. Matrix registers count as
    lacking where the system refuses them."""
    machine = target.triple.split("-")[0]
    if machine != host().triple.split("-")[0]:
        return (machine,)
    has = host_features()
    refused = ("amx-tile",) if target.has_matrices and refuses_matrices() else ()
    return tuple(dict.fromkeys([*(f for f in _names(target.features) if not has.get(f, False)), *refused]))


def refuses_matrices() -> bool:
    """Whether this CPU has matrix registers which the system refuses. Asking is what makes them usable, for the whole
    process and those that it forks, so it comes before code for them is loaded."""
    return host_features().get("amx-tile", False) and not may_use_matrices()


def cache_sizes(folder: Path = CPU0) -> dict[str, int]:
    """{"l1_bytes": bytes, "l2_bytes": bytes, "l3_bytes": bytes} of the data caches the kernel reports; missing ones are
    left out."""
    found = {}
    for index in sorted(folder.glob("index*")):
        try:
            kind, level, size = ((index / name).read_text().strip() for name in ("type", "level", "size"))
            if kind in ("Data", "Unified"):
                found[f"l{int(level)}_bytes"] = _bytes(size)
        except (OSError, ValueError):
            continue
    return {name: size for name, size in found.items() if name in CACHES and size > 0}


def _names(features: str) -> list[str]:
    return [f.lstrip("+") for f in features.split(",") if f.startswith("+")]


def _bytes(text: str) -> int:
    return int(text[:-1]) * UNITS[text[-1]] if text[-1] in UNITS else int(text)
