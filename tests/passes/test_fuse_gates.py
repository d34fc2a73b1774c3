"""Products whose slices an elementwise cluster reads: what merges, what does not, and native values against the oracle.
"""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc import nn
from graphc.compiler import Compilation
from graphc.ir.graph import Graph, regions
from graphc.ir.interp import evaluate
from graphc.ir.ops.fused import slices_in
from graphc.ir.parser import parse
from graphc.ir.printer import print_graph
from graphc.passes.fuse import Fuse
from graphc.passes.fuse_gates import FuseGates
from graphc.passes.pipeline import apply
from graphc.schedule.target import AVX2, AVX512, TARGETS

RNG = np.random.default_rng(5)


def merged(graph: Graph, target=AVX2) -> list[int]:
    """How many gates each merged cluster has, those in loops too."""
    fused = Compilation(graph, target=target).fused
    assert parse(print_graph(fused)) == fused
    return _counts(fused)


def _counts(graph: Graph) -> list[int]:
    found = []
    for node in graph.nodes:
        gates = slices_in(node.op.body) if node.op.name == "fused" and node.op.kind == "contraction" else ()
        found += [len(gates)] * bool(gates)
        for _, inner in () if node.op.name == "fused" else regions(node.op):
            found += _counts(inner)
    return found


def cell(gates: int, rows: int, width: int, steps: int, dtype=gc.f32, transposed: bool = True, also=lambda parts: ()):
    """The graph of a product in `gates` parts, each added to its own part of x, and the first, squashed, times the
    others.
    """
    columns = gates * width
    weights = (columns, steps) if transposed else (steps, columns)

    @gc.graph
    def run(h: gc.TensorType(dtype, (rows, steps)), w: gc.TensorType(dtype, weights),
            x: gc.TensorType(dtype, (rows, columns)),
            bias: gc.TensorType(dtype, (columns,)), c: gc.TensorType(dtype, (rows, width))):
        product = gc.matmul(h, w.T if transposed else w) + x + bias
        parts = gc.split(product, gates, axis=1)
        total = gc.sigmoid(parts[0]) * c
        for part in parts[1:]:
            total = total * gc.tanh(part) + part
        return (total, gc.tanh(total), *also(parts))
    return run


def arrays(graph: Graph) -> list[np.ndarray]:
    return [RNG.uniform(-0.3, 0.3, v.type.shape).astype(v.type.dtype.np) for v in graph.inputs]


def check(run, threads: int = 2) -> None:
    """Two ways to add up sums of small numbers differ by some units in the last place times the root of their length.
    """
    ins = arrays(run.graph)
    compiled = gc.compile(run, threads=threads)
    found = compiled(*ins)
    for got, want in zip(found if isinstance(found, tuple) else (found,), evaluate(run.graph, ins), strict=True):
        bound = 3 * np.finfo(got.dtype).eps * ins[0].shape[-1] ** 0.5
        np.testing.assert_allclose(got, want, rtol=0, atol=bound * max(1, np.abs(want).max(initial=0)))


@pytest.mark.parametrize("gates", [2, 3, 4, 5])
@pytest.mark.parametrize("rows", [1, 3, 4, 7, 33])
@pytest.mark.parametrize("width", [48, 64])
@pytest.mark.parametrize("transposed", [True, False])
def test_values(gates, rows, width, transposed):
    check(cell(gates, rows, width, 40, transposed=transposed))


def test_values_of_doubles():
    check(cell(3, 9, 32, 24, dtype=gc.f64))


def test_values_of_long_sums_and_many_columns():
    check(cell(4, 20, 256, 1100))


def test_a_part_that_others_read_is_an_output():
    run = cell(3, 8, 32, 16, also=lambda parts: (parts[2],))
    assert merged(run.graph) == [3]
    check(run)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_gates_of_whole_vectors_merge(target):
    lanes = target.lanes(4)
    assert merged(cell(3, 24, 4 * lanes, 64).graph, target) == [3]
    assert merged(cell(3, 24, 4 * lanes + 1, 64).graph, target) == []


def test_results_do_not_depend_on_threads():
    run = cell(4, 48, 128, 96)
    assert merged(run.graph, AVX512) == [4]
    ins = arrays(run.graph)
    one, *others = [gc.compile(run, threads=t)(*ins) for t in (1, 2, 3, 4)]
    for other in others:
        for a, b in zip(one, other):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("layer, gates", [(nn.LSTM, 4), (nn.GRU, 3)])
@pytest.mark.parametrize("rows", [1, 20])
def test_steps_of_a_recurrence(layer, gates, rows, monkeypatch):
    """Inference: one kernel a step. Training keeps every gate, and its own kernel for them."""
    net = layer(64)

    @gc.graph
    def infer(x: gc.f32[5, rows, 16]):
        return net(x)
    step = gc.train_step(net, loss=lambda y, target: gc.mean((y - target) ** 2), optimizer=gc.optim.SGD(0.1),
                         x=gc.f32[5, rows, 16],
                         target=gc.f32[5, rows, 64])
    compiled = gc.compile(infer, seed=0)
    assert f"{gates} gates; " in compiled.dump("planned")
    assert "gates; " not in step.dump("planned")
    x = RNG.standard_normal((5, rows, 16)).astype(np.float32)
    monkeypatch.setenv("GRAPHC_CHECK_NAN", "1")         # every operator on its own
    alone = gc.compile(infer, seed=0)
    assert "gates; " not in alone.dump("planned")
    np.testing.assert_allclose(compiled(x), alone(x), rtol=0, atol=2e-6)


def refused(source: str) -> None:
    assert merged(parse(source), AVX512) == []


PRODUCT = "graph g(a: f32[8, 16], b: f32[16, 64], c: f32[8, 32]) {\n  %0 = matmul(a, b) : f32[8, 64]\n"
PARTS = ("  %1 = slice(%0) {start=(0, 0), stop=(8, 32), step=(1, 1)} : f32[8, 32]\n"
         "  %2 = slice(%0) {start=(0, 32), stop=(8, 64), step=(1, 1)} : f32[8, 32]\n")


def test_what_merges_as_text():
    assert merged(parse(PRODUCT + PARTS
                        + "  %3 = sigmoid(%1) : f32[8, 32]\n  %4 = mul(%2, %3) : f32[8, 32]\n  return %4\n}"), AVX512) == [2]


def test_a_product_that_others_read_stays():
    refused(PRODUCT + PARTS + "  %3 = mul(%1, %2) : f32[8, 32]\n  return (%3, %0)\n}")


def test_parts_of_different_width_stay():
    refused(PRODUCT + "  %1 = slice(%0) {start=(0, 0), stop=(8, 32), step=(1, 1)} : f32[8, 32]\n"
            "  %2 = slice(%0) {start=(0, 16), stop=(8, 48), step=(1, 1)} : f32[8, 32]\n  %3 = mul(%1, %2) : f32[8, "
            "32]\n  return %3\n}")


def test_reductions_stay():
    refused(PRODUCT + PARTS
            + "  %3 = mul(%1, %2) : f32[8, 32]\n  %4 = sum(%3) {axes=(1,), keepdims=false} : f32[8]\n  return %4\n}")


def test_a_reader_that_waits_for_another_way_stays():
    """x goes through another product, which needs the first slice in memory."""
    refused(PRODUCT + PARTS
            + "  %3 = matmul(%1, c) : f32[8, 32]\n  %4 = mul(%2, %3) : f32[8, 32]\n  %5 = add(%4, %1) : f32[8, 32]\n  "
              "return %5\n}"
            .replace("matmul(%1, c)",
                     "matmul(%1, %6)").replace("  %3 =",
                                               "  %6 = transpose(%2) {perm=(1, 0)} : f32[32, 8]\n  %7 = matmul(%6, c) "
                                               ": f32[32, 32]\n"
                                                                "  %3 =").replace("matmul(%1, %6)", "matmul(%1, %7)"))


def test_the_parts_of_two_products_merge_with_the_first():
    @gc.graph
    def run(x: gc.f32[20, 24], h: gc.f32[20, 32], w: gc.f32[24, 96], u: gc.f32[32, 96]):
        a, b = gc.split(gc.matmul(x, w), 3, axis=1), gc.split(gc.matmul(h, u), 3, axis=1)
        reset, update = gc.sigmoid(a[0] + b[0]), gc.sigmoid(a[1] + b[1])
        new = gc.tanh(a[2] + reset * b[2])
        return new + update * (h - new)
    assert merged(run.graph) == [3]
    check(run)


def test_the_square_of_a_matrix_stays():
    @gc.graph
    def run(x: gc.f32[64, 64]):
        a, b = gc.split(gc.matmul(x, x), 2, axis=1)
        return gc.sigmoid(a) * b
    assert merged(run.graph, AVX512) == []
    check(run)


def test_a_vector_times_a_matrix():
    """Without an axis of rows."""
    @gc.graph
    def run(x: gc.f32[40], w: gc.f32[40, 128]):
        a, b = gc.split(gc.matmul(x, w), 2, axis=0)
        return gc.sigmoid(a) * b
    check(run)


def test_batches_of_products():
    @gc.graph
    def run(x: gc.f32[3, 20, 24], w: gc.f32[3, 24, 192]):
        a, b, c = gc.split(gc.matmul(x, w), 3, axis=2)
        return gc.sigmoid(a) * b + c
    assert merged(run.graph, AVX512) == [3]
    check(run)


def test_integers_stay():
    refused((PRODUCT + PARTS + "  %3 = mul(%1, %2) : f32[8, 32]\n  return %3\n}").replace("f32", "i32"))


def test_parts_without_columns_are_no_gates():
    """Slices of no columns that were not taken for constants before, and whole gates beside them."""
    graph = parse("""
graph run(h: f32[2, 3], w: f32[3, 8], c: f32[2, 0]) {
  %0 = matmul(h, w) : f32[2, 8]
  %1 = slice(%0) {start=(0, 0), stop=(2, 0), step=(1, 1)} : f32[2, 0]
  %2 = slice(%0) {start=(0, 8), stop=(2, 8), step=(1, 1)} : f32[2, 0]
  %3 = mul(%1, %2) : f32[2, 0]
  return %3
}""")
    after = apply(FuseGates(AVX2), apply(Fuse(), graph))
    assert _counts(after) == []
    assert [gc.compile(graph)(*arrays(graph)).shape] == [(2, 0)]
