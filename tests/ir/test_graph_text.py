"""Graphs print and parse back; a text that does not parse says where and why."""
import numpy as np
import pytest

from graphc.errors import GraphError
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.parser import parse
from graphc.ir.printer import print_graph
from graphc.ir.types import f32, i64


def small_graph() -> Graph:
    b = Builder("small")
    x = b.input("x", f32["B", 3])
    w = b.state_input("0.weight", f32[3])
    y = b.exp(b.mul(x, w))
    y.name = "hidden"
    total = b.sum(y, axes=(0, 1))
    b.update(w, b.add(w, 1.5))
    return b.finish([total, y], ("total", "y"))


TEXT = """\
graph small(x: f32[B, 3]) state("0.weight": f32[3]) {
  %0 = mul(x, "0.weight") : f32[B, 3]
  %hidden = exp(%0) : f32[B, 3]
  %1 = sum(%hidden) {axes=(0, 1)} : f32[]
  %2 = constant() {value=f32[]<1.5>} : f32[]
  %3 = add("0.weight", %2) : f32[3]
  update "0.weight" = %3
  return {total: %1, y: %hidden}
}"""


def test_the_text_is_as_documented():
    assert print_graph(small_graph()) == TEXT


def test_parse_gives_an_equal_graph():
    graph = parse(TEXT)
    assert graph == small_graph() and hash(graph) == hash(small_graph())
    assert print_graph(graph) == TEXT


@pytest.mark.parametrize("value",
                         [np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45], np.float32), np.arange(40, dtype=np.int64),
                                   np.zeros((0, 3), np.float32), np.array([True, False]), np.array(7, np.int32)])
def test_constants_keep_their_bits(value):
    b = Builder("constants")
    graph = b.finish([b.constant(value)])
    again = parse(print_graph(graph))
    assert again == graph
    assert again.nodes[0].op.value.data == value.tobytes()


def test_regions_are_part_of_the_text():
    body = Builder("body")
    carry, x = body.input("carry", f32[2]), body.input("x", f32[2])
    new = body.add(carry, x)
    inner = body.finish([new, new], ("", ""))
    b = Builder("loop")
    outs = b.scan(b.input("init", f32[2]), b.input("xs", f32[5, 2]), body=inner, carries=1, xs=1, length=5)
    graph = b.finish(outs, ("", ""))
    assert parse(print_graph(graph)) == graph


@pytest.mark.parametrize("old, new, message, line, column", [
    ("exp(", "expo(", "unknown operator 'expo'", 3, 13),
    ("sum(%hidden)", "sum(%9)", "%9 is used but not defined", 4, 12),
    ("%hidden =", "%0 =", "%0 is defined twice", 3, 3),
    ("{axes=(0, 1)}", "{axis=1}", "wrong attributes for sum", 4, 8),
    ("{axes=(0, 1)}", "{axes=(0, 2)}", "axis 2 is out of range", 4, 8),
    (": f32[]\n  %2", ": f32[3]\n  %2", "the text says f32[3], the operator makes f32[]", 4, 37),
    ("return", "retrun", "expected 'return', found 'retrun'", 8, 3),
    ("f32[B, 3])", "f8[B, 3])", "expected a type such as f32[2, 3], found 'f8'", 1, 16),
    ("exp(%0)", "exp(%0", "expected ')'", 3, 20),
    ("exp(%0)", "exp(%0) ?", "unexpected character '?'", 3, 21),
])
def test_a_broken_text_names_line_and_column(old, new, message, line, column):
    with pytest.raises(GraphError, match=None) as info:
        parse(TEXT.replace(old, new, 1))
    assert message in info.value.text
    assert (info.value.loc.line, info.value.loc.column) == (line, column)


def test_a_cut_text_says_so():
    with pytest.raises(GraphError, match="end of text"):
        parse(TEXT[:-2])


def test_a_graph_with_another_type_is_another_graph():
    b = Builder("small")
    assert b.finish([b.input("x", f32[3])]) != (c := Builder("small")).finish([c.input("x", i64[3])])
