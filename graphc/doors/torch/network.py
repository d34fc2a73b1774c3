"""A program of PyTorch as a network of graphc."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import graphc as gc
from graphc.doors.torch.interpret import Problem, explained, interpret, results, updates
from graphc.doors.torch.program import OwnTensor, TensorSource, TorchProgram
from graphc.dsl.array import emit
from graphc.dsl.context import current_trace, declared_at, user_loc
from graphc.dsl.trace import Trace
from graphc.dsl.tree import tree_map
from graphc.errors import GraphError
from graphc.ir.dim_binding import bind
from graphc.ir.dims import Dim, Poly, exact_quotient
from graphc.ir.types import TensorType
from graphc.nn.module import Module
from graphc.nn.parameter import Parameter, Value
from graphc.nn.path import rooted
from graphc.records import dataclass


@dataclass(frozen=True)
class TensorValue(Value):
    """The numbers that a tensor has when a network starts with them."""
    source: TensorSource | None = None

    def __call__(self, random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        assert self.source is not None
        return self.source.array()


class TorchNetwork(Module):
    """What `gc.from_torch` gives. `program(training)`: the program in training mode or for inference, read when it is
    first asked for."""
    hands_on = True

    def __init__(self, program: Callable[[bool], TorchProgram], training: bool = False):
        """`training`: the mode in which it is read first."""
        super().__init__()
        self.program = program
        self._first, self._modes = training, {training}         # reading takes seconds: only modes that are needed
        self._keys: dict[int, Parameter] = {}
        self._inputs = dict(program(training).inputs)
        self.stands_alone = not self._inputs

    @property
    def kind(self) -> str:
        return self.program(self._first).name

    def __repr__(self) -> str:
        return f"{self.kind}({', '.join(f'{name}: {type}' for name, type in self._inputs.items())})"

    def declared_inputs(self) -> Mapping[str, TensorType]:
        return self._inputs

    def takes(self) -> frozenset[str]:
        return frozenset(list(self._inputs)[1:])

    def forward(self, *arrays: gc.Array, **options: gc.Array) -> Any:
        """The program on these arrays, in the mode of the trace."""
        program = self.program(self.training)
        self._modes.add(self.training)
        if self.training and program.refused and not any(own.trained for own in program.own):
            raise GraphError(_untrained(program), user_loc())
        given = _bound(program, arrays, options)
        owned = {own.ref: self._state(own) for own in program.used()}
        env = interpret(program, {**given, **owned})
        for ref, value in updates(program, env):
            own = next(o for o in program.own if o.ref == ref)
            current_trace().update_state(self._parameter(own), gc.stop_gradient(value))
        found = results(program, env)
        return tree_map(lambda array: _refusing(program, array), found) if program.refused else found

    def check(self) -> None:
        """GraphError with everything that cannot be taken, in the mode in which it was read."""
        program = self.program(self._first)
        problems: list[Problem] = []
        with Trace("check") as trace, rooted(self):
            values = {name: trace.input(name, type) for name, type in program.inputs.items()}
            owned = {own.ref: trace.input(own.ref, own.type) for own in program.own if own.ref not in values}
            env = interpret(program, {**values, **owned}, problems)
            if not problems:
                results(program, env)
        if problems:
            raise explained(program.name, problems).at(user_loc())

    def names(self) -> dict[str, Parameter]:
        """The parameters that have been made, by the name that PyTorch's `state_dict` gives them; one that has several
        names by each."""
        return {own.name: self._keys[own.key] for training in sorted(self._modes) for own in self.program(training).own
                if own.key in self._keys}

    def _state(self, own: OwnTensor) -> gc.Array:
        return self._array(own.name, self._parameter(own))

    def _parameter(self, own: OwnTensor) -> Parameter:
        """A tensor with several names is one parameter, under the first of them."""
        if own.key not in self._keys:
            made = Parameter(own.type, TensorValue((), own.source), own.trained)
            self._keys[own.key] = self._parameters[own.name] = made
        return self._keys[own.key]


def _refusing(program: TorchProgram, array: gc.Array) -> gc.Array:
    """The array; whoever asks for a gradient through it hears why there is none."""
    with declared_at(next((r.loc for r in program.refused if r.loc), None)):
        return emit("stop_gradient", array, refused=_untrained(program)) if array.dtype.is_float else array


def _untrained(program: TorchProgram) -> str:
    what = "; ".join(dict.fromkeys(r.text for r in program.refused))
    return (f"{program.name} cannot be differentiated as PyTorch does it: {what}. torch.compile(module, "
            'backend="graphc") can train it')


def _bound(program: TorchProgram, arrays: tuple[gc.Array, ...], options: Mapping[str, gc.Array]) -> dict[str, gc.Array]:
    """The inputs by name. GraphError for what is missing or does not fit the sizes that the program was read for."""
    names = list(program.inputs)
    if len(arrays) > len(names):
        raise GraphError(f"{program.name} takes {', '.join(names)}, got {len(arrays)} arrays")
    given = dict(zip(names, arrays))
    for name, array in options.items():
        if name not in names or name in given:
            raise GraphError(f"{program.name} {'got ' + name + ' twice' if name in given else 'has no input ' + name}; "
                             f"it takes {', '.join(names)}")
        given[name] = array
    if missing := [name for name in names if name not in given]:
        raise GraphError(f"{program.name} needs {missing[0]}: {program.inputs[missing[0]]}; it was read with "
                         f"{', '.join(names)}")
    sizes: dict[str, Dim] = {}
    for name, array in given.items():
        _check(program, name, array.type, sizes)
    for limit in program.limits:
        if isinstance(limit.size, Poly) and limit.size.names <= sizes.keys():
            emit("dimension", size=bind(limit.size, sizes), dtype=gc.i64, low=limit.low, high=limit.high,
                 what=f"{program.name} was read for {limit}")
    return given


def _check(program: TorchProgram, name: str, found: TensorType, sizes: dict[str, Dim]) -> None:
    """The array has the type that the program was read for, with any sizes for its named dimensions, which are put into
    `sizes`."""
    wanted = program.inputs[name]
    if not (found.dtype is wanted.dtype and len(found.shape) == len(wanted.shape)
            and all(_fits(dim, size, sizes) for size, dim in zip(found.shape, wanted.shape))):
        raise GraphError(f"{program.name} was read for {name}: {wanted}, got {found}; a size that may change is given "
                         f'a name: gc.from_torch(module, …, dynamic={{"{name}": {{0: "B"}}}})')


def _fits(dim: Dim, size: Dim, sizes: dict[str, Dim]) -> bool:
    """Whether a dimension may be `size`: one of a single name, as 2*B + 1, says what that is."""
    unknown = [] if isinstance(dim, int) else [name for name in dim.names if name not in sizes]
    if len(unknown) == 1 and isinstance(dim, Poly):
        name, rest = unknown[0], bind(dim, {**sizes, unknown[0]: 0})
        step = bind(dim, {**sizes, name: 1}) - rest
        if isinstance(step, int) and step and bind(dim, {**sizes, name: 2}) - rest == 2 * step:
            value = exact_quotient(size - rest, step)
            if value is None:
                return False
            sizes[name], unknown = value, []
    return bool(unknown) or bind(dim, sizes) == size
