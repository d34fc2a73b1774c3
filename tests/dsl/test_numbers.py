"""Numbers, sizes, axes and positions as users write them: numpy's mean the same as Python's, and none that does not fit passes silently."""
import inspect
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from dsl_run import close, run
from test_kinds import CALLS
from test_kinds_layers import LAYERS

import graphc as gc
from graphc import nn
from graphc.dsl.function import trace_types
from graphc.ir.dim_text import parse_dim

X = np.arange(12, dtype=np.float32).reshape(4, 3)
OPTIONS = {                                                 # more arguments, for the numbers in them
    "softmax": {"axis": 1}, "sum": {"axis": (0, 1)}, "flip": {"axis": 0}, "cumsum": {"axis": 1}, "argmax": {"axis": 0}, "var": {"axis": 0, "ddof": 1},
    "transpose": {"axes": (1, 0)}, "clip": {"low": 0.5, "high": 2}, "pad": {"widths": ((1, 0), (0, 2)), "value": 0.5}, "tile": {"reps": (2, 1)},
    "split": {"parts": None, "sizes": (1, 2)}, "conv2d": {"stride": (2, 1), "padding": ((1, 0), (0, 1)), "groups": 1}, "max_pool2d": {"stride": 2, "padding": 1},
    "avg_pool1d": {"stride": 1}, "conv_transpose2d": {"stride": 2, "output_padding": (1, 0)}, "attention": {"scale": 0.5}, "cross_entropy": {"ignore_index": 1},
    "uniform": {"low": 0.5, "high": 2.0}, "normal": {"mean": 1.0, "std": 2.0}, "arange": {"step": 2}, "while_loop": {}, "scan": {"length": 3}, "full": {"value": 1},
    "tril": {"k": -1}, "layer_norm": {"axes": 2}, "softplus": {"beta": 2.0}, "pow": {"y": 2}, "dynamic_slice": {"starts": (1, 0)},
}


def of_numpy(value):
    """The same numbers as numpy has them."""
    if isinstance(value, bool):
        return np.bool_(value)
    if isinstance(value, (int, float)):
        return np.int16(value) if isinstance(value, int) else np.float64(value)
    if isinstance(value, tuple) and all(isinstance(v, (int, float)) for v in value):
        return np.array(value)
    return tuple(map(of_numpy, value)) if isinstance(value, tuple) else value


def text(function, convert, name):
    def body(x, i, b):
        named = CALLS[name](x, i, b) | OPTIONS.get(name, {})
        defaults = {p.name: p.default for p in inspect.signature(function).parameters.values() if p.default is not p.empty}
        result = function(**{n: convert(v) for n, v in (defaults | named).items()})
        return result if isinstance(result, gc.Array) else x
    lines = str(trace_types(body, {"x": gc.f32[3, 4], "i": gc.i64[()], "b": gc.bool_[3, 4]})).splitlines()
    return [line.partition("#")[0] for line in lines]


@pytest.mark.parametrize("name", sorted(CALLS))
def test_numbers_of_numpy_are_numbers(name):
    assert text(getattr(gc, name), of_numpy, name) == text(getattr(gc, name), lambda v: v, name)


@pytest.mark.parametrize("name", sorted(LAYERS.keys() - {"Module", "Sequential"}))
def test_layers_of_numpy_numbers(name):
    layer, needed = getattr(nn, name), LAYERS[name][0]
    assert repr(layer(**{n: of_numpy(v) for n, v in needed.items()})) == repr(layer(**needed))


# numbers that do not fit

REFUSED = {
    "a float among integers": lambda x: x.astype(gc.i32) + 2.5, "nan among integers": lambda x: gc.full((2,), np.nan, gc.i32),
    "inf among integers": lambda x: x.astype(gc.i64) * float("inf"), "a large int": lambda x: x.astype(gc.i32) + 2 ** 31,
    "a larger int": lambda x: gc.full((2,), 2 ** 63), "an unsigned int": lambda x: gc.full((2,), np.uint64(2 ** 64 - 1)),
    "a float that overflows": lambda x: x * 1e39, "an int that overflows": lambda x: x * 10 ** 39, "a list that overflows": lambda x: x + [1e39, 0, 0],
    "a number among bools": lambda x: (x > 0) & 1, "complex": lambda x: x * 1j, "Decimal": lambda x: x + Decimal(1), "Fraction": lambda x: x + Fraction(1, 2),
    "a fraction to pad integers": lambda x: gc.pad(x.astype(gc.i32), 1, 0.5), "a bound of integers": lambda x: gc.clip(x.astype(gc.i32), 0, 2 ** 40),
    "a fraction as a bound": lambda x: gc.clip(x.astype(gc.i32), 0.5), "a switch that is a number": lambda x: gc.sum(x, 0, 1),
    "an axis that is True": lambda x: gc.sum(x, True), "a size that is True": lambda x: gc.zeros((2, True)), "a size that is a float": lambda x: gc.zeros((2.0,)),
    "no dtype": lambda x: x.astype(None), "one destination twice": lambda x: gc.moveaxis(x, (0, 1), (1, 1)), "one source twice": lambda x: gc.moveaxis(x, (0, 0), (0, 1)),
    "several shapes for one size": lambda x: gc.permutation((3, 4)), "one_hot of depth -1": lambda x: gc.one_hot(gc.iota((3,)), -1),
    "arange with a fraction": lambda x: gc.arange(0, 2, 0.5, dtype=gc.i64), "arange without end": lambda x: gc.arange(0.0, float("inf")),
    "arange beyond i32": lambda x: gc.arange(2 ** 31 - 2, 2 ** 31 + 2, dtype=gc.i32), "bools as positions": lambda x: gc.take(x, [True, False]),
    "a masked number in a list": lambda x: x + [np.ma.masked, 1.0, 2.0],
    "a masked array": lambda x: x + np.ma.masked_array([1.0, 2.0, 3.0], [True, False, False]).astype(np.float32),
    "a position behind the end": lambda x: gc.take(x, [4]), "a position before the front": lambda x: gc.take_along_axis(x, np.full((1, 3), -5), 0),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_fit(what):
    with pytest.raises(gc.GraphError) as info:
        trace_types(lambda x: (REFUSED[what](x), x)[1], {"x": gc.f32[4, 3]})
    assert info.value.loc.file == __file__


def test_what_fits():
    close(run(lambda x: gc.arange(0.0, 8.0, 4.0, dtype=gc.i64) + gc.sum(x).astype(gc.i64) * 0, X), np.array([0, 4]))
    assert str(trace_types(lambda x: gc.arange(x.shape[0]) + gc.arange(1, "T - 3"), {"x": gc.f32["T - 4"]})).count("i64[T - 4]") >= 3
    close(run(lambda x: gc.clip(x, np.float32(2), np.float64(5)), X), np.clip(X, 2, 5))
    close(run(lambda x: gc.where(x > 2, x, 10 ** 30), X), np.where(X > 2, X, np.float32(1e30)))
    close(run(lambda x: x + True + np.int8(1) + np.array(1, np.float32), X), X + 3)


def test_dimensions_in_words():
    for wrong in ("", "+", "-2", "B B", "B--T", "B+", "+-B", "²", "٣", "9" * 5000, "2**B", "B*-1", "B.T", "1.5"):
        with pytest.raises(gc.GraphError):
            gc.f32[wrong]
    assert gc.f32["12", " 2*B*T - 3 + T"] == gc.f32[12, "2*B*T + T - 3"] and parse_dim("-2") == -2
    assert parse_dim("+".join(["B*T"] * 100_000)) == parse_dim("100000*B*T")        # and takes no minute


def test_a_dimension_that_becomes_negative():
    @gc.graph
    def f(x: gc.f32["T - 5", "T"]):
        return x
    with pytest.raises(gc.GraphError, match="-2"):
        gc.compile(f, T=3)


# split

def test_split_by_points_and_by_sizes():
    cut = lambda **how: [p.shape[0] for p in parts(**how)]

    def parts(**how):
        found = []
        trace_types(lambda x: (found.extend(gc.split(x, **how)), x)[1], {"x": gc.f32[12]})
        return found
    assert cut(parts=3) == cut(sizes=[4, 4, 4]) == cut(points=[4, 8]) == [4, 4, 4] and cut(parts=[3, 7]) == [3, 4, 5] and cut(parts=[5]) == [5, 7]
    assert cut(sizes=[0, 12]) == cut(points=[0]) == [0, 12] and cut(points=[12, 12]) == [12, 0, 0]
    for wrong in ([4, 4, 4], [4, 8], [12], [0, 3], [3, 3], [5, 2], [13], [-1, 3], [3.0], 5, 0, -1, True):
        with pytest.raises(gc.GraphError):
            cut(parts=wrong)
    for how in ({}, {"parts": 3, "sizes": [4, 4, 4]}, {"sizes": [4, 4]}, {"sizes": []}, {"points": [5, 2]}, {"points": [13]}, {"sizes": [13, -1]}):
        with pytest.raises(gc.GraphError):
            cut(**how)
    with pytest.raises(gc.GraphError, match=r"points=\[4, 8\] or sizes=\[4, 8\]"):
        cut(parts=[4, 8])


# positions from the end

def test_negative_positions_count_from_the_end():
    @gc.graph
    def f(x: gc.f32["N", 3], i: gc.i32["K"], j: gc.i64["K", 3]):
        return (gc.take(x, i), x[i], x[i, -1], gc.take_along_axis(x, j, 0), gc.scatter_add(x, i, 1.0), gc.scatter_add_along_axis(x, j, 2.0, 0),
                gc.take(x, [-1, 0]), x[[-1]], gc.take(x, -1, 1), gc.take(x, np.array([-1, 2], np.int8), 1))
    i, j = np.array([-1, 0, -4], np.int32), np.random.default_rng(0).integers(-4, 4, (3, 3))
    added, along = X.copy(), X.copy()
    np.add.at(added, i, 1.0)
    np.add.at(along, (j, np.arange(3)), 2.0)
    wanted = X[i], X[i], X[i, -1], np.take_along_axis(X, j, 0), added, along, X[[-1, 0]], X[[-1]], X[:, -1], X[:, [-1, 2]]
    for call in (gc.compile(f), gc.compile(f, N=4, K=3)):
        for got, want in zip(call(X, i, j), wanted, strict=True):
            np.testing.assert_array_equal(got, want)
        with pytest.raises(gc.GraphError, match="-5"):
            call(X, np.array([0, -5, 0], np.int32), j)
        with pytest.raises(gc.GraphError, match="4"):
            call(X, np.array([0, 4, 0], np.int32), j)


def test_ids_of_an_embedding_are_no_positions():
    ids = np.array([0, -1], np.int32)
    for f in (lambda x, i: gc.embedding(x, i), lambda x, i: gc.cross_entropy(x[:2], i)):
        run = gc.compile(trace_types(f, {"x": gc.f32[4, 3], "i": gc.i32[2]}))
        with pytest.raises(gc.GraphError, match="-1"):
            run(X, ids)
    table = gc.compile(nn.Embedding(4, 3), seed=0, ids=gc.i32[2])
    with pytest.raises(gc.GraphError, match="-1"):
        table(ids)


def test_positions_that_cannot_be_negative_cost_nothing():
    @gc.graph
    def f(x: gc.f32[4, 3], ids: gc.i32[2]):
        places = gc.argsort(x, 0)
        return gc.take_along_axis(x, places, 0), gc.take(x, gc.maximum(ids, 0)), gc.take(x, gc.iota((2,)).reshape(2, 1)), \
            gc.embedding(x, ids), x[np.array([1, -1])]
    assert not {"lt", "where", "bitand"} & {n.op.name for n in f.graph.nodes}


# numbers beside arrays of another width

def test_where_of_two_numbers_takes_the_dtype_beside_it():
    x, c = np.zeros((2, 3)), np.array([True, False, True])

    @gc.graph
    def f(x: gc.f64[2, 3], y: gc.f32[3], c: gc.bool_[3]):
        m = gc.where(c, gc.where(~c, 1.0, 0.1), 0.2)
        hidden = gc.where(c, 0.0, -np.inf)
        return x + m, x + hidden[None] * 0.1, gc.where(c, m, x), gc.stack([x[0], m]), gc.attention(x, x, x, hidden[:2]), (m * 2).astype(gc.f64), y + m, m
    found = gc.compile(f)(x, np.zeros(3, np.float32), c)
    assert [a.dtype for a in found] == [np.float64] * 6 + [np.float32] * 2
    np.testing.assert_array_equal(found[0][0], [0.1, 0.2, 0.1])
    np.testing.assert_array_equal(found[1][0], [0, -np.inf, 0])
    np.testing.assert_array_equal(found[5], [0.2, 0.4, 0.2])
    np.testing.assert_array_equal(found[7], np.array([0.1, 0.2, 0.1], np.float32))


# einsum and transposed convolutions

EQUATIONS = [
    ("ij,jk->ik", (2, 1), (3, 4)), ("ij,jk->ik", (2, 3), (1, 4)), ("ij,ij->ij", (1, 3), (4, 1)), ("bij,bjk->bik", (1, 2, 3), (5, 3, 4)), ("ij,jk", (2, 1), (1, 4)),
    ("i,ij->j", (1,), (3, 4)), ("...ij,jk->...ik", (2, 1, 3), (3, 4)), ("...ij,...jk->...ik", (2, 1, 3), (1, 3, 4)), ("ij,kl->", (1, 2), (3, 4)),
    ("ii->i", (3, 3)), ("ii", (3, 3)), ("iij->j", (3, 3, 2)), ("iji->ij", (3, 2, 3)), ("iiii->i", (2, 2, 2, 2)), ("...ii->...i", (2, 3, 3)), ("ii->i", (0, 0)),
    ("...ij->...ji", (2, 3, 4)), ("...i", (2, 3)), ("...->...", (2, 3)), ("ij...->j...", (2, 3, 4)),
    ("ii,ij->ij", (3, 3), (3, 4)), ("iij,kk->jk", (3, 3, 2), (4, 4)), ("...ii,...ij->...j", (2, 3, 3), (2, 3, 4)),
]


@pytest.mark.parametrize("equation, shapes", [(e, s) for e, *s in EQUATIONS])
def test_einsum(equation, shapes):
    random = np.random.default_rng(0)
    arrays = [random.standard_normal(s) for s in shapes]
    f = trace_types(lambda x, y=None: gc.einsum(equation, x, y), {n: gc.f64[s] for n, s in zip("xy", shapes)})
    np.testing.assert_allclose(gc.compile(f)(*arrays), np.einsum(equation, *arrays), rtol=1e-12)
    scalar = trace_types(lambda x, y=None: gc.sum(gc.square(gc.einsum(equation, x, y))), {n: gc.f64[s] for n, s in zip("xy", shapes)})
    assert gc.check_gradients(scalar, samples=4, directions=1, raises=True).ok


def test_einsum_of_named_sizes():
    @gc.graph
    def f(x: gc.f64["N", "N"]):
        return gc.einsum("ii->i", x), gc.einsum("ii", x)
    x = np.arange(9.0).reshape(3, 3)
    diagonal, trace = gc.compile(f)(x)
    np.testing.assert_array_equal(diagonal, np.diagonal(x))
    assert trace == 12


def scattered(x, w, stride, padding, dilation, more):
    """A transposed convolution by its definition: every element of x adds its multiple of the kernel."""
    full = [(n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(x.shape[2:], stride, dilation, w.shape[2:])]
    y = np.zeros((x.shape[0], w.shape[1], *(n + m for n, m in zip(full, more))))
    for i, j, p, q in np.ndindex(*x.shape[2:], *w.shape[2:]):
        y[:, :, i * stride[0] + p * dilation[0], j * stride[1] + q * dilation[1]] += x[:, :, i, j] @ w[:, :, p, q]
    return y[:, :, padding[0]:full[0] - padding[0] + more[0], padding[1]:full[1] - padding[1] + more[1]]


@pytest.mark.parametrize("stride, padding, dilation, more", [
    ((1, 1), (0, 0), (2, 2), (1, 1)), ((1, 2), (1, 0), (3, 1), (2, 1)), ((2, 1), (1, 2), (4, 3), (3, 2)), ((2, 2), (0, 1), (5, 1), (4, 1)),
    ((3, 2), (1, 1), (1, 2), (2, 1))])
def test_output_padding_up_to_the_dilation(stride, padding, dilation, more):
    random = np.random.default_rng(0)
    x, w = random.standard_normal((2, 2, 4, 3)), random.standard_normal((2, 3, 3, 2))

    def y(x, w):
        return gc.conv_transpose2d(x, w, stride, padding, more, dilation)
    types = {"x": gc.f64[x.shape], "w": gc.f64[w.shape]}
    np.testing.assert_allclose(gc.compile(trace_types(y, types))(x, w), scattered(x, w, stride, padding, dilation, more), atol=1e-12)
    assert gc.check_gradients(trace_types(lambda x, w: gc.sum(gc.square(y(x, w))), types), samples=4, directions=1, raises=True).ok
    with pytest.raises(gc.GraphError, match="must be smaller than stride"):
        trace_types(lambda x, w: gc.conv_transpose2d(x, w, stride, padding, max(*stride, *dilation), dilation), types)
