"""Values printed while a program runs: results that whoever calls it prints, and takes away."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.dsl.array import Array, as_array
from graphc.dsl.context import current_trace, tracing
from graphc.dsl.form import formed
from graphc.errors import GraphError
from graphc.ir.convert import shown
from graphc.ir.graph import Graph, Value
from graphc.records import dataclass
from graphc.ir.types import TensorType

if TYPE_CHECKING:
    from graphc.dsl.function import GraphFunction
    from graphc.dsl.trace import Trace

PRINTED = "debug_print."            # begins the names of results that are printed, where results have names
MANY = 10_000                       # elements along a size that is not known yet, to try a text


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
            yield _filled(self.text, self.names, [a[step] for a in arrays])

    def in_loop(self, values: Iterator[Value], reverse: bool) -> Print:
        """The same around a loop, of the stacks of what it shows there. One that shows nothing has one stack, which
        counts the steps."""
        names = self.names or ("",)
        return replace(self, names=names, values=tuple(next(values) for _ in names), loops=(reverse, *self.loops))


def _filled(text: str, names: Sequence[str], arrays: Sequence[Any]) -> str:
    """The text with the numbers. GraphError where it asks for others."""
    given = [a for name, a in zip(names, arrays) if not name]
    named = {name: a for name, a in zip(names, arrays) if name}
    try:
        return text.format(*given, **named)
    except (IndexError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise GraphError(f"debug_print: {shown(text)} does not fit {len(given)} arrays by position"
                         f"{' and ' * bool(named)}{', '.join(named)}: {error!r}") from None


def _like(type: TensorType) -> np.ndarray:
    """An array of zeros of this type, which takes no memory. Of names as sizes there are many elements."""
    shape = tuple(n if isinstance(n, int) else MANY for n in type.shape)
    return np.broadcast_to(np.zeros((), type.dtype.np), shape)[()]


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
    if not tracing():
        return print(_filled(text, names, given))
    trace = current_trace()
    values = tuple(trace.value(as_array(a)) for a in given)
    _filled(text, names, [_like(v.type) for v in values])           # a mistake is said here, not by the first call
    note(trace, Print(text, names, values))
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
        own = len(values) - count
        left = iter(values[own:])
        for each in self.prints:
            for line in each.lines([np.asarray(next(left)) for _ in each.names]):
                print(line)
        if isinstance(results, dict):
            return dict(islice(results.items(), own))
        return values[0] if self.plain else tuple(values[:own])


def with_printed(f: GraphFunction) -> tuple[GraphFunction, Printer | None]:
    """`f`, which returns what it prints too, and who takes that away; None where it prints nothing."""
    if not f.prints:
        return f, None
    graph = f.graph
    values = [v for p in f.prints for v in p.values]
    old = ("",) if graph.output_names is None else graph.output_names
    taken = PRINTED
    while any(name.startswith(taken) for name in old):
        taken += PRINTED
    names = (*old, *(f"{taken}{i}" if any(old) else "" for i in range(len(values))))
    wide = replace(graph, outputs=(*graph.outputs, *values), output_names=names)
    return replace(f, graph=wide, prints=(), retrace=None), Printer(f.prints, graph.output_names is None)


def rewritten(f: GraphFunction, rewrite: Callable[[Graph], Graph]) -> GraphFunction:
    """`f` with the graph that `rewrite` makes of its own, printing the values that are there what they were."""
    wide, count = with_printed(f)[0].graph, len(f.graph.outputs)
    graph = rewrite(wide)
    left = iter(graph.outputs[count:])
    prints = tuple(replace(p, values=tuple(next(left) for _ in p.values)) for p in f.prints)
    return replace(f, graph=replace(graph, outputs=graph.outputs[:count], output_names=f.graph.output_names),
                   prints=prints)


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
