"""A training step as a C library, and a C program that trains with it: handwritten digits from a CSV file, no runtime.
The checkpoint that it writes is loaded here again.

    python examples/c_library.py [--folder digits-c]
"""
from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

import numpy as np

import graphc as gc
from graphc import demo

PROGRAM = Path(__file__).with_suffix(".c")
EPOCHS = 15


def write_csv(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    """A row for each digit: what it is, then its 64 pixels."""
    rows = np.column_stack([y, x.reshape(len(x), -1)])
    np.savetxt(path, rows, fmt=["%d"] + ["%.9g"] * (rows.shape[1] - 1), delimiter=",")


def main(arguments: list[str] | None = None) -> float:
    """The held-out accuracy of what the C program trained, as Python computes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("digits-c"))
    folder = parser.parse_args(arguments).folder
    data = demo.digits()
    step = demo.training_step(EPOCHS, data, seed=0)
    print(gc.export({"step": step, "recognise": gc.compile(step.model, x=gc.f32[1, 1, 8, 8])}, folder, name="digits"))
    write_csv(folder / "train.csv", data.x, data.y)
    write_csv(folder / "held_out.csv", data.x_held_out, data.y_held_out)
    compiled = ["cc", "-std=c99", "-O2", f"-I{folder}", str(PROGRAM), str(folder / "libdigits.a"), "-lm", "-lpthread",
                "-o", str(folder / "train")]
    subprocess.run(compiled, check=True)
    said = subprocess.run(["./train"], cwd=folder, check=True, capture_output=True, text=True).stdout
    print("in C:     ", said.strip())
    step.load(folder / "trained.safetensors")
    found = demo.accuracy(step, data)
    print(f"in Python: {100 * found:.2f} % of {len(data.y_held_out)} held-out digits")
    return found


if __name__ == "__main__":
    main()
