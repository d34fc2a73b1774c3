"""one_hot(ids) @ W becomes a lookup, its gradient a scatter_add."""
import numpy as np
import pytest

import graphc as gc
from graphc.compiler import Compilation
from graphc.ir.interp import evaluate
from graphc.ir.parser import parse
from graphc.ir.printer import print_graph
from graphc.passes.dce import EliminateDeadCode
from graphc.passes.gather_one_hot import GatherOneHot
from graphc.passes.pipeline import apply

RANDOM = np.random.default_rng(0)


def after(text):
    return print_graph(apply(EliminateDeadCode(), apply(GatherOneHot(), parse(text))))


LOOKUP = """\
graph f(w: f32[50, 8], ids: i32[2, 3]) {
  %0 = one_hot(ids) {depth=50, dtype=f32} : f32[2, 3, 50]
  %1 = matmul(%0, w) : f32[2, 3, 8]
  return %1
}"""
LOOKED_UP = """\
graph f(w: f32[50, 8], ids: i32[2, 3]) {
  %0 = constant() {value=i32[]<0>} : i32[]
  %1 = maximum(ids, %0) : i32[2, 3]
  %2 = constant() {value=i32[]<49>} : i32[]
  %3 = minimum(%1, %2) : i32[2, 3]
  %4 = eq(%3, ids) : bool[2, 3]
  %5 = take(w, %3) {axis=0} : f32[2, 3, 8]
  %6 = reshape(%4) {shape=(2, 3, 1)} : bool[2, 3, 1]
  %7 = constant() {value=f32[]<0.0>} : f32[]
  %8 = where(%6, %5, %7) : f32[2, 3, 8]
  return %8
}"""
GRADIENT = """\
graph f(g: f32[6, 8], ids: i64[2, 3]) {
  %0 = one_hot(ids) {depth=50, dtype=f32} : f32[2, 3, 50]
  %1 = reshape(%0) {shape=(6, 50)} : f32[6, 50]
  %2 = transpose(%1) {perm=(1, 0)} : f32[50, 6]
  %3 = matmul(%2, g) : f32[50, 8]
  return %3
}"""
SCATTERED = """\
graph f(g: f32[6, 8], ids: i64[2, 3]) {
  %0 = reshape(ids) {shape=(6,)} : i64[6]
  %1 = constant() {value=i64[]<0>} : i64[]
  %2 = maximum(%0, %1) : i64[6]
  %3 = constant() {value=i64[]<49>} : i64[]
  %4 = minimum(%2, %3) : i64[6]
  %5 = eq(%4, %0) : bool[6]
  %6 = constant() {value=f32[]<0.0>} : f32[]
  %7 = broadcast_to(%6) {shape=(50, 8)} : f32[50, 8]
  %8 = reshape(%5) {shape=(6, 1)} : bool[6, 1]
  %9 = constant() {value=f32[]<0.0>} : f32[]
  %10 = where(%8, g, %9) : f32[6, 8]
  %11 = scatter_add(%7, %4, %10) {axis=0} : f32[50, 8]
  return %11
}"""


def test_product_to_lookup():
    assert after(LOOKUP) == LOOKED_UP


def test_gradient_to_scatter():
    assert after(GRADIENT) == SCATTERED


def test_known_ids_need_no_mask():
    text = LOOKUP.replace(", ids: i32[2, 3]) {",
                          ") {\n  %9 = constant() {value=i32[2, 3]<0, 49, 3, 3, 7, 1>} : i32[2, 3]").replace("one_hot(ids)", "one_hot(%9)")
    assert after(text).splitlines()[2:] == ["  %1 = take(w, %0) {axis=0} : f32[2, 3, 8]", "  return %1", "}"]
    assert "where" in after(text.replace("49,", "50,"))


TRANSPOSED = """\
graph f(w: f32[8, 5], ids: i32[2, 3]) {
  %0 = one_hot(ids) {depth=5, dtype=f32} : f32[2, 3, 5]
  %1 = transpose(w) {perm=(1, 0)} : f32[5, 8]
  %2 = matmul(%0, %1) : f32[2, 3, 8]
  return %2
}"""


def test_rows_that_are_read_often_are_laid_together():
    assert "copy(%0) : f32[5, 8]" in after(TRANSPOSED) and "matmul" not in after(TRANSPOSED)
    fewer = TRANSPOSED.replace("[2, 3", "[2, 2")
    assert "copy" not in after(fewer) and "matmul" not in after(fewer)
    w, ids = RANDOM.normal(size=(8, 5)).astype(np.float32), np.int32([[0, 4, 4], [5, 1, 2]])
    want = np.where((ids < 5)[..., None], w.T[np.minimum(ids, 4)], 0)
    assert (gc.compile(parse(TRANSPOSED))(w, ids) == want).all()


@pytest.mark.parametrize("text", [
    # no one_hot
    "graph f(x: f32[3, 4], w: f32[4, 2]) {\n  %0 = matmul(x, w) : f32[3, 2]\n  return %0\n}",
    # no product
    "graph f(ids: i32[3]) {\n  %0 = one_hot(ids) {depth=4, dtype=f32} : f32[3, 4]\n  return %0\n}",
    ("graph f(ids: i32[2, 3], w: f32[2, 4, 5]) {\n  %0 = one_hot(ids) {depth=4, dtype=f32} : f32[2, 3, 4]\n"
    # a table for each
    "  %1 = matmul(%0, w) : f32[2, 3, 5]\n  return %1\n}"),
    ("graph f(ids: i32[3], w: f32[3, 5]) {\n  %0 = one_hot(ids) {depth=4, dtype=f32} : f32[3, 4]\n"
    # another sum
    '  %1 = einsum(%0, w) {equation="iv,ij->i"} : f32[3]\n  return %1\n}'),
    ("graph f(ids: i32[6], w: f32[2, 5]) {\n  %0 = one_hot(ids) {depth=4, dtype=f32} : f32[6, 4]\n"
    # classes torn apart
    "  %1 = reshape(%0) {shape=(12, 2)} : f32[12, 2]\n  %2 = matmul(%1, w) : f32[12, 5]\n  return %2\n}"),
])
def test_left_alone(text):
    assert after(text) == text


def table(*shape):
    return RANDOM.integers(-9, 9, shape).astype(np.float32)          # whole numbers: sums are exact in any order


IDS = np.array([[3, 0, 6], [6, 7, -1]], np.int32)                    # 7 and -1 are outside: zeros
FORMS = {
    "matmul": (lambda w, ids: gc.one_hot(ids, 7) @ w, (7, 5)),
    "transposed table": (lambda w, ids: gc.one_hot(ids, 7) @ w.T, (5, 7)),
    "right": (lambda w, ids: w @ gc.one_hot(ids.reshape(6), 7).T, (5, 7)),
    "right, batched": (lambda w, ids: w @ gc.one_hot(ids.reshape(6), 7).T, (2, 5, 7)),
    "row": (lambda w, ids: w @ gc.one_hot(ids[0], 7).T, (7,)),
    "one id": (lambda w, ids: gc.one_hot(ids[0, 0], 7) @ w, (7, 5)),
    "vector": (lambda w, ids: gc.one_hot(ids, 7) @ w, (7,)),
    "integers": (lambda w, ids: gc.one_hot(ids, 7, gc.i32).astype(gc.f32) @ w, (7, 5)),
    "reshaped": (lambda w, ids: gc.one_hot(ids, 7).reshape(6, 7) @ w, (7, 5)),
    "moved": (lambda w, ids: gc.moveaxis(gc.one_hot(ids, 7), 2, 0).reshape(7, 6).T @ w, (7, 5)),
    "einsum": (lambda w, ids: gc.einsum("btv,dv->dbt", gc.one_hot(ids, 7), w), (5, 7)),
    "einsum of more axes": (lambda w, ids: gc.einsum("avc,btv->tcab", w, gc.one_hot(ids, 7)), (2, 7, 3)),
    "sum by class": (lambda w, ids: gc.one_hot(ids, 7).reshape(6, 7).T @ w, (6, 5)),
    "sum by class, right": (lambda w, ids: w @ gc.one_hot(ids.reshape(6), 7), (5, 6)),
    "sum by class, einsum": (lambda w, ids: gc.einsum("btd,btv->dv", w, gc.one_hot(ids, 7)), (2, 3, 5)),
}


@pytest.mark.parametrize("name", FORMS)
def test_same_numbers_and_gradients(name):
    """The compiled graph and its gradient, which have no product left, against the graph as it is declared."""
    form, shape = FORMS[name]
    w = table(*shape)

    @gc.graph
    def f(w: gc.f32[shape], ids: gc.i32[2, 3]):
        y = form(w, ids)
        return y, y * y
    ones = np.ones_like(gc.compile(f)(w, IDS)[0])
    for made, inputs in ((f, (w, IDS)), (gc.vjp(f, "w"), (w, IDS, ones, 2 * ones))):
        text = Compilation(made.graph).text("simplified")
        assert "matmul" not in text and "einsum" not in text and ("take" in text or "scatter_add" in text)
        found, wanted = gc.compile(made)(*inputs), evaluate(made.graph, inputs)
        for a, b in zip(found if isinstance(found, tuple) else [found], wanted, strict=True):
            assert (a == b).all()


def test_inside_a_loop():
    @gc.graph
    def f(w: gc.f32[7, 5], ids: gc.i32[2, 3]):
        return gc.scan(lambda c, i: (c + gc.one_hot(i, 7) @ w, c), gc.zeros((3, 5)), ids)
    w = table(7, 5)
    assert "matmul" not in Compilation(f.graph).text("simplified")
    for a, b in zip(gc.compile(f)(w, IDS), evaluate(f.graph, (w, IDS)), strict=True):
        assert (a == b).all()


def test_rows_that_nobody_asked_for_may_hold_anything():
    """The one difference: a product with one_hot makes NaN of 0 * inf."""
    @gc.graph
    def f(w: gc.f32[7, 5], ids: gc.i32[2, 3]):
        return gc.one_hot(ids, 7) @ w
    w = table(7, 5)
    w[1] = np.inf
    found = gc.compile(f)(w, IDS)
    assert np.isfinite(found).all() and (found[0, 0] == w[3]).all() and (found[1, 1:] == 0).all()


def test_second_gradient():
    @gc.graph
    def f(w: gc.f64[7, 5], ids: gc.i32[2, 3]):
        return gc.sum(gc.tanh(gc.one_hot(ids, 7, gc.f64) @ w))
    report = gc.check_gradients(gc.grad(f, "w"), ids=IDS)
    assert report.ok, str(report)
