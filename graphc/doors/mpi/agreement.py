"""Ranks begin together only if the same calls give the same bytes on all of them."""
from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.metadata import version
from itertools import zip_longest

import numpy as np

import graphc as gc
from graphc.codegen.llvm.host import host_target
from graphc.config import config
from graphc.doors.mpi.communicator import Communicator
from graphc.errors import GraphError
from graphc.ir.printer import print_graph
from graphc.sharded_graph import update_graph
from graphc.shards import ShardedProgram

NAMED = 3                           # arrays of the state that a message names
BEGIN = "the beginning of a distributed step"


def agree(ranks: Communicator, program: ShardedProgram) -> None:
    """GraphError, on all ranks, that says what differs between them."""
    shared = [print_graph(graph) for graph in
              (program.graph().function.graph, update_graph(program.recipe, program.graph()).graph)]
    facts = ranks.objects(_facts(program, shared), BEGIN)
    differing = {rank: names for rank, other in enumerate(facts) if (names := _different(facts[0], other))}
    if differing:
        rank, names = next(iter(differing.items()))
        texts = ranks.objects(shared if ranks.rank in (0, rank) else [], "the graphs that differ")
        told = [_told(name, facts[0], facts[rank], texts[0], texts[rank]) for name in names]
        raise GraphError(f"ranks cannot train together: rank {rank} of {ranks.count} differs from rank 0 in "
                         f"{'; '.join(told)}")
    states = ranks.objects(_digests(program.state.copy()), "the states at the beginning of a step")
    for rank, state in enumerate(states):
        if state != states[0]:
            names = [name for name in {**states[0], **state} if states[0].get(name) != state.get(name)]
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            raise GraphError(f"ranks cannot train together: rank {rank} of {ranks.count} differs from rank 0 in the "
                             f"values of {', '.join(names[:NAMED])}{more}: give all the same seed= and weights, or "
                             "load a checkpoint after gc.distributed, which rank 0 reads for all")


def _facts(program: ShardedProgram, graphs: list[str]) -> dict[str, str]:
    """What the bytes depend on, beside the state."""
    knobs = config()
    return {"graphc's version": gc.__version__, "numpy's version": np.__version__,
            "llvmlite's version": version("llvmlite"), "shards": str(program.shards),
            "the CPU that code is made for": repr(host_target()),
            "the knobs oracle, check_nan, winograd and flush_subnormals":
                f"{knobs.oracle}, {knobs.check_nan}, {knobs.winograd}, {knobs.flush_subnormals}",
            "the graph of the gradients": _sum(graphs[0].encode()), "the graph of the update": _sum(graphs[1].encode())}


def _different(first: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """The names of facts that differ; where numbers of shards do, their graphs do too, of themselves."""
    names = [name for name in {**first, **other} if first.get(name) != other.get(name)]
    return [name for name in names if "shards" not in names or "graph of" not in name]


def _told(name: str, first: Mapping[str, str], other: Mapping[str, str], mine: list[str], theirs: list[str]) -> str:
    """What differs, in words."""
    if name == "the CPU that code is made for":
        return f"{name}: {other[name]} and {first[name]}; set GRAPHC_TARGET to one that all of them have"
    if not name.startswith("the graph of"):
        return f"{name}: {other.get(name)} and {first.get(name)}"
    number = ["the graph of the gradients", "the graph of the update"].index(name)
    lines = zip_longest(theirs[number].splitlines(), mine[number].splitlines(), fillvalue="nothing")
    there, here = next((a, b) for a, b in lines if a != b)
    return f"{name}, first where it says {there.strip()!r} and {here.strip()!r}"


def _digests(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    return {name: f"{a.dtype}{a.shape}{_sum(np.ascontiguousarray(a).reshape(-1).view(np.uint8).data)}"
            for name, a in arrays.items()}


def _sum(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()
