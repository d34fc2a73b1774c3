"""The sweep: problems come from the seed alone and keep to their bounds, every family runs, and the report says what
fell off.
"""
import argparse
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import operators_graphc, sweep, sweep_compile
from benchmarks.engines import graphc_engine
from benchmarks.operators import FAMILIES, LARGEST_BYTES, Draw
from benchmarks.contest import Figures
from benchmarks.sweep import Progress, is_settled, swept
from benchmarks.sweep_check import difference, fault, other_draws, small
from benchmarks.sweep_problems import is_valid, named, neighbour, problems, takes, words, workload
from benchmarks.sweep_report import Row, load, report
from benchmarks.workloads import GRADIENTS

KINDS = [(name, mode) for name, family in FAMILIES.items() for mode in family.modes]


def drawn(name: str, seed: int = 0):
    return FAMILIES[name].draw(Draw(np.random.default_rng(seed)))


def test_problems_depend_on_the_seed_alone():
    first, again, other = ([p.name for p, _ in problems(FAMILIES, seed, 2)] for seed in (5, 5, 6))
    assert first == again != other
    only = {"op.sort": FAMILIES["op.sort"]}
    assert [p.name for p, _ in problems(only, 5, 2)] == [name for name in first if name.startswith("op.sort")]


def test_each_round_has_all_families_and_modes_in_an_order_of_its_own():
    """So that a run that is stopped has a fair sample."""
    order = [(p.network, p.mode) for p, _ in problems(FAMILIES, 5, 2)]
    first, second = order[:len(KINDS)], order[len(KINDS):]
    assert sorted(first) == sorted(second) == sorted(KINDS) and first != second


@pytest.mark.parametrize("name", FAMILIES)
def test_problems_are_no_larger_than_they_may_be(name):
    for seed in range(200):
        options = drawn(name, seed)
        inputs, result = FAMILIES[name].workload_arrays(1, **options)
        assert all(a.shape and min(a.shape) >= 1 for a in inputs)
        assert max(4 * np.prod(a.shape) for a in (*inputs, result)) <= 5 * LARGEST_BYTES
        assert is_valid(name, options) or name == "op.elementwise"


@pytest.mark.parametrize("name", FAMILIES)
def test_a_neighbour_has_one_size_more(name):
    for seed in range(30):
        options = drawn(name, seed)
        other = neighbour(name, "infer", options, np.random.default_rng(seed))
        if other is not None:
            assert sum(int(np.sum(other.options[k])) - int(np.sum(v)) for k, v in options.items()
                       if isinstance(v, int) or k in ("shape", "size")) == 1


@pytest.mark.parametrize("name, mode", KINDS)
def test_a_problem_is_found_again_by_its_line(name, mode):
    for seed in range(20):
        problem = workload(name, mode, drawn(name, seed))
        row = Row(name, mode, words(problem.options), 3, 1e-3, 2.0, 2.0, "torch", step=3.0, neighbour="axis=4")
        for line in f"- {row}", f"1.0 -> 2.0  {row.key}", f"{name} {mode} t3 {row.options}":
            assert named(line) == (problem, 3)
        assert named(f"{name} {mode} {row.options}") == (problem, None)


@pytest.mark.parametrize("line, word", [("op.convolution infer batch=1", "op.conv, op.pool"), ("op.sort train op=sort", "MODE"),
                                        ("op.sort infer op=sort shape=(2, 3) axis=0", "op, shape, axis, k"),
                                        ("op.random infer op=normal shape=(3,) seed=1", "takes op, shape"),
                                        ("op.update infer sgd", "takes op, sizes")])
def test_a_line_that_is_no_problem_is_told(line, word):
    with pytest.raises(argparse.ArgumentTypeError, match=word):
        named(line)


@pytest.mark.parametrize("name, mode", KINDS)
def test_every_family_gives_what_it_declares(name, mode):
    small = min((drawn(name, seed) for seed in range(40)), key=lambda o: elements(name, o))
    problem = workload(name, mode, small)
    case = SimpleNamespace(workload=problem, threads=1, batches=problem.batches()[:1])
    runner = graphc_engine.Graphc(case)
    first, *slopes = runner.arrays(runner.run(*case.batches[0]))
    inputs, result = FAMILIES[name].workload_arrays(1, **small)
    assert first.shape == result.shape and np.isfinite(first).all()
    if mode == GRADIENTS:
        assert [s.shape for s in slopes] == [a.shape for a in inputs if not a.below]


def elements(name: str, options) -> int:
    return sum(int(np.prod(a.shape)) for a in FAMILIES[name].workload_arrays(1, **options)[0])


def test_every_family_is_in_graphc():
    assert operators_graphc.OPERATORS.keys() == FAMILIES.keys()


@pytest.mark.peers
@pytest.mark.parametrize("name, mode", KINDS)
def test_pytorch_gives_the_same(name, mode):
    pytest.importorskip("torch")
    for number in range(6):
        assert fault(small(name, mode, 0, number)) == ""


@pytest.mark.peers
@pytest.mark.parametrize("where, found", [((0, 1), "result 0: 1 of"), ((1, 1), "result 1: 1 of"), ((0, 2), "other bits on two")])
def test_a_planted_fault_is_found(monkeypatch, where, found):
    """In one element of a result, or of what one number of threads gives."""
    pytest.importorskip("torch")
    result, calls = where
    whole, made = graphc_engine.Graphc.arrays, []

    def arrays(self, given):
        made.append(self)
        changed = [np.array(a) for a in whole(self, given)]
        if len(made) >= calls:
            changed[result].flat[-1] += 1e-3 * np.abs(changed[result]).max()
        return tuple(changed)
    problem = small("op.softmax", "gradients", 0, 1)
    assert fault(problem) == ""
    monkeypatch.setattr(graphc_engine.Graphc, "arrays", arrays)
    assert found in fault(problem)


def test_other_draws_are_told():
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=1000)
    assert other_draws(rng.normal(size=1000), drawn) == ""
    assert all("draws of mean" in other_draws(wrong, drawn) for wrong in (drawn + 0.5, drawn * 2, drawn * 0, drawn * np.nan))


def test_differences_beyond_rounding_are_told_by_element():
    """However small beside the largest; not where a maximum turns, as the peer's does; NaN and infinity are numbers of
    their own."""
    exact = np.array([1e9, 1e-3, 2e-3, 0.0, np.inf, np.nan])
    rounded = exact * (1 + 1e-6)
    assert difference(rounded, rounded, exact) == ""
    for at, value in (1, 1.1e-3), (3, 1.0), (4, 1e30), (5, 0.0), (0, np.nan), (2, -np.inf):
        wrong = rounded.copy()
        wrong[at] = value
        assert f"1 of 6 elements, the first at ({at},)" in difference(wrong, rounded, exact)
        assert difference(wrong, wrong, exact) == ""
    assert "3 elements where" in difference(exact[:3], rounded, exact)


ROWS = [Row("op.sort", "infer", "k=5", 1, 1e-3, 4.0, 3.5, "torch", 0.1),
        Row("op.sort", "infer", "k=6", 1, 1e-3, 0.5, 0.5, "torch", 0.2, 3.0, neighbour="k=7"),
        Row("op.conv", "infer", "k=7", 1, error="graphc: no")]


def test_a_report_has_distribution_worst_neighbours_errors_and_changes():
    before = {ROWS[0].key: replace(ROWS[0], ratio=1.0), ROWS[1].key: ROWS[1]}
    text = report(ROWS, before)
    assert "| op.sort infer | 2 | 1.41 | 4.00 | 4.00 | 4.00 | 4.00 | 50.0% | 1 | 0 | 0 |" in text
    assert "1 of 2 above 1.3 in both measurements:\n\n- op.sort infer k=5" in text
    assert "1 with a neighbour" in text and "neighbour k=7 3.00" in text
    assert "1 without figures" in text and "graphc: no" in text
    assert "1.00 -> 4.00  op.sort infer k=5 t1" in text and "k=6 t1" not in text.split("Changed")[1]


def test_rows_whose_peer_answers_with_an_alias_are_counted_in_both_ways():
    text = report([replace(ROWS[0], alias=0.5), ROWS[1]], {})
    assert "| all | 2 | 1.41 | 4.00 | 4.00 | 4.00 | 4.00 | 50.0% | 1 | 1 | 1 |" in text
    assert "| all without aliases | 1 | 0.50 | 0.50 | 0.50 | 0.50 | 0.50 | 100.0% | 0 | 0 | 0 |" in text
    assert "50% of it an alias in torch" in text


@pytest.mark.peers
def test_what_pytorch_does_not_write_is_found():
    torch_engine = pytest.importorskip("benchmarks.engines.torch_engine", exc_type=ImportError)
    for shape, op, share in ((8, 5), "sum", 40 / 45), ((8, 5), "max", 0), ((1, 9), "transpose", 1), ((3, 9), "transpose", 0):
        name = "op.move" if op == "transpose" else "op.reduce"
        options = {"axis": 0, "amount": 1} if op == "transpose" else {"axes": (1,)}
        problem = workload(name, "infer" if op == "transpose" else "gradients",
                           {"shape": shape, "op": op, "perm": (1, 0), **options})
        case = SimpleNamespace(workload=problem, threads=1, batches=problem.batches()[:1])
        runner = torch_engine.Eager(case)
        result = runner.run(*runner.batches[0])
        total = sum(a.nbytes for a in runner.arrays(result))
        assert 1 - runner.owned(result, runner.batches[0]) / total == pytest.approx(share)


def test_rows_survive_their_file(tmp_path):
    path = tmp_path / "sweep.jsonl"
    path.write_text("\n".join(sweep.json.dumps(sweep.asdict(r)) for r in ROWS))
    assert {k: str(r) for k, r in load(path).items()} == {r.key: str(r) for r in ROWS}


class Measured:
    """In place of engines: the ratio that each call gives, in turn."""

    def __init__(self, *ratios: float):
        self.ratios, self.asked, self.compiled = list(ratios), [], []

    def row(self, problem) -> Row:
        return Row(problem.network, problem.mode, words(problem.options), 1)

    def compile(self, pairs, end) -> None:
        self.compiled += [problem.name for problem, _ in pairs]

    def __call__(self, problem, stepped) -> Row:
        assert problem.name in self.compiled
        self.asked.append(problem.name)
        return replace(self.row(problem), ratio=self.ratios.pop(0), peer="torch")


def test_what_is_far_off_is_measured_twice_and_counts_only_if_it_is_again():
    todo = list(problems({"op.sort": FAMILIES["op.sort"]}, 1, 2))       # two modes
    measured = Measured(0.5, 1.4, 0.6, 2.0, 1.5, 1.2)
    rows = {row.key: row for row in swept(measured, todo, {}, Progress(0))}
    assert measured.asked == [p.name for p, _ in [*todo, todo[3], todo[1]]]
    assert [(r.ratio, r.again) for r in rows.values() if r.ratio > 1.3] == [(1.4, 1.2), (2.0, 1.5)]
    text = report(list(rows.values()), {})
    assert "50.0% | 1 | 0 | 0 |\n" in text and "1 of 4 above 1.3" in text and "of torch and 1.50" not in text


def test_a_resumed_run_measures_what_is_missing():
    todo = list(problems({"op.sort": FAMILIES["op.sort"]}, 1, 2))
    known = {row.key: row for row in swept(Measured(0.5, 1.4, 0.9), todo[:2], {}, Progress(0))}
    measured = Measured(0.6, 0.7)
    rows = list(swept(measured, todo, known, Progress(0)))
    assert measured.asked == measured.compiled == [p.name for p, _ in todo[2:]] and [r.ratio for r in rows] == [0.5, 1.4, 0.6, 0.7]


def test_a_run_whose_time_is_up_measures_nothing_more():
    progress = Progress(1e-9)
    assert not list(swept(Measured(), list(problems(FAMILIES, 1, 1)), {}, progress))


@pytest.mark.parametrize("mine, settled", [((0.3, 0.31, 0.32), True), ((0.58, 0.6, 0.62), False),
                                           ((0.7, 0.72, 0.75), True), ((0.9, 0.95, 1.02), False), ((3.0, 3.1), True)])
def test_turns_end_when_the_ratio_is_clear(mine, settled):
    assert is_settled({"graphc": Figures(mine), "torch": Figures((1.0, 1.01)), "jax": Figures((9.0,))}) == settled


def test_torch_compile_takes_its_share_of_what_is_no_loop():
    drawn = [p for p, _ in problems(FAMILIES, 3, 20)]
    taken = [p for p in drawn if takes("inductor", p, 0.25)]
    assert 0.15 < len(taken) / len(drawn) < 0.35 and not any(FAMILIES[p.network].loops for p in taken)
    assert [p.name for p in taken] == [p.name for p in drawn if takes("inductor", p, 0.25)]
    assert not any(takes("inductor", p, 0.0) for p in drawn)
    assert all(takes("jax", p, 0.0) == (p.network == "op.scan") for p in drawn)


def test_what_a_worker_compiles_is_on_disk(tmp_path):
    """And what does not compile fails where it is measured, not here."""
    compiler = sweep_compile.Compiler(tmp_path, 1)
    try:
        problem = workload("op.reduce", "infer", {"shape": (4, 4), "perm": (0, 1), "axes": (0,), "op": "sum"})
        wrong = workload("op.reduce", "infer", {"shape": (4, 4), "perm": (0, 1), "axes": (7,), "op": "sum"})
        compiler([problem, wrong], {"no_such": [problem]})
        assert compiler.work(problem).bytes == 4 * (16 + 4) and set(compiler.works) == {problem.name}
        assert list((tmp_path / "graphc").rglob("?" * 64))
    finally:
        compiler.end()


def test_a_drawn_operator_of_many_bytes_has_fewer_batches():
    small, large = (workload("op.reduce", "infer", {"shape": (n, 1 << 20), "perm": (0, 1), "axes": (0,), "op": "sum"})
                    for n in (1, 5))
    assert (len(small.batches()), len(large.batches())) == (4, 1)
