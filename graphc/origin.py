"""What compiled functions were made from."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from graphc.dsl.context import user_loc
from graphc.errors import GraphError
from graphc.ir.graph import Graph
from graphc.ir.open import Bounds
from graphc.memory.budget import Budget
from graphc.nn.entry import Entry
from graphc.quantisation_report import Quantisation, QuantisationReport
from graphc.records import dataclass
from graphc.state import State


@dataclass(frozen=True)
class Origin:
    """The graph, the entries of its state, the bounds of its named sizes, and the state on whose live arrays it runs;
    None where it keeps what it needs of arrays that nobody else has. Entries of what gc.compile made have the names of
    the state and no owners, so that no layer is kept for it. `budget`: of memory."""
    graph: Graph
    entries: tuple[Entry, ...] = ()
    bounds: Mapping[str, Bounds] = field(default_factory=dict)
    state: State | None = None
    budget: Budget | None = None
    quantisation: Quantisation | None = None        # of `compute=` and `store=`


def quantisation_of(origin: Origin | None) -> QuantisationReport:
    """The errors of a function's products of rounded factors, and of its weights in few bits; GraphError if it has
    neither."""
    if origin is None or origin.quantisation is None:
        raise GraphError("there is no quantisation: compile with compute=\"int8\" or \"bf16\", or store=", user_loc())
    return origin.quantisation.report()


def explained(origin: Origin | None, text: str) -> str:
    """What explains a program, and before it the products that `compute=` left in f32."""
    left = origin.quantisation.left if origin and origin.quantisation else ""
    return "\n\n".join(filter(None, (left, text)))


def state_of(origin: Origin | None) -> State:
    """The state of what was made so. GraphError where its calls have arrays that nobody can change."""
    if origin is None or origin.state is None:
        raise GraphError("this function has no state that could be read or written: its parameters are taken as they "
                         "were when it was compiled, and it updates none. Give it a training step's state "
                         "(state=step.state, or step.model)", user_loc())
    return origin.state
