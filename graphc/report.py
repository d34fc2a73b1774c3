"""What `gc.plan` prints: a row for each layer, parameters, arithmetic and memory."""
from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from itertools import groupby
from types import MappingProxyType
from typing import TypeVar, cast

from graphc.compiler import Compilation
from graphc.dsl.context import user_loc
from graphc.dsl.form import formed_methods
from graphc.dsl.function import GraphFunction
from graphc.errors import GraphError
from graphc.ir.dims import Dim, Poly, evaluate, size_names
from graphc.ir.shown import Pictured
from graphc.memory.plan import Plan, ProgramPlan
from graphc.memory.usage import Memory, formula, human
from graphc.nn.network import entries
from graphc.records import dataclass

DEPTH = 2                           # levels of layers that a report prints
N = TypeVar("N", int, Dim)
UNITS = ("", " k", " M", " G", " T", " P")


@dataclass(frozen=True)
class LayerRow:
    """One call of a layer: its path, what it is, the types of its results, and, with those of its inner layers, its
    trainable numbers, its flops, and the bytes of it that are computed again to keep within `memory=`."""
    path: str
    kind: str
    results: tuple[str, ...]
    parameters: int
    flops: Dim
    again: int = 0

    @property
    def depth(self) -> int:
        return self.path.count(".") + 1

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]


@dataclass(frozen=True)
class _Tree:
    """A row and those of the inner layers."""
    row: LayerRow
    inner: tuple[_Tree, ...]

    @property
    def content(self) -> tuple[object, ...]:
        """All that it says besides its own name: repeated layers agree in it."""
        r = self.row
        return r.kind, r.results, r.parameters, r.flops, r.again, tuple((t.row.name, t.content) for t in self.inner)


@dataclass(frozen=True, repr=False)
class PlanReport(Pictured):
    """What a network will take. `parameters` are trainable numbers (not bytes), `flops` those of one run; `kernels` are
    calls of kernels in one run, `memory` bytes by purpose; `layers` has a row for each call of a layer, `text` is the
    planned graph, `planned()` the plan; `explain()`: why kernels run as they do.

    Where named dimensions are free, it is that of the one program for all their sizes: `flops` and `memory` are
    formulas in the names, and `at(B=8)` gives the report for these sizes. `largest`: the sizes up to which the names
    are bound, if all are. `layers_at`: the rows for given sizes.
    """
    parameters: int
    flops: Dim
    memory: Memory
    kernels: int
    layers: tuple[LayerRow, ...]
    text: str
    explain: Callable[[], str] = field(repr=False, compare=False)
    planned: Callable[[], Plan] = field(repr=False, compare=False)
    largest: Mapping[str, int] = field(default_factory=dict)
    layers_at: Callable[[Mapping[str, int]], tuple[LayerRow, ...]] = field(default=lambda sizes: (), repr=False,
                                                                           compare=False)

    @staticmethod
    def of(function: GraphFunction, sizes: Mapping[str, Dim], compilation: Compilation,
           largest: Mapping[str, int] = MappingProxyType({})) -> PlanReport:
        """The report on `function`, whose graph with these sizes of its named dimensions is that of `compilation`."""
        trainable = [(e.name, cast(int, e.type.size)) for e in entries(function) if getattr(e.key, "trainable", False)]
        flops = [(n.scope, n.op.cost(*(v.type for v in n.inputs)).flops) for n in compilation.simplified.nodes]
        recomputed = compilation.stage(ProgramPlan).recomputed
        again = _by_layer((scope, nbytes) for _, _, scope, _, _, nbytes in (recomputed.rows if recomputed else ()))

        def rows_at(more: Mapping[str, int]) -> tuple[LayerRow, ...]:
            amounts = _by_layer((scope, evaluate(n, more) if more else n) for scope, n in flops)
            rows = _rows(function, {**sizes, **more}, _by_layer(trainable), amounts)
            return tuple(replace(row, again=again[row.path]) for row in rows)
        parameters, total = sum(n for _, n in trainable), sum([n for _, n in flops])
        return PlanReport(parameters, total, compilation.memory, len(compilation.plan.schedules), rows_at({}),
                          compilation.text("planned"), compilation.explain, lambda: compilation.plan, dict(largest),
                          rows_at)

    def at(self, **sizes: int) -> PlanReport:
        """Of a call with these sizes of the named dimensions. GraphError where one is missing."""
        missing = sorted(self._names - sizes.keys())
        if missing:
            raise GraphError(f"at needs the sizes of {', '.join(missing)}, for example {missing[0]}=64", user_loc())
        return replace(self, flops=evaluate(self.flops, sizes), memory=self.memory.at(**sizes),
                       layers=self.layers_at(sizes), largest={})

    @property
    def _names(self) -> frozenset[str]:
        """Of the dimensions that are free."""
        return frozenset(map(str, size_names(self.flops) | size_names(self.memory.total)))

    def table(self, depth: int = DEPTH) -> str:
        """Layers down to `depth` levels; equal neighbours share a row. What is computed again has a column where there
        is any."""
        trees = _trees([row for row in self.layers if row.depth <= depth])
        again = sum(row.again for row in self.layers if row.depth == 1)
        total = ("total", "", "", f"{self.parameters:,}", scaled(self.flops), human(again))
        lines = [("layer", "kind", "result", "parameters", "flops", "again"), *_lines(trees), total]
        return aligned(lines if again else [line[:-1] for line in lines])

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        table = self.table() + "\n" if self.layers else ""
        peak = ""
        if self.largest:
            most = ", ".join(f"{name} = {size}" for name, size in self.largest.items())
            peak = f"\nat most, with {most}: {human(self.memory.at(**self.largest).total)} in all"
        return (f"{table}{self.parameters:,} parameters, {scaled(self.flops)} flops a run, {self.kernels} kernel "
                f"calls, {human(self.memory.total)} in all\n{self.memory}{peak}")


formed_methods(PlanReport)


def scaled(number: Dim) -> str:
    """1234567 -> "1.23 M"; numbers below 1000 as they are; 1500 * B -> "1.5 k · B"."""
    if isinstance(number, Poly):
        return formula(number, scaled)
    value, unit = float(number), 0
    while value >= 999.5 and unit < len(UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.3g}{UNITS[unit]}"


def _rows(function: GraphFunction, sizes: Mapping[str, Dim], parameters: Mapping[str, int],
          flops: Mapping[str, Dim]) -> Iterator[LayerRow]:
    for call in function.calls:
        if call.path:
            types = tuple(str(v.type.bind(sizes)) for v in call.values)
            yield LayerRow(call.path, call.kind, types, parameters[call.path], flops[call.path])


def _by_layer(amounts: Iterable[tuple[str, N]]) -> defaultdict[str, N | int]:
    """Sums of what has a path, for every layer on its path."""
    total: defaultdict[str, N | int] = defaultdict(int)
    for path, amount in amounts:
        while path:
            total[path] = total[path] + amount
            path = path.rpartition(".")[0]
    return total


def _trees(rows: Sequence[LayerRow]) -> tuple[_Tree, ...]:
    """Rows in the order of calls, put below the layers that they are inside of."""
    found: list[_Tree] = []
    while rows:
        first, *rest = rows
        count = next((i for i, row in enumerate(rest) if not row.path.startswith(first.path + ".")), len(rest))
        found.append(_Tree(first, _trees(rest[:count])))
        rows = rest[count:]
    return tuple(found)


def _lines(trees: Sequence[_Tree], depth: int = 0) -> Iterator[tuple[str, ...]]:
    """Equal neighbours in one line, then their inner layers."""
    for _, group in groupby(trees, key=lambda tree: tree.content):
        alike = list(group)
        yield _cells([tree.row for tree in alike], "  " * depth)
        yield from _lines(alike[0].inner, depth + 1)


def _cells(rows: Sequence[LayerRow], indent: str) -> tuple[str, ...]:
    """The line for one row, or for several that differ in name only."""
    first, times = rows[0], f"{len(rows)} × " if len(rows) > 1 else ""
    name = indent + first.path + (f" … {rows[-1].path}" if times else "")
    result = first.results[0] + (" …" if len(first.results) > 1 else "") if first.results else ""
    parameters = f"{times}{first.parameters:,}" if first.parameters else ""
    flops = f"{times}{scaled(first.flops)}" if first.flops != 0 else ""
    return name, first.kind, result, parameters, flops, f"{times}{human(first.again)}" if first.again else ""


def aligned(lines: Sequence[tuple[str, ...]], left: int = 3) -> str:
    """Columns: words, of which `left` begin below each other, then numbers, which end below each other."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    cell = lambda i, text: text.ljust(widths[i]) if i < left else text.rjust(widths[i])
    return "\n".join("  ".join(cell(i, text) for i, text in enumerate(line)).rstrip() for line in lines)
