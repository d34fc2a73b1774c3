"""What fuses and what does not: the shape of the graph after the pass, its values, and what `explain` says."""
import time

import numpy as np
import pytest

import graphc as gc
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.interp import evaluate
from graphc.ir.parser import parse
from graphc.ir.printer import print_graph
from graphc.ir.types import TensorType, f32, i32, i64
from graphc.ir.verify import FUSED, verify
from graphc.passes.dce import EliminateDeadCode
from graphc.passes.decompose import Decompose
from graphc.passes.fold_transposes import FoldTransposes
from graphc.passes.fuse import Fuse, explain
from graphc.passes.pipeline import apply

M, N = 64, 48


def summary(graph: Graph) -> list[str]:
    """One line per node: the operators inside a cluster, joined; constants left out."""
    return ["+".join(n.op.name for n in node.op.body.nodes if n.op.name != "constant") if node.op.name == "fused"
            else node.op.name
            for node in graph.nodes if node.op.name != "constant"]


def fused(b: Builder, *outputs) -> Graph:
    """The fused graph, verified, with the values of the graph."""
    before = b.finish(outputs, ("",) * len(outputs))
    before = apply(EliminateDeadCode(), apply(Decompose(), before))
    after = Fuse().run(before)
    verify(after, FUSED)
    rng = np.random.default_rng(0)
    arrays = [rng.uniform(0.5, 1.5, v.type.shape).astype(v.type.dtype.np) for v in before.inputs]
    for got, want in zip(evaluate(after, arrays), evaluate(before, arrays), strict=True):
        np.testing.assert_array_equal(got, want)
    assert [v.type for v in after.outputs] == [v.type for v in before.outputs]
    assert parse(print_graph(after)) == after
    return after


def inputs(b: Builder, *shapes):
    return [b.input(f"x{k}", TensorType(f32, s)) for k, s in enumerate(shapes)]


def test_a_chain_is_one_nest():
    b = Builder()
    x, y = inputs(b, (M, N), (N,))
    assert summary(fused(b, b.exp(b.add(b.mul(x, 2.0), y)))) == ["mul+add+exp"]


def test_softmax_and_its_gradient_are_one_nest():
    b = Builder()
    x, g = inputs(b, (M, N), (M, N))
    y = b.softmax(x, axis=1)
    dx = b.mul(y, b.sub(g, b.sum(b.mul(g, y), axes=(1,), keepdims=True)))
    assert len(fused(b, y, dx).nodes) == 1


def test_sums_down_the_columns_join_the_rows():
    b = Builder()
    x, g = inputs(b, (M, N), (M, N))
    far = b.sub(x, b.sum(x, axes=(1,), keepdims=True))
    after = fused(b, far, b.sum(b.mul(far, g), axes=(0,)), b.sum(g, axes=(0,)))
    assert summary(after) == ["sum+sub+mul+sum+sum"]


def test_nobody_reads_a_column_sum_inside():
    b = Builder()
    x, = inputs(b, (M, N))
    rows = b.sub(x, b.max(x, axes=(1,), keepdims=True))
    columns = b.sum(rows, axes=(0,), keepdims=True)
    assert summary(fused(b, b.mul(rows, columns))) == ["max+sub+sum", "sub+mul"]


def test_a_loss_is_one_nest_with_its_total():
    b = Builder()
    x, = inputs(b, (M, N))
    loss = b.div(b.sum(b.logsumexp(x, axes=(1,)), axes=(0,)), float(M))
    after = fused(b, loss)
    assert len(after.nodes) == 1 and after.nodes[0].outputs[0].type.shape == ()


def test_bias_activation_and_residual_are_an_epilogue():
    b = Builder()
    x, w, bias, r = inputs(b, (M, 32), (32, N), (N,), (M, N))
    y = b.add(b.maximum(b.add(b.matmul(x, w), bias), 0.0), r)
    after = fused(b, y)
    assert summary(after) == ["matmul+add+maximum+add"]
    assert after.nodes[-1].op.kind == "contraction" and after.nodes[-1].inputs[:2] == after.inputs[:2]


def test_a_reduction_is_no_epilogue():
    b = Builder()
    x, w = inputs(b, (M, 32), (32, N))
    assert summary(fused(b, b.sum(b.matmul(x, w), axes=(1,)))) == ["matmul", "sum"]


def test_a_nest_makes_again_what_would_be_another_output():
    b = Builder()
    x, w, g = inputs(b, (M, 32), (32, N), (N,))
    z = b.matmul(x, w)
    after = fused(b, b.sum(z, axes=(1,)), b.sum(b.mul(z, g), axes=(1,)))
    assert summary(after) == ["matmul", "sum+mul+sum"] or summary(after) == ["matmul", "mul+sum+sum"]


def test_two_products_meet_in_one_epilogue():
    b = Builder()
    x, v, w = inputs(b, (M, 32), (32, N), (32, N))
    assert sorted(summary(fused(b, b.add(b.matmul(x, v), b.matmul(x, w))))) == ["matmul", "matmul+add"]


def test_convexity():
    """exp and add meet again through a product: one cluster of both would have to run before and after it."""
    b = Builder()
    x, w = inputs(b, (M, M), (M, M))
    e = b.sqrt(b.mul(x, x))
    after = fused(b, b.add(e, b.transpose(b.matmul(e, w), perm=(1, 0))))
    assert summary(after) == ["mul+sqrt", "matmul", "transpose", "add"]


def test_views_inside_and_outside():
    b = Builder()
    x, = inputs(b, (M, N))
    y = b.mul(b.reshape(b.neg(x), shape=(8, 8, N)), 2.0)
    after = fused(b, b.transpose(y, perm=(2, 0, 1)))
    assert summary(after) == ["neg+reshape+mul", "transpose"]


def test_a_value_and_its_transpose_do_not_share_a_nest():
    b = Builder()
    x, = inputs(b, (M, M))
    e = b.exp(x)
    after = fused(b, b.add(e, b.transpose(e, perm=(1, 0))))
    assert summary(after) == ["exp", "transpose", "add"]


def test_an_outer_sum_is_no_diagonal():
    b = Builder()
    x, = inputs(b, (M, 1))
    e = b.exp(x)
    assert summary(fused(b, b.add(e, b.transpose(e, perm=(1, 0))))) == ["exp", "transpose", "add"]


def test_scalars_and_counters_are_copied_into_every_reader():
    b = Builder()
    x, w = inputs(b, (M, N), (M, N))
    mask = b.lt(b.iota(shape=(M, N), axis=1, dtype=i32), 7)
    zero = b.constant(0.0, f32)
    after = fused(b, b.sum(b.where(mask, x, zero), axes=(0, 1)), b.exp(b.where(mask, w, zero)))
    assert all(len(node.inputs) == 1 for node in after.nodes) and len(after.nodes) == 2


def test_dear_values_are_not_computed_again_along_a_new_axis():
    b = Builder()
    x, g = inputs(b, (M, N), (N,))
    assert summary(fused(b, b.mul(x, b.exp(g)))) == ["exp", "mul"]
    b = Builder()
    x, g = inputs(b, (M, N), (N,))
    assert summary(fused(b, b.mul(x, b.add(g, 1.0)))) == ["add+mul"]


def test_long_rows_are_not_walked_twice():
    b = Builder()
    x, = inputs(b, (32, 1 << 17))
    after = fused(b, b.sub(x, b.max(x, axes=(1,), keepdims=True)))
    assert summary(after) == ["max", "sub"]


def test_one_pass_over_everything_does_not_wait_for_its_total():
    b = Builder()
    x, = inputs(b, (512, 512))
    assert summary(fused(b, b.div(x, b.sum(x, axes=(0, 1), keepdims=True)))) == ["sum", "div"]


def test_random_numbers_fuse():
    b = Builder()
    x = b.input("x", f32[M, N])
    key = b.input("key", i64[2])
    y = b.dropout(b.exp(x), key, rate=0.5)
    assert len(fused(b, y).nodes) == 1


def test_equal_clusters_are_equal_operators():
    b = Builder()
    x, y = inputs(b, (M, N), (M, N))
    first, second = fused(b, b.exp(b.neg(x)), b.exp(b.neg(y))).nodes
    assert first.op == second.op and hash(first.op) == hash(second.op)


def test_empty_arrays_stay_alone():
    b = Builder()
    x, = inputs(b, (0, N))
    assert len(fused(b, b.sum(b.exp(x), axes=(0,))).nodes) == 2


def test_explain_names_the_reason():
    b = Builder()
    x, = inputs(b, (32, 1 << 17))
    graph = b.finish([b.sub(x, b.max(x, axes=(1,), keepdims=True))])
    assert explain(graph) == "max -> sub (f32[32, 131072]): rows of 131072 elements would leave the cache between two passes over them"


@pytest.mark.parametrize("limit", [2, 8])
def test_clusters_are_bounded(limit):
    b = Builder()
    x, = inputs(b, (M, N))
    for _ in range(20):
        x = b.mul(x, 2.0)
    after = Fuse(max_nodes=limit).run(b.finish([x]))
    assert max(sum(n.op.name == "mul" for n in node.op.body.nodes) for node in after.nodes) == limit


def seconds_of(work) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def test_the_pass_is_nearly_linear():
    seconds = []
    for length in (400, 1600):
        b = Builder()
        x, w = inputs(b, (M, M), (M, M))
        for _ in range(length):
            x = b.add(x, b.tanh(b.matmul(x, w)))
        graph = b.finish([x])
        seconds.append(min(seconds_of(lambda: Fuse().run(graph)) for _ in range(3)))
    assert seconds[1] < 12 * seconds[0]


def test_transposed_products_turn_round():
    b = Builder()
    x, w = inputs(b, (M, 32), (N, 32))
    product = b.matmul(x, b.transpose(w, perm=(1, 0)))
    graph = b.finish([b.mul(b.transpose(product, perm=(1, 0)), 2.0)])
    after = apply(EliminateDeadCode(), FoldTransposes().run(graph))
    assert [n.op.name for n in after.nodes if n.op.name != "constant"] == ["transpose", "matmul", "mul"]
    arrays = [np.random.default_rng(0).standard_normal(v.type.shape).astype(np.float32) for v in graph.inputs]
    np.testing.assert_allclose(evaluate(after, arrays)[0], evaluate(graph, arrays)[0], rtol=1e-5, atol=1e-5)


def test_transposed_products_of_transposed_products():
    """((a b)^T c)^T ...: each product that is turned is an operand of the next one."""
    b = Builder()
    a, *others = inputs(b, (M, 32), (32, M), (M, M), (M, M), (M, M))
    x = b.transpose(b.matmul(a, others[0]), perm=(1, 0))
    turned = [x]
    for y in others[1:]:
        x = b.transpose(b.matmul(x, y), perm=(1, 0))
        turned.append(x)
    graph = b.finish([x, b.tanh(turned[1])])            # one of them is read elsewhere too
    after = apply(EliminateDeadCode(), FoldTransposes().run(graph))
    assert len([n for n in after.nodes if n.op.name == "matmul"]) == len(others)
    arrays = [np.random.default_rng(0).standard_normal(v.type.shape) for v in graph.inputs]
    for new, old in zip(evaluate(after, [x.astype(np.float32) for x in arrays]),
                        evaluate(graph, [x.astype(np.float32) for x in arrays])):
        np.testing.assert_allclose(new, old, rtol=0, atol=1e-5 * np.abs(old).max())


def test_a_product_with_another_reader_stays():
    b = Builder()
    x, w = inputs(b, (M, 32), (32, M))
    product = b.matmul(x, w)
    graph = b.finish([b.add(b.transpose(product, perm=(1, 0)), product)])
    assert FoldTransposes().run(graph) is graph


def test_what_only_feeds_an_epilogue_goes_along():
    """The decayed moment of an optimizer, and the gradient that is added to it."""
    b = Builder()
    x, g, m = inputs(b, (M, 32), (32, N), (M, N))
    old = b.mul(m, 0.9)
    assert summary(fused(b, b.add(old, b.mul(b.matmul(x, g), 0.1)))) == ["matmul+mul+mul+add"]


def test_a_constant_operand_of_a_product_lies_in_memory():
    """As in the first step of a recurrent layer. Its epilogue may read it, too."""
    b = Builder()
    w, = inputs(b, (32, N))
    h = b.broadcast_to(b.constant(0.5, f32), shape=(M, 32))
    after = fused(b, b.tanh(b.matmul(h, w)))
    cluster = after.nodes[-1]
    assert summary(after) == ["broadcast_to", "matmul+tanh"] and cluster.inputs[0].node.op.name == "broadcast_to"


def test_a_sum_of_sums_down_columns_is_a_kernel_of_its_own():
    b = Builder()
    sums = b.sum(b.input("x", f32[512, 64]), axes=(0,))
    graph = b.finish([sums, b.sum(b.mul(sums, sums), axes=(0,))], ("", ""))
    assert len(Fuse().run(graph).nodes) == 2 and "the columns that it sums are sums themselves" in explain(graph)
    b = Builder()
    sums = b.sum(b.input("x", f32[64, 512]), axes=(1,))
    assert len(Fuse().run(b.finish([sums, b.sum(b.mul(sums, sums), axes=(0,))], ("", ""))).nodes) == 1


def test_what_waits_for_all_rows_is_stored_by_a_loop_over_its_own_dims():
    """The total times an array over one of the two dims that rows run over: stored in that loop, in place, it would be
    multiplied again and again.
    """
    graph = parse("""
graph g(x: f32[3], c: f32[9, 5, 1]) {
  %0 = sigmoid(x) : f32[3]
  %1 = mul(c, %0) : f32[9, 5, 3]
  %2 = cos(%1) : f32[9, 5, 3]
  %3 = sum(%2) {axes=(1, 2)} : f32[9]
  %4 = sum(%3) {axes=(0,)} : f32[]
  %5 = sum(%2) {axes=(0, 1)} : f32[3]
  %6 = mul(%5, %0) : f32[3]
  %7 = log_softmax(x) {axis=0} : f32[3]
  %8 = mul(%4, %7) : f32[3]
  %9 = add(%6, %8) : f32[3]
  return %9
}""")
    rng = np.random.default_rng(0)
    arrays = [rng.uniform(-1, 1, v.type.shape).astype(v.type.dtype.np) for v in graph.inputs]
    np.testing.assert_allclose(gc.compile(graph)(*arrays), evaluate(graph, arrays)[0], rtol=1e-5)


@pytest.mark.parametrize("shape", [(2, 4, 4, 5, 4), (4, 2, 2), (2, 2, 4), (3, 3, 3), (6, 2, 3), (2, 3, 6)])
def test_masks_of_constants_whose_sizes_coincide(shape):
    """Nothing but numbers and counting arrays: which dim an axis runs over is a guess, and a wrong one has to leave
    kernels apart.
    """
    @gc.graph
    def masks(x: gc.f32[shape[-1]]):
        seen = gc.iota(shape[-2:], 1) <= gc.iota(shape[-2:], 0)
        return gc.tril(gc.ones(shape)), gc.where(seen, gc.zeros(shape), 1.0), gc.where(seen, gc.full(shape, 2.0), x)
    x = np.arange(shape[-1], dtype=np.float32)
    for got, want in zip(gc.compile(masks)(x), evaluate(masks.graph, [x]), strict=True):
        np.testing.assert_array_equal(got, want)
