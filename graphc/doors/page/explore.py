"""`gc.explore`, and the method of this name of graphs, compiled functions and training steps."""
from __future__ import annotations

import base64
import gzip
import json
import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from graphc.api import compile as compiled, traced
from graphc.compiled import CompiledGraph
from graphc.doors.page.program import page_data
from graphc.drawn_inputs import drawn
from graphc.dsl.context import user_loc
from graphc.dsl.debug import silent
from graphc.dsl.form import formed
from graphc.errors import GraphError
from graphc.ir.convert import shown
from graphc.profile import Profile
from graphc.replacing import write_file
from graphc.specialised import SpecialisedGraph
from graphc.train import TrainStep

PARTS = {"/*style*/": "page.css", "/*dagre*/": "dagre.min.js", "/*lines*/": "lines.js", "/*picture*/": "picture.js",
         "/*tables*/": "tables.js", "/*page*/": "page.js"}
OPTIONS = ("threads", "seed", "state", "store")     # of gc.compile
Compiled = CompiledGraph | SpecialisedGraph | TrainStep


@formed
def explore(f: Any, path: str | os.PathLike[str], *arrays: np.ndarray, runs: int = 3, **bindings: Any) -> None:
    """Writes one HTML file that shows a program whole: the user's source, every stage down to assembly side by side,
    where a click on a line lights up what belongs to it in all others; the graph as a picture, the arena in bytes ×
    time, the kernels with their roofline, loops and rival schedules, and what each pass changed. The file needs no
    network and no other file.

    `f`: what gc.compile or gc.train_step returned, a graph, or a network with the types of its inputs, `x=gc.f32[1,
    784]`, and what gc.compile takes besides (`seed` is 0 if neither it nor `state` is given). `path`: ends in .html.
    `arrays`: inputs with which `runs` runs are timed; left out, random ones are drawn (floats: standard normal;
    others: 0 or 1), except where a size is named: then there are no times. A step runs on a copy of its state.
    GraphError for another suffix.
    """
    if not isinstance(path, str | os.PathLike) or Path(path).suffix.lower() not in (".html", ".htm"):
        raise GraphError(f"explore writes an HTML page: path ends in .html, got {shown(path)}", user_loc())
    f = silent(f)
    run, kinds = (f, _kinds(f)) if isinstance(f, Compiled) else _compiled(f, bindings)
    write_file(path, explored(run, arrays, runs, kinds))


def _kinds(run: Compiled) -> Mapping[str, str]:
    """What the layers are, by path, where it is known."""
    return run.share.kinds if isinstance(run, TrainStep) else {}


def _compiled(f: Any, bindings: Mapping[str, Any]) -> tuple[Compiled, Mapping[str, str]]:
    """A graph or a network as native code, and what its layers are."""
    options = {name: bindings[name] for name in OPTIONS if name in bindings}
    types = {name: value for name, value in bindings.items() if name not in options}
    kinds = {c.path: c.kind for c in traced(f, False, types).function.calls}
    return silent(compiled(f, **{"seed": 0} | options, **types)), kinds


def explored(run: Compiled, arrays: Sequence[np.ndarray] = (), runs: int = 3,
             kinds: Mapping[str, str] = MappingProxyType({})) -> str:
    """The page, as text. `kinds`: what the layers are, by path."""
    data = page_data(run.compilation, run.graph, _profile(run, arrays, runs), kinds)
    packed = base64.b64encode(gzip.compress(json.dumps(data, separators=(",", ":")).encode(), 6, mtime=0)).decode()
    home = files("graphc.doors.page")
    page = (home / "page.html").read_text(encoding="utf-8")
    for mark, name in PARTS.items():
        page = page.replace(mark, (home / name).read_text(encoding="utf-8"))
    return page.replace("/*data*/", packed)


def _profile(run: Compiled, arrays: Sequence[np.ndarray], runs: int) -> Profile | None:
    """Of runs on these arrays or on drawn ones; None where their sizes are not known."""
    if not arrays:
        if run.graph.dim_names:
            return None
        rng = np.random.default_rng(0)
        arrays = [drawn(rng, v) for v in run.graph.inputs]
    return run.profile(*arrays, runs=runs)
