"""What ranks are told that cannot go on together, and that no job hangs."""
from __future__ import annotations

import time

import pytest

NAMED = "rank 1 of 2 differs from rank 0 in"
DIFFERING = {
    "graph": f"{NAMED} the graph of the gradients, first where it says 'graph shard_function(x: i32[4, 8]",
    "shards": f"{NAMED} shards: 8 and 4",
    "few": "shards=1 is too few for 2 ranks: each computes at least one",
    "state": f"{NAMED} the values of 0.weight: give all the same seed=",
    "kind": "gc.distributed takes a training step with shards",
}
MISTAKES = {                        # what rank 0 is told, and rank 1
    "index": ("rank 1 of 2 failed: GraphError: cross_entropy got label 99", "cross_entropy got label 99"),
    "rows": ("rank 1 of 2 failed: GraphError: argument 'x'", "must have shape [8, 1, 8, 8], got [3, 1, 8, 8]"),
    "file": ("there is no checkpoint /nowhere", "rank 0 of 2 failed: GraphError: there is no checkpoint /nowhere"),
    "examples": ("step.fit: rank 1 of 2 has examples 40, and rank 0 48",) * 2,
    "epochs": ("step.fit: rank 1 of 2 has epochs= 1, and rank 0 2",) * 2,
    "batches": ("gc.batches: rank 1 of 2 has seed= 4, and rank 0 3",) * 2,
    "scatter": ("rank 1 of 2 failed: GraphError: step.scatter: the batch is that of rank 0",
                "the other ranks give nothing"),
    "uneven": ("gc.shard_sum takes arrays that have the same shape in all shards",) * 2,
    "calls": ("rank 0 of 2 came to a step, and rank 1 to something else", "rank 1 of 2 came to step.save"),
    "written": ("was written 3 times on rank 1, and 2 times on rank 0", "was written 3 times on rank 1"),
}


ASTRAY = {
    "lengths": ("step.fit: rank 1 of 2 has no more batches after 2 of this epoch, and rank 0 has",) * 2,
    "loader": ("rank 1 of 2 failed: OSError: no disk", "OSError: no disk"),
    "validation": ("step.fit: the validation of rank 1 of 2 gives other numbers than that of rank 0",) * 2,
    "dealt": ("one row for each example, got [4, 2], [3, 1]", "rank 0 of 2 failed: GraphError: step.scatter deals"),
    "objects": ("got an array of Python's objects", "rank 0 of 2 failed: GraphError: step.scatter deals numbers"),
    "forked": ("a process that a rank has forked is no rank",) * 2,
    "values": ("what was written to the state on rank 1 (an array, a hyperparameter) is not what was",) * 2,
    "ended": ("MPI has ended (MPI.Finalize)",) * 2,
    "begun": ("gc.distributed works while MPI does",) * 2,
}


def told(done) -> dict[str, str]:
    """What each rank has printed."""
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)


def test_ranks_that_differ_do_not_begin(job):
    done = job(2, "faults.py", "differing")
    found = told(done)
    assert "graphc: rank 0 of 2 has waited at gc.distributed for 1 seconds, and heard nothing of rank 1: has" in done.stderr
    assert found["apart 0"] == "nothing" and "got Intracomm without ranks" in found["apart 1"]
    wrong = {f"{what} {rank}": found.get(f"{what} {rank}") for what, words in DIFFERING.items() for rank in (0, 1)
             if words not in found.get(f"{what} {rank}", "")}
    assert not wrong


@pytest.mark.parametrize("program, mistakes", [("mistaken", MISTAKES), ("astray", ASTRAY)])
def test_all_ranks_are_told_of_a_mistake(job, program, mistakes):
    found = told(job(2, "faults.py", program))
    wrong = {f"{what} {rank}": found.get(f"{what} {rank}") for what, words in mistakes.items() for rank in (0, 1)
             if words[rank] not in found.get(f"{what} {rank}", "")}
    assert not wrong


def test_a_rank_that_fails_before_it_comes_ends_the_job(job):
    """As the documentation says of programs that mpi4py runs."""
    done = job(2, "faults.py", "early", through=("-m", "mpi4py"))
    assert done.returncode != 0 and "OSError: no disk" in done.stderr


@pytest.mark.parametrize("what, words", [
    ("leaves", "graphc: rank 1 of 2 has ended its program while rank 0 waits for it"),
    ("silent", "graphc: rank 1 of 2 has said nothing for 6 seconds: it is dead, or cut off"),
    ("killed", "graphc: rank 1 of 2 (process "),
    ("interrupted", "graphc: rank 1 of 2 was interrupted while it talked with the others"),
])
def test_a_rank_that_goes_ends_the_others(job, tmp_path, what, words):
    done = job(2, "faults.py", what, tmp_path / "gone")
    assert done.returncode != 0 and time.time() - float((tmp_path / "gone").read_text()) < 30
    assert words in done.stderr and done.stderr.count("graphc: rank") == 1, done.stderr
    assert what != "interrupted" or "again 1: rank 1 of 2 was interrupted" in done.stdout
