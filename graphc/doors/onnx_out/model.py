"""A graph with the arrays of its state as an ONNX model."""
from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from graphc.doors.onnx_out.emitter import Emitter, File
from graphc.doors.onnx_out.package import ModelProto, helper
from graphc.doors.onnx_out.write import write_nodes
from graphc.errors import GraphError
from graphc.ir.graph import Graph
from graphc.ir.ops.constant import Dimension
from graphc.passes.compute_stored import ComputeStored
from graphc.passes.cse import EliminateCommonSubexpressions
from graphc.passes.dce import EliminateDeadCode
from graphc.passes.pipeline import Pass, apply

NEW = ".new"                        # ends the name of an output that is the new value of a state input
LISTED = 12                         # operators that an error lists
# what is done to a graph before it is written: composites stay what they are
PREPARE: tuple[Pass, ...] = (EliminateDeadCode(), ComputeStored(), EliminateCommonSubexpressions(), EliminateDeadCode())


def model_of(graph: Graph, state: Sequence[tuple[str, np.ndarray]], opset: int, version: str) -> ModelProto:
    """The model: `state` has the name and the value of each state input of the graph. GraphError that lists every
    operator which ONNX cannot express."""
    for each in PREPARE:
        graph = apply(each, graph)
    file = File(opset, write_nodes)
    e = Emitter(file)
    inputs = [e.argument(v, v.name) for v in graph.inputs]
    for v, new, (name, value) in zip(graph.state, graph.updates, state, strict=True):
        entry = e.argument(v, name)
        e.initializer(e.values[v], value)
        if new is not None:
            inputs.append(entry)                # what it begins with may be left out of the first call
    e.solve_sizes(graph.arguments)
    write_nodes(e, graph.nodes, graph.results)
    _check(graph.name, file)
    wanted = [*own_names(graph), *(e.values[v] + NEW for v, new in zip(graph.state, graph.updates) if new is not None)]
    names = e.results([e.values[v] for v in graph.results], wanted)
    outputs = [e.described(name, v.type) for name, v in zip(names, graph.results)]
    made = {name for node in e.nodes for name in node.output} - set(names)
    infos = [e.described(name, type) for name, type in e.infos.items() if name in made]
    rules = "; ".join(dict.fromkeys(n.op.what for n in graph.nodes if isinstance(n.op, Dimension) and n.op.what))
    body = helper.make_graph(e.nodes, graph.name, inputs, outputs, file.initializers, rules, infos)
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(body, opset_imports=imports, ir_version=helper.find_min_ir_version_for(imports),
                             producer_name="graphc", producer_version=version)


def own_names(graph: Graph) -> list[str]:
    """What the results are called, as in the dict that a compiled graph with outputs= returns."""
    names = graph.output_names
    if names is None:
        return ["result"]
    return list(names) if any(names) else [f"result{i}" for i in range(len(names))]


def _check(name: str, file: File) -> None:
    """GraphError with all that was refused."""
    if not file.refused:
        return
    counts: Counter[str] = Counter(node.op.name for node, _ in file.refused)
    first: Mapping[str, str] = {node.op.name: f" at {node.loc}" * (node.loc is not None) + f": {why}" * bool(why)
                                for node, why in reversed(file.refused)}
    rows = [f"{op} ({n} time{'s' * (n > 1)}{first[op]})" for op, n in counts.most_common(LISTED)]
    more = f" and {len(counts) - LISTED} more" if len(counts) > LISTED else ""
    raise GraphError(f"{name} has operators that ONNX (opset {file.opset}) does not: {'; '.join(rows)}{more}",
                     file.refused[0][0].loc)
