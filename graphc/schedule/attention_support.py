"""Which composite operators can be one kernel, instead of being decomposed."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from graphc.ir.dims import typical
from graphc.ir.op import Op
from graphc.ir.ops.attention import Attention, AttentionGrad, AttentionOp
from graphc.ir.ops.factor import Cholesky, TriangularSolve
from graphc.ir.ops.matrix import BLOCK
from graphc.ir.types import TensorType, bool_, f32

LARGEST_HEAD = 512                  # features of a head: a block of queries and its sums stay in L2
STORED_QUERIES = 4                  # fewer have so few scores that a gradient reads them again


def is_whole(op: Op, types: Sequence[TensorType]) -> bool:
    """Whether the operator on operands of these types has a lowering of its own; if not, it is decomposed."""
    rule = RULES.get(type(op))
    if isinstance(op, AttentionOp) and op.factors is not None and types[0].dtype is not f32:
        return False
    return rule is not None and rule(types)


def computes_again(op: Op, types: Sequence[TensorType]) -> bool:
    """Whether the gradient of attention on operands of these types makes its scores anew."""
    return is_whole(op, types) and typical(types[0].shape[-2]) >= STORED_QUERIES


def _attention(types: Sequence[TensorType]) -> bool:
    """Heads of a known size that fit the caches."""
    q, k, v, *mask = types
    sizes = q.shape[-1], v.shape[-1]
    fits = all(isinstance(n, int) and n <= LARGEST_HEAD for n in sizes)
    return fits and all(m.rank >= 2 for m in mask) and all(prod(t.shape) > 0 for t in types)


def _gradient(types: Sequence[TensorType]) -> bool:
    """As attention, under bool masks; no operand but the mask broadcast, whose gradient would be a sum over heads."""
    leading = {t.shape[:-2] for t in (*types[:3], types[-1])}
    return all(m.dtype is bool_ for m in types[3:-3]) and _attention(types[:-3]) and len(leading) == 1


def _block(types: Sequence[TensorType]) -> bool:
    """Matrices of moderate size; larger ones are cut in halves."""
    return 0 < types[0].shape[-1] <= BLOCK


RULES: dict[type, Callable[[Sequence[TensorType]], bool]] = {
    Attention: _attention, AttentionGrad: _gradient, Cholesky: _block, TriangularSolve: _block}
