"""python -m benchmarks NAME [--threads N]"""
from __future__ import annotations

import argparse

from benchmarks import attention, elementwise, examples, matmul, rows, small
from graphc.peak import copy_rate, fma_peak
from graphc.runtime.pool import default_threads


def machine(threads: int) -> None:
    """FMA peak and copy rate."""
    print(f"{threads} threads: {fma_peak(threads):.1f} GF/s f32, copy {copy_rate(threads):.1f} GB/s")


BENCHMARKS = {"machine": machine, "matmul": matmul.main, "elementwise": elementwise.main, "rows": rows.main, "attention": attention.main, "examples": examples.main,
              "call": small.call, "import": small.import_time, "compile": small.compile_time}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=sorted(BENCHMARKS))
    parser.add_argument("--threads", type=int, default=default_threads())
    args = parser.parse_args()
    BENCHMARKS[args.name](args.threads)


if __name__ == "__main__":
    main()
