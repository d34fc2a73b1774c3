"""The operators that PyTorch's own backward passes call: the vector-Jacobian products of rules of other tables."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

Rule = Callable[..., Any]

RULES: dict[str, Rule] = {}
