"""What must hold of a model before anything of it runs."""
from __future__ import annotations

from collections.abc import Mapping

from graphc.doors.onnx.graph import FunctionKey, ModelFunction, ModelGraph
from graphc.doors.onnx.known import Unsupported
from graphc.doors.onnx.problems import Problems
from graphc.doors.onnx.reading import OnnxModel
from graphc.doors.onnx.table import has_rule
from graphc.errors import GraphError


def check_operators(model: OnnxModel, graph: ModelGraph, functions: Mapping[FunctionKey, ModelFunction]) -> None:
    """GraphError for functions that call themselves, and for operators without a rule (all of them, at once)."""
    _check_functions(model.name, functions)
    problems = Problems(model.name)
    for node in (*graph.all_nodes(), *(n for f in functions.values() for n in f.graph.all_nodes())):
        if node.function not in functions and not has_rule(node.domain, node.op, model.opsets):
            problems.add(node, Unsupported("no rule for this operator"))
    problems.report()


def check_graph(model: str, graph: ModelGraph, around: frozenset[str] = frozenset()) -> None:
    """GraphError for a damaged graph: every name is made once, and before it is read."""
    known = {*around, *graph.inputs, *graph.initializers}
    made = {name for node in graph.nodes for name in node.outputs if name}
    for node in graph.nodes:
        for name in node.inputs:
            if name and name not in known:
                why = "made by a later node, or by itself: a cycle" if name in made else "made by nothing"
                raise GraphError(f"{model}: {node} reads {name!r}, which is {why}")
        for body in node.bodies:
            check_graph(model, body, frozenset(known))
        twice = next((name for name in node.outputs if name and name in known and name not in around), None)
        if twice is not None:
            raise GraphError(f"{model}: {node} makes {twice!r} a second time")
        known.update(name for name in node.outputs if name)
    missing = next((name for name in graph.outputs if name not in known), None)
    if missing is not None:
        raise GraphError(f"{model}: nothing makes the output {missing!r}")


def _check_functions(model: str, functions: Mapping[FunctionKey, ModelFunction]) -> None:
    """No function calls itself, directly or through others."""
    calls = {key: {n.function for n in f.graph.all_nodes()} & functions.keys() for key, f in functions.items()}
    done: set[FunctionKey] = set()
    while ready := [key for key, needs in calls.items() if key not in done and needs <= done]:
        done.update(ready)
    if stuck := sorted(calls.keys() - done):
        raise GraphError(f"{model}: the function {stuck[0][1]} calls itself")
