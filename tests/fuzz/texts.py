"""Sound texts to damage: a graph of every operator's samples, loops and branches in each other, state, names and
numbers of every kind.
"""
from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

import graphc as gc
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.printer import print_graph

sys.path.append(str(Path(__file__).parents[1] / "ops"))
from samples import SAMPLES  # noqa: E402

SMALL = 2_000                       # characters; longer samples hold long constants, which only slow the damage down
SPECIAL = (np.nan, -np.nan, np.inf, -np.inf, -0.0, 0.0, 1.5, 5e-324)


@cache
def sound_texts() -> tuple[str, ...]:
    """One text for each operator with its attributes, then larger ones; always in the same order."""
    texts: dict[str, str] = {}
    for sample in SAMPLES:
        text = print_graph(sample.graph())
        if len(text) < SMALL:
            texts.setdefault(repr(sample.op), text)
    return (*texts.values(), *map(print_graph, _larger()))


def _larger() -> Iterator[Graph]:
    for function in (loss, loops, chosen, custom):
        yield function.graph
        yield gc.grad(function, "x").graph
    yield constants()
    yield state()
    yield gc.compile(loss, B=3).compilation.fused


@gc.graph
def loss(x: gc.f32["B", 12], w: gc.f32[12, 4], ids: gc.i64["B"]):
    return gc.cross_entropy(gc.layer_norm(gc.tanh(x @ w)), ids) + gc.mean(gc.pad(x, 1, -0.0)) * 1e-3


@gc.graph
def loops(x: gc.f32["T", 3], n: gc.i32[()]):
    def outer(state, row):
        def inner(c):
            return gc.cond(c[1] % 2 == 0, lambda: (gc.sin(c[0]) + row, c[1] + 1), lambda: (c[0] * 0.5, c[1] + 1))
        _, (state, _) = gc.while_loop(lambda c: c[1] < n, inner, (state, gc.zeros((), gc.i32)), max_trips=9)
        return state, gc.sum(state)
    last, sums = gc.scan(outer, x[0] * 0, x)
    return gc.sum(last) + gc.mean(sums)


@gc.graph
def chosen(x: gc.f64[2, "2*K + 1"]):
    y = gc.cond(gc.sum(x) > 0, lambda: gc.softmax(x), lambda: gc.flip(x, 0))
    return gc.sum(gc.concat([y, gc.clip(x, -1, None)], 1)[:, 1:] ** 2)


@gc.graph
def custom(x: gc.f32[5], i: gc.i32[5]):
    double = gc.custom_vjp(lambda a, k: a * 2, lambda ins, y, g: g * 2)
    return {"sum of all": gc.sum(double(x, i))}


def constants() -> Graph:
    """Constants of every dtype, with the numbers at which printing goes wrong, in a graph without arguments."""
    b = Builder("constants of all")
    arrays = [np.array(SPECIAL, dtype) for dtype in (np.float32, np.float64)]
    arrays += [np.array([np.iinfo(d).min, -1, 0, np.iinfo(d).max], d) for d in (np.int32, np.int64)]
    arrays += [np.array([True, False]), np.zeros((0, 3), np.float32), np.arange(40, dtype=np.int64),
               np.array(7, np.int32)]
    return b.finish([b.constant(a) for a in arrays], ("",) * len(arrays))


def state() -> Graph:
    """State, named values and arguments whose names are words of the text."""
    b = Builder("return")
    x, w, s = b.input("update",
                      gc.f32["graph", 3]), b.state_input("0.weight", gc.f32[3]), b.state_input("%0", gc.i64[()])
    h = b.mul(x, w)
    h.name = "hidden"
    b.update(w, b.sum(h, axes=(0,)))
    b.update(s, b.add(s, 1))
    return b.finish([h, w], ("true", "a \"b\"\n"))
