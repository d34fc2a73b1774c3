"""The errors that products of rounded factors make, product by product: what `run.quantisation()` gives."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from graphc.dsl.form import formed_methods
from graphc.ir.graph import Graph, Value
from graphc.product_rewriter import F32_BITS, ProductError, ProductRewriter, WeightProduct
from graphc.records import dataclass

HEAD = ("product", "operands", "bits", "activations", "largest error", "relative error", "of")


@dataclass(frozen=True)
class QuantisationReport:
    """A row for each product; printed, a table."""
    products: tuple[ProductError, ...]

    def __str__(self) -> str:
        rows = [HEAD, *(p.cells for p in self.products)]
        widths = [max(map(len, column)) for column in zip(*rows)]
        return "\n".join("  ".join(cell.ljust(n) for cell, n in zip(row, widths)).rstrip() for row in rows)

    __repr__ = __str__


formed_methods(QuantisationReport)


@dataclass(frozen=True)
class Quantisation:
    """What was done to the products of a graph. state: the arrays of the graph's state, when they are asked for."""
    graph: Graph
    rewriter: ProductRewriter
    state: Callable[[], Sequence[np.ndarray]]

    def report(self) -> QuantisationReport:
        arrays = dict(zip(self.graph.state, self.state(), strict=True))
        return QuantisationReport(tuple(self._row(p, arrays) for p in self.rewriter.found))

    def _row(self, p: WeightProduct, state: Mapping[Value, np.ndarray]) -> ProductError:
        if p.why_not:
            return ProductError(p.name, p.text, F32_BITS, why_not=p.why_not)
        return self.rewriter.error(p, state)
