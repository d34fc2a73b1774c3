"""Damaged texts of graphs: each gives a GraphError that says where, or a graph that prints, parses back and holds what a graph must.

A share of the graphs is compiled up to loops, with 2 for every size that is a name: that works, or is a GraphError too.
"""
from __future__ import annotations

import time
import warnings

import numpy as np

from graphc.compiler import Compilation
from graphc.errors import GraphError
from graphc.ir.builder import bind_graph
from graphc.ir.graph import Graph
from graphc.ir.parser import parse
from graphc.ir.printer import print_graph
from graphc.ir.verify import Stage, verify
from tests.fuzz.damage import damaged
from tests.fuzz.texts import sound_texts

SECONDS = 2.0                       # of this thread for one text; most take a millisecond
COMPILED = 8                        # one graph of so many is compiled
READ = Stage("read from a text", lambda op: True, symbolic=True)


def run(rng: np.random.Generator, deadline: float) -> int:
    """Until the deadline; returns how many texts were tried. AssertionError with the text at the first that is answered wrongly."""
    texts, count, graphs = sound_texts(), 0, 0
    while not count or time.monotonic() < deadline:
        text = damaged(texts[int(rng.integers(len(texts)))], rng)
        graph = check(text)
        count += 1
        graphs += graph is not None
        if graph is not None and graphs % COMPILED == 0:
            check_compile(graph, text)
    return count


def check(text: str) -> Graph | None:
    """The graph of the text, if it has one. AssertionError unless the answer is right."""
    start = time.thread_time()
    graph = _answer(text)
    if graph is not None:
        try:
            verify(graph, READ)
            again = parse(print_graph(graph))
        except Exception as error:
            raise AssertionError(f"{_said(error)} for the graph of\n{text}") from error
        assert again == graph, f"another graph than that of\n{text}"
    seconds = time.thread_time() - start
    assert seconds < SECONDS, f"{seconds:.1f} s for\n{text}"
    return graph


def check_compile(graph: Graph, text: str) -> None:
    """AssertionError unless the graph can be compiled, or what is wrong with it is said."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)         # constants overflow as the text says
            Compilation(bind_graph(graph, dict.fromkeys(graph.dim_names, 2))).loops
    except GraphError:
        pass
    except Exception as error:
        raise AssertionError(f"{_said(error)} when compiling\n{text}") from error


def _answer(text: str) -> Graph | None:
    try:
        return parse(text)
    except GraphError as error:
        assert error.__cause__ is None, f"{_said(error.__cause__)}, which is not checked for, in\n{text}"
        loc, lines = error.loc, text.split("\n")
        assert loc and 1 <= loc.line <= len(lines) and 1 <= loc.column <= len(lines[loc.line - 1]) + 1, f"no place in the text: {error}\n{text}"
        assert len(error.text) < 10_000, f"a message of {len(error.text)} characters for\n{text}"
    except BaseException as error:
        raise AssertionError(f"{_said(error)} for\n{text}") from error
    return None


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
