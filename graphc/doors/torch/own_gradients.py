"""Gradients that a module states itself, which torch.export does not hand on: of functions of torch.autograd, whose
backward pass is recorded beside the forward one, and those that hooks change, which are refused."""
from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from threading import get_ident
from typing import Any

import torch
from torch.autograd import Function
from torch.utils.checkpoint import CheckpointFunction

from graphc.doors.torch.program import OwnTensor, Ref, Refusal, Step, TorchProgram, refs, used
from graphc.doors.torch.reading import LOCK, exchanged
from graphc.dsl.context import user_loc

OWN, REGION = "graphc.own_gradient.default", "higher_order.own_gradient"
HOOKS = ("_backward_hooks", "_backward_pre_hooks")
PARAMETER_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")


def _declared() -> torch.library.Library:
    """What stands in a program for the gradient of a result, and for results whose gradients it states itself."""
    library = torch.library.Library("graphc", "FRAGMENT")
    library.define("cotangent(Tensor y) -> Tensor")
    library.define("own_gradient(Tensor[] outs, Tensor[] ins, Tensor[] cotangents, Tensor[] gradients) -> Tensor[]")
    library.impl("cotangent", torch.zeros_like, "CPU")
    library.impl("own_gradient", lambda outs, *_: [y.clone() for y in outs], "CPU")
    torch.library.register_fake("graphc::cotangent", torch.zeros_like, lib=library)
    torch.library.register_fake("graphc::own_gradient", lambda outs, *_: [torch.empty_like(y) for y in outs],
                                lib=library)
    return library


LIBRARY = _declared()


class FunctionContext:
    """What both passes of a function of torch.autograd know as `ctx` while they are recorded."""

    def __init__(self, needs: tuple[bool, ...]):
        self.needs_input_grad, self.saved_tensors = needs, tuple[torch.Tensor | None, ...]()
        self.constant: set[int] = set()

    def save_for_backward(self, *tensors: torch.Tensor | None) -> None:
        """What the backward pass reads."""
        self.saved_tensors = tensors

    def save_for_forward(self, *tensors: torch.Tensor | None) -> None:
        """What forward mode would read."""

    def mark_non_differentiable(self, *tensors: torch.Tensor) -> None:
        """Results without gradient."""
        self.constant |= set(map(id, tensors))

    def set_materialize_grads(self, value: bool) -> None:
        """Gradients that are zero are arrays here in any case."""


@contextmanager
def own_gradients(module: torch.nn.Module) -> Iterator[list[Refusal]]:
    """While a module is read: functions of torch.autograd keep their backward pass. Gives what nothing can be
    differentiated through: a list that is whole at the end."""
    refused, apply, thread = _hooks(module), vars(Function)["apply"], get_ident()

    def applied(cls: Any, *args: Any, **named: Any) -> Any:
        if cls is CheckpointFunction and get_ident() == thread:     # computes again later: a question of memory alone
            return args[0](*args[2:])
        whole = get_ident() == thread and not cls.__module__.startswith("torch.") and not named and not (
            torch._C._are_functorch_transforms_active())
        return _recorded(cls, args) if whole else apply.__get__(None, cls)(*args, **named)

    def hooked(own: Any) -> Any:
        def register(tensor: torch.Tensor, *args: Any) -> Any:
            refused.append(Refusal("register_hook changes gradients", user_loc()))
            return own(tensor, *args)
        return register
    with LOCK, exchanged(torch.Tensor, "register_hook", hooked):
        setattr(Function, "apply", classmethod(applied))
        try:
            yield refused
        finally:
            setattr(Function, "apply", apply)


def _hooks(module: torch.nn.Module) -> list[Refusal]:
    """Hooks that are called in the backward pass."""
    parts = [(name or type(module).__name__, part, HOOKS) for name, part in module.named_modules()]
    own = [(name, p, PARAMETER_HOOKS) for name, p in module.named_parameters()]
    return [Refusal(f"{name} has a hook of the backward pass", None) for name, holder, kinds in (*parts, *own)
            if any(getattr(holder, kind, None) for kind in kinds)]


def _recorded(function: Any, args: Sequence[Any]) -> Any:
    """The results of a function of torch.autograd, and in the program beside them its backward pass."""
    ctx = FunctionContext(tuple(_is_float(a) for a in args))
    if function.setup_context is Function.setup_context:
        found = function.forward(ctx, *args)
    else:
        found = function.forward(*args)
        function.setup_context(ctx, args, found)
    results = list(found) if isinstance(found, tuple | list) else [found]
    smooth = [y for y in results if _is_float(y) and id(y) not in ctx.constant]
    if not smooth or not any(ctx.needs_input_grad):
        return found
    cotangents = {id(y): torch.ops.graphc.cotangent(y) for y in smooth}
    given = [cotangents[id(y)] if id(y) in cotangents else torch.zeros_like(y) if isinstance(y, torch.Tensor) else None
             for y in results]
    gradients = function.backward(ctx, *given)
    gradients = gradients if isinstance(gradients, tuple | list) else (gradients,)
    pairs = [(x, g.sum_to_size(x.shape)) for x, g in zip(args, gradients) if _is_float(x) and g is not None]
    ins, towards = [x for x, _ in pairs], [g for _, g in pairs]
    made = torch.ops.graphc.own_gradient(smooth, ins, list(cotangents.values()), towards)
    new = {id(y): z for y, z in zip(smooth, made)}
    whole = [new.get(id(y), y) for y in results]
    return tuple(whole) if isinstance(found, tuple | list) else whole[0]


def _is_float(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def with_regions(steps: Sequence[Step]) -> tuple[Step, ...]:
    """The steps, with each backward pass that was recorded beside its function as a program of its own inside one
    step."""
    done: list[Step] = []
    for step in steps:
        done.append(_region(step, done) if step.target == OWN else step)
    return tuple(done)


def _region(step: Step, before: Sequence[Step]) -> Step:
    outs, ins, cotangents, gradients = step.args
    behind = {ref.name for ref in cotangents}
    body: list[Step] = []
    for other in before:
        if any(ref.name in behind for ref in _read(other)):
            behind.add(other.name)
            body.append(other)
    inside = used(tuple(body), list(gradients))
    made = {other.name for other in inside}
    read = dict.fromkeys(ref.name for value in (*map(_read, inside), gradients) for ref in value)
    names = [ref.name for ref in cotangents]
    free = [name for name in read if name not in made and name not in names]
    inputs: Mapping[str, Any] = dict.fromkeys((*names, *free))          # whose types are those of what is given
    program = TorchProgram("gradient", inputs, inside, {str(i): ref for i, ref in enumerate(gradients)})
    return replace(step, target=REGION, args=(program, outs, ins, tuple(map(Ref, free))))


def _read(step: Step) -> list[Ref]:
    return list(refs((step.args, tuple(step.kwargs.values()))))


def untrained(own: Sequence[OwnTensor], tensors: Mapping[str, torch.Tensor], written: Container[str]) -> list[Refusal]:
    """Parameters that PyTorch would train and a step here would not, or otherwise. `tensors`: parameters, buffers and
    constants by name. `written`: what the program writes, as it is called there."""
    found = _shared({one.name for one in own if one.trained}, tensors)
    small = [one for one in own if tensors[one.name].requires_grad and one.type.dtype.is_storage]
    if small:
        found.append(Refusal(f"{_listed(small)} of the type {small[0].type.dtype}, in which none is trained (call "
                             "module.float(), and compute in that type by torch.autocast; or let it be with "
                             "requires_grad_(False))", None))
    if both := [one for one in own if one.trained and one.ref in written]:
        found.append(Refusal(f"the module writes into {_listed(both)}, as the optimizer would "
                             "(torch.nn.utils.parametrize computes one from another)", None))
    return found


def _listed(own: Sequence[OwnTensor]) -> str:
    return f"the parameter {own[0].name}" + (f" and {len(own) - 1} more" if own[1:] else "")


def _shared(trained: Container[str], tensors: Mapping[str, torch.Tensor]) -> list[Refusal]:
    """Parameters that lie in the memory of others: an optimizer of PyTorch's writes into both at once."""
    places = []
    for name, t in tensors.items():
        if t.numel():
            last = sum((n - 1) * stride for n, stride in zip(t.shape, t.stride()))
            places.append((t.data_ptr(), t.data_ptr() + (last + 1) * t.element_size(), name))
    found, end, holder = list[Refusal](), 0, ""
    for start, stop, name in sorted(places):
        if start < end and tensors[name] is not tensors[holder] and (name in trained or holder in trained):
            found.append(Refusal(f"{name} lies in the memory of {holder} and is another tensor", None))
        if stop > end:
            end, holder = stop, name
    return found
