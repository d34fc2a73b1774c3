"""The bytes of the state do not depend on who computes which shard."""
from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import cache
from itertools import product

import pytest
from mpi.conftest import HERE, launcher

from graphc.shard_tree import crossings, rank_bounds

NAMES = ("cnn", "lstm", "transformer", "synced")


def lines(done: subprocess.CompletedProcess) -> list[dict]:
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@cache
def without_mpi(steps: int) -> dict:
    """One process, one thread."""
    done = subprocess.run([sys.executable, str(HERE / "jobs/train.py"), "1", str(steps), *NAMES, "alone"],
                          capture_output=True, text=True, env=launcher()[1], check=False)
    only, = lines(done)
    return only


@pytest.mark.parametrize("ranks, threads, names", [
    (2, 2, NAMES), (4, 1, ("lstm", "synced")), (3, 1, NAMES), (1, 2, ("cnn",)),
    *(pytest.param(ranks, 1 + ranks % 2, NAMES, marks=pytest.mark.slow) for ranks in (4, 5, 6, 7, 8))])
def test_bytes_do_not_depend_on_ranks_and_threads(job, ranks, threads, names):
    """Digests after calls, a scattered batch, fit with weights, validation and a smaller last batch, and gc.batches."""
    found, alone = lines(job(ranks, "train.py", threads, 4, *names)), without_mpi(4)
    assert len(found) == ranks and all(one == {name: alone[name] for name in names} for one in found)


@pytest.mark.slow
@pytest.mark.parametrize("ranks, threads", product((1, 2, 4, 8), (1, 2)))
def test_bytes_after_fifty_steps(job, ranks, threads):
    assert lines(job(ranks, "train.py", threads, 50, *NAMES)) == [without_mpi(50)] * ranks


@pytest.mark.parametrize("ranks", [3, *(pytest.param(ranks, marks=pytest.mark.slow) for ranks in (4, 5, 6, 7, 8))])
def test_sums_of_any_number_of_ranks_and_shards(job, ranks):
    """Also of blocks of shards that are no subtrees; what a rank sends is about what must be sent, divided among all."""
    found = lines(job(ranks, "sums.py"))
    assert [line["wrong"] for line in found] == [[]] * ranks
    for shards in found[0]["sent"]:
        least = (crossings(rank_bounds(int(shards), ranks)) + ranks - 1) / ranks
        sent = max(line["sent"][shards] for line in found)
        assert sent <= 1.08 * least and (sent <= 2 or least > 2), (shards, sent, least)


def test_a_killed_job_goes_on_with_fewer_ranks(job, tmp_path):
    """Of 50 steps one rank of four does 30; the last checkpoint is of step 28; three ranks and one go on from it."""
    whole, = {line["state"] for line in lines(job(2, "restart.py", tmp_path / "whole", 50))}
    first = job(4, "restart.py", tmp_path / "part", 50, KILLED=30)
    assert first.returncode != 0 and "graphc: rank 2 of 4" in first.stderr
    shutil.copytree(tmp_path / "part", tmp_path / "other")
    for ranks, folder in ((3, "part"), (1, "other")):
        second = lines(job(ranks, "restart.py", tmp_path / folder, 50))
        assert {line["state"] for line in second} == {whole} and {line["begun"] for line in second} == {28}


def test_a_rank_sends_less_than_twice_the_gradients(job):
    found = lines(job(4, "sent.py"))
    assert all(line["gradients"] < line["sent"] < 2 * line["gradients"] for line in found)


def test_the_example(job):
    words = ["digits", "--epochs", 1]
    one, two = (job(ranks, "../../../examples/data_parallel.py", *words) for ranks in (1, 2))
    assert one.returncode == two.returncode == 0, one.stderr + two.stderr
    digests = [done.stdout.split("state ")[1].split(",")[0] for done in (one, two)]
    assert digests[0] == digests[1] and "2 ranks" in two.stdout
