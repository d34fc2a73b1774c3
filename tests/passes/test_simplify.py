"""Graph text before, a pass, graph text after."""
import numpy as np
import pytest

from graphc.ir.builder import Builder
from graphc.ir.graph import regions
from graphc.ir.interp import evaluate
from graphc.ir.parser import parse
from graphc.ir.printer import print_graph
from graphc.ir.types import f32, i64
from graphc.passes.canonicalize import Canonicalize
from graphc.passes.cse import EliminateCommonSubexpressions
from graphc.passes.dce import EliminateDeadCode
from graphc.passes.decompose import Decompose
from graphc.passes.fold_constants import FoldConstants
from graphc.passes.pipeline import apply

HEAD = "graph g(x: f32[2, 3], y: f32[2, 3]) {\n"


def graph(*lines: str, result: str = "%z"):
    return parse(HEAD + "".join(f"  {line}\n" for line in lines) + f"  return {result}\n}}")


def body(g) -> list[str]:
    return [line.strip() for line in print_graph(g).splitlines()[1:-1]]


@pytest.mark.parametrize("lines, after", [
    (["%o = constant() {value=f32[]<1.0>} : f32[]", "%z = mul(x, %o) : f32[2, 3]"], "return x"),
    (["%o = constant() {value=f32[]<0.0>} : f32[]", "%z = sub(x, %o) : f32[2, 3]"], "return x"),
    (["%a = neg(x) : f32[2, 3]", "%z = neg(%a) : f32[2, 3]"], "return x"),
    (["%a = transpose(x) {perm=(1, 0)} : f32[3, 2]", "%z = transpose(%a) {perm=(1, 0)} : f32[2, 3]"], "return x"),
    (["%a = reshape(x) {shape=(6,)} : f32[6]", "%z = reshape(%a) {shape=(2, 3)} : f32[2, 3]"], "return x"),
    (["%z = cast(x) {dtype=f32} : f32[2, 3]"], "return x"),
    (["%z = stop_gradient(x) : f32[2, 3]"], "return x"),
])
def test_canonicalize_removes(lines, after):
    simplified = apply(EliminateDeadCode(), apply(Canonicalize(), apply(Canonicalize(), graph(*lines))))
    assert body(simplified) == [after]


@pytest.mark.parametrize("low, high, left", [(0.0, 255.0, 0), (-1.0, 256.0, 0), (1.0, 300.0, 2), (0.0, 254.0, 1), (1.0, 2.0, 2)])
def test_canonicalize_leaves_clamps_to_conversions(low, high, left):
    """Those to the range of the integers, or wider."""
    before = graph(f"%l = constant() {{value=f32[]<{low}>}} : f32[]", f"%h = constant() {{value=f32[]<{high}>}} : f32[]",
                   "%a = minimum(x, %h) : f32[2, 3]", "%b = maximum(%a, %l) : f32[2, 3]", "%z = cast(%b) {dtype=u8} : u8[2, 3]")
    after = apply(EliminateDeadCode(), apply(Canonicalize(), before))
    assert len([n for n in after.nodes if n.op.name in ("minimum", "maximum")]) == left
    x = np.float32([[-1e9, -0.5, np.nan], [1.5, 254.5, np.inf]])
    arrays = [x if v.name == "x" else np.zeros(v.type.shape, v.type.dtype.np) for v in before.arguments]
    assert np.array_equal(evaluate(before, arrays)[0], evaluate(after, arrays)[0])


def test_canonicalize_lets_elementwise_broadcast_by_itself():
    before = graph("%a = sum(x) {axes=(1,), keepdims=true} : f32[2, 1]", "%b = broadcast_to(%a) {shape=(2, 3)} : f32[2, 3]",
                   "%z = div(y, %b) : f32[2, 3]")
    after = apply(EliminateDeadCode(), apply(Canonicalize(), before))
    assert body(after)[1] == "%z = div(y, %a) : f32[2, 3]"


def test_canonicalize_keeps_what_could_change_bits():
    """x + 0 makes +0 of -0, x * 0 makes 0 of NaN: neither may go."""
    zero = "%o = constant() {value=f32[]<0.0>} : f32[]"
    for op in ("add", "mul"):
        before = graph(zero, f"%z = {op}(x, %o) : f32[2, 3]")
        assert apply(Canonicalize(), before) == before


def test_canonicalize_computes_nothing_where_there_is_nothing():
    """Results without elements are constants, but for what checks indices; windows over images without elements see zeros."""
    after = apply(Canonicalize(), parse("""
graph f(x: f32[2, 0], i: i64[3], w: f32[4, 2, 2, 2], image: f32[1, 2, 0, 3]) {
  %0 = exp(x) : f32[2, 0]
  %1 = sort(%0) {axis=1} : f32[2, 0]
  %2 = take(x, i) {axis=0} : f32[3, 0]
  %3, %4 = topk(x) {k=0, axis=1} : f32[2, 0], i64[2, 0]
  %5 = sum(x) {axes=(1,)} : f32[2]
  %6 = conv2d(image, w) {padding=((1, 1), (0, 0))} : f32[1, 4, 1, 2]
  return (%1, %2, %3, %4, %5, %6)
}"""))
    assert [n.op.name for n in after.nodes if n.op.name not in ("constant", "broadcast_to")] == ["take", "sum"]
    assert [v.type for v in after.outputs] == [f32[2, 0], f32[3, 0], f32[2, 0], i64[2, 0], f32[2], f32[1, 4, 1, 2]]


def test_cse_joins_equal_nodes():
    before = graph("%a = mul(x, y) : f32[2, 3]", "%b = mul(x, y) : f32[2, 3]", "%z = add(%a, %b) : f32[2, 3]")
    assert body(apply(EliminateCommonSubexpressions(), before)) == ["%a = mul(x, y) : f32[2, 3]", "%z = add(%a, %a) : f32[2, 3]", "return %z"]


def test_dce_drops_what_nobody_reads():
    before = graph("%a = exp(x) : f32[2, 3]", "%z = mul(x, y) : f32[2, 3]")
    assert body(apply(EliminateDeadCode(), before)) == ["%z = mul(x, y) : f32[2, 3]", "return %z"]


def test_fold_evaluates_constants():
    before = graph("%a = constant() {value=f32[3]<1.0, 2.0, 3.0>} : f32[3]", "%b = mul(%a, %a) : f32[3]", "%z = add(x, %b) : f32[2, 3]")
    after = apply(EliminateDeadCode(), apply(FoldConstants(), before))
    assert body(after)[0] == "%b = constant() {value=f32[3]<1.0, 4.0, 9.0>} : f32[3]"


def test_fold_leaves_large_results_alone():
    before = graph("%a = iota() {shape=(2, 3), axis=0, dtype=f32} : f32[2, 3]", "%c = constant() {value=f32[]<1.0>} : f32[]",
                   "%b = broadcast_to(%c) {shape=(100, 100)} : f32[100, 100]", "%z = add(x, %a) : f32[2, 3]", result="(%z, %b)")
    assert apply(FoldConstants(), before) == before


@pytest.mark.parametrize("trips, folded", [(5, True), (1_000_000, False)])
@pytest.mark.parametrize("kind", ("while", "scan"))
def test_fold_takes_no_longer_than_the_program(kind, trips, folded):
    """A loop of constants is worked out while compiling only if it is short: numpy steps through it node by node."""
    b = Builder("f")
    x, start = b.input("x", f32[()]), b.constant(1.0, f32)
    if kind == "scan":
        step = Builder("step")
        body = step.finish([step.mul(step.input("s", f32[()]), 0.5)], ("",))
        last = b.scan(start, body=body, carries=1, xs=0, length=trips)
    else:
        test, step = Builder("test"), Builder("step")
        goes_on = test.finish([test.lt(test.input("s", f32[()]), 1e30)], ("",))
        body = step.finish([step.mul(step.input("s", f32[()]), 0.5)], ("",))
        last = b.while_loop(start, cond_body=goes_on, body=body, carries=1, max_trips=trips)[1]
    after = apply(EliminateDeadCode(), apply(FoldConstants(), b.finish([b.add(x, last)])))
    assert any(regions(n.op) for n in after.nodes) is not folded


def test_decompose_leaves_no_composite_and_the_same_values():
    before = graph("%a = softmax(x) {axis=1} : f32[2, 3]", "%z = mul(%a, y) : f32[2, 3]")
    after = apply(Decompose(), before)
    names = {n.op.name for n in after.nodes}
    assert "softmax" not in names and "exp" in names
    arrays = [np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32) for _ in range(2)]
    np.testing.assert_allclose(evaluate(after, arrays)[0], evaluate(before, arrays)[0], rtol=1e-6)


def test_passes_reach_into_loop_bodies():
    text = """graph g(c: f32[2], xs: f32[4, 2]) {
  %a, %b = scan(c, xs) {body={
    graph body(c: f32[2], x: f32[2]) {
      %0 = neg(x) : f32[2]
      %1 = neg(%0) : f32[2]
      %2 = add(c, %1) : f32[2]
      return (%2, %1)
    }
  }, carries=1, xs=1, length=4} : f32[2], f32[4, 2]
  return (%a, %b)
}"""
    after = apply(EliminateDeadCode(), apply(Canonicalize(), parse(text)))
    assert [n.op.name for n in after.nodes[0].op.body.nodes] == ["add"]
