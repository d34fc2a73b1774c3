"""Concatenations of slices that follow each other, of concatenations, and of one array."""
import numpy as np
import pytest
from loop_samples import assert_same, graph_of, samples

import graphc as gc
from graphc.ir.types import f64
from graphc.passes.dce import EliminateDeadCode
from graphc.passes.join_concats import JoinConcats

X = {"x": f64[2, 6], "y": f64[2, 3]}


def part(b, x, start, stop, rows=(0, 2), step=(1, 1)):
    return b.slice(x, start=(rows[0], start), stop=(rows[1], stop), step=step)


@pytest.mark.parametrize("build, expected", (
    (lambda b, x, y: b.concat(x, axis=0), []),
    (lambda b, x, y: b.concat(part(b, x, 0, 2), part(b, x, 2, 6), y, axis=1), ["concat"]),
    (lambda b, x, y: b.concat(part(b, x, 0, 2), part(b, x, 2, 5), part(b, x, 5, 6), axis=-1), []),
    (lambda b, x, y: b.concat(y, part(b, x, 1, 2), part(b, x, 2, 5), axis=1), ["slice", "concat"]),
    (lambda b, x, y: b.concat(b.concat(y, x, axis=1), b.concat(y, y, axis=1), axis=-1), ["concat"]),
    (lambda b, x, y: b.concat(b.concat(y, part(b, x, 0, 1), axis=1), part(b, x, 1, 6), axis=1), ["concat"]),
    # rows of every other one that are the same, and others
    (lambda b, x, y: b.concat(part(b, x, 0, 2, step=(2, 1)), part(b, x, 2, 6, step=(2, 1)), axis=1), ["slice"]),
    (lambda b, x, y: b.concat(part(b, x, 0, 2, (0, 1)), part(b, x, 2, 6, (1, 2)), axis=1), ["slice", "slice", "concat"]),
    (lambda b, x, y: b.concat(part(b, x, 0, 4, step=(1, 2)), part(b, x, 4, 6, step=(1, 2)), axis=1),
     ["slice", "slice", "concat"]),
    (lambda b, x, y: b.concat(part(b, x, 0, 3), part(b, x, 0, 3), axis=0), ["slice", "slice", "concat"]),
    # out of order, with a gap, of two arrays, along another axis
    (lambda b, x, y: b.concat(part(b, x, 2, 6), part(b, x, 0, 2), axis=1), ["slice", "slice", "concat"]),
    (lambda b, x, y: b.concat(part(b, x, 0, 2), part(b, x, 3, 6), axis=1), ["slice", "slice", "concat"]),
    (lambda b, x, y: b.concat(part(b, x, 0, 2), part(b, b.sin(x), 2, 6), axis=1), ["slice", "sin", "slice", "concat"]),
    (lambda b, x, y: b.concat(b.concat(y, y, axis=0), b.concat(y, y, axis=0), axis=1), ["concat"] * 3),
    # somebody else reads the inner one
    (lambda b, x, y: (lambda c: (b.concat(c, x, axis=1), b.sin(c)))(b.concat(y, y, axis=1)), ["concat", "concat", "sin"]),
    (lambda b, x, y: (lambda c: (b.concat(c, x, axis=1), c))(b.concat(y, y, axis=1)), ["concat", "concat"]),
))
def test_join(build, expected):
    graph = graph_of(X, build)
    after = EliminateDeadCode().run(JoinConcats().run(graph))
    assert_same(graph, after, samples(graph))
    assert [n.op.name for n in after.nodes] == expected


def test_what_is_split_and_joined_again_is_made_in_its_place():
    @gc.graph
    def f(x: gc.f32["B", 8, "H", "H"], w: gc.f32[8, 8, 3, 3], v: gc.f32[4, 4, 3, 3],
          u: gc.f32[8, 12, 1, 1]):
        y = gc.relu(gc.conv2d(x, w, padding=1))
        left, right = y[:, :4], y[:, 4:]
        return gc.conv2d(gc.concat([left, right, gc.relu(gc.conv2d(right, v, padding=1))], 1), u)
    run, r = gc.compile(f), np.random.default_rng(0)
    assert "copies(" not in run.dump("planned")
    arrays = [r.standard_normal(s).astype(np.float32) for s in ((2, 8, 5, 5), (8, 8, 3, 3), (4, 4, 3, 3), (8, 12, 1, 1))]
    np.testing.assert_allclose(run(*arrays), f(*arrays), rtol=1e-4, atol=1e-5)
