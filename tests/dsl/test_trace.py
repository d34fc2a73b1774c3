"""@gc.graph: annotations, constants, results, nesting, source lines."""
from __future__ import annotations

import numpy as np
import pytest
from dsl_run import close, run_graph, traced

import graphc as gc
from graphc.ir.interp import evaluate

X = np.arange(6, dtype=np.float32).reshape(3, 2)


def make(n):
    width = 2

    @gc.graph
    def scaled(x: gc.f32[n, width], s: gc.f32[()], k: int = 3, flag=True):
        return x * s + k if flag else x
    return scaled


def test_text_annotations_see_local_names():
    f = make(3)
    assert {n: str(t) for n, t in f.inputs.items()} == {"x": "f32[3, 2]", "s": "f32[]"}
    assert f.constants == ("k", "flag") and f.name == "scaled"
    close(run_graph(f, X, np.float32(2)), X * 2 + 3)


def test_closures_of_annotations():
    from dataclasses import dataclass

    @dataclass
    class Sizes:
        n: int
    sizes = Sizes(4)

    @gc.graph
    def f(x: gc.f32[sizes.n]):
        return x + 1
    assert str(f.inputs["x"]) == "f32[4]"


@pytest.mark.parametrize("f, names", [
    (lambda x: x + 1, None), (lambda x: (x,), ("",)), (lambda x: (x + 1, x), ("", "")), (lambda x: [x, x], ("", "")),
    (lambda x: {"a": x + 1, "b": x}, ("a", "b")), (lambda x: 3.0, None), (lambda x: (np.ones(2), x), ("", ""))])
def test_results(f, names):
    g = traced(f, X)
    assert g.graph.output_names == names
    got, want = run_graph(g, X), f(X)
    assert type(got) is type(tuple(want) if isinstance(want, list) else want) or names is None
    for a, b in zip(got.values() if isinstance(got, dict) else (got if names else [got]), want.values() if isinstance(want, dict) else (want if names else [want])):
        np.testing.assert_array_equal(a, b)


def test_text_parses_back():
    f = make(3)
    assert gc.parse(str(f)) == f.graph


def test_nodes_carry_the_users_line():
    @gc.graph
    def f(x: gc.f32[3]):
        y = gc.exp(x)           # line A
        return (y + 1).sum()    # line B
    lines = {node.op.name: node.loc for node in f.graph.nodes}
    assert lines["exp"].file == __file__ and "line A" in lines["exp"].code
    assert "line B" in lines["sum"].code and lines["sum"].line == lines["exp"].line + 1
    assert all(n.loc for n in gc.grad(f, "x").graph.nodes)


def test_graphs_inline_in_graphs():
    @gc.graph
    def inner(x: gc.f32["N", 2], s: gc.f32[()]):
        return {"double": x * 2, "scaled": x * s}

    @gc.graph
    def outer(x: gc.f32[3, 2]):
        r = inner(x, s=2.5)
        q = inner(r["scaled"][:1], 1.0)
        return r["double"] + q["double"]
    close(run_graph(outer, X), X * 2 + X[:1] * 5)


def test_sizes_of_an_inlined_graph_may_be_named_outside_too():
    @gc.graph
    def inner(x: gc.f32["N"]):
        return gc.concat([x, x]).reshape(2, -1)

    @gc.graph
    def outer(x: gc.f32["B"]):
        return inner(x), inner(x[1:])
    assert [str(v.type) for v in outer.graph.outputs] == ["f32[2, B]", "f32[2, B - 1]"]


def test_gradients_inline():
    @gc.graph
    def loss(x: gc.f32[3, 2]):
        return (x ** 3).sum()

    @gc.graph
    def penalty(x: gc.f32[3, 2]):
        return (gc.grad(loss)(x) ** 2).sum()
    close(run_graph(penalty, X), (9 * X ** 4).sum())
    close(run_graph(gc.grad(penalty), X), 36 * X ** 3)


def test_random_operators_of_an_inlined_graph_draw_anew():
    @gc.graph
    def noise(x: gc.f32[1000]):
        return x + gc.uniform(1000)

    @gc.graph
    def two(x: gc.f32[1000]):
        return noise(x), noise(x)
    assert [v.name for v in two.graph.state] == ["random.key"]
    a, b = run_graph(two, np.zeros(1000, np.float32), state=[np.array([1, 0])])
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.2


def test_hidden_key_steps_once_a_run():
    @gc.graph
    def f(x: gc.f32[8]):
        return gc.dropout(x, 0.5) + gc.normal(8) + gc.bernoulli(0.5, (8,)).astype(gc.f32)
    *_, key = evaluate(f.graph, [np.ones(8, np.float32), np.array([7, 41])])
    assert key.tolist() == [7, 42]


def test_explicit_keys_give_equal_numbers():
    @gc.graph
    def f(key: gc.i64[2]):
        return gc.uniform(100, key=key), gc.uniform(100, key=key), gc.uniform(100, key=5), gc.permutation(10, key=key), gc.uniform(100, 2.0, 4.0, key=key)
    assert not f.graph.state
    a, b, c, order, wide = run_graph(f, np.array([5, 0]))
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(a, c)
    assert sorted(order) == list(range(10)) and (0 <= a).all() and (a < 1).all()
    close(wide, a * 2 + 2)


def test_draws_have_their_moments():
    def f(x):
        return gc.normal((4000,), 1.0, 2.0), gc.bernoulli(gc.full((4000,), 0.25)), gc.dropout(x, 0.25)
    ones = np.ones(4000, np.float32)
    normal, coin, dropped = run_graph(traced(f, ones), ones, state=[np.array([3, 1])])
    assert abs(normal.mean() - 1) < 0.15 and abs(normal.std() - 2) < 0.15 and abs(coin.mean() - 0.25) < 0.05
    assert set(np.unique(dropped)) == {np.float32(0), np.float32(1 / 0.75)} and abs(dropped.mean() - 1) < 0.1


def test_state_is_shared_by_key():
    from graphc.dsl.context import current_trace
    key = object()

    def layer(x):
        w = current_trace().state(key, "w", gc.f32[2])
        return x * w

    @gc.graph
    def f(x: gc.f32[3, 2]):
        y = layer(layer(x))
        trace = current_trace()
        trace.update_state(key, trace.state(key, "w", gc.f32[2]) + y.sum(0))
        return y, trace.state(key, "w", gc.f32[2])

    @gc.graph
    def g(x: gc.f32[3, 2]):
        return f(layer(x))[0]
    assert [v.name for v in g.graph.state] == ["w"] and g.keys == (key,) and g.graph.updates[0] is not None
    w = np.array([2, 3], np.float32)
    y, seen, new = evaluate(f.graph, [X, w])
    close(y, X * w * w)
    close(new, w + y.sum(0))
    close(seen, new)
    y, new = evaluate(g.graph, [X, w])
    close(y, X * w ** 3)
    close(new, w + y.sum(0))


def test_scopes_nest():
    from graphc.dsl.context import current_trace

    @gc.graph
    def f(x: gc.f32[2]):
        with current_trace().scope("encoder"):
            with current_trace().scope("0"):
                y = gc.exp(x)
            return y + 1
    assert [n.scope for n in f.graph.nodes if n.op.name in ("exp", "add")] == ["encoder.0", "encoder"]


def test_traces_nest_and_end():
    from graphc.dsl.context import tracing
    with pytest.raises(ZeroDivisionError):
        @gc.graph
        def f(x: gc.f32[2]):
            @gc.graph
            def inner(y: gc.f32[3]):
                return y + 1
            assert inner.inputs.keys() == {"y"}
            return x / (1 / 0)
    assert not tracing()


def test_the_mode_is_that_of_the_outer_graph():
    from graphc.dsl.context import current_trace

    def layer(x):
        return x * 3 if current_trace().training else x

    @gc.graph
    def follows(x: gc.f32[3, 2]):
        return layer(x).sum()

    @gc.graph(training=False)
    def fixed(x: gc.f32[3, 2]):
        return layer(x).sum()

    def both(x):
        return follows(x), fixed(x), gc.grad(follows)(x), gc.grad(fixed)(x), gc.jacobian(gc.grad(follows))(x).sum()
    for training, factor in ((True, 3), (False, 1)):
        a, b, c, d, _ = run_graph(traced(both, X, training=training), X)
        close(a, X.sum() * factor)
        close(b, X.sum())
        close(c, X * 0 + factor)
        close(d, X * 0 + 1)
    assert follows.in_mode(True).in_mode(False) is follows and follows.in_mode(True).in_mode(True).training
    assert make(3).retrace is None


def test_a_slice_may_end_at_a_named_size():
    @gc.graph
    def f(x: gc.f32["T", 3], table: gc.f32[8, 3]):
        return x + table[:x.shape[0]] + table[8 - x.shape[0]:], gc.iota(x.shape[0])
    assert f.graph.outputs[0].type == gc.f32["T", 3] and f.graph.outputs[1].type == gc.i64["T"]
    x, table = np.ones((5, 3), np.float32), np.arange(24, dtype=np.float32).reshape(8, 3)
    y, places = gc.compile(f)(x, table)
    np.testing.assert_array_equal(y, x + table[:5] + table[3:])
    np.testing.assert_array_equal(places, np.arange(5))
