"""Values printed while a program runs: results that whoever calls it prints, and takes away."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.dsl.array import Array, as_array
from graphc.dsl.context import current_trace, tracing
from graphc.dsl.form import formed
from graphc.errors import GraphError
from graphc.ir.convert import shown
from graphc.ir.graph import Value
from graphc.records import dataclass

if TYPE_CHECKING:
    from graphc.dsl.function import GraphFunction
    from graphc.dsl.trace import Trace

PRINTED = "debug_print."            # begins the names of results that are printed, where results have names


@dataclass(frozen=True)
class Print:
    """One call of `debug_print`: its text, the names of what it shows ("" by position), and the values. `loops`: of the
    scans around it, the outermost first, whether each runs backwards; the values have an axis of steps for each."""
    text: str
    names: tuple[str, ...]
    values: tuple[Value, ...]
    loops: tuple[bool, ...] = ()

    def moved(self, values: Mapping[Value, Value]) -> Print:
        """The same in a copy of the graph."""
        return replace(self, values=tuple(values[v] for v in self.values))

    def lines(self, arrays: Sequence[np.ndarray]) -> Iterator[str]:
        """What is printed: one text for each step of the loops, in the order in which they run."""
        counts = arrays[0].shape[:len(self.loops)] if arrays else ()
        for at in np.ndindex(counts):
            step = tuple(n - 1 - i if back else i for i, n, back in zip(at, counts, self.loops))
            shown_ = [a[step] for a in arrays]
            given = [a for name, a in zip(self.names, shown_) if not name]
            yield self.text.format(*given, **{name: a for name, a in zip(self.names, shown_) if name})


@formed
def debug_print(text: str, *arrays: Array, **named: Array) -> None:
    """Prints `text.format(*arrays, **named)` with the numbers, each time that the graph has run: after each call of a
    compiled graph or training step, in the order of the calls of `debug_print`. As jax.debug.print.

    It changes no result: what it shows are further results of the program, which are printed and left out, the same for
    any number of threads. Inside the body of `scan`, and under `gc.vmap`, it prints for every step. In a branch of
    `cond`, a `while_loop`, `gc.remat` or a function with a rule of its own it is a GraphError: return the value and
    print it outside. Gradients print what the function that they are of does. C libraries and ONNX files that are made
    of the graph print nothing. Outside of graphs it prints at once.

    Examples:
        >>> @gc.graph
        ... def f(x: gc.f64[2]):
        ...     y = x * 2
        ...     gc.debug_print("y is {}, its sum {total}", y, total=gc.sum(y))
        ...     return y + 1
        >>> f(np.array([1.0, 2.0]))
        y is [2. 4.], its sum 6.0
        array([3., 5.])
    """
    if not isinstance(text, str):
        raise GraphError(f'debug_print takes a text such as "x = {{}}" and what it shows, got {shown(text)}')
    names = ("",) * len(arrays) + tuple(named)
    given = [*arrays, *named.values()]
    try:
        text.format(*(np.float64(0) for _ in arrays), **dict.fromkeys(named, np.float64(0)))
    except (IndexError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise GraphError(f"debug_print: {shown(text)} does not fit {len(arrays)} arrays by position"
                         f"{' and ' * bool(named)}{', '.join(named)}: {error!r}") from None
    if not tracing():
        return print(text.format(*arrays, **named))
    trace = current_trace()
    note(trace, Print(text, names, tuple(trace.value(as_array(a)) for a in given)))
    return None


def note(trace: Trace, printed: Print) -> None:
    """The trace prints this. GraphError in a body whose values cannot leave it."""
    if trace.prints is None:
        raise GraphError("debug_print cannot look into a branch of cond, a while_loop, gc.remat or a function with a "
                         "rule of its own: return the value from it, and print it outside")
    trace.prints.append(printed)


class Printer:
    """Prints what a program computed for it, and gives back the rest. `prints`: in order, without values; `plain`: the
    rest is one array, not a tuple."""

    def __init__(self, prints: Sequence[Print], plain: bool):
        self.prints = [replace(p, values=()) for p in prints]
        self.plain = plain

    def __call__(self, results: tuple[Any, ...] | dict[str, Any]) -> Any:
        count = sum(len(p.names) for p in self.prints)
        values = list(results.values()) if isinstance(results, dict) else list(results)
        left = iter(values[len(values) - count:])
        for each in self.prints:
            for line in each.lines([np.asarray(next(left)) for _ in each.names]):
                print(line)
        if isinstance(results, dict):
            return {name: value for name, value in results.items() if not name.startswith(PRINTED)}
        return values[0] if self.plain else tuple(values[:len(values) - count])


def with_printed(f: GraphFunction) -> tuple[GraphFunction, Printer | None]:
    """`f`, which returns what it prints too, and who takes that away; None where it prints nothing."""
    if not f.prints:
        return f, None
    graph = f.graph
    values = [v for p in f.prints for v in p.values]
    old = ("",) if graph.output_names is None else graph.output_names
    names = (*old, *(f"{PRINTED}{i}" if any(old) else "" for i in range(len(values))))
    wide = replace(graph, outputs=(*graph.outputs, *values), output_names=names)
    return replace(f, graph=wide, prints=(), retrace=None), Printer(f.prints, graph.output_names is None)


class PrintingGraph:
    """What `gc.compile` gives for a graph that prints: the compiled graph, whose calls print."""

    def __init__(self, run: Any, printer: Printer):
        self.run, self.printer = run, printer

    def __call__(self, *arrays: Any, **named: Any) -> Any:
        if "out" in named:
            raise GraphError("out= does not go together with gc.debug_print: a call writes what it prints, too")
        return self.printer(self.run(*arrays, **named))

    def __getattr__(self, name: str) -> Any:
        """All else is the compiled graph's."""
        if name in ("run", "printer"):          # while it is unpickled
            raise AttributeError(name)
        return getattr(self.run, name)

    def __repr__(self) -> str:
        return f"{self.run!r}, which prints"


def silent(run: Any) -> Any:
    """The compiled graph itself, of one that prints."""
    return run.run if isinstance(run, PrintingGraph) else run
