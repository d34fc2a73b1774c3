"""Runs passes, and times, dumps and verifies around each, so that a pass contains its rewrite and nothing else."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field
from pathlib import Path
from time import perf_counter
from typing import ClassVar, TypeVar

from graphc.config import Config
from graphc.errors import GraphError, InternalError
from graphc.ir.builder import Rewriter
from graphc.ir.graph import Graph, Node, regions
from graphc.ir.ops.fused import Fused
from graphc.ir.printer import print_graph
from graphc.ir.verify import Stage, verify
from graphc.records import dataclass

T = TypeVar("T")


@dataclass(frozen=True)
class Pass:
    """A rewrite of a graph: `run` returns a new graph that computes the same. Its docstring says what it needs and
    gives.

    `run` sees one level: `apply` has run it on the regions (bodies of loops and branches) before.
    """
    name: ClassVar[str] = ""

    def run(self, graph: Graph) -> Graph:
        raise NotImplementedError


def apply(each: Pass, graph: Graph) -> Graph:
    """The graph after the pass, bodies of loops and branches first; a fused body is left alone."""
    if not any(_bodies(node) for node in graph.nodes):
        return each.run(graph)
    w = Rewriter(graph)
    for node in graph.nodes:
        inner = {name: apply(each, region) for name, region in _bodies(node).items()}
        w.keep(node, node.op.replace(**inner) if inner else None)
    return each.run(w.done())


def _bodies(node: Node) -> dict[str, Graph]:
    return {} if isinstance(node.op, Fused) else dict(regions(node.op))


@dataclass
class Timings:
    """Seconds by stage, in the order in which stages first ran."""
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def __str__(self) -> str:
        total = sum(self.seconds.values())
        rows = [f"{name:<24}{s * 1e3:10.2f} ms" for name, s in self.seconds.items()]
        return "\n".join(rows + [f"{'total':<24}{total * 1e3:10.2f} ms"])


@dataclass
class Pipeline:
    """The context in which passes run: knobs, timings and the number of the next dump."""
    config: Config
    timings: Timings = field(default_factory=Timings)
    dumped: int = 0

    def run(self, graph: Graph, passes: Sequence[Pass], stage: Stage) -> Graph:
        """The graph after all passes; `stage` is what it must satisfy at the end (with GRAPHC_VERIFY=2 checked after
        each)."""
        for each in passes:
            graph = self._run_one(graph, each)
            if self.config.verify >= 2:
                verify(graph, stage if each is passes[-1] else _LAX)
        return graph

    def timed(self, name: str, work: Callable[..., T], *arguments: object) -> T:
        """What the work gives; the time that it takes goes into the table."""
        start = perf_counter()
        result = work(*arguments)
        self.timings.add(name, perf_counter() - start)
        return result

    def dump(self, name: str, text: str) -> None:
        """Writes NN-name.txt into the folder of GRAPHC_DUMP, if set."""
        if self.config.dump:
            folder = Path(self.config.dump)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{self.dumped:02}-{name}.txt").write_text(text + "\n", encoding="utf-8")
            self.dumped += 1

    def _run_one(self, graph: Graph, each: Pass) -> Graph:
        start = perf_counter()
        try:
            after = apply(each, graph)
        except (GraphError, InternalError):
            raise
        except MemoryError as error:                    # as of a constant that the graph asks for
            raise GraphError(f"there is too little memory to compile {graph.name} ({each.name}): {error}") from error
        except Exception as error:
            raise InternalError(f"{type(error).__name__}: {error}", each.name) from error
        self.timings.add(each.name, perf_counter() - start)
        if self.config.dump:
            self.dump(each.name, "(unchanged)" if after == graph else print_graph(after))
        return after


_LAX = Stage("between passes", lambda op: True, symbolic=True)
