"""Values and gradients of operators against PyTorch, ties and kinks included."""
from __future__ import annotations

import numpy as np
import pytest
from op_sample import distinct, floats, ints, rng_for

from graphc.autodiff.backward import backward
from graphc.ir.builder import Builder
from graphc.ir.interp import evaluate
from graphc.ir.op import as_tuple
from graphc.ir.ops import OPS
from graphc.ir.types import TensorType, dtype_of, f64, i64

torch = pytest.importorskip("torch")
F = torch.nn.functional
pytestmark = pytest.mark.peers

X = np.array([-1e3, -7.5, -2, -1, -0.5, 0, 0.25, 1, 1.5, 2, 30, 1e3])
TIES = np.array([[1.0, 3, 3, 0, 3], [2, 2, 2, 2, 2], [-1, -2, -1, -5, 0], [0, 0, 1, 0, 0]])
A, P = floats((4, 6), f64), floats((4, 6), f64, 0.1, 1, seed=1)
IMAGE, G3, B3 = floats((4, 3, 5, 2), f64, -3, 3), floats((3,), f64, 0.5, 2), floats((3,), f64)
IDS = np.array([0, 5, 2, 2])

CASES = (
    ("relu", {}, (X,), torch.relu),
    ("leaky_relu", {"slope": 0.1}, (X,), lambda x: F.leaky_relu(x, 0.1)),
    ("elu", {"alpha": 1.5}, (X,), lambda x: F.elu(x, 1.5)),
    ("gelu", {}, (X,), F.gelu),
    ("gelu", {"approximate": "tanh"}, (X,), lambda x: F.gelu(x, approximate="tanh")),
    ("silu", {}, (X,), F.silu),
    ("softplus", {}, (X[1:-1],), lambda x: F.softplus(x, threshold=1e9)),
    ("clip", {"low": -1.0, "high": 2.0}, (X,), lambda x: torch.clamp(x, -1, 2)),
    ("clip", {"low": 0.25}, (X,), lambda x: torch.clamp(x, min=0.25)),
    ("abs", {}, (X,), torch.abs),
    ("sigmoid", {}, (X,), torch.sigmoid),
    ("tanh", {}, (X,), torch.tanh),
    ("erf", {}, (X,), torch.erf),
    ("expm1", {}, (X[:-1],), torch.expm1),
    ("log1p", {}, (X[4:],), torch.log1p),
    ("sqrt", {}, (X[6:],), torch.sqrt),
    ("rsqrt", {}, (X[6:],), torch.rsqrt),
    ("round", {}, (X,), torch.round),
    ("maximum", {}, (TIES, TIES[:, ::-1].copy()), torch.maximum),
    ("minimum", {}, (TIES, TIES[::-1].copy()), torch.minimum),
    ("pow", {}, (np.array([0.0, 0, 0, 0, 2, -2, 3]), np.array([0.0, 1, 2, 3, 0, 3, -1.5])), torch.pow),
    ("mod", {}, (X[1:-1], np.full(10, 3.3)), torch.remainder),
    ("max", {"axes": (1,)}, (TIES,), lambda x: torch.amax(x, 1)),
    ("min", {"axes": (0, 1)}, (TIES,), lambda x: torch.amin(x, (0, 1))),
    ("prod", {"axes": (1,)}, (TIES,), lambda x: torch.prod(x, 1)),
    ("cumprod", {"axis": 1}, (TIES,), lambda x: torch.cumprod(x, 1)),
    ("cumsum", {"axis": 0}, (A,), lambda x: torch.cumsum(x, 0)),
    ("var", {"axes": (1,), "ddof": 1}, (A,), lambda x: torch.var(x, 1)),
    ("mean", {"axes": (0, 1)}, (A,), torch.mean),
    ("logsumexp", {"axes": (1,)}, (300 * A,), lambda x: torch.logsumexp(x, 1)),
    ("argmax", {"axis": 1}, (A,), lambda x: torch.argmax(x, 1)),
    ("sort", {"axis": 1, "descending": True}, (distinct((4, 5), f64),), lambda x: torch.sort(x, 1, descending=True)[0]),
    ("argsort", {"axis": 1, "descending": True}, (TIES,),
     lambda x: torch.sort(x, dim=1, descending=True, stable=True)[1]),
    ("topk", {"k": 3, "axis": 1}, (distinct((4, 5), f64),), lambda x: tuple(torch.topk(x, 3, 1))),
    ("take", {"axis": 0}, (A, np.array([3, 0, 3])), lambda x, i: F.embedding(i, x)),
    ("take_along_axis", {"axis": 1}, (A, ints((4, 2), i64, 0, 6)),
     lambda x, i: torch.gather(x, 1, i)),
    ("scatter_add_along_axis", {"axis": 0}, (A, np.array([[3, 0, 3, 1, 1, 1]]), A[:1]),
     lambda x, i, u: torch.scatter_add(x, 0, i, u)),
    ("resize", {"shape": (7, 3), "mode": "bilinear"}, (IMAGE,), lambda x: F.interpolate(x, (7, 3), mode="bilinear")),
    ("resize", {"shape": (3, 5), "mode": "bilinear"}, (IMAGE,), lambda x: F.interpolate(x, (3, 5), mode="bilinear")),
    ("resize", {"shape": (7, 3), "mode": "nearest"}, (IMAGE,), lambda x: F.interpolate(x, (7, 3), mode="nearest")),
    ("softmax", {"axis": 1}, (100 * A,), lambda x: torch.softmax(x, 1)),
    ("log_softmax", {"axis": 0}, (100 * A,), lambda x: torch.log_softmax(x, 0)),
    ("layer_norm", {"axes": 2}, (IMAGE, floats((5, 2), f64), floats((5, 2), f64, seed=1)),
     lambda x, g, b: F.layer_norm(x, (5, 2), g, b)),
    ("rms_norm", {"eps": 1e-6}, (A, A[0]), lambda x, g: F.rms_norm(x, (6,), g, 1e-6)),
    ("group_norm", {"groups": 3}, (IMAGE, G3, B3), lambda x, g, b: F.group_norm(x, 3, g, b)),
    ("group_norm", {"groups": 1}, (IMAGE, G3, B3), lambda x, g, b: F.group_norm(x, 1, g, b)),
    ("batch_norm", {}, (IMAGE, G3, B3),
     lambda x, g, b: (F.batch_norm(x, None, None, g, b, True), x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0))),
    ("batch_norm_inference", {}, (IMAGE, G3, B3, B3, G3),
     lambda x, g, b, m, v: (x - m[:, None, None]) / torch.sqrt(v[:, None, None] + 1e-5) * g[:, None, None]
     + b[:, None, None]),
    ("mse", {}, (A, P), F.mse_loss),
    ("bce_with_logits", {}, (100 * A, P), F.binary_cross_entropy_with_logits),
    ("cross_entropy", {}, (100 * A, IDS), F.cross_entropy),
    ("cross_entropy", {"label_smoothing": 0.1, "reduction": "sum"}, (A, IDS),
     lambda x, i: F.cross_entropy(x, i, label_smoothing=0.1, reduction="sum")),
    ("cross_entropy", {"label_smoothing": 0.1, "ignore_index": 2}, (A, IDS),
     lambda x, i: F.cross_entropy(x, i, ignore_index=2, label_smoothing=0.1)),
    ("cross_entropy", {"axis": 1, "reduction": "none"}, (IMAGE, ints((4, 5, 2), i64, 0, 3)),
     lambda x, i: F.cross_entropy(x, i, reduction="none")),
    ("cross_entropy_soft", {}, (A, P), F.cross_entropy),
    ("one_hot", {"depth": 6, "dtype": f64}, (IDS,), lambda i: F.one_hot(i, 6).double()),
)


@pytest.mark.parametrize("name, attributes, arrays, peer", CASES, ids=lambda v: v if isinstance(v, str) else "")
def test_values_and_gradients(name, attributes, arrays, peer):
    ours = run_ours(OPS[name](**attributes), arrays)
    theirs = run_theirs(peer, arrays)
    for actual, expect in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(actual, expect, rtol=1e-9, atol=1e-11)


def seeds(types_or_arrays):
    return [rng_for(i, tuple(t.shape)).uniform(-1, 1, tuple(t.shape)) for i, t in enumerate(types_or_arrays)]


def run_ours(op, arrays):
    """Outputs, then gradients of the float operands for random gradients of the float outputs."""
    b = Builder()
    ins = [b.input(f"x{i}", TensorType(dtype_of(a), a.shape)) for i, a in enumerate(arrays)]
    outs = b.apply(op, ins)
    smooth = [v for v in outs if v.type.dtype == f64]
    given = {v: b.constant(s) for v, s in zip(smooth, seeds([v.type for v in smooth]))}
    wrt = [v for v in ins if v.type.dtype == f64]
    grads = backward(b, list(b.nodes), given, wrt)
    zeros = [g if g is not None else b.constant(np.zeros(v.type.shape)) for v, g in zip(wrt, grads)]
    with np.errstate(all="ignore"):
        return evaluate(b.finish([*outs, *zeros]), arrays)


def run_theirs(peer, arrays):
    ins = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    outs = as_tuple(peer(*ins))
    smooth = [y for y in outs if y.dtype == torch.float64]
    wrt = [x for x in ins if x.requires_grad]
    if wrt and smooth:
        torch.autograd.backward(smooth, [torch.tensor(s) for s in seeds(smooth)])
    return [v.detach().numpy() for v in outs] + [x.grad.numpy() if x.grad is not None else np.zeros(x.shape)
                                                 for x in wrt]
