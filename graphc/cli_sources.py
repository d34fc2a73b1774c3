"""What the command line reads: graphs from texts and Python files, arrays from .npy files. Any mistake in them is a
GraphError."""
from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np

from graphc.cli_answers import users_traceback
from graphc.dsl.function import GraphFunction
from graphc.errors import GraphError
from graphc.ir.graph import Graph, Value
from graphc.ir.parser import parse
from graphc.ir.types import TensorType, dtype_of


def load_graph(source: str) -> Graph:
    """The graph of a text file, or of `module.py:name`. GraphError when there is none, OSError when the file cannot
    be read."""
    path, colon, name = (source, "", "") if Path(source).exists() else source.rpartition(":")
    if colon and name:
        return _graph_of(path, name)
    path = path or name
    if path.endswith(".py") and Path(path).is_file():
        module = _module(path)
        raise GraphError(f"{path} is Python, which may have many graphs: say {path}:NAME; it has {_graphs(module)}")
    return parse(_text(path), path)


def load_thing(source: str) -> object:
    """What `module.py:name` is, of any kind; else as `load_graph`."""
    path, _, name = source.rpartition(":")
    if Path(source).exists() or not path.endswith(".py"):
        return load_graph(source)
    found = vars(_module(path))
    if name not in found:
        raise GraphError(f"{path} has no {name!r}")
    return found[name]


def read_array(v: Value, file: str) -> np.ndarray:
    """The array of a .npy file, for the argument `v`."""
    try:
        array = np.load(file, allow_pickle=False)
    except (OSError, MemoryError):
        raise
    except Exception as error:                      # of the many that numpy raises for what is no .npy file
        raise GraphError(f"{v.name}={file} is not a .npy file: {error}") from None
    if not isinstance(array, np.ndarray):
        raise GraphError(f"{v.name}={file} holds several arrays; save the one that is meant with numpy.save")
    given = TensorType(dtype_of(array), array.shape)
    if given != v.type:
        raise GraphError(f"{v.name}={file} is {given}, {v.name} must be {v.type}")
    return array


def _text(path: str) -> str:
    data = Path(path).read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise GraphError(f"{path} is not the text of a graph: line {line} is not UTF-8") from None


def _graph_of(path: str, name: str) -> Graph:
    module = _module(path)
    found = vars(module).get(name)
    if not isinstance(found, GraphFunction):
        other = f" ({name} is a {type(found).__name__})" if name in vars(module) else ""
        raise GraphError(f"{path} has no graph {name!r}{other}; it has {_graphs(module)}")
    return found.graph


def _module(path: str) -> ModuleType:
    """The user's file, run as Python runs it: modules beside it can be imported."""
    spec = importlib.util.spec_from_file_location(_module_name(path), path)
    if spec is None or not Path(path).is_file():
        raise GraphError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    folder = str(Path(path).resolve().parent)
    sys.modules[spec.name] = module                 # where dataclasses and pickle look for it
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except (GraphError, KeyboardInterrupt):
        raise
    except SystemExit as error:
        raise GraphError(f"{path} ends itself (exit status {error.code}) before its graphs can be taken from "
                         "it") from None
    except BaseException as error:
        raise GraphError(f"{path} does not run: "
                         f"{type(error).__name__}\n{users_traceback(error, spec.origin)}") from None
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
    return module


def _module_name(path: str) -> str:
    """The file's own name, unless a module of that name is there already."""
    stem = Path(path).stem
    return stem if stem not in sys.modules else f"{stem} at {path}"


def _graphs(module: ModuleType) -> str:
    return ", ".join(n for n, v in vars(module).items() if isinstance(v, GraphFunction)) or "none"
