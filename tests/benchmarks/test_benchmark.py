"""The benchmark of whole networks: limits, drawn shapes, what a report says, and that engines which cannot run are reported."""
import json
import os
import signal
from dataclasses import asdict, replace

import numpy as np
import pytest

from benchmarks import contest
from benchmarks.contest import EngineError, Figures
from benchmarks.limit import Limit, Machine, Work, limit
from benchmarks.networks import NETWORKS
from benchmarks.report import Row, chart, markdown
from benchmarks.workloads import BY_NAME, GRADIENTS, INFER, TRAIN, WORKLOADS, Workload, drawn, quick

TINY = Workload("mlp", 2, TRAIN, 0.5, {"sizes": (8, 10, 7, 3)}, "tiny")


def test_every_workload_has_a_network_and_one_name():
    assert {w.network for w in WORKLOADS} == NETWORKS.keys()
    assert len(BY_NAME) == len(WORKLOADS)
    assert len(WORKLOADS) >= 30
    assert {w.name for w in quick(WORKLOADS)} < BY_NAME.keys()


def test_batches_are_different_and_the_same_in_every_process():
    first, again = TINY.batches(), TINY.batches()
    np.testing.assert_array_equal(first[1][0], again[1][0])
    assert not np.array_equal(first[0][0], first[1][0])
    assert first[0][0].shape == (2, 8) and first[0][1].dtype == np.int32 and first[0][1].max() < 3


def test_drawn_shapes_depend_on_the_seed_alone():
    assert drawn(3) == drawn(3) != drawn(4)
    assert all(w.drawn and w.neighbour in BY_NAME for w in drawn(3))
    assert {w.network for w in drawn(3)} == NETWORKS.keys()


def test_limit_counts_products_forward_and_backward_without_the_first_input_gradient():
    forward = [2 * 2 * a * b for a, b in ((8, 10), (10, 7), (7, 3))]
    assert limit(Workload("mlp", 2, INFER, 1, TINY.options)).flops == sum(forward)
    assert limit(TINY).flops == 3 * sum(forward) - forward[0]


def test_limit_of_convolutions_loops_and_attention():
    lenet = limit(Workload("lenet", 4, INFER, 1)).flops
    assert lenet == 4 * 2 * (784 * 32 * 9 + 784 * 64 * 32 * 9 + 64 * 196 * 128 + 128 * 10)
    options = {"hidden": 16, "layers": 1, "length": 5, "vocabulary": 7}
    assert limit(Workload("lstm", 3, INFER, 1, options)).flops == 5 * 3 * 2 * (256 * 64 + 16 * 64 + 16 * 7)
    attention = {"heads": 2, "size": 16, "length": 32}
    both = [limit(Workload("attention", 1, mode, 1, attention)).flops for mode in (INFER, GRADIENTS)]
    assert both[1] == 3.5 * both[0]


def test_limit_is_the_slower_of_arithmetic_and_memory():
    assert Limit((Work(2e11, 1e9), Work(1e9, 3e10)), 0).seconds(100.0, 10.0) == pytest.approx(2 + 3)


def test_the_limit_is_measured_again_and_again():
    found = Machine(1).times(Limit((Work(1e9, 1e6), Work(1e6, 1e9)), 1 << 20), 1.0)
    assert len(found) > 1 and all(1e-3 < seconds < 10 for seconds in found)


def rows(ratio: float = 0.5) -> list[Row]:
    figures = {"graphc": Figures((ratio, ratio, 9.0)), "torch": Figures((1.0, 1.5, 1.0)), "jax": Figures((2.0,)), "onnx": Figures(error="no such operator")}
    base = Row(BY_NAME["resnet18 b16 train"], 4, figures, Figures((0.1,)))
    strange = next(w for w in drawn(0) if w.neighbour == base.workload.name)
    return [base, Row(strange, 4, {**figures, "graphc": Figures((0.9,))}, Figures((0.1,)))]


def test_ratio_is_that_to_the_fastest_peer():
    row = rows(0.5)[0]
    assert (row.best_peer, row.ratio, row.best_ratio, row.share) == ("torch", 0.5, 0.5, pytest.approx(0.2))
    assert row.is_reached and not rows(0.7)[0].is_reached
    assert Row(row.workload, 4, rows(0.7)[0].figures, Figures((0.5,))).is_reached       # 71 % of the limit


def test_report_names_failures_and_findings(tmp_path):
    text = markdown(rows(), ["graphc", "torch", "jax", "onnx"], "head")
    assert "| resnet18 b16 train | 500 ms (500 ms) |" in text and "0.50 (0.50) | 0.6 | 20 % (20 %) | yes |" in text
    assert "1.80 of its neighbour's **!**" in text
    assert "- resnet18 b16 train, 4 threads, ONNX Runtime: no such operator" in text
    chart(rows(), tmp_path / "chart.svg")
    assert "resnet18 b16 train" in (tmp_path / "chart.svg").read_text()


def test_a_row_without_graphc_is_not_reached():
    row = Row(BY_NAME["alexnet b1 infer"], 1, {"graphc": Figures(error="died"), "torch": Figures((1.0,))}, Figures((1.0,)))
    assert row.ratio is None and not row.is_reached
    assert "alexnet b1 infer, 1 threads, graphc: died" in markdown([row], ["graphc", "torch"], "")


@pytest.mark.parametrize("mine, told", [([1.0, 2.0], ""), ([1.0, 2.1], "result 0.0 differs from torch's by 1.0e-01"), ([1.0, np.nan], "differs"), ([1.0], "1 elements")])
def test_numbers_that_differ_are_told(mine, told):
    message = contest._difference(Workload("mlp", 1, INFER, 1, TINY.options), {"0.0": np.array(mine)}, {"0.0": np.array([1.0, 2.0])}, "torch")
    assert message.startswith(told) if told.startswith("result") else told in message and bool(told) == bool(message)


@pytest.mark.parametrize("mine, agrees", [([np.inf, np.nan, 2.0], True), ([np.inf, np.nan, 2.1], False), ([-np.inf, np.nan, 2.0], False), ([3.0, np.nan, 2.0], False), ([np.inf, 1.0, 2.0], False)])
def test_infinities_and_what_is_no_number_agree_with_themselves(mine, agrees):
    message = contest._difference(Workload("mlp", 1, INFER, 1, TINY.options), {"0.0": np.array(mine)}, {"0.0": np.array([np.inf, np.nan, 2.0])}, "torch")
    assert (not message) == agrees


@pytest.mark.parametrize("last, agrees", [(0.9, True), (0.89, False), (1.0, False)])
def test_losses_must_fall_as_the_oracles_do(last, agrees):
    losses = lambda *values: {f"{i}.0": np.array([v]) for i, v in enumerate(values)}
    message = contest._difference(TINY, losses(1.0, 0.95, last), losses(1.0, 0.95, 0.9), "torch")
    assert (not message) == agrees


def test_an_engine_that_cannot_be_imported_says_so(tmp_path):
    with open(tmp_path / "log", "ab") as log, pytest.raises(EngineError, match="cannot be imported: ModuleNotFoundError"):
        contest.Host.start("no_such", log)


@pytest.mark.slow
@pytest.mark.peers
def test_engines_in_turns(tmp_path):
    pytest.importorskip("torch")
    with contest.contest(["graphc", "torch", "no_such"], 1, tmp_path, seconds=0.5, turns=3) as run:
        for mode in (INFER, TRAIN):
            figures = run.run(replace(TINY, mode=mode), limit=lambda seconds: [seconds])
            assert set(figures.pop(contest.LIMIT).times) == {contest.LIMIT_SECONDS}
            assert not figures["graphc"].error and not figures["torch"].error
            assert "cannot be imported" in figures["no_such"].error
            assert 0 < figures["graphc"].best <= figures["graphc"].median < figures["torch"].median
            json.dumps(figures["graphc"].__dict__)
        host = run.hosts["graphc"]
        host.open({"workload": asdict(TINY), "folder": str(tmp_path), "threads": 1, "results": str(tmp_path / "graphc.results")})
        os.kill(host.child, signal.SIGKILL)
        with pytest.raises(EngineError, match="status -9"):
            host.turn(0.1)
        host.process.stdin.write(b'turn": 0.1}\n')        # what a child leaves that is killed while it reads
        assert run.run(TINY)["graphc"].times        # the next workload has a process of its own
