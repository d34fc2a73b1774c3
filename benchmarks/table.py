"""The benchmark of whole networks: every workload, every engine, the limit, tables and chart."""
from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.contest import LIMIT, TIME_IS_UP, EngineError, Figures, contest
from benchmarks.limit import Machine, limit
from benchmarks.report import TITLES, Row, chart, markdown, seconds_text, share_text, summary
from benchmarks.workloads import WORKLOADS, Workload, drawn, quick
from graphc.replacing import write_file

SLOW_ENGINES = ("inductor",)            # their compiler takes up to a minute a workload: left out by --quick
MINUTES, QUICK_MINUTES = 25.0, 8.0
TURNS, QUICK_TURNS = 7, 4
TURN_BUDGET, QUICK_BUDGET = 8.0, 4.0    # seconds of turns of one workload
PACKAGES = {"torch": "torch", "jax": "jax", "onnx": "onnxruntime", "openvino": "openvino",
            "tensorflow": "tensorflow-cpu", "pytensor": "pytensor"}


def main(options: argparse.Namespace) -> None:
    engines = options.engine or [e for e in TITLES if not (options.quick and e in SLOW_ENGINES)]
    workloads = _chosen(options)
    deadline = time.monotonic() + 60 * (options.minutes or (QUICK_MINUTES if options.quick else MINUTES))
    rows, configurations = [], {}
    for number, threads in enumerate(options.threads):
        end = time.monotonic() + (deadline - time.monotonic()) / (len(options.threads) - number)
        rows += _measured(engines, workloads, threads, options, end, configurations)
    options.out.mkdir(parents=True, exist_ok=True)
    write_file(options.out / "benchmark.md", markdown(rows, engines, _head(options, configurations)))
    write_file(options.out / "summary.md", summary(rows) + "\n")
    write_file(options.out / "benchmark.json", json.dumps([_record(row) for row in rows], indent=1))
    chart(rows, options.out / "benchmark.svg")
    print(f"written: {options.out}/benchmark.md, .svg, .json and summary.md")


def _chosen(options: argparse.Namespace) -> tuple[Workload, ...]:
    every = (quick(WORKLOADS) if options.quick else WORKLOADS) + (() if options.quick else drawn(options.seed))
    wanted = [w for w in every if not options.workload or any(text in w.name for text in options.workload)]
    if not wanted:
        raise SystemExit(f"no workload's name contains {' or '.join(options.workload)}; their names:\n"
                         + "\n".join(w.name for w in every))
    return tuple(wanted)


def _measured(engines: Sequence[str], workloads: Sequence[Workload], threads: int, options, end: float,
              configurations: dict) -> list[Row]:
    """The rows of one number of threads; what does not fit before `end` is reported as not run."""
    machine, measured = Machine(threads), []
    print(f"{threads} threads: {machine}", flush=True)
    seconds, turns = (QUICK_BUDGET, QUICK_TURNS) if options.quick else (TURN_BUDGET, TURNS)
    with tempfile.TemporaryDirectory() as folder, contest(engines, threads, Path(folder), seconds=seconds, turns=turns,
                                                          places=dict(options.python)) as run:
        configurations.update({TITLES[e]: h.configuration for e, h in run.hosts.items() if e in engines})
        for workload in workloads:
            figures = _figures(run, workload, engines, end, partial(machine.times, limit(workload)))
            measured.append(Row(workload, threads, figures, figures.pop(LIMIT, Figures())))
            print(_line(measured[-1]), flush=True)
        if options.log:
            print((Path(folder) / "engines.log").read_text(errors="replace"))
    configurations[f"machine, {threads} threads"] = str(machine)
    return measured


def _figures(run, workload: Workload, engines: Sequence[str], end: float,
             least: Callable[[float], Sequence[float]]) -> dict[str, Figures]:
    if time.monotonic() > end:
        return {e: Figures(error=TIME_IS_UP) for e in engines}
    try:
        return run.run(workload, end, least)
    except EngineError as error:
        return {e: Figures(error=f"not run: {error}") for e in engines}


def _line(row: Row) -> str:
    cells = [f"{TITLES[e]} {seconds_text(f.median)}" if f.times else f"{TITLES[e]}: {f.error}"
             for e, f in row.figures.items()]
    ratio = ("" if row.ratio is None
             else f" = {row.ratio:.2f} of the best peer (bests {row.best_ratio:.2f}), {share_text(row)} of the limit")
    return f"{row.workload.name}, {row.threads} threads{ratio}: {', '.join(cells)}"


def _record(row: Row) -> dict:
    return {"workload": row.workload.name, "threads": row.threads, "limit": _summary(row.limit), "ratio": row.ratio,
            "best_ratio": row.best_ratio,
            "figures": {e: _summary(f) for e, f in row.figures.items()}}


def _summary(figures: Figures) -> dict:
    """The figures without the single times."""
    summary = {k: v for k, v in asdict(figures).items() if k != "times"}
    return {**summary, "median": figures.median, "best": figures.best,
            "chunks": len(figures.times)} if figures.times else summary


def _head(options: argparse.Namespace, configurations: dict) -> str:
    packages = ", ".join(f"{name} {_version(name)}" for name in PACKAGES.values())
    rows = [f"- {name}: {text}" for name, text in configurations.items()]
    return "\n".join([f"{_cpu()}; {packages}; drawn shapes from seed {options.seed}; {time.strftime('%Y-%m-%d')}. Each "
                      f"engine runs alone, in turns, with fresh "
                      "inputs in every call and the same weights; outputs, or the first three losses, agree. Peers "
                      "keep freed memory between calls (glibc without mmap and trim).", "", *rows])


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
