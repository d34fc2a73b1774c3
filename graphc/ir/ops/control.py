"""Loops and branches. Their bodies are graphs held as attributes; what a body reads from outside is passed to it as an
operand (captured).

Their gradients build new regions by reverse mode, so they are in `autodiff/backward_control.py`.
"""
from __future__ import annotations

from typing import ClassVar

import numpy as np

from graphc.ir.dims import Dim, largest, static_dim, static_shape
from graphc.ir.graph import Graph, Value
from graphc.ir.interp import evaluate
from graphc.ir.op import Arrays, Cost, Op, require
from graphc.ir.size_proofs import allowed
from graphc.ir.types import TensorType, bool_, i64


class Scan(Op):
    """A loop of `length` steps.

    Operands: initial carries, stacked inputs (one slice along axis 0 per step), captured values;
    the body takes them in that order. The body gives new carries, then per-step outputs. Results: last carries,
    then per-step outputs stacked along axis 0. `reverse`: the first step takes the last slice and writes the last slot.
    """
    name: ClassVar[str] = "scan"
    is_control = True
    body: Graph
    carries: int
    xs: int
    length: Dim
    reverse: bool = False

    def infer(self, *ins: TensorType) -> tuple[TensorType, ...]:
        _check_counts("scan", carries=self.carries, xs=self.xs, length=self.length)
        self._check_stacked(ins)
        n, last = self.carries, self.carries + self.xs
        steps = ins[:n] + tuple(t.with_shape(t.shape[1:]) for t in ins[n:last]) + ins[last:]
        _check_inputs("scan", self.body, steps)
        _check_carries("scan", self.body, n)
        return ins[:n] + tuple(v.type.with_shape((self.length, *v.type.shape)) for v in self.body.outputs[n:])

    def _check_stacked(self, ins: tuple[TensorType, ...]) -> None:
        require(len(ins) >= self.carries + self.xs,
                f"scan with {self.carries} carries and {self.xs} stacked inputs got {len(ins)} operands")
        for i, t in enumerate(ins[self.carries:self.carries + self.xs]):
            require(t.rank > 0 and t.shape[0] == self.length, f"scan of {self.length} steps: stacked input {i} is {t}, "
                                                              f"its axis 0 must be {self.length}")

    def reference(self, *arrays: np.ndarray) -> Arrays:
        n, last = self.carries, self.carries + self.xs
        carries, xs, captured = arrays[:n], arrays[n:last], arrays[last:]
        steps = range(static_dim(self.length))
        ys = [np.zeros((len(steps), *static_shape(v.type.shape)), v.type.dtype.np) for v in self.body.outputs[n:]]
        for t in reversed(steps) if self.reverse else steps:
            results = evaluate(self.body, (*carries, *(x[t] for x in xs), *captured))
            carries = results[:n]
            for y, step in zip(ys, results[n:]):
                y[t] = step
        return (*carries, *ys)

    def cost(self, *ins: TensorType) -> Cost:
        outs = self.infer(*ins)
        return Cost(graph_flops(self.body) * self.length, sum(t.nbytes for t in ins + outs))


class Cond(Op):
    """Operands: a bool scalar, then captured values, which both bodies take. Results: those of then_body if it is true,
    else of else_body."""
    name: ClassVar[str] = "cond"
    is_control = True
    then_body: Graph
    else_body: Graph

    def infer(self, pred: TensorType, *captured: TensorType) -> tuple[TensorType, ...]:
        _check_predicate("the condition of cond", pred)
        _check_inputs("cond, if true,", self.then_body, captured)
        _check_inputs("cond, if false,", self.else_body, captured)
        yes, no = output_types(self.then_body), output_types(self.else_body)
        require(yes == no,
                f"the branches of cond must give the same types; one gives {_text(yes)}, the other {_text(no)}")
        return yes

    def reference(self, pred: np.ndarray, *captured: np.ndarray) -> Arrays:
        return evaluate(self.then_body if pred else self.else_body, captured)

    def cost(self, *ins: TensorType) -> Cost:
        outs = self.infer(*ins)
        return Cost(largest(*map(graph_flops, (self.then_body, self.else_body))),
                    sum(t.nbytes for t in ins + outs))


class WhileLoop(Op):
    """Steps while cond_body gives true, at most `max_trips` of them.

    Operands: initial carries, captured values; both bodies take them in that order, body gives new carries.
    Results: the number of steps taken (i64), then the last carries.
    """
    name: ClassVar[str] = "while_loop"
    is_control = True
    cond_body: Graph
    body: Graph
    carries: int
    max_trips: int

    def infer(self, *ins: TensorType) -> tuple[TensorType, ...]:
        _check_counts("while_loop", carries=self.carries, max_trips=self.max_trips)
        _check_inputs("the condition of while_loop", self.cond_body, ins)
        _check_inputs("while_loop", self.body, ins)
        _check_carries("while_loop", self.body, self.carries)
        require(len(self.body.outputs) == self.carries,
                f"the body of while_loop has {self.carries} carries but gives {len(self.body.outputs)} values")
        require(len(self.cond_body.outputs) == 1,
                f"the condition of while_loop must be one bool, it gives {len(self.cond_body.outputs)} values")
        _check_predicate("the condition of while_loop", self.cond_body.outputs[0].type)
        return (TensorType(i64, ()), *ins[:self.carries])

    def reference(self, *arrays: np.ndarray) -> Arrays:
        carries, captured = arrays[:self.carries], arrays[self.carries:]
        count = 0
        while count < self.max_trips and evaluate(self.cond_body, (*carries, *captured))[0]:
            carries = evaluate(self.body, (*carries, *captured))
            count += 1
        return (np.asarray(count, np.int64), *carries)

    def cost(self, *ins: TensorType) -> Cost:
        outs = self.infer(*ins)
        return Cost((graph_flops(self.body) + graph_flops(self.cond_body)) * self.max_trips,
                    sum(t.nbytes for t in ins + outs))


def graph_flops(graph: Graph) -> Dim:
    """Arithmetic of one run of the graph."""
    total: Dim = 0
    for node in graph.nodes:
        total = total + node.op.cost(*(v.type for v in node.inputs)).flops
    return total


def output_types(graph: Graph) -> tuple[TensorType, ...]:
    return tuple(v.type for v in graph.outputs)


def _check_counts(what: str, **counts: Dim) -> None:
    for name, n in counts.items():
        require(allowed(n), f"{what}: {name} must not be negative, got {n}")


def _check_inputs(what: str, body: Graph, given: tuple[TensorType, ...]) -> None:
    require(not body.state, f"the body of {what} must not own state")
    require(len(body.inputs) == len(given),
            f"{what} passes {len(given)} values to a body that takes {len(body.inputs)}")
    for v, t in zip(body.inputs, given):
        require(v.type == t, f"{what} passes {t} where its body takes {v.name or 'a value'}: {v.type}")


def _check_carries(what: str, body: Graph, carries: int) -> None:
    require(len(body.outputs) >= carries,
            f"the body of {what} must give {carries} new carries, it gives {len(body.outputs)} values")
    for old, new in zip(body.inputs[:carries], body.outputs):
        require(old.type == new.type,
                f"{what}: carry {_label(old)}is {old.type} before a step and {new.type} after it; they must agree")


def _label(v: Value) -> str:
    return f"{v.name} " if v.name else ""


def _check_predicate(what: str, t: TensorType) -> None:
    require(t.dtype == bool_ and t.rank == 0, f"{what} must be a bool scalar, it is {t}")


def _text(types: tuple[TensorType, ...]) -> str:
    return ", ".join(map(str, types)) or "nothing"


OPS = (Scan, Cond, WhileLoop)
