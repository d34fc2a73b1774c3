"""python restart.py FOLDER STEPS: trains with checkpoints every seventh step, from the last one if there is one. With
KILLED=n rank 2 dies after n steps."""
from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from networks import ROWS, cnn, data, digest

import graphc as gc

FOLDER, STEPS, KILLED = Path(sys.argv[1]), int(sys.argv[2]), int(os.environ.get("KILLED", "-1"))
FOLDER.mkdir(exist_ok=True)
step, (x, y) = gc.distributed(cnn(shards=8)), data("cnn", ROWS * 5)
saved = sorted(FOLDER.glob("*.safetensors"))
if saved:
    step.load(saved[-1])


class Killer(gc.callbacks.Callback):
    """Ends rank 2 in the middle of training."""

    def on_batch_end(self, run, loss):
        if len(run.history.losses) == KILLED and step.ranks.rank == 2:
            os.kill(os.getpid(), signal.SIGKILL)


begun = int(step.state["step"])
step.fit(x, y, epochs=STEPS // 5, resume=bool(saved), callbacks=[
    gc.callbacks.Checkpoint(FOLDER / "last.safetensors", every=7), Killer()])
print(json.dumps({"state": digest(step), "begun": begun}) + "\n", end="", flush=True)
