"""What a compiled function takes and gives."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from graphc.errors import InternalError
from graphc.ir.dims import evaluate
from graphc.ir.types import TensorType
from graphc.records import dataclass

ResultKind = Literal["array", "tuple", "dict"]
RESULTS: tuple[ResultKind, ...] = get_args(ResultKind)


@dataclass(frozen=True)
class ArraySpec:
    """One argument or result: a name and a tensor type, without named dimensions when it is called."""
    name: str
    type: TensorType

    def at(self, sizes: Mapping[str, int]) -> ArraySpec:
        """Where the named dimensions have these sizes."""
        return ArraySpec(self.name, self.type.with_shape([evaluate(d, sizes) for d in self.type.shape]))

    def __str__(self) -> str:
        return f"{self.name}: {self.type}"


@dataclass(frozen=True)
class Signature:
    """Arguments in order; results as one array ("array"), a tuple, or a dict by their names ("dict")."""
    inputs: tuple[ArraySpec, ...]
    outputs: tuple[ArraySpec, ...]
    result: ResultKind = "tuple"
    name: str = "graph"

    def __post_init__(self) -> None:
        if self.result not in RESULTS:
            raise InternalError(f"result {self.result!r} is none of {', '.join(RESULTS)}", "signature")
        if self.result == "array" and len(self.outputs) != 1:
            raise InternalError(f"a single array as result, but {len(self.outputs)} outputs", "signature")
        if not all(spec.type.is_known for spec in self.inputs + self.outputs):
            raise InternalError(f"{self} has unbound dimensions", "signature")

    def at(self, sizes: Mapping[str, int]) -> Signature:
        """Where the named dimensions have these sizes."""
        return replace(self, inputs=tuple([spec.at(sizes) for spec in self.inputs]),
                       outputs=tuple([spec.at(sizes) for spec in self.outputs]))

    def pack(self, arrays: Sequence[np.ndarray]) -> np.ndarray | tuple[np.ndarray, ...] | dict[str, np.ndarray]:
        """The outputs as the caller gets them."""
        if self.result == "array":
            return arrays[0]
        if self.result == "tuple":
            return tuple(arrays)
        return {spec.name: array for spec, array in zip(self.outputs, arrays)}

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(str, self.inputs))}) -> ({', '.join(map(str, self.outputs))})"
