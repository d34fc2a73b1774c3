"""Numbers known while importing: initializers, constants, and sizes, which may be polynomials over names."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc.doors.onnx.size_fractions import SizeFraction
from graphc.dsl.array import Array, as_array, emit
from graphc.dsl.context import current_trace
from graphc.errors import GraphError, Loc
from graphc.ir.dims import Dim, Poly, lower
from graphc.ir.graph import Node, Value, regions
from graphc.ir.no_number import NoNumber
from graphc.ir.op import is_symbolic
from graphc.ir.stored import node_reference
from graphc.ir.types import DType, dtype_of, i8, i64, of_numpy, u8
from graphc.nn.parameter import Parameter
from graphc.nn.parameter import Value as GivenValue
from graphc.records import dataclass

MOST = 1 << 20                      # elements of an array that is computed while importing
MOST_GROWN = 1 << 24                # the same, of one that is made of arrays of the file and is larger than they are
MOST_PARTS = 1 << 12                # of a sequence, and rounds of a loop that is written out


class Unsupported(GraphError):
    """What a rule cannot do. The importer lists all such nodes of a model at once."""


class NeedsNumbers(Unsupported):
    """Sizes or other facts that inputs of the network decide. `inputs`: their names."""

    def __init__(self, text: str, inputs: frozenset[str] = frozenset(), loc: Loc | None = None):
        self.inputs = inputs
        super().__init__(text, loc)

    def at(self, loc: Loc | None) -> GraphError:
        return self if self.loc is not None or loc is None else NeedsNumbers(self.text, self.inputs, loc)


@dataclass(frozen=True, eq=False)
class Known:
    """Numbers of the file, or made of them and of sizes. `numbers`: of `dtype`; objects where one is a named size (int
    or Poly, of floats also float or SizeFraction). `name`: of the initializer that it is."""
    numbers: np.ndarray
    dtype: DType
    name: str = ""

    @staticmethod
    def of(value: Any, dtype: DType | None = None) -> Known:
        """Of numbers (numpy's or Python's, in any nesting), or sizes: those that are numbers become numbers."""
        array = value if isinstance(value, np.ndarray) else np.asarray(value, None if dtype is None or _named(value)
                                                                       else dtype.np)
        if array.dtype == object and not any(isinstance(v, NoNumber) for v in array.flat):
            array = array.astype(np.int64 if dtype is None else dtype.np)
        if dtype is None and array.dtype == object:
            raise GraphError("sizes need a type")
        made = dtype or dtype_of(array)
        return Known(array if array.dtype == object else array.astype(made.np, copy=False), made)

    @property
    def has_names(self) -> bool:
        return self.numbers.dtype == object

    @property
    def is_weight(self) -> bool:
        """Whether it is a parameter where it takes part in computation: an initializer of floats with axes, or of bytes
        with several, which stand for floats."""
        return bool(self.name) and self.numbers.ndim > (0 if self.dtype.is_float else 1) and (
            self.dtype.is_float or self.dtype in (i8, u8))

    def dims(self, what: str) -> tuple[Dim, ...]:
        """As sizes, axes, starts …: a tuple of ints and named sizes."""
        if self.dtype.is_float or self.numbers.dtype.kind not in "iuO" or self.numbers.ndim > 1:
            raise GraphError(f"{what} takes integers on one axis, got {self.dtype}{list(self.numbers.shape)}")
        return tuple(self.numbers.reshape(-1).tolist())

    def item(self, what: str) -> Any:
        """The only number."""
        if self.numbers.size != 1:
            raise GraphError(f"{what} takes one number, got {self.dtype}{list(self.numbers.shape)}")
        return self.numbers.reshape(-1).tolist()[0]

    def array(self) -> Array:
        """As a constant of the running trace; named sizes as what they are when it runs."""
        if not self.has_names:
            return as_array(np.asarray(self.numbers))
        items = [_number(v, self.dtype) for v in self.numbers.reshape(-1).tolist()]
        flat = emit("stack", *items, axis=0)
        return flat.reshape(self.numbers.shape)


def _number(value: Any, dtype: DType) -> Array:
    """A number or a size, which may be below 0, as a scalar of the running trace."""
    if isinstance(value, SizeFraction):
        return _number(value.size, dtype) / value.divisor
    if not isinstance(value, Poly):
        return as_array(value, dtype)
    if lower(value) >= 0:
        return emit("dimension", size=value, dtype=dtype)
    low, high = (Poly.of((atoms, abs(c)) for atoms, c in value.terms if (c > 0) is above) for above in (False, True))
    return (count_of(high) - count_of(low)).astype(dtype)       # the operator counts: below 0 it is 0


def count_of(size: Dim, dtype: DType = i64) -> Array:
    """A size as a number of the running trace."""
    return Known.of([size], i64).array().reshape(()).astype(dtype)


def number_of(size: Dim) -> Any:
    """A size as arithmetic of arrays takes it: an int, or a number of the running trace."""
    return size if isinstance(size, int) else count_of(size)


def computable(size: Any, most: int = MOST_GROWN) -> None:
    """Unsupported for a size of what a file has computed while importing, which would take all memory."""
    if not isinstance(size, int) or size > most:
        raise Unsupported(f"{size} numbers that are computed while importing; at most are {most}")


def is_never_zero(size: Poly) -> bool:
    """Whether it is far from 0 whatever the names stand for, none of which is negative: by the signs of its terms."""
    signs = {factor > 0 for _, factor in size.terms}
    return len(signs) == 1 and any(not atoms for atoms, _ in size.terms)


def _named(value: Any) -> bool:
    return isinstance(value, NoNumber) or isinstance(value, (tuple, list)) and any(map(_named, value))


def evaluated(array: Array, what: str) -> Known:
    """The numbers of an array that depends on the file alone; NeedsNumbers where inputs of the network decide them."""
    values = dict(_first_values())
    nodes = _ancestors(array.value, values)
    leaves = {v for node in nodes for v in node.inputs if v.node is None} | {array.value} - {
        v for node in nodes for v in node.outputs}
    inputs = frozenset(v.name for v in leaves - values.keys())
    if inputs or not all(map(_computable, nodes)):
        names = ", ".join(sorted(inputs))
        raise NeedsNumbers(f"{what} is computed from data and must be known before: give the numbers of {names}, "
                           f"sizes={{{min(inputs)!r}: array}}" if inputs else f"{what} is computed from data", inputs)
    for node in nodes:
        values.update(zip(node.outputs, node_reference(node, [values[v] for v in node.inputs])))
    return Known.of(np.asarray(values[array.value]))


def _ancestors(value: Value, known: Mapping[Value, np.ndarray]) -> list[Node]:
    """The nodes that make a value, each after those that it reads from."""
    done: dict[Node, None] = {}
    pending = [(value, False)]
    while pending:
        v, ready = pending.pop()
        node = v.node
        if node is None or v in known or node in done:
            continue
        if ready:
            done[node] = None
        else:
            pending += [(v, True), *((w, False) for w in node.inputs)]
    return list(done)


def _computable(node: Node) -> bool:
    """Whether the node's numbers can be had while importing, and are few."""
    return not regions(node.op) and not is_symbolic(node.op) and all(
        isinstance(v.type.size, int) and v.type.size <= MOST for v in node.outputs)


def _first_values() -> Mapping[Value, np.ndarray]:
    """What weights of files are before anything trains them: what a shape that is computed from weights is made of."""
    root = current_trace().root
    return {value: np.asarray(key.init.array) for key, value in root.state_values.items()
            if isinstance(key, Parameter) and isinstance(key.init, GivenValue)}


def dtype_named(dtype: np.dtype, what: str) -> DType:
    """graphc's type of numpy's; Unsupported, by name, for one that graphc does not have."""
    found = of_numpy(dtype)
    if found is None:
        raise Unsupported(f"{what} has the element type {dtype.name}")
    return found
