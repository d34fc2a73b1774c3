"""Runs a program of PyTorch in a trace: each step by its rule."""
from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import graphc as gc
from graphc.doors.torch.program import ComplexType, TorchProgram, Ref, Step
from graphc.doors.torch.rules.complex_numbers import RULES as COMPLEX_RULES
from graphc.doors.torch.rules.complex_numbers import Complex, holds_complex
from graphc.doors.torch.rules.table import CHECKS, RULES, SIZES
from graphc.dsl.array import as_array, emit
from graphc.dsl.context import current_trace, declared_at, user_loc
from graphc.dsl.outputs import LayerCall
from graphc.errors import GraphError, InternalError, Loc
from graphc.ir.types import TensorType
from graphc.records import dataclass

@dataclass(frozen=True)
class Problem:
    """A step that cannot be taken: which operator, why, where the user wrote it, and the name of its result."""
    target: str
    reason: str
    loc: Loc | None
    step: str = ""


def interpret(program: TorchProgram, values: Mapping[str, Any],
              problems: list[Problem] | None = None) -> dict[str, Any]:
    """All values of the program by name. `values`: inputs and parameters. With `problems`, a step that cannot be taken
    is noted there, and what follows goes on with inputs of the types that PyTorch states."""
    env: dict[str, Any] = {**program.given, **{n: _constant(a) for n, a in program.constants.items()}, **values}
    call: list[Step] = []
    for step in program.steps:
        if call and step.scope != call[-1].scope:
            _noted(call, env)
        call.append(step)
        try:
            env[step.name] = _taken(step, env, problems)
        except GraphError as error:
            if problems is None:
                raise error.at(step.loc or user_loc()) from None
            problems.append(Problem(step.target, error.text, step.loc, step.name))
            env[step.name] = _stand_in(step)
        except Exception:
            if not problems:
                raise
            env[step.name] = _stand_in(step)        # a rule may make no sense of what stands in for an earlier result
    _noted(call, env)
    return env


def results(program: TorchProgram, env: Mapping[str, Any]) -> Any:
    """What the program returns: an array, a tuple (flat, of nested ones), or a dict by name."""
    found = {name: _array(_resolved(value, env)) for name, value in program.outputs.items()}
    if list(found) == [""]:
        return found[""]
    return tuple(found.values()) if all(name.replace(".", "").isdigit() for name in found) else found


def updates(program: TorchProgram, env: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The buffers that change, by their names in the program, with their new values."""
    return [(name, _resolved(value, env)) for name, value in program.updates]


def known(target: str) -> bool:
    """Whether there is a rule."""
    return any(target in rules for rules in (RULES, SIZES, REGIONS, COMPLEX_RULES))


def _taken(step: Step, env: Mapping[str, Any], problems: list[Problem] | None) -> Any:
    args = [_resolved(a, env) for a in step.args]
    kwargs = {name: _resolved(a, env) for name, a in step.kwargs.items()}
    trace = current_trace()
    with declared_at(step.loc), trace.scope(step.scope or "torch") if step.scope else _nothing:
        if step.target in SIZES:
            return SIZES[step.target](*args, **kwargs)
        if step.target in REGIONS:
            return REGIONS[step.target](problems, *args, **kwargs)
        is_complex = isinstance(step.type, ComplexType) or holds_complex([*args, *kwargs.values()])
        rule = (COMPLEX_RULES if is_complex else RULES).get(step.target)
        if rule is None:
            raise GraphError("no rule for it" + " with complex numbers" * is_complex)
        return _fitted(rule(*args, **kwargs), step.type, step.target)


class _Nothing:
    """A context that does nothing."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


_nothing = _Nothing()


def _resolved(value: Any, env: Mapping[str, Any]) -> Any:
    if isinstance(value, Ref):
        return env[value.name]
    if isinstance(value, tuple):
        return tuple(_resolved(v, env) for v in value)
    return value


def _constant(array: Any) -> Any:
    return Complex.of(array) if np.iscomplexobj(array) else as_array(array)


def _array(value: Any) -> Any:
    """A result as an array: sizes and numbers too."""
    if isinstance(value, Complex):
        raise GraphError("complex numbers stay inside of a program: return torch.view_as_real of them")
    return value if isinstance(value, gc.Array) else as_array(value) if isinstance(value, bool | int | float) else (
        RULES["scalar_tensor.default"](value))


def _fitted(result: Any, type: Any, target: str) -> Any:
    """`result` in the element type that PyTorch states; InternalError where the rule gives another shape."""
    if isinstance(type, tuple):
        if not isinstance(result, tuple | list):
            raise InternalError(f"the rule of {target} gives one result, not {len(type)}", "from_torch")
        return tuple(_fitted(r, t, target) for r, t in zip(result, type))
    if isinstance(type, ComplexType):
        found = Complex.of(result)
        return Complex(*(_fitted(part, type.part, target) for part in (found.real, found.imag)))
    if not isinstance(type, TensorType) or not isinstance(result, gc.Array):
        return result
    if len(result.shape) != len(type.shape) or any(
            isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(result.shape, type.shape)):
        raise InternalError(f"the rule of {target} gives {result.type}, PyTorch {type}", "from_torch")
    return result if result.dtype is type.dtype else result.astype(type.dtype)


def _stand_in(step: Step) -> Any:
    """Arrays of the types that PyTorch states, in the place of what could not be made."""
    def made(type: Any) -> Any:
        if isinstance(type, tuple):
            return tuple(made(t) for t in type)
        if isinstance(type, ComplexType):
            return Complex(made(type.part), made(type.part))
        return gc.zeros(type.shape, type.dtype) if isinstance(type, TensorType) else 0
    return made(step.type)


def _noted(call: list[Step], env: Mapping[str, Any]) -> None:
    """Tells the trace that a module has returned, for the table of layers."""
    if call and call[-1].scope:
        last = env[call[-1].name]
        values = tuple(a.value for a in (last if isinstance(last, tuple) else (last,)) if isinstance(a, gc.Array))
        current_trace().calls.append(LayerCall(call[-1].scope, call[-1].kind, values))
    call.clear()


# operators with programs inside


def _run(problems: list[Problem] | None, body: TorchProgram, args: Sequence[Any]) -> Any:
    env = interpret(body, dict(zip(body.inputs, args)), problems)
    found = tuple(_resolved(v, env) for v in body.outputs.values())
    return found


def _grad_mode(problems: list[Problem] | None, enabled: bool, body: TorchProgram, *args: Any) -> Any:
    found = _run(problems, body, args)
    return found if enabled else tuple(gc.stop_gradient(a) if isinstance(a, gc.Array) else a for a in found)


def _cond(problems: list[Problem] | None, predicate: Any, then: TorchProgram, otherwise: TorchProgram,
          args: Any = ()) -> Any:
    if isinstance(predicate, bool):
        return _run(problems, then if predicate else otherwise, args)
    arrays = [_array(a) for a in args]
    return tuple(gc.cond(predicate.reshape(()), lambda *a: _run(None, then, a), lambda *a: _run(None, otherwise, a),
                         *arrays))


def _scan(problems: list[Problem] | None, body: TorchProgram, init: Any, xs: Any, more: Any = ()) -> Any:
    def step(carry: Any, rows: Any) -> tuple[Any, Any]:
        found = _run(None, body, (*carry, *rows, *more))
        return tuple(found[:len(init)]), tuple(found[len(init):])
    carry, ys = gc.scan(step, tuple(init), tuple(xs))
    return (*carry, *ys)


def _own_gradient(problems: list[Problem] | None, body: TorchProgram, outs: Sequence[Any], ins: Sequence[Any],
                  free: Sequence[Any]) -> tuple[Any, ...]:
    """Results of a function that states its gradient: `body`, which reads `free` beside the gradients of `outs`."""
    names = list(body.inputs)
    known = dict(zip(names[len(outs):], free))
    arrays = {name: value for name, value in known.items() if isinstance(value, gc.Array)}

    def gradient(inputs: tuple[Any, ...], _: Any, gradients: tuple[Any, ...]) -> tuple[Any, ...]:
        kept = dict(zip(arrays, inputs[len(outs) + len(ins):]))
        env = interpret(body, {**dict(zip(names, gradients)), **known, **kept})
        towards = [_resolved(g, env) for g in body.outputs.values()]
        return *(None for _ in outs), *(g.astype(x.dtype) for g, x in zip(towards, ins)), *(None for _ in arrays)
    try:
        return gc.custom_vjp(lambda *values: values[:len(outs)], gradient)(*outs, *ins, *arrays.values())
    except GraphError as error:
        text = f"the backward pass of a function of torch.autograd cannot be taken: {error.text}"
        return tuple(emit("stop_gradient", y, refused=text) for y in outs)


def _ordered(problems: list[Problem] | None, token: Any, op: Any, *args: Any, **named: Any) -> tuple[Any, ...]:
    """An operator whose effects have a place in an order, which a token says: those of checks, which are not made."""
    name, token = str(op).removeprefix("aten."), gc.zeros((0,)) if token is None else token
    if name in CHECKS:
        return token,
    if name not in RULES:
        raise GraphError(f"no rule for {name}")
    found = RULES[name](*args, **named)
    return (token, *found) if isinstance(found, tuple) else (token, found)


REGIONS: dict[str, Callable[..., Any]] = {
    "higher_order.with_effects": _ordered, "higher_order.own_gradient": _own_gradient,
    "higher_order.wrap_with_set_grad_enabled": _grad_mode, "higher_order.cond": _cond, "higher_order.scan": _scan,
    "higher_order.wrap_with_autocast": lambda problems, device, dtype, enabled, cache, body, *args: _run(
        problems, body, args)}


def explained(name: str, problems: Sequence[Problem]) -> GraphError:
    """One error for all that cannot be taken: what, how often, and where it is first."""
    groups: dict[tuple[str, str], list[Problem]] = defaultdict(list)
    for problem in problems:
        groups[problem.target, problem.reason].append(problem)
    lines = []
    for (target, reason), found in groups.items():
        loc = next((p.loc for p in found if p.loc), None)
        times = f", {len(found)} times" if len(found) > 1 else ""
        code = f"\n      {loc.code}" if loc and loc.code else ""
        lines.append(f"  {target}{times}: {reason}" + (f"\n    at {loc}{code}" if loc else ""))
    return GraphError(f"{name} has {len(problems)} operations that graphc does not take:\n" + "\n".join(lines))
