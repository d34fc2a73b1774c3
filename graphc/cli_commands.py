"""What the commands of the command line do."""
from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import graphc as gc
from graphc.api import plan as plan_of
from graphc.cli_answers import whole_number
from graphc.cli_sources import GivenGraph, as_type, load_program, load_source, load_thing, read_array, sizes_of
from graphc.codegen.llvm.host import host_target
from graphc.compiled import CompiledGraph
from graphc.compiler import Compilation
from graphc.pipeline import fusion
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


def demo(options: argparse.Namespace) -> None:
    demo = importlib.import_module("graphc.demo")       # needs the extra `demo`, which other commands do without
    options.out.mkdir(parents=True, exist_ok=True)      # before the training, after which it would be a pity
    demo.main(options.epochs, options.out)


def run(options: argparse.Namespace) -> None:
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


def profile(options: argparse.Namespace) -> None:
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


def dump(options: argparse.Namespace) -> None:
    graph, target = _bound(options).graph, EVERY_TARGET.get(options.target)
    if options.stage != "graph":
        if graph.dim_names:
            with suppress(Unsized):
                return print(text_for_all_sizes(graph, options.stage, target))
        _check_sizes(graph)
    print(Compilation(graph, target).text(options.stage))


def plan(options: argparse.Namespace) -> None:
    sizes: dict[str, Any] = {**_sizes(options)}
    print(plan_of(_function(options), memory=options.memory, **sizes))


def draw(options: argparse.Namespace) -> None:
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
    return {name: whole_number(size, "--bind") for name, size in _pairs(options.bind, "--bind NAME=SIZE").items()}


def explain(options: argparse.Namespace) -> None:
    graph = _bound(options).graph
    _check_sizes(graph)
    print(Compilation(graph, EVERY_TARGET.get(options.target)).explain())


def explore(options: argparse.Namespace) -> None:
    program = load_program(options.graph, _pairs(options.type, "--type NAME=TYPE"))
    sizes = _sizes(options)
    if sizes and not isinstance(program, Graph | GraphFunction):
        raise GraphError(f"--bind is for graphs and networks; {options.graph} is compiled already")
    explore = importlib.import_module("graphc.doors.page").explore     # which other commands do without
    explore(program, options.out, **sizes)
    print(options.out)


def opt(options: argparse.Namespace) -> None:
    graph = _bound(options).graph
    passes = _passes(host_target())
    for name in filter(None, options.passes.split(",")):
        if name not in passes:
            raise GraphError(f"there is no pass {name!r}; known: {', '.join(passes)}")
        graph = _after(passes[name], graph)
    print(print_graph(graph))


def export(options: argparse.Namespace) -> None:
    door = importlib.import_module("graphc.doors.library.export")       # other commands do without its routines
    made = door.export(load_thing(options.source), options.folder, name=options.name, weights=options.weights,
                       targets=options.target or next(iter(PLATFORMS)), threads=not options.no_threads)
    print(made)


def to_onnx(options: argparse.Namespace) -> None:
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
    given = {name: whole_number(size, "--bind") for name, size in sizes.items()}
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


def known_passes() -> str:
    """Their names, for the help."""
    return ", ".join(_passes(AVX2))


def doctor(options: argparse.Namespace) -> int:
    return report()
