"""The errors that products of rounded factors make, product by product, and those of weights in few bits: what
`run.quantisation()` gives."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from graphc.dsl.form import formed_methods
from graphc.ir.graph import Graph, Value
from graphc.product_rewriter import F32_BITS, ProductError, ProductRewriter
from graphc.records import dataclass
from graphc.stored_weights import StoredWeights, WeightError

WEIGHTS_HEAD = ("weight", "type", "kept", "largest error", "rms error", "bytes f32", "bytes kept", "note")
HEAD = ("product", "operands", "bits", "activations", "largest error", "relative error", "of")


@dataclass(frozen=True)
class QuantisationReport:
    """A row for each product of rounded factors (`compute=`), and for each weight of two axes and more where some are
    kept in few bits (`store=`); printed, a table of each."""
    products: tuple[ProductError, ...]
    weights: tuple[WeightError, ...] = ()

    def __str__(self) -> str:
        tables = []
        if self.products:
            tables.append(_table([HEAD, *(p.cells for p in self.products)]))
        if self.weights:
            total = [sum(n) for n in zip(*[(each.nbytes, each.kept_bytes) for each in self.weights])]
            tables.append(_table([WEIGHTS_HEAD, *(each.cells for each in self.weights),
                                  ("all", "", "", "", "", *map(str, total), "")]))
        return "\n\n".join(tables)

    __repr__ = __str__


formed_methods(QuantisationReport)


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.ljust(n) for cell, n in zip(row, widths)).rstrip() for row in rows)


@dataclass(frozen=True)
class Quantisation:
    """What was done to the products of a graph, and to its weights. state: the arrays of the graph's state, when they
    are asked for."""
    graph: Graph
    rewriter: ProductRewriter | None
    stored: StoredWeights | None
    state: Callable[[], Sequence[np.ndarray]]

    def report(self) -> QuantisationReport:
        arrays = self.state()
        products = () if self.rewriter is None else _products(self.rewriter, dict(zip(self.graph.state, arrays,
                                                                                      strict=True)))
        return QuantisationReport(products, self.stored.errors(arrays) if self.stored else ())

    @property
    def left(self) -> str:
        """The products that stay in f32, and why, for `explain`."""
        return self.rewriter.left if self.rewriter else ""


def _products(rewriter: ProductRewriter, state: Mapping[Value, np.ndarray]) -> tuple[ProductError, ...]:
    return tuple(ProductError(p.name, p.text, F32_BITS, why_not=p.why_not) if p.why_not else rewriter.error(p, state)
                 for p in rewriter.found)
