"""What mkdocstrings is told beside docs/site_hooks.py: graphc's `dataclass` gives the constructor that the standard
library's gives."""
from __future__ import annotations

from typing import Any

from griffe import Alias, Extension


class StandardDataclasses(Extension):
    """`dataclass` of graphc.records stands for that of `dataclasses`, as type checkers are told too."""

    def on_alias_instance(self, *, alias: Alias, **_: Any) -> None:
        """Run for each name that a module imports."""
        if alias.target_path == "graphc.records.dataclass":
            alias.target_path = "dataclasses.dataclass"
