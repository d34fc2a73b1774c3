"""The public names of torch.nn and torch.optim: each is here, or answered with what to write or why there is none."""
import sys
from pathlib import Path

import pytest
import torch

import graphc as gc
from graphc import nn, optim
from graphc.dsl.other_names import ANSWERS, NOT_HERE, PLACES, answer

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "docs"))
import make_names  # noqa: E402

pytestmark = pytest.mark.peers
HELPERS = {"assert_int_or_pair", "boolean_dispatch", "handle_torch_function", "has_torch_function", "has_torch_function_unary",
           "has_torch_function_variadic"}       # torch's own, public by accident


def public(module, where=None):
    return {n for n, v in vars(module).items() if not n.startswith("_") and callable(v) and n not in HELPERS
            and (where is None or getattr(v, "__module__", "") == where)}


NAMES = {
    "nn": {n for n in public(torch.nn) if n[0].isupper()}, "nn.utils": public(torch.nn.utils),
    "nn.functional": {n for n in dir(torch.nn.functional) if n[0].islower() and callable(getattr(torch.nn.functional, n)) and n not in HELPERS},
    "nn.init": {n for n in public(torch.nn.init) if n.endswith("_")} | {"calculate_gain"},
    "optim": {n for n in public(torch.optim) if n[0].isupper()},
    "optim.lr_scheduler": {n for n in public(torch.optim.lr_scheduler, "torch.optim.lr_scheduler") if n[0].isupper()},
}
# for which there is nothing: what quantised arrays, positions of a pool, sizes drawn at random and the like would need
MOST_WITHOUT = 70


@pytest.mark.parametrize("place", NAMES)
def test_every_name_is_here_or_answered(place):
    here = {"nn": dir(nn), "optim": dir(optim)}.get(place, ())
    unknown = [n for n in sorted(NAMES[place]) if n not in here and answer(place, n.removesuffix("_") if place == "nn.functional" else n) is None]
    assert len(NAMES[place]) > 10 and not unknown


def test_few_have_no_counterpart():
    """Lazy layers and what graphc does by itself apart."""
    without = [f"{place}.{n}" for place in NAMES for n in NAMES[place] if ANSWERS.get(f"{place}.{n}", "").startswith(f"{NOT_HERE}counterpart")]
    assert len(without) < MOST_WITHOUT, without


def test_no_answer_is_stale():
    """A row for a name that is here by now is never read."""
    assert not [key for key in ANSWERS for place, _, n in [key.rpartition(".")] if n in {"nn": dir(nn), "optim": dir(optim), "nn.functional": dir(gc)}.get(place, ())]


def test_the_page_has_every_name():
    listed = set(make_names.names())
    wanted = {f"{place}.{n}" for place in NAMES for n in NAMES[place] if not (place == "nn" and n.startswith(("Lazy", "Uninitialized")))
              and not (place == "nn.functional" and n.endswith("_"))}
    assert wanted <= listed and set(PLACES) >= {n.rpartition(".")[0] for n in listed}
