"""`explain()`: why neighbours are not fused, then among which candidates each kernel's schedule was chosen."""
import pytest

import graphc as gc
from graphc import nn, optim
from graphc.schedule.explain_schedules import HEAD

ROWS = gc.f32[64, 96]


def network():
    return nn.Linear(128) >> gc.relu >> nn.Linear(10)


def trained():
    return gc.train_step(network(), loss=nn.cross_entropy, optimizer=optim.SGD(0.1), x=ROWS, y=gc.i32[64])


@pytest.mark.parametrize("made", [
    lambda: gc.compile(network(), x=ROWS, seed=0), lambda: gc.plan(network(), x=ROWS), trained],
    ids=["compile", "plan", "step"])
def test_each_product_has_a_table(made):
    _, tables = made().explain().split(HEAD)
    product = next(t for t in tables.split("\n\n") if t.startswith("matmul add"))
    name, terms, *candidates = product.splitlines()
    assert "test_explain.py:" in name and terms.split()[:2] == ["cycles", "sums"]
    assert 2 <= len(candidates) <= 5 and all("MC" in line for line in candidates)


def test_kernels_of_a_loop_have_tables_too():
    """The hidden state's product, of 5 rows, which only the loop's body has; equal layers share a table."""
    text = gc.compile(nn.LSTM(32) >> nn.LSTM(32), x=gc.f32[8, 5, 32], seed=0).explain()
    products = [line for line in text.splitlines() if line.startswith("matmul")]
    assert len(products) == 2 and all("×2" in line for line in products)
    assert "matmul add slice slice …: f32[5, 32], f32[32, 128]" in text
