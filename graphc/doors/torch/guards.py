"""Sizes for which a program of torch.export is right, from its guards: what PyTorch, when it read the module, took for
granted of them, as Python writes it."""
from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from math import inf, prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export.graph_signature import InputKind

from graphc.doors.torch.program import SizeRule
from graphc.dsl.context import user_loc
from graphc.errors import GraphError
from graphc.ir.dims import Dim, largest, smallest

OF_TORCH = Path(torch.__file__).parent
Range = tuple[int, "int | None"]    # the least size, and the greatest if there is one
Calls = Mapping[str, Callable[..., Any]]
# functions of PyTorch that ask for sizes to find out how a result lies in memory, and not which numbers it has
LAYOUT = frozenset("""__lt__ _collapse_view_helper _reshape_view_helper_core_alg check_contiguous_sizes_strides
compute_elementwise_output_logical_to_physical_perm compute_elementwise_output_strides is_channels_last_contiguous_2d
is_channels_last_contiguous_3d is_contiguous is_non_overlapping_and_dense make_contiguous_strides_for should_swap
""".split())
LEAST, GREATEST = ("Min", "min", "sym_min"), ("Max", "max", "sym_max")
NUMBERS: Calls = {"IntInfinity": lambda: inf, **dict.fromkeys(LEAST, lambda *n: reduce(np.minimum, n)),
                  **dict.fromkeys(GREATEST, lambda *n: reduce(np.maximum, n))}
SIZES: Calls = {**dict.fromkeys(LEAST, smallest), **dict.fromkeys(GREATEST, largest)}
OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv,
    ast.Mod: lambda a, b: a - a // b * b, ast.USub: operator.neg, ast.Not: np.logical_not,
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge}
OPPOSITE: dict[type, type] = {ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE,
                              ast.LtE: ast.Gt}
# of b - a times a sign, or squared, the least and the greatest with which "a < b" and others hold
RULES: dict[type, tuple[int, int, int | None]] = {
    ast.Eq: (1, 0, 0), ast.NotEq: (0, 1, None), ast.Lt: (1, 1, None), ast.LtE: (1, 0, None), ast.Gt: (-1, 1, None),
    ast.GtE: (-1, 0, None)}
SPAN = 1 << 17                      # sizes that are tried: a guard of smaller numbers changes no more beyond


def size_limits(name: str, exported: torch.export.ExportedProgram,
                formula: Callable[[object], Dim]) -> Iterator[SizeRule]:
    """Rules of sizes for which a program was read. A least size of 2 says only that PyTorch looks at sizes of 0 and 1
    apart; it runs the program with these, too. `formula`: a size of PyTorch's as one of graphc's."""
    ends = {symbol: (int(numbers.lower) if numbers.lower.is_Integer and numbers.lower > 2 else 0,
                     int(numbers.upper) if numbers.upper.is_Integer else None)
            for symbol, numbers in exported.range_constraints.items()}
    size = _finder(exported)
    rules: list[SizeRule] = []
    for tree in map(_tree, _of_numbers(exported)):
        try:
            symbols = {size(source) for source in _sources(tree)}
            alone = symbols.pop() if len(symbols) == 1 else None
            ranges = where_it_holds(tree, *ends[alone]) if alone in ends else []
            if len(ranges) == 1:
                ends[alone] = ranges[0]
            else:
                rules += _rules(tree, lambda source: formula(size(source)))
        except (LookupError, GraphError):
            raise GraphError(f"{name} was read for sizes with {_shown(tree)} alone, which is no rule that graphc can "
                             'check: export it with sizes that say so, such as 2 * torch.export.Dim("half")',
                             user_loc()) from None
    yield from (SizeRule(formula(symbol), low, high) for symbol, (low, high) in ends.items() if low or high is not None)
    yield from rules


def _of_numbers(exported: torch.export.ExportedProgram) -> list[str]:
    """The guards, as PyTorch keeps them from version 2.9 on. Where it also says who asked, which files do not tell,
    without those of the layout in memory."""
    guards: list[str] = list(getattr(exported, "_guards_code", ()))
    sizes = (size for node in exported.graph.nodes if isinstance(node.meta.get("val"), torch.Tensor)
             for size in node.meta["val"].shape if isinstance(size, torch.SymInt))
    made = next((size.node.shape_env.guards for size in sizes), ())
    if len(made) != len(guards):
        return guards
    return [guard for guard, by in zip(guards, made) if not _is_of_layout(by.sloc.framework_loc)]


def _is_of_layout(place: Any) -> bool:
    return getattr(place, "name", "") in LAYOUT and Path(place.filename).is_relative_to(OF_TORCH)


def where_it_holds(guard: ast.AST, low: int, high: int | None) -> list[Range]:
    """The sizes from `low` to `high` for which a guard of one size holds; none where it does more than to compute."""
    if prod(abs(n) + 1 for n in _numbers(guard)) >= SPAN:
        return []
    sizes = np.arange(low, min(SPAN, SPAN if high is None else high + 1))
    try:
        with np.errstate(divide="ignore"):
            right = _value(guard, lambda _: sizes, NUMBERS) & (sizes >= 0)
    except KeyError:
        return []
    edges = (np.flatnonzero(np.diff(right, prepend=False, append=False)) + low).tolist()
    return [(first, high if stop == low + len(sizes) else stop - 1) for first, stop in zip(edges[::2], edges[1::2])]


def _tree(guard: str) -> ast.AST:
    try:
        return ast.parse(guard, mode="eval").body
    except SyntaxError:
        return ast.Constant(guard)


def _is_size(e: ast.AST) -> bool:
    """Whether it is a size of an input, as in L['x'].size()[0]."""
    return isinstance(e, ast.Subscript) and isinstance(e.value, ast.Call) and isinstance(e.slice, ast.Constant)


def _sources(tree: ast.AST) -> list[str]:
    return [ast.unparse(e) for e in ast.walk(tree) if _is_size(e)]


def _numbers(e: ast.AST) -> Iterator[int]:
    """All that are not the axis of a size."""
    if isinstance(e, ast.Constant) and isinstance(e.value, int):
        yield e.value
    elif not _is_size(e):
        for part in ast.iter_child_nodes(e):
            yield from _numbers(part)


def _value(e: ast.AST, size: Callable[[str], Any], calls: Calls) -> Any:
    """Of a guard. It may come from a file: nothing but arithmetic is done. KeyError for the rest."""
    def value(part: ast.AST) -> Any:
        return _value(part, size, calls)
    match e:
        case ast.Constant(int() as number):
            return number
        case ast.Subscript() if _is_size(e):
            return size(ast.unparse(e))
        case ast.UnaryOp():
            return OPERATORS[type(e.op)](value(e.operand))
        case ast.BinOp():
            return OPERATORS[type(e.op)](value(e.left), value(e.right))
        case ast.BoolOp():
            return reduce(operator.and_ if isinstance(e.op, ast.And) else operator.or_, map(value, e.values))
        case ast.Compare():
            values = [value(v) for v in (e.left, *e.comparators)]
            found = [OPERATORS[type(op)](a, b) for op, a, b in zip(e.ops, values, values[1:])]
            return reduce(operator.and_, found)
        case ast.Call(function, arguments, []):
            return calls[ast.unparse(function).removeprefix("torch.")](*map(value, arguments))
    raise KeyError(ast.unparse(e))


def _rules(e: ast.AST, size: Callable[[str], Dim]) -> Iterator[SizeRule]:
    """A guard as rules of formulas of sizes. KeyError or GraphError where it is none."""
    match e:
        case ast.BoolOp(ast.And(), parts):
            for part in parts:
                yield from _rules(part, size)
        case ast.UnaryOp(ast.Not(), ast.Compare(a, [op], [b])):
            yield from _rules(ast.Compare(a, [OPPOSITE[type(op)]()], [b]), size)
        case ast.Compare():
            parts = [e.left, *e.comparators]
            for op, a, b in zip(e.ops, parts, parts[1:]):
                difference = _value(b, size, SIZES) - _value(a, size, SIZES)
                sign, low, high = RULES[type(op)]
                formula = difference * difference if sign == 0 else difference * sign
                yield SizeRule(formula, low, high, _shown(e))
        case _:
            raise KeyError(ast.unparse(e))


def _shown(tree: ast.AST) -> str:
    """A guard as a user writes it."""
    return re.sub(r"L\['(\w+)'\]((?:\[[^\]]*\])*)\.size\(\)", r"\1\2.shape", ast.unparse(tree))


def _finder(exported: torch.export.ExportedProgram) -> Callable[[str], Any]:
    """Gives a size as PyTorch's formula by what guards call it. Inputs inside of lists and dicts have the names of all
    places on the way to them, in small letters. LookupError for one that is not found."""
    nodes = {node.name: node.meta.get("val") for node in exported.graph.nodes if node.op == "placeholder"}
    flat = [s.arg.name for s in exported.graph_signature.input_specs if s.kind is InputKind.USER_INPUT]

    def size(source: str) -> Any:
        place, axis = source.split(".size()")
        _, first, *more = re.findall(r"\w+", place)
        name = flat[int(more[0])] if first == "flat_args" else "_".join([first, *more]).lower()
        found = nodes[name].shape[int(axis.strip("[]"))]
        return found.node.expr if isinstance(found, torch.SymInt) else found
    return size
