"""What the benchmark says: Markdown tables and a bar chart."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

from benchmarks.contest import INFERENCE_ONLY, TIME_IS_UP, Figures
from benchmarks.workloads import INFER, Workload
from graphc.replacing import replacing

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "graphc"      # equal figures give equal files
matplotlib.rcParams["svg.fonttype"] = "none"        # text stays text
from matplotlib import pyplot  # noqa: E402  the backend first: there may be no display

TITLES = {"graphc": "graphc", "torch": "PyTorch", "inductor": "torch.compile", "jax": "JAX", "onnx": "ONNX Runtime",
          "openvino": "OpenVINO", "tensorflow": "TensorFlow", "pytensor": "PyTensor"}
COLORS = {"torch": "#d62728", "inductor": "#ff7f0e", "jax": "#1f77b4", "onnx": "#7f7f7f", "openvino": "#9467bd",
          "tensorflow": "#bcbd22", "pytensor": "#8c564b"}
# (inference, one thread): share of the limit that is enough
SHARES = {(True, False): 0.75, (False, False): 0.70, (True, True): 0.85, (False, True): 0.80}
FINDING = 1.2                       # a drawn shape whose ratio is this many times its neighbour's is to be explained
LARGE_PLAN = 100e6


@dataclass(frozen=True)
class Row:
    """One workload at one number of threads; `limit`: the machine's own figures, measured in turns with the engines'.
    """
    workload: Workload
    threads: int
    figures: Mapping[str, Figures]
    limit: Figures

    @property
    def mine(self) -> Figures | None:
        found = self.figures.get("graphc")
        return found if found and found.times else None

    @property
    def best_peer(self) -> str:
        """The engine with the least median; "" if none ran."""
        peers = {e: f.median for e, f in self.figures.items() if e != "graphc" and f.times}
        return min(peers, key=peers.get, default="")

    @property
    def ratio(self) -> float | None:
        """Time of graphc / time of the best peer, of medians."""
        return self.mine.median / self.figures[self.best_peer].median if self.mine and self.best_peer else None

    @property
    def best_ratio(self) -> float | None:
        """The same of the best times; of the peer whose best time is least."""
        peers = [f.best for e, f in self.figures.items() if e != "graphc" and f.times]
        return self.mine.best / min(peers) if self.mine and peers else None

    @property
    def share(self) -> float | None:
        """Of the limit, of medians."""
        return self.limit.median / self.mine.median if self.mine and self.limit.times else None

    @property
    def best_share(self) -> float | None:
        """The same of the best times."""
        return self.limit.best / self.mine.best if self.mine and self.limit.times else None

    @property
    def is_reached(self) -> bool:
        """At the wanted ratio, or near enough to the limit."""
        enough = SHARES[self.workload.mode == INFER, self.threads == 1]
        return self.ratio is not None and (self.ratio <= self.workload.reach or (self.share or 0) >= enough)


def markdown(rows: Sequence[Row], engines: Sequence[str], head: str) -> str:
    parts = [head]
    for threads in dict.fromkeys(row.threads for row in rows):
        some = [row for row in rows if row.threads == threads]
        parts += [f"### {threads} thread{'s' * (threads > 1)}", _times(some, engines), _costs(some, engines),
                  _memory(some)]
    return "\n\n".join(filter(None, [*parts, _errors(rows)])) + "\n"


def summary(rows: Sequence[Row]) -> str:
    """The short table: medians of graphc and of the best peer."""
    yes = {True: "yes", False: "**no**"}
    lines = []
    for row in rows:
        if row.ratio is not None:
            peer = f"{seconds_text(row.figures[row.best_peer].median)} {TITLES[row.best_peer]}"
            wanted = ("–", "–") if row.workload.drawn else (row.workload.reach, yes[row.is_reached])
            lines.append([row.workload.name, row.threads, seconds_text(row.mine.median), peer,
                          f"{_ratio(row.ratio)} ({_ratio(row.best_ratio)})",
                          share_text(row), *wanted])
    return _table(["workload", "threads", "graphc", "best peer", "ratio (of best times)",
                   "share of the limit (of best times)", "reach", "reached"], lines)


def _times(rows: Sequence[Row], engines: Sequence[str]) -> str:
    """Medians (bests), ratios, limits."""
    yes = {True: "yes", False: "**no**"}
    names = ["workload", *(TITLES[e] for e in engines), "limit", "graphc / best peer (bests)", "reach",
             "share of the limit (bests)", "reached"]
    lines = []
    for row in rows:
        cells = [_time(f) for f in (*(row.figures[e] for e in engines), row.limit)]
        finding = _finding(row, rows)
        lines.append([row.workload.name, *cells, f"{_ratio(row.ratio)} ({_ratio(row.best_ratio)}){finding}",
                      "–" if row.workload.drawn else row.workload.reach,
                      share_text(row), "–" if row.workload.drawn else yes[row.is_reached]])
    return "Median time of a call (best):\n\n" + _table(names, lines)


def _finding(row: Row, rows: Sequence[Row]) -> str:
    """A mark when a drawn shape does worse than its neighbour."""
    other = next((r for r in rows if r.workload.name == row.workload.neighbour), None)
    if not other or row.ratio is None or other.ratio is None:
        return ""
    more = row.ratio / other.ratio
    return f"; {more:.2f} of its neighbour's{' **!**' if more > FINDING else ''}"


def _costs(rows: Sequence[Row], engines: Sequence[str]) -> str:
    names = ["workload", *(TITLES[e] for e in engines)]
    lines = [[row.workload.name, *(_cost(row.figures[e]) for e in engines)] for row in rows]
    title = ("Building, compiling and the first call, in seconds; peak memory of the process beyond the imported "
             "library and the weights, in MB:")
    return f"{title}\n\n{_table(names, lines)}"


def _memory(rows: Sequence[Row]) -> str:
    """Growth of the process between the end of compiling and the third step, where the plan is large."""
    large = [row for row in rows if row.mine and row.mine.plan > LARGE_PLAN]
    lines = []
    for row in large:
        mine, torch = row.mine, row.figures.get("torch", Figures())
        lines.append([row.workload.name, _mb(mine.plan), _mb(mine.planned), _mb(mine.growth),
                      f"{100 * abs(mine.growth - mine.planned) / mine.plan:.1f} %",
                      _mb(torch.growth) if torch.times else "–", f"{mine.growth / torch.growth:.2f}" if torch.times
                      and torch.growth else "–"])
    names = ["workload", "graphc's plan, MB", "of it after compiling", "growth, MB", "difference, of the plan",
             "PyTorch's growth, MB", "graphc / PyTorch"]
    return ("Memory between the end of compiling and the third call, of plans over 100 MB:\n\n" + _table(names, lines)
            if lines else "")


def _errors(rows: Sequence[Row]) -> str:
    lines = [f"- {row.workload.name}, {row.threads} threads, {TITLES[e]}: {f.error}" for row in rows
             for e, f in row.figures.items()
             if f.error and f.error not in (INFERENCE_ONLY, TIME_IS_UP)]
    return "### Failures\n\n" + ("\n".join(lines) or "none")


def _table(names: Sequence[str], lines: Sequence[Sequence]) -> str:
    texts = [names, ["---"] * len(names), *lines]
    return "\n".join("| " + " | ".join(map(str, cells)) + " |" for cells in texts)


def _time(figures: Figures) -> str:
    if figures.times:
        return f"{seconds_text(figures.median)} ({seconds_text(figures.best)})"
    return "" if figures.error in ("",
                                   INFERENCE_ONLY) else "not run" if figures.error.startswith("not run") else "failed"


def _cost(figures: Figures) -> str:
    return f"{figures.build + figures.first:.2g} s, {_mb(figures.peak)}" if figures.times else ""


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def share_text(row: Row) -> str:
    """Of the limit, of medians and of best times: "71 % (75 %)"."""
    return "–" if row.share is None else f"{100 * row.share:.0f} % ({100 * row.best_share:.0f} %)"


def _mb(nbytes: float) -> str:
    return f"{nbytes / 1e6:.0f}"


def seconds_text(seconds: float) -> str:
    """0.00123 -> "1.23 ms"."""
    unit, scale = ("µs", 1e6) if seconds < 1e-3 else ("ms", 1e3) if seconds < 1 else ("s", 1)
    return f"{float(f'{seconds * scale:.3g}'):g} {unit}"


def chart(rows: Sequence[Row], path: Path) -> None:
    """Time of the best peer / time of graphc as bars, every peer as a mark: one group of bars for each number of
    threads.
    """
    threads = list(dict.fromkeys(row.threads for row in rows))
    shown = [row for row in rows if row.ratio is not None]
    names = list(dict.fromkeys(row.workload.name for row in shown))
    figure, axes = pyplot.subplots(figsize=(9, 1.2 + 0.3 * len(names) * max(1, len(threads))))
    for row, at in _places(shown, names, threads):
        axes.barh(at, 1 / row.ratio - 1, 0.8 / len(threads), left=1, color="#2ca02c" if row.ratio <= 1 else "#bbbbbb",
                  alpha=1 if row.threads > 1 else 0.6)
        for engine, figures in row.figures.items():
            if engine in COLORS and figures.times:
                axes.plot(figures.median / row.mine.median, at, "o", color=COLORS[engine], markersize=3.5)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x", linewidth=0.3)
    axes.set_xscale("log")
    axes.set_xlim(left=0.8 * min([1.0, *(1 / row.ratio for row in shown)]))
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("time of a peer / time of graphc; bars: the best peer"
                    + (f" ({' and '.join(map(str, threads))} threads, in this order)" * (len(threads) > 1)))
    axes.legend(handles=[axes.plot([], [], "o", color=c, label=TITLES[e])[0] for e, c in COLORS.items()], fontsize=7,
                loc="lower right")
    figure.tight_layout()
    with replacing(path) as file:
        figure.savefig(file, format=path.suffix[1:], metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def _places(rows: Sequence[Row], names: Sequence[str], threads: Sequence[int]) -> Iterator[tuple[Row, float]]:
    for row in rows:
        yield row, names.index(row.workload.name) + 0.8 * (threads.index(row.threads) + 0.5) / len(threads) - 0.4
