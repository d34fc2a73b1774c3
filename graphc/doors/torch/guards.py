"""Sizes for which a program of torch.export is right, from its guards: what PyTorch, when it read the module, took for
granted of them, as Python writes it."""
from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterable, Iterator
from math import inf
from typing import Any

import torch

from graphc.dsl.context import user_loc
from graphc.errors import GraphError

Range = tuple[int, "int | None"]    # the least size, and the greatest if there is one
INPUT = re.compile(r"L\['(\w+)'\]\.size\(\)\[(\d+)\]")
SIZE = re.compile(r"L(?:\[[^\]]*\])+\.size\(\)\[\d+\]")
VIOLATED = re.compile(r"Not all values of (\w+) = (.*?) in the specified range satisfy the generated guard (.*?)\.?\n")
CALLS: dict[str, Callable[..., Any]] = {"IntInfinity": lambda: inf, "Max": max, "Min": min, "max": max, "min": min}
OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod, ast.USub: operator.neg, ast.Not: operator.not_, ast.Eq: operator.eq, ast.NotEq: operator.ne,
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge}
SPAN = 1 << 12                      # sizes that are tried: a guard that holds from some size on does so below


def possible_sizes(message: str) -> dict[str, Range]:
    """For each size of which torch.export says that it may not be just any, those that it may be; nothing where it says
    something else too, or they are no range."""
    guards: dict[str, tuple[str, list[str]]] = {}
    lines = VIOLATED.findall(message + "\n")
    for name, source, guard in lines:
        guards.setdefault(name, (source, []))[1].append(guard)
    found = {name: where_all_hold(those, source) for name, (source, those) in guards.items()}
    ranges = {name: sizes for name, sizes in found.items() if sizes}
    understood = len(lines) == sum(line.startswith("  - ") for line in message.splitlines())
    return ranges if understood and len(ranges) == len(found) else {}


def where_all_hold(guards: Iterable[str], source: str, low: int = 0, high: int | None = None) -> Range | None:
    """The sizes from `low` to `high` for which all these guards hold, which speak of that size alone: the larger part
    where one size divides them. None where they are in more pieces, or the guards are of another kind."""
    tests = []
    for guard in guards:
        if set(SIZE.findall(guard)) != {source}:
            return None
        tests.append(SIZE.sub("n", guard))
    end = min(SPAN, SPAN if high is None else high + 1)
    try:
        trees = [ast.parse(test, mode="eval").body for test in tests]
        right = [all(_value(tree, n) for tree in trees) for n in range(low, end)]
    except (SyntaxError, KeyError, ArithmeticError):
        return None
    edges = [n for n, (a, b) in enumerate(zip([False, *right], [*right, False]), low) if a != b]
    pieces = list(zip(edges[::2], edges[1::2]))
    if not 1 <= len(pieces) <= 2:
        return None
    first, stop = max(pieces, key=lambda piece: piece[1] - piece[0])
    return first, high if stop == end else stop - 1


def _value(e: ast.AST, n: int) -> Any:
    """Of a guard where the size is n. It may come from a file: nothing but arithmetic is done. KeyError for the rest.
    """
    match e:
        case ast.Constant(int() as number):
            return number
        case ast.Name("n"):
            return n
        case ast.UnaryOp():
            return OPERATORS[type(e.op)](_value(e.operand, n))
        case ast.BinOp():
            return OPERATORS[type(e.op)](_value(e.left, n), _value(e.right, n))
        case ast.BoolOp():
            return (all if isinstance(e.op, ast.And) else any)([_value(v, n) for v in e.values])
        case ast.Compare():
            values = [_value(v, n) for v in (e.left, *e.comparators)]
            return all(OPERATORS[type(op)](a, b) for op, a, b in zip(e.ops, values, values[1:]))
        case ast.Call(ast.Name(name), arguments, []):
            return CALLS[name](*[_value(v, n) for v in arguments])
    raise KeyError(ast.unparse(e))


Limit = tuple[Any, int, "int | None"]           # of a size: the least, and the greatest


def size_limits(name: str, exported: torch.export.ExportedProgram, formula: Callable[[object], Any]) -> Iterator[Limit]:
    """Sizes for which a program was read. A least one of 2 says only that PyTorch looks at sizes of 0 and 1 apart; it
    runs the program with these, too. `formula`: a size of PyTorch's as one of graphc's."""
    ends = {symbol: (int(numbers.lower) if numbers.lower.is_Integer and numbers.lower > 2 else 0,
                     int(numbers.upper) if numbers.upper.is_Integer else None)
            for symbol, numbers in exported.range_constraints.items()}
    inputs = {node.name: node.meta.get("val") for node in exported.graph.nodes if node.op == "placeholder"}
    for (source, axis), guards in _of_one_size(exported).items():
        size = inputs[source].shape[axis] if isinstance(inputs.get(source), torch.Tensor) else None
        if isinstance(size, torch.SymInt) and size.node.expr.is_Symbol:
            right = where_all_hold(guards, f"L['{source}'].size()[{axis}]", *ends.get(size.node.expr, (0, None)))
            if right is None:
                raise GraphError(f"{name} was read for sizes with {' and '.join(guards)} alone: export it with a "
                                 'torch.export.Dim that says so, such as 2 * Dim("half")', user_loc())
            ends[size.node.expr] = right
    yield from ((formula(size), low, high) for size, (low, high) in ends.items() if low or high is not None)


def _of_one_size(exported: torch.export.ExportedProgram) -> dict[tuple[str, int], list[str]]:
    """The guards that speak of one size of an input, by its name and axis. Those of several, that they be equal or
    within each other, are rules of operators. PyTorch keeps them from version 2.9 on."""
    found: dict[tuple[str, int], list[str]] = {}
    for guard in getattr(exported, "_guards_code", ()):
        sources = set(SIZE.findall(guard))
        if len(sources) == 1 and (parts := INPUT.fullmatch(sources.pop())):
            found.setdefault((parts[1], int(parts[2])), []).append(guard)
    return found
