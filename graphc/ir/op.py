"""What an operator is: attributes, types, gradient, reference, cost. Everything that does not depend on the machine."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol, Self, TypeVar, dataclass_transform

import numpy as np

from graphc.errors import GraphError, InternalError, Unsized
from graphc.ir.bits import number_key
from graphc.ir.dim_binding import bind
from graphc.ir.dims import Dim, Poly, product_of
from graphc.ir.graph import Graph, Value, regions
from graphc.ir.image import ImageRoles
from graphc.ir.size_atoms import Quotient, Smallest
from graphc.ir.size_proofs import allowed
from graphc.ir.types import DType, TensorType, dtype_of
from graphc.records import dataclass

if TYPE_CHECKING:
    from graphc.ir.contraction import Contraction

Values = tuple[Value, ...]
Arrays = tuple[np.ndarray, ...]
Gradients = Sequence[Value | None]          # one for each output or input of a node; None: zero

Operands = tuple[int, ...]              # numbers of operands
ALL: Operands = (-1,)                   # every operand, whatever their number
Item = TypeVar("Item")


@dataclass(frozen=True)
class Cost:
    """Arithmetic of the direct algorithm, and bytes that must be read and written at least once."""
    flops: Dim
    bytes: Dim


class OpBuilder(Protocol):
    """What an operator's rules may ask of the graph under construction, which is an `ir.builder.Builder`."""

    def constant(self, value: object, dtype: DType | None = None) -> Value:
        """A constant array."""

    def apply(self, op: Op, operands: Sequence[Value | int | float | bool]) -> Values:
        """The outputs of `op`, appended to the graph."""

    def inline(self, graph: Graph, arguments: Sequence[Value]) -> Values:
        """The outputs of `graph`, its nodes appended."""

    def __getattr__(self, name: str) -> Callable[..., Value]:
        """The function that applies the operator of that name and returns its output. Of several outputs, `apply` gives
        the tuple.
        """


@dataclass_transform(frozen_default=True)
class Op:
    """Base of all operators. The annotated names of a subclass are its attributes: they print, parse, hash and compare.
    Those annotated as Graph are its regions.

    Facts that several parts of the compiler ask (traits) follow the name: a class says which of them differ from the
    default. tests/ops/test_traits.py holds each against what the operator does. What one pass alone does with an
    operator is a table in that pass, keyed by `opcode`.

    As a frozen dataclass, whose methods are made here once and not for each class: making 130 dataclasses costs 0.1 s
    of every import.
    """
    name: ClassVar[str] = ""
    FIELDS: ClassVar[tuple[str, ...]] = ()
    DEFAULTS: ClassVar[Mapping[str, object]] = {}
    REGIONS: ClassVar[tuple[str, ...]] = ()
    # attributes that may be floats: compared as `number_key` tells them apart
    FLOATS: ClassVar[tuple[str, ...]] = ()

    # The result is the memory of the operand seen in another way: it has a place and no kernel.
    is_view: ClassVar[bool] = False
    # A view with every element of its operand: loops read the operand itself by mapping axes, and to keep the view is
    # to keep the operand. A slice is none: it may be far smaller than what it shows.
    is_whole_view: ClassVar[bool] = False
    # Without operands, and made by any loop that reads it at no cost: a known array or a count.
    is_leaf: ClassVar[bool] = False
    # An element of the result is a function of the operands' elements at its place, which broadcast as in numpy.
    is_elementwise: ClassVar[bool] = False
    # An element of the result combines the operand's elements along `reduced_axes`.
    is_reduction: ClassVar[bool] = False
    # An element of the result is a function of its own number (and of a key).
    is_generator: ClassVar[bool] = False
    # The two operands may change places.
    is_commutative: ClassVar[bool] = False
    # Groups of operands: in those of one group together the operator is linear while the others stay the same.
    linear_in: ClassVar[tuple[Operands, ...]] = ()
    # The operator is a `Contraction`: `contraction(*types)` gives it.
    is_contraction: ClassVar[bool] = False
    # Elementwise operators on the result can run while it is made.
    takes_epilogue: ClassVar[bool] = False
    # Which operands and results are images; None: the operator knows no images.
    images: ClassVar[ImageRoles | None] = None
    # At run time the operator looks whether its indices are inside an axis, and fails if one is not.
    checks_indices: ClassVar[bool] = False
    # A loop or branch: its regions run as programs of their own, each with kernels and memory.
    is_control: ClassVar[bool] = False
    # Arithmetic for one element of a loop nest: of the result, or of what is reduced.
    element_flops: ClassVar[int] = 1

    def __init_subclass__(cls) -> None:
        own = {n: str(t) for n, t in vars(cls).get("__annotations__", {}).items() if "ClassVar" not in str(t)}
        cls.REGIONS = tuple(dict.fromkeys((*cls.REGIONS, *(n for n, t in own.items() if t == "Graph"))))
        cls.FLOATS = tuple(dict.fromkeys((*cls.FLOATS, *(n for n, t in own.items() if "float" in t))))
        cls.FIELDS = tuple(dict.fromkeys((*cls.FIELDS, *own)))
        cls.DEFAULTS = {**cls.DEFAULTS, **{n: vars(cls)[n] for n in own if n in vars(cls)}}

    def __init__(self, *values: object, **named: object) -> None:
        given = {**self.DEFAULTS, **dict(zip(self.FIELDS, values)), **named}
        if len(given) != len(self.FIELDS) or len(values) > len(self.FIELDS) or not all(n in given for n in self.FIELDS):
            wrong = [f"got an unexpected keyword argument {n!r}" for n in given if n not in self.FIELDS]
            wrong += [f"missing required argument: {n!r}" for n in self.FIELDS if n not in given]
            raise TypeError(f"{type(self).__name__}.__init__() {(wrong or [f'takes {len(self.FIELDS)} values'])[0]}")
        own = vars(self)
        for n in self.FIELDS:
            own[n] = given[n]

    def __setattr__(self, name: str, value: object) -> None:
        raise InternalError(f"operator {self.name} does not change: {name} cannot be set; make another with replace")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and (self._key() == other._key() if self.FLOATS else vars(self) == vars(other))

    def __hash__(self) -> int:
        return hash((type(self), *(self._key() if self.FLOATS else vars(self).values())))

    def _key(self) -> tuple[object, ...]:
        return tuple([number_key(v) if n in self.FLOATS else v for n, v in vars(self).items()])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{n}={v!r}' for n, v in vars(self).items())})"

    def replace(self, **changes: object) -> Self:
        """The same operator with other values of some attributes."""
        return type(self)(**{**vars(self), **changes})

    @property
    def opcode(self) -> "Opcode":
        """What tells operators apart whatever their attributes, and keys tables of rules: the class; of an elementwise
        operator, of which one class holds all, its function (`ADD`, `EXP`, …)."""
        return type(self)

    @property
    def is_linear(self) -> bool:
        """Whether f(a x + b y) = a f(x) + b f(y), x and y standing for all operands."""
        return ALL in self.linear_in

    @property
    def may_fail(self) -> bool:
        """Whether the operator, or one in its regions, checks indices at run time."""
        return self.checks_indices or any(node.op.may_fail for _, body in regions(self) for node in body.nodes)

    @property
    def attributes(self) -> dict[str, object]:
        """What prints between braces: every attribute that differs from its default."""
        return {n: v for n, v in vars(self).items()
                if n not in self.DEFAULTS or number_key(v) != number_key(self.DEFAULTS[n])}

    def infer(self, *ins: TensorType) -> TensorType | tuple[TensorType, ...]:
        """Output type(s); raises GraphError(text), to which the builder adds the user's line."""
        raise InternalError(f"operator {self.name} has no shape rule")

    def reference(self, *arrays: np.ndarray) -> np.ndarray | Arrays:
        """The same in numpy: the oracle of every test. Returns an array or a tuple of arrays."""
        raise InternalError(f"operator {self.name} has no numpy reference")

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        """The gradient with respect to each input, given that to each output (None: zero). Built with the same builder.
        """
        raise GraphError(f"{self.name} has no gradient; wrap its argument in stop_gradient if none should flow")

    def size_conditions(self, *ins: TensorType) -> tuple[Dim, ...]:
        """What must be at least 0, beyond what the shape rule says of sizes that are not numbers: looked at when a call
        brings them."""
        return ()

    def contraction(self, x: TensorType, y: TensorType) -> Contraction:
        """The sum of products that the operator is, if it `is_contraction`."""
        raise InternalError(f"operator {self.name} is no contraction")

    def cost(self, *ins: TensorType) -> Cost:
        outs = as_tuple(self.infer(*ins))
        return Cost(sum(t.size for t in outs), sum(t.nbytes for t in ins + outs))

    def bind(self, values: Mapping[str, Dim]) -> Self:
        """The same operator with named dimensions in its attributes replaced (regions are bound by
        `rewrite.bind_graph`).
        """
        return self.replace(**{n: _bind_attribute(v, values) for n, v in vars(self).items()})


Opcode = type[Op] | Op


class Composite(Op):
    """An operator defined by others. It keeps its name in the graph until a pass replaces it by its decomposition.

    `has_kernel`: for some operands it has a lowering of its own, and is kept for it.
    """
    has_kernel: ClassVar[bool] = False

    def decompose(self, b: OpBuilder, *ins: Value) -> Value | Values:
        raise InternalError(f"composite {self.name} has no decomposition")

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        """NotImplemented: `backward` differentiates the decomposition."""
        return NotImplemented


@dataclass(frozen=True)
class Literal:
    """A numpy array as a hashable attribute."""
    dtype: DType
    shape: tuple[int, ...]
    data: bytes

    @staticmethod
    def of(array: np.ndarray) -> Literal:
        dense = np.asarray(array, order="C")
        return Literal(dtype_of(dense), dense.shape, dense.tobytes())

    @property
    def array(self) -> np.ndarray:
        return np.frombuffer(self.data, self.dtype.np).reshape(self.shape)

    @property
    def type(self) -> TensorType:
        return TensorType(self.dtype, self.shape)


def as_tuple(value: Item | tuple[Item, ...]) -> tuple[Item, ...]:
    """The results of a rule that returns one alone."""
    return value if isinstance(value, tuple) else (value,)


def only_gradient(gs: Gradients) -> Value:
    """The gradient of a node's only output, which there is: `backward` asks no rule where it would be zero."""
    g, = gs
    if g is None:
        raise InternalError("the rule of a node without gradient was asked", "backward")
    return g


def holds(dtype: DType, number: int | float | bool) -> bool:
    """Whether an array of `dtype` may have this element: integers are not rounded and do not wrap around, bools are 0
    or 1; floats round."""
    if dtype.is_float:
        return True
    low, high = dtype.range
    return low <= number <= high and number == int(number)


def require(condition: bool, text: str) -> None:
    """Guard of shape rules: the user's mistake, worded."""
    if not condition:
        raise GraphError(text)


def is_symbolic(value: object) -> bool:
    """Whether an operator, or an attribute, has named dimensions, its regions' own included."""
    if isinstance(value, Op):
        return any(map(is_symbolic, vars(value).values()))
    if isinstance(value, Graph):
        return not all(v.type.is_static for v in value.arguments) or any(is_symbolic(n.op) for n in value.nodes)
    if isinstance(value, tuple):
        return any(map(is_symbolic, value))
    return isinstance(value, Poly) or isinstance(value, TensorType) and not value.is_static


def _bind_attribute(value: object, values: Mapping[str, Dim]) -> object:
    if isinstance(value, Poly):
        return bind(value, values)
    if isinstance(value, TensorType):
        return value.bind(values)
    if isinstance(value, tuple):
        return tuple(_bind_attribute(v, values) for v in value)
    return value


# ---- types of results
def result_types(op: Op, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
    """The types of an operator's results. GraphError for types that it does not take; Unsized where that depends on
    open sizes.

    A slice that ends at a number, x[:, :100], has 100 positions, or all where they are fewer. What takes 100 alone,
    beside another array of 100 say, is right for axes that are no shorter: so it is taken, and a call that brings less
    is refused.
    """
    try:
        return as_tuple(op.infer(*types))
    except GraphError as error:
        if isinstance(error, Unsized) and error.condition is not None:
            raise
        whole = [type.with_shape(map(uncut, type.shape)) for type in types]
        if whole == list(types):
            raise
        return _of_whole(op, types, whole, error)


def _of_whole(op: Op, types: Sequence[TensorType], whole: Sequence[TensorType],
              error: GraphError) -> tuple[TensorType, ...]:
    try:
        found = as_tuple(op.infer(*whole))
    except GraphError:
        raise error from None
    rests = {item - atom.items[-1] for type in types for dim in type.shape for atom in _cuts(dim)
             for item in atom.items[:-1]}
    if not all(map(allowed, sorted(rests, key=str))):
        raise error
    return found


def _cuts(dim: Dim) -> list[Smallest]:
    """The minima in a size that end at a number."""
    found: list[Smallest] = []
    for atom in dim.atoms if isinstance(dim, Poly) else ():
        if isinstance(atom, Smallest) and isinstance(atom.items[-1], int):
            found.append(atom)
        elif isinstance(atom, Quotient):
            found += _cuts(atom.dividend)
    return found


def uncut(dim: Dim) -> Dim:
    """The size where nothing is missing at the end of its slices."""
    if not _cuts(dim):
        return dim
    total: Dim = 0
    for monomial, c in dim.terms if isinstance(dim, Poly) else ():
        total = total + product_of((c, *map(_uncut_atom, monomial)))
    return total


def _uncut_atom(atom: str) -> Dim:
    if isinstance(atom, Smallest) and isinstance(atom.items[-1], int):
        return atom.items[-1]
    return uncut(atom.dividend) // atom.divisor if isinstance(atom, Quotient) else Poly((((atom,), 1),))
