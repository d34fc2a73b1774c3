"""What losses share: how the losses of single elements become one, and operands that must fit."""
from __future__ import annotations

from collections.abc import Callable

import graphc as gc
from graphc.dsl.array import Array, as_array, as_float, common_dtype
from graphc.errors import GraphError
from graphc.ir.convert import choice

REDUCTIONS: dict[str, Callable[[Array], Array]] = {"mean": gc.mean, "sum": gc.sum, "none": lambda losses: losses}


def reduced(what: str, losses: Array, reduction: str, weights: Array | None = None) -> Array:
    """The mean of all losses, their sum, or the losses. `weights`: what they have been multiplied by, if the mean is
    that of so much weight."""
    reduction = choice(reduction, f"{what}: reduction", tuple(REDUCTIONS))
    if weights is not None and reduction == "mean":
        return gc.sum(losses) / gc.sum(weights)
    return REDUCTIONS[reduction](losses)


def alike(what: str, input: Array, target: Array) -> tuple[Array, Array]:
    """Prediction and target as floats of one dtype and shape; a scalar counts for all elements, nothing else
    broadcasts (as it does, with a warning, in torch)."""
    dtype = common_dtype((input, target))
    x, y = as_float(as_array(input, dtype)), as_array(target, dtype)
    y = y if y.dtype.is_float else y.astype(x.dtype)
    if x.shape != y.shape and x.ndim and y.ndim:
        raise GraphError(f"{what} takes a prediction and a target of one shape, got {x.type} and {y.type}")
    return x, y


def ids_of(what: str, target: Array) -> Array:
    """Class ids, which are integers."""
    ids = as_array(target)
    if not ids.dtype.is_int:
        raise GraphError(f"{what} takes class ids, integers, as the target, got {ids.type}; convert them with "
                         "target.astype(gc.i64)")
    return ids


def weighed(what: str, losses: Array, weight: Array | None) -> Array:
    """Losses times weights that broadcast to them."""
    if weight is None:
        return losses
    weight = as_array(weight, losses.dtype)
    weighted = losses * weight
    if weighted.shape != losses.shape:
        raise GraphError(f"{what}: weight broadcasts to the losses, {losses.type}; got {weight.type}")
    return weighted
