"""Parameters of other programs under graphc's names."""
from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from graphc.checkpoint import load_arrays
from graphc.dsl.form import formed
from graphc.errors import GraphError
from graphc.nn.module import Module

PART = re.compile(r"(.*)\[(\d+)\]")
Rule = tuple[str, str] | tuple[str, str, Callable[[np.ndarray], np.ndarray]]


@formed
def renamed(arrays: Mapping[str, np.ndarray] | str | os.PathLike[str], rules: Sequence[Rule]) -> dict[str, np.ndarray]:
    """`arrays`, or those of a safetensors file, under new names, for `state=` of gc.compile.

    A rule is (regular expression of a whole name, new name with \\1, \\2 … for its groups) and,
    if the array changes too, a function of it. The first rule that fits a name counts; a new name "" drops the array,
    and a name that no rule fits stays. New names "w[0]", "w[1]", … are the parts of one array "w",
    which lie behind each other on its first axis.
    """
    found: dict[str, np.ndarray] = {}
    for name, array in (arrays if isinstance(arrays, Mapping) else load_arrays(arrays)).items():
        new, value = _by_rule(name, array, rules)
        if new in found:
            raise GraphError(f"the rules give two arrays the name {new!r}; the second is {name!r}")
        if new:
            found[new] = value
    return _joined(found)


@formed
def in_order(net: Module, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`arrays` under the names of the parameters of `net`, which must list them in the same order, as two declarations
    of one network in the same order do. `net` must have been traced (gc.plan does) so that its parameters are known.
    Arrays without axes, such as torch's num_batches_tracked, are left out. GraphError when a shape differs."""
    wanted = list(net.named_parameters())
    given = {name: a for name, a in arrays.items() if np.ndim(a)}
    if not wanted:
        raise GraphError("the network has no parameters yet: trace it first, for example with gc.plan(net, x=…)")
    if len(wanted) != len(given):
        raise GraphError(f"the network has {len(wanted)} parameters, {len(given)} arrays were given")
    for (name, parameter), (other, array) in zip(wanted, given.items()):
        if parameter.type.shape != np.shape(array):
            raise GraphError(f"{name} is {parameter.type}, {other} at the same place is {list(np.shape(array))}: give "
                             "renamed() the names")
    return {name: array for (name, _), array in zip(wanted, given.values())}


def _joined(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays, with parts joined."""
    whole: dict[str, dict[int, np.ndarray]] = {}
    for name, array in arrays.items():
        match = PART.fullmatch(name)
        whole.setdefault(match[1] if match else name, {})[int(match[2]) if match else 0] = array
    return {name: parts[0] if len(parts) == 1 else np.concatenate([parts[i] for i in sorted(parts)])
            for name, parts in whole.items()}


def _by_rule(name: str, array: np.ndarray, rules: Sequence[Rule]) -> tuple[str, np.ndarray]:
    for pattern, new, *change in rules:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(new), change[0](array) if change else array
    return name, array
