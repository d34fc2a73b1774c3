"""Contractions, convolutions, pooling and attention: references against independent formulas, gradients to second order
against differences.
"""
from itertools import product

import numpy as np
import pytest

from graphc.errors import GraphError
from graphc.ir.builder import Builder, bind_graph
from graphc.ir.interp import evaluate
from graphc.ir.op import Composite
from graphc.ir.ops import OPS, attention, contract, control, conv, window
from graphc.ir.ops.sliding import Sliding, window_extents
from graphc.ir.types import TensorType, bool_, f32, f64, i32

from loop_samples import check_gradients, square_sum

RNG = np.random.default_rng(7)


def normal(*shape):
    return RNG.standard_normal(shape)


def run(op, *arrays):
    """Results by the oracle, types checked against the shape rule."""
    b = Builder()
    ins = [b.input(f"x{i}", TensorType({"float64": f64, "float32": f32, "int32": i32, "bool": bool_}[str(a.dtype)],
                                       a.shape)) for i, a in enumerate(arrays)]
    outs = b.apply(op, ins)
    results = evaluate(b.finish(outs, ("",) * len(outs)), arrays)
    return results[0] if len(results) == 1 else results


def check(op, *shapes, order=2, **arguments):
    """Gradients of sum(output ** 2 * output) over all outputs, first and second order."""
    types = {f"x{i}": f64[s] for i, s in enumerate(shapes)}

    def loss(b, *ins):
        total = b.constant(0.0, f64)
        for y in b.apply(op, ins):
            total = b.add(total, b.add(square_sum(b, y), b.sum(b.mul(b.mul(y, y), y), axes=tuple(range(y.type.rank)))))
        return total
    check_gradients(types, loss, [normal(*s) * 0.7 for s in shapes], order)


def decomposed(op: Composite, *arrays):
    b = Builder()
    ins = [b.input(f"x{i}", TensorType(bool_ if a.dtype == bool else f64, a.shape)) for i, a in enumerate(arrays)]
    outs = op.decompose(b, *ins)
    outs = outs if isinstance(outs, tuple) else (outs,)
    return evaluate(b.finish(outs, ("",) * len(outs)), arrays)


# --- matmul and einsum --------------------------------------------------------------------------------------------

MATMULS = [((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 2)), ((2, 3), (3, 4)), ((5, 2, 3), (3, 4)), ((2, 3), (5, 3, 4)),
           ((5, 2, 3), (5, 3, 4)),
           ((2, 1, 2, 3), (3, 3, 2)), ((1, 2, 3), (4, 3, 2)), ((3,), (2, 3, 4)), ((2, 4, 3), (3,)), ((1, 1), (1, 1)),
           ((0, 3), (3, 2)), ((2, 0), (0, 3)),
           ((2, 2, 3), (1, 3, 2))]
EINSUMS = [("ij,jk->ik", (2, 3), (3, 4)), ("ij,jk", (2, 3), (3, 4)), ("bhtd,bhsd->bhts", (2, 2, 3, 4), (2, 2, 5, 4)),
           ("i,j->ij", (2,), (3,)),
           ("tmk,tkn->mn", (4, 2, 3), (4, 3, 2)), ("ij,ij->", (2, 3), (2, 3)), ("ijk,k->j", (2, 3, 4), (4,)),
           ("...ij,jk->...ik", (2, 3, 2, 4), (4, 3)),
           ("...ij,...jk->...ik", (2, 1, 2, 3), (4, 3, 2)), ("i...,...->i...", (2, 3), (3,)),
           ("ab,cb->ca", (2, 3), (4, 3)), ("a,->a", (3,), ()),
           ("...mn,...kn->mk", (3, 2, 4), (3, 5, 4)), ("...i,...i->i", (1, 3), (4, 3))]


@pytest.mark.parametrize("x, y", MATMULS)
def test_matmul(x, y):
    op = contract.Matmul()
    a, b = normal(*x), normal(*y)
    np.testing.assert_allclose(run(op, a, b), np.matmul(a, b))
    np.testing.assert_allclose(op.contraction(f64[x], f64[y]).reference(a, b, np.matmul(a, b).shape), np.matmul(a, b),
                               atol=1e-12)
    check(op, x, y)


@pytest.mark.parametrize("equation, x, y", EINSUMS)
def test_einsum(equation, x, y):
    op = contract.Einsum(equation)
    a, b = normal(*x), normal(*y)
    expected = np.einsum(equation, a,
                         b) if "..." not in equation or "->..." in equation or "->i..." in equation else _einsum_without_dots(equation, a, b)
    np.testing.assert_allclose(run(op, a, b), expected)
    np.testing.assert_allclose(op.contraction(f64[x], f64[y]).reference(a, b, expected.shape), expected, atol=1e-12)
    check(op, x, y)


def _einsum_without_dots(equation, a, b):
    """numpy does not sum over '...'; with one axis under it, a letter says the same."""
    a, b = np.broadcast_arrays(a, b) if a.ndim == b.ndim and a.shape[1:] == b.shape[1:] else (a, b)
    return np.einsum(equation.replace("...", "z"), a, b)


def test_a_weight_makes_rows_of_the_batch():
    c = contract.Matmul().contraction(f32[7, 5, 3], f32[3, 4])
    assert c.extent(c.m) == 35 and c.extent(c.batch) == 1 and c.extent(c.n) == 4


def test_gradient_of_a_weight_is_one_product():
    b = Builder()
    x, w, g = b.input("x", f32[7, 5, 3]), b.input("w", f32[3, 4]), b.input("g", f32[7, 5, 4])
    y = b.matmul(x, w)
    before = len(b.nodes)
    _, dw = y.node.op.vjp(b, (g,), (x, w), (y,))
    assert dw.type == w.type and "sum" not in [n.op.name for n in b.nodes[before:]]


@pytest.mark.parametrize("op, shapes, text", (
    (contract.Matmul(), ((2, 3), (4, 5)),
     r"the last axis of the left \(3\) must equal the last but one axis of the right \(4\)"),
    (contract.Matmul(), ((), (4, 5)), r"use \* instead"),
    (contract.Matmul(), ((2, 2, 3), (3, 3, 4)), "do not broadcast"),
    (contract.Einsum("ij,jk->ik"), ((2, 3), (4, 5)), 'label "j" is 3 in one place and 4 in another'),
    (contract.Einsum("ij,jk->iz"), ((2, 3), (3, 5)), 'output label "z" is in no operand'),
    (contract.Einsum("ii,jk->i"), ((2, 2), (3, 5)), '"ii" names a label twice'),
    (contract.Einsum("ijk,jk->i"), ((2, 2), (3, 5)), '"ijk" names 3 axes, the operand has 2'),
    (contract.Einsum("ij->i"), ((2, 2), (3, 5)), "names 1 operands, got 2"),
    (conv.Conv.at(2)(), ((2, 3, 5, 5), (4, 2, 3, 3)),
     r"the image has 3 channels, the kernel \[4, 2, 3, 3\] with groups=1 takes 2"),
    (conv.Conv.at(2)(), ((2, 3, 5), (4, 3, 3, 3)), r"takes an image \[N, C, H, W\], got \[2, 3, 5\]"),
    (conv.Conv.at(2)(), ((2, 3, 2, 5), (4, 3, 3, 3)), "the kernel covers 3 elements, the image with padding has only 2"),
    (window.MaxPool.at(2)((2, 2), (2, 2), ((2, 0), (0, 0))), ((1, 1, 4, 4),),
     "padding .* must be less than what the kernel covers, 2: a window would have no element"),
    (attention.Attention(), ((2, 3), (4, 5), (4, 5)), "must agree in the last axis"),
    (attention.Attention(), ((2, 3), (4, 3), (5, 3)), "equally many keys"),
))
def test_errors(op, shapes, text):
    with pytest.raises(GraphError, match=text):
        op.infer(*(f32[s] for s in shapes))


def test_operands_of_two_dtypes():
    with pytest.raises(GraphError, match="convert one side"):
        contract.Matmul().infer(f32[2, 2], f64[2, 2])


# --- convolution --------------------------------------------------------------------------------------------------

CONVS = [((2, 3, 5, 4), (4, 3, 3, 2), conv.Conv.at(2)()),
         ((1, 2, 6, 7), (3, 2, 3, 3), conv.Conv.at(2)((2, 2), ((1, 1), (1, 1)))),
         ((2, 4, 5, 5), (6, 2, 2, 3), conv.Conv.at(2)((1, 2), ((0, 1), (2, 0)), (2, 1), 2)),
         ((1, 3, 4, 4), (3, 1, 3, 3), conv.Conv.at(2)((1, 1), ((1, 1), (1, 1)), (1, 1), 3)),
         ((1, 1, 7, 7), (1, 1, 2, 2), conv.Conv.at(2)((3, 3), ((0, 0), (0, 0)), (3, 3))),
         ((2, 2, 3, 3), (3, 2, 1, 1), conv.Conv.at(2)((2, 2)))]


def direct_conv(x, w, op):
    """The definition, element by element."""
    n, f, oh, ow = op.output_shape(x.shape, w.shape)
    padded, per, cg = np.pad(x, ((0, 0), (0, 0), *op.padding)), w.shape[0] // op.groups, w.shape[1]
    y = np.zeros((n, f, oh, ow))
    for b, o, i, j in product(range(n), range(f), range(oh), range(ow)):
        rows = i * op.stride[0] + op.dilation[0] * np.arange(w.shape[2])
        columns = j * op.stride[1] + op.dilation[1] * np.arange(w.shape[3])
        group = o // per
        y[b, o, i, j] = np.sum(padded[b, group * cg:(group + 1) * cg][:, rows][:, :, columns] * w[o])
    return y


@pytest.mark.parametrize("x_shape, w_shape, op", CONVS)
def test_conv2d(x_shape, w_shape, op):
    x, w = normal(*x_shape), normal(*w_shape)
    y = direct_conv(x, w, op)
    np.testing.assert_allclose(run(op, x, w), y, atol=1e-12)
    np.testing.assert_allclose(op.contraction(f64[x_shape], f64[w_shape]).reference(x, w, y.shape), y, atol=1e-12)


@pytest.mark.parametrize("x_shape, w_shape, op", CONVS)
def test_conv2d_gradients_are_its_transposes(x_shape, w_shape, op):
    """<conv(x, w), dy> = <x, dx> = <w, dw>, since conv is linear in both; and the contractions agree."""
    x, w = normal(*x_shape), normal(*w_shape)
    dy = normal(*op.output_shape(x_shape, w_shape))
    to_x = op.like(conv.ConvInputGrad, x_shape=x_shape)
    to_w = op.like(conv.ConvWeightGrad, w_shape=w_shape)
    dx, dw = run(to_x, w, dy), run(to_w, x, dy)
    inner = np.sum(direct_conv(x, w, op) * dy)
    np.testing.assert_allclose([np.sum(x * dx), np.sum(w * dw)], inner, rtol=1e-9)
    np.testing.assert_allclose(to_x.contraction(f64[w_shape], f64[dy.shape]).reference(w, dy, x_shape), dx, atol=1e-12)
    np.testing.assert_allclose(to_w.contraction(f64[x_shape], f64[dy.shape]).reference(x, dy, w_shape), dw, atol=1e-12)


@pytest.mark.parametrize("x_shape, w_shape, op",
                         [((1, 2, 4, 3), (2, 1, 2, 2), conv.Conv.at(2)((2, 1), ((1, 0), (0, 1)), (1, 2), 2))])
def test_conv2d_differentiates_to_second_order(x_shape, w_shape, op):
    y = op.output_shape(x_shape, w_shape)
    check(op, x_shape, w_shape)
    check(op.like(conv.ConvInputGrad, x_shape=x_shape), w_shape, y)
    check(op.like(conv.ConvWeightGrad, w_shape=w_shape), x_shape, y)


@pytest.mark.parametrize("x, w, op", (
    ((1, 2, 3, 3), (2, 3, 2, 2), conv.ConvTranspose.at(2)()),
    ((2, 4, 3, 2), (4, 1, 3, 3), conv.ConvTranspose.at(2)((2, 2), ((1, 1), (1, 1)), (1, 0), (1, 1), 2)),
    ((1, 1, 2, 3), (1, 2, 2, 3), conv.ConvTranspose.at(2)((1, 2), ((0, 0), (1, 1)), (0, 1), (2, 1)))))
def test_conv_transpose2d(x, w, op):
    a, k = normal(*x), normal(*w)
    np.testing.assert_allclose(run(op, a, k), direct_conv_transpose(a, k, op), atol=1e-12)
    np.testing.assert_allclose(decomposed(op, a, k)[0], run(op, a, k))
    check(op, x, w, order=1)


def direct_conv_transpose(x, w, op):
    """Every input element paints the kernel into the output."""
    n, f, oh, ow = op.infer(f64[x.shape], f64[w.shape]).shape
    top, left = op.padding[0][0], op.padding[1][0]
    y, per_in, per_out = np.zeros((n, f, oh, ow)), x.shape[1] // op.groups, w.shape[1]
    for b, c, i, j, o, p, q in product(*map(range, x.shape), range(w.shape[1]), range(w.shape[2]), range(w.shape[3])):
        r, s = i * op.stride[0] + p * op.dilation[0] - top, j * op.stride[1] + q * op.dilation[1] - left
        if 0 <= r < oh and 0 <= s < ow:
            y[b, c // per_in * per_out + o, r, s] += x[b, c, i, j] * w[c, o, p, q]
    return y


# --- pooling ------------------------------------------------------------------------------------------------------

POOLS = [((2, 2, 4, 6), (2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)),
         ((1, 2, 5, 5), (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1)),
         ((1, 1, 5, 4), (3, 2), (1, 1), ((1, 0), (0, 1)), (1, 1)),
         ((1, 1, 6, 7), (2, 2), (1, 2), ((1, 1), (0, 1)), (2, 3))]


def windows(x, kernel, stride, padding, dilation=(1, 1)):
    """(index of the output element, elements of its window that are inside the image, in row order)."""
    n, c, h, w = x.shape
    out = window_extents((h, w), kernel, stride, padding, dilation, "test")
    for b, k, i, j in product(range(n), range(c), range(out[0]), range(out[1])):
        cells = [(b, k, r, s) for p, q in product(range(kernel[0]), range(kernel[1]))
                 if 0 <= (r := i * stride[0] + p * dilation[0] - padding[0][0]) < h
                 and 0 <= (s := j * stride[1] + q * dilation[1] - padding[1][0]) < w]
        yield (b, k, i, j), cells


@pytest.mark.parametrize("shape, kernel, stride, padding, dilation", POOLS)
def test_max_pool2d(shape, kernel, stride, padding, dilation):
    x = RNG.integers(0, 3, shape).astype(np.float64)                # many ties
    x[0, 0, 0, :2] = -np.inf
    op = window.MaxPool.at(2)(kernel, stride, padding, dilation)
    y = run(op, x)
    dy, dx, v = normal(*y.shape), np.zeros(shape), normal(*shape)
    picked = np.zeros(y.shape)
    for at, cells in windows(x, kernel, stride, padding, dilation):
        best = max(cells, key=lambda cell: x[cell])                  # max keeps the first of equals
        assert y[at] == x[best]
        dx[best] += dy[at]
        picked[at] = v[best]
    np.testing.assert_allclose(run(op.like(window.MaxPoolGrad), x, dy), dx)
    np.testing.assert_allclose(run(op.like(window.MaxPoolPick), x, v), picked)
    check(op, shape)


def test_max_pool2d_of_nan_and_ints():
    op = window.MaxPool.at(2)((2, 2), (2, 2))
    assert np.isnan(run(op, np.array([[[[1, np.nan], [5, 2]]]]))).all()
    assert run(window.MaxPool.at(2)((2, 2), (1, 1), ((1, 0), (0, 0))),
               np.array([[[[-5, -7], [-9, -8]]]], np.int32)).tolist() == [[[[-5], [-5]]]]


@pytest.mark.parametrize("include", (True, False))
@pytest.mark.parametrize("shape, kernel, stride, padding, dilation", POOLS[:3])
def test_avg_pool2d(shape, kernel, stride, padding, dilation, include):
    x = normal(*shape)
    op = window.AvgPool.at(2)(kernel, stride, padding, count_include_pad=include)
    y = run(op, x)
    for at, cells in windows(x, kernel, stride, padding):
        np.testing.assert_allclose(y[at], sum(x[c] for c in cells) / (kernel[0] * kernel[1] if include else len(cells)))
    check(op, shape)
    check(op.like(window.AvgPoolGrad, x_shape=shape), y.shape)


# --- attention ----------------------------------------------------------------------------------------------------

def direct_attention(q, k, v, seen, bias=0.0, scale=None):
    s = np.einsum("...td,...sd->...ts", q, k) * (scale or q.shape[-1] ** -0.5) + bias
    e = np.where(seen, np.exp(s), 0)
    total = e.sum(-1, keepdims=True)
    return np.where(total > 0, e / np.where(total > 0, total, 1), 0) @ v


@pytest.mark.parametrize("causal", (False, True))
@pytest.mark.parametrize("q, k, v", (((2, 3, 4), (2, 3, 4), (2, 3, 4)), ((2, 2, 3, 4), (2, 2, 5, 4), (2, 2, 5, 2)),
                                     ((2, 5, 3), (1, 2, 3), (1, 2, 3)), ((1, 2), (1, 2), (1, 3))))
def test_attention(q, k, v, causal):
    arrays = normal(*q), normal(*k), normal(*v)
    op = attention.Attention(causal=causal)
    seen = np.tril(np.ones((q[-2], k[-2]), bool)) if causal else True
    out, lse = run(op, *arrays)
    np.testing.assert_allclose(out, direct_attention(*arrays, seen), atol=1e-12)
    for own, parts in zip((out, lse), decomposed(op, *arrays)):
        np.testing.assert_allclose(parts, own, atol=1e-12)
    check(op, q, k, v)


@pytest.mark.parametrize("causal", (False, True))
def test_attention_with_a_bool_mask(causal):
    arrays = normal(2, 4, 3), normal(2, 4, 3), normal(2, 4, 3)
    # row 1 sees nothing; row 2 nothing that is not ahead
    mask = np.array([[1, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1], [1, 1, 1, 1]], bool)
    op = attention.Attention(0.5, causal)
    seen = mask & np.tril(np.ones((4, 4), bool)) if causal else mask
    out, lse = run(op, *arrays, mask)
    np.testing.assert_allclose(out, direct_attention(*arrays, seen, scale=0.5), atol=1e-12)
    np.testing.assert_allclose(decomposed(op, *arrays, mask)[0], out, atol=1e-12)
    types = {"q": f64[2, 4, 3], "k": f64[2, 4, 3], "v": f64[2, 4, 3], "m": bool_[4, 4]}
    check_gradients(types, lambda b, *ins: square_sum(b, b.apply(op, ins)[0]), [*arrays, mask])


def test_attention_with_a_float_mask_differentiates_into_it():
    types = {"q": f64[2, 3, 2], "k": f64[2, 4, 2], "v": f64[2, 4, 2], "m": f64[3, 4]}
    arrays = [normal(*t.shape) for t in types.values()]
    np.testing.assert_allclose(run(attention.Attention(), *arrays)[0], direct_attention(*arrays[:3], True, arrays[3]),
                               atol=1e-12)
    check_gradients(types, lambda b, *ins: square_sum(b, b.attention(*ins)[0]), arrays)


def test_attention_of_large_scores():
    q = np.full((1, 2), 1e4)
    out, lse = run(attention.Attention(), q, np.array([[1e4, 0], [-1e4, 0]]), np.array([[1.0], [2.0]]))
    assert out.tolist() == [[1.0]] and np.isfinite(lse).all()


def test_attention_gradient_is_its_decomposition():
    op = attention.Attention(causal=True)
    arrays = normal(2, 3, 4), normal(1, 5, 4), normal(1, 5, 2)
    out, lse = run(op, *arrays)
    grad = attention.AttentionGrad(causal=True)
    g = normal(*out.shape)
    for a, b in zip(run(grad, *arrays, out, lse, g), decomposed(grad, *arrays, out, lse, g)):
        np.testing.assert_allclose(a, b, atol=1e-12)


# --- all ----------------------------------------------------------------------------------------------------------

def test_symbolic_dimensions():
    b = Builder()
    x, w = b.input("x", f32["B", 3, 8, 8]), b.input("w", f32[4, 3, 3, 3])
    y = b.max_pool2d(b.conv2d(x, w, padding=((1, 1), (1, 1))), kernel=(2, 2), stride=(2, 2))
    h = b.matmul(b.reshape(y, shape=(y.type.shape[0], 64)), b.input("v", f32[64, "H"]))
    o, _ = b.attention(h, h, h, scale=0.5)
    b.einsum(o, h, equation="bh,ch->bc")
    graph = b.finish([o])
    assert str(o.type) == "f32[B, H]"
    assert bind_graph(graph, {"B": 2, "H": 5}).outputs[0].type == f32[2, 5]


def test_every_operator_of_these_files_is_registered_and_described():
    for module in (contract, conv, window, attention, control):
        for cls in module.OPS:
            assert OPS[cls.name] is cls and cls.__doc__
            # one definition for every rank
            own = {c.__name__ for c in cls.__mro__ if issubclass(c, Sliding)} - {"Sliding"} or {cls.__name__}
            assert cls.reference.__qualname__.split(".")[0] in own


def test_costs():
    assert contract.Matmul().cost(f32[7, 5, 3], f32[3, 4]).flops == 2 * 7 * 5 * 3 * 4
    assert conv.Conv.at(2)().cost(f32[1, 3, 5, 5], f32[2, 3, 3, 3]).flops == 2 * 2 * 9 * 27
    assert conv.ConvInputGrad.at(2)(x_shape=(1, 3, 5, 5)).cost(f32[2, 3, 3, 3], f32[1, 2, 3, 3]).flops == 2 * 2 * 9 * 27
    assert attention.Attention().cost(f32[4, 8], f32[6, 8], f32[6, 8]).flops >= 2 * 2 * 4 * 6 * 8
