"""The two kinds of failure: the user's mistake and ours."""
from __future__ import annotations

from dataclasses import field, replace

from graphc.records import dataclass


@dataclass(frozen=True)
class Loc:
    """A place in the user's source, or in a graph text (then `column` is set)."""
    file: str
    line: int
    code: str = ""
    column: int = 0
    # the function of graphc that the line calls, where known
    call: str = field(default="", compare=False, repr=False)

    def calling(self, function: str) -> Loc:
        """The same line, where nothing is known yet of what it calls."""
        return self if self.call else replace(self, call=function)

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" + (f":{self.column}" if self.column else "")


class GraphError(Exception):
    """The user's mistake. The message says what is wrong and what would be right; `loc` is the user's own line.

    `text` is the message without the place, so that whoever knows the place can add it with `at`.
    """

    def __init__(self, text: str, loc: Loc | None = None):
        self.text, self.loc = text, loc
        super().__init__(text if loc is None else _with_place(text, loc))

    def at(self, loc: Loc | None) -> "GraphError":
        """The same error with a place, unless it already has one."""
        return self if self.loc is not None or loc is None else type(self)(self.text, loc)


class Unjoined(GraphError):
    """Several shards in one program would not have the bits that each has alone."""


class Unsized(GraphError):
    """What would have to be known of a symbolic size, and is not. `condition`: the size that a rule wants to be at
    least 0, if it is that."""

    def __init__(self, text: str, loc: Loc | None = None, condition: object = None):
        super().__init__(text, loc)
        self.condition = condition

    def at(self, loc: Loc | None) -> GraphError:
        return self if self.loc is not None or loc is None else Unsized(self.text, loc, self.condition)


class InternalError(Exception):
    """A bug in graphc: names the stage and shows the part of the program where it happened."""

    def __init__(self, text: str, stage: str = "", dump: str = ""):
        self.text, self.stage, self.dump = text, stage, dump
        head = f"internal error in {stage}: {text}" if stage else f"internal error: {text}"
        super().__init__(head + (f"\n{dump}" if dump else ""))


def _with_place(text: str, loc: Loc) -> str:
    code = f"\n    {loc.code}" if loc.code else ""
    return f"{text}\n  at {loc}{code}"
