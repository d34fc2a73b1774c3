"""Tensors as arguments: read where they lie, by PyTorch's own exchange functions where it has them."""
from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", minversion="2.6")

import graphc as gc  # noqa: E402
from graphc.doors.torch.read import TYPES  # noqa: E402
from graphc.errors import GraphError  # noqa: E402
from graphc.runtime import dlpack  # noqa: E402
from graphc.runtime.tensor_words import tensor_words  # noqa: E402


def doubled(dtype=gc.f32, shape=(3,)):
    @gc.graph
    def double(x: dtype[shape]):
        return x + x
    return gc.compile(double)


def warmed(run, x):
    for _ in range(4):
        run(x)
    return run


@pytest.fixture(params=[True, False], ids=["known", "asked"], autouse=True)
def known(request, monkeypatch):
    """Whether the places in a tensor that say what DLPack does not are known; where not, PyTorch is asked."""
    if not request.param:
        monkeypatch.setattr(dlpack, "tensor_words", lambda type: None)
    monkeypatch.setattr(dlpack, "FOREIGN", dlpack._Foreign())
    monkeypatch.setattr("graphc.runtime.entry.FOREIGN", dlpack.FOREIGN)


@pytest.mark.skipif("__dlpack_c_exchange_api__" not in vars(torch.Tensor), reason="this PyTorch has no such functions")
def test_the_native_entry_reads_tensors(monkeypatch):
    assert tensor_words(torch.Tensor) and tensor_words(torch.nn.Parameter) is None
    x = torch.randn(3)
    run = warmed(doubled(), x)
    assert dlpack.FOREIGN.words[0] >= 1
    monkeypatch.setattr(torch.Tensor, "__dlpack__", lambda *_, **__: pytest.fail("the long way"))
    assert np.array_equal(run(x), 2 * x.numpy())


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16", "int8", "int16", "int32", "int64", "uint8", "bool"])
def test_every_type(dtype):
    type = TYPES[getattr(torch, dtype)]     # noqa: F841  the annotation reads it

    @gc.graph
    def kept(x: type[4]):
        return x[::-1]
    run, x = gc.compile(kept), torch.arange(4).to(getattr(torch, dtype))
    for _ in range(5):
        assert np.array_equal(run(x).astype(np.float32), x.flip(0).float().numpy())


def test_the_bit_for_the_other_sign_counts():
    run = warmed(doubled(), torch.randn(3))
    x = torch.complex(torch.randn(8), torch.randn(8)).conj().imag
    for view in (x[:3], x.as_strided((3,), (1,))):
        assert view.is_neg() and np.array_equal(run(view), (view + view).resolve_neg().numpy())


def test_a_tensor_that_wants_a_gradient_is_an_error():
    run, x, kept = warmed(doubled(), torch.randn(3)), torch.randn(3, requires_grad=True), torch.randn(3)
    run(kept)
    for wrong in (x, x * 2, kept.requires_grad_(), x[:3]):
        with pytest.raises(GraphError, match="require"):
            run(wrong)
    assert np.array_equal(run(x.detach()), 2 * x.detach().numpy())


@pytest.mark.parametrize("warm", [False, True])
def test_no_gradient_is_lost_where_none_is_recorded(warm):
    run = doubled()
    if warm:
        warmed(run, torch.randn(3))
    for quiet in (torch.no_grad, torch.inference_mode):
        with quiet():
            for x in (torch.randn(3, requires_grad=True), torch.nn.Parameter(torch.randn(3))):
                assert np.array_equal(run(x), 2 * x.detach().numpy())


def test_a_tensor_without_memory_is_an_error():
    run = warmed(doubled(), torch.randn(3))
    for wrong in (torch._efficientzerotensor((3,)), torch.empty(3, device="meta")):
        with pytest.raises(GraphError, match="gives no CPU array"):
            run(wrong)


def test_a_parameter_and_a_view():
    run = warmed(doubled(shape=(2, 3)), torch.randn(2, 3))
    x = torch.randn(3, 2)
    assert np.array_equal(run(x.t()), 2 * x.numpy().T)
    assert np.array_equal(run(torch.nn.Parameter(x.t(), requires_grad=False)), 2 * x.numpy().T)
