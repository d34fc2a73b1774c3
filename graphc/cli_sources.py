"""What the command line reads: graphs from texts and Python files, arrays from .npy files. Any mistake in them is a
GraphError."""
from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType

import numpy as np

import graphc as gc
from graphc.api import traced
from graphc.cli_answers import users_traceback
from graphc.compiled import CompiledGraph
from graphc.dsl.function import GraphFunction
from graphc.errors import GraphError
from graphc.ir.graph import Graph, Value
from graphc.ir.parser import parse
from graphc.ir.types import BY_NAME, TensorType, dtype_of
from graphc.nn.module import Module, argument_names
from graphc.nn.network import entries, trace_network
from graphc.records import dataclass
from graphc.specialised import SpecialisedGraph
from graphc.train import TrainStep

Program = Graph | GraphFunction | CompiledGraph | SpecialisedGraph | TrainStep
TYPE = re.compile(r"(\w+)\[(.*)\]\Z")
ONNX = ".onnx"


@dataclass(frozen=True)
class GivenGraph:
    """A graph, and the values that its state has where it comes from (None: it says nothing of them)."""
    graph: Graph
    state: tuple[np.ndarray, ...] | None = None


def load_source(source: str, types: Mapping[str, str] = MappingProxyType({})) -> GivenGraph:
    """The graph of what `load_program` gives. An ONNX model brings the values of its state."""
    program = load_program(source, types)
    if source.endswith(ONNX) and isinstance(program, GraphFunction):
        return GivenGraph(program.graph, tuple(e.initial(0) for e in entries(program)))
    return GivenGraph(program if isinstance(program, Graph) else program.graph)


def sizes_of(graph: Graph, files: Mapping[str, str]) -> dict[str, int]:
    """The sizes of named dimensions that the arrays of these files have, by the names of inputs."""
    sizes: dict[str, int] = {}
    for v in graph.inputs:
        if v.name in files and not v.type.is_static:
            shape = _array(v, files[v.name]).shape
            if len(shape) != v.type.rank:
                raise GraphError(f"{v.name}={files[v.name]} has the shape {list(shape)}, {v.name} must be {v.type}")
            sizes |= {str(d): size for d, size in zip(v.type.shape, shape) if str(d) in graph.dim_names}
    return sizes


def load_program(source: str, types: Mapping[str, str] = MappingProxyType({})) -> Program:
    """The graph of a text file, the network of an ONNX model (`.onnx`), or what `module.py:name` is: a graph function,
    a training step, what gc.compile returned, or a network, whose inputs have these types (`f32[1, 784]`). GraphError
    when there is none, OSError when the file cannot be read."""
    if source.endswith(ONNX):
        if types:
            raise GraphError(f"--type is for networks of module.py:name; {source} has types of its own")
        net = gc.from_onnx(source)
        return trace_network(net, False, **net.declared_inputs())
    path, colon, name = (source, "", "") if Path(source).exists() else source.rpartition(":")
    if colon and name:
        return _program_of(path, name, types)
    if types:
        raise GraphError(f"--type is for networks, of module.py:name; {source} has types of its own")
    path = path or name
    if path.endswith(".py") and Path(path).is_file():
        module = _module(path)
        raise GraphError(f"{path} is Python, which may have many graphs: say {path}:NAME; it has {_graphs(module)}")
    return parse(_text(path), path)


def load_thing(source: str) -> object:
    """What `module.py:name` is, of any kind; else as `load_program`."""
    path, _, name = source.rpartition(":")
    if Path(source).exists() or not path.endswith(".py"):
        return load_program(source)
    found = vars(_module(path))
    if name not in found:
        raise GraphError(f"{path} has no {name!r}")
    return found[name]


def read_array(v: Value, file: str) -> np.ndarray:
    """The array of a .npy file, for the argument `v`."""
    array = _array(v, file)
    given = TensorType(dtype_of(array), array.shape)
    if given != v.type:
        raise GraphError(f"{v.name}={file} is {given}, {v.name} must be {v.type}")
    return array


def _array(v: Value, file: str) -> np.ndarray:
    try:
        array = np.load(file, allow_pickle=False)
    except (OSError, MemoryError):
        raise
    except Exception as error:                      # of the many that numpy raises for what is no .npy file
        raise GraphError(f"{v.name}={file} is not a .npy file: {error}") from None
    if not isinstance(array, np.ndarray):
        raise GraphError(f"{v.name}={file} holds several arrays; save the one that is meant with numpy.save")
    return array


def _text(path: str) -> str:
    data = Path(path).read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise GraphError(f"{path} is not the text of a graph: line {line} is not UTF-8") from None


def _program_of(path: str, name: str, types: Mapping[str, str]) -> Program:
    module = _module(path)
    found = vars(module).get(name)
    if isinstance(found, Module):
        if not types:
            raise GraphError(f"{name} in {path} is a network: say what its inputs are, for example --type "
                             f"{next(iter(argument_names(found.forward)), 'x')}='f32[1, 784]'")
        return traced(found, False, {name: as_type(text) for name, text in types.items()}).function
    if not isinstance(found, GraphFunction | CompiledGraph | SpecialisedGraph | TrainStep):
        other = f" ({name} is a {type(found).__name__})" if name in vars(module) else ""
        raise GraphError(f"{path} has no graph {name!r}{other}; it has {_graphs(module)}")
    if types:
        raise GraphError(f"--type is for networks; {name} in {path} has types of its own")
    return found


def as_type(text: str) -> TensorType:
    """f32[B, 784] as the graph's text has it."""
    found = TYPE.match(text)
    if found is None or found[1] not in BY_NAME:
        raise GraphError(f"{text!r} is no type: write, for example, f32[1, 784], with one of {', '.join(BY_NAME)}")
    sizes = [size.strip().strip("\"'") for size in found[2].split(",")] if found[2].strip() not in ("", "()") else []
    if not all(re.fullmatch(r"\d{1,18}|[A-Za-z_]\w*", size) for size in sizes):
        raise GraphError(f"{text!r} is no type: its sizes are numbers or names, as in f32[B, 784]")
    return BY_NAME[found[1]][tuple(int(size) if size.isdigit() else size for size in sizes)]


def _module(path: str) -> ModuleType:
    """The user's file, run as Python runs it: modules beside it can be imported."""
    spec = importlib.util.spec_from_file_location(_module_name(path), path)
    if spec is None or spec.loader is None or not Path(path).is_file():
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
                         f"{type(error).__name__}\n{users_traceback(error, spec.origin or path)}") from None
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
    return module


def _module_name(path: str) -> str:
    """The file's own name, unless a module of that name is there already."""
    stem = Path(path).stem
    return stem if stem not in sys.modules else f"{stem} at {path}"


def _graphs(module: ModuleType) -> str:
    kinds = GraphFunction | CompiledGraph | SpecialisedGraph | TrainStep | Module
    return ", ".join(n for n, v in vars(module).items() if isinstance(v, kinds)) or "none"
