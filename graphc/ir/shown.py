"""How graphs show themselves, in notebooks and as a page. This level cannot draw; modules that can register themselves
with `set_renderer` and `set_explorer`."""
from __future__ import annotations

from collections.abc import Callable

_RENDER: list[Callable[[object], str]] = []
_EXPLORE: list[Callable[..., None]] = []


def set_renderer(render: Callable[[object], str]) -> None:
    """`render(object)` gives HTML, and never raises."""
    _RENDER[:] = [render]


def set_explorer(explore: Callable[..., None]) -> None:
    """`explore(object, path, *arrays, **options)` writes a page."""
    _EXPLORE[:] = [explore]


class Pictured:
    """What notebooks show as a picture."""
    __slots__ = ()

    def _repr_html_(self) -> str | None:
        return _RENDER[0](self) if _RENDER else None


class Shown(Pictured):
    """What notebooks show as the picture of a graph, and a page shows whole."""
    __slots__ = ()

    def explore(self, *given: object, **options: object) -> None:
        """`explore(path, *arrays, runs=3)` writes one HTML page that shows the program whole, from the source to
        assembly: see `gc.explore`."""
        _EXPLORE[0](self, *given, **options)
