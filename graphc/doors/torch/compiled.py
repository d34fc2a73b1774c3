"""One graph of AOTAutograd as a native program that takes and returns tensors."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch.fx import GraphModule, Node

import graphc as gc
from graphc.doors.torch.interpret import Problem, interpret
from graphc.doors.torch.partition import NotCompiled
from graphc.doors.torch.program import TorchProgram, Ref
from graphc.doors.torch.read import FxReader, array_of
from graphc.doors.torch.rules.complex_numbers import Complex
from graphc.dsl.function import GraphFunction, finish
from graphc.dsl.trace import RANDOM_KEY, Trace
from graphc.ir.dims import evaluate
from graphc.ir.types import TensorType, bf16
from graphc.nn.entry import Entry
from graphc.nn.parameter import Parameter, Value
from graphc.runtime.dlpack import from_dlpack
from graphc.runtime.memory import address
from graphc.state import State

ALIGNMENT = 64
READS_TENSORS = "__dlpack_c_exchange_api__" in vars(torch.Tensor)       # PyTorch 2.10 or later


class CompiledPart:
    """A graph that is compiled whole. `fixed`: numbers of inputs that are parameters, of which the program keeps packed
    forms. Raises NotCompiled with every operator that it cannot take."""

    def __init__(self, module: GraphModule, fixed: frozenset[int], sizes: Mapping[str, int] = MappingProxyType({})):
        """`sizes`: of PyTorch's symbols; those that it lacks come with each call."""
        self.program = _program(module, sizes)
        self._names = [n.name for n in module.graph.nodes if n.op == "placeholder"]
        self._sized = {n.name: n.meta.get("val") for n in module.graph.nodes if n.op == "placeholder"}
        self._fixed = {self._names[i]: i for i in fixed if i < len(self._names)
                       and self._names[i] in self.program.inputs and self.program.inputs[self._names[i]].is_static}
        self._arrays = [i for i, name in enumerate(self._names) if name in self.program.inputs
                        and name not in self._fixed]
        self.function, self._results = self._traced()
        self._state: State | None = None
        self._seen: tuple[tuple[int, int], ...] = ()
        self._run: Callable[..., Any] | None = None

    def _traced(self) -> tuple[GraphFunction | None, list[tuple[Any, Any]]]:
        """The graph, and of each result what makes its tensor with the number of its array; None with a value that is
        known, or a size."""
        program, problems = self.program, list[Problem]()
        with Trace("part") as trace:
            values: dict[str, Any] = {name: trace.input(name, type) for name, type in program.inputs.items()
                                      if name not in self._fixed}
            for name in self._fixed:
                type = program.inputs[name]
                values[name] = trace.state(Parameter(type, Value(np.zeros(())), False), name, type)
            env = interpret(program, values, problems)
            if problems:
                raise NotCompiled(problems)
            outputs: list[gc.Array] = []
            made: list[tuple[Any, Any]] = []
            for value in program.outputs.values():
                found = env[value.name] if isinstance(value, Ref) else value
                if isinstance(found, Complex):
                    raise NotCompiled([Problem("output", "complex numbers that leave the program", None)])
                if isinstance(found, gc.Array):
                    made.append((tensor_of if found.dtype is bf16 else torch.from_numpy, len(outputs)))
                    outputs.append(found)
                else:
                    made.append((None, found))
            return (finish(trace, tuple(outputs)) if outputs else None), made

    def __call__(self, *tensors: Any) -> list[Any]:
        """The results for these tensors and sizes."""
        if self.function is None:
            return [self._plain(value, tensors) for _, value in self._results]
        if self._run is None or self._fixed:
            self._renew(tensors)
        assert self._run is not None
        found = self._run(*[numbers(tensors[i]) for i in self._arrays])
        return [make(found[value]) if make is not None else self._plain(value, tensors)
                for make, value in self._results]

    def _renew(self, tensors: Sequence[Any]) -> None:
        """Compiles at the first call; afterwards says that parameters have changed, where they have."""
        seen = tuple((tensors[i].data_ptr(), tensors[i]._version) for i in self._fixed.values())
        if self._run is not None and seen == self._seen:
            return
        moved = self._run is None or any(a[0] != b[0] for a, b in zip(seen, self._seen))
        self._seen = seen
        if moved:
            self._compile(tensors)
        else:
            self._refresh(tensors)

    def _compile(self, tensors: Sequence[Any]) -> None:
        assert self.function is not None
        function = self.function
        self._state = State()
        self._copied: list[tuple[str, int]] = []
        for value, key in zip(function.graph.state, function.keys):
            entry = Entry(value.name, value.type, key)
            if key == RANDOM_KEY:
                self._state.add(entry, np.array([torch.initial_seed() & 0x7FFFFFFF, 0], np.int64))
                continue
            array = array_of(tensors[self._fixed[value.name]])
            lies_well = tensors[self._fixed[value.name]].is_contiguous() and address(array) % ALIGNMENT == 0
            self._state.add(entry, array, mapped=lies_well)
            if not lies_well:
                self._copied.append((value.name, self._fixed[value.name]))
        self._run = gc.compile(function, state=self._state) if function.graph.state else gc.compile(function)

    def _refresh(self, tensors: Sequence[Any]) -> None:
        """The parameters' numbers have changed where they lie: what is derived from them is made at the next call."""
        assert self._state is not None
        for name, i in self._copied:
            self._state[name] = array_of(tensors[i])
        self._state.lock.write([], [])

    def _plain(self, value: Any, tensors: Sequence[Any]) -> Any:
        """A result that is no array of the program: nothing, a number, or a size as it is at this call."""
        if value is None or isinstance(value, bool | int | float):
            return value
        sizes: dict[str, int] = {}
        for name, tensor in zip(self._names, tensors):
            fake = self._sized[name]
            if isinstance(fake, torch.Tensor):
                sizes |= {str(s): n for s, n in zip(fake.shape, tensor.shape) if not isinstance(s, int)}
            elif isinstance(fake, torch.SymInt):
                sizes[str(fake)] = tensor
        return evaluate(value, sizes)


class PerSizePart:
    """A graph that is compiled for each set of sizes by itself, where one program for all has something that is only
    known of PyTorch's guards."""

    def __init__(self, module: GraphModule, fixed: frozenset[int]):
        """Raises NotCompiled unless the sizes that the graph was captured with can be taken."""
        self.module, self.fixed = module, fixed
        self._fakes = [n.meta.get("val") for n in module.graph.nodes if n.op == "placeholder"]
        symbols = self._symbols(self._fakes)
        if not symbols:
            raise NotCompiled([])
        CompiledPart(module, fixed, {str(s): s.node.hint for s in symbols})
        self._made: dict[tuple[int, ...], CompiledPart] = {}

    @staticmethod
    def _symbols(values: Sequence[Any]) -> list[Any]:
        """All sizes in the order of the inputs that are symbols."""
        sizes = [s for v in values for s in (v.shape if isinstance(v, torch.Tensor) else (v,))]
        return [s for s in sizes if isinstance(s, torch.SymInt)]

    def __call__(self, *tensors: Any) -> list[Any]:
        """The results for these tensors and sizes."""
        sizes: dict[str, int] = {}
        for fake, tensor in zip(self._fakes, tensors):
            if isinstance(fake, torch.Tensor):
                sizes |= {str(s): n for s, n in zip(fake.shape, tensor.shape) if isinstance(s, torch.SymInt)}
            elif isinstance(fake, torch.SymInt):
                sizes[str(fake)] = tensor
        key = tuple(sizes.values())
        if key not in self._made:
            self._made[key] = CompiledPart(self.module, self.fixed, sizes)
        return self._made[key](*tensors)


def _program(module: GraphModule, sizes: Mapping[str, int]) -> TorchProgram:
    """The graph as a program; sizes among its inputs are the names that its arrays have."""
    reader = FxReader(module, {name: str(size) for name, size in sizes.items()})
    program = reader.body()
    inputs, given = {}, dict(program.given)
    for node in (n for n in module.graph.nodes if n.op == "placeholder"):
        value = node.meta.get("val")
        if isinstance(value, torch.SymInt):
            given[node.name] = reader.dim(value)
        elif isinstance(value, torch.Tensor):
            inputs[node.name] = _known_type(program, node)
        else:
            given[node.name] = value
    return TorchProgram("part", inputs, program.steps, program.outputs, given=given, constants=program.constants)


def _known_type(program: TorchProgram, node: Node) -> TensorType:
    found = program.inputs[node.name]
    if not isinstance(found, TensorType):
        raise NotCompiled([Problem("placeholder", f"an input of {node.meta.get('val')}", None)])
    return found


def numbers(tensor: torch.Tensor) -> np.ndarray | torch.Tensor:
    """The numbers of a tensor, where they lie: what native code reads at once."""
    if READS_TENSORS:
        return tensor if type(tensor) is torch.Tensor and not tensor.requires_grad else tensor.detach()
    if tensor.dtype is torch.bfloat16 or tensor.is_neg():
        return from_dlpack(tensor.detach())
    return tensor.detach().numpy() if tensor.requires_grad else tensor.numpy()


def tensor_of(array: np.ndarray) -> torch.Tensor:
    """A tensor on the memory of an array of a type that numpy's door does not take."""
    return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)

