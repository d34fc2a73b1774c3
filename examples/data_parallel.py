"""One training on several processes: the digits network or the character Transformer, whose batches are cut into shards
that the ranks of an MPI job share. The state has the same bytes for any number of ranks; its digest is printed.

    python examples/data_parallel.py digits [--epochs 3] [--shards 8] [--checkpoint FILE]
    mpiexec -n 4 python examples/data_parallel.py digits
    mpiexec -n 2 python examples/data_parallel.py characters --steps 50

With a checkpoint, a job that was killed goes on where it was, on any number of ranks.
"""
from __future__ import annotations

import argparse
import hashlib
import time

from char_transformer import DEFAULTS, network
from language_model import loss
from text import python_topics, random_windows

import graphc as gc
from graphc import demo, nn, optim
from graphc.errors import GraphError
from graphc.train import TrainStep

BATCH = 64


def distributed(step: TrainStep) -> TrainStep:
    """The step, shared by the ranks of the job; alone where there is no MPI."""
    try:
        return gc.distributed(step)
    except GraphError as error:
        if "needs mpi4py" not in error.text:
            raise
        return step


def digits(options: argparse.Namespace) -> TrainStep:
    """`fit` on all ranks: each reads its own rows of every batch."""
    data = demo.digits()
    step = distributed(gc.train_step(demo.network(), loss=nn.cross_entropy, optimizer=optim.AdamW(3e-3, clip_norm=1.0),
                                     x=gc.f32[BATCH, 1, 8, 8], y=gc.i32[BATCH], seed=options.seed,
                                     shards=options.shards))
    keep = [gc.callbacks.Checkpoint(options.checkpoint, every=10)] if options.checkpoint else []
    history = step.fit(data.x, data.y, epochs=options.epochs, callbacks=keep, resume=options.checkpoint or False,
                       validation=(data.x_held_out, data.y_held_out), metrics="accuracy", progress=False)
    if step.ranks.rank == 0:
        print(f"loss {history['loss'][0]:.3f} -> {history['loss'][-1]:.3f}, held-out accuracy "
              f"{100 * history['val_accuracy'][-1]:.2f} %")
    return step


def characters(options: argparse.Namespace) -> TrainStep:
    """A loop of one's own: a rank gives its rows of each batch."""
    text, length = python_topics(options.characters), DEFAULTS.length
    step = distributed(gc.train_step(network(text.count, DEFAULTS), loss=loss, x=gc.i32[BATCH, length],
                                     y=gc.i32[BATCH, length], optimizer=optim.AdamW(4e-3, clip_norm=1.0),
                                     seed=options.seed, shards=options.shards))
    rows, losses = step.part(BATCH), []
    for x, y in random_windows(text.train, BATCH, length, options.steps, options.seed):
        losses.append(step(x[rows], y[rows]))
    if step.ranks.rank == 0:
        print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f} nats per character")
    return step


def main(arguments: list[str] | None = None) -> str:
    """Trains, and gives the digest of the state."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["digits", "characters"])
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=3, help="of digits")
    parser.add_argument("--steps", type=int, default=50, help="of characters")
    parser.add_argument("--characters", type=int, default=None, help="only so many of the text")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", default="", help="of digits: a file that is written, and begun from")
    options, start = parser.parse_args(arguments), time.perf_counter()
    step = {"digits": digits, "characters": characters}[options.what](options)
    arrays = step.state.copy()
    digest = hashlib.sha256(b"".join(arrays[name].tobytes() for name in sorted(arrays))).hexdigest()
    if step.ranks.rank == 0:
        print(f"{options.shards} shards, {step.ranks.count} ranks: state {digest[:16]}, "
              f"{time.perf_counter() - start:.1f} s")
    return digest


if __name__ == "__main__":
    main()
