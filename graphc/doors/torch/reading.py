"""What is exchanged in PyTorch while a module is read, because torch.export does not say it: that a region is in
inference mode, that `.data` is a tensor without gradient, that attributes of a module remember something or that it
draws random numbers."""
from __future__ import annotations

import copy
import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager, nullcontext
from threading import RLock, get_ident
from typing import Any

import numpy as np
import torch
from torch._subclasses import meta_utils
from torch.utils import _pytree as pytree

from graphc.dsl.context import user_loc
from graphc.errors import GraphError, Loc
from graphc.records import dataclass

LOCK = RLock()              # what is exchanged belongs to the process
# tensors that were made in inference mode stand for themselves without that mode (newer than PyTorch 2.6)
_AS_OTHERS: Callable[[], Any] = getattr(meta_utils, "disable_inference_mode_for_fake_prop", nullcontext)
MOST_BYTES = 1 << 20        # of an array that is compared
NUMBERS = (bool, int, float, complex, str, bytes, type(None))
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
    """Gives the attributes of modules that are changed inside, or what these hold, without parameters and buffers.
    Those that were made in inference mode are tensors as others."""
    changed: Changed = []
    draws = _draws()
    names = {id(part): name for name, part in module.named_modules()}
    before = {name: _contents(value) for name, value in _attributes(module)}

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
        # torch.export puts back what lists and dicts held: this is asked at the end of the call that it makes
        look = module.register_forward_hook(lambda *_: changed.extend(
            (name, None) for name, value in _attributes(module) if name in before and _contents(value) != before[name]))
        stack.callback(look.remove)
        yield changed
        changed += [(name, None) for name, state in _draws().items() if state != draws[name]]


@dataclass(frozen=True, eq=False)
class Itself:
    """A thing that is only equal to itself."""
    thing: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Itself) and self.thing is other.thing


def _draws() -> dict[str, Any]:
    """What random numbers other than PyTorch's go on from."""
    return {"numpy.random": repr(np.random.get_state(legacy=False)), "random": random.getstate()}


def _attributes(module: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    """The attributes of a module and its parts that PyTorch knows nothing of."""
    own = vars(torch.nn.Module()).keys()
    for path, part in module.named_modules():
        yield from ((f"{path}.{name}".lstrip("."), value) for name, value in vars(part).items() if name not in own)


def _contents(value: Any, depth: int = 3) -> Any:
    """What a container, or an object of the user's, holds, to be compared with what it holds later."""
    if isinstance(value, NUMBERS):
        return value
    if depth and isinstance(value, Mapping):
        return [(_contents(k, 0), _contents(v, depth - 1)) for k, v in value.items()]
    if depth and isinstance(value, Sequence | Set | deque):
        return [_contents(v, depth - 1) for v in value]
    if isinstance(value, np.ndarray) and value.nbytes < MOST_BYTES:
        return value.tobytes()
    if depth and not isinstance(value, torch.nn.Module | torch.Tensor | type | Callable) and hasattr(value, "__dict__"):
        return [_contents(vars(value), depth - 1)]
    return Itself(value)


def _no_backward(*_: Any, **__: Any) -> None:
    raise GraphError("a module that differentiates itself is not read: differentiate the network, with gc.grad",
                     user_loc())


def check_memory(module: torch.nn.Module, args: Sequence[Any], named: Mapping[str, Any], changed: Changed) -> None:
    """GraphError if a second call of a module that has changed its attributes, or drawn random numbers, gives something
    else than the first one: what a network remembers is in buffers. Attributes may hold what is only looked at, or made
    once."""
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
        if name in _draws():
            raise GraphError(f"the module draws numbers from {name}, and each call would compute with those that it "
                             "drew when it was read: draw them with torch.rand and others", user_loc())
        raise GraphError(f"the module changes its attribute {name}, and what it computes with it: a network remembers "
                         f"nothing but buffers, as register_buffer makes them", loc)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.shape == b.shape and bool(torch.equal(a.nan_to_num(), b.nan_to_num()))
    return bool(a == b)
