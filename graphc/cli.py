"""The command line: graphc demo | run | profile | dump | opt | doctor."""
from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import numpy as np

from graphc.codegen.host import host_target
from graphc.compiler import SIMPLIFY, STAGES, Compilation, Compiled, fusion
from graphc.config import thread_text, whole_text
from graphc.doctor import report
from graphc.dsl.function import GraphFunction
from graphc.errors import GraphError, InternalError
from graphc.ir.builder import bind_graph
from graphc.ir.graph import Graph, Value
from graphc.ir.parser import parse
from graphc.ir.printer import print_graph
from graphc.ir.target import AVX2, TARGETS, Target
from graphc.passes.pipeline import Pass, apply
from graphc.profile import MOST_RUNS
from graphc.replacing import replacing
from graphc.runtime.lock import StateLock

SOURCE = "a file with the text of a graph, or module.py:name for a @gc.graph function"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0 done, 1 the user's mistake (on stderr), 2 wrong usage."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options) or 0
    except (GraphError, InternalError, OSError) as error:
        print(f"graphc: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="graphc", description="A static-graph compiler for neural networks on the CPU.")
    commands = parser.add_subparsers(required=True, metavar="demo | run | profile | dump | opt | doctor")
    demo = commands.add_parser("demo", help="train a network on handwritten digits and save pictures")
    demo.add_argument("--epochs", type=int, default=15)
    demo.add_argument("--out", type=Path, default=Path("graphc-demo"), help="folder for the picture and the graph's text")
    demo.set_defaults(command=_demo)
    run = commands.add_parser("run", help="compile a graph and run it on .npy files, or on random numbers")
    _add_source(run)
    run.add_argument("inputs", nargs="*", metavar="NAME=FILE.npy", help="inputs without a file are random")
    run.add_argument("--out", type=Path, help="folder for the outputs as .npy; without it they are printed")
    run.add_argument("--threads", default="0")
    run.set_defaults(command=_run)
    profile = commands.add_parser("profile", help="where the time of a graph goes: a table of its kernels on random numbers")
    _add_source(profile)
    profile.add_argument("inputs", nargs="*", metavar="NAME=FILE.npy", help="inputs without a file are random")
    profile.add_argument("--threads", default="0")
    profile.add_argument("--runs", default="5")
    profile.add_argument("--svg", type=Path, help="file for the roofline plot")
    profile.set_defaults(command=_profile)
    dump = commands.add_parser("dump", help="print a graph at a stage of its compilation")
    _add_source(dump)
    dump.add_argument("--stage", choices=STAGES, default="fused")
    dump.add_argument("--target", choices=sorted(TARGETS), help="compile for this CPU instead of this machine's")
    dump.set_defaults(command=_dump)
    opt = commands.add_parser("opt", help="apply passes to a graph and print it")
    _add_source(opt)
    opt.add_argument("--passes", default="", help="comma-separated; known: " + ", ".join(_passes(AVX2)))
    opt.set_defaults(command=_opt)
    doctor = commands.add_parser("doctor", help="check this installation and say what is untested here")
    doctor.set_defaults(command=lambda options: report())
    return parser


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("graph", help=SOURCE)
    parser.add_argument("--bind", action="append", default=[], metavar="NAME=SIZE", help="the size of a named dimension")


def _demo(options: argparse.Namespace) -> None:
    demo = importlib.import_module("graphc.demo")       # needs the extra `demo`, which other commands do without
    demo.main(options.epochs, options.out)


def _run(options: argparse.Namespace) -> None:
    graph = _bound(options)
    if graph.state:
        raise GraphError(f"{graph.name} has state ({graph.state[0].name}, …): run it from Python with gc.compile(…, state=…)")
    arrays = _inputs(graph, options.inputs)
    compiled = Compiled(graph, thread_text(options.threads, "--threads"))
    start = perf_counter()
    results = compiled(*arrays)
    seconds = perf_counter() - start
    outputs = results.values() if isinstance(results, dict) else results if isinstance(results, tuple) else (results,)
    names = [n or f"output{i}" for i, n in enumerate(graph.output_names or [""] * len(graph.outputs))]
    for name, array in zip(names, outputs):
        _deliver(name, array, options.out)
    print(f"{seconds * 1e6:.1f} µs; {compiled.memory}")


def _profile(options: argparse.Namespace) -> None:
    graph = _bound(options)
    arrays, rng = _inputs(graph, options.inputs), np.random.default_rng(1)
    state = [_random(rng, v) for v in graph.state]
    threads, runs = thread_text(options.threads, "--threads"), whole_text(options.runs, "--runs", 1, MOST_RUNS)
    result = Compiled(graph, threads, state, StateLock() if state else None).profile(*arrays, runs=runs)
    print(result)
    if options.svg:
        result.save(options.svg)


def _dump(options: argparse.Namespace) -> None:
    print(Compilation(_bound(options), TARGETS.get(options.target)).text(options.stage))


def _opt(options: argparse.Namespace) -> None:
    graph = _bound(options)
    passes = _passes(host_target())
    for name in filter(None, options.passes.split(",")):
        if name not in passes:
            raise GraphError(f"there is no pass {name!r}; known: {', '.join(passes)}")
        graph = apply(passes[name], graph)
    print(print_graph(graph))


def _passes(target: Target) -> dict[str, Pass]:
    return {p.name: p for p in (*SIMPLIFY, *fusion(target))}


def _bound(options: argparse.Namespace) -> Graph:
    graph = load_graph(options.graph)
    sizes = dict(_pair(text, "--bind NAME=SIZE") for text in options.bind)
    unknown = sizes.keys() - graph.dim_names
    if unknown:
        raise GraphError(f"{graph.name} has no named dimension {min(unknown)!r}; its names: {', '.join(sorted(graph.dim_names)) or 'none'}")
    return bind_graph(graph, {name: _whole(size, "--bind") for name, size in sizes.items()})


def load_graph(source: str) -> Graph:
    """The graph of a text file, or of `module.py:name`. GraphError when there is none."""
    path, _, name = source.partition(":")
    if not name:
        return parse(Path(path).read_text(), path)
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or not Path(path).is_file():
        raise GraphError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = getattr(module, name, None)
    if not isinstance(found, GraphFunction):
        graphs = [n for n, v in vars(module).items() if isinstance(v, GraphFunction)]
        raise GraphError(f"{path} has no graph {name!r}; it has {', '.join(graphs) or 'none'}")
    return found.graph


def _inputs(graph: Graph, given: Sequence[str]) -> list[np.ndarray]:
    if graph.dim_names:
        raise GraphError(f"give the sizes of {', '.join(sorted(graph.dim_names))}: --bind {min(graph.dim_names)}=64")
    files = dict(_pair(text, "NAME=FILE.npy") for text in given)
    unknown = files.keys() - {v.name for v in graph.inputs}
    if unknown:
        raise GraphError(f"{graph.name} has no input {min(unknown)!r}; its inputs: {', '.join(v.name for v in graph.inputs)}")
    rng = np.random.default_rng(0)
    return [np.load(files[v.name]) if v.name in files else _random(rng, v) for v in graph.inputs]


def _random(rng: np.random.Generator, v: Value) -> np.ndarray:
    """Standard normal floats; zeros and ones for other types, so that they can be indices."""
    draw = rng.standard_normal(v.type.shape) if v.type.dtype.is_float else rng.integers(0, 2, v.type.shape)
    return draw.astype(v.type.dtype.np)


def _deliver(name: str, array: np.ndarray, folder: Path | None) -> None:
    if folder is None:
        print(f"{name} {array.dtype}{list(array.shape)}\n{array}")
        return
    if "/" in name:
        raise GraphError(f"the output {name!r} cannot be saved: its name would lead out of {folder}; give it another")
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / f"{name}.npy") as file:
        np.save(file, array)


def _pair(text: str, form: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise GraphError(f"{text!r} is not of the form {form}")
    return name, value


def _whole(text: str, what: str) -> int:
    if not text.isdigit():
        raise GraphError(f"{what} takes a whole number, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
