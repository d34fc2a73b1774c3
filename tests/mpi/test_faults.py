"""What ranks are told that cannot go on together, and that no job hangs."""
from __future__ import annotations

import time

import pytest

NAMED = "rank 1 of 2 differs from rank 0 in"


def told(done, ranks=2):
    """What each rank has printed."""
    assert done.returncode == 0, done.stderr[-2000:]
    texts = dict(line.split(": ", 1) for line in done.stdout.splitlines() if line[:1].isdigit())
    assert len(texts) == ranks, done.stdout
    return [texts[str(rank)] for rank in range(ranks)]


@pytest.mark.parametrize("what, words", [
    ("graph", f"{NAMED} the graph of the gradients, first where it says 'graph shard_function(x: i32[4, 8]"),
    ("shards", f"{NAMED} shards: 8 and 4"),
    ("indivisible", "3 shards cannot be divided among 2 ranks: 1 can share them"),
    ("state", f"{NAMED} the values of 0.weight: give all the same seed="),
])
def test_ranks_that_differ_do_not_begin(job, what, words):
    for text in told(job(2, "faults.py", what)):
        assert words in text


@pytest.mark.parametrize("what, here, there", [
    ("index", "rank 1 of 2 failed: GraphError: cross_entropy got label 99", "cross_entropy got label 99"),
    ("rows", "rank 1 of 2 failed: GraphError: argument 'x'", "must have shape [8, 1, 8, 8], got [3, 1, 8, 8]"),
    ("calls", "rank 0 of 2 came to a step, and rank 1 to something else", "rank 1 of 2 came to step.save"),
    ("written", "the state was written 2 times on rank 1, and 1 times on rank 0", "the state was written 2 times on rank 1"),
    ("file", "there is no checkpoint /nowhere", "rank 0 of 2 failed: GraphError: there is no checkpoint /nowhere"),
])
def test_all_ranks_are_told_of_a_mistake(job, what, here, there):
    """And the state is as before, and the job can go on where it makes sense."""
    first, second = told(job(2, "faults.py", what, "nowhere.safetensors"))
    assert here in first and there in second


@pytest.mark.parametrize("what, words", [
    ("leaves", "graphc: rank 1 of 2 has ended its program while rank 0 waits for it"),
    ("silent", "graphc: rank 1 of 2 has said nothing for 3 seconds: it is dead, or cut off"),
    ("killed", "graphc: rank 1 of 2 (process "),
])
def test_a_rank_that_goes_ends_the_others(job, what, words):
    start = time.monotonic()
    done = job(2, "faults.py", what, TIMEOUT=3)
    assert done.returncode != 0 and time.monotonic() - start < 30
    assert words in done.stderr and done.stderr.count("graphc: rank") == 1, done.stderr
