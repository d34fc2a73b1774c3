"""One graph of AOTAutograd as a native program that takes and returns tensors."""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from threading import Lock
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch.autograd import forward_ad
from torch.fx import GraphModule, Node
from torch.utils._python_dispatch import _disable_current_modes

import graphc as gc
from graphc.doors.torch.interpret import Problem, interpret
from graphc.doors.torch.partition import NotCompiled
from graphc.doors.torch.program import TorchProgram
from graphc.doors.torch.read import FxReader, array_of, target_name
from graphc.doors.torch.results import PartResult, order_of, planned, tensor_at
from graphc.doors.torch.rules.complex_numbers import Complex
from graphc.doors.torch.rules.table import SIZES
from graphc.dsl.context import user_loc
from graphc.dsl.function import GraphFunction, finish
from graphc.dsl.trace import RANDOM_KEY, Trace
from graphc.errors import GraphError
from graphc.ir.types import TensorType, bf16, i64
from graphc.nn.entry import Entry
from graphc.nn.parameter import Parameter, Value
from graphc.once import recent
from graphc.records import dataclass
from graphc.runtime.dlpack import from_dlpack
from graphc.runtime.memory import address, aligned_copy
from graphc.specialised import KEPT_PROGRAMS
from graphc.state import State

ALIGNMENT = 64
PLAIN = (torch.Tensor, torch.nn.Parameter)
READS_TENSORS = "__dlpack_c_exchange_api__" in vars(torch.Tensor)       # PyTorch 2.10 or later


@dataclass(frozen=True)
class Weights:
    """Which inputs are parameters and buffers, by number: the same tensors in each call, as a rule. `freezing`: the
    program may keep packed forms of their numbers until PyTorch says that they have changed."""
    numbers: frozenset[int] = frozenset()
    freezing: bool = False


class CompiledPart:
    """A graph that is compiled whole. Raises NotCompiled with every operator that it cannot take."""

    def __init__(self, module: GraphModule, weights: Weights, sizes: Mapping[str, int] = MappingProxyType({})):
        """`sizes`: of PyTorch's symbols; those that it lacks come with each call."""
        self._module = module
        fixed = weights.numbers if weights.freezing else ()
        self._reader = FxReader(module, {name: str(size) for name, size in sizes.items()})
        self.program = _program(module, self._reader)
        inputs = [n for n in module.graph.nodes if n.op == "placeholder"]
        self._names, self._fakes = [n.name for n in inputs], [n.meta.get("val") for n in inputs]
        self._fixed = {self._names[i]: i for i in fixed if i < len(self._names)
                       and self._names[i] in self.program.inputs and self.program.inputs[self._names[i]].is_static}
        orders = {n.name: order_of(tensor_at(n), self._reader.dim) for n in inputs
                  if n.name in self.program.inputs and isinstance(n.meta["val"], torch.Tensor)}
        self._orders = {name: order for name, order in orders.items() if order and list(order) != sorted(order)}
        self._inputs = ReadInputs([(self._names.index(name), self._orders.get(name)) for name in self.program.inputs
                                   if name not in self._fixed], weights.numbers)
        self.function, self._results = self._traced(module)
        self._sized = any(result.needs_sizes for result in self._results)
        self._state: State | None = None
        self._key: np.ndarray | None = None
        self._drawing = Lock()
        self._seen: tuple[tuple[int, int], ...] = ()
        self._run: Callable[..., Any] | None = None

    def _traced(self, module: GraphModule) -> tuple[GraphFunction | None, tuple[PartResult, ...]]:
        """The graph, and how its results come from its arrays."""
        program, problems = self.program, list[Problem]()
        with Trace("part") as trace:
            values: dict[str, Any] = {}
            for name, type in program.inputs.items():
                if name in self._fixed:
                    values[name] = trace.state(Parameter(type, Value(np.zeros(())), False), name, type)
                    continue
                order = self._orders.get(name) or range(len(type.shape))
                lying = trace.input(name, type.with_shape(type.shape[axis] for axis in order))
                values[name] = lying.transpose(*np.argsort(order).tolist()) if name in self._orders else lying
            env = interpret(program, values, problems)
            if problems:
                raise NotCompiled(problems)
            plan = planned(list(module.graph.nodes), self._reader.dim, env)
            outputs = [self._output(env[node.name], order) for node, order in plan.arrays]
            self._makers = [tensor_of if array.dtype is bf16 else torch.from_numpy for array in outputs]
            return (finish(trace, tuple(outputs)) if outputs else None), plan.results

    @staticmethod
    def _output(found: Any, order: Sequence[int]) -> gc.Array:
        """An array of the program as it is to lie in memory."""
        if isinstance(found, Complex):
            raise NotCompiled([Problem("output", "complex numbers that leave the program", None)])
        return found if list(order) == sorted(order) else found.transpose(*order)

    def __call__(self, *tensors: Any) -> list[Any]:
        """The results for these tensors and sizes."""
        if forward_ad._current_level >= 0 and any(map(_has_tangent, tensors)):
            return list(self._module(*tensors))
        arrays: list[torch.Tensor] = []
        if self.function is not None:
            if self._run is None or self._fixed:
                self._renew(tensors)
            arrays = [make(array) for make, array in zip(self._makers, self._found(self._inputs.of(tensors)))]
        sizes = self._sizes(tensors) if self._sized else {}
        return [result.made(arrays, tensors, sizes) for result in self._results]

    def _found(self, arrays: Sequence[Any]) -> Any:
        """What the program gives; the calls of several threads draw one after the other."""
        assert self._run is not None
        if self._key is None:
            return self._run(*arrays)
        with self._drawing:
            self._key[:] = _drawn()
            return self._run(*arrays)

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
                self._key = aligned_copy(np.zeros(2, np.int64))
                self._state.add(entry, self._key, mapped=True)
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

    def _sizes(self, tensors: Sequence[Any]) -> dict[str, int]:
        """PyTorch's symbols at this call."""
        found: dict[str, int] = {}
        for fake, tensor in zip(self._fakes, tensors):
            if isinstance(fake, torch.Tensor):
                found |= {str(s): n for s, n in zip(fake.shape, tensor.shape) if not isinstance(s, int)}
            elif isinstance(fake, torch.SymInt):
                found[str(fake)] = tensor
        return found


class ReadInputs:
    """The arrays that a program is called with: the tensors of a call, read where they lie. Of weights, which are the
    same in each call, the arrays are made once for the place in memory that each has; the numbers are read there anew
    in each call, since PyTorch does not tell of all that writes to them."""

    def __init__(self, places: Sequence[tuple[int, Sequence[int] | None]], weights: frozenset[int]):
        """`places`: for each array the number of the tensor, and the order of its axes in memory if that is not the
        usual one."""
        self.places = list(places)
        self._weights = [at for at, (number, _) in enumerate(places) if number in weights]
        self._held: tuple[list[int], dict[int, Any]] = ([], {})

    def of(self, tensors: Sequence[Any]) -> list[Any]:
        """The arrays for the tensors of a call."""
        held = self._kept(tensors)
        return [held[at] if at in held else numbers(tensors[i], order)
                for at, (i, order) in enumerate(self.places)]

    def _kept(self, tensors: Sequence[Any]) -> dict[int, Any]:
        """The weights' arrays, which are on their memory."""
        places, held = self._held
        now = [tensors[self.places[at][0]].data_ptr() for at in self._weights]
        if now != places:
            held = {}
            for at, place in zip(self._weights, now):
                i, order = self.places[at]
                array = array_of(tensors[i] if order is None else tensors[i].permute(order))
                if address(array) == place:
                    held[at] = array
            self._held = now, held
        return held


class PerSizePart:
    """A graph that is compiled for each set of sizes by itself, where one program for all has something that is only
    known of PyTorch's guards; the last of these programs are kept."""

    def __init__(self, module: GraphModule, weights: Weights):
        """Raises NotCompiled unless the sizes that the graph was captured with can be taken."""
        self.module, self.weights = module, weights
        self._fakes = [n.meta.get("val") for n in module.graph.nodes if n.op == "placeholder"]
        symbols = self._symbols(self._fakes)
        if not symbols:
            raise NotCompiled([])
        CompiledPart(module, weights, {str(s): s.node.hint for s in symbols})
        self._made: OrderedDict[tuple[int, ...], CompiledPart] = OrderedDict()

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
        make = partial(CompiledPart, self.module, self.weights, sizes)
        return recent(self._made, tuple(sizes.values()), make, KEPT_PROGRAMS)(*tensors)


def _program(module: GraphModule, reader: FxReader) -> TorchProgram:
    """The graph as a program; sizes among its inputs are the names that its arrays have."""
    program = reader.body()
    inputs, given = {}, dict(program.given)
    nodes = [n for n in module.graph.nodes if n.op == "placeholder"]
    for node in nodes:
        if _is_token(node):
            given[node.name] = None
        elif isinstance(node.meta.get("val"), torch.Tensor):
            inputs[node.name] = _known_type(program, node)
        elif not isinstance(node.meta.get("val"), torch.SymInt):
            given[node.name] = node.meta.get("val")
    names = frozenset[str]().union(*(type.names for type in inputs.values()))
    for node in (n for n in nodes if isinstance(n.meta.get("val"), torch.SymInt)):
        size = reader.dim(node.meta["val"])
        if isinstance(size, int) or size.names <= names or all(user.op == "output" for user in node.users):
            given[node.name] = size
        else:
            inputs[node.name] = _number_type(node)
    return TorchProgram("part", inputs, program.steps, program.outputs, given=given, constants=program.constants)


def _is_token(node: Node) -> bool:
    """Whether an input only keeps effects in their order; it is None when the graph is called."""
    return bool(node.users) and all(target_name(user.target) == "higher_order.with_effects" and user.args[0] is node
                                    for user in node.users)


def _number_type(node: Node) -> TensorType:
    """Of an integer that may change from call to call and is no size of an array: a scalar array, which operators take
    as they take a number. NotCompiled where Python computes with it."""
    if any(target_name(user.target) in SIZES for user in node.users):
        raise NotCompiled([Problem("placeholder", f"arithmetic with the number {node.meta['val']}", None)])
    return i64[()]


def _known_type(program: TorchProgram, node: Node) -> TensorType:
    found = program.inputs[node.name]
    if not isinstance(found, TensorType) or node.meta["val"].layout is not torch.strided:
        raise NotCompiled([Problem("placeholder", f"an input of {node.meta.get('val')}", None)])
    return found


def _has_tangent(value: Any) -> bool:
    """Whether PyTorch wants a derivative beside its numbers (forward mode), which native code would not give."""
    return isinstance(value, torch.Tensor) and forward_ad.unpack_dual(value).tangent is not None


def _drawn() -> tuple[int, int]:
    """A key for the random numbers of one call, by PyTorch's generator: what seeds, saves or restores that one does so
    to the numbers that are drawn here."""
    word = int(torch.randint(1 << 62, ()))
    return word >> 31, word & 0x7FFFFFFF


def numbers(tensor: Any, order: Sequence[int] | None = None) -> Any:
    """The numbers of a tensor, where they lie: what native code reads at once. A number as it is. `order`: of its axes
    in memory."""
    if not isinstance(tensor, torch.Tensor):
        return tensor
    if type(tensor) not in PLAIN:
        with _disable_current_modes(), torch._C.DisableTorchFunctionSubclass():
            plain = tensor.detach().as_subclass(torch.Tensor)
            if type(plain) not in PLAIN:
                raise GraphError(f"a {type(tensor).__name__} has no numbers of its own, which compiled code would read",
                                 user_loc())
            return numbers(plain, order)
    if order is not None:
        tensor = tensor.permute(order)
    if READS_TENSORS:
        return tensor if type(tensor) is torch.Tensor and not tensor.requires_grad else tensor.detach()
    if tensor.dtype is torch.bfloat16 or tensor.is_neg():
        return from_dlpack(tensor.detach())
    return tensor.detach().numpy() if tensor.requires_grad else tensor.numpy()


def tensor_of(array: np.ndarray) -> torch.Tensor:
    """A tensor on the memory of an array of a type that numpy's door does not take."""
    return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)

