"""Reverse mode: composites, loops and branches, to second order."""
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from loop_samples import (
    LSTM_TYPES, assert_same, check_gradients, gradients, graph_of, lstm_loss, lstm_scan, lstm_unrolled, samples,
    square_sum, with_gradients)

from graphc.autodiff.backward import backward
from graphc.errors import GraphError
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.interp import evaluate
from graphc.ir.op import Composite
from graphc.ir.ops.control import Scan
from graphc.ir.types import bool_, f64, i64


@dataclass(frozen=True)
class Cubed(Composite):
    """x * x * x, without a gradient rule of its own."""
    name: ClassVar[str] = "cubed"

    def infer(self, x):
        return x

    def reference(self, x):
        return x ** 3

    def decompose(self, b, x):
        return b.mul(b.mul(x, x), x)


@dataclass(frozen=True)
class Product(Composite):
    """Two operands, so that one value can be passed twice."""
    name: ClassVar[str] = "product"

    def infer(self, x, y):
        return x

    def reference(self, x, y):
        return x * y

    def decompose(self, b, x, y):
        return b.mul(x, y)


def test_composite_without_rule_uses_its_decomposition():
    check_gradients({"x": f64[3]}, lambda b, x: square_sum(b, b.apply(Cubed(), (x,))[0]))


def test_operand_used_twice_is_counted_once_per_use():
    check_gradients({"x": f64[3]}, lambda b, x: square_sum(b, b.apply(Product(), (x, x))[0]))


@pytest.mark.parametrize("order", (1, 2))
def test_lstm_scan_is_the_unrolled_lstm(order):
    scanned = with_gradients(LSTM_TYPES, lstm_loss(lstm_scan), order)
    unrolled = with_gradients(LSTM_TYPES, lstm_loss(lstm_unrolled), order)
    assert_same(scanned, unrolled, samples(scanned))


def test_scan_saves_only_what_its_gradient_reads():
    """Gates, tanh(c), and h and c at the entry of a step; not the products, the sums, or anything that x gives alone.
    """
    graph = with_gradients(LSTM_TYPES, lstm_loss(lstm_scan))
    first, saving, reverse = [n.op for n in graph.nodes if isinstance(n.op, Scan)]
    assert len(saving.body.outputs) - saving.carries == 7
    assert reverse.reverse and not saving.reverse
    assert [v.name for v in reverse.body.inputs[reverse.carries + reverse.xs:]] == ["W", "U"]


def test_size_of_the_gradient_does_not_grow_with_the_sequence():
    def count(steps):
        types = {"h": f64[3], "x": f64[steps, 3]}
        body = graph_of({"h": f64[3], "x": f64[3]}, lambda b, h, x: b.tanh(b.add(h, x)))
        return len(with_gradients(types,
                                  lambda b, h, x: square_sum(b, b.scan(h, x, body=body, carries=1, xs=1, length=steps)),
                                  2).nodes)
    assert count(3) == count(300)


@pytest.mark.parametrize("reverse", (False, True))
@pytest.mark.parametrize("length", (0, 1, 4))
def test_scan_against_differences(reverse, length):
    def step(b, h, n, x, w):
        gate = b.sigmoid(b.mul(x, w))                               # on x alone: computed again, not saved
        h = b.add(b.mul(gate, b.tanh(h)), b.mul(h, b.cast(n, dtype=f64)))
        return h, b.add(n, 1), b.mul(h, w), gate
    body = graph_of({"h": f64[2], "n": i64[()], "x": f64[2], "w": f64[2]}, step)

    def loss(b, h, x, w):
        start = b.constant(0, i64)
        h, _, y, gate = b.scan(h, start, x, w, body=body, carries=2, xs=1, length=length, reverse=reverse)
        return b.add(square_sum(b, h), b.add(square_sum(b, y), square_sum(b, gate)))
    check_gradients({"h": f64[2], "x": f64[length, 2], "w": f64[2]}, loss)


def test_carry_that_enters_the_loss_only_through_another():
    """a feeds b, b feeds the loss; a's gradient arises in the second turn of the fixpoint."""
    body = graph_of({"a": f64[2], "c": f64[2], "x": f64[2]}, lambda b, a, c, x: (b.tanh(b.add(a, x)), b.mul(c, a)))

    def loss(b, a, c, x):
        return square_sum(b, b.scan(a, c, x, body=body, carries=2, xs=1, length=3)[1])
    check_gradients({"a": f64[2], "c": f64[2], "x": f64[3, 2]}, loss)


def test_scan_inside_a_scan():
    inner = graph_of({"h": f64[2], "w": f64[2]}, lambda b, h, w: (b.tanh(b.mul(h, w)),))

    def step(b, h, x, w):
        h = b.scan(b.add(h, x), w, body=inner, carries=1, xs=0, length=2)
        return h, b.mul(h, x)
    outer = graph_of({"h": f64[2], "x": f64[2], "w": f64[2]}, step)

    def loss(b, h, x, w):
        h, ys = b.scan(h, x, w, body=outer, carries=1, xs=1, length=3)
        return b.add(square_sum(b, h), square_sum(b, ys))
    check_gradients({"h": f64[2], "x": f64[3, 2], "w": f64[2]}, loss)


@pytest.mark.parametrize("pred", (True, False))
def test_cond_against_differences(pred):
    types = {"x": f64[2], "w": f64[2]}
    then_body = graph_of(types, lambda b, x, w: (b.mul(x, w), x))
    else_body = graph_of(types, lambda b, x, w: (b.tanh(x), b.mul(x, x)))

    def loss(b, p, x, w):
        y, z = b.cond(p, x, w, then_body=then_body, else_body=else_body)
        return b.add(square_sum(b, y), square_sum(b, b.mul(z, x)))
    rng = np.random.default_rng(3)
    check_gradients({"p": bool_[()], **types}, loss, [np.asarray(pred), rng.standard_normal(2), rng.standard_normal(2)])


def halving(max_trips: int):
    """Multiplies x by w until its sum of squares is below 1."""
    types = {"x": f64[2], "w": f64[2]}
    cond = graph_of(types, lambda b, x, w: b.gt(square_sum(b, x), 1.0))
    body = graph_of(types, lambda b, x, w: b.mul(x, b.tanh(w)))
    return lambda b, x, w: b.while_loop(x, w, cond_body=cond, body=body, carries=1, max_trips=max_trips)


@pytest.mark.parametrize("max_trips", (2, 9))
def test_while_counts_its_trips_and_stops_at_the_bound(max_trips):
    graph = graph_of({"x": f64[2], "w": f64[2]}, halving(max_trips))
    count, last = evaluate(graph, [np.array([10.0, 0.0]), np.full(2, np.arctanh(0.5))])
    assert count == min(max_trips, 4) and np.allclose(last, [10 * 0.5 ** count, 0])


@pytest.mark.parametrize("max_trips", (2, 9))
def test_while_against_differences(max_trips):
    def loss(b, x, w):
        return square_sum(b, b.mul(halving(max_trips)(b, x, w)[1], w))
    check_gradients({"x": f64[2], "w": f64[2]}, loss, [np.array([4.0, 3.0]), np.array([0.7, 0.4])])


def test_steps_that_a_while_does_not_take_give_no_nan():
    """At x = 0, where the loop stands still, the step's own gradient is infinite."""
    types = {"x": f64[()]}
    cond = graph_of(types, lambda b, x: b.gt(x, 0.5))
    body = graph_of(types, lambda b, x: b.sqrt(b.sub(x, 1.0)))
    graph = graph_of(types,
                     lambda b, x: gradients(b, b.while_loop(x, cond_body=cond, body=body, carries=1, max_trips=5)[1],
                                            [x]))
    small, large = (evaluate(graph, [np.array(v)])[0] for v in (0.25, 1.16))
    assert small == 1 and np.isclose(large, 0.5 / np.sqrt(0.16))


def test_no_gradient_where_none_is_asked():
    b = Builder()
    h, x, w = b.input("h", f64[2]), b.input("x", f64[3, 2]), b.input("w", f64[2])
    body = graph_of({"h": f64[2], "x": f64[2], "w": f64[2]}, lambda b, h, x, w: b.tanh(b.add(b.mul(h, w), x)))
    y = b.scan(h, x, w, body=body, carries=1, xs=1, length=3)
    dw, = backward(b, list(b.nodes), {y: y}, [w])
    assert dw.type == f64[2]
    assert [len(n.outputs) for n in b.nodes if isinstance(n.op, Scan)] == [1, 3, 2]      # no stacked gradient of x


@pytest.mark.parametrize("build, text", (
    (lambda b, h, x: b.scan(h, x, body=graph_of({"h": f64[2]}, lambda b, h: h), carries=1, xs=1, length=3),
     "passes 2 values to a body that takes 1"),
    (lambda b, h, x: b.scan(h, x, body=Graph("g", (), (), ()), carries=1, xs=1, length=4), r"its axis 0 must be 4"),
    (lambda b, h, x: b.scan(h, x, body=graph_of({"h": f64[2], "x": f64[2]}, lambda b, h, x: b.sum(h, axes=(0,))),
                            carries=1, xs=1, length=3),
     r"carry h is f64\[2\] before a step and f64\[\] after it"),
    (lambda b, h, x: b.cond(h, x, then_body=Graph("g", (), (), ()), else_body=Graph("g", (), (), ())),
     r"must be a bool scalar, it is f64\[2\]"),
    (lambda b, h, x: b.while_loop(h, cond_body=graph_of({"h": f64[2]}, lambda b, h: h),
                                  body=graph_of({"h": f64[2]}, lambda b, h: h), carries=1, max_trips=3),
     "the condition of while_loop must be a bool scalar"),
))
def test_errors_of_loops(build, text):
    b = Builder()
    with pytest.raises(GraphError, match=text):
        build(b, b.input("h", f64[2]), b.input("x", f64[3, 2]))


def test_branches_of_different_types():
    b = Builder()
    x = b.input("x", f64[2])
    with pytest.raises(GraphError, match=r"one gives f64\[2\], the other f64\[\]"):
        b.cond(b.input("p", bool_[()]), x, then_body=graph_of({"x": f64[2]}, lambda b, x: x),
               else_body=graph_of({"x": f64[2]}, lambda b, x: b.sum(x, axes=(0,))))
