"""Graphs from text, for users: the reader is `ir/parser.py`."""
from __future__ import annotations

from graphc.dsl.form import formed
from graphc.ir.graph import Graph
from graphc.ir.parser import parse as read


@formed
def parse(text: str, file: str = "<graph text>") -> Graph:
    """The graph that `text` (as printed by `print_graph`) describes; `file` is its name in errors.

    GraphError with line and column when the text does not parse, names an unknown operator or value, has attributes
    that are not what the operator takes, or a type that is wrong.

    Examples:
        >>> f = gc.parse("graph f(x: f32[2]) { %0 = exp(x) : f32[2]  return %0 }")
        >>> gc.compile(f)(np.zeros(2, np.float32))
        array([1., 1.], dtype=float32)
    """
    return read(text, file)
