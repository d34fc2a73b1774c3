"""Whether attention is one kernel, or products with a softmax between them: by what both cost."""
from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from math import prod

from graphc.ir import contraction
from graphc.ir.builder import Builder
from graphc.ir.dims import typical
from graphc.ir.graph import Graph
from graphc.ir.op import Op
from graphc.ir.ops.attention import Attention, AttentionGrad, AttentionOp
from graphc.ir.types import DType, TensorType, bool_, f32
from graphc.records import dataclass
from graphc.schedule.attention_support import is_whole
from graphc.schedule.attention_tiles import ForwardProblem, gradient_ranking
from graphc.schedule.choose_attention import QUERY_BLOCK
from graphc.schedule.choose_contraction import contraction_schedule, form_cycles
from graphc.schedule.choose_nest import cluster_schedule
from graphc.schedule.cost import Candidate, Ranking, ranked
from graphc.schedule.target import Target
from graphc.schedule.view import ViewType, contiguous_strides

WHOLE, PARTS = "one kernel", "in parts"
SHARED = ("scores", "hidden values")    # what attention and its gradient in parts both read
ROUND_OPS = 4                   # vector operations of a rounded factor
ROWS_LOSS = 1.25                # how many times as long as those of long runs bytes of some rows side by side take

Terms = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Sizes:
    """Typical numbers of heads, queries, keys, features and values. mask: its shape, for each head or for all. hides:
    keys and values are taken for 0 where it hides them."""
    heads: int
    queries: int
    keys: int
    features: int
    values: int
    dtype: DType
    mask: TensorType | None = None
    hides: bool = False

    @staticmethod
    def of(types: Sequence[TensorType], hides: bool = False) -> Sizes:
        q, k, v, *rest = types
        heads = max([prod(map(typical, t.shape[:-2])) for t in (q, k, v)])
        (queries, features), (keys, values) = (tuple(map(typical, t.shape[-2:])) for t in (q, v))
        mask = None
        if rest and len(rest) in (1, 4):
            each = heads if prod(map(typical, rest[0].shape[:-2])) > 1 else 1
            mask = TensorType(rest[0].dtype, (each, *map(typical, rest[0].shape[-2:])))
        return Sizes(heads, queries, keys, features, values, q.dtype if q.dtype.bits >= 32 else f32, mask, hides)

    @property
    def scores(self) -> TensorType:
        return TensorType(self.dtype, (self.heads, self.queries, self.keys))


def is_kept(op: Op, types: Sequence[TensorType], beside: Op | None = None, *, target: Target) -> bool:
    """Whether the operator on operands of these types is one kernel; if not, it is decomposed. Of any number of queries
    it is: nobody knows how many scores there would be. beside: its gradient, or what it is the gradient of."""
    if not is_whole(op, types) or not isinstance(op, AttentionOp) or not isinstance(types[0].shape[-2], int):
        return is_whole(op, types)
    if isinstance(beside, AttentionOp):
        return _together(op, types, target).best.schedule[isinstance(op, AttentionGrad)] is WHOLE
    return attention_forms(op, types, target).best.schedule is WHOLE


def _together(op: AttentionOp, types: Sequence[TensorType], target: Target) -> Ranking[tuple[str, str]]:
    """The forms of attention and of its gradient on the same operands: those in parts read the same scores."""
    operands = types[:-3] if isinstance(op, AttentionGrad) else types
    attributes = op.scale, op.causal, op.factors, op.hides_values
    attention, gradient = Attention(*attributes), AttentionGrad(*attributes)
    out, lse = attention.infer(*operands)
    given = (*operands, out, lse, out)
    forward, backward = attention_forms(attention, operands, target), attention_forms(gradient, given, target)
    candidates = [Candidate(f"{a.name}, gradient {b.name}", (a.schedule, b.schedule), (*a.terms, *[
        term for term in b.terms if not (term[0] in SHARED and a.schedule == b.schedule == PARTS)]))
        for a, b in product(forward.candidates, backward.candidates)
        if b.schedule == PARTS or is_whole(gradient, given)]
    return ranked(candidates)


def attention_forms(op: AttentionOp, types: Sequence[TensorType], target: Target) -> Ranking[str]:
    """Both forms, the chosen one first: of equals the one that holds no scores."""
    sizes = Sizes.of(types, op.hides_values)
    return _forms(op.causal, isinstance(op, AttentionGrad), op.factors is not None, sizes, target)


@lru_cache(maxsize=256)
def _forms(causal: bool, gradient: bool, rounds: bool, s: Sizes, target: Target) -> Ranking[str]:
    """rounds: factors are rounded, by kernels of their own where products are. Pairs or matrices of them are multiplied
    in either form."""
    whole, parts = ((_gradient_whole, _gradient_parts) if gradient else (_forward_whole, _forward_parts))
    rounded = _rounding(s, target) if rounds else ()
    return ranked([Candidate(WHOLE, WHOLE, whole(s, causal, target)),
                   Candidate(PARTS, PARTS, (*parts(s, target), *rounded))])


# --- one kernel -------------------------------------------------------------------------------------------------------

def _forward_whole(s: Sizes, causal: bool, target: Target) -> Terms:
    lanes = target.lanes(s.dtype.itemsize)
    problem = ForwardProblem(target, lanes, s.heads, s.queries, s.keys, s.features, s.values, causal, True, False)
    best = problem.ranking.best
    panels = s.heads * -(-s.queries // (best.schedule.vectors * lanes))
    copied = (("hidden values", _copies(s, lanes, target) / min(target.machine.planned_cores, panels)),) * s.hides
    return (*_shared(best, panels, causal, target), *_reads(s, 1, panels, target), *copied)


def _copies(s: Sizes, lanes: int, target: Target) -> float:
    """Of each block of keys for each block of queries: the values, which stay in L2, with 0 for those that are hidden.
    """
    blocks = s.heads * -(-s.queries // QUERY_BLOCK)
    return blocks * s.keys * -(-s.values // lanes) * 2 / target.machine.loads_per_cycle


def _gradient_whole(s: Sizes, causal: bool, target: Target) -> Terms:
    """Keys are the columns: they and their values are transposed once, and so are their gradients."""
    lanes, machine = target.lanes(s.dtype.itemsize), target.machine
    best = gradient_ranking(target, lanes, s.heads * s.queries, s.keys, (s.features, s.values), causal, False).best
    panels = s.heads * -(-s.keys // (best.schedule[1] * lanes))
    turned = s.heads * s.keys * (s.features + s.values) * (machine.transpose_cycles + machine.transposed_store_cycles)
    return (*_shared(best, panels, causal, target), ("turn", turned / min(machine.planned_cores, panels)),
            *_reads(s, 2, panels, target))


def _shared(best: Candidate[object], panels: int, causal: bool, target: Target) -> Terms:
    """Those of its tiles, by as many cores as there are panels for; a causal mask hides half."""
    planned = target.machine.planned_cores
    share = planned / min(planned, panels) / (2 if causal else 1)
    return tuple([(name, share * cycles) for name, cycles in best.terms])


def _reads(s: Sizes, passes: int, panels: int, target: Target) -> Terms:
    """Operands come once from the cores that made them, and results are written; a gradient has twice as many."""
    machine, row = target.machine, s.features + s.values
    read = s.heads * (s.queries * (s.features + (passes - 1) * 2 * s.values) + s.keys * row) * s.dtype.itemsize
    written = s.heads * (s.queries * s.values + (passes - 1) * s.keys * row) * s.dtype.itemsize
    cores = min(machine.planned_cores, panels)
    return (("reads", ROWS_LOSS * read * machine.remote_byte_cycles / cores),
            ("store", written / machine.l3_bytes_per_cycle / cores),
            ("hand-over", machine.handover_cycles * (cores > 1)))


# --- in parts ---------------------------------------------------------------------------------------------------------

def _forward_parts(s: Sizes, target: Target) -> Terms:
    b = Builder("softmax")
    x = b.input("scores", s.scores)
    if s.mask is not None:
        mask = b.input("mask", s.mask)
        x = b.where(mask, x, b.constant(-1.0, s.dtype)) if s.mask.dtype == bool_ else b.add(x, mask)
    e = b.exp(b.sub(x, b.max(x, axes=(2,), keepdims=True)))
    softmax = b.finish([b.div(e, b.sum(e, axes=(2,), keepdims=True))])
    copied = (("hidden values", _nest(_hiding(s, s.mask, s.values), target)),) * (
        s.hides and s.queries > 1) if s.mask else ()
    return (("scores", _product(s, (s.queries, s.keys, s.features), "b", target)), ("softmax", _nest(softmax, target)),
            ("values", _product(s, (s.queries, s.values, s.keys), "", target)), *copied)


def _hiding(s: Sizes, mask: TensorType, width: int) -> Graph:
    """The kernel that stores keys or values, so wide, with 0 where they are hidden. One query reads values as they are
    computed."""
    b = Builder("hiding")
    heads, _, keys = mask.shape
    seen = b.input("seen", TensorType(bool_, (heads, keys, 1)))
    rows = b.input("rows", TensorType(s.dtype, (s.heads, s.keys, width)))
    return b.finish([b.where(seen, rows, b.constant(0.0, s.dtype))])


def _gradient_parts(s: Sizes, target: Target) -> Terms:
    b, row = Builder("gradient"), TensorType(s.dtype, (s.heads, s.queries, 1))
    x, lse, given, delta = (b.input(name, t) for name, t in (("scores", s.scores), ("lse", row), ("given", s.scores),
                                                              ("delta", row)))
    p = b.exp(b.sub(x, lse))
    nest = b.finish([p, b.mul(p, b.sub(given, delta))])
    q, k, d, v = s.queries, s.keys, s.features, s.values
    products = {"scores": ((q, k, d), "b"), "of probabilities": ((q, k, v), "b"), "dq": ((q, d, k), ""),
                "dk": ((k, d, q), "a"), "dv": ((k, v, q), "a")}
    return (*[(name, _product(s, sizes, turned, target)) for name, (sizes, turned) in products.items()],
            ("softmax", _nest(nest, target)), *_hidden_of_gradient(s, target))


def _hidden_of_gradient(s: Sizes, target: Target) -> Terms:
    """Values, which attention reads, too; keys; and the gradients of both."""
    if not s.hides or s.mask is None:
        return ()
    keys, values = (_nest(_hiding(s, s.mask, width), target) for width in (s.features, s.values))
    return ("hidden values", values), ("hidden keys", keys), ("hidden gradients", keys + values)


def _rounding(s: Sizes, target: Target) -> Terms:
    """Of operands and probabilities, which are stored again in half of the bytes."""
    machine = target.machine
    elements = s.heads * (s.keys * (s.features + s.values) + s.queries * (s.features + s.keys))
    each = ROUND_OPS * machine.vector_op_cycles / target.lanes(s.dtype.itemsize)
    moved = 1.5 * s.dtype.itemsize / machine.l3_bytes_per_cycle
    return (("round", elements * (each + moved) / machine.planned_cores),)


def _product(s: Sizes, sizes: tuple[int, int, int], turned: str, target: Target) -> float:
    """Of the matrices of all heads, rows × columns × steps; turned: the operand that lies the other way round."""
    m, n, k = sizes
    shapes = (s.heads, m, k), (s.heads, k, n)
    a, b = ((rows * columns, 1, rows) if name == turned else (rows * columns, columns, 1)
            for name, (_, rows, columns) in zip("ab", shapes))
    made = contraction_schedule(contraction.matmul(*shapes), shapes[0], a, shapes[1], b, (m * n, n, 1), s.dtype, target)
    return form_cycles(made, target) or 0.0


def _nest(body: Graph, target: Target) -> float:
    ins, outs = (tuple([ViewType(v.type.dtype, v.type.shape, contiguous_strides(v.type.shape)) for v in values])
                 for values in (body.inputs, body.outputs))
    return sum([ranking.best.total for ranking in cluster_schedule(body, ins, outs, target).rankings])
