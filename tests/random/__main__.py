"""`python -m tests.random --minutes M [--seed N] [--jobs J]`: as many random programs as that time allows, against
the oracle.

Findings are printed as they come: the number of the program, what was wrong, and its graph made smaller; of several
that end in the same place the first. The last line counts. The exit status is 1 if anything was wrong or crashed.
`--only I` runs one program of a seed and prints it;
`--text FILE` a graph that was printed.
"""
from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("GRAPHC_CACHE", "off")        # before graphc is imported: every program is another one

import graphc as gc
from tests.random.check import outcome
from tests.random.hunt import hunt, report
from tests.random.shrink import failing
from tests.random.workers import in_child


def main() -> int:
    options = _options()
    if options.text:
        found = failing(gc.parse(Path(options.text).read_text()), options.seed, options.special,
                        os.environ.get("GRAPHC_TARGET", ""), options.quick)
        print(found.kind, found.text)
        return found.kind in ("wrong", "crashed")
    if options.only is not None:
        print(report(options.seed, options.only, in_child(lambda: outcome(options.seed, options.only)), options.shrink))
        return 0
    return hunt(options.seed, options.jobs, options.minutes * 60, options.first, options.shrink)


def _options():
    parser = argparse.ArgumentParser(prog="python -m tests.random", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--first", type=int, default=0, help="number of the first program")
    parser.add_argument("--only", type=int, help="run this program alone and print it")
    parser.add_argument("--text", help="run the graph in this file")
    parser.add_argument("--special", action="store_true", help="with --text: NaN and infinity in inputs")
    parser.add_argument("--quick", action="store_true", help="with --text: LLVM's back end at its lowest level")
    parser.add_argument("--shrink", type=float, default=30, help="seconds to make a finding smaller; 0: as it is")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
