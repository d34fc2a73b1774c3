"""Steps that train one layer apart: each has its own state, so each would move a copy of the layer that the others
never see. That is hardly ever meant (a GAN whose discriminator never sees the trained generator), so the second of them
is refused when it is first called.

It is meant, and passes, where the second step
- was told so: state="own";
- has been given values: loaded, or written by name;
- is the first made again: by the same line, for the same function and loss (a cell of a notebook run twice, a loop over
  learning rates).
A step that nobody holds any more stands in nobody's way.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol
from weakref import WeakSet

from graphc.dsl.context import user_loc
from graphc.errors import GraphError, Loc
from graphc.nn.module import Function, Module
from graphc.nn.parameter import Parameter
from graphc.records import dataclass
from graphc.state import State

STARTED: "WeakSet[LiveStep]" = WeakSet()       # those that have been called


@dataclass(frozen=True)
class Share:
    """What a step has of layers: the names of all parameters that it reads, which of them it trains, and what each
    layer is, by path.
    """
    names: Mapping[Parameter, str]
    trained: frozenset[Parameter]
    kinds: Mapping[str, str]

    def common(self, other: "Share") -> Parameter | None:
        """A parameter that both have and one trains."""
        return next((p for p in self.names if p in other.names and (p in self.trained or p in other.trained)), None)

    def named(self, parameter: Parameter) -> str:
        name = self.names[parameter]
        kind = self.kinds.get(name.rpartition(".")[0])
        return f"{name} of a {kind}" if kind else name


class LiveStep(Protocol):
    """What is asked of a training step. `made`: the user's line; `version`: that of the state when the step was made;
    `own`: apart on purpose.
    """
    share: Share
    state: State
    made: Loc | None
    version: int
    own: bool

    @property
    def function(self) -> tuple[Module, Callable[..., object] | None]: ...


def started(step: LiveStep) -> None:
    """The step is called for the first time. GraphError where it would train apart what another one trains."""
    check_apart(step)
    STARTED.add(step)


def check_apart(step: LiveStep) -> None:
    """GraphError for a step with fresh parameters of layers that another one has trained, or that another one has and
    this one trains.
    """
    if step in STARTED or step.own or step.state.lock.version != step.version:
        return
    for other in list(STARTED):
        is_apart = other.state is not step.state and not other.own and not _again(step, other)
        common = step.share.common(other.share) if is_apart else None
        if common is not None:
            raise GraphError(f"{step.share.named(common)} is part of two training steps, each with parameters of its "
                             f"own, so that neither "
                             f"sees what the other trains: of this one, made at {step.made}, and of that made at "
                             f"{other.made}. To train one set of "
                             'parameters, give this one the state of the other: state=step.state; to train a fresh '
                             'one, state="own", or a '
                             "copy.deepcopy of the network",
                             user_loc())


def _again(step: LiveStep, other: LiveStep) -> bool:
    return step.made == other.made and all(map(_same, step.function, other.function))


def _same(f: object, g: object) -> bool:
    """Whether f is g, or the same lines of Python run again."""
    f, g = (x.function if isinstance(x, Function) else x for x in (f, g))
    return f is g or getattr(f, "__code__", f) == getattr(g, "__code__", g)
