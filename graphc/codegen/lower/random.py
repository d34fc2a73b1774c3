"""Random numbers as an elementwise leaf of a nest."""
from __future__ import annotations

from graphc.errors import InternalError


def random_value(body, node, env):
    raise InternalError(f"no code for operator {node.op.name}", "lower")
