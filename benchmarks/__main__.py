"""python -m benchmarks: graphc and its peers on whole networks, as Markdown table and bar chart. `python -m benchmarks
NAME`: one of the others.
"""
from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

from benchmarks import (
    attention, compiling, decoding, elementwise, examples, generation, library, loss_curves, low_precision, machine,
    matmul, ranks, rows, scaling, shards, size_kernels, sizes, small, start, sweep, table, torch_door, trees)
from benchmarks.contest import Place
from benchmarks.report import TITLES
from benchmarks.sweep_problems import named
from graphc.runtime.pool import default_threads


NETWORKS, TREES, START, SWEEP, SIZES, RANKS = "networks", "trees", "start", "sweep", "sizes", "ranks"
SHARDS, LOW, CURVES, KERNELS, DECODING = "shards", "low-precision", "loss-curves", "size-kernels", "decoding"
ONNX, TORCH = "onnx", "torch"
BENCHMARKS = {"machine": machine.main, "matmul": matmul.main, "elementwise": elementwise.main, "rows": rows.main,
              "attention": attention.main,
              "generation": generation.main, "examples": examples.main,
              "call": small.call, "import": small.import_time, "compile": small.compile_time, "scaling": scaling.main,
              "compile-networks": compiling.main, "library": library.main}
WITH_OPTIONS = {TREES: trees.main, START: start.main, SWEEP: sweep.main, SIZES: sizes.main, LOW: low_precision.main,
                CURVES: loss_curves.main, NETWORKS: table.main, KERNELS: size_kernels.main,
                DECODING: decoding.main}
# module and function: loaded at use, since ONNX Runtime is needed
ONNX_PARTS = {"suite": ("onnx_suite", "main"), "models": ("onnx_models", "main"),
              "mutations": ("onnx_damaged", "main"), "gradients": ("onnx_gradients", "main")}


def _elsewhere(text: str) -> tuple[str, Place]:
    engine, _, python = text.partition("=")
    if engine not in TITLES or not python:
        raise argparse.ArgumentTypeError(f"{text} is not ENGINE=PATH with an engine of {', '.join(TITLES)}")
    return engine, Place(engine, python=python)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = [*WITH_OPTIONS, RANKS, SHARDS, ONNX, TORCH, *sorted(BENCHMARKS)]
    parser.add_argument("name", nargs="?", choices=names, default=NETWORKS)
    parser.add_argument("old", nargs="?", help="for trees and start: the checkout or revision to compare with; "
                        f"for onnx: {', '.join(ONNX_PARTS)}; for torch: {', '.join(torch_door.PARTS)}, followed by "
                        "its own options; for ranks: the links between their machines, 1gbit or 1gbit,1ms say; for "
                        "size-kernels: sizes, B=1,T=5; for decoding: a GGUF file")
    parser.add_argument("--threads", type=int, nargs="+", default=[default_threads()])
    only = parser.add_argument_group("networks")
    only.add_argument("--workload", action="append", metavar="TEXT",
                      help="workloads whose name contains it; may be repeated")
    only.add_argument("--engine", action="append", choices=TITLES, help="may be repeated")
    only.add_argument("--python", action="append", metavar="ENGINE=PATH", type=_elsewhere, default=[],
                      help="an engine that another environment's Python runs; may be repeated")
    only.add_argument("--quick", action="store_true",
                      help="fewer turns and lengths, no drawn shapes, without torch.compile")
    only.add_argument("--minutes", type=float, default=0.0,
                      help="workloads that would start later are reported as not run")
    only.add_argument("--seed", type=int, default=0, help="of the drawn shapes")
    only.add_argument("--out", type=Path, default=Path("benchmark"), help="folder for table, chart and figures")
    only.add_argument("--log", action="store_true", help="print what the engines print")
    drawn = parser.add_argument_group("sweep")
    drawn.add_argument("--family", action="append", metavar="TEXT",
                       help="families whose name contains it; may be repeated")
    drawn.add_argument("--problems", type=int, default=25, help="of each family and mode")
    drawn.add_argument("--neighbours", action="store_true", help="each problem also with one size larger by one")
    drawn.add_argument("--compiled-share", type=float, metavar="SHARE",
                       help=f"of the problems, those that torch.compile takes part in (without --quick): "
                       f"{sweep.COMPILED_SHARE} of those that are drawn, all that are named")
    drawn.add_argument("--problem", action="append", metavar="LINE", type=named,
                       help="instead of drawn ones: as a report prints it; may be repeated")
    drawn.add_argument("--explain", action="store_true", help="print first how each problem is to be computed")
    drawn.add_argument("--resume", action="store_true", help="go on with what --out has, of the same seed")
    drawn.add_argument("--against", type=Path, help="sweep.jsonl of an earlier run")
    drawn.add_argument("--check", action="store_true",
                       help="compare small problems with PyTorch in f64 instead, on one thread and on two; no times")
    options, rest = parser.parse_known_args()
    if options.name == TORCH and options.old in torch_door.PARTS:
        # its parts have options of their own, some of the same names
        torch_door.main(options, sys.argv[sys.argv.index(options.old) + 1:])
        return
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if options.name == ONNX:
        if options.old not in ONNX_PARTS:
            parser.error("onnx takes one of: " + ", ".join(ONNX_PARTS))
        module, function = ONNX_PARTS[options.old]
        getattr(import_module(f"benchmarks.{module}"), function)(options.workload or [])
        return
    if options.name == RANKS:
        ranks.main(options.old or "")
        return
    if options.name == SHARDS:
        shards.main()
        return
    if options.name != DECODING and (options.name in (TREES, START, KERNELS)) is not bool(options.old):
        parser.error(f"{TREES} and {START} compare this checkout with another: python -m benchmarks {TREES} "
                     f"FOLDER-OR-REVISION; {KERNELS} takes sizes, B=1,T=5")
    if options.name in WITH_OPTIONS:
        WITH_OPTIONS[options.name](options)
    else:
        for threads in options.threads:
            BENCHMARKS[options.name](threads)


if __name__ == "__main__":
    main()
