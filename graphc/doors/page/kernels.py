"""The kernels of a program as rows of a table: what they are, cost and took, and what schedules they were chosen among.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, field

from graphc.codegen.kernel_calls import Site
from graphc.doors.page.lines import SourceLines
from graphc.errors import Loc
from graphc.ir.dims import typical
from graphc.ir.graph import Node
from graphc.ir.ops.constant import Constant
from graphc.ir.ops.fused import members
from graphc.profile import Profile
from graphc.records import dataclass
from graphc.schedule.schedule import Schedule

Place = tuple[str, Loc | None]      # a kernel, called from a line


@dataclass
class KernelRow:
    """All calls of one kernel from one line: totals of one run. `seconds`: None where nothing was measured; `locs`: all
    lines that went into it; `candidates`: the tables of what its schedules were chosen among."""
    kernel: str
    operators: str
    types: str
    scope: str
    phase: str
    loc: int | None
    locs: list[int]
    schedule: str
    candidates: list[str]
    calls: int = 0
    flops: int = 0
    bytes: int = 0
    seconds: float | None = None
    share: float | None = None      # of the roofline, 1 at most
    beyond: bool = False            # faster than the roofline allows: its data stayed in the caches


@dataclass
class KernelRows:
    """Rows by kernel and line, for sites in the order of the calls."""
    source: SourceLines
    rows: dict[Place, KernelRow] = field(default_factory=dict)

    def add(self, site: Site, phase: str, schedule: Schedule | None) -> None:
        node = site.node
        place = (site.kernel, node.loc if node else None)
        row = self.rows.get(place)
        if row is None:
            row = self.rows[place] = self._row(site.kernel, node, phase, schedule)
        row.calls += 1
        if node is not None:
            cost = node.op.cost(*(v.type for v in node.inputs))
            row.flops += typical(cost.flops)
            row.bytes += typical(cost.bytes)

    def measured(self, profile: Profile) -> None:
        """Times, counts and costs as they were in a run."""
        for timed in profile.rows:
            row = self.rows.get((timed.kernel, timed.loc))
            if row is not None:
                row.calls, row.flops, row.bytes, row.seconds = timed.calls, timed.flops, timed.bytes, timed.seconds
                share = profile.share(timed)
                row.share, row.beyond = min(share, 1.0), share > 1

    def as_data(self) -> list[dict[str, object]]:
        return [asdict(row) for row in self.rows.values()]

    def _row(self, kernel: str, node: Node | None, phase: str, schedule: Schedule | None) -> KernelRow:
        if node is None:
            return KernelRow(kernel, kernel.partition("_")[2] or kernel, "", "", "", None, [], "", [])
        inner = [n for n, _ in members(node) if not isinstance(n.op, Constant)]
        locs = dict.fromkeys(self.source.number(n.loc, n.scope) for n in (node, *inner))
        types = " -> ".join(", ".join(str(v.type) for v in values) for values in (node.inputs, node.outputs))
        rivals = [str(r) for r in schedule.rankings if len(r.candidates) > 1] if schedule else []
        return KernelRow(kernel, " ".join(n.op.name for n in inner), types, node.scope, phase,
                         self.source.number(node.loc, node.scope), [n for n in locs if n is not None],
                         str(schedule or ""), rivals)


def kernels_of(sites: Sequence[Site]) -> dict[Node, str]:
    """The name of the kernel that each node became."""
    return {site.node: site.kernel for site in sites if site.node is not None}
