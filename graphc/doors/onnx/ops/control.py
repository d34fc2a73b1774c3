"""If, Loop and Scan. What is known while importing is decided then: the branch of an If, the rounds of a loop over
sequences or whose sizes change. All else becomes gc.cond, gc.scan or gc.while_loop, which have gradients."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

import graphc as gc
from graphc.doors.onnx.call import Body, Call, Item, as_known
from graphc.doors.onnx.known import MOST_PARTS
from graphc.doors.onnx.ops.counted import most_rounds, rounds_of
from graphc.doors.onnx.rule import Known, Operand, Unsupported
from graphc.dsl.array import Array
from graphc.errors import GraphError
from graphc.ir.dims import Dim
from graphc.ir.types import i64

MOST_TRIPS = (1 << 31) - 1          # of one that the file does not limit


class NotALoop(Exception):
    """The body of a loop changes the type of what it carries, or carries what is no array."""


def decided(value: Item, what: str, call: Call) -> Known | None:
    """The value, if the file alone decides it."""
    if not isinstance(value, Array):
        return as_known(value)
    try:
        return call.known(value, what)
    except Unsupported:
        return None


def _truth(value: Item, call: Call) -> bool | None:
    """A condition, if it is known; one that is left out is true."""
    known = None if value is None else decided(value, "a condition", call)
    return True if value is None else None if known is None else bool(known.item("a condition"))


def _arrays(values: Sequence[Item], call: Call, what: str) -> list[Array]:
    if any(isinstance(v, list) or v is None for v in values):
        raise NotALoop(f"{what} gives a sequence or an optional")
    return [call.array(v, what) for v in values]


def needed(values: Sequence[Item], call: Call, what: str) -> NoReturn:
    """Unsupported: which inputs decide what must be known while importing."""
    for value in values:
        if isinstance(value, Array):
            call.known(value, what)
    raise Unsupported(f"{what} is decided by data")


def if_(condition: Operand, *, then_branch: object, else_branch: object, call: Call) -> tuple[Item, ...]:
    yes, no = call.body("then_branch"), call.body("else_branch")
    known = _truth(condition, call)
    if known is not None:
        return (yes if known else no)()

    def branch(body: Body) -> Callable[[], tuple[Array, ...]]:
        return lambda: tuple(_arrays(body(), call, "a branch"))
    try:
        return tuple(gc.cond(call.array(condition).reshape(()), branch(yes), branch(no)))
    except NotALoop:
        return needed([condition], call, "the condition, since a branch gives a sequence or an optional,")
    except GraphError as error:
        if isinstance(error, Unsupported) or "branches" not in error.text:
            raise
        return needed([condition], call, "the condition, since branches give different types,")


def loop(most: Operand = None, condition: Operand = None, *carried: Operand, body: object,
         call: Call) -> tuple[Item, ...]:
    inner, going = call.body("body"), _truth(condition, call)
    limit = None if most is None else decided(most, "the number of rounds", call)
    rounds: Dim | None = None if limit is None else limit.item("the number of rounds")
    if going is False:
        rounds = 0
    counted = None if isinstance(rounds, int) and going is not None else rounds_of(
        inner.graph, rounds, carried, call)
    try:
        if counted is not None:
            return _counted(inner, counted, carried, call, ends=False) or tuple(carried)
        if going is not None and rounds is not None:
            found = _counted(inner, rounds, carried, call)
            if found is not None:
                return found
        if going is not None and (rounds is None or isinstance(rounds, int)) and most is None or rounds is not None:
            written = _written_out(inner, rounds, carried, call)
            if written is not None:
                return written
        return _while(inner, most if rounds is None else rounds, condition, carried, call)
    except NotALoop as error:
        return needed([most, condition], call, f"the number of rounds, since {error},")


def _counted(body: Body, rounds: Dim, carried: Sequence[Item], call: Call,
             ends: bool = True) -> tuple[Item, ...] | None:
    """So many rounds, as gc.scan; None where the body says when to end, or what it carries changes its type. `ends`
    False: what the body says is known to be that number."""
    count = len(carried)

    def step(values: tuple[Array, ...], number: Array) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        going, *results = body(number, Known.of(np.array(True)), *values)
        if ends and (isinstance(going, Array) or not bool(as_known(going).item("a condition"))):
            raise NotALoop("the body ends the loop")
        new = _arrays(results, call, "the body of Loop")
        if [v.type for v in new[:count]] != [v.type for v in values]:
            raise NotALoop("the body of Loop changes the type of what it carries")
        return tuple(new[:count]), tuple(new[count:])
    if isinstance(rounds, int) and rounds <= 0:
        return None
    forget = call.importer.problems.kept()
    try:
        starts = tuple(_arrays(carried, call, "Loop"))
        last, rows = gc.scan(step, starts, gc.arange(rounds).astype(i64))
    except (NotALoop, Unsupported):
        if isinstance(rounds, int):         # round after round more is known
            forget()
            return None
        raise
    return (*last, *rows)


def _written_out(body: Body, rounds: Dim | None, carried: Sequence[Item], call: Call) -> tuple[Item, ...] | None:
    """Round after round, while the file alone decides whether there is another one; None where it does not."""
    if rounds is not None and not isinstance(rounds, int):
        return None
    values, count = list(carried), len(carried)
    rows: list[list[Item]] = [[] for _ in body.outputs[1 + count:]]
    number = 0
    while rounds is None or number < rounds:
        if number == MOST_PARTS:
            raise Unsupported(f"a loop of more than {MOST_PARTS} rounds over sequences or changing sizes")
        going, *results = body(Known.of(np.array(number, np.int64)), Known.of(np.array(True)), *values)
        if any(isinstance(a, Array) and isinstance(b, Array) and a.dtype is not b.dtype
               for a, b in zip(values, results)):
            raise GraphError("the body of Loop changes the element type of what it carries")
        values, number = results[:count], number + 1
        for row, value in zip(rows, results[count:]):
            row.append(value)
        more = _truth(going, call)
        if more is None:
            return None
        if not more:
            break
    if not number and rows:
        raise Unsupported("a loop of no rounds that stacks results")
    return (*values, *(gc.stack(_arrays(row, call, "the body of Loop"), axis=0) for row in rows))


def _while(body: Body, most: Any, condition: Item, carried: Sequence[Item], call: Call) -> tuple[Item, ...]:
    """While the data say so."""
    if len(body.outputs) > 1 + len(carried):
        raise NotALoop("the body of Loop stacks results")
    known = isinstance(most, int)
    trips = min(most if known else MOST_TRIPS, most_rounds(body.graph, carried, call) or MOST_TRIPS, MOST_TRIPS)
    if trips == MOST_TRIPS and call.training and not call.frozen:
        raise Unsupported("training with a loop of rounds that nothing limits: all that they compute is kept")
    limit = None if most is None or known else call.array(most if not hasattr(most, "terms") else as_known(most))
    go = gc.full((), True, gc.bool_) if condition is None else call.array(condition).reshape(())

    def test(carry: tuple[Array, ...]) -> Array:
        going, number = carry[:2]
        return going if limit is None else gc.logical_and(going, number < limit.reshape(()).astype(i64))

    def step(carry: tuple[Array, ...]) -> tuple[Array, ...]:
        _, number, *values = carry
        going, *results = body(number, Known.of(np.array(True)), *values)
        new = _arrays(results, call, "the body of Loop")
        if [v.type for v in new] != [v.type for v in values]:
            raise NotALoop("the body of Loop changes the type of what it carries")
        return call.array(going).reshape(()), number + 1, *new
    start = (go, gc.full((), 0, i64), *_arrays(carried, call, "Loop"))
    _, (_, _, *last) = gc.while_loop(test, step, start, trips)
    return tuple(last)


def scan(*values: Operand, body: object, num_scan_inputs: int, scan_input_axes: Sequence[int] = (),
         scan_input_directions: Sequence[int] = (), scan_output_axes: Sequence[int] = (),
         scan_output_directions: Sequence[int] = (), directions: Sequence[int] = (), call: Call) -> tuple[Item, ...]:
    inner = call.body("body")
    if call.since < 9:
        return _batched(inner, values, num_scan_inputs, directions, call)
    given = _arrays(values, call, "Scan")
    states, xs = given[:len(given) - num_scan_inputs], given[len(given) - num_scan_inputs:]
    outs = len(inner.outputs) - len(states)
    ins = [_turned(gc.moveaxis(x, axis, 0), back) for x, axis, back in zip(
        xs, _each(scan_input_axes, len(xs)), _each(scan_input_directions, len(xs)))]
    last, rows = _scanned(inner, states, ins, call)
    ys = [gc.moveaxis(_turned(y, back), 0, axis) for y, axis, back in zip(
        rows, _each(scan_output_axes, outs), _each(scan_output_directions, outs))]
    return (*last, *ys)


def _scanned(body: Body, states: Sequence[Array], xs: Sequence[Array],
             call: Call) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    count = len(states)

    def step(carry: tuple[Array, ...], slices: tuple[Array, ...]) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        results = _arrays(body(*carry, *slices), call, "the body of Scan")
        return tuple(results[:count]), tuple(results[count:])
    last, rows = gc.scan(step, tuple(states), tuple(xs))
    return tuple(last), tuple(rows)


def _batched(body: Body, values: Sequence[Item], count: int, directions: Sequence[int],
             call: Call) -> tuple[Item, ...]:
    """The form of opset 8: every operand has a batch before all else, each example is scanned alone."""
    lengths, *rest = values
    if lengths is not None:
        raise Unsupported("sequence_lens")
    given = _arrays(rest, call, "Scan")
    batch = given[0].shape[0]
    if not isinstance(batch, int):
        raise Unsupported("a batch that is no number")
    ways, results = _each(directions, count), []
    for i in range(batch):
        own = [x[i] for x in given]
        states = own[:len(own) - count]
        last, rows = _scanned(body, states, [_turned(x, w) for x, w in zip(own[len(states):], ways)], call)
        results.append((*last, *rows))
    return tuple(gc.stack(parts, axis=0) for parts in zip(*results))


def _each(given: Sequence[int], count: int) -> list[int]:
    return list(given) or [0] * count


def _turned(x: Array, back: int) -> Array:
    return gc.flip(x, 0) if back else x


RULES: Mapping[str, Callable[..., Any]] = {"If": if_, "Loop": loop, "Scan": scan}
