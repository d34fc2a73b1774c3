"""Matrices of bytes with scales: products and lookups read the bytes and are scaled themselves."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.ir.interp import evaluate
from graphc.ir.ops.elementwise import MUL
from graphc.passes.dce import EliminateDeadCode
from graphc.passes.integer_weights import ScaleProducts
from graphc.passes.pipeline import apply

TEXT = """
graph f(x: f32[4, 6], ids: i32[3]) state(w: {dtype}[6, 5], s: f32[{scale}]) {{
  %0 = cast(w) {{dtype=f32}} : f32[6, 5]
  %1 = mul(%0, s) : f32[6, 5]
  {use}
  return %2
}}
"""
USES = {
    "product": "%2 = matmul(x, %1) : f32[4, 5]",
    "turned": "%t = transpose(%1) {perm=(1, 0)} : f32[5, 6]\n  %x = transpose(x) {perm=(1, 0)} : f32[6, 4]\n"
              "  %2 = matmul(%t, %x) : f32[5, 4]",
    "lookup": "%2 = take(%1, ids) {axis=0} : f32[3, 5]"}


def widest_mul(graph) -> int:
    return max((v.type.size for node in graph.nodes if node.op is MUL for v in node.outputs), default=0)


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("scale", ["6, 1", "1, 5", "5", ""])
@pytest.mark.parametrize("dtype", ["i8", "u8"])
def test_scales_move(dtype, scale, use):
    if use == "lookup" and scale in ("1, 5", "5", ""):
        pytest.skip("a row has all scales: it is looked up as it is")
    graph = gc.parse(TEXT.format(dtype=dtype, scale=scale, use=USES[use]))
    after = apply(EliminateDeadCode(), apply(ScaleProducts(), graph))
    assert widest_mul(graph) == 30 and widest_mul(after) < 30
    rng = np.random.default_rng(0)
    sizes = tuple(int(n) for n in scale.split(",") if n)
    arrays = [rng.standard_normal((4, 6)).astype(np.float32), np.array([0, 5, 2], np.int32)]
    state = {"w": rng.integers(0, 120, (6, 5)).astype(getattr(gc, dtype).np),
             "s": rng.random(sizes, np.float32) + np.float32(0.5)}
    wanted, found = (evaluate(g, [*arrays, state["w"], state["s"]])[0] for g in (graph, after))
    assert np.allclose(found, wanted, rtol=1e-5, atol=1e-4)
    w = state["w"].astype(np.float64) * state["s"]
    exact = {"product": arrays[0] @ w, "turned": (arrays[0] @ w).T, "lookup": w[[0, 5, 2]]}[use]
    assert np.allclose(found, exact, rtol=1e-5, atol=1e-4)


def test_what_changes_keeps_its_form():
    graph = gc.parse("""
graph f(x: f32[4, 6], w: i8[6, 5]) state(s: f32[1, 5]) {
  %0 = cast(w) {dtype=f32} : f32[6, 5]
  %1 = mul(%0, s) : f32[6, 5]
  %2 = matmul(x, %1) : f32[4, 5]
  return %2
}
""")
    assert apply(ScaleProducts(), graph) is graph
