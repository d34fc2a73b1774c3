"""`python -m tests.random.mutations [--programs N] [--seed N]`: what the oracle catches of faults that are planted in
what is compiled.

Of each program one node is made wrong in one of the ways of MUTATIONS, and the wrong graph is compiled and held
against the oracle of the right one. A fault that changes no output by more than rounding in f64 could, or that is
gone before the outputs, does not count as planted. The table says of how many faults, by how much they change an
output relative to its largest element, the oracle caught how many.
"""
from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from graphc.errors import GraphError
from graphc.ir.builder import Rewriter
from graphc.ir.graph import Graph, Node, Value
from tests.random.calls import Calls
from tests.random.check import choose
from tests.random.generator import Refused, program
from tests.random.oracle import Expected, Oracle

BUCKETS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)        # relative changes of an output, the largest first


def scaled(w: Rewriter, node: Node, rng) -> Value:
    """A constant that is wrong by 1e-5."""
    return w.mul(w[node.outputs[0]], 1 + 1e-5)


def tail(w: Rewriter, node: Node, rng) -> Value:
    """The last element is that before it."""
    y = w[node.outputs[0]]
    n = y.type.size
    flat = w.reshape(y, shape=(n,))
    parts = (w.slice(flat, start=(0,), stop=(n - 1,), step=(1,)),
             w.slice(flat, start=(n - 2,), stop=(n - 1,), step=(1,)))
    return w.reshape(w.concat(*parts, axis=0), shape=y.type.shape)


def dropped(w: Rewriter, node: Node, rng) -> Value:
    """A sum leaves out its last term."""
    x = node.inputs[0]
    kept = np.ones(x.type.shape)
    axis = getattr(node.op, "axes", (x.type.rank - 1,))[-1]
    kept[tuple(-1 if a == axis else slice(None) for a in range(x.type.rank))] = 0
    first = w.mul(w[x], w.constant(kept, x.type.dtype))
    return w.apply(node.op, [first, *(w[v] for v in node.inputs[1:])])[0]


def stale(w: Rewriter, node: Node, rng) -> Value | None:
    """An operand is another value of its type."""
    i = int(rng.integers(len(node.inputs)))
    others = [v for v in w.map if v.type == node.inputs[i].type and v is not node.inputs[i] and v not in node.outputs]
    if not others:
        return None
    ins = [w[v] for v in node.inputs]
    ins[i] = w[others[int(rng.integers(len(others)))]]
    return w.apply(node.op, ins)[0]


def _float(node: Node) -> bool:
    return len(node.outputs) == 1 and node.outputs[0].type.dtype.is_float and node.outputs[0].type.is_static


MUTATIONS: dict[str, tuple[Callable, Callable[[Node], bool]]] = {
    "scaled": (scaled, _float),
    "tail": (tail, lambda n: _float(n) and n.outputs[0].type.size > 1),
    "dropped": (dropped, lambda n: n.op.name in ("sum", "mean", "matmul") and n.inputs[0].type.rank > 0
                and n.inputs[0].type.size > 1),
    "stale": (stale, lambda n: _float(n) and bool(n.inputs) and not n.op.REGIONS)}


def mutated(graph: Graph, way: str, rng) -> Graph | None:
    """The graph with one node made wrong; None if there is none to which the way applies."""
    change, fits = MUTATIONS[way]
    nodes = [n for n in graph.nodes if fits(n)]
    if not nodes or graph.state:
        return None
    wrong = nodes[int(rng.integers(len(nodes)))]
    w = Rewriter(graph)
    for node in graph.nodes:
        w.keep(node)
        if node is wrong:
            other = change(w, node, rng)
            if other is None:
                return None
            w.map[node.outputs[0]] = other
    return w.done()


def effect(graph: Graph, wrong: Graph, inputs) -> float:
    """How far the fault moves an output, by f64, relative to its largest element; 1 for an output of integers or
    bools."""
    floats = [x.astype(np.float64) if x.dtype.kind == "f" else x for x in inputs]
    with np.errstate(all="ignore"):
        pairs = [*zip(Oracle().run(graph, floats), Oracle().run(wrong, floats))]
        return max(_apart(np.asarray(a), np.asarray(b)) for a, b in pairs)


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    if a.dtype.kind != "f" or not np.isfinite(a).any():
        return float((a != b).any()) if a.dtype.kind != "f" else 0.0
    both = np.isfinite(a) & np.isfinite(b)
    gap = np.where(both, np.abs(a - b), np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0, np.inf))
    return float(gap.max()) / max(float(np.abs(a[np.isfinite(a)]).max()), 1e-30)


@dataclass(frozen=True)
class Planted:
    """A fault that was planted: how far it moves the outputs, and whether the oracle caught it."""
    moved: float
    caught: bool


def planted(seed: int, index: int, way: str) -> Planted | None:
    """Of one program, compiled with a fault; None if none was planted or nothing is promised of the outputs."""
    rng = np.random.default_rng([seed, index, len(way)])
    try:
        p = program(seed, index)
        wrong = None if p.special else mutated(p.graph, way, rng)
        if wrong is None:
            return None
        inputs = p.inputs(0)
        moved, expected = effect(p.graph, wrong, inputs), Expected(p.graph, inputs, index)
        if not moved or any(expected.doubtful):
            return None
        choose(p.special, p.target, p.quick)
        return Planted(moved, bool(expected.wrong(Calls(wrong, ()).plain(inputs))))
    except (GraphError, Refused):
        return None


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.random.mutations", description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--missed", action="store_true",
                        help="print programs whose fault was not caught though it moves an output by 1e-5")
    options = parser.parse_args()
    total, caught = Counter(), Counter()
    for index in range(options.programs):
        for way in MUTATIONS:
            found = planted(options.seed, index, way)
            if found is None:
                continue
            bucket = next((b for b in BUCKETS if found.moved >= b), 0)
            total[way, bucket] += 1
            caught[way, bucket] += found.caught
            if options.missed and bucket >= 1e-5 and not found.caught:
                print(f"missed: seed {options.seed} program {index} {way} {found.moved:.1e}", flush=True)
    print("change of an output at least " + "".join(f"{b:>14.0e}" for b in (*BUCKETS, 0)))
    for way in MUTATIONS:
        print(f"{way:29}" + "".join(f"{caught[way, b]:>7}/{total[way, b]:<6}" for b in (*BUCKETS, 0)))


if __name__ == "__main__":
    main()
