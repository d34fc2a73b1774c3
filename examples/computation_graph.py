"""f(x, y) = y (x² + x) as a computation graph: its value and gradient at (2, 1), the graph and its backward graph,
printed and drawn.

    python examples/computation_graph.py [--out DIR]
"""
from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import graphc as gc


@gc.graph
def f(x: gc.f64[()], y: gc.f64[()]):
    square = gc.name(x ** 2, "square")
    return y * (square + x)


backward = gc.value_and_grad(f, wrt=["x", "y"])


def main(arguments: list[str] | None = None) -> tuple[float, float, float]:
    """Prints and draws both graphs; f, df/dx and df/dy at (2, 1)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("computation-graph"), help="folder for the pictures")
    folder = parser.parse_args(arguments).out
    folder.mkdir(parents=True, exist_ok=True)
    compiled = gc.compile(backward)
    for name, graph in (("forward", f), ("backward", backward), ("kernels", compiled)):
        print(save(graph, folder / name))
    print(f"\n{f}\n\n{backward}\n")
    value, dx, dy = compiled(np.float64(2), np.float64(1))
    print(f"f(2, 1) = {value:g}, df/dx = {dx:g}, df/dy = {dy:g}")
    return float(value), float(dx), float(dy)


def save(graph, path: Path) -> str:
    """Draws an SVG picture, or the text for Graphviz where that is missing; says which."""
    try:
        gc.draw(graph, path.with_suffix(".svg"))
        return f"drawn: {path.with_suffix('.svg')}"
    except gc.GraphError as error:
        gc.draw(graph, path.with_suffix(".dot"))
        return f"{error.text}\nwritten: {path.with_suffix('.dot')}"


if __name__ == "__main__":
    main()
