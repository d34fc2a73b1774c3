"""A graph as text. `parser.parse` reads it back to an equal graph; source lines are comments."""
from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from math import isnan
from struct import pack

import numpy as np

from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Literal

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z_0-9]*\Z")
PLAIN_NAN = pack(">d", float("nan"))
INLINE_ELEMENTS = 16                # longer constants are written as hexadecimal bytes
Note = Callable[[Node], str]        # what to say behind a node, besides its source line


def print_graph(graph: Graph, note: Note | None = None, indent: str = "") -> str:
    """The text of the graph. `note` may add a comment behind each node (a schedule, a place in memory)."""
    names = value_names(graph)
    inner = indent + "  "
    lines = [f"{indent}graph {quoted(graph.name)}({_arguments(graph.inputs)}){_state(graph)} {{"]
    lines += [_node_line(node, names, inner, note) for node in graph.nodes]
    lines += [f"{inner}update {quoted(s.name)} = {names[u]}" for s, u in zip(graph.state, graph.updates)
              if u is not None]
    lines += [f"{inner}return{_returned(graph, names)}", f"{indent}}}"]
    return "\n".join(lines)


def value_names(graph: Graph) -> Mapping[Value, str]:
    """The name of each value in the text: `x` for arguments, `%h1` for named values, `%3` for the others."""
    names = {v: quoted(v.name) for v in graph.arguments}
    taken: set[str] = set()
    count = 0
    for node in graph.nodes:
        for v in node.outputs:
            if IDENTIFIER.match(v.name) and v.name not in taken:
                taken.add(v.name)
                names[v] = "%" + v.name
            else:
                names[v] = f"%{count}"
                count += 1
    return names


def quoted(name: str) -> str:
    """An identifier as it is, any other name as a string."""
    return name if IDENTIFIER.match(name) else string_text(name)


def string_text(text: str) -> str:
    """In quotes, with JSON's escapes; what does not print is escaped too, so that every file can hold it."""
    return json.dumps(text, ensure_ascii=not text.isprintable())


def attribute_text(value: object, indent: str = "") -> str:
    """An attribute as the parser reads it."""
    if isinstance(value, Graph):
        return "{\n" + print_graph(value, indent=indent + "  ") + f"\n{indent}}}"
    if isinstance(value, tuple):
        items = [attribute_text(v, indent) for v in value]
        return f"({', '.join(items)}{',' * (len(items) == 1)})"
    if isinstance(value, Literal):
        return literal_text(value)
    if value is None:
        return "none"
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, str):
        return string_text(value)
    return _float_text(float(value)) if isinstance(value, float | np.floating) else str(value)


def literal_text(value: Literal) -> str:
    array = value.array
    if array.size > INLINE_ELEMENTS or not _has_plain_nans(array):
        return f"{value.type}<0x{value.data.hex()}>"
    text = _float_text if value.dtype.is_float else lambda v: str(v).lower()
    numbers = array.astype(value.dtype.compute.np).ravel().tolist()
    return f"{value.type}<{', '.join([text(v) for v in numbers])}>"


def _has_plain_nans(array: np.ndarray) -> bool:
    """Whether every NaN has the bits that the word nan is read as: sign and payload of others are written as bytes."""
    if array.dtype.kind in "biu" or not np.isnan(array).any():
        return True
    return np.where(np.isnan(array), array.dtype.type(np.nan), array).tobytes() == array.tobytes()


def _float_text(value: float) -> str:
    """The shortest decimal number that is read as these bits; of a NaN with sign or payload, the bits."""
    bits = pack(">d", value)
    return "0x" + bits.hex() if isnan(value) and bits != PLAIN_NAN else repr(value)


def _arguments(values: tuple[Value, ...]) -> str:
    return ", ".join(f"{quoted(v.name)}: {v.type}" for v in values)


def _state(graph: Graph) -> str:
    return f" state({_arguments(graph.state)})" if graph.state else ""


def _node_line(node: Node, names: Mapping[Value, str], indent: str, note: Note | None) -> str:
    left = ", ".join([names[v] for v in node.outputs])
    right = f"{node.op.name}({', '.join([names[v] for v in node.inputs])}){_attributes(node, indent)}"
    comment = "; ".join([text for text in (note(node) if note else "", node.scope, _place(node)) if text])
    line = f"{indent}{left} = {right} : {_types(node)}"
    return f"{line}  # {comment}" if comment else line


def _place(node: Node) -> str:
    """The user's file and line; nothing for a node that was read from a text."""
    return f"{node.loc.file.rsplit('/', 1)[-1]}:{node.loc.line}" if node.loc and not node.loc.column else ""


def _attributes(node: Node, indent: str) -> str:
    pairs = node.op.attributes.items()
    return f" {{{', '.join([f'{k}={attribute_text(v, indent)}' for k, v in pairs])}}}" if pairs else ""


def _types(node: Node) -> str:
    return ", ".join([str(v.type) for v in node.outputs])


def _returned(graph: Graph, names: Mapping[Value, str]) -> str:
    values = [names[v] for v in graph.outputs]
    if graph.output_names is None and len(values) < 2:
        return " " + values[0] if values else ""
    if graph.output_names is None or not any(graph.output_names):
        return f" ({', '.join(values)}{',' * (len(values) == 1)})"
    return " {" + ", ".join(f"{quoted(n)}: {v}" for n, v in zip(graph.output_names, values)) + "}"


