"""A program of PyTorch as plain data: what `read` makes of one, and `interpret` runs on arrays of a graph."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import Any, Protocol

import numpy as np

from graphc.errors import Loc
from graphc.ir.dims import Dim
from graphc.ir.types import TensorType
from graphc.records import dataclass


@dataclass(frozen=True)
class Ref:
    """The result of the step, input or parameter of this name."""
    name: str


@dataclass(frozen=True)
class ComplexType:
    """Complex numbers, whose parts have this type each."""
    part: TensorType


@dataclass(frozen=True)
class Step:
    """One call of an operator. `target`: its overload, as "add.Tensor"; of other libraries with the library's name.
    `args` and `kwargs` hold arrays as `Ref`, other programs as `TorchProgram`, types as graphc's. `type`: what PyTorch
    says of the result: a type (real or complex), None where it is no array, or a tuple of these. `scope`, `kind`: the
    module that called.
    """
    name: str
    target: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    type: Any = None
    loc: Loc | None = None
    scope: str = ""
    kind: str = ""


class TensorSource(Protocol):
    """Where the numbers of a parameter or buffer come from when they are asked for."""

    def array(self) -> np.ndarray:
        """The numbers that it has now."""

    def address(self) -> int:
        """Where PyTorch has them."""


@dataclass(frozen=True)
class OwnTensor:
    """A parameter or buffer: its name in `state_dict`, its name in the program, and how it starts. `trained`: PyTorch
    asks for its gradient. Two that are one tensor have the same `key`."""
    name: str
    ref: str
    type: TensorType
    source: TensorSource
    trained: bool
    key: int


@dataclass(frozen=True)
class Refusal:
    """Why gradients of a program would not be PyTorch's, and on which line."""
    text: str
    loc: Loc | None


@dataclass(frozen=True)
class SizeRule:
    """`size`, a formula of sizes, is from `low` to `high`. `rule`: what it comes from, if that is not a size alone."""
    size: Dim
    low: int
    high: int | None
    rule: str = ""

    def __str__(self) -> str:
        numbers = f"from {self.low} {'on' if self.high is None else f'to {self.high}'}"
        return f"sizes with {self.rule}: {self.size} {numbers}" if self.rule else f"{self.size}: a size {numbers}"


@dataclass(frozen=True)
class TorchProgram:
    """`inputs`: arrays by name, with dimensions that may be named; `given`: arguments that are no arrays. `constants`:
    arrays of the program itself. `updates`: of buffers, (name in the program, new value). `outputs`: by the names that
    the result has ("" for the only one, "0", "1" … of a tuple). `refused`: what stands against its gradient. `limits`:
    of sizes for which it is right."""
    name: str
    inputs: Mapping[str, TensorType]
    steps: tuple[Step, ...]
    outputs: Mapping[str, Any]
    own: tuple[OwnTensor, ...] = ()
    given: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)
    updates: tuple[tuple[str, Any], ...] = ()
    refused: tuple[Refusal, ...] = ()
    limits: tuple[SizeRule, ...] = ()

    def used(self) -> tuple[OwnTensor, ...]:
        """The parameters and buffers that a result or an update depends on."""
        steps = [(s.args, tuple(s.kwargs.values())) for s in self.steps]
        read = {r.name for r in refs((steps, list(self.outputs.values()), list(self.updates)))}
        return tuple(own for own in self.own if own.ref in read or own.ref in dict(self.updates))


def refs(value: Any) -> Iterator[Ref]:
    """All that a value of a program refers to."""
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, tuple | list):
        for v in value:
            yield from refs(v)


def used(steps: tuple[Step, ...], wanted: list[Any]) -> tuple[Step, ...]:
    """The steps that what is wanted depends on; PyTorch keeps others for their checks."""
    alive = {r.name for r in refs(wanted)}
    kept = []
    for step in reversed(steps):
        if step.name in alive:
            kept.append(step)
            alive |= {r.name for r in refs((step.args, tuple(step.kwargs.values())))}
    return tuple(reversed(kept))
