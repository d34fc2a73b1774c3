"""Patterns of operators."""
from __future__ import annotations

from graphc.ir.builder import Builder
from graphc.ir.match import Is, match, matches
from graphc.ir.ops.elementwise import ADD, DIV, EXP, MUL, SUB, WHERE
from graphc.ir.ops.shape import Transpose
from graphc.ir.types import f32

B = Builder("g")
X, Y = B.input("x", f32[3]), B.input("y", f32[3])


def test_names_bind_values_and_nodes_come_from_the_outside_in():
    shifted = B.sub(X, Y)
    e = B.exp(shifted)
    found = match(e, Is(EXP, Is(SUB, "x", "shift")))
    assert (found["x"], found["shift"], found.nodes) == (X, Y, (e.node, shifted.node))
    assert match(e, Is(EXP, "d"))["d"] is shifted


def test_the_order_of_operands_counts_unless_the_operator_is_commutative():
    e = B.exp(X)
    assert match(B.add(Y, e), Is(ADD, Is(EXP, "x"), "rest"))["rest"] is Y
    assert match(B.sub(Y, e), Is(SUB, Is(EXP, "x"), "rest")) is None
    assert [(m["a"], m["b"]) for m in matches(B.mul(X, Y), Is(MUL, "a", "b"))] == [(X, Y), (Y, X)]


def test_a_name_is_one_value():
    square = Is(MUL, "x", "x")
    assert match(B.mul(X, X), square)["x"] is X and match(B.mul(X, Y), square) is None


def test_a_number_is_a_constant_filled_with_it():
    inverse = Is(DIV, 1, "x")
    assert match(B.div(1.0, X), inverse)["x"] is X
    assert match(B.div(B.broadcast_to(B.constant(1.0, f32), shape=(3,)), X), inverse)["x"] is X
    assert match(B.div(2.0, X), inverse) is None and match(B.div(Y, X), inverse) is None


def test_classes_arity_and_inputs():
    y = B.transpose(B.reshape(X, shape=(3, 1)), perm=(1, 0))
    assert match(y, Is(Transpose, "x"))["x"] is y.node.inputs[0]
    assert match(y, Is(Transpose, "x", "y")) is None and match(X, Is(Transpose, "x")) is None
    assert match(X, "x")["x"] is X


def test_the_first_pattern_that_fits():
    v = B.where(B.lt(X, Y), X, B.exp(Y))
    found = match(v, Is(WHERE, "c", Is(EXP, "z"), "kept"), Is(WHERE, "c", "kept", Is(EXP, "z")))
    assert (found["kept"], found["z"]) == (X, Y)
