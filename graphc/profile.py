"""The time of each kernel of a compiled function, beside the peak of the machine."""
from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from graphc.build import CallSite
from graphc.dsl.context import user_loc
from graphc.errors import GraphError, Loc
from graphc.ir.dims import static_dim
from graphc.ir.shown import Pictured
from graphc.memory.plan import ProgramPlan
from graphc.peak import copy_rate, fma_peak
from graphc.records import dataclass
from graphc.replacing import write_file
from graphc.roofline import Point, roofline_svg
from graphc.runtime.executable import Executable
from graphc.runtime.state_table import StateTable

MOST_RUNS = 1_000_000
FORMATS = ("svg", "png", "pdf")
SHOWN = 30                          # rows of the printed table
NAMED = 3                           # arrays with subnormal numbers
MANY = 0.01                         # of an array's numbers


@dataclass(frozen=True)
class ProfileRow:
    """All calls of one kernel from one line of the user: totals of one run. seconds: the least of several runs."""
    kernel: str
    loc: Loc | None
    scope: str
    calls: int
    seconds: float
    flops: int
    bytes: int
    phase: str = ""

    @property
    def gflops(self) -> float:
        return self.flops / self.seconds / 1e9 if self.seconds else 0.0

    @property
    def gbytes(self) -> float:
        return self.bytes / self.seconds / 1e9 if self.seconds else 0.0

    @property
    def intensity(self) -> float:
        """Flops for each byte moved."""
        return self.flops / self.bytes if self.bytes else 0.0

    @property
    def line(self) -> str:
        return f"{Path(self.loc.file).name}:{self.loc.line}" if self.loc else ""


@dataclass(frozen=True)
class Profile(Pictured):
    """The kernels of a program, the slowest first. `seconds`: of the fastest run as a whole; `peak` GFLOP/s of f32
    fused multiply-adds and `bandwidth` GB/s of a large copy, both measured on as many threads. Kernels are judged by
    their least times, which runs of their own may have had: machines are shared. `subnormal`: parameters and arguments
    of which at least a hundredth is below the least normal number, by name, and how much that is.
    """
    rows: tuple[ProfileRow, ...]
    seconds: float
    median_seconds: float
    threads: int
    peak: float
    bandwidth: float
    subnormal: tuple[tuple[str, float], ...] = ()

    def limit(self, row: ProfileRow) -> float:
        """Seconds that the row would take at the roofline (Williams, Waterman and Patterson 2009): max(flops / peak,
        bytes / bandwidth). Data that stay in the caches may beat it.
        """
        return max(row.flops / (self.peak * 1e9), row.bytes / (self.bandwidth * 1e9))

    def share(self, row: ProfileRow) -> float:
        """Of the roofline: 1 is as fast as the machine can be."""
        return self.limit(row) / row.seconds if row.seconds else 0.0

    def save(self, path: str | os.PathLike[str]) -> None:
        """The roofline plot as a file: .svg, or with matplotlib .png or .pdf; GraphError for another name."""
        suffix = Path(path).suffix.lower().removeprefix(".")
        if suffix not in FORMATS:
            raise GraphError(f"the roofline plot is saved in the format of a name that ends in "
                             f".{', .'.join(FORMATS)}; got {os.fspath(path)!r}", user_loc())
        write_file(path, self.svg() if suffix == "svg" else
                   import_module("graphc.roofline_figure").roofline_picture(self._points, self.peak, self.bandwidth,
                                                                            suffix))

    def svg(self) -> str:
        """The roofline plot."""
        return roofline_svg(self._points, self.peak, self.bandwidth)

    @property
    def _points(self) -> list[Point]:
        return [(" ".join(filter(None, (row.kernel, row.scope, row.line))), row.intensity, row.gflops, row.seconds)
                for row in self.rows]

    def shown_share(self, row: ProfileRow) -> str:
        """The share of the roofline as people read it: 100 % at most, with a star where the data stayed in caches,
        which are faster than the memory that the roofline knows."""
        share = self.share(row)
        return f"{100 * min(share, 1.0):.0f}%" + "*" * (share > 1)

    def __str__(self) -> str:
        width = max([len(row.kernel) for row in self.rows[:SHOWN]] + [6])
        head = (f"{'kernel':<{width}}  {'line':<22} {'calls':>6} {'ms':>10} {'%':>6} {'GFLOP/s':>8} {'GB/s':>7} "
                f"{'roofline':>8}" + "  phase" * any(row.phase for row in self.rows)
                + "  layer" * any(row.scope for row in self.rows))
        inside = sum(row.seconds for row in self.rows)
        lines = [head, *(self._line(row, width, inside) for row in self.rows[:SHOWN])]
        if len(self.rows) > SHOWN:
            rest = sum(row.seconds for row in self.rows[SHOWN:])
            lines.append(f"{f'{len(self.rows) - SHOWN} more':<{width}}  {'':<22} {'':>6} {1e3 * rest:>10.3f} "
                         f"{100 * rest / inside:>6.1f}")
        return "\n".join([*lines, self.summary, *self._slow_numbers()])

    def _slow_numbers(self) -> Iterator[str]:
        """What subnormal numbers cost, and what can be done about it."""
        if self.subnormal:
            named = ", ".join(f"{100 * share:.0f} % of {name}" for name, share in self.subnormal[:NAMED])
            more = f" and {len(self.subnormal) - NAMED} more" if len(self.subnormal) > NAMED else ""
            yield (f"subnormal numbers: {named}{more}; CPUs may take about 150 cycles for an operation with one "
                   "(GRAPHC_FLUSH_SUBNORMALS=1 takes them for 0)")

    @property
    def summary(self) -> str:
        """The whole time, the machine, and what a star behind a share of the roofline means."""
        inside = sum(row.seconds for row in self.rows)
        star = "\n* beyond the roofline of the memory: the data stayed in caches"
        return (f"{1e3 * inside:.3f} ms in kernels of {1e3 * self.seconds:.3f} ms (median run "
                f"{1e3 * self.median_seconds:.3f} ms), {self.threads} threads; machine: {self.peak:.0f} GFLOP/s, "
                f"{self.bandwidth:.0f} GB/s" + star * any(self.share(row) > 1 for row in self.rows))

    def _line(self, row: ProfileRow, width: int, inside: float) -> str:
        return (f"{row.kernel:<{width}}  {row.line:<22} {row.calls:>6} {1e3 * row.seconds:>10.3f} "
                f"{100 * row.seconds / inside if inside else 0:>6.1f} "
                f"{row.gflops:>8.1f} {row.gbytes:>7.1f} {self.shown_share(row):>8}"
                + (f"  {row.phase}" if row.phase else "") + (f"  {row.scope}" if row.scope else ""))


def measure(run: Executable, table: np.ndarray, sites: Sequence[CallSite], arrays: Sequence[np.ndarray],
            named: Mapping[str, np.ndarray], runs: int) -> Profile:
    """Profile of an instrumented program whose clocks are in `table` [sites, 2]: `runs` runs after one to warm up.
    `named`: what it reads."""
    run.slow(*arrays)
    times, tables = [], []
    for _ in range(runs):
        table[...] = 0
        start = perf_counter()
        run.slow(*arrays)
        times.append(perf_counter() - start)
        tables.append(table.copy())
    rows = sorted(_grouped(sites, np.stack(tables)), key=lambda row: -row.seconds)
    found = [(name, _subnormal(a)) for name, a in named.items() if a.dtype in (np.float32, np.float64) and a.size]
    return Profile(tuple(rows), min(times), median(times), run.threads, fma_peak(run.threads), copy_rate(run.threads),
                   tuple(sorted((pair for pair in found if pair[1] >= MANY), key=lambda pair: -pair[1])))


def arrays_read(plan: ProgramPlan, table: StateTable, arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """The arguments and the state by name, also where only packed forms of it are left."""
    graph, named = plan.main.graph, dict[str, np.ndarray]()
    names = [v.name for v in graph.state]
    types = [v.type.dtype for v in graph.state[len(table.arrays):]]
    packed = [(names[key.slot] if key.space == "state" else f"constant {key.begin}", key.view.dtype)
              for key in plan.packed.buffers]
    made = [*zip(names[len(table.arrays):], types), *packed]
    for (name, dtype), a in zip(made, table.derived):
        named[name] = a.view(dtype.np)
    whole = {name: a for name, a in zip(names, table.arrays) if a.size}
    return {**named, **whole, **dict(zip([v.name for v in graph.inputs], arrays))}


def _subnormal(a: np.ndarray) -> float:
    """The share of numbers that are neither 0 nor normal."""
    return float(np.count_nonzero((a != 0) & (np.abs(a) < np.finfo(a.dtype).tiny)) / a.size)


def _grouped(sites: Sequence[CallSite], tables: np.ndarray) -> list[ProfileRow]:
    """A row for the calls of one kernel from one line; tables [runs, sites, 2]."""
    groups: dict[tuple[str, Loc | None], list[int]] = {}
    for number, site in enumerate(sites):
        groups.setdefault((site.kernel, site.loc), []).append(number)
    rows = []
    for (kernel, loc), numbers in groups.items():
        calls = [int(tables[0, n, 1]) for n in numbers]
        rows.append(ProfileRow(kernel, loc, sites[numbers[0]].scope, sum(calls),
                               1e-9 * int(tables[:, numbers, 0].sum(axis=1).min()),
                               sum(c * static_dim(sites[n].flops) for c, n in zip(calls, numbers)),
                               sum(c * static_dim(sites[n].bytes) for c, n in zip(calls, numbers)),
                               sites[numbers[0]].phase))
    return rows
