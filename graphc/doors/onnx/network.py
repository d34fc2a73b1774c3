"""A model as a layer."""
from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from graphc.doors.onnx_out.package import ModelProto     # says what is missing without it: before all that reads files

from graphc.contained import contained
from graphc.doors.onnx.checking import check_graph, check_operators
from graphc.doors.onnx.graph import GraphReader, repeated
from graphc.doors.onnx.importer import Importer
from graphc.doors.onnx.inputs import identifier, model_inputs
from graphc.doors.onnx.known import Known
from graphc.doors.onnx.reading import OnnxModel, domain_of, read
from graphc.dsl.array import Array
from graphc.dsl.context import user_loc
from graphc.errors import GraphError
from graphc.ir.convert import is_sequence, shown
from graphc.ir.types import TensorType
from graphc.nn.module import Module
from graphc.nn.parameter import Value

Freeze = bool | str | Sequence[str] | None
Sizes = Mapping[str, Any]


def network_of(model: str | os.PathLike[str] | bytes | ModelProto, freeze: Freeze, sizes: Sizes | None,
               outputs: str | Sequence[str] | None) -> OnnxNetwork:
    """What `gc.from_onnx` gives."""
    try:
        return _network(read(model), freeze, sizes, _names(outputs))
    except GraphError as error:
        raise error.at(user_loc()) from None


@contained
def _network(model: OnnxModel, freeze: Freeze, sizes: Sizes | None, outputs: Sequence[str] | None) -> OnnxNetwork:
    return OnnxNetwork(model, freeze, sizes, outputs)


def _names(outputs: str | Sequence[str] | None) -> tuple[str, ...] | None:
    if outputs is None:
        return None
    names = (outputs,) if isinstance(outputs, str) else outputs
    if not is_sequence(names) or not names or not all(isinstance(n, str) for n in names):
        raise GraphError(f"outputs= takes names of values in the file, got {shown(outputs)}")
    return tuple(names)


class OnnxNetwork(Module):
    """The network of an ONNX model; made by `gc.from_onnx`. Called with arrays in the order of the file's inputs, or by
    their names (items of a sequence `x`: "x.0", "x.1", …)."""
    hands_on = True

    def __init__(self, model: OnnxModel, freeze: Freeze = None, sizes: Sizes | None = None,
                 outputs: Sequence[str] | None = None):
        super().__init__()
        self._model = model
        self._patterns = _patterns(freeze)
        reader = GraphReader(model)
        whole = reader.graph(model.proto.graph)
        keys = [(domain_of(f.domain), f.name, f.overload) for f in model.proto.functions]
        if twice := repeated(keys):
            raise GraphError(f"{model.name} has two functions {twice[1]!r}")
        self._functions = dict(zip(keys, map(reader.function, model.proto.functions)))
        check_graph(model.name, whole)
        self._graph = whole if outputs is None else whole.ending_at(outputs)
        check_operators(model, self._graph, self._functions)
        self._inputs = [each for each in model_inputs(model, sizes or {})
                        if outputs is None or each.name in self._graph.inputs]
        self._types = {name: type for each in self._inputs for name, type in each.types.items()}
        self.stands_alone = not self._types

    @property
    def __name__(self) -> str:
        """What the graph is called."""
        return identifier(self._model.proto.graph.name or "onnx")

    @property
    def kind(self) -> str:
        return self.__name__

    def declared_inputs(self) -> Mapping[str, TensorType]:
        """The types of the inputs, by their names in the file."""
        return {name: type for name, type in self._types.items() if type is not None}

    def takes(self) -> frozenset[str]:
        return frozenset(self._types)

    def forward(self, *arrays: Array, **named: Array) -> Any:
        """The only output, or a dict of all."""
        outputs = Importer(self._model, self._functions, self).outputs(
            self._graph, self._given(arrays, named))
        flat = _flat(outputs)
        return next(iter(flat.values())) if len(outputs) == 1 and len(flat) == 1 else flat

    def _given(self, arrays: Sequence[Array], named: Mapping[str, Array]) -> dict[str, Any]:
        """The values of the file's inputs by name."""
        given = dict(zip(self._types, arrays))
        wrong = len(arrays) > len(self._types) or given.keys() & named.keys() or named.keys() - self._types.keys()
        given |= named
        if wrong or given.keys() != self._types.keys():
            raise GraphError(f"{self._model.name} takes {', '.join(self._types) or 'no inputs'}; got {len(arrays)} "
                             f"arrays by position and by name {', '.join(named) or 'none'}")
        for name, array in given.items():
            type = self._types[name]
            if type is not None and (array.dtype != type.dtype or array.ndim != type.rank):
                raise GraphError(f"the input {name} of {self._model.name} is {type}, got {array.type}")
        return {each.name: each.value(given) for each in self._inputs}

    def weight(self, known: Known, trained: bool) -> Array:
        """The parameter that an initializer is."""
        frozen = any(fnmatchcase(known.name, pattern) for pattern in self._patterns)
        if known.dtype.is_int:
            return self.integers(known.name, known.numbers.shape, known.dtype, Value(known.numbers))
        trains = trained and not frozen and not known.dtype.is_storage
        return self.parameter(known.name, known.numbers.shape, Value(known.numbers), known.dtype, trains)

    def __repr__(self) -> str:
        return f"from_onnx({self._model.name!r})"


def _patterns(freeze: Freeze) -> tuple[str, ...]:
    if freeze is None or isinstance(freeze, bool):
        return ("*",) if freeze else ()
    patterns = (freeze,) if isinstance(freeze, str) else tuple(freeze)
    if not all(isinstance(p, str) for p in patterns):
        raise GraphError(f"freeze= takes True, or names of parameters in the file, got {shown(freeze)}")
    return patterns


def _flat(outputs: Mapping[str, Any]) -> dict[str, Array]:
    """Items of sequences as "name.0", "name.1", …"""
    flat: dict[str, Array] = {}
    for name, value in outputs.items():
        flat |= _flat({f"{name}.{i}": v for i, v in enumerate(value)}) if isinstance(value, list) else {name: value}
    return flat
