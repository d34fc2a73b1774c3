"""`gc.draw`, and pictures of graphs in notebooks. Graphviz lays them out, through the library that pygraphviz brings
(extra `draw`).
"""
from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from contextlib import suppress
from html import escape
from pathlib import Path

from graphc.api import TracedFunction, traced
from graphc.compiled import CompiledGraph
from graphc.compiler import Compilation
from graphc.drawing.dot import dot_text
from graphc.drawing.picture import Picture, picture_of
from graphc.dsl.arguments import converted
from graphc.dsl.context import user_loc
from graphc.dsl.debug import silent
from graphc.errors import GraphError
from graphc.extra import missing
from graphc.ir.convert import shown
from graphc.ir.graph import Graph
from graphc.ir.printer import print_graph
from graphc.ir.types import TensorType
from graphc.replacing import write_file
from graphc.specialised import SpecialisedGraph
from graphc.train import TrainStep

try:
    import pygraphviz
except ImportError:
    pygraphviz = None

FORMATS = ("svg", "png", "pdf", "dot")
STAGES = ("graph", "simplified", "fused")
# vertices; notebooks draw larger graphs with one box for each outermost layer, or as text
READABLE = 300


@converted
def draw(f: Any, path: str | os.PathLike[str] | None = None, *, stage: str | None = None, depth: int | None = None,
         training: bool = False,
         **bindings: TensorType | int) -> str:
    """Draws a graph, with clusters for layers, loops and fused kernels; returns the text for Graphviz, which a notebook
    shows as the picture, and writes `path` in the format of its suffix.

    `f`: a graph, what gc.compile or gc.train_step returned, or a network with the types of its inputs, `x=gc.f32[1,
    784]`. `path`: ending in .svg, .png or .pdf (these need pygraphviz: pip install 'graphc[draw]'), or .dot for the
    text, which needs nothing. `stage`: "graph", "simplified" or "fused"; left out, "fused" for compiled functions and
    else "graph". `depth`: layers, loops and kernels inside of so many others are one box each; 0 shows the outermost
    layers only. Dashed edges lead to the next step of a loop, or to the next run. Raises GraphError for another suffix
    or stage, and where pygraphviz is missing.
    """
    if not isinstance(path, str | os.PathLike | None):
        raise GraphError(f"draw writes a file: path is its name, got {shown(path)}", user_loc())
    suffix = Path(path).suffix.removeprefix(".") if path is not None else "dot"
    if path is not None and suffix not in FORMATS:
        raise GraphError(f"draw writes files that end in .{', .'.join(FORMATS)}; got {os.fspath(path)!r}", user_loc())
    if depth is not None and (not isinstance(depth, int) or depth < 0):
        raise GraphError(f"depth must be an int >= 0, got {depth!r}", user_loc())
    text = DotText(dot_text(_picture(f, stage, depth, training, bindings)))
    if path is not None:
        write_file(path, text if suffix == "dot" else rendered(text, suffix))
    return text


class DotText(str):
    """A text for Graphviz that a notebook shows as the picture, where there is Graphviz."""
    __slots__ = ()

    def _repr_html_(self) -> str | None:
        if pygraphviz is None:
            return None
        with suppress(Exception):       # a notebook shows what it can
            return inline(self)
        return None


def inline(dot: str) -> str:
    """The picture as a part of a page."""
    svg = rendered(dot, "svg").decode()
    return svg[svg.index("<svg"):]


def rendered(dot: str, format: str) -> bytes:
    """The picture that Graphviz makes of a text; GraphError where it is not installed."""
    if pygraphviz is None:
        raise missing(f"a picture as .{format} (.dot files do not)", "pygraphviz, which brings Graphviz", "draw",
                      loc=user_loc())
    with pygraphviz.AGraph(string=dot) as graph:
        return graph.draw(format=format, prog="dot")


def html(f: Any) -> str:
    """An inline SVG picture of a graph for a notebook; its text where there is no Graphviz or too much to see. Never
    raises.
    """
    with suppress(Exception):       # a notebook shows what it can: what fails here leaves the text
        picture = next((p for p in (_picture(f, None, depth, False, {}) for depth in (None, 1, 0))
                        if len(p.vertices) <= READABLE), None)
        if pygraphviz is not None and picture is not None:
            return inline(dot_text(picture))
    return f"<pre>{escape(_text(f))}</pre>"


def _picture(f: Any, stage: str | None, depth: int | None, training: bool,
             bindings: Mapping[str, TensorType | int]) -> Picture:
    f = silent(f)
    stage = stage or ("fused" if isinstance(f, CompiledGraph) else "graph")
    if stage not in STAGES:
        raise GraphError(f"draw shows the stages {', '.join(STAGES)}; got {stage!r}", user_loc())
    source = _traced(f, training, bindings)
    graph = source.graph
    if stage != "graph":
        if graph.dim_names:
            raise GraphError(f"the {stage} graph needs the sizes of {', '.join(sorted(graph.dim_names))}, for example "
                             f"{min(graph.dim_names)}=64", user_loc())
        graph = getattr(Compilation(graph), stage)
    return picture_of(graph, {call.path: call.kind for call in source.function.calls}, depth)


def _traced(f: Any, training: bool, bindings: Mapping[str, TensorType | int]) -> TracedFunction:
    if isinstance(f, (CompiledGraph, SpecialisedGraph, TrainStep)):
        f = f.graph
    return traced(f, training, bindings)


def _text(f: Any) -> str:
    graph = f if isinstance(f, Graph) else f.graph
    return print_graph(graph)
