"""Losses and functions of arrays against PyTorch's of the same names, with the same options: values and gradients, in
f64."""
from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import graphc as gc
from graphc.dsl.function import trace_function
from graphc.dsl.signature import Argument
from graphc.ir.interp import evaluate
from graphc.ir.types import TensorType, dtype_of

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "nn"))
from losses import LOSSES, WEIGHED  # noqa: E402

pytestmark = pytest.mark.peers
F = torch.nn.functional
RNG = np.random.default_rng(0)
THEIRS = {"bce": "binary_cross_entropy_with_logits"}
OURS_ALONE = ("log_cosh_loss", "sigmoid_focal_loss", "dice_loss")           # Keras', torchvision's and of papers
# of how many operands torch has a gradient: not of weights, of some targets, and of targets that are 0 NaN
INPUTS = {"nll_loss": 2, "multilabel_soft_margin_loss": 2, "binary_cross_entropy": 2, "soft_margin_loss": 1,
          "hinge_embedding_loss": 1, "kl_div, zeros": 1}
CASES = {name: case for name, case in {**LOSSES, **WEIGHED}.items() if name.split(",")[0] not in OURS_ALONE}


def compare(ours, theirs, arrays):
    """Values, and gradients of the sum of results times weights, towards every float array."""
    types = [Argument(f"x{i}", TensorType(dtype_of(a), a.shape)) for i, a in enumerate(arrays)]
    floats = [i for i, a in enumerate(arrays) if a.dtype.kind == "f"]
    tensors = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    tensors = [t.long() if t.dtype == torch.int32 else t for t in tensors]
    wanted = theirs(*tensors)
    found, = evaluate(trace_function(lambda **xs: ours(*xs.values()), types, "f").graph, arrays)
    assert found.shape == tuple(wanted.shape)
    np.testing.assert_allclose(found, wanted.detach().numpy(), rtol=1e-9, atol=1e-11)
    weights = RNG.normal(size=found.shape)
    (wanted * torch.tensor(weights)).sum().backward()
    total = trace_function(lambda **xs: gc.sum(ours(*xs.values()) * weights), types, "total")
    gradients = evaluate(gc.grad(total, tuple(f"x{i}" for i in floats)).graph, arrays)
    for i, g in zip(floats, gradients):
        theirs_of = tensors[i].grad
        if theirs_of is not None:               # torch refuses gradients towards some targets
            np.testing.assert_allclose(g, theirs_of.numpy(), rtol=1e-8, atol=1e-10, err_msg=f"operand {i}")


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", CASES)
def test_losses(name, reduction):
    loss, arrays, options, *_ = CASES[name]
    short = name.split(",")[0]
    theirs = getattr(F, THEIRS.get(short, short))
    tensors = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    inputs, fixed = arrays[:INPUTS.get(name, INPUTS.get(short))], arrays[INPUTS.get(name, INPUTS.get(short, 9)):]
    compare(lambda *xs: loss(*xs, *fixed, reduction=reduction, **options),
            lambda *xs: theirs(*xs, *map(torch.tensor, fixed), reduction=reduction, **tensors), inputs)


X = RNG.normal(size=(3, 4, 6)) * 3
Y = RNG.normal(size=(3, 4, 6))
FUNCTIONS = {                                   # operands; options here and there, where they are called otherwise
    **{name: ((X,), {}, {}) for name in ("relu relu6 elu celu selu gelu silu mish softplus logsigmoid softsign tanhshrink "
                                         "softshrink hardshrink hardtanh hardsigmoid hardswish").split()},
    "leaky_relu": ((X,), {"slope": 0.2}, {"negative_slope": 0.2}), "celu 2": ((X,), {"alpha": 2.0}, {}),
    "elu 2": ((X,), {"alpha": 2.0}, {}), "gelu tanh": ((X,), {"approximate": "tanh"}, {}),
    "softplus 2": ((X,), {"beta": 2.0}, {}), "softshrink 1": ((X,), {"lambd": 1.0}, {}),
    "hardshrink 1": ((X,), {"lambd": 1.0}, {}), "hardtanh 1": ((X,), {"min_val": -2.0, "max_val": 0.5}, {}),
    "threshold": ((X,), {"threshold": 0.1, "value": 2.0}, {}), "softmin": ((X,), {"axis": 1}, {"dim": 1}),
    "glu": ((X,), {}, {}), "glu 1": ((X,), {"axis": 1}, {"dim": 1}), "prelu": ((X, RNG.normal(size=4)), {}, {}),
    "prelu 1": ((X, RNG.normal(size=1)), {}, {}), "normalize": ((X,), {}, {}),
    "normalize 3": ((X,), {"p": 3.0, "axis": 2}, {"p": 3.0, "dim": 2}),
    "cosine_similarity": ((X, Y), {}, {}), "cosine_similarity 2": ((X, Y[:1]), {"axis": 2}, {"dim": 2}),
    "pairwise_distance": ((X, Y), {}, {}), "pairwise_distance 1": ((X, Y), {"p": 1.0, "keepdims": True},
                                                                   {"p": 1.0, "keepdim": True}),
    "pdist": ((X[0],), {}, {}), "pdist 1": ((X[0],), {"p": 1.0}, {}), "cdist": ((X, Y[:, :2]), {}, {}),
}


# torch's own hardsigmoid has the gradient 1/6 of f32, in f64 too
PEERS = {"cdist": torch.cdist, "hardsigmoid": lambda x: F.relu6(x + 3) / 6}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    arrays, ours, theirs = FUNCTIONS[name]
    short = name.split()[0]
    other = PEERS[short] if short in PEERS else getattr(F, short)
    compare(lambda *xs: getattr(gc, short)(*xs, **ours), lambda *xs: other(*xs, **theirs or ours), arrays)
