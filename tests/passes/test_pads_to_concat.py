"""Gradients of slicing: sums of pads become concatenations."""
import pytest
from loop_samples import assert_same, graph_of, samples, square_sum, with_gradients

from graphc.ir.graph import Graph
from graphc.ir.types import f64
from graphc.passes.dce import EliminateDeadCode
from graphc.passes.pads_to_concat import PadsToConcat

X = {"a": f64[2, 2], "b": f64[2, 3], "c": f64[2, 5]}


def at(b, x, start, size=5):
    return b.pad(x, low=(0, start), high=(0, size - start - x.type.shape[1]), value=0)


def joined(graph: Graph) -> list[str]:
    after = EliminateDeadCode().run(PadsToConcat().run(graph))
    assert_same(graph, after, samples(graph))
    return [n.op.name for n in after.nodes]


@pytest.mark.parametrize("build, expected", (
    (lambda b, x, y, z: b.add(at(b, x, 0), at(b, y, 2)), ["concat"]),
    (lambda b, x, y, z: b.add(at(b, y, 2), at(b, x, 0)), ["concat"]),
    (lambda b, x, y, z: b.add(at(b, x, 1, 7), at(b, y, 3, 7)),
     ["constant", "broadcast_to", "constant", "broadcast_to", "concat"]),
    (lambda b, x, y, z: b.add(b.add(at(b, x, 0), z), at(b, y, 2)), ["concat", "add"]),
    # overlap
    (lambda b, x, y, z: b.add(at(b, x, 0), at(b, y, 1)), ["pad", "pad", "add"]),
    (lambda b, x, y, z: b.add(at(b, x, 0), z), ["pad", "add"]),
    (lambda b, x, y, z: b.add(at(b, x, 0), at(b, x, 0)), ["pad", "pad", "add"]),
    (lambda b, x, y, z: b.add(b.add(at(b, x, 0), at(b, y, 2)), b.add(at(b, x, 3), z)), ["pad", "concat", "add", "add"]),
    (lambda b, x, y, z: (lambda s: (s, b.add(s, z)))(b.add(at(b, x, 0), at(b, y, 2))), ["concat", "add"]),
    (lambda b, x, y, z: b.mul(at(b, x, 0), at(b, y, 2)), ["pad", "pad", "mul"]),
    (lambda b, x, y, z: b.add(b.pad(x, low=(1, 0), high=(0, 3), value=0), b.pad(y, low=(1, 2), high=(0, 0), value=0)),
     ["pad", "pad", "add"]),
    (lambda b, x, y, z: b.add(b.pad(x, low=(0, 0), high=(0, 3), value=1), at(b, y, 2)), ["pad", "pad", "add"]),
))
def test_sums_of_pads(build, expected):
    assert joined(graph_of(X, build)) == expected


def test_gradient_of_a_split():
    def loss(b, z):
        parts = [b.slice(z, start=(0, i), stop=(2, j), step=(1, 1)) for i, j in ((0, 2), (2, 3), (3, 6))]
        return b.add(square_sum(b, b.sin(parts[0])), b.add(square_sum(b, parts[1]), square_sum(b, b.exp(parts[2]))))
    names = joined(with_gradients({"z": f64[2, 6]}, loss))
    assert names.count("concat") == 1 and "pad" not in names
