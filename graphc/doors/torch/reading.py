"""What is exchanged in PyTorch while a module is read, because torch.export does not say it: that a region is in
inference mode, that `.data` is a tensor without gradient, that attributes of a module remember something."""
from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from threading import RLock, get_ident
from typing import Any

import torch
from torch._subclasses import meta_utils
from torch.utils import _pytree as pytree

from graphc.dsl.context import user_loc
from graphc.errors import GraphError, Loc

LOCK = RLock()              # what is exchanged belongs to the process
# tensors that were made in inference mode stand for themselves without that mode (newer than PyTorch 2.6)
_AS_OTHERS: Callable[[], Any] = getattr(meta_utils, "disable_inference_mode_for_fake_prop", nullcontext)
Changed = list[tuple[str, Loc | None]]


@contextmanager
def exchanged(owner: Any, name: str, made: Callable[[Any], Any]) -> Iterator[None]:
    """`owner.name` as `made` of what it is, for calls of this thread."""
    own, thread = getattr(owner, name), get_ident()
    other, held = made(own), vars(owner).get(name)
    setattr(owner, name, lambda *args, **named: (other if get_ident() == thread else own)(*args, **named))
    try:
        yield
    finally:
        if held is None:
            delattr(owner, name)
        else:
            setattr(owner, name, held)


@contextmanager
def watched(module: torch.nn.Module) -> Iterator[Changed]:
    """Gives the attributes of modules that are changed inside, without parameters and buffers. Those that were made in
    inference mode are tensors as others."""
    changed: Changed = []
    names = {id(part): name for name, part in module.named_modules()}

    def remembered(own: Any) -> Any:
        def set(part: torch.nn.Module, name: str, value: Any) -> None:
            if name in vars(part) and value is not vars(part)[name] and id(part) in names:
                changed.append((f"{names[id(part)]}.{name}".lstrip("."), user_loc()))
            own(part, name, value)
        return set

    def off(own: Any) -> Any:
        def enter(mode: Any) -> None:
            mode.before = torch.is_grad_enabled()
            torch.set_grad_enabled(mode.before and not mode.mode)
        return enter

    def back(own: Any) -> Any:
        return lambda mode, *_: torch.set_grad_enabled(mode.before) and None
    with LOCK, _AS_OTHERS(), ExitStack() as stack:
        for owner, name, made in ((torch.nn.Module, "__setattr__", remembered),
                                  (torch.inference_mode, "__enter__", off), (torch.inference_mode, "__exit__", back),
                                  (torch.autograd, "_engine_run_backward", lambda _: _no_backward)):
            stack.enter_context(exchanged(owner, name, made))
        yield changed


def _no_backward(*_: Any, **__: Any) -> None:
    raise GraphError("a module that differentiates itself is not read: differentiate the network, with gc.grad",
                     user_loc())


def check_memory(module: torch.nn.Module, args: Sequence[Any], named: Mapping[str, Any], changed: Changed) -> None:
    """GraphError if a second call of a module whose attributes have changed gives something else than the first one:
    what a network remembers is in buffers. Attributes may hold what is only looked at, or made once."""
    if not changed:
        return
    try:
        tried = copy.deepcopy(module)
        state = {name: t.clone() for name, t in (*tried.named_parameters(), *tried.named_buffers())}
    except Exception:               # what cannot be copied cannot be tried
        return
    found = []
    for _ in range(2):
        with torch.no_grad(), torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            for name, t in (*tried.named_parameters(), *tried.named_buffers()):
                t.copy_(state[name])
            found.append(pytree.tree_leaves(tried(*copy.deepcopy(args), **copy.deepcopy(named))))
    first, second = found
    if len(first) != len(second) or not all(map(_same, first, second)):
        name, loc = changed[0]
        raise GraphError(f"the module changes its attribute {name}, and what it computes with it: a network remembers "
                         f"nothing but buffers, as register_buffer makes them", loc)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.shape == b.shape and bool(torch.equal(a.nan_to_num(), b.nan_to_num()))
    return bool(a == b)
