"""What only some values and operators have: asked for where it is not there, it is an error of ours that says so."""
from __future__ import annotations

import pytest

from graphc.errors import InternalError
from graphc.ir.builder import Builder
from graphc.ir.types import f32


def test_the_maker_of_a_value():
    b = Builder("g")
    x = b.input("x", f32[2, 3])
    y = b.matmul(x, b.transpose(x, perm=(1, 0)))
    assert y in y.maker.outputs and y.maker is b.nodes[-1]
    with pytest.raises(InternalError, match="no node makes <x: f32.*an input"):
        x.maker


def test_the_contraction_of_an_operator():
    b = Builder("g")
    x = b.input("x", f32[2, 2])
    product, total = b.matmul(x, x).maker, b.add(x, x).maker
    assert product.op.contraction(x.type, x.type).sizes == (2, 2, 2)
    with pytest.raises(InternalError, match="add is no contraction"):
        total.op.contraction(x.type, x.type)
