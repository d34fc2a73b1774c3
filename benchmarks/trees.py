"""`python -m benchmarks trees OLD`: this checkout's graphc beside another's, a folder or a revision, in alternating
turns on the same networks.

old / new of the medians and of the best turns: above 1, this checkout is faster. Weights come from this checkout's
graphc, so no peer is needed.
"""
from __future__ import annotations

import argparse
import io
import math
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from safetensors.numpy import load_file

from benchmarks.contest import Contest, Figures, Place
from benchmarks.workloads import WORKLOADS, Workload, quick

HERE = Path(__file__).resolve().parent.parent
NEW, OLD = "new", "old"
SECONDS, TURNS = 12.0, 15               # of one workload
# a tree is as fast as another where the mean of old / new and its lowest value are no less
MEAN, LEAST = 0.99, 0.95


@dataclass(frozen=True)
class Compared:
    """One workload in both checkouts."""
    workload: Workload
    threads: int
    new: Figures
    old: Figures
    same_bits: bool

    @property
    def error(self) -> str:
        return "; ".join(f"{name}: {f.error}" for name, f in ((NEW, self.new), (OLD, self.old)) if f.error)

    @property
    def ratio(self) -> float:
        return self.old.median / self.new.median

    @property
    def best_ratio(self) -> float:
        return self.old.best / self.new.best

    @property
    def build_ratio(self) -> float:
        return (self.old.build + self.old.first) / (self.new.build + self.new.first)


def main(options: argparse.Namespace) -> None:
    workloads = [w for w in (quick(WORKLOADS) if options.quick else WORKLOADS)
                 if not options.workload or any(text in w.name for text in options.workload)]
    end = time.monotonic() + 60 * options.minutes if options.minutes else math.inf
    with checkout(options.old) as folder:
        rows = [row for threads in options.threads for row in compared(folder, workloads, threads, end)]
    print(report(rows))


@contextmanager
def checkout(old: str) -> Iterator[Path]:
    """The folder `old`, or one with the files of the revision of this name."""
    if (Path(old) / "graphc").is_dir():
        yield Path(old).resolve()
        return
    found = subprocess.run(["git", "archive", old], cwd=HERE, capture_output=True)
    if found.returncode:
        raise SystemExit(f"{old} is no checkout of graphc and no revision of this one: {found.stderr.decode().strip()}")
    with tempfile.TemporaryDirectory() as folder:
        tarfile.open(fileobj=io.BytesIO(found.stdout)).extractall(folder, filter="data")
        yield Path(folder)


def compared(old: Path, workloads: Sequence[Workload], threads: int, end: float) -> Iterator[Compared]:
    """Measures the workloads that begin before `end` (monotonic clock), and prints each."""
    places = {NEW: Place("graphc", HERE), OLD: Place("graphc", old)}
    with tempfile.TemporaryDirectory() as files:
        contest = Contest((NEW, OLD), threads, Path(files), seconds=SECONDS, turns=TURNS, places=places, maker=NEW)
        try:
            contest.start()
            for workload in workloads:
                if time.monotonic() > end:
                    break
                figures = contest.run(workload)
                row = Compared(workload, threads, figures[NEW], figures[OLD], _same_bits(Path(files)))
                print(line(row), flush=True)
                yield row
        finally:
            contest.end()


def _same_bits(files: Path) -> bool:
    """Whether both wrote the same results."""
    paths = [files / f"{name}.results" for name in (NEW, OLD)]
    if not all(path.exists() for path in paths):
        return False
    new, old = map(load_file, paths)
    return new.keys() == old.keys() and all(new[k].tobytes() == old[k].tobytes() for k in new)


def line(row: Compared) -> str:
    name = f"{row.workload.name}, {row.threads} threads: "
    if row.error:
        return name + row.error
    bits = "same bits" if row.same_bits else "other bits"
    return (f"{name}old / new {row.ratio:.3f} (bests {row.best_ratio:.3f}), new {1e3 * row.new.median:.3f} ms, "
            f"compile and first call {row.build_ratio:.2f}, {bits}")


def report(rows: Sequence[Compared]) -> str:
    """The geometric means, what is slower, what failed, and where results differ."""
    measured, failed = [r for r in rows if not r.error], [r for r in rows if r.error]
    text = [f"{len(measured)} of {len(rows)} rows measured" + "".join(f"\n  failed: {line(r)}" for r in failed)]
    if measured:
        mean, bests, builds = (_mean([getattr(r, n) for r in measured]) for n in ("ratio", "best_ratio", "build_ratio"))
        slow = [r for r in measured if r.ratio < LEAST]
        other = [r.workload.name for r in measured if not r.same_bits]
        text.append(f"old / new, geometric mean {mean:.3f} (bests {bests:.3f}), lowest "
                    f"{min(r.ratio for r in measured):.3f}; compile {builds:.2f}")
        text.append("as fast as before" if mean >= MEAN
                    and not slow else f"slower: {', '.join(r.workload.name for r in slow) or 'by the mean'}")
        text.append(f"other bits than before: {', '.join(other)}" if other else "the same bits in every row")
    return "\n".join(text)


def _mean(ratios: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, ratios)) / len(ratios))
