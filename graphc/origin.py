"""What compiled functions were made from."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from graphc.dsl.function import GraphFunction
from graphc.ir.open import Bounds
from graphc.state import State


@dataclass(frozen=True)
class Origin:
    """The function, the bounds of its named sizes, and the state on whose live arrays it runs; None where it keeps
    what it needs of arrays that nobody else has."""
    function: GraphFunction
    bounds: Mapping[str, Bounds] = field(default_factory=dict)
    state: State | None = None
