"""python train.py THREADS STEPS NETWORK…: trains each network by calls, by a batch of rank 0, and by fit; each rank
prints a line of digests."""
from __future__ import annotations

import json
import sys

import numpy as np
from networks import NETWORKS, ROWS, data, digest

import graphc as gc

SHARDS = 8


def trained(name, threads, steps):
    """Digests of the state and of what was reported, and the bytes that a step has sent."""
    step, (x, y) = NETWORKS[name](shards=SHARDS, threads=threads), data(name)
    if "alone" not in sys.argv:
        gc.distributed(step)
    rows, reported = step.part(ROWS), []
    for number in range(steps):
        start = number % 3 * ROWS
        part = slice(start + rows.start, start + rows.stop)
        value = step(x[part], y[part])
        reported += value.values() if isinstance(value, dict) else [value]
    found = [digest(step, *reported)]
    step.scatter(*((x[:ROWS], y[:ROWS]) if step.ranks.rank == 0 else ()))
    found.append(digest(step))
    history = step.fit(x[:ROWS * 2 + 5], y[:ROWS * 2 + 5], epochs=2, batch=ROWS, validation=(x, y),
                       **({"class_weight": "balanced"} if name == "cnn" else {}))
    found.append(digest(step, history["loss"], history["val_loss"]))
    for batch in gc.batches(x, y, size=ROWS, seed=1, step=step):
        step(*batch)
    return [*found, digest(step)]


threads, steps = map(int, sys.argv[1:3])
lines = {name: trained(name, threads, steps) for name in sys.argv[3:] if name in NETWORKS}
print(json.dumps(lines, default=np.ndarray.tolist) + "\n", end="", flush=True)
