"""Every sample of every operator on simulated machines, which takes a minute for each: python tests/targets/all_samples.py
[platform …]."""
from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from machines import MACHINES  # noqa: E402
from test_foreign_operators import NAMES, SAMPLES, as_given, check_on, runs_on  # noqa: E402

TOGETHER = 4                    # operators in one program


def main(platforms: list[str]) -> int:
    failed = 0
    for machine in (MACHINES[name] for name in platforms or MACHINES):
        good = 0
        for k in range(0, len(NAMES), TOGETHER):
            names = NAMES[k:k + TOGETHER]
            samples = [as_given(machine, s) for s in SAMPLES if s.op.name in names and runs_on(machine, s)]
            try:
                check_on(machine, samples)
                good += len(samples)
            except AssertionError as error:
                failed += 1
                print(f"{machine.platform}: {', '.join(names)}: {error}", flush=True)
        print(f"{machine.platform}: {good} samples", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
