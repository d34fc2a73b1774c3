"""The least time that the machine could take for a workload: over its operators, the sum of max(flops / FMA peak, bytes
/ stream bandwidth).

Operators are contractions and attention (direct algorithm), layer norm, pooling and, in training, batch norm; what is
computed element by element belongs to their inputs or results and counts nothing. Bytes are those of operands and
results, each once. The bandwidth is that of a stream as large as the parameters and the largest operator, from whatever
cache holds it. Winograd's algorithm may go below the limit.
"""
from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from benchmarks.engines.graphc_engine import array_type, operator
from benchmarks.networks import NETWORKS
from benchmarks.workloads import GRADIENTS, INFER, TRAIN, Workload
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Cost
from graphc.nn.network import trace_network
from graphc.peak import Probe, copy_probe, fma_peak, fma_probe, read_probe

LARGEST_MB = 128                    # streams are not measured above
SAMPLE_SECONDS = 2e-3               # of streams, which may be short


@dataclass(frozen=True)
class Work:
    """Of one pass over one operator."""
    flops: float
    bytes: float

    def __mul__(self, times: float) -> "Work":
        return Work(self.flops * times, self.bytes * times)


@dataclass(frozen=True)
class Backward:
    """The backward pass of an operator, in multiples of the forward pass; `fixed_input`: when the first operand needs
    no gradient.
    """
    flops: float
    bytes: float
    fixed_input: float


PRODUCT, NORM = Backward(2, 2, 1), Backward(0, 1.5, 1.5)
OPERATORS = {"matmul": PRODUCT, "einsum": PRODUCT, "attention": Backward(2.5, 2, 2.5), "layer_norm": NORM,
             "batch_norm": NORM, **{f"conv{axes}d": PRODUCT for axes in (1, 2, 3)},
             **{f"max_pool{axes}d": Backward(0, 1.5, 1.5) for axes in (1, 2, 3)}}


@dataclass(frozen=True)
class Limit:
    """`works`: of all passes over all operators; `held`: bytes that are streamed through at least."""
    works: tuple[Work, ...]
    held: int

    @property
    def flops(self) -> float:
        return sum(w.flops for w in self.works)

    def seconds(self, peak: float, rate: float) -> float:
        """`peak` in GFLOP/s, `rate` in GB/s."""
        return sum(max(w.flops / peak, w.bytes / rate) for w in self.works) / 1e9


class Machine:
    """So many threads that do nothing but multiply and add, or stream: what they take for a workload's limit,
    whenever they are asked. A shared machine gives more in one minute than in the next, so that its limit is
    measured beside what is compared with it.
    """

    def __init__(self, threads: int):
        self.threads = threads
        self.at_start = fma_peak(threads), _stream(threads, LARGEST_MB).best()

    def times(self, work: Limit, seconds: float) -> list[float]:
        """Seconds for the limit, from now on for about so long."""
        fma, stream = fma_probe(self.threads), _stream(self.threads, _held_mb(work.held))
        found, end = [], time.perf_counter() + seconds
        while not found or time.perf_counter() < end:
            found.append(work.seconds(fma.rate(), stream.rate(SAMPLE_SECONDS)))
        return found

    def __str__(self) -> str:
        return "{:.0f} GFLOP/s (f32 FMA), {:.0f} GB/s from memory at the start".format(*self.at_start)


def _held_mb(nbytes: int) -> int:
    """The power of 2 from that many bytes on: not every size is measured."""
    mbytes = 2
    while mbytes < LARGEST_MB and mbytes << 20 < nbytes:
        mbytes *= 2
    return mbytes


@cache
def _stream(threads: int, mbytes: int) -> Probe:
    """Streams through so much memory: reading, or copying one half to the other, whichever is faster."""
    return max((read_probe(threads, mbytes), copy_probe(threads, mbytes // 2)), key=Probe.best)


def limit(workload: Workload) -> Limit:
    graph = _graph(workload)
    operators = list(_operators(graph, workload.mode == GRADIENTS))
    works = [w for node, learns, times in operators for w in _passes(node, learns, times, workload.mode != INFER)]
    parameters = sum(v.type.nbytes for v in graph.state)
    if workload.mode == TRAIN:
        # the update, in the pass that makes the gradient: a parameter is read besides
        works.append(Work(0, parameters))
    return Limit(tuple(works), parameters + max(_cost(node).bytes for node, _, _ in operators))


def _graph(workload: Workload) -> Graph:
    names = "qkv" if workload.network == "attention" else "x"
    types = {name: array_type(a) for name, a in zip(names, workload.arrays)}
    return trace_network(NETWORKS[workload.network](**workload.options), workload.mode == TRAIN, **types).graph


def _operators(graph: Graph, inputs_learn: bool, times: int = 1) -> Iterator[tuple[Node, bool, int]]:
    """Counted nodes, also in loops; whether the first operand needs a gradient; how often they run."""
    learns = {v: True for v in graph.state} | {v: inputs_learn for v in graph.inputs}
    for node in graph.nodes:
        found = [learns[v] for v in node.inputs]
        learns.update((v, any(found)) for v in node.outputs)
        if node.op.name == "scan":
            yield from _operators(node.op.body, True, times * node.op.length)
        elif node.op.name in OPERATORS:
            yield node, found[0], times


def operator_work(workload: Workload) -> Work:
    """What a single operator takes at least: the products in its graph, gradients included, and its inputs and results,
    each once.
    """
    graph = operator(workload).graph
    flops = sum(_cost(node).flops * times for node, times in _products(graph))
    return Work(flops, float(sum(v.type.nbytes for v in (*graph.inputs, *graph.outputs))))


def _products(graph: Graph, times: int = 1) -> Iterator[tuple[Node, int]]:
    for node in graph.nodes:
        if node.op.name == "scan":
            yield from _products(node.op.body, times * node.op.length)
        elif node.op.name in OPERATORS and OPERATORS[node.op.name].flops:
            yield node, times


def _passes(node: Node, learns: bool, times: int, backward: bool) -> Iterator[Work]:
    cost = _cost(node)
    rule = OPERATORS[node.op.name]
    yield Work(cost.flops if rule.flops else 0, cost.bytes) * times
    if backward:
        flops, nbytes = (rule.flops, rule.bytes) if learns else (rule.flops and rule.fixed_input, rule.fixed_input)
        yield Work(cost.flops * flops, cost.bytes * nbytes) * times


def _cost(node: Node) -> Cost:
    return node.op.cost(*(v.type for v in node.inputs))
