"""What users of numpy and torch write by habit, and graphc's name for it."""
from __future__ import annotations

import sys
from typing import NoReturn

from graphc.errors import GraphError

# numpy functions whose name differs
FUNCTIONS: dict[str, str] = {
    "concatenate": "concat", "absolute": "abs", "fabs": "abs", "power": "pow", "float_power": "pow", "negative": "neg", "rint": "round",
    "around": "round", "matvec": "matmul", "vecmat": "matmul", "vecdot": "einsum", "inner": "einsum", "tensordot": "einsum",
    "amax": "max", "amin": "min", "vstack": "concat", "hstack": "concat", "copyto": "where", "invert": "bitwise_not", "divide": "div",
    "floor_divide": "floordiv", "remainder": "mod", "multiply": "mul", "subtract": "sub", "array": "stack",
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arctan2": "atan2", "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh"}

# methods of torch's tensors
METHODS: dict[str, str] = {
    "unsqueeze": "expand_dims", "permute": "transpose", "view": "reshape", "detach": "stop_gradient", "masked_fill": "where", "mm": "matmul",
    "bmm": "matmul", "expand": "broadcast_to", "amax": "max", "amin": "min", "chunk": "split", "index_select": "take",
    "scatter_add_": "scatter_add", "float": "cast", "long": "cast", "to": "cast", "type_as": "cast", "repeat_interleave": "repeat"}


def refuse(function: str) -> NoReturn:
    """GraphError for a numpy function on a symbolic array."""
    name = FUNCTIONS.get(function, function)
    hint = f"use gc.{name}" if _public(name) else "write it with graphc's functions, or compute it outside the graph"
    raise GraphError(f"numpy's {function} cannot work on a symbolic array: {hint}")


def no_method(name: str) -> str:
    """The message for an attribute that arrays do not have."""
    here = METHODS.get(name, name)
    return f"a symbolic array has no attribute {name!r}" + (f": use gc.{here}(x, …)" if _public(here) else "")


def _public(name: str) -> bool:
    return hasattr(sys.modules["graphc"], name)
