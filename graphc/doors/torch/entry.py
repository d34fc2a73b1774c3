"""`gc.from_torch`."""
from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from graphc.dsl.context import error_loc, user_loc
from graphc.errors import GraphError
from graphc.extra import missing
from graphc.ir.convert import shown
from graphc.nn.module import Module

try:
    import torch
    from torch.utils._pytree import tree_map
except ImportError as absent:
    raise missing("This", "PyTorch 2.6 or later", "torch", absent) from None

from graphc.doors.torch.network import TorchNetwork
from graphc.doors.torch.own_gradients import own_gradients
from graphc.doors.torch.program import TorchProgram
from graphc.doors.torch.recurrent import WholeLayers
from graphc.doors.torch.read import Readable, program_of, readable
from graphc.doors.torch.reading import check_memory, watched

Dynamic = Mapping[str, Any] | Sequence[Any]
Axes = Mapping[str, Mapping[int, Any]]      # of arguments the axes that may have any size: its name, or torch's Dim


def from_torch(module: torch.nn.Module | torch.export.ExportedProgram, *example_args: Any,
               dynamic: Dynamic | None = None, **example_kwargs: Any) -> Module:
    """A PyTorch module, or a program that torch.export made, as a network: `gc.compile(net)`, `gc.train_step(net,
    loss=…, optimizer=…, y=…)`, `gc.plan`, `>>`.

    The module is read with torch.export on the example arguments (tensors, numpy arrays, or what the module takes
    beside arrays, which stays as given). Their sizes are those of the network; `dynamic={"x": {0: "B", 1: "T"}}` names
    the axes of arguments that may have any size (a torch.export.Dim is a name, too; a sequence names arguments by their
    order). Parameters and buffers keep their names of `state_dict` and start
    with the values that the module has when the network is compiled; `step.to_torch(module)` writes them back. What
    buffers a forward pass changes (running statistics) are state. A training step runs the module as in
    `module.train()`, or as it is if it is in training mode already; `gc.compile` as in `module.eval()`, or as it is if
    it is not. An ExportedProgram has the one mode in which it was exported.

    Results: an array, a tuple, or a dict by the names of the module's own result. Random numbers (dropout) are drawn by
    graphc, so that masks differ from PyTorch's.

    Raises GraphError with everything that graphc cannot take, each with the line of the module; ImportError without
    PyTorch.
    """
    if isinstance(module, torch.export.ExportedProgram):
        if example_args or example_kwargs or dynamic:
            raise GraphError("an ExportedProgram has its arguments already: give the program alone", user_loc())
        read = Fixed(module)
        net = TorchNetwork(read)
    elif isinstance(module, torch.nn.Module):
        source = ModuleReader(module, example_args, example_kwargs, dynamic or {})
        net = TorchNetwork(source, module.training)
    else:
        raise GraphError(f"from_torch takes a torch.nn.Module or an ExportedProgram, got {type(module).__name__}",
                         user_loc())
    net.check()
    return net


class Fixed:
    """An exported program, which is the same in both modes."""

    def __init__(self, exported: torch.export.ExportedProgram):
        self.program = program_of(readable(exported), "program", _symbols(exported, {}))

    def __call__(self, training: bool) -> TorchProgram:
        return self.program


class ModuleReader:
    """A module with example arguments, read in the mode that is asked for, once each."""

    def __init__(self, module: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], dynamic: Dynamic):
        self.module = module
        with torch.inference_mode(False):
            seen: set[int] = set()
            self.args, self.kwargs = tree_map(lambda value: _tensor(value, seen), (tuple(args), dict(kwargs)))
        self.axes = _named_axes(dynamic, self._given()) if dynamic else {}
        self.known: dict[bool, TorchProgram] = {}

    def __call__(self, training: bool) -> TorchProgram:
        if training not in self.known:
            # torch.export reads no ordinary tensors in torch.inference_mode
            with torch.inference_mode(False), in_mode(self.module, training), warnings.catch_warnings():
                warnings.simplefilter("ignore")             # of PyTorch about itself
                with own_gradients(self.module) as refused, watched(self.module) as changed:
                    exported, read = self._read()
                check_memory(self.module, self.args, self.kwargs, changed)
                self.known[training] = program_of(read, type(self.module).__name__,
                                                  _symbols(exported, self.axes), self.module, refused)
        return self.known[training]

    def __deepcopy__(self, memo: dict[int, Any]) -> ModuleReader:
        """Copies of a network read the same module."""
        return self

    def _read(self) -> tuple[torch.export.ExportedProgram, Readable]:
        try:
            return self._exported(torch.export.Dim)
        except GraphError:
            raise
        except Exception as error:
            if any(isinstance(size, str) for axes in self.axes.values() for size in axes.values()):
                with suppress(Exception):
                    exported, read = self._exported(lambda _: torch.export.Dim.DYNAMIC)
                    if hasattr(exported, "_guards_code"):
                        return exported, read
            raise GraphError(f"torch.export cannot read {type(self.module).__name__}: {error}",
                             error_loc(error.__traceback__) or user_loc()) from error

    def _exported(self, dim: Callable[[str], Any]) -> tuple[torch.export.ExportedProgram, Readable]:
        """`dim`: what torch.export is told of an axis, by its name. A dynamic one may have guards, a Dim may not."""
        dims: dict[str, Any] = {}
        shapes = {name: {axis: dims.setdefault(size, dim(size)) if isinstance(size, str) else size
                         for axis, size in self.axes[name].items()} if name in self.axes
                  else _unnamed(value) for name, value in self._given().items()}
        with WholeLayers():                                 # torch.export wants an entry for each argument
            exported = torch.export.export(self.module, self.args, self.kwargs,
                                           dynamic_shapes=shapes if self.axes else None, strict=False)
        return exported, readable(exported)

    def _given(self) -> dict[str, Any]:
        """The example arguments by their names."""
        try:
            return inspect.signature(self.module.forward).bind(*self.args, **self.kwargs).arguments
        except TypeError as error:
            raise GraphError(f"{type(self.module).__name__}: {error}", user_loc()) from None


def _named_axes(dynamic: Dynamic, given: Mapping[str, Any]) -> Axes:
    """What the user says of sizes, checked: a name or a Dim for each axis of each argument that may have any size."""
    wanted = 'write dynamic={"x": {0: "B"}}: by argument, names for axes'
    if isinstance(dynamic, tuple | list):
        dynamic = dict(zip(given, dynamic, strict=False))
    if not isinstance(dynamic, Mapping):
        raise GraphError(f"dynamic= got {shown(dynamic)}: {wanted}", user_loc())
    found: dict[str, dict[int, Any]] = {}
    sizes: dict[str, int] = {}
    for name, axes in dynamic.items():
        if name not in given:
            raise GraphError(f"dynamic= names {name}; the example arguments are {', '.join(given)}", user_loc())
        rank = given[name].ndim if isinstance(given[name], torch.Tensor) else 0
        if isinstance(axes, tuple | list):
            axes = dict(enumerate(axes))
        if axes is not None and not isinstance(axes, Mapping):
            raise GraphError(f"dynamic= got {shown(axes)} for {name}: {wanted}", user_loc())
        for axis, size in (axes or {}).items():
            if size is None:
                continue
            if not isinstance(axis, int) or not -rank <= axis < rank:
                raise GraphError(f"dynamic= names axis {shown(axis)} of {name}, which has {rank} axes", user_loc())
            if not (size.isidentifier() if isinstance(size, str) else hasattr(size, "__name__")):
                raise GraphError(f"dynamic= got {shown(size)} for axis {axis} of {name}: {wanted}", user_loc())
            known = given[name].shape[axis]
            if isinstance(size, str) and sizes.setdefault(size, known) != known:
                raise GraphError(f"dynamic= names axis {axis} of {name} {size}, which is {known} in the example, and "
                                 f"another of {sizes[size]}: sizes of one name are equal", user_loc())
            found.setdefault(name, {})[axis % rank] = size
    return found


@contextmanager
def in_mode(module: torch.nn.Module, training: bool) -> Iterator[None]:
    """The module in a mode: as it is where it is in that mode already, however its parts are; else as `train()` or
    `eval()` make it, until the end."""
    if module.training == training:
        yield
        return
    modes = {part: part.training for part in module.modules()}
    module.train(training)
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def _symbols(exported: torch.export.ExportedProgram, axes: Axes) -> dict[str, str]:
    """Names for the symbolic sizes of the inputs: the user's, else PyTorch's own."""
    names = {}
    for node in exported.graph_module.graph.nodes:
        if node.op == "placeholder" and isinstance(node.meta.get("val"), torch.Tensor):
            for axis, size in enumerate(node.meta["val"].shape):
                if not isinstance(size, int) and axis in axes.get(node.name, {}):
                    dim: Any = axes[node.name][axis]
                    name = dim if isinstance(dim, str) else getattr(dim, "root", dim).__name__
                    names.update(dict.fromkeys(map(str, size.node.expr.free_symbols), name))
    return names


def _unnamed(value: Any) -> Any:
    """What torch.export is told of an argument whose sizes are fixed: nothing, for each of several."""
    if isinstance(value, tuple | list):
        return tuple(map(_unnamed, value))
    return {name: _unnamed(v) for name, v in value.items()} if isinstance(value, dict) else None


def _tensor(value: Any, seen: set[int]) -> Any:
    """Numpy's arrays, and tensors that were made in torch.inference_mode, which torch.export does not read, as ordinary
    tensors; one that was seen before as another: modules ask whether two arguments are the same, as calls' are not."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.array(value))
    if not isinstance(value, torch.Tensor):
        return value
    again = id(value) in seen
    seen.add(id(value))
    return value.clone() if again or value.is_inference() else value
