"""All that the page shows of a program, as data for JSON."""
from __future__ import annotations

import linecache
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from graphc import __version__
from graphc.analysis.phases import phases
from graphc.codegen.loops.loop_ir import FunctionIR
from graphc.codegen.program import LoopProgram
from graphc.codegen.scratch_layout import callees
from graphc.compiler import Compilation
from graphc.doors.page.kernels import KernelRows, kernels_of
from graphc.doors.page.lines import (
    ASSEMBLY, LLVM, LOOPS, KernelNames, SourceLines, StageText, function_text, graph_text, kernel_note)
from graphc.memory.memory_map import rectangles
from graphc.drawing.picture import Picture, PictureCluster, Vertex, picture_of
from graphc.ir.graph import Graph
from graphc.ir.printer import print_graph
from graphc.memory.plan import ProgramPlan
from graphc.passes.fuse import explain
from graphc.profile import Profile
from graphc.stages import Emitted, FusedGraphs, Lowered

VALUE = re.compile(r"%\d+")
CONTEXT = 1                         # unchanged lines around a change
LONGEST = 400                       # lines of one pass's changes

Data = dict[str, Any]


def page_data(compilation: Compilation, declared: Graph, profile: Profile | None,
              kinds: Mapping[str, str]) -> Data:
    """`declared`: the graph as the user named its sizes; `profile`: the times of a run, where there was one;
    `kinds`: what the layers are, by path."""
    source = SourceLines()
    graphs = {"graph": compilation.graph, "simplified": compilation.simplified, "fused": compilation.fused}
    for graph in graphs.values():
        source.take(graph)
    lowered, planned = compilation.stage(Lowered), compilation.stage(ProgramPlan)
    sites = (*lowered.program.sites, *lowered.program.prepare_sites)
    names = _names(lowered.program)
    parts = phases(planned.main.graph)
    schedules = dict(planned.scheduled())
    table = KernelRows(source)
    for site in sites:
        node = site.node
        table.add(site, parts.get(node, "") if node else "", schedules.get(node) if node else None)
    if profile is not None:
        table.measured(profile)
    texts = list(_texts(compilation, kernels_of(sites), source, names))
    return {
        "title": declared.heading, "version": __version__, "target": compilation.target.name,
        "memory": str(compilation.memory), "sources": _sources(source), "locs": [list(k) for k in source.numbers],
        "kernels": list(names.numbers), "stages": [_stage_data(text) for text in texts], "rows": table.as_data(),
        "profile": _profile_data(profile), "unfused": _unfused(compilation, source),
        "arena": {"nodes": [node.op.name for node in planned.main.graph.nodes],
                  "locs": [source.number(node.loc, node.scope) for node in planned.main.graph.nodes],
                  "rectangles": [asdict(r) for r in rectangles(planned.main)]},
        "pictures": {name: picture_data(picture_of(graph, kinds, phases=phases(graph)), source)
                     for name, graph in graphs.items()},
        "passes": list(_changes(compilation, source))}


def _names(program: LoopProgram) -> KernelNames:
    """The kernels, and which of them call what kernels share (micro-kernels)."""
    sites = (*program.sites, *program.prepare_sites)
    numbers = {name: i for i, name in enumerate(dict.fromkeys(site.kernel for site in sites))}
    users: dict[str, set[int]] = {}
    for function in program.kernels:
        if function.name in numbers:
            for called in _called(function):
                users.setdefault(called, set()).add(numbers[function.name])
    return KernelNames(numbers, {name: frozenset(found) for name, found in users.items()})


def _called(function: FunctionIR) -> Iterator[str]:
    """Names of the functions that a loop function calls, at any depth."""
    for callee in callees(function):
        yield callee.name
        yield from _called(callee)


def _texts(compilation: Compilation, kernels: Mapping[Any, str], source: SourceLines,
           names: KernelNames) -> Iterator[StageText]:
    yield graph_text("graph", print_graph(compilation.graph), source, names)
    yield graph_text("simplified", print_graph(compilation.simplified), source, names)
    yield graph_text("fused", compilation.stage(FusedGraphs).text(), source, names)
    planned = compilation.stage(ProgramPlan).text(lambda node: kernel_note(kernels, node))
    yield graph_text("planned", planned, source, names)
    yield function_text("loops", compilation.stage(Lowered).text(), LOOPS, names)
    emitted = compilation.stage(Emitted)
    names = names.in_code(emitted.text())
    yield function_text("llvm", emitted.text(), LLVM, names)
    yield function_text("asm", emitted.assembly(), ASSEMBLY, names)


def _stage_data(text: StageText) -> Data:
    """Lines as one string; what they belong to in runs: [lines, source lines, kernels]."""
    runs: list[list[Any]] = []
    for locs, kernels in zip(text.locs, text.kernels):
        key = [sorted(locs), sorted(kernels)]
        if runs and runs[-1][1:] == key:
            runs[-1][0] += 1
        else:
            runs.append([1, *key])
    return {"name": text.name, "text": "\n".join(text.lines), "runs": runs}


def _sources(source: SourceLines) -> list[Data]:
    """The files that lines are of, as far as they can be read. Only the name of a file is told, not its folder."""
    found: dict[str, Data] = {}
    for file, *_ in source.numbers:
        found.setdefault(file, {"file": file, "name": Path(file).name,
                                "text": "".join(linecache.getlines(file)).rstrip("\n")})
    return list(found.values())


def _profile_data(profile: Profile | None) -> Data | None:
    if profile is None:
        return None
    return {"seconds": profile.seconds, "median": profile.median_seconds, "threads": profile.threads,
            "peak": profile.peak, "bandwidth": profile.bandwidth}


def _unfused(compilation: Compilation, source: SourceLines) -> list[Data]:
    text = explain(compilation.fused, machine=compilation.target.machine)
    return [{"text": line, "locs": sorted(_locs_within(line, source))} for line in text.splitlines()]


def _locs_within(line: str, source: SourceLines) -> set[int]:
    return {n for (file, number, _), n in source.numbers.items() if f"{file}:{number})" in line}


def picture_data(picture: Picture, source: SourceLines) -> Data:
    return {"root": _item(picture.root, source), "edges": [[e.tail, e.head, e.kind] for e in picture.edges]}


def _item(item: Vertex | PictureCluster, source: SourceLines) -> Data:
    if isinstance(item, Vertex):
        number = source.number(item.loc, item.scope)
        return {"name": item.name, "kind": item.kind, "lines": list(item.lines), "tip": item.tooltip,
                "locs": [] if number is None else [number]}
    return {"name": item.name, "kind": item.kind, "label": item.label, "items": [_item(i, source) for i in item.items]}


def _changes(compilation: Compilation, source: SourceLines) -> Iterator[Data]:
    """What each pass made of the graph: an entry for each, with no lines where it changed nothing."""
    for each, before, after in compilation.steps():
        about = " ".join((each.__doc__ or "").split("\n\n")[0].split())
        lines = [] if before is after or before == after else _difference(print_graph(before).split("\n"),
                                                                          print_graph(after).split("\n"))
        yield {"name": each.name, "about": about, "before": len(before.nodes), "after": len(after.nodes),
               "lines": lines[:LONGEST], "more": max(len(lines) - LONGEST, 0)}


def _difference(before: Sequence[str], after: Sequence[str]) -> list[str]:
    """Lines that went ("-") and came ("+"), with what is around (" "); numbers of values, which shift, do not count."""
    matcher = SequenceMatcher(None, [VALUE.sub("%", line) for line in before],
                              [VALUE.sub("%", line) for line in after], autojunk=False)
    out: list[str] = []
    for group in matcher.get_grouped_opcodes(CONTEXT):
        out += ["…"] if out else []
        for kind, i, j, k, m in group:
            if kind == "equal":
                out += (" " + line for line in after[k:m])
            else:
                out += ("-" + line for line in before[i:j])
                out += ("+" + line for line in after[k:m])
    return out
