"""THE table: the name of an ATen overload, as "add.Tensor" -> its rule. What is here stays whole when a program is
read; all else is decomposed by PyTorch until only these are left."""
from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import graphc as gc
from graphc.doors.torch.rules import (
    creation, factorisations, gradients, incomplete_gamma, indexing, layers, losses, pointwise, products, reductions,
    shapes, special)
from graphc.doors.torch.rules.promotion import size_array

Rule = Callable[..., Any]


def _tables(*tables: dict[str, Rule]) -> dict[str, Rule]:
    """All rules; each operator stands in one table only."""
    merged: dict[str, Rule] = {}
    for table in tables:
        merged |= table
    return merged


RULES = _tables(pointwise.RULES, shapes.RULES, creation.RULES, reductions.RULES, products.RULES,
                factorisations.RULES, layers.RULES, indexing.RULES, losses.RULES, gradients.RULES,
                special.RULES, incomplete_gamma.RULES)


def _number(x: Any) -> Any:
    """A size that is to be an array, because it meets one."""
    return x if isinstance(x, gc.Array | bool | int | float) else size_array(x)


# arithmetic on sizes, which is Python's
SIZES: dict[str, Rule] = {
    **{f"operator.{name}": getattr(operator, name) for name in (
        "add", "sub", "mul", "floordiv", "mod", "neg", "eq", "ne", "lt", "le", "gt", "ge", "and_", "or_", "not_",
        "getitem", "pow", "truediv")},
    "math.ceil": math.ceil, "math.floor": math.floor, "math.trunc": math.trunc, "sym_float": lambda x: x,
    "sym_not": operator.not_, "sym_int": lambda x: int(x) if isinstance(x, float) else x,
    "sym_max": lambda a, b: max(a, b),
    "sym_min": lambda a, b: min(a, b), "sym_ite": lambda c, a, b: a if c else b, "sym_sum": lambda xs: sum(xs)}
# what checks a program while it runs in PyTorch: sizes are known here, and kernels check positions
CHECKS = frozenset({"_assert_async.msg", "_assert_async.default", "_assert_scalar.default",
                    "_assert_tensor_metadata.default", "sym_constrain_range.default",
                    "sym_constrain_range_for_size.default", "_functional_assert_async.msg",
                    "_functional_assert_scalar.default", "_linalg_check_errors.default"})
