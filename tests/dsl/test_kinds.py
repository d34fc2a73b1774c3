"""Every public function that works on arrays of a graph, with everything in the place of every argument: a result, or a GraphError with the user's line.

The functions are those of the package and the methods of arrays; each has a call that is right, of which one argument at a time is replaced.
"""
import inspect
import operator
import types

import pytest
from kinds import EVERYTHING, shown, wrong

import graphc as gc
from graphc.dsl.array import Array
from graphc.dsl.symbol import Symbol

ROW, IMAGE, VOLUME = (1, 2, 6), (1, 2, 6, 6), (1, 2, 4, 4, 4)
IMAGES = {1: ROW, 2: IMAGE, 3: VOLUME}
UNARY = """fliplr flipud norm corrcoef count_nonzero cov diag diagonal diff isinf median nan_to_num nanmean nansum ptp reciprocal rot90 trace trunc
    normalize pdist celu glu hardshrink hardsigmoid hardswish hardtanh logsigmoid mish relu6 selu softmin softshrink softsign tanhshrink
    abs acos acosh asin asinh atan atanh bitwise_not ceil cos cosh elu erf exp expm1 floor gelu isfinite isnan leaky_relu log log1p log_softmax
    logical_not neg ones_like relu round rsqrt shard_sum sigmoid sign silu sin sinh softmax softplus sqrt square stop_gradient tan tanh zeros_like
    all any argmax argmin argsort cumprod cumsum flip layer_norm logsumexp max mean min prod rms_norm sort squeeze std sum transpose tril triu var
    signbit deg2rad rad2deg nanprod nanmax nanmin nanvar nanstd cummax cummin nanmedian
    clip erfc erfinv lgamma digamma i0 i1 sinc exp2 log2 log10 cbrt""".split()
BINARY = """copysign fmax fmin divmod array_equal allclose fmod hypot inner isclose tensordot vdot kron cdist cosine_similarity pairwise_distance add atan2 bitwise_and bitwise_or bitwise_xor div equal floordiv greater greater_equal left_shift less less_equal logical_and logical_or logical_xor
    maximum minimum mod mul not_equal pow right_shift sub mse logaddexp xlogy bce_with_logits""".split()

CALLS = {                                                   # what is needed of each function, by name; `x` is f32[3, 4], `i` i64[], `b` bool[3, 4]
    **{name: lambda x, i, b: {"x": x} for name in UNARY},
    **{name: lambda x, i, b: {"x": x, "y": x} for name in BINARY},
    **{f"adaptive_{kind}_pool{axes}d": lambda x, i, b, shape=shape: {"x": gc.ones(shape), "size": 2}
       for kind in ("avg", "max") for axes, shape in IMAGES.items()},
    **{f"lp_pool{axes}d": lambda x, i, b, shape=shape: {"x": gc.ones(shape), "norm": 2, "kernel": 2}
       for axes, shape in IMAGES.items()},
    **{f"max_unpool{axes}d": lambda x, i, b, shape=shape: {"x": gc.ones(shape), "indices": gc.zeros(shape, gc.i32), "kernel": 2}
       for axes, shape in IMAGES.items()},
    "arange": lambda x, i, b: {"start": 0, "stop": 6},
    "atan2": lambda x, i, b: {"y": x, "x": x},
    "attention": lambda x, i, b: {"q": x, "k": x, "v": x},
    "avg_pool1d": lambda x, i, b: {"x": gc.ones(ROW), "kernel": 2},
    "avg_pool2d": lambda x, i, b: {"x": gc.ones(IMAGE), "kernel": 2},
    "avg_pool3d": lambda x, i, b: {"x": gc.ones(VOLUME), "kernel": 2},
    "batch_norm": lambda x, i, b: {"x": x, "gamma": x[0], "beta": x[0]},
    "batch_norm_inference": lambda x, i, b: {"x": x, "gamma": x[0], "beta": x[0], "mean": x[0], "var": x[0]},
    "bce_with_logits": lambda x, i, b: {"logits": x, "targets": x},
    "bernoulli": lambda x, i, b: {"p": 0.5},
    "broadcast_to": lambda x, i, b: {"x": x, "shape": (2, 3, 4)},
    "cast": lambda x, i, b: {"x": x, "dtype": gc.f64},
    "bitcast": lambda x, i, b: {"x": x, "dtype": gc.i32},
    "compress": lambda x, i, b: {"mask": b, "x": x, "size": 5},
    "nonzero": lambda x, i, b: {"x": b, "size": 5},
    "unique": lambda x, i, b: {"x": x, "size": 5},
    **{name: lambda x, i, b: {"x": x[:, :3]} for name in ("cholesky", "det", "eigh", "inv", "qr", "slogdet")},
    **{name: lambda x, i, b: {"a": x[:, :3], "y": x} for name in ("solve", "solve_triangular")},
    "concat": lambda x, i, b: {"arrays": [x, x]}, "dstack": lambda x, i, b: {"arrays": [x, x]}, "column_stack": lambda x, i, b: {"arrays": [x, x]},
    "affine_grid": lambda x, i, b: {"theta": gc.ones((1, 2, 3)), "size": (1, 1, 2, 2)},
    **{f"fractional_max_pool{axes}d": lambda x, i, b, shape=shape: {"x": gc.ones(shape), "kernel": 2, "size": 2} for axes, shape in IMAGES.items() if axes > 1},
    "isin": lambda x, i, b: {"x": x, "values": x[0]}, "logspace": lambda x, i, b: {"start": 0, "stop": 2},
    "correlate": lambda x, i, b: {"x": x[0], "y": x[0]}, "gradient": lambda x, i, b: {"x": x, "axis": 0}, "vander": lambda x, i, b: {"x": x[0]},
    "matrix_power": lambda x, i, b: {"x": x[:, :3], "n": 2}, "nanquantile": lambda x, i, b: {"x": x, "q": 0.5},
    "trapezoid": lambda x, i, b: {"y": x}, "histogram": lambda x, i, b: {"x": x}, "histc": lambda x, i, b: {"x": x}, "custom_jvp": lambda x, i, b: {"f": gc.sin, "jvp": lambda xs, ys, ts: ts[0] * gc.cos(xs[0])},
    "cond": lambda x, i, b: {"pred": b[0, 0], "then": lambda: x, "otherwise": lambda: x * 2},
    "conv1d": lambda x, i, b: {"x": gc.ones(ROW), "w": gc.ones((2, 2, 3))},
    "conv2d": lambda x, i, b: {"x": gc.ones(IMAGE), "w": gc.ones((2, 2, 3, 3))},
    "conv3d": lambda x, i, b: {"x": gc.ones(VOLUME), "w": gc.ones((2, 2, 3, 3, 3))},
    "conv_transpose1d": lambda x, i, b: {"x": gc.ones(ROW), "w": gc.ones((2, 2, 3))},
    "conv_transpose2d": lambda x, i, b: {"x": gc.ones(IMAGE), "w": gc.ones((2, 2, 3, 3))},
    "conv_transpose3d": lambda x, i, b: {"x": gc.ones(VOLUME), "w": gc.ones((2, 2, 3, 3, 3))},
    "cross_entropy": lambda x, i, b: {"logits": x, "targets": gc.iota((3,))},
    "custom_vjp": lambda x, i, b: {"f": lambda y: y * 2, "vjp": lambda ins, outs, gs: gs * 2},
    "remat": lambda x, i, b: {"f": lambda y: y * 2}, "fake_quantize": lambda x, i, b: {"x": x, "scale": 0.5},
    "dot": lambda x, i, b: {"x": x, "y": x.T},
    "dropout": lambda x, i, b: {"x": x, "rate": 0.5},
    "dynamic_slice": lambda x, i, b: {"x": x, "starts": [i, 0], "sizes": (2, 2)},
    "dynamic_update_slice": lambda x, i, b: {"x": x, "update": x[:2, :2], "starts": [i, 0]},
    "einsum": lambda x, i, b: {"equation": "ij,kj->ik", "x": x, "y": x},
    "embedding": lambda x, i, b: {"table": x, "ids": gc.iota((2,))},
    "expand_dims": lambda x, i, b: {"x": x, "axis": 0},
    "eye": lambda x, i, b: {"n": 3},
    "full": lambda x, i, b: {"shape": (2, 3), "value": 1.0},
    "full_like": lambda x, i, b: {"x": x, "value": 1.0},
    "gather": lambda x, i, b: {"x": x, "indices": gc.iota((3, 4)), "axis": 0},
    "global_avg_pool": lambda x, i, b: {"x": gc.ones(IMAGE)},
    "global_max_pool": lambda x, i, b: {"x": gc.ones(IMAGE)},
    **{name: lambda x, i, b: {"x": gc.ones((3, 4, 2))} for name in ("fft", "ifft", "irfft")},
    "rfft": lambda x, i, b: {"x": x}, "stft": lambda x, i, b: {"x": x, "n_fft": 4},
    "istft": lambda x, i, b: {"x": gc.ones((3, 5, 2)), "n_fft": 4},
    "grid_sample": lambda x, i, b: {"x": gc.ones(IMAGE), "grid": gc.zeros((1, 3, 3, 2))},
    "group_norm": lambda x, i, b: {"x": x},
    "iota": lambda x, i, b: {"shape": (2, 3)},
    "linear_scan": lambda x, i, b: {"a": 0.5, "x": x},
    "matmul": lambda x, i, b: {"x": x, "y": x.T},
    "max_pool1d": lambda x, i, b: {"x": gc.ones(ROW), "kernel": 2},
    "max_pool2d": lambda x, i, b: {"x": gc.ones(IMAGE), "kernel": 2},
    "max_pool3d": lambda x, i, b: {"x": gc.ones(VOLUME), "kernel": 2},
    "moveaxis": lambda x, i, b: {"x": x, "source": 0, "destination": 1},
    "name": lambda x, i, b: {"x": x * 2, "text": "h"},
    "normal": lambda x, i, b: {"shape": (2, 3)},
    "one_hot": lambda x, i, b: {"ids": gc.iota((3,)), "depth": 4},
    "ones": lambda x, i, b: {"shape": (2, 3)},
    "outer": lambda x, i, b: {"x": x[0], "y": x[1]},
    "pad": lambda x, i, b: {"x": x, "widths": 1},
    "permutation": lambda x, i, b: {"n": 4},
    "polygamma": lambda x, i, b: {"n": 1, "x": x},
    "channel_shuffle": lambda x, i, b: {"x": gc.ones(IMAGE), "groups": 2},
    "fold": lambda x, i, b: {"x": gc.ones((1, 4, 9)), "size": 4, "kernel": 2},
    "gumbel_softmax": lambda x, i, b: {"logits": x},
    "interpolate": lambda x, i, b: {"x": gc.ones(IMAGE), "size": 3},
    "pixel_shuffle": lambda x, i, b: {"x": gc.ones((1, 4, 2, 2)), "upscale_factor": 2},
    "pixel_unshuffle": lambda x, i, b: {"x": gc.ones(IMAGE), "downscale_factor": 2},
    "unfold": lambda x, i, b: {"x": gc.ones(IMAGE), "kernel": 2},
    "cross": lambda x, i, b: {"x": x[:, :3], "y": x[:, :3]}, "hstack": lambda x, i, b: {"arrays": [x, x]}, "vstack": lambda x, i, b: {"arrays": [x, x]},
    "interp": lambda x, i, b: {"x": x, "xp": x[0], "fp": x[0]}, "searchsorted": lambda x, i, b: {"a": x[0], "v": x},
    "average": lambda x, i, b: {"x": x, "axis": 1, "weights": x[0]}, "heaviside": lambda x, i, b: {"x": x, "at_zero": 0.5}, "digitize": lambda x, i, b: {"x": x, "bins": x[0]},
    "bincount": lambda x, i, b: {"x": gc.iota((3,)), "length": 4}, "convolve": lambda x, i, b: {"x": x[0], "y": x[1]},
    "polyval": lambda x, i, b: {"p": x[0], "x": x}, "unravel_index": lambda x, i, b: {"x": i, "shape": (3, 4)},
    "meshgrid": lambda x, i, b: {}, "select": lambda x, i, b: {"conditions": [b], "choices": [x]},
    "linspace": lambda x, i, b: {"start": 0.0, "stop": 1.0, "num": 3}, "tri": lambda x, i, b: {"n": 3},
    "quantile": lambda x, i, b: {"x": x, "q": 0.5}, "percentile": lambda x, i, b: {"x": x, "q": 50.0},
    "prelu": lambda x, i, b: {"x": x, "weight": 0.1},
    "repeat": lambda x, i, b: {"x": x, "times": 2, "axis": 0},
    "reshape": lambda x, i, b: {"x": x, "shape": (4, 3)},
    "resize": lambda x, i, b: {"x": gc.ones(IMAGE), "shape": (3, 9)},
    "roll": lambda x, i, b: {"x": x, "shift": 1, "axis": 0},
    "scan": lambda x, i, b: {"f": lambda c, y: (c, None), "init": x[0], "xs": x},
    "gather_nd": lambda x, i, b: {"x": x, "indices": gc.iota((2, 2))},
    "index_put": lambda x, i, b: {"x": x, "indices": [[0, 1], [1, 2]], "values": 0.0},
    "scatter": lambda x, i, b: {"x": x, "indices": gc.iota((2,)), "updates": x[:2]},
    "scatter_along_axis": lambda x, i, b: {"x": x, "indices": gc.iota((3, 4)), "updates": x, "axis": 0},
    "scatter_nd": lambda x, i, b: {"x": x, "indices": gc.iota((2, 2)), "updates": 0.0},
    "scatter_add": lambda x, i, b: {"x": x, "indices": gc.iota((2,)), "updates": x[:2]},
    "scatter_add_along_axis": lambda x, i, b: {"x": x, "indices": gc.iota((3, 4)), "updates": x, "axis": 0},
    "split": lambda x, i, b: {"x": x, "parts": 3},
    "stack": lambda x, i, b: {"arrays": [x, x]},
    "swapaxes": lambda x, i, b: {"x": x, "axis1": 0, "axis2": 1},
    "take": lambda x, i, b: {"x": x, "indices": gc.iota((2,))},
    "take_along_axis": lambda x, i, b: {"x": x, "indices": gc.iota((3, 4)), "axis": 0},
    "threshold": lambda x, i, b: {"x": x, "threshold": 0.1, "value": 2.0},
    "tile": lambda x, i, b: {"x": x, "reps": 2},
    "topk": lambda x, i, b: {"x": x, "k": 2},
    "uniform": lambda x, i, b: {"shape": (2, 3)},
    "where": lambda x, i, b: {"condition": b, "x": x, "y": 0.0},
    "while_loop": lambda x, i, b: {"condition": lambda c: b[0, 0], "body": lambda c: c, "init": x, "max_trips": 3},
    "zeros": lambda x, i, b: {"shape": (2, 3)},
    "bitwise_and": lambda x, i, b: {"x": b, "y": b}, "bitwise_or": lambda x, i, b: {"x": b, "y": b}, "bitwise_xor": lambda x, i, b: {"x": b, "y": b},
    "bitwise_not": lambda x, i, b: {"x": b}, "left_shift": lambda x, i, b: {"x": i, "y": i}, "right_shift": lambda x, i, b: {"x": i, "y": i},
    "squeeze": lambda x, i, b: {"x": x[:1]},
}
METHODS = {                                                 # of arrays: arguments by position
    "astype": [gc.f64], "reshape": [(4, 3)], "transpose": [(1, 0)], "swapaxes": [0, 1], "squeeze": [None], "clip": [0, 1],
    **{name: [None] for name in ("sum", "mean", "prod", "max", "min", "var", "std", "all", "any", "argmax", "argmin", "cumsum", "cumprod")},
}
NOT_CALLED = {                                              # what else is public, and where it is tested
    "Array", "DType", "GraphFunction", "TensorType",        # made by others; types below
    "GraphError", "InternalError",
    "IntegerBlocks", "batches", "calibrate", "check_gradients", "compile", "draw", "explore", "export", "generate", "Generator", "grad", "graph", "hessian", "hvp", "jacfwd", "jacobian", "jacrev", "jvp", "load_weights", "parse", "plan", "save_weights",
    "train_step",
    "distributed", "from_gguf", "from_onnx", "from_pretrained", "from_torch", "to_onnx", "to_torch",        # doors, with tests of their own
    "debug_print",                                          # shows anything: test_debug_print.py
    "value_and_grad", "vjp", "vmap", "windows",             # on whole graphs: test_kinds_graphs.py
}


def public():
    return {n for n in dir(gc) if not n.startswith("_") and callable(getattr(gc, n)) and not isinstance(getattr(gc, n), types.ModuleType)}


def test_no_function_is_left_out():
    assert public() == CALLS.keys() | NOT_CALLED and not CALLS.keys() & NOT_CALLED
    methods = {n for n, v in {**vars(Symbol), **vars(Array)}.items() if not n.startswith("_") and inspect.isfunction(v)}
    assert methods - METHODS.keys() == {"flatten", "ravel", "item", "round", "settled", "view"}


@pytest.mark.parametrize("name", sorted(CALLS))
def test_the_call_itself_is_right(name):
    assert wrong(lambda value, x, i, b: getattr(gc, name)(**CALLS[name](x, i, b)), None) is None
    with pytest.raises(ZeroDivisionError):                  # and the calls below are made
        gc.graph(lambda x=0: (getattr(gc, name)(**CALLS[name](gc.zeros((3, 4)), gc.full((), 0), gc.zeros((3, 4), gc.bool_))), 1 / 0))


@pytest.mark.parametrize("name", sorted(CALLS))
def test_functions(name):
    function, bad = getattr(gc, name), []
    for argument, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            continue
        called = "Callable" in str(parameter.annotation)    # what a function of the user's raises is the user's
        for value in EVERYTHING:
            if called and callable(value):
                continue
            found = wrong(lambda value, x, i, b, argument=argument: function(**CALLS[name](x, i, b) | {argument: value}), value)
            bad += [f"{argument}={shown(value)}: {found}"] if found else []
    assert not bad, "\n".join(bad)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_methods(name):
    bad = []
    for place in range(len(METHODS[name])):
        for value in EVERYTHING:
            def call(value, x, i, b, place=place):
                arguments = [*METHODS[name][:place], value, *METHODS[name][place + 1:]]
                getattr(x[:1] if name == "squeeze" else x, name)(*arguments)
            found = wrong(call, value)
            bad += [f"{place}: {shown(value)}: {found}"] if found else []
    assert not bad, "\n".join(bad)


OPERATORS = {name: getattr(operator, name) for name in (
    "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor", "lshift", "rshift", "lt", "le", "gt", "ge", "eq", "ne")}


@pytest.mark.parametrize("op", OPERATORS)
def test_operators(op):
    bad = [f"{shown(value)}: {found}" for value in EVERYTHING if (found := wrong(lambda value, x, i, b: OPERATORS[op](x, value), value))]
    integers = [wrong(lambda value, x, i, b: OPERATORS[op](b if op in ("and_", "or_", "xor") else i, value), value) for value in EVERYTHING]
    bad += [f"{shown(value)}: {found}" for value, found in zip(EVERYTHING, integers) if found]
    assert not bad, "\n".join(bad)


def test_indices():
    bad = []
    for value in EVERYTHING:
        for index in (lambda v: v, lambda v: (0, v), lambda v: (v, v), lambda v: (..., v), lambda v: slice(v, None), lambda v: slice(None, v),
                      lambda v: slice(None, None, v), lambda v: [v], lambda v: (slice(None), v, None)):
            found = wrong(lambda value, x, i, b, index=index: x[index(value)], value)
            bad += [f"{shown(index(value))}: {found}"] if found else []
    assert not bad, "\n".join(bad)


def test_types():
    for value in EVERYTHING:
        for make in (lambda v: gc.f32[v], lambda v: gc.f32[2, v]):
            try:
                type_ = make(value)
            except gc.GraphError:
                continue
            assert all(isinstance(d, int) and 0 <= d < 2 ** 63 or str(d) for d in type_.shape), shown(value)
