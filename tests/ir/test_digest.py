"""The digest of a graph, which keys of the disk cache are made of: everything counts that a program depends on, and numbers by their bits."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.errors import InternalError, Loc
from graphc.ir.builder import Builder
from graphc.ir.digest import digest
from graphc.ir.op import Literal
from graphc.ir.ops.constant import Constant
from graphc.ir.parser import parse
from graphc.ir.types import f32


def graph_with(value: Literal):
    b = Builder("g")
    b.input("x", f32[4])
    return b.finish([b.apply(Constant(value), ())[0]])


def test_keys_tell_all_bits_apart():
    """0 and -0, kinds of NaN, 1 and 1.0 and True, in arrays large and small and in attributes; source lines and layers, which errors name."""
    bits = [0, 1 << 31, 0x7fc00000, 0xffc00000, 0x7fc00001, 0x3f800000]
    for size in (1, 4, 1000):
        arrays = [np.full(size, n, np.uint32).view(np.float32) for n in bits]
        assert len({digest(graph_with(Literal.of(a))) for a in arrays}) == len(bits)
    assert digest(graph_with(Literal.of(np.ones(2, np.int32)))) != digest(graph_with(Literal.of(np.ones(2, np.float32))))

    def padded(value, loc=None, scope=""):
        b = Builder("g")
        x = b.input("x", f32[4])
        with b.at(loc, scope):
            return digest(b.finish([b.pad(x, low=(1,), high=(1,), value=value)]))
    places = [Loc("a/f.py", 1, "code"), Loc("b/f.py", 1, "code"), Loc("a/f.py", 2, "code"), Loc("a/f.py", 1, "other")]
    assert len({*(padded(v) for v in (0, 0.0, -0.0, False, 1, 1.0, True, float("nan"))), *(padded(0, p) for p in places), padded(0, None, "layer")}) == 13


def test_equal_graphs_have_equal_keys():
    text = "graph g(x: f32[4]) {\n  %0 = mul(x, x) : f32[4]\n  return %0\n}\n"
    assert digest(parse(text)) == digest(parse(text)) != digest(parse(text.replace("mul", "add"))) != digest(parse(text.replace("x", "y")))


def test_regions_count():
    """What they compute, and the lines inside of them."""
    def looped(step):
        @gc.graph
        def f(x: gc.f32[4]):
            return gc.scan(step, x, length=3)[0]
        return f.graph

    def double(s, x):
        return s * 2, None

    def double_elsewhere(s, x):
        return s * 2, None
    graphs = [looped(double), looped(double), looped(lambda s, x: (s * 3, None)), looped(double_elsewhere)]
    assert [digest(g) == digest(graphs[0]) for g in graphs] == [True, True, False, False]


def test_what_has_no_digest_is_named():
    b = Builder("g")
    x = b.input("x", f32[4])
    with pytest.raises(InternalError, match="attributes of type frozenset"):
        digest(b.finish([b.pad(x, low=(1,), high=(1,), value=frozenset([0]))]))
