"""`python -m benchmarks start OLD`: what a new process pays before its first call, in this checkout beside another, a
folder or a revision: `import graphc`, and the first compile of three networks, with an empty disk cache and with a full
one.

Processor time (user and system) beyond `import numpy`, in alternating turns of new processes: other work on the machine
disturbs it less than time on the clock. With the number of graphc's modules that were imported, which nothing disturbs.
"""
from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.trees import HERE, NEW, OLD, checkout

TURNS = 12
IMPORT = "import graphc as gc\nfrom graphc import nn, optim\n"
PROGRAMS = {
    "import graphc": "import graphc\n",
    "perceptron": IMPORT +
        "gc.compile(nn.Sequential(nn.Linear(32), gc.relu, nn.Linear(10)), x=gc.f32[16, 20], seed=0)\n",
    "convolutions, trained": IMPORT +
        "net = nn.Sequential(nn.Conv2d(8, 3, padding=1), gc.relu, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(10))\n"
        "gc.train_step(net, loss=nn.cross_entropy, optimizer=optim.SGD(0.1),\n"
        "              x=gc.f32[8, 1, 12, 12], y=gc.i32[8]).memory\n",
    "transformer": IMPORT + "gc.compile(nn.Sequential(*[nn.TransformerBlock(4, hidden=64) for _ in range(2)]),\n"
        "           x=gc.f32[2, 16, 32], seed=0)\n"}
MEASURED = """import resource, sys, numpy
def spent():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
before = spent()
{program}print(spent() - before, sum(name.partition(".")[0] == "graphc" for name in sys.modules))
"""


@dataclass(frozen=True)
class Started:
    """One new process: seconds of processor time, and modules of graphc."""
    seconds: float
    modules: int


def main(options: argparse.Namespace) -> None:
    with checkout(options.old) as old:
        print(report(old, 3 if options.quick else TURNS))


def report(old: Path, turns: int) -> str:
    """A Markdown table, a row for each program and state of the cache: medians and least times in ms."""
    lines = ["| program | cache | before ms (least) | now ms (least) | now / before | modules before | now |",
             "|---|---|---|---|---|---|---|"]
    for name, program in PROGRAMS.items():
        for full in (False, True) if program.startswith(IMPORT) else (True,):
            found = compared(program, {NEW: HERE, OLD: old}, turns, full)
            times = {tree: [s.seconds * 1e3 for s in runs] for tree, runs in found.items()}
            before, now = (f"{median(times[tree]):.0f} ({min(times[tree]):.0f})" for tree in (OLD, NEW))
            lines.append(f"| {name} | {'full' if full else 'empty'} | {before} | {now} | "
                         f"{median(times[NEW]) / median(times[OLD]):.2f} | {found[OLD][0].modules} | "
                         f"{found[NEW][0].modules} |")
    return "\n".join(lines)


def compared(program: str, trees: Mapping[str, Path], turns: int, full: bool) -> dict[str, list[Started]]:
    """Processes that run the program, `turns` of each tree. One more of each goes first: it writes Python's bytecode,
    and fills the cache where that is to be full."""
    with tempfile.TemporaryDirectory() as folder:
        runs: dict[str, list[Started]] = {tree: [] for tree in trees}
        for turn in range(turns + 1):
            for tree, root in trees.items():
                runs[tree].append(started(program, root, Path(folder, tree if full else f"{tree}{turn}")))
    return {tree: found[1:] for tree, found in runs.items()}


def started(program: str, tree: Path, cache: Path) -> Started:
    """A new process that runs the program with the tree's graphc."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "GRAPHC_CACHE": str(cache)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run([sys.executable, "-c", MEASURED.format(program=program)], env=environment, cwd=tree,
                          capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{program}fails in {tree}: {done.stderr}")
    seconds, modules = done.stdout.split()[-2:]
    return Started(float(seconds), int(modules))
