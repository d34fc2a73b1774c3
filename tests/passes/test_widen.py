"""f64 for f32, everywhere."""
import numpy as np

import graphc as gc
from graphc.ir.interp import evaluate
from graphc.ir.parser import parse
from graphc.ir.printer import print_graph
from graphc.passes.widen import widened

BEFORE = """\
graph f(x: f32[3], n: i32[2]) state(w: f32[3]) {
  %0 = constant() {value=f32[]<0.5>} : f32[]
  %1 = mul(x, %0) : f32[3]
  %2 = cast(n) {dtype=f32} : f32[2]
  %3 = one_hot(n) {depth=3, dtype=f32} : f32[2, 3]
  %4 = add(w, %1) : f32[3]
  update w = %4
  return (%2, %3, %4)
}"""
AFTER = BEFORE.replace("f32", "f64")


def test_text():
    assert print_graph(widened(parse(BEFORE))) == AFTER
    assert print_graph(widened(parse(AFTER))) == AFTER


def test_bodies_and_rules():
    double = gc.custom_vjp(lambda x: x * 2, lambda ins, y, g: g * 2)

    @gc.graph
    def f(x: gc.f32[4, 3]):
        return gc.scan(lambda c, r: (c + double(r), gc.cond(gc.sum(r) > 0, lambda: r, lambda: -r)), x[0], x)
    graph = widened(f.graph)
    assert "f32" not in print_graph(graph)
    x = np.random.default_rng(0).normal(size=(4, 3))
    carry, rows = evaluate(graph, (x,))
    np.testing.assert_allclose(carry, x[0] + 2 * x.sum(0), rtol=1e-14)
    np.testing.assert_allclose(rows, x * np.sign(x.sum(1))[:, None], rtol=1e-14)
