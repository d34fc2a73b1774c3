"""What of a model is not supported, listed at once."""
from __future__ import annotations

from collections.abc import Callable

from graphc.doors.onnx.graph import ModelNode
from graphc.doors.onnx.known import NeedsNumbers, Unsupported

MOST = 40                           # kinds that an error lists


class Problems:
    """Nodes that cannot be imported, by operator and reason."""

    def __init__(self, model: str):
        self.model = model
        self._found: dict[tuple[str, str], list[ModelNode]] = {}
        self._inputs: frozenset[str] = frozenset()      # whose numbers are needed

    def add(self, node: ModelNode, reason: Unsupported) -> None:
        self._found.setdefault((node.key, reason.text), []).append(node)
        if isinstance(reason, NeedsNumbers):
            self._inputs |= reason.inputs

    def kept(self) -> Callable[[], None]:
        """A function that forgets what has been added since: after an attempt that another way replaces."""
        found, inputs = {key: list(nodes) for key, nodes in self._found.items()}, self._inputs

        def forget() -> None:
            self._found, self._inputs = found, inputs
        return forget

    def report(self) -> None:
        """Unsupported, with all of them, if there are any."""
        if not self._found:
            return
        rows = [f"  {op}: {len(nodes)} node{'s' * (len(nodes) > 1)}, the first {nodes[0]}: {reason}"
                for (op, reason), nodes in self._found.items()]
        if len(rows) > MOST:
            rows = [*rows[:MOST], f"  and {len(rows) - MOST} more kinds"]
        text = f"{self.model} has what gc.from_onnx does not support:\n" + "\n".join(rows)
        raise NeedsNumbers(text, self._inputs) if self._inputs else Unsupported(text)
