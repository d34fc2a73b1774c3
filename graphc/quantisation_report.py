"""The errors that products of 8-bit integers make, product by product: what `run.quantisation()` gives."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphc.dsl.form import formed_methods
from graphc.ir.graph import Graph, Value
from graphc.quantized_products import MOST, TINY, ProductQuantizer, WeightProduct

HEAD = ("product", "operands", "bits", "activations", "largest error", "relative error", "of")
F32_BITS = 32
WEIGHTS, RESULTS = "weights", "results"         # of what errors are told


@dataclass(frozen=True)
class ProductError:
    """A product of f32 in a network. bits: of its factors, 8 or 32; activations: how they are quantised; largest,
    relative: the largest error and the norm of the errors as a share of the norm, `of` its weights, or of its results
    on the first batch of a calibration; why_not: the reason for which it stays in f32."""
    name: str
    product: str
    bits: int
    activations: str = ""
    largest: float = 0.0
    relative: float = 0.0
    of: str = WEIGHTS
    why_not: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        errors = (f"{self.largest:.2e}", f"{self.relative:.2e}", self.of) if self.bits < F32_BITS else ("",) * 3
        return self.name, self.product, str(self.bits), self.activations or self.why_not, *errors


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
    quantizer: ProductQuantizer
    state: Callable[[], Sequence[np.ndarray]]

    def report(self) -> QuantisationReport:
        arrays = dict(zip(self.graph.state, self.state(), strict=True))
        return QuantisationReport(tuple(self._row(p, arrays) for p in self.quantizer.found))

    def left(self) -> str:
        """The products that stay in f32, and why, for `explain`."""
        rows = [f"{p.name}: {p.text} stays f32: {p.why_not}" for p in self.quantizer.found if p.why_not]
        return "\n".join(rows)

    def _row(self, p: WeightProduct, state: Mapping[Value, np.ndarray]) -> ProductError:
        if p.why_not:
            return ProductError(p.name, p.text, F32_BITS, why_not=p.why_not)
        fixed = self.quantizer.fixed.get(p.name)
        if fixed is not None:
            how = f"{fixed.dtype} of {fixed.low:.4g} … {fixed.high:.4g}"
            return ProductError(p.name, p.text, 8, how, fixed.largest, fixed.relative, RESULTS)
        weights = self.quantizer.numbers(p.weights, state)
        largest, relative = weight_errors(weights, p.summed(p.place or 0))
        return ProductError(p.name, p.text, 8, "i8 by row", largest, relative)


def weight_errors(weights: np.ndarray, axes: tuple[int, ...]) -> tuple[float, float]:
    """The largest error of quantised weights, and the norm of their errors as a share of their norm."""
    scale = np.maximum(np.abs(weights).max(axis=axes, keepdims=True), np.float32(TINY)) / np.float32(MOST)
    error = np.rint(weights / scale) * scale - weights
    size, whole = float(np.linalg.norm(error)), float(np.linalg.norm(weights))
    return float(np.abs(error).max(initial=0.0)), size / max(whole, TINY)
