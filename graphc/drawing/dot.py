"""A picture in Graphviz's language."""
from __future__ import annotations

import re
from collections.abc import Iterator

from graphc.drawing.picture import Picture, PictureCluster, Vertex

# what XML must not contain, and line ends
UNPRINTABLE = re.compile("[^\t -\U0010ffff]|[\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
VERTICES = {
    "input": 'shape=box, style="rounded,filled", fillcolor="#dbe9f9", color="#6b8fb8"',
    "state": 'shape=box, style="rounded,filled", fillcolor="#e3f1dc", color="#7fa36c"',
    "constant": 'shape=box, style="filled", fillcolor="#f1f1f1", color="#a0a0a0"',
    "op": 'shape=box, style="filled", fillcolor="#ffffff", color="#606060"',
    "layer": 'shape=box3d, style="filled", fillcolor="#fdf3d8", color="#a98b3c"',
    "output": 'shape=box, style="rounded,filled,bold", fillcolor="#f7dcdc", color="#b86b6b"'}
CLUSTERS = {
    "phase": 'style="rounded"; color="#808080"',
    "layer": 'style="rounded,filled"; fillcolor="#fdf8ea"; color="#c9b47a"',
    "kernel": 'style="filled"; fillcolor="#f0ecf8"; color="#8f7fb8"',
    "loop": 'style="rounded,filled,dashed"; fillcolor="#eaf5f5"; color="#6ba5a5"'}
EDGES = {"data": "", "carry": ' [style=dashed, color="#b86b6b", constraint=false]'}


def dot_text(picture: Picture) -> str:
    """The same text for the same picture."""
    lines = [f"digraph {_quoted(picture.title)} {{",
             '  graph [fontname="Helvetica", fontsize=11, nodesep=0.2, ranksep=0.3];',
             '  node [fontname="Helvetica", fontsize=10, margin="0.09,0.04", height=0.3];',
             '  edge [color="#505050", arrowsize=0.6];',
             *_items(picture.root, "  "),
             *(f"  {e.tail} -> {e.head}{EDGES[e.kind]};" for e in picture.edges), "}"]
    return "\n".join(lines) + "\n"


def _items(cluster: PictureCluster, indent: str) -> Iterator[str]:
    for item in cluster.items:
        if isinstance(item, Vertex):
            yield f"{indent}{item.name} [{_label(item)}, {VERTICES[item.kind]}];"
        else:
            yield f'{indent}subgraph "cluster_{item.name}" {{'
            yield f"{indent}  label={_quoted(item.label)}; labeljust=l; {CLUSTERS[item.kind]};"
            yield from _items(item, indent + "  ")
            yield f"{indent}}}"


def _label(vertex: Vertex) -> str:
    text = "\\n".join(map(_escaped, vertex.lines))
    return f'label="{text}", tooltip={_quoted(vertex.tooltip or vertex.lines[0])}'


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"'


def _escaped(text: str) -> str:
    """Graphviz reads backslashes and XML's entities in labels."""
    return UNPRINTABLE.sub("\ufffd", text).replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"')
