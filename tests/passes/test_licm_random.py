"""Random loops, with first and second gradients: as without a loop, and the same after simplifying, merging and
hoisting.
"""
import numpy as np
import pytest
from loop_samples import assert_same, graph_of, samples, square_sum, with_gradients

from graphc.ir.ops.control import Scan
from graphc.ir.types import f64
from graphc.passes.canonicalize import Canonicalize
from graphc.passes.cse import EliminateCommonSubexpressions
from graphc.passes.dce import EliminateDeadCode
from graphc.passes.decompose import Decompose
from graphc.passes.fuse_loops import FuseLoops
from graphc.passes.licm import LoopInvariantCodeMotion
from graphc.passes.pads_to_concat import PadsToConcat
from graphc.passes.pipeline import apply

PASSES = (EliminateDeadCode(), Decompose(), Canonicalize(), EliminateCommonSubexpressions(), PadsToConcat(),
          FuseLoops(), LoopInvariantCodeMotion(),
          Canonicalize(), EliminateCommonSubexpressions(), EliminateDeadCode())
N = 3                                                               # every value is [N, N], so that all operators fit
CHOICES = {
    "add": lambda b, x, y: b.add(x, y),
    "sub": lambda b, x, y: b.sub(x, y),
    "mul": lambda b, x, y: b.mul(x, y),
    "tanh": lambda b, x, y: b.tanh(x),
    "matmul": lambda b, x, y: b.matmul(x, y),
    "einsum": lambda b, x, y: b.einsum(x, y, equation="ij,kj->ik"),
    "transpose": lambda b, x, y: b.transpose(x, perm=(1, 0)),
    "rows": lambda b, x, y: b.broadcast_to(b.sum(x, axes=(0,), keepdims=True), shape=(N, N)),
    "columns": lambda b, x, y: b.sub(x, b.max(x, axes=(1,), keepdims=True)),
    "halves": lambda b, x, y: b.concat(b.slice(x, start=(1, 0), stop=(N, N), step=(1, 1)),
                                       b.slice(y, start=(0, 0), stop=(1, N), step=(1, 1)), axis=0),
    "scaled": lambda b, x, y: b.mul(x, 0.5),
    "reshape": lambda b, x, y: b.reshape(b.reshape(x, shape=(N * N,)), shape=(N, N)),
    "vector": lambda b, x, y: b.mul(y, b.matmul(x, b.sum(y, axes=(0,)))),
    "softmax": lambda b, x, y: b.softmax(x, axis=1),
}


def random_step(rng: np.random.Generator, carries: int, outputs: int, size: int):
    """A body of `size` random operators; each new carry is squashed, so that loops stay finite."""
    plan = [(rng.choice(list(CHOICES)), *rng.integers(0, 1 << 30, 2)) for _ in range(size)]
    ends = rng.integers(0, 1 << 30, carries + outputs)

    def step(b, *ins):
        values = list(ins)
        for name, i, j in plan:
            values.append(CHOICES[name](b, values[i % len(values)], values[j % len(values)]))
        made = [values[e % len(values)] for e in ends]
        return [b.tanh(v) for v in made[:carries]] + made[carries:]
    return step


def random_loop(seed: int):
    """Operand types, the scan, and a function that gives the same results without a loop."""
    rng = np.random.default_rng(seed)
    carries, xs, captured, outputs = (int(n) for n in rng.integers((1, 0, 0, 0), (4, 3, 3, 3)))
    length, reverse = int(rng.integers(1, 4)), bool(rng.integers(2))
    names = [f"{kind}{i}" for kind, n in (("c", carries), ("x", xs), ("w", captured)) for i in range(n)]
    types = {n: f64[length, N, N] if n[0] == "x" else f64[N, N] for n in names}
    body = graph_of({n: f64[N, N] for n in names}, random_step(rng, carries, outputs, int(rng.integers(3, 9))))

    op = Scan(body, carries, xs, length, reverse)
    return types, lambda b, *ins: b.apply(op, ins), lambda b, *ins: unrolled(b, op, ins)


def unrolled(b, op: Scan, ins):
    carries, xs, captured = ins[:op.carries], ins[op.carries:op.carries + op.xs], ins[op.carries + op.xs:]
    ys = {}
    for t in reversed(range(op.length)) if op.reverse else range(op.length):
        slices = [b.reshape(b.slice(x, start=(t, 0, 0), stop=(t + 1, N, N), step=(1, 1, 1)), shape=(N, N)) for x in xs]
        outs = b.inline(op.body, [*carries, *slices, *captured])
        carries, ys[t] = outs[:op.carries], outs[op.carries:]
    stacks = [b.concat(*(b.reshape(ys[t][i], shape=(1, N, N)) for t in range(op.length)), axis=0)
              for i in range(len(ys[0]))]
    return [*carries, *stacks]


def loss_of(loop):
    def loss(b, *ins):
        outs = loop(b, *ins)
        total = square_sum(b, outs[0])
        for y in outs[1:]:
            total = b.add(total, square_sum(b, b.sin(y)))
        return total
    return loss


@pytest.mark.parametrize("seed", range(30))
def test_random_loop(seed):
    types, loop, plain = random_loop(seed)
    graph, flat = (with_gradients(types, loss_of(f), 2) for f in (loop, plain))
    after = graph
    for each in PASSES:
        after = apply(each, after)
    arguments = [a * 0.5 for a in samples(graph, seed)]
    assert_same(graph, flat, arguments, 1e-8)
    assert_same(graph, after, arguments, 1e-8)
