"""Exported programs that are read as they are: every operator has a rule, and what writes into a tensor writes into
one that is seen under no other form. PyTorch's decomposition, which makes functions of writes, takes seconds: most
of them for its table of all operators, whatever the program has."""
from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import torch
from torch.fx import GraphModule, Node
from torch.multiprocessing.reductions import StorageWeakRef

from graphc.doors.torch.rules.table import CHECKS, RULES, SIZES
from graphc.records import dataclass

NO_GRAD = torch.ops.higher_order.wrap_with_set_grad_enabled
UNSURE = torch.Tag.maybe_aliasing_or_mutating
DROPOUTS = (torch.ops.aten.dropout.default, torch.ops.aten.feature_dropout.default)
NORMS = (torch.ops.aten.batch_norm.default, torch.ops.aten.instance_norm.default)
Naming = Callable[[object], str]


@dataclass(frozen=True)
class Write:
    """An operator that writes, as a function. `rule`: of the function, which takes the first `count` arguments.
    `results`: of each tensor that is written, the number of the result that it becomes. None: the only result, which
    is the operator's own too; else that is the result 0."""
    rule: str
    results: tuple[tuple[Node, int | None], ...]
    count: int | None = None


Writes = Mapping[Node, Write]


def writes_of(module: GraphModule, named: Naming, owned: frozenset[str] = frozenset()) -> Writes | None:
    """What the operators of a program write. None where it has to be decomposed. `named`: the names that rules have of
    operators. `owned`: the arguments that may be written, which are buffers."""
    nodes = list(module.graph.nodes)
    writes = {node: write for node in nodes if (write := _write(node, named)) is not None}
    parts = [getattr(module, str(n.target)) for n in nodes if n.op == "get_attr"]
    if not all(isinstance(part, GraphModule) and writes_of(part, named) == {} for part in parts):
        return None
    if not all(node in writes or _is_function(node, named) for node in nodes):
        return None
    return writes if not writes or _are_alone(nodes, writes, owned) else None


def _write(node: Node, named: Naming) -> Write | None:
    """Of an operator that only writes into its first argument, and of a norm that keeps running statistics."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return None
    if node.target is torch.ops.aten.batch_norm.default and not _keeps_its_statistics(node):
        return Write("_native_batch_norm_legit_functional.default", ((node.args[3], 3), (node.args[4], 4)), 8)
    if node.target is torch.ops.aten.detach_.default:           # writes no numbers: every tensor in a module ends so
        return Write("detach.default", ())
    arguments = node.target._schema.arguments
    name, _, form = named(node.target).partition(".")
    rule = f"{name.removesuffix('_')}.{form}"
    written = [a.name for a in arguments if a.alias_info is not None and a.alias_info.is_write]
    if name.endswith("_") and rule in RULES and written == [arguments[0].name] and isinstance(node.args[0], Node):
        return Write(rule, ((node.args[0], None),))
    return None


def _is_function(node: Node, named: Naming) -> bool:
    """Whether a node is read as it is: its numbers are real and lie in memory, and it writes nowhere."""
    value = node.meta.get("val")
    values = value if isinstance(value, tuple | list) else [value]
    if any(isinstance(v, torch.Tensor) and (v.is_complex() or v.layout is not torch.strided) for v in values):
        return False
    if node.op != "call_function":
        return node.op in ("placeholder", "output", "get_attr")
    name = named(node.target)
    if not isinstance(node.target, torch._ops.OpOverload):
        return name in SIZES or node.target is NO_GRAD
    if node.target._schema.is_mutable or name not in RULES:
        return name in CHECKS
    return UNSURE not in node.target.tags and node.target not in NORMS or _keeps_its_statistics(node)


def _keeps_its_statistics(node: Node) -> bool:
    """Of operators whose signature says nothing of writes: dropout, and norms without running statistics, or that
    leave them as they are."""
    return node.target in DROPOUTS or node.target in NORMS and (node.args[3] is None or not node.args[5])


def keeps_no_statistics(module: GraphModule, target: object) -> bool:
    """Whether an operator stays whole when a program is decomposed: a norm does unless it writes running statistics,
    which no signature tells."""
    return target not in NORMS or all(node.target is not target or _keeps_its_statistics(node)
                                      for node in module.graph.nodes)


def _are_alone(nodes: Sequence[Node], writes: Writes, owned: frozenset[str]) -> bool:
    """Whether nothing but what is written, and what was made by writing it, is read after each write: no view, no
    other argument of the program, whose memory it may be."""
    places = {node: place for place, node in enumerate(nodes)}
    sharing: dict[StorageWeakRef, list[Node]] = defaultdict(list)
    for node in nodes:
        if isinstance(node.meta.get("val"), torch.Tensor):
            sharing[_memory(node)].append(node)
    first: dict[Node, Node] = {}
    for node, write in writes.items():
        for target, number in write.results:
            if number is None and _memory(node) != _memory(target):
                return False
            start = first.get(target, target)
            if number is None:
                first[node] = start
            others = [n for n in sharing[_memory(target)] if places[n] < places[node]]
            if any(n.op == "placeholder" and (n is not start or n.name not in owned) for n in others):
                return False
            if any(first.get(n, n) is not start and any(places[user] > places[node] for user in n.users)
                   for n in others):
                return False
    return True


def written_dropout(module: GraphModule) -> Node | None:
    """A write into the argument or the result of a dropout that drops nothing, where the other one is read afterwards:
    eagerly they are one tensor, which PyTorch's programs do not say."""
    nodes = list(module.graph.nodes)
    places = {node: place for place, node in enumerate(nodes)}
    writing = [n for n in nodes if isinstance(n.target, torch._ops.OpOverload) and n.target._schema.is_mutable]
    for dropout in (n for n in nodes if n.target in DROPOUTS and not (n.args[2] and n.args[1])):
        sides = [_memory(dropout), _memory(dropout.args[0])]
        for write in (w for w in writing if places[w] > places[dropout] and isinstance(w.args[0], Node)):
            if (written := _memory(write.args[0])) not in sides or sides[0] == sides[1]:
                continue
            other = sides[1 - sides.index(written)]
            if any(_memory(n) == other and any(places[user] > places[write] for user in n.users)
                   for n in nodes if isinstance(n.meta.get("val"), torch.Tensor)):
                return write
    return None


def _memory(node: Node) -> StorageWeakRef:
    return StorageWeakRef(node.meta["val"].untyped_storage())
