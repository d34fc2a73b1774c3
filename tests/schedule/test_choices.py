"""What is chosen for everyday problems on every target, among which candidates, and by which cost. `python -m
tests.schedule.test_choices` writes choices.txt anew: read its difference before it is committed."""
from dataclasses import fields, replace
from pathlib import Path

import pytest

from graphc.schedule.cost import TOLERANCE, Candidate, Ranking, ranked
from graphc.schedule.machine import Machine
from graphc.schedule.target import AVX2, AVX512_AMX, AVX512_BF16, TARGETS
from tests.schedule.problems import forms, schedules

TABLE = Path(__file__).parent / "choices.txt"


def table() -> str:
    return (
        "\n".join(
            f"{target.name:8}{name}: {schedule}" for target in TARGETS.values() for name, schedule in schedules(target)
        )
        + "\n"
    )


def rankings(target) -> list[tuple[str, Ranking]]:
    return [(name, ranking) for name, s in schedules(target) for ranking in s.rankings]


def test_choices_are_those_of_the_table():
    assert table() == TABLE.read_text()


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda t: t.name)
def test_no_candidate_costs_less_than_the_chosen_one_beyond_the_tolerance(target):
    found = rankings(target)
    assert len(found) >= 12
    for name, ranking in found:
        assert ranking.best.total <= TOLERANCE * min(c.total for c in ranking.candidates), name
        assert all(cycles >= 0 for c in ranking.candidates for _, cycles in c.terms), name
        assert [c.total for c in ranking.candidates[1:]] == sorted(c.total for c in ranking.candidates[1:]), name


def test_products_have_five_candidates_whose_terms_sum_to_the_total():
    for name, ranking in rankings(AVX2)[:1]:
        lines = str(ranking).split("\n")
        assert len(lines) == 6, name
        for line, c in zip(lines[1:], ranking.candidates):
            cells = line.split()[:1 + len(c.terms)]
            total, *terms = (0.0 if cell == "-" else float(cell.replace(",", "")) for cell in cells)
            assert abs(total - sum(terms)) <= len(terms) / 2 + 1 and abs(total - c.total) <= 0.5
            assert str(c.schedule) in line


@pytest.mark.parametrize("field", fields(Machine), ids=lambda f: f.name)
def test_every_field_of_the_machine_changes_a_choice_or_a_cost(field):
    """Twice as much, half, or four times."""
    def seen(target):
        costs = [c.terms for _, ranking in (*rankings(target), *forms(target)) for c in ranking.candidates]
        return [str(s) for _, s in schedules(target)], costs

    target = {"matrix": AVX512_AMX, "bf16": AVX512_BF16}.get(field.name.split("_")[0], AVX2)
    machine = target.machine
    value = getattr(machine, field.name)
    others = [
        replace(target, machine=replace(machine, **{field.name: type(value)(value * factor)})) for factor in (2, 0.5, 4)
    ]
    assert any(seen(other) != seen(target) for other in others)


@pytest.mark.parametrize("target", (AVX2, AVX512_AMX), ids=lambda t: t.name)
def test_caches_of_any_size_have_schedules(target):
    """A 64th of each cache, in which not one column of a tile fits, and next to none."""
    machine = target.machine
    for part in (64, 4096):
        caches = {f.name: getattr(machine, f.name) // part for f in fields(Machine) if f.name.endswith(("l1_bytes", "l2_bytes", "l3_bytes"))}
        small = replace(target, machine=replace(machine, **caches))
        assert len(caches) == 3 and all(ranking.best.total > 0 for _, ranking in (*rankings(small), *forms(small)))


def test_the_first_of_equals_is_chosen():
    """Of candidates that the model cannot tell apart; one that costs more than the tolerance is not."""
    def named(**costs: float) -> str:
        return ranked([Candidate(name, None, (("work", cost),)) for name, cost in costs.items()]).best.name
    assert named(a=102, b=100) == "a" and named(a=104, b=100) == "b" and named(a=104, b=101, c=100) == "b"


def test_choices_do_not_know_the_number_of_threads():
    assert "threads" not in {f.name for f in fields(Machine)} and AVX2.machine.planned_cores == 4


if __name__ == "__main__":
    TABLE.write_text(table())
