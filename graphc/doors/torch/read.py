"""PyTorch's exported programs as plain data."""
from __future__ import annotations

import linecache
import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.export import ExportedProgram, default_decompositions
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind
from torch.fx import GraphModule, Node
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.utils import _pytree as pytree

from graphc.doors.torch.guards import size_limits
from graphc.doors.torch.own_gradients import untrained, with_regions
from graphc.doors.torch.program import ComplexType, OwnTensor, Refusal, TorchProgram, Ref, Step, used
from graphc.doors.torch.rules.table import CHECKS, RULES
from graphc.doors.torch.writes import NO_GRAD, Write, Writes, keeps_no_statistics, writes_of, written_dropout
from graphc.dsl.context import user_loc
from graphc.errors import GraphError, Loc
from graphc.ir.dim_text import parse_dim
from graphc.ir.types import DType, TensorType, bf16, bool_, f16, f32, f64, i8, i16, i32, i64, u8, u16, u32, u64
from graphc.records import dataclass
from graphc.runtime.dlpack import from_dlpack

TYPES: dict[torch.dtype, DType] = {
    torch.float32: f32, torch.float64: f64, torch.float16: f16, torch.bfloat16: bf16, torch.bool: bool_,
    torch.int8: i8, torch.int16: i16, torch.int32: i32, torch.int64: i64, torch.uint8: u8, torch.uint16: u16,
    torch.uint32: u32, torch.uint64: u64}
COMPLEX = {torch.complex64: f32, torch.complex128: f64}
# arguments that say where and how an array lies, which is graphc's business
PLACES = frozenset({"layout", "device", "pin_memory", "memory_format", "non_blocking", "generator"})
# what reads a tensor by its place in memory
BY_PLACE = frozenset({"as_strided.default", "as_strided_copy.default", "as_strided_scatter.default", "sym_stride.int",
                      "sym_storage_offset.default", "_reshape_alias.default"})
# operators that can be asked for the one part of the result that is read: (name, its number) -> arguments for that
PARTLY: Mapping[tuple[str, int | None], Mapping[str, Any]] = {("_linalg_svd.default", 1): {"compute_uv": False}}
PLACE = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>.+)')


@dataclass(frozen=True)
class Readable:
    """An exported program in operators that have rules, and what they write."""
    exported: ExportedProgram
    writes: Writes = field(default_factory=dict)


def readable(exported: ExportedProgram) -> Readable:
    """The program as it is where that can be read, else as far as PyTorch can decompose what has no rule."""
    if (write := written_dropout(exported.graph_module)) is not None:
        raise GraphError("this writes into what a dropout that drops nothing got or gave, which are one tensor in "
                         "PyTorch: clone it first", place(write))
    buffers = frozenset(s.arg.name for s in exported.graph_signature.input_specs if s.kind is InputKind.BUFFER)
    writes = writes_of(exported.graph_module, target_name, buffers)
    return Readable(_decomposed(exported)) if writes is None else Readable(exported, writes)


def _decomposed(exported: ExportedProgram) -> ExportedProgram:
    _keep_no_grad(exported.graph_module)
    table = default_decompositions()
    for overload in list(table.keys()):
        if target_name(overload) in RULES and keeps_no_statistics(exported.graph_module, overload):
            table.pop(overload)
    return exported.run_decompositions(table)


def _keep_no_grad(module: GraphModule) -> None:
    """Marks what torch.no_grad() gives, since decomposing forgets it."""
    for node in module.graph.nodes:
        if node.op == "call_function" and node.target is NO_GRAD and node.args[0] is False:
            inner = getattr(module, node.args[1].target)
            output = next(n for n in inner.graph.nodes if n.op == "output")
            with inner.graph.inserting_before(output):
                def detached(value: Node) -> Node:
                    made = inner.graph.call_function(torch.ops.aten.detach.default, (value,))
                    made.meta = dict(value.meta)
                    return made
                output.args = torch.fx.map_arg(output.args, detached)
            inner.recompile()


def target_name(target: Any) -> str:
    """The name of an operator: "add.Tensor" of ATen, "operator.mul" of sizes."""
    if isinstance(target, torch._ops.OpOverload):
        return str(target).removeprefix("aten.")
    if isinstance(target, torch._ops.HigherOrderOperator):
        return f"higher_order.{target.name()}"
    name = getattr(target, "__name__", str(target))
    if target is operator.getitem or getattr(target, "__module__", "") == "_operator":
        return f"operator.{name}"
    return f"math.{name}" if getattr(target, "__module__", "") == "math" else name


class FxReader:
    """Reads the graph of one program. `symbols`: names for PyTorch's symbolic sizes. `writes`: what its operators
    write."""

    def __init__(self, module: GraphModule, symbols: Mapping[str, str], writes: Writes = MappingProxyType({})):
        self.module, self.symbols, self.writes = module, dict(symbols), writes
        self._first: dict[str, str] = {}            # what is written, and results of that -> what it was at first
        self._now: dict[str, str] = {}              # that -> the step whose result it is now

    def tensor_type(self, value: Any) -> Any:
        """What a value of the graph is: a type; a tuple of these; None of what is no array or has another type."""
        if isinstance(value, tuple | list):
            return tuple(self.tensor_type(v) for v in value)
        if not isinstance(value, torch.Tensor):
            return None
        if value.dtype not in TYPES and value.dtype not in COMPLEX:
            raise GraphError(f"an array of {value.dtype}, which graphc has not")
        try:
            part = TensorType((TYPES | COMPLEX)[value.dtype], tuple(self.dim(s) for s in value.shape))
            return ComplexType(part) if value.dtype in COMPLEX else part
        except GraphError:
            return None

    def dim(self, size: Any) -> Any:
        """A size, or PyTorch's formula of one, as a dimension."""
        if isinstance(size, int):
            return size
        return self.formula(size.node.expr)

    def formula(self, expression: object) -> Any:
        """One of sympy over PyTorch's symbols."""
        return parse_dim(re.sub(r"\b[su]\d+\b", lambda m: self.symbols.get(m[0], m[0]), str(expression)))

    def steps(self) -> Iterator[Step]:
        """All calls of operators, those that only check left out."""
        for node in self.module.graph.nodes:
            if node.op == "call_function" and target_name(node.target) not in CHECKS:
                write = self.writes.get(node)
                yield from [self.step(node)] if write is None else self._write(node, write)

    def _write(self, node: Node, write: Write) -> Iterator[Step]:
        """The function of what writes; its results stand for what was written from there on."""
        step = replace(self.step(node), target=write.rule)
        if write.count is not None:
            parts = (step.type, *(None for _ in range(max(number or 0 for _, number in write.results))))
            whole = replace(step, name=f"{step.name}.all", args=step.args[:write.count], type=parts)
            yield whole
            step = replace(step, target="operator.getitem", args=(Ref(whole.name), 0), kwargs={})
        yield step
        for target, number in write.results:
            part = step if number is None else replace(step, name=f"{step.name}.{number}",
                                                       args=(step.args[0], number), type=None)
            if number is not None:
                yield part
            first = self._first.get(target.name, target.name)
            self._first[part.name], self._now[first] = first, part.name

    def ref(self, name: str) -> Ref:
        """What stands for a node after the steps that have been read."""
        return Ref(self._now.get(self._first.get(name, name), name))

    def written(self) -> list[str]:
        """The inputs that have been written."""
        return [name for name in self._now if any(n.op == "placeholder" and n.name == name
                                                  for n in self.module.graph.nodes)]

    def step(self, node: Node) -> Step:
        """One call."""
        scope, kind = _scope(node)
        try:
            type, target = self.read_type(node), target_name(node.target)
            if target in BY_PLACE:
                _check_place(node)
        except GraphError as error:
            type, target = None, f"{target_name(node.target)} ({error.text})"
        args = tuple(map(self.argument, node.args))
        kwargs = {k: self.argument(v) for k, v in node.kwargs.items() if k not in PLACES}
        if (narrowed := PARTLY.get((target, _part_read(node)))) is not None:
            args, kwargs, type = args[:1], {**narrowed}, None
        return Step(node.name, target, args, kwargs, type, place(node), scope, kind)

    def read_type(self, node: Node) -> Any:
        """What the result of a call is; of parts that nobody reads, which kernels leave in various forms, None."""
        type = self.tensor_type(node.meta.get("val"))
        if isinstance(type, tuple) and node.users and all(user.target is operator.getitem for user in node.users):
            read = {user.args[1] for user in node.users}
            return tuple(t if i in read else None for i, t in enumerate(type))
        return type

    def argument(self, value: Any) -> Any:
        """An argument as plain data."""
        if isinstance(value, Node):
            return self.region(value) if value.op == "get_attr" else self.ref(value.name)
        if isinstance(value, tuple | list):
            return tuple(map(self.argument, value))
        return TYPES.get(value, value) if isinstance(value, torch.dtype) else value

    def region(self, node: Node) -> Any:
        """A program inside the program, or an array that it holds."""
        inner = getattr(self.module, str(node.target))
        if isinstance(inner, torch.Tensor):
            return Ref(node.name)
        return FxReader(inner, self.symbols).body()

    def body(self) -> TorchProgram:
        """The whole graph as a program without parameters."""
        nodes = self.module.graph.nodes
        inputs = {n.name: self.tensor_type(n.meta.get("val")) for n in nodes if n.op == "placeholder"}
        output = next(n for n in nodes if n.op == "output")
        flat = pytree.tree_leaves(output.args[0])
        constants = {n.name: array_of(getattr(self.module, str(n.target))) for n in nodes if n.op == "get_attr"
                     and isinstance(getattr(self.module, str(n.target)), torch.Tensor)}
        outputs = {str(i): self.argument(v) for i, v in enumerate(flat)}
        return TorchProgram("region", inputs, tuple(self.steps()), outputs, constants=constants)


def program_of(read: Readable, name: str, symbols: Mapping[str, str], module: torch.nn.Module | None = None,
               refused: Sequence[Refusal] = ()) -> TorchProgram:
    """A whole program with its parameters, as the module that it was exported from has them, or else itself. `refused`:
    what of the module stands against its gradient."""
    exported = read.exported
    reader = FxReader(exported.graph_module, symbols, read.writes)
    values = {n.name: n.meta.get("val") for n in exported.graph_module.graph.nodes if n.op == "placeholder"}
    inputs, given, constants, own = {}, {}, {}, []
    for spec in exported.graph_signature.input_specs:
        ref = spec.arg.name
        if isinstance(spec.arg, ConstantArgument):
            given[ref] = spec.arg.value
        elif spec.kind is InputKind.TOKEN:          # keeps checks in their order, which are not made here
            given[ref] = None
        elif spec.kind is InputKind.USER_INPUT:
            if not isinstance(values[ref], torch.Tensor):
                raise GraphError(f"{name}: {ref} is a number that may change from call to call; give an array, or fix "
                                 "it with functools.partial")
            inputs[ref] = reader.tensor_type(values[ref])
            if isinstance(inputs[ref], ComplexType):
                raise GraphError(f"{name}: {ref} has complex numbers; give real and imaginary parts as a last axis of "
                                 "two, and read them with torch.view_as_complex")
        elif spec.kind is InputKind.BUFFER and _buffer(exported, spec.target).dtype in COMPLEX:
            constants[ref] = array_of(_buffer(exported, spec.target))
        elif spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
            own.append(_owned(exported, spec, module))
        elif spec.kind is InputKind.CONSTANT_TENSOR:
            constants[ref] = array_of(exported.constants[spec.target])
        else:
            raise GraphError(f"{name} has an input of the kind {spec.kind.name}, which is no array")
    steps = with_regions(tuple(reader.steps()))
    outputs, updates = _outputs(exported, reader)
    steps = used(steps, [*outputs.values(), *(v for _, v in updates)])
    tensors = {s.target: _buffer(exported, s.target) for s in exported.graph_signature.input_specs
               if s.target in exported.state_dict or s.target in exported.constants}
    refused = (*refused, *untrained(own, tensors, dict(updates)))
    return TorchProgram(name, inputs, steps, outputs, tuple(own), given, constants, updates, refused,
                        tuple(size_limits(name, exported, reader.formula)))


def _part_read(node: Node) -> int | None:
    """The one part of a result that is read; None where several are, or all."""
    parts = {user.args[1] if user.target is operator.getitem else None for user in node.users}
    return parts.pop() if len(parts) == 1 else None


def _check_place(node: Node) -> None:
    """GraphError where a tensor that is read by its place in memory does not lie there row by row: arrays here do."""
    value = node.args[0].meta.get("val") if node.args and isinstance(node.args[0], Node) else None
    if isinstance(value, torch.Tensor) and not _lies_row_by_row(value):
        raise GraphError("a view by places in memory of a tensor that does not lie row by row: call contiguous() first")


def _lies_row_by_row(value: torch.Tensor) -> bool:
    """Whether it is known to."""
    try:
        return bool(value.is_contiguous() and value.storage_offset() == 0)
    except GuardOnDataDependentSymNode:         # its place depends on values
        return False


def _buffer(exported: ExportedProgram, name: str) -> torch.Tensor:
    """A parameter or buffer."""
    own = exported.state_dict if name in exported.state_dict else exported.constants
    return own[name]


def _owned(exported: ExportedProgram, spec: Any, module: torch.nn.Module | None) -> OwnTensor:
    tensor = _buffer(exported, spec.target)
    if tensor.dtype not in TYPES:
        raise GraphError(f"the parameter {spec.target} is an array of {tensor.dtype}, which graphc has not")
    type = TensorType(TYPES[tensor.dtype], tuple(tensor.shape))
    trained = spec.kind is InputKind.PARAMETER and tensor.requires_grad and tensor.dtype.is_floating_point
    key = hash((tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tuple(tensor.shape), tensor.stride()))
    source = ModuleTensor(exported if module is None else module, spec.target, type)
    return OwnTensor(spec.target, spec.arg.name, type, source, trained and not type.dtype.is_storage,
                     key if tensor.numel() else id(tensor))


class ModuleTensor:
    """A parameter or buffer as its module, or the exported program, has it at the time: PyTorch lets its numbers, and
    the tensor itself, be exchanged."""

    def __init__(self, owner: torch.nn.Module | ExportedProgram, name: str, type: TensorType):
        self.owner, self.name, self.type = owner, name, type

    def array(self) -> np.ndarray:
        """The numbers that it has now. GraphError where they have another type than when the module was read."""
        tensor = self._tensor()
        if TYPES.get(tensor.dtype) is not self.type.dtype or tuple(tensor.shape) != self.type.shape:
            raise GraphError(f"{self.name} was {self.type} when the module was read, and is {tensor.dtype}"
                             f"{list(tensor.shape)} now: read it again with gc.from_torch", user_loc())
        return array_of(tensor)

    def address(self) -> int:
        """Where PyTorch has them."""
        return self._tensor().data_ptr()

    def _tensor(self) -> torch.Tensor:
        if isinstance(self.owner, ExportedProgram):
            return _buffer(self.owner, self.name)
        try:
            tensor: torch.Tensor = operator.attrgetter(self.name)(self.owner)
        except AttributeError:
            raise GraphError(f"the module has no {self.name} any more: read it again with gc.from_torch",
                             user_loc()) from None
        return tensor

    def __deepcopy__(self, memo: dict[int, Any]) -> ModuleTensor:
        """Copies of a network read the same module."""
        return self


def _outputs(exported: ExportedProgram, reader: FxReader) -> tuple[dict[str, Any], tuple[tuple[str, Any], ...]]:
    """Results by name, and updates of buffers by the buffer's name in the graph."""
    buffers = {s.target: s.arg.name for s in exported.graph_signature.input_specs if s.target is not None}
    found: list[Any] = []
    updates = []
    for spec in exported.graph_signature.output_specs:
        value = spec.arg.value if isinstance(spec.arg, ConstantArgument) else reader.ref(spec.arg.name)
        if spec.kind in (OutputKind.BUFFER_MUTATION, OutputKind.PARAMETER_MUTATION):
            updates.append((buffers[spec.target], value))
        elif spec.kind is OutputKind.USER_OUTPUT:
            found.append(value)
        elif spec.kind is OutputKind.USER_INPUT_MUTATION:
            raise GraphError(f"it writes into its argument {spec.target}: arrays that a graph is given stay as they "
                             "are; clone it first")
    updates += [(name, reader.ref(name)) for name in reader.written()]
    tree = pytree.tree_unflatten(range(len(found)), exported.call_spec.out_spec)
    names = {leaf: ".".join(map(_key_text, path)) for path, leaf in pytree.tree_flatten_with_path(tree)[0]}
    return {names[i]: value for i, value in enumerate(found) if value is not None}, tuple(updates)


def _key_text(key: Any) -> str:
    return str(key.idx if isinstance(key, pytree.SequenceKey) else key.key if isinstance(key, pytree.MappingKey)
               else key.name)


def array_of(tensor: torch.Tensor) -> np.ndarray:
    """The numbers of a tensor, on its own memory where that is contiguous."""
    with unset_fake_temporarily():          # a backend is called where PyTorch runs nothing
        plain = tensor.detach().cpu().resolve_conj().contiguous()
        return from_dlpack(plain)


def place(node: Node) -> Loc | None:
    """The innermost line of the user's code that led to a node."""
    for frame in reversed(PLACE.findall(node.meta.get("stack_trace") or "")):
        file, line, _ = frame
        if not _library(file):
            return Loc(file, int(line), linecache.getline(file, int(line)).strip())
    return None


ROOT = str(torch.__path__[0])


def _library(file: str) -> bool:
    return file.startswith((ROOT, "<", "torch/"))


def _scope(node: Node) -> tuple[str, str]:
    """Path and class of the innermost module that called it."""
    stack: Mapping[str, tuple[str, Any]] = node.meta.get("nn_module_stack") or {}
    for path, kind in reversed(list(stack.values())):
        if not path.startswith("_"):
            kind = kind if isinstance(kind, str) else kind.__qualname__
            return _path_text(path), kind.rpartition(".")[2]
    return "", ""


def _path_text(path: str) -> str:
    return re.sub(r"L\['?self'?\]\.?|^L__self___?", "", path)
