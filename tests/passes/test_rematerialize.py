"""Cheap values of what lies in memory anyway are made again where they are read (`fused` compares the values)."""
from graphc.compiler import Compilation
from graphc.ir.builder import Builder
from graphc.ir.parser import parse
from graphc.schedule.target import AVX2
from tests.passes.test_fuse import fused, inputs, summary

M, N = 64, 128


def stored(graph):
    """Shapes of what the clusters store."""
    return [v.type.shape for n in graph.nodes for v in n.outputs if n.op.name == "fused"]


def test_a_difference_from_a_mean_is_not_stored():
    b = Builder()
    x, w = inputs(b, (M, N), (N, N))
    product = b.matmul(x, w)
    far = b.sub(product, b.mean(product, axes=(1,), keepdims=True))
    graph = fused(b, b.mul(b.matmul(b.exp(far), w), far))
    assert summary(graph) == ["matmul", "sum+div+sub+exp", "matmul+sub+mul"]
    assert stored(graph) == [(M, 1), (M, N), (M, N)]


def test_the_derivative_of_an_activation_comes_from_its_result():
    b = Builder()
    x, w = inputs(b, (M, N), (N, N))
    s = b.sigmoid(b.matmul(x, w))
    slope = b.mul(s, b.sub(1.0, s))
    assert summary(fused(b, b.mul(b.matmul(s, w), slope))) == ["matmul+sigmoid", "matmul+sub+mul+mul"]


def test_a_costly_value_is_stored():
    b = Builder()
    x, w = inputs(b, (M, N), (N, N))
    h = b.matmul(x, w)
    power = b.exp(b.sub(h, b.max(h, axes=(1,), keepdims=True)))
    assert summary(fused(b, b.mul(b.matmul(b.add(power, 1.0), w), power))) == ["matmul", "max+sub+exp+add", "matmul+mul"]


def test_a_value_of_two_arrays_is_stored():
    b = Builder()
    x, y, w = inputs(b, (M, N), (M, N), (N, N))
    h = b.add(x, y)
    assert summary(fused(b, b.mul(b.matmul(b.exp(h), w), h))) == ["add+exp", "matmul+mul"]


def test_a_value_of_arrays_that_its_readers_have_anyway_is_not_stored():
    """One of the two is enough: the other is then read in the place of the value."""
    b = Builder()
    x, y, w = inputs(b, (M, N), (M, N), (N, N))
    h = b.add(x, y)
    assert summary(fused(b, b.mul(b.mul(b.matmul(b.exp(h), w), x), h))) == ["add+exp", "matmul+mul+add+mul"]


def test_what_a_product_reads_is_not_at_hand():
    """Its order is another one than that of the epilogue."""
    b = Builder()
    x, y = inputs(b, (N, N), (N, N))
    h = b.mul(x, y)
    assert summary(fused(b, b.mul(b.matmul(x, y), h), b.exp(h))) == ["mul+exp", "matmul+mul"]


def test_an_operand_of_a_product_is_stored_anyway():
    b = Builder()
    x, w = inputs(b, (M, N), (N, N))
    half = b.mul(b.matmul(x, w), 0.5)
    assert summary(fused(b, b.add(b.matmul(half, w), half))) == ["matmul+mul", "matmul+add"]



def test_the_order_that_is_checked_is_the_order_that_is_emitted():
    """A mask by counting arrays, which every reader copies, stands in the cluster before what is made again: then 4 rows may be its 2 × 2."""
    graph = parse("""
graph g(x: f32[4, 4, 2, 2], gamma: f32[4], beta: f32[4]) {
  %0, %1, %2 = batch_norm(x, gamma, beta) {eps=0.1} : f32[4, 4, 2, 2], f32[4], f32[4]
  %3 = tril(%0) {k=-2} : f32[4, 4, 2, 2]
  %4 = sum(%3) {axes=(0, 1, 2, 3)} : f32[]
  return %4
}""")
    assert Compilation(graph, AVX2).plan.schedules
