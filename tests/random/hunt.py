"""Many random programs, and what is said of those that fail."""
from __future__ import annotations

import signal
import time
from collections import Counter

from graphc.ir.printer import print_graph
from tests.random.check import Outcome
from tests.random.generator import program
from tests.random.known import known
from tests.random.shrink import shrunk
from tests.random.workers import run_all


def hunt(seed: int, jobs: int, seconds: float, first: int = 0, shrinking: float = 30) -> int:
    """Runs programs for so many seconds; prints findings and counts."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)           # so that whoever ends it is told what was run
    start, counts, seen, texts = time.monotonic(), Counter(), Counter(), Counter()
    try:
        for index, found in run_all(seed, jobs, lambda: time.monotonic() - start > seconds, first):
            counts[found.kind] += 1
            if found.kind == "refused":
                texts[found.where[:100]] += 1
            if found.kind in ("wrong", "crashed"):
                name = known(found, text_of(seed, index))
                counts["known"] += bool(name)
                what = name or f"{found.kind}: {found.where}"
                seen[what] += 1
                if not name and (seen[what] == 1 or found.kind == "wrong"):
                    print(report(seed, index, found, shrinking), flush=True)
    except KeyboardInterrupt:           # enough: the counts so far
        pass
    minutes, total = (time.monotonic() - start) / 60, sum(n for kind, n in counts.items() if kind != "known")
    for what, n in [*seen.most_common(), *((f"refused: {t}", n) for t, n in texts.most_common(10))]:
        print(f"{n:6} {what}")
    print(f"seed {seed}: {total} programs in {minutes:.1f} minutes, {counts['wrong']} wrong, {counts['crashed']} "
          "crashed "
          f"(of these {counts['known']} known), {counts['refused']} refused, {counts['unbounded']} unbounded")
    return int(counts["wrong"] + counts["crashed"] > counts["known"])


def text_of(seed: int, index: int) -> str:
    """The graph of a program, or why there is none."""
    try:
        return print_graph(program(seed, index).graph)
    except Exception as error:          # what failed was to make it
        return f"no graph: {type(error).__name__}: {error}"


def report(seed: int, index: int, found: Outcome, seconds: float) -> str:
    """A finding as text that reproduces it: the number of the program, and a graph that fails by itself where one is
    found in so many seconds."""
    head, text = f"\n=== seed {seed} program {index}: {found.kind}: {found.where}\n{found.text}", text_of(seed, index)
    if found.kind not in ("wrong", "crashed") or not seconds or text.startswith("no graph"):
        return f"{head}\n{text}"
    p = program(seed, index)
    graph, last = shrunk(p.graph, found, p.special, p.target, p.quick, seconds)
    how = ", ".join([p.mode, *["--quick"] * p.quick, *["NaN and infinity in inputs"] * p.special,
                     *[f"GRAPHC_TARGET={p.target}"] * bool(p.target)])
    return f"{head}\nsmaller ({how}): {last.text}\n{print_graph(graph)}"
