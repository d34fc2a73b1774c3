"""LoopInvariantCodeMotion and fuse_loops: same values before and after, and the products where they belong."""
import numpy as np
import pytest
from loop_samples import (
    BATCH, HIDDEN, IN, LSTM_TYPES, STEPS, assert_same, graph_of, lstm_loss, lstm_scan, samples, square_sum,
    with_gradients)

from graphc.ir.graph import Graph, Node
from graphc.ir.interp import evaluate
from graphc.ir.ops.control import Scan
from graphc.ir.types import f64, i64
from graphc.ir.verify import BOUND, verify
from graphc.passes.canonicalize import Canonicalize
from graphc.passes.cse import EliminateCommonSubexpressions
from graphc.passes.dce import EliminateDeadCode
from graphc.passes.decompose import Decompose
from graphc.passes.fuse_loops import FuseLoops
from graphc.passes.licm import LoopInvariantCodeMotion
from graphc.passes.pads_to_concat import PadsToConcat
from graphc.passes.pipeline import apply

SIMPLIFY = (EliminateDeadCode(), Decompose(), Canonicalize(), EliminateCommonSubexpressions())


def applied(graph: Graph, *passes) -> Graph:
    for each in passes:
        graph = apply(each, graph)
        verify(graph, BOUND)
    return graph


def hoisted(graph: Graph) -> Graph:
    """After the passes around licm, checked to compute what it did."""
    after = applied(graph, *SIMPLIFY, FuseLoops(), LoopInvariantCodeMotion(), EliminateCommonSubexpressions(),
                    EliminateDeadCode())
    assert_same(graph, after, samples(graph))
    return after


def scans(graph: Graph) -> list[Node]:
    return [n for n in graph.nodes if isinstance(n.op, Scan)]


def names(graph: Graph) -> list[str]:
    return [n.op.name for n in graph.nodes]


def products(graph: Graph) -> int:
    return sum(name in ("matmul", "einsum") for name in names(graph))


def scanned(types, step, carries: int, xs: int, length: int, **attributes) -> Graph:
    """A graph that is one scan: types of the operands, the body on types without the axis of the steps."""
    inner = {n: t.with_shape(t.shape[1:]) if carries <= i < carries + xs else t
             for i, (n, t) in enumerate(types.items())}
    body = graph_of(inner, step)
    return graph_of(types, lambda b, *ins: b.scan(*ins, body=body, carries=carries, xs=xs, length=length, **attributes))


def test_lstm_forward_takes_its_input_product_before_the_loop():
    graph = hoisted(graph_of(LSTM_TYPES, lstm_scan))
    loop, = scans(graph)
    assert products(loop.op.body) == 1 and "matmul" in names(graph)[:names(graph).index("scan")]
    assert [v.name for v in loop.op.body.inputs[loop.op.carries + loop.op.xs:]] == ["U", "b"]


def test_lstm_gradient_has_one_product_of_stacks_per_weight():
    graph = hoisted(with_gradients(LSTM_TYPES, lstm_loss(lstm_scan)))
    forward, reverse = scans(graph)
    assert products(forward.op.body) == products(reverse.op.body) == 1
    assert reverse.op.carries == 2                                   # dh and dc: no weight gradient is carried
    shapes = [tuple(v.type.shape for v in n.inputs) for n in graph.nodes if n.op.name == "matmul"]
    rows, gates = STEPS * BATCH, 4 * HIDDEN
    assert ((IN, rows), (rows, gates)) in shapes and ((HIDDEN, rows), (rows, gates)) in shapes
    assert ((STEPS, BATCH, gates), (gates, IN)) in shapes           # dx, after the loop


def test_forward_scan_runs_once():
    graph = applied(with_gradients(LSTM_TYPES, lstm_loss(lstm_scan)), *SIMPLIFY)
    merged = FuseLoops().run(graph)
    assert len(scans(graph)) == 3 and len(scans(merged)) == 2
    assert_same(graph, merged, samples(graph))


def test_second_order():
    graph = hoisted(with_gradients(LSTM_TYPES, lstm_loss(lstm_scan), 2))
    assert len(scans(graph)) == 5
    assert all(loop.op.carries == 2 for loop in scans(graph))


def test_scans_that_differ_stay_apart():
    types = {"h": f64[2], "x": f64[3, 2]}
    step = {"h": f64[2], "x": f64[2]}
    one = graph_of(step, lambda b, h, x: (b.add(h, x), h))
    other = graph_of(step, lambda b, h, x: (b.mul(h, x), h))

    def build(b, h, x):
        return [v for body in (one, other) for v in b.scan(h, x, body=body, carries=1, xs=1, length=3)]
    graph = graph_of(types, build)
    assert FuseLoops().run(graph) is graph


def test_scans_that_share_carries_become_one():
    types = {"h": f64[2], "x": f64[3, 2], "z": f64[3, 2]}
    one = graph_of({"h": f64[2], "x": f64[2]}, lambda b, h, x: (b.add(h, x), b.sin(h)))
    other = graph_of({"h": f64[2], "x": f64[2], "z": f64[2]}, lambda b, h, x, z: (b.add(h, x), b.mul(h, z), b.sin(h)))

    def build(b, h, x, z):
        return [*b.scan(h, x, body=one, carries=1, xs=1, length=3),
                *b.scan(h, x, z, body=other, carries=1, xs=2, length=3)]
    graph = graph_of(types, build)
    merged = FuseLoops().run(graph)
    loop, = scans(merged)
    assert (loop.op.carries, loop.op.xs, len(loop.outputs)) == (1, 2, 3)
    assert names(loop.op.body) == ["add", "sin", "mul"]
    assert_same(graph, merged, samples(graph))


@pytest.mark.parametrize("x, w", (((3, 4), (4, 5)), ((4,), (4, 5)), ((2, 3, 4), (4, 5)), ((3, 4), (4,)), ((4,), (4,)),
                                  ((3, 4), (2, 4, 5)), ((2, 3, 4), (2, 4, 5))))
@pytest.mark.parametrize("swap", (False, True))
def test_products_of_any_rank_move(x, w, swap):
    out = np.matmul(np.zeros(x), np.zeros(w)).shape
    if swap and (len(x) < 2 or len(w) < 2):
        pytest.skip("transposing swaps matrices only")
    turn = lambda s: (*s[:-2], s[-1], s[-2]) if swap else s
    types = {"h": f64[turn(out)], "x": f64[(6, *turn(x))], "w": f64[turn(w)]}

    def step(b, h, x, w):
        return b.add(b.mul(h, 0.5), b.tanh(b.matmul(w, x) if swap else b.matmul(x, w)))
    loop, = scans(hoisted(scanned(types, step, 1, 1, 6)))
    assert products(loop.op.body) == 0


def test_what_follows_and_precedes_a_product_moves_with_it_cheap_work_stays():
    types = {"h": f64[3], "x": f64[6, 2], "w": f64[2, 3], "b": f64[3]}

    def step(b, h, x, w, bias):
        z = b.add(b.matmul(b.sin(x), w), bias)
        return b.add(b.mul(h, b.sum(b.cos(x), axes=(0,))), z)
    graph = hoisted(scanned(types, step, 1, 1, 6))
    loop, = scans(graph)
    assert names(loop.op.body) == ["cos", "sum", "mul", "add"]
    assert names(graph) == ["sin", "matmul", "add", "scan"]


def test_what_is_the_same_in_every_step_moves():
    types = {"h": f64[3], "x": f64[6, 3], "w": f64[3, 3]}
    graph = hoisted(scanned(types, lambda b, h, x, w: b.add(x, b.matmul(h, b.exp(w))), 1, 1, 6))
    loop, = scans(graph)
    assert names(loop.op.body) == ["matmul", "add"] and names(graph) == ["exp", "scan"]


def test_output_product_moves_behind_the_loop():
    types = {"h": f64[2, 3], "x": f64[6, 2, 3], "w": f64[3, 3], "v": f64[3, 5], "b": f64[5]}

    def step(b, h, x, w, v, bias):
        h = b.tanh(b.add(x, b.matmul(h, w)))
        return h, b.sin(b.add(b.matmul(h, v), bias))
    graph = hoisted(scanned(types, step, 1, 1, 6))
    loop, = scans(graph)
    assert names(loop.op.body) == ["matmul", "add", "tanh"]
    assert names(graph)[-3:] == ["matmul", "add", "sin"]


def accumulation(step, types, length=6, **attributes):
    """A carried sum of step(...) beside a recurrence h, so that terms depend on carries; what remains of the loop."""
    def body(b, total, h, x, *captured):
        h = b.tanh(b.add(b.mul(h, 0.5), x))
        return b.add(total, step(b, h, x, *captured)), h
    return hoisted(scanned(types, body, 2, 1, length, **attributes))


HX = {"h": f64[2, 3], "x": f64[6, 2, 3]}


@pytest.mark.parametrize("reverse", (False, True))
def test_sum_of_outer_products(reverse):
    graph = accumulation(lambda b, h, x: b.matmul(b.transpose(h, perm=(1, 0)), x), {"total": f64[3, 3], **HX},
                         reverse=reverse)
    loop, = scans(graph)
    assert loop.op.carries == 1 and products(loop.op.body) == 0
    product = next(n for n in graph.nodes if n.op.name == "matmul")
    assert [v.type.shape for v in product.inputs] == [(3, 12), (12, 3)]


@pytest.mark.parametrize("step, total", (
    (lambda b, h, x: b.matmul(h, b.transpose(x, perm=(1, 0))), f64[2, 2]),
    (lambda b, h, x: b.einsum(h, x, equation="bi,bj->ij"), f64[3, 3]),
    (lambda b, h, x: b.neg(b.transpose(b.matmul(b.transpose(h, perm=(1, 0)), x), perm=(1, 0))), f64[3, 3]),
    (lambda b, h, x: b.pad(b.matmul(h, b.transpose(x, perm=(1, 0))), low=(1, 0), high=(0, 2), value=0), f64[3, 4]),
    (lambda b, h, x: b.mul(b.matmul(h, b.transpose(x, perm=(1, 0))), 0.25), f64[2, 2]),
    (lambda b, h, x: b.div(b.matmul(h, b.transpose(x, perm=(1, 0))), 4.0), f64[2, 2]),
    (lambda b, h, x: b.sum(b.matmul(h, b.transpose(x, perm=(1, 0))), axes=(1,)), f64[2]),
    (lambda b, h, x: b.add(b.matmul(h, b.transpose(x, perm=(1, 0))), b.matmul(x, b.transpose(h, perm=(1, 0)))),
     f64[2, 2]),
    (lambda b, h, x: b.sub(b.matmul(h, b.transpose(x, perm=(1, 0))), b.matmul(x, b.transpose(h, perm=(1, 0)))),
     f64[2, 2]),
    (lambda b, h, x: b.slice(b.matmul(h, b.transpose(x, perm=(1, 0))), start=(0, 1), stop=(2, 2), step=(1, 1)),
     f64[2, 1]),
    (lambda b, h, x: b.add(b.matmul(h, b.transpose(x, perm=(1, 0))), b.sum(x, axes=(1,))), f64[2, 2]),
    (lambda b, h, x: b.sum(b.matmul(h, b.transpose(x, perm=(1, 0))), axes=(0,), keepdims=True), f64[2, 2]),
    (lambda b, h, x: b.matmul(b.reshape(h, shape=(2, 3, 1)), b.reshape(x, shape=(2, 1, 3))), f64[2, 3, 3]),
    (lambda b, h, x: b.concat(b.matmul(h, b.transpose(x, perm=(1, 0))), h, axis=1), f64[2, 5]),
    (lambda b, h, x: b.matmul(b.reshape(b.sum(h, axes=(0,)), shape=(3, 1)),
                              b.reshape(b.sum(x, axes=(0,)), shape=(1, 3))), f64[3, 3]),
))
def test_sums_of_linear_functions_of_products(step, total):
    loop, = scans(accumulation(step, {"total": total, **HX}))
    assert loop.op.carries == 1 and products(loop.op.body) == 0


def test_sum_of_rows_added_to_a_table():
    def body(b, total, h, i, x):
        h = b.tanh(b.add(h, x))
        zeros = b.broadcast_to(b.constant(0.0, f64), shape=(7, 3))
        return b.add(total, b.scatter_add(zeros, i, h, axis=0)), h
    types = {"total": f64[7, 3], "h": f64[2, 3], "i": i64[6, 2], "x": f64[6, 2, 3]}
    graph = scanned(types, body, 2, 2, 6)
    after = applied(graph, *SIMPLIFY, LoopInvariantCodeMotion())
    arguments = samples(graph)
    arguments[2] = np.random.default_rng(0).integers(0, 7, (6, 2))
    assert_same(graph, after, arguments)
    loop, = scans(after)
    assert loop.op.carries == 1 and "scatter_add" in names(after)


def test_sum_of_convolution_gradients():
    types = {"w": f64[2, 3, 2, 2], "h": f64[1, 2, 3, 3], "x": f64[4, 1, 3, 4, 4]}

    def loss(b, w, h, x):
        body = graph_of({"h": h.type, "x": f64[1, 3, 4, 4], "w": w.type},
                        lambda b, h, x, w: b.tanh(b.add(h, b.conv2d(x, w))))
        return square_sum(b, b.scan(h, x, w, body=body, carries=1, xs=1, length=4))
    graph = hoisted(with_gradients(types, loss))
    assert names(graph).count("conv2d_weight_grad") == 1
    assert all("conv2d_weight_grad" not in names(loop.op.body) for loop in scans(graph))


def test_sums_of_cheap_values_stay_unless_they_are_stacked_anyway():
    alone = accumulation(lambda b, h, x: b.sum(b.exp(h), axes=(0,)), {"total": f64[3], **HX})
    assert scans(alone)[0].op.carries == 2
    of_input = accumulation(lambda b, h, x: b.sum(x, axes=(0,)), {"total": f64[3], **HX})
    assert scans(of_input)[0].op.carries == 1 and "sum" in names(of_input)


def test_a_sum_of_products_and_other_terms_is_parted():
    """The product goes, what would have to be stacked only to be summed stays."""
    def step(b, h, x):
        return b.add(b.matmul(b.transpose(h, perm=(1, 0)), x), b.exp(b.matmul(x, b.transpose(h, perm=(1, 0)))))
    graph = accumulation(step, {"total": f64[2, 2], "h": f64[2, 2], "x": f64[6, 2, 2]})
    loop, = scans(graph)
    assert loop.op.carries == 2 and products(loop.op.body) == 1 and names(graph)[-2:] == ["matmul", "add"]


@pytest.mark.parametrize("body", (
    lambda b, t, h, x: (b.add(t, b.matmul(h, x)), b.add(h, t)),                   # another carry reads the sum
    lambda b, t, h, x: (b.add(t, b.matmul(h, b.add(x, t))), h),                   # a term reads it
    lambda b, t, h, x: (b.add(t, b.matmul(h, x)), b.tanh(h), t),                  # each partial sum is an output
    lambda b, t, h, x: (b.mul(t, b.matmul(h, x)), b.tanh(h)),                     # not a sum
))
def test_carries_that_are_not_mere_sums_stay(body):
    graph = hoisted(scanned({"t": f64[3, 3], "h": f64[3, 3], "x": f64[5, 3, 3]}, body, 2, 1, 5))
    assert scans(graph)[0].op.body.outputs[0].type == f64[3, 3] and names(scans(graph)[0].op.body).count("matmul") == 1


def test_large_products_stay_in_the_loop():
    """A scan over layers: rows enough in every step; stacking all layers' activations would only cost memory."""
    rows, width, layers = 512, 64, 2
    types = {"h": f64[rows, width], "w": f64[layers, width, width], "v": f64[width, width]}

    def loss(b, h, w, v):
        body = graph_of({"h": h.type, "w": f64[width, width], "v": v.type},
                        lambda b, h, w, v: (b.tanh(b.matmul(b.matmul(h, w), v)),))
        return square_sum(b, b.scan(h, w, v, body=body, carries=1, xs=1, length=layers))
    graph = hoisted(with_gradients(types, loss))
    forward, reverse = scans(graph)
    assert reverse.op.carries == 2 and products(reverse.op.body) == 4 and products(graph) == 0


def test_constant_carries_and_dead_results_go():
    types = {"h": f64[2], "k": f64[2], "dead": f64[2], "x": f64[3, 2], "y": f64[3, 2]}

    def step(b, h, k, dead, x, y):
        return b.add(b.mul(h, k), x), k, b.add(dead, y), b.exp(y)
    inner = graph_of({n: f64[2] for n in types}, step)
    graph = graph_of(types, lambda b, *ins: b.scan(*ins, body=inner, carries=3, xs=2, length=3)[:2])
    loop, = scans(hoisted(graph))
    assert (loop.op.carries, loop.op.xs, len(loop.inputs), len(loop.outputs)) == (1, 1, 3, 1)


def test_loop_without_a_step():
    types = {"h": f64[2, 3], "x": f64[0, 2, 3], "w": f64[3, 3]}

    def loss(b, h, x, w):
        body = graph_of({"h": h.type, "x": f64[2, 3], "w": w.type},
                        lambda b, h, x, w: (b.tanh(b.add(b.matmul(x, w), b.matmul(h, w))), b.matmul(h, w)))
        h, ys = b.scan(h, x, w, body=body, carries=1, xs=1, length=0)
        return b.add(square_sum(b, h), square_sum(b, ys))
    hoisted(with_gradients(types, loss))


def test_inner_loops_are_hoisted_too():
    inner = graph_of({"h": f64[3], "x": f64[2], "w": f64[2, 3]}, lambda b, h, x, w: (b.add(b.tanh(h), b.matmul(x, w)),))
    types = {"h": f64[3], "x": f64[4, 5, 2], "w": f64[2, 3]}

    def step(b, h, x, w):
        return b.scan(h, x, w, body=inner, carries=1, xs=1, length=5)
    graph = hoisted(scanned(types, step, 1, 1, 4))
    outer, = scans(graph)
    inside, = scans(outer.op.body)
    assert products(inside.op.body) == 0 and products(outer.op.body) + products(graph) == 1


def test_graph_without_loops_is_returned_as_it_is():
    graph = graph_of({"x": f64[2]}, lambda b, x: b.exp(x))
    assert LoopInvariantCodeMotion().run(graph) is graph and evaluate(graph, [np.zeros(2)])[0].tolist() == [1, 1]


def test_a_term_that_is_added_twice_counts_twice():
    types = {"s": f64[HIDDEN], "x": f64[STEPS, IN], "w": f64[IN, HIDDEN]}

    def step(b, s, x, w):
        p = b.matmul(x, w)
        return b.add(b.add(s, p), p)
    graph = hoisted(scanned(types, step, carries=1, xs=1, length=STEPS))
    assert not scans(graph)


TABLE, PART = 50, 4


def part(b, table, start, step=1):
    return b.slice(table, start=(start,), stop=(start + step * (PART - 1) + 1,), step=(step,))


READS = {
    "one slice": (lambda b, t: part(b, t, 3), 1),
    "every third element": (lambda b, t: part(b, t, 2, 3), 1),
    "slices apart": (lambda b, t: b.mul(part(b, t, 3), part(b, t, 30)), 2),
    "slices that overlap": (lambda b, t: b.add(b.mul(part(b, t, 3), part(b, t, 5)), part(b, t, 20)), 3),
    "one element": (lambda b, t: b.broadcast_to(b.slice(t, start=(7,), stop=(8,), step=(1,)), shape=(PART,)), 1),
}


@pytest.mark.parametrize("read, sums", READS.values(), ids=READS)
@pytest.mark.parametrize("kept", [False, True])
def test_the_gradient_of_slices_is_summed_without_what_is_around_them(read, sums, kept):
    """No step touches all of the table, whether a gradient comes to the table from outside as well or not."""
    types = {"h": f64[PART], "t": f64[TABLE]}

    def loss(b, h, t):
        body = graph_of(types, lambda b, h, t: (b.tanh(b.add(h, read(b, t))),))
        last = square_sum(b, b.scan(h, t, body=body, carries=1, xs=0, length=STEPS))
        return b.add(last, square_sum(b, t)) if kept else last
    graph = applied(with_gradients(types, loss), *SIMPLIFY, PadsToConcat(), FuseLoops(), LoopInvariantCodeMotion(),
                    EliminateCommonSubexpressions(), EliminateDeadCode())
    assert_same(with_gradients(types, loss), graph, samples(graph))
    reverse = scans(graph)[-1]
    values = [v for node in reverse.op.body.nodes for v in node.outputs]
    assert max(v.type.size for v in values) <= PART and reverse.op.carries == 1 + sums


def test_what_is_repeated_in_each_step_is_summed_before_it_is_repeated():
    types = {"s": f64[3, 5], "row": f64[1, 5]}

    def step(b, s, row):
        row = b.tanh(row)
        return b.add(s, b.broadcast_to(row, shape=(3, 5))), row
    body = graph_of(types, step)
    graph = hoisted(graph_of(types, lambda b, *ins: b.scan(*ins, body=body, carries=2, xs=0, length=STEPS)))
    loop, = scans(graph)
    assert max(v.type.size for n in loop.op.body.nodes for v in n.outputs) == 5
