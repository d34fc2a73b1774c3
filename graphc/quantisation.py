"""`gc.calibrate`: ranges of activations, from data, for `compute="int8"`."""
from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from graphc.api import compile as compile_function
from graphc.api import traced
from graphc.compiled import CompiledGraph
from graphc.contained import contained
from graphc.dsl.context import user_loc
from graphc.dsl.debug import silent
from graphc.dsl.form import formed
from graphc.dsl.function import GraphFunction
from graphc.errors import GraphError
from graphc.given import shown
from graphc.ir.graph import Graph
from graphc.ir.types import TensorType
from graphc.nn.module import Module
from graphc.nn.network import sorted_out
from graphc.quantized_products import TINY, Activations, Calibration, products_of, with_errors
from graphc.specialised import SpecialisedGraph
from graphc.state import Model

SAMPLES = 1 << 14                   # numbers of a batch's activations that percentiles and errors are computed of
SHARES = np.linspace(0.2, 1.0, 81)  # of the largest number, tried as limits
METHODS = ("minmax", "percentile", "mse")
Compiled = CompiledGraph | SpecialisedGraph


@formed
def calibrate(f: Module | GraphFunction | Model | Callable[..., Any], batches: Iterable[Any], /, *,
              method: str = "minmax", percentile: float = 99.99, seed: int | None = None,
              state: str | os.PathLike[str] | Mapping[str, np.ndarray] | None = None,
              **bindings: TensorType | int) -> Calibration:
    """Ranges of the activations that products by weights read, for `gc.compile(…, compute=calibration)`.

    `batches`: arrays, tuples of arrays in the order of the inputs, or dicts by their names. `seed`, `state` and the
    types of inputs are those of gc.compile. `method`: "minmax": the lowest and highest number; "percentile": limits
    that this share (in percent) of the numbers are within; "mse": those that make the least mean square error. The last
    two see some thousand numbers of each batch. Numbers outside become the nearest inside. Products in loops (the
    recurrent ones of LSTM and GRU) stay quantised row by row. The first batch also tells the errors of each product,
    for `run.quantisation()`.

    Raises GraphError without a batch, for another method, and for numbers that are not finite.
    """
    given: Mapping[str, Any] = {"method": method, "percentile": percentile, "seed": seed, "state": state}
    given, types = sorted_out(cast(Callable[..., Any], f), calibrate, given, bindings)
    method, percentile = given["method"], given["percentile"]
    if method not in METHODS:
        raise GraphError(f"method= is one of {', '.join(METHODS)}, got {shown(method)}", user_loc())
    if not 50 <= percentile <= 100:
        raise GraphError(f"percentile= is from 50 to 100, got {shown(percentile)}", user_loc())
    return _calibrated(f, batches, (method, float(percentile)), {n: given[n] for n in ("seed", "state")}, types)


@contained
def _calibrated(f: Any, batches: Iterable[Any], method: tuple[str, float], origin: Mapping[str, Any],
                bindings: Mapping[str, Any]) -> Calibration:
    source = traced(f, False, bindings)
    function = source.function
    found = [p for p in products_of(function.graph) if not p.why_not and not p.inner]
    if not found:
        raise GraphError(f"{function.name} has no product by weights that would be one of 8-bit integers", user_loc())
    read = list(dict.fromkeys(p.activations for p in found))
    options: Mapping[str, Any] = {**(origin if source.state is None else {"state": source.state}), **source.sizes,
                                  **source.bounds}

    def compiled(graph: Graph) -> Compiled:
        return silent(compile_function(replace(function, graph=graph, retrace=None, prints=()), **options))
    run = compiled(replace(function.graph, outputs=tuple(read), output_names=("",) * len(read)))
    observed, first = [_Observed() for _ in read], None
    for batch in batches:
        first = batch if first is None else first
        for each, array in zip(observed, _outputs(run, batch), strict=True):
            each.add(array)
    if not observed[0].samples:
        raise GraphError("calibrate takes at least one batch", user_loc())
    limits = {v: each.limits(*method) for v, each in zip(read, observed)}
    ranges = {p.name: Activations(*limits[p.activations]) for p in found}
    errors = _outputs(compiled(with_errors(function.graph, found, ranges)), first)
    return Calibration(method[0], {
        name: replace(a, largest=float(errors[3 * i + 1]), relative=_share(errors[3 * i], errors[3 * i + 2]))
        for i, (name, a) in enumerate(ranges.items())})


def _share(errors: np.ndarray, results: np.ndarray) -> float:
    """The norm of errors as a share of that of results, of their squares."""
    return float(np.sqrt(errors / max(float(results), TINY)))


def _outputs(run: Compiled, batch: Any) -> Sequence[np.ndarray]:
    if isinstance(batch, Mapping):
        return cast(Sequence[np.ndarray], run(**batch))
    return cast(Sequence[np.ndarray], run(*batch) if isinstance(batch, tuple | list) else run(batch))


class _Observed:
    """What activations were in the batches so far."""

    def __init__(self) -> None:
        self.low, self.high = 0.0, 0.0
        self.samples: list[np.ndarray] = []

    def add(self, x: np.ndarray) -> None:
        flat = x.reshape(-1)
        if not flat.size:
            return
        low, high = float(flat.min()), float(flat.max())
        if not np.isfinite(low) or not np.isfinite(high):
            raise GraphError("activations of the batches are not all finite: there is no range for them", user_loc())
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.samples.append(flat[::-(-flat.size // SAMPLES)].copy())

    def limits(self, method: str, percentile: float) -> tuple[float, float]:
        if method == "minmax":
            return self.low, self.high
        x = np.concatenate(self.samples)
        limit = float(np.percentile(np.abs(x), percentile)) if method == "percentile" else self._least_error(x)
        return max(self.low, -limit), min(self.high, limit)

    def _least_error(self, x: np.ndarray) -> float:
        largest = max(-self.low, self.high, TINY)

        def error(share: float) -> float:
            a = Activations(max(self.low, -share * largest), min(self.high, share * largest))
            return float(np.square(x - a.codes(x) * np.float32(a.scale), dtype=np.float64).sum())
        return largest * float(min(SHARES, key=error))
