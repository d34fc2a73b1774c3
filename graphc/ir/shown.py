"""How graphs show themselves in notebooks. This level cannot draw; a module that can registers itself with
`set_renderer`."""
from __future__ import annotations

from collections.abc import Callable

_RENDER: list[Callable[[object], str]] = []


def set_renderer(render: Callable[[object], str]) -> None:
    """`render(object)` gives HTML, and never raises."""
    _RENDER[:] = [render]


class Shown:
    """What notebooks show as a picture."""
    __slots__ = ()

    def _repr_html_(self) -> str | None:
        return _RENDER[0](self) if _RENDER else None
