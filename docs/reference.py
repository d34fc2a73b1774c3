"""The pages of the API reference: every public name of the package, with its arguments and docstring.

Names are not listed here: a page has what its module shows in `dir`, so that a new name is in the reference by being
public. `mkdocs` writes the pages (docs/site_hooks.py, mkdocs.yml); its plugin mkdocstrings reads arguments and
docstrings from the source.
"""
from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

import graphc as gc
from graphc import callbacks, metrics, nn, optim

BASES = (gc.Array, gc.GraphFunction, gc.Generator, gc.TensorType, gc.DType, gc.GraphError, nn.Module, nn.Parameter,
         optim.Optimizer, metrics.Metric, callbacks.Callback)   # classes whose methods are called or written by users
OBJECTS = {                                     # classes of what calls give; they have no name at a module
    "graphc.compiled.CompiledGraph": "What `gc.compile` gives where every size is known.",
    "graphc.specialised.SpecialisedGraph": "What `gc.compile` gives where dimensions have names.",
    "graphc.train.TrainStep": "What `gc.train_step` gives.",
    "graphc.state.State": "`step.state`",
    "graphc.state.Model": "`step.model`, `step.averaged`",
    "graphc.hyper.Hyperparameters": "`step.hyper`",
    "graphc.fitting.history.History": "What `step.fit` gives.",
    "graphc.report.PlanReport": "What `gc.plan` gives.",
    "graphc.memory.usage.Memory": "`run.memory`",
    "graphc.profile.Profile": "What `run.profile` gives.",
    "graphc.gradient_check.GradientReport": "What `gc.check_gradients` gives.",
    "graphc.ir.graph.Graph": "`f.graph` of a function under `@gc.graph`: its nodes in the order in which they run.",
}


@dataclass(frozen=True)
class Room:
    """A page: the title, the module whose names it has, and how programs call that module."""
    title: str
    module: str
    called: str
    of_arrays: bool | None = None               # of graphc itself: functions of arrays, or all else
    text: str = ""                              # what the page begins with, if not the docstring of the module

    def names(self) -> list[str]:
        """The public names of the page."""
        return [n for n in public(self.module)
                if self.of_arrays in (None, home(self.module, n).startswith("graphc.dsl"))]


ROOMS = {
    "programs": Room("Programs", "graphc", "gc", False,
                     "From functions of arrays to native code, and from and to files."),
    "functions": Room("Functions of arrays", "graphc", "gc", True,
                      "What a function under `@gc.graph`, an objective and `forward` are written with."),
    "nn": Room("Layers and losses", "graphc.nn", "nn"),
    "optim": Room("Optimizers and schedules", "graphc.optim", "optim"),
    "metrics": Room("Metrics", "graphc.metrics", "metrics"),
    "callbacks": Room("Callbacks", "graphc.callbacks", "callbacks"),
    "models": Room("Known networks", "graphc.models", "models"),
    "sklearn": Room("Estimators for scikit-learn", "graphc.sklearn", "graphc.sklearn"),
}


def public(module: str) -> list[str]:
    """The names of a module that programs use: what `dir` shows, other modules left out."""
    names = [n for n in dir(import_module(module)) if not n.startswith("_")]
    return sorted((n for n in names if not isinstance(_value(module, n), ModuleType)), key=lambda n: (n.lower(), n))


def _value(module: str, name: str) -> object:
    """None for what needs a package that is not installed: its text is in the source all the same."""
    try:
        return getattr(import_module(module), name)
    except (gc.GraphError, ImportError):
        return None


def home(module: str, name: str) -> str:
    """The module in which a public name is written."""
    value = _value(module, name)
    place = value.__module__ if inspect.isclass(value) or inspect.isfunction(value) else type(value).__module__
    return place if place.startswith("graphc.") and name in vars(sys.modules[place]) else module


def pages() -> Iterator[tuple[str, str]]:
    """(name, Markdown) of each page of the reference."""
    for name, room in ROOMS.items():
        yield name, _page(room)
    entries = (_entry(path, path.rpartition(".")[2], what, level=2, methods=True) for path, what in OBJECTS.items())
    yield "objects", "# Objects\n\nWhat calls give, and what can be done with it.\n\n" + "\n".join(entries)


def _page(room: Room) -> str:
    parts: dict[str, list[str]] = {}
    for name in room.names():
        parts.setdefault(home(room.module, name), []).append(name)
    text = [f"# {room.title}\n\n{room.text or _doc(import_module(room.module))}\n"]
    for place in sorted(parts):
        if len(parts) > 1:
            title = "Others" if place == room.module else place.rpartition(".")[2].replace("_", " ").capitalize()
            text.append(f"## {title}\n\n{'' if place == room.module else _doc(import_module(place))}\n")
        for name in parts[place]:
            text.append(_entry(f"{room.module}.{name}", f"{room.called}.{name}", _own(room.module, name),
                               methods=_value(room.module, name) in BASES))
    return "\n".join(text)


def _doc(module: ModuleType) -> str:
    return inspect.getdoc(module) or ""


def _entry(path: str, called: str, text: str, level: int = 3, methods: bool = False) -> str:
    """What mkdocstrings replaces by arguments and docstring, and `text` below it. Layers and optimizers show how they
    are made, not what they inherit; `methods`: those too."""
    options = {"heading": called, "toc_label": called, "heading_level": level, "inherited_members": methods,
               "members": None if methods else False, "show_if_no_docstring": methods}
    return f"::: {path}\n    options: {json.dumps(options)}\n\n{text}\n"


def _own(module: str, name: str) -> str:
    """What is said of a name that is neither class nor function: source has no docstring for it. An activation of `nn`
    has the text of the function of arrays that has its name."""
    value, function = _value(module, name), vars(gc).get(name)
    if inspect.isclass(value) or inspect.isfunction(value) or not inspect.isfunction(function):
        return ""
    return f"{inspect.getdoc(function)} As a function of arrays: [gc.{name}][graphc.{name}]."
