"""The command line: graphc demo | run | profile | plan | dump | draw | explain | explore | opt | export | to-onnx |
chat | doctor."""
from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import graphc as gc
from graphc import __version__
from graphc.api import plan as plan_of
from graphc.cli_answers import answered
from graphc.cli_sources import GivenGraph, as_type, load_program, load_source, load_thing, read_array, sizes_of
from graphc.codegen.llvm.host import host_target
from graphc.compiled import CompiledGraph
from graphc.compiler import STAGES, Compilation, fusion
from graphc.config import thread_text, whole_text
from graphc.doctor import report
from graphc.drawn_inputs import drawn
from graphc.dsl.function import GraphFunction
from graphc.errors import GraphError, InternalError, Unsized
from graphc.ir.builder import bind_graph
from graphc.ir.graph import Graph
from graphc.ir.printer import print_graph
from graphc.ir.verify import check_compilable
from graphc.passes.pipeline import Pass, apply
from graphc.profile import MOST_RUNS
from graphc.replacing import replacing
from graphc.runtime.lock import StateLock
from graphc.schedule.platforms import PLATFORMS
from graphc.schedule.platforms import EVERY_TARGET
from graphc.schedule.target import AVX2, Target
from graphc.simplification import simplification
from graphc.sized import text_for_all_sizes
from graphc.train import TrainStep

DIGITS = 18                         # of a number on the command line: it fits into 64 bits
COMMANDS = "demo | run | profile | plan | dump | draw | explain | explore | opt | export | to-onnx | chat | doctor"
SOURCE = ("a file with the text of a graph, an ONNX model (.onnx), or module.py:name for a @gc.graph function, a "
          "training step or a network")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0 done, 1 something given is wrong (said on stderr), 130
    interrupted, 141 nobody reads the output. SystemExit with 2 for wrong usage, with 0 after --help and --version."""
    def command() -> int | None:
        options = _parser().parse_args(arguments)
        return options.command(options)
    return answered(command)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="graphc",
                                     description="A static-graph compiler for neural networks on the CPU.")
    parser.add_argument("--version", action="version", version=f"graphc {__version__}")
    commands = parser.add_subparsers(required=True, metavar=COMMANDS)
    demo = commands.add_parser("demo", help="train a network on handwritten digits and save pictures")
    demo.add_argument("--epochs", type=_positive, default=15)
    demo.add_argument("--out", type=Path, default=Path("graphc-demo"), help="folder for the picture and the text")
    demo.set_defaults(command=_demo)
    run = commands.add_parser("run", help="compile a graph and run it on .npy files, or on random numbers")
    _add_source(run)
    run.add_argument("inputs", nargs="*", metavar="NAME=FILE.npy", help="inputs without a file are random")
    run.add_argument("--out", type=Path, help="folder for the outputs as .npy; without it they are printed")
    run.add_argument("--threads", default="0")
    run.set_defaults(command=_run)
    profile = commands.add_parser("profile",
                                  help="where the time of a graph goes: a table of its kernels on random numbers")
    _add_source(profile)
    profile.add_argument("inputs", nargs="*", metavar="NAME=FILE.npy", help="inputs without a file are random")
    profile.add_argument("--threads", default="0")
    profile.add_argument("--runs", default="5")
    profile.add_argument("--svg", type=Path, help="file for the roofline plot")
    profile.set_defaults(command=_profile)
    _add_plan(commands.add_parser("plan", help="layers, parameters, arithmetic and memory, without running anything"))
    _add_draw(commands.add_parser("draw", help="a picture of a graph (.svg, .png and .pdf: extra draw; .dot)"))
    dump = commands.add_parser("dump", help="print a graph at a stage of its compilation")
    _add_source(dump)
    dump.add_argument("--stage", choices=STAGES, default="fused")
    dump.add_argument("--target", choices=sorted(EVERY_TARGET), help="compile for this CPU instead of ours")
    dump.set_defaults(command=_dump)
    explain = commands.add_parser("explain",
                                  help="why neighbours are not fused, and among which schedules each kernel's was "
                                       "chosen")
    _add_source(explain)
    explain.add_argument("--target", choices=sorted(EVERY_TARGET), help="compile for this CPU instead of ours")
    explain.set_defaults(command=_explain)
    _add_explore(commands.add_parser("explore",
                                     help="one HTML page that shows a program whole, from the source to assembly"))
    opt = commands.add_parser("opt", help="apply passes to a graph and print it")
    _add_source(opt)
    opt.add_argument("--passes", default="", help="comma-separated; known: " + ", ".join(_passes(AVX2)))
    opt.set_defaults(command=_opt)
    _add_export(commands.add_parser("export", help="write a C library of a graph or a training step"))
    _add_to_onnx(commands.add_parser("to-onnx", help="write a graph, network or training step as an ONNX file"))
    _add_chat(commands.add_parser("chat", help="talk to a language model in a GGUF file (extra: llm)"))
    doctor = commands.add_parser("doctor", help="check this installation and say what is untested here")
    doctor.set_defaults(command=lambda options: report())
    return parser


def _add_explore(explore: argparse.ArgumentParser) -> None:
    _add_source(explore)
    explore.add_argument("-o", "--out", type=Path, default=Path("explore.html"), help="the page's file")
    explore.set_defaults(command=_explore)


def _add_plan(plan: argparse.ArgumentParser) -> None:
    _add_source(plan)
    plan.add_argument("--memory", help='what a call may take in all, such as "300 MB": the rest is computed again')
    plan.set_defaults(command=_plan)


def _add_draw(draw: argparse.ArgumentParser) -> None:
    _add_source(draw)
    draw.add_argument("-o", "--out", type=Path, default=Path("graph.svg"), help="the picture's file")
    draw.add_argument("--stage", choices=("graph", "simplified", "fused"), default="graph")
    draw.add_argument("--depth", type=int, help="layers inside of so many others are one box each; 0: the outermost")
    draw.set_defaults(command=_draw)


def _add_export(library: argparse.ArgumentParser) -> None:
    library.add_argument("source", help="module.py:name of what gc.export takes, or a file with the text of a graph")
    library.add_argument("folder", type=Path)
    library.add_argument("--name", default="net", help="what the names in C begin with")
    library.add_argument("--target", action="append", default=[], help="a system, such as " + next(iter(PLATFORMS)))
    library.add_argument("--weights", choices=("embed", "file"), default="embed")
    library.add_argument("--no-threads", action="store_true", help="without a thread pool")
    library.set_defaults(command=_export)


def _add_to_onnx(writing: argparse.ArgumentParser) -> None:
    writing.add_argument("source", help="module.py:name of what gc.to_onnx takes, or a file with the text of a graph")
    writing.add_argument("file", type=Path, help="for example net.onnx")
    writing.add_argument("--type", action="append", default=[], metavar="NAME=TYPE",
                         help="what an input of a network is, for example x='f32[B, 784]'")
    writing.add_argument("--state", type=Path, help="a network's parameters: a file of safetensors")
    writing.add_argument("--seed", type=_natural, help="the same, drawn: from this number")
    writing.add_argument("--opset", type=_positive, help="the version of ONNX's operators")
    writing.set_defaults(command=_to_onnx)


def _add_chat(chat: argparse.ArgumentParser) -> None:
    chat.add_argument("model", type=Path, help="a GGUF file")
    chat.add_argument("--prompt", help="one question; without it the lines of the terminal, or of stdin")
    chat.add_argument("--system", help="what the model is told first")
    chat.add_argument("--tokens", type=_positive, default=512, help="of an answer, at most")
    chat.add_argument("--temperature", type=float, default=0.0, help="0, the default: the likeliest token each time")
    chat.add_argument("--top-p", type=float, help="draw from the fewest tokens that have this probability together")
    chat.add_argument("--seed", type=int, default=0)
    chat.add_argument("--store", choices=("f32", "bf16", "f16"), help="make all matrices numbers of this type")
    chat.set_defaults(command=_chat)


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("graph", help=SOURCE)
    parser.add_argument("--bind", action="append", default=[], metavar="NAME=SIZE",
                        help="the size of a named dimension")
    parser.add_argument("--type", action="append", default=[], metavar="NAME=TYPE",
                        help="what an input of a network is, for example x='f32[1, 784]'")


def _demo(options: argparse.Namespace) -> None:
    demo = importlib.import_module("graphc.demo")       # needs the extra `demo`, which other commands do without
    options.out.mkdir(parents=True, exist_ok=True)      # before the training, after which it would be a pity
    demo.main(options.epochs, options.out)


def _chat(options: argparse.Namespace) -> None:
    importlib.import_module("graphc.doors.gguf.chat").chat(options)     # with layers, which other commands do without


def _run(options: argparse.Namespace) -> None:
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
    source = _bound(options, options.inputs)
    graph = source.graph
    if graph.state and source.state is None:
        raise GraphError(f"{graph.name} has state ({graph.state[0].name}, …): run it from Python with gc.compile(…, "
                         "state=…)")
    arrays = _inputs(graph, options.inputs)
    compiled = CompiledGraph(graph, thread_text(options.threads, "--threads"), *_state(source))
    start = perf_counter()
    results = compiled(*arrays)
    seconds = perf_counter() - start
    outputs = results.values() if isinstance(results, dict) else results if isinstance(results, tuple) else (results,)
    names = [n or f"output{i}" for i, n in enumerate(graph.output_names or [""] * len(graph.outputs))]
    for name, array in zip(names, outputs):
        _deliver(name, array, options.out)
    print(f"{seconds * 1e6:.1f} µs; {compiled.memory}")


def _profile(options: argparse.Namespace) -> None:
    if options.svg and (options.svg.is_dir() or not options.svg.parent.is_dir()):
        wrong = "that is a folder" if options.svg.is_dir() else f"there is no folder {options.svg.parent}"
        raise GraphError(f"--svg {options.svg}: {wrong}")
    source = _bound(options, options.inputs)
    graph, rng = source.graph, np.random.default_rng(1)
    arrays = _inputs(graph, options.inputs)
    if source.state is None:
        source = replace(source, state=tuple(drawn(rng, v) for v in graph.state))
    threads, runs = thread_text(options.threads, "--threads"), whole_text(options.runs, "--runs", 1, MOST_RUNS)
    result = CompiledGraph(graph, threads, *_state(source)).profile(*arrays, runs=runs)
    print(result)
    if options.svg:
        result.save(options.svg)


def _dump(options: argparse.Namespace) -> None:
    graph, target = _bound(options).graph, EVERY_TARGET.get(options.target)
    if options.stage != "graph":
        if graph.dim_names:
            with suppress(Unsized):
                return print(text_for_all_sizes(graph, options.stage, target))
        _check_sizes(graph)
    print(Compilation(graph, target).text(options.stage))


def _plan(options: argparse.Namespace) -> None:
    sizes: dict[str, Any] = {**_sizes(options)}
    print(plan_of(_function(options), memory=options.memory, **sizes))


def _draw(options: argparse.Namespace) -> None:
    draw = importlib.import_module("graphc.drawing.draw").draw        # with Graphviz, which other commands do without
    draw(_function(options), options.out, stage=options.stage, depth=options.depth, **_sizes(options))
    print(options.out)


def _function(options: argparse.Namespace) -> Graph | GraphFunction:
    """What is planned or drawn, with what is known of its layers."""
    program = load_program(options.graph, _pairs(options.type, "--type NAME=TYPE"))
    if isinstance(program, TrainStep):
        return program.traced
    return program if isinstance(program, Graph | GraphFunction) else program.graph


def _sizes(options: argparse.Namespace) -> dict[str, int]:
    return {name: _whole(size, "--bind") for name, size in _pairs(options.bind, "--bind NAME=SIZE").items()}


def _explain(options: argparse.Namespace) -> None:
    graph = _bound(options).graph
    _check_sizes(graph)
    print(Compilation(graph, EVERY_TARGET.get(options.target)).explain())


def _explore(options: argparse.Namespace) -> None:
    program = load_program(options.graph, _pairs(options.type, "--type NAME=TYPE"))
    sizes = _sizes(options)
    if sizes and not isinstance(program, Graph | GraphFunction):
        raise GraphError(f"--bind is for graphs and networks; {options.graph} is compiled already")
    explore = importlib.import_module("graphc.doors.page").explore     # which other commands do without
    explore(program, options.out, **sizes)
    print(options.out)


def _opt(options: argparse.Namespace) -> None:
    graph = _bound(options).graph
    passes = _passes(host_target())
    for name in filter(None, options.passes.split(",")):
        if name not in passes:
            raise GraphError(f"there is no pass {name!r}; known: {', '.join(passes)}")
        graph = _after(passes[name], graph)
    print(print_graph(graph))


def _export(options: argparse.Namespace) -> None:
    door = importlib.import_module("graphc.doors.library.export")       # other commands do without its routines
    made = door.export(load_thing(options.source), options.folder, name=options.name, weights=options.weights,
                       targets=options.target or next(iter(PLATFORMS)), threads=not options.no_threads)
    print(made)


def _to_onnx(options: argparse.Namespace) -> None:
    given: dict[str, Any] = {name: as_type(text) for name, text in _pairs(options.type, "--type NAME=TYPE").items()}
    if options.opset is not None:
        given["opset"] = options.opset
    thing: Any = load_thing(options.source)
    gc.to_onnx(thing, options.file, state=options.state, seed=options.seed, **given)
    print(options.file)


def _after(each: Pass, graph: Graph) -> Graph:
    """The graph after the pass. The order is the user's here, so that what a pass fails on is what it was given."""
    try:
        return apply(each, graph)
    except GraphError:
        raise
    except Exception as error:
        why = error.text if isinstance(error, InternalError) else f"{type(error).__name__}: {error}"
        text = f"the pass {each.name} cannot take this graph ({why}); it says of itself:\n{each.__doc__}"
        raise GraphError(text) from error


def _passes(target: Target) -> dict[str, Pass]:
    return {p.name: p for p in (*simplification(target), *fusion(target))}


def _state(source: GivenGraph) -> tuple[Any, ...]:
    """The arguments of CompiledGraph for the state."""
    return (list(source.state), StateLock()) if source.state else ()


def _bound(options: argparse.Namespace, files: Sequence[str] = ()) -> GivenGraph:
    """The source with its sizes: those given, and of those left out what the arrays of the files have."""
    source = load_source(options.graph, _pairs(options.type, "--type NAME=TYPE"))
    graph = source.graph
    sizes = _pairs(options.bind, "--bind NAME=SIZE")
    unknown = sizes.keys() - graph.dim_names
    if unknown:
        raise GraphError(f"{graph.name} has no named dimension {min(unknown)!r}; its names: "
                         f"{', '.join(sorted(graph.dim_names)) or 'none'}")
    given = {name: _whole(size, "--bind") for name, size in sizes.items()}
    given = sizes_of(bind_graph(graph, given), _pairs(files, "NAME=FILE.npy")) | given
    return replace(source, graph=bind_graph(graph, given))


def _inputs(graph: Graph, given: Sequence[str]) -> list[np.ndarray]:
    _check_sizes(graph)
    files = _pairs(given, "NAME=FILE.npy")
    unknown = files.keys() - {v.name for v in graph.inputs}
    if unknown:
        raise GraphError(f"{graph.name} has no input {min(unknown)!r}; its inputs: "
                         f"{', '.join(v.name for v in graph.inputs)}")
    rng = np.random.default_rng(0)
    return [read_array(v, files[v.name]) if v.name in files else drawn(rng, v) for v in graph.inputs]


def _check_sizes(graph: Graph) -> None:
    """GraphError where a size is left open or cannot be."""
    if graph.dim_names:
        raise GraphError(f"give the sizes of {', '.join(sorted(graph.dim_names))}: --bind {min(graph.dim_names)}=64")
    check_compilable(graph)


def _deliver(name: str, array: np.ndarray, folder: Path | None) -> None:
    if folder is None:
        print(f"{name} {array.dtype}{list(array.shape)}\n{array}")
        return
    if "/" in name:
        raise GraphError(f"the output {name!r} cannot be saved: its name would lead out of {folder}; give it another")
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / f"{name}.npy") as file:
        np.save(file, array)


def _pairs(texts: Sequence[str], form: str) -> dict[str, str]:
    """What NAME=VALUE says of each name; one that is said twice is a mistake."""
    values: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise GraphError(f"{text!r} is not of the form {form}")
        if name in values:
            raise GraphError(f"{form.split()[0]}: {name} is given twice, as {values[name]} and as {value}")
        values[name] = value
    return values


def _whole(text: str, what: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > DIGITS:
        raise GraphError(f"{what} takes a whole number, got {text!r}")
    return int(text)


def _natural(text: str) -> int:
    """For argparse, which names the option."""
    try:
        return _whole(text, "it")
    except GraphError as error:
        raise argparse.ArgumentTypeError(error.text) from None


def _positive(text: str) -> int:
    number = _natural(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"it takes a number from 1 on, got {number}")
    return number


if __name__ == "__main__":
    sys.exit(main())
