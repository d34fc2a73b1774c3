"""The extras of pyproject.toml: packages that graphc is used with and does without."""
from __future__ import annotations

from graphc.errors import GraphError, Loc


def missing(what: str, packages: str, extra: str, absent: Exception | None = None,
            loc: Loc | None = None) -> GraphError:
    """The error for `what`, which needs packages that are not there, or do not work (`absent`), and are in an extra."""
    why = f" ({absent})" if absent else ""
    return GraphError(f"{what} needs {packages}: pip install 'graphc[{extra}]', or '.[{extra}]' in a checkout{why}",
                      loc)
