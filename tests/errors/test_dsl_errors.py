"""One test per user mistake in a traced function: what the message says, and that it names the user's line (marked `# here`)."""
import numpy as np
import pytest

import graphc as gc

X, I, B, S = gc.f32[3, 4], gc.i32[3], gc.bool_[3, 4], gc.f32[()]


def trace(f, **types):
    from graphc.dsl.function import trace_types
    return trace_types(f, types)


def check(error, *fragments):
    for fragment in fragments:
        assert fragment in error.text, error.text
    assert error.loc is not None and error.loc.file == __file__ and "# here" in error.loc.code, str(error)
    assert str(error).endswith(error.loc.code)


def if_on_array(x):
    if x.sum() > 0:                                             # here
        return x
    return -x


def and_on_arrays(x):
    return (x > 0) and (x < 1)                                  # here


def while_on_array(x):
    while x[0, 0] < 5:                                          # here
        x = x * 2
    return x


def loop_body(x):
    def step(c, row):
        return c + row.sum() if c > 0 else c, None              # here
    return gc.scan(step, 0.0, x)


def carry_type(x):
    return gc.scan(lambda c, row: (c + row, None), 0.0, x)      # here


def carry_structure(x):
    return gc.scan(lambda c, row: ((c, c), None), 0.0, x)       # here


def carry_dtype(x):
    return gc.scan(lambda c, row: (c.astype(gc.f64), None), gc.zeros(4), x)     # here


def no_pair(x):
    return gc.scan(lambda c, row: c + row, gc.zeros(4), x)      # here


def lengths(x):
    return gc.scan(lambda c, ab: (c, ab[0]), 0.0, (x, x[1:]))   # here


def branches(x):
    return gc.cond(x[0, 0] > 0, lambda: x, lambda: (x, x))      # here


def branch_types(x):
    return gc.cond(x[0, 0] > 0, lambda: x, lambda: x[0])        # here


def cond_predicate(x):
    return gc.cond(x > 0, lambda: x, lambda: x)                 # here


def while_carry(x):
    return gc.while_loop(lambda c: c[0] < 3, lambda c: c[:2], x[0], max_trips=3)    # here


def set_item(x):
    x[0] = 1.0                                                  # here
    return x


def leaked(x):
    kept = []
    gc.scan(lambda c, row: (kept.append(row), (c, row))[1], 0.0, x)
    return kept[0] + 1                                          # here


CASES = [
    # what needs the numbers
    (if_on_array, ("gc.where", "gc.cond")),
    (and_on_arrays, ("& | ~",)),
    (while_on_array, ("gc.cond",)),
    (lambda x: float(x.sum()) * x, ("float() needs a number", "astype")),       # here
    (lambda x: x * int(x.sum()), ("int() needs a number",)),    # here
    (lambda x: x.sum().item() * x, ("item() needs a number",)),                 # here
    (lambda x: [1, 2, 3][x.argmax()], ("gc.take", "x.shape")),  # here
    (lambda x: range(x.argmax()), ("gc.scan",)),                # here
    (lambda x: np.exp(x), ("numpy's exp", "gc.exp")),           # here
    (lambda x: np.concatenate([x, x]), ("numpy's concatenate", "gc.concat")),   # here
    (lambda x: np.sum(x), ("gc.sum",)),                         # here
    (lambda x: np.square(x), ("gc.square",)),                   # here
    (lambda x: np.linalg.cond(x), ("numpy's cond", "graphc's functions")),      # here
    (lambda x: np.asarray(x), ("no numbers",)),                 # here
    (set_item, ("dynamic_update_slice",)),
    (lambda x: gc.conv_transpose2d(x.reshape(1, 1, 12, 1), np.ones((1, 1, 1, 1), np.float32), padding=1), ("would have the shape [1, 1, 10, -1]",)),     # here
    (lambda x: x.exp(), ("no attribute 'exp'", "gc.exp(x")),    # here
    (lambda x: x.unsqueeze(0), ("gc.expand_dims(x",)),          # here
    (lambda x: x.backward(), ("no attribute 'backward'",)),     # here
    # dtypes
    (lambda x, i: x[0, :3] + i, ("add of f32 and i32", "astype")),              # here
    (lambda x: x + np.ones(4), ("f32 and f64", "astype(f32)")),                 # here
    (lambda x, i: i + 1.5, ("1.5 does not fit the i32 array", "astype(gc.f32)")),               # here
    (lambda x, i: i + 2 ** 40, ("does not fit the i32",)),      # here
    (lambda x: (x > 0) + (x > 1), ("bool",)),                   # here
    (lambda x: (x > 0) * 2, ("does not fit the bool array", "astype")),         # here
    (lambda x: gc.where(x, x, 0.0), ("condition of where must be bool", "x > 0")),              # here
    (lambda x: x.astype("float128x"), ("not a dtype", "f32")),  # here
    (lambda x: x.astype(np.complex64), ("not a dtype",)),       # here
    (lambda x: x & 1, ("bitand",)),                             # here
    (lambda x: x + np.ones(4, np.complex64), ("complex64 is not supported",)),      # here
    (lambda x: x + "one", ("expected an array or a number, got str",)),         # here
    (lambda x: x + [x, x], ("gc.stack or gc.concat",)),         # here
    # shapes
    (lambda x: x + gc.zeros(3), ("[3, 4] and [3]", "do not broadcast")),        # here
    (lambda x: x @ x, ("matmul",)),                             # here
    (lambda x: x.reshape(5, 2), ("12 elements", "10 elements")),                # here
    (lambda x: x.reshape(5, -1), ("does not divide",)),         # here
    (lambda x: x.reshape(-1, -1), ("only one size may be -1",)),                # here
    (lambda x: x.sum(2), ("axis 2 is out of range", "-2..1")),  # here
    (lambda x: x.sum((0, 0)), ("name an axis twice",)),         # here
    (lambda x: x.transpose(0, 0), ("not a permutation",)),      # here
    (lambda x: x.squeeze(0), ("axis 0 has size 3",)),           # here
    (lambda x: gc.concat([x, x.T]), ("concat", "agree")),       # here
    (lambda x: gc.concat(x), ("takes a list", "gc.concat([a, b])")),            # here
    (lambda x: gc.stack([]), ("empty list",)),                  # here
    (lambda x: gc.split(x, 3, 1), ("does not divide into 3",)),                 # here
    (lambda x: gc.pad(x, ((1, 1),)), ("needs 2 pairs",)),       # here
    (lambda x: gc.broadcast_to(x, (3, 5)), ("broadcast",)),     # here
    (lambda x: gc.dynamic_slice(x, [0], [1, 1]), ("needs 2 starts",)),          # here
    (lambda x: gc.arange(x.sum()), ("Python numbers",)),        # here
    (lambda x: gc.zeros((-1, 2)), ("dimension must be >= 0",)),                 # here
    (lambda x: gc.zeros((1.5,)), ("a dimension is an int",)),   # here
    # indices
    (lambda x: x[3], ("index 3 is out of range for axis 0 of size 3",)),        # here
    (lambda x: x[0, 0, 0], ("too many indices", "[3, 4]")),     # here
    (lambda x: x[x > 0], ("boolean mask", "gc.where", "gc.compress(mask, x, size=…)")),         # here
    (lambda x: x[x], ("integer array", "astype")),              # here
    (lambda x: x["a"], ("'a' is not an index",)),               # here
    (lambda x: x[True], ("True and False",)),                   # here
    (lambda x: x[..., ...], ("only one ...",)),                 # here
    (lambda x: x[::0], ("step of a slice",)),                   # here
    (lambda x: x[x.argmax():], ("gc.dynamic_slice",)),          # here
    (lambda x: x[[5]], ("index 5 is out of range",)),           # here
    (lambda x: x[None][0, :, [1, 2]], ("two steps",)),          # here
    (lambda x: gc.take_along_axis(x, gc.arange(3), 0), ("1 axes and x has 2",)),                # here
    (lambda x: gc.one_hot(x, 4), ("one_hot takes integer",)),   # here
    # structured operators
    (lambda x: gc.conv2d(x, x), ("conv2d takes x and w with 4 axes", "[N, C, H, W] and [F, C / groups, KH, KW]")),              # here
    (lambda x: gc.conv2d(x[None], x[None]), ("got f32[1, 3, 4]", "conv1d takes [N, C, L]")),    # here
    (lambda x: gc.max_pool3d(x[None, None], 2), ("max_pool3d takes [N, C, D, H, W], got f32[1, 1, 3, 4]", "max_pool2d takes")),             # here
    (lambda x: gc.conv1d(x, gc.ones((2, 3, 3))), ("one image without a batch is x[None]",)),    # here
    (lambda x: gc.conv1d(x[None], gc.ones((4, 2, 3)), groups=2), ("3 channels", "groups=2 takes 4")),           # here
    (lambda x: gc.conv1d(x[:2][None], gc.ones((3, 1, 3)), groups=2), ("3 features cannot be divided into 2 groups",)),          # here
    (lambda x: gc.conv3d(x.reshape(1, 3, 1, 2, 2), gc.ones((2, 3, 2, 2, 2))), ("conv3d: the kernel covers 2 elements, the image with padding has only 1",)),             # here
    (lambda x: gc.conv1d(x[None], gc.ones((2, 3, 3)), padding=4, padding_mode="reflect"), ("has at most 3 elements", "padding (4, 4)")),    # here
    (lambda x: gc.conv1d(x[None], gc.ones((2, 3, 3)), padding_mode="mirror"), ("padding_mode is one of zeros, reflect",)),      # here
    (lambda x: gc.avg_pool1d(x[None], 2, padding=2), ("padding (2, 2) must be less than what the kernel covers, 2",)),          # here
    (lambda x: gc.max_pool1d(x[None], 2, padding=1, dilation=5), ("windows of dilation 5 step over an image of 4",)),           # here
    (lambda x: gc.adaptive_avg_pool2d(x[None, None], (1, 2, 3)), ("an int, None or 2 of them",)),               # here
    (lambda x: gc.max_unpool1d(x[None], x[None], 2), ("return_indices=True", "got f32[1, 3, 4]")),              # here
    (lambda x: gc.lp_pool1d(x[None], 0, 2), ("norm is a number above 0",)),     # here
    (lambda x: gc.conv1d(x[None], x[None], padding="full"), ('"same" or "valid"',)),            # here
    (lambda x: gc.conv2d(x[None, None], gc.ones((1, 1, 3, 3)), stride=0), (">= 1",)),           # here
    (lambda x: gc.max_pool2d(x, 2), ("max_pool2d takes [N, C, H, W]",)),        # here
    (lambda x: gc.max_pool2d(x[None, None], "2"), ("kernel is an int",)),       # here
    (lambda x: gc.einsum("ij,jk,kl->il", x, x), ("names 3 operands, got 2",)),  # here
    (lambda x: gc.einsum(x, "ij"), ("equation first",)),        # here
    (lambda x: gc.einsum("ii->i", x), ("must agree, got 3 and 4",)),             # here
    (lambda x: gc.layer_norm(x, beta=x), ("needs gamma",)),     # here
    (lambda x: gc.cross_entropy(x, x, ignore_index=0), ("probabilities",)),     # here
    (lambda x: gc.mse(x, 0, reduction="avg"), ("mean, sum, none",)),            # here
    (lambda x: gc.dropout(x, 1.0), ("rate must be in [0, 1)",)),                # here
    (lambda x: gc.uniform(3, key=x), ("i64[2]",)),              # here
    (lambda x: gc.uniform(3, dtype=gc.i32), ("f32 or f64",)),   # here
    (lambda x: gc.bernoulli(2.0), ("probability",)),            # here
    (lambda x: gc.gelu(x, approximate="fast"), ("fast",)),      # here
    # control
    (loop_body, ("gc.where",)),
    (carry_type, ("starts as f32[] and comes back from the body as f32[4]",)),
    (carry_structure, ("changes its structure", "array", "(array, array)")),
    (carry_dtype, ("f32[4]", "f64[4]", "astype")),
    (no_pair, ("returns (carry, y)",)),
    (lengths, ("differ in length", "3, 2")),
    (branches, ("different structures",)),
    (branch_types, ("same types", "f32[3, 4]", "f32[4]")),
    (cond_predicate, ("bool scalar",)),
    (while_carry, ("f32[4]", "f32[2]")),
    (lambda x: gc.scan(lambda c, _: (c, None), 0.0), ("needs xs, or length=",)),                # here
    (lambda x: gc.while_loop(lambda c: c, lambda c: c, (), 3), ("needs a carry",)),             # here
    (leaked, ("belongs to another graph",)),
    # names
    (lambda x: gc.name(x, "h"), ("is an argument",)),           # here
    (lambda x: gc.name(x + 1, "two words"), ("identifier",)),   # here
]


@pytest.mark.parametrize("i", range(len(CASES)))
def test_in_a_trace(i):
    f, fragments = CASES[i]
    import inspect
    types = {"x": X, "i": I}
    with pytest.raises(gc.GraphError) as info:
        trace(f, **{n: types[n] for n in inspect.signature(f).parameters})
    check(info.value, *fragments)


def test_named_sizes_have_no_length():
    with pytest.raises(gc.GraphError) as info:
        trace(lambda x: [row for row in x][0], x=gc.f32["B", 3])           # here
    check(info.value, "Python loop needs a size that is known", "gc.scan")
    with pytest.raises(gc.GraphError) as info:
        trace(lambda x: x.reshape(2, -1), x=gc.f32["B", 3])                # here
    check(info.value)
    with pytest.raises(gc.GraphError) as info:
        trace(lambda x: gc.conv1d(x, x, padding="same", stride=2), x=gc.f32[3, 2, "T"])     # here
    check(info.value, "T")


def test_outside_a_trace():
    with pytest.raises(gc.GraphError) as info:
        gc.exp(np.ones(3))                                                  # here
    check(info.value, "@gc.graph")


def test_arrays_of_a_finished_trace():
    kept = []
    trace(lambda x: kept.append(x) or x, x=X)
    with pytest.raises(gc.GraphError) as info:
        trace(lambda x: x + kept[0], x=X)                                   # here
    check(info.value, "belongs to another graph")


@pytest.mark.parametrize("f, fragments", [
    (lambda x: None, ("returns nothing", "return missing")),
    (lambda x: "text", ("returns a str",)),
    (lambda x: (x, None), ("returns nothing",)),
    (lambda x: {"a": {"b": x}}, ("returns a dict", "flat dict")),
    (lambda x: {1: x}, ("keys must be names",)),
    (lambda x: (), ("returns nothing",))])
def test_results(f, fragments):
    with pytest.raises(gc.GraphError) as info:
        trace(f, x=X)
    for fragment in fragments:
        assert fragment in info.value.text
    assert info.value.loc.file == __file__


def test_annotations():
    def no_type(x): return x
    def element_type(x: gc.f32): return x
    def starred(*x: X): return x
    def unknown(x: "gc.f32[width]"): return x
    def negative(x: "gc.f32[-2]"): return x
    def half(x: "gc.f32[2.5]"): return x
    for f, text in ((no_type, "needs an array type"), (element_type, "gc.f32[()] for a scalar"), (starred, "fixed list of arguments"),
                    (unknown, "name 'width' is not defined"), (negative, ">= 0"), (half, "a dimension is an int")):
        with pytest.raises(gc.GraphError) as info:
            gc.graph(f)
        assert text in info.value.text, info.value.text
        assert info.value.loc.line == f.__code__.co_firstlineno


@gc.graph
def loss(w: gc.f32[4], x: gc.f32[3, 4], i: gc.i32[3], scale: float = 1.0):
    return (x @ w).sum() * scale


@gc.graph
def by_choice(w: gc.f32[4], x: gc.f32[3, 4]):
    best = gc.argmax(x * w, 1)
    return (x @ w).sum() + best.sum().astype(gc.f32) * 0


@gc.graph
def only_by_choice(w: gc.f32[4], x: gc.f32[3, 4]):
    best = gc.argmax(x * w, 1)                                  # here
    return best.sum().astype(gc.f32)


@gc.graph
def rows(w: gc.f32[4], x: gc.f32[3, 4]):
    return x @ w


@gc.graph
def pair(w: gc.f32[4]):
    return w.sum(), w


def plain(w):
    return w


GRAD_MISTAKES = [
    (lambda: gc.grad(loss, wrt="v"), ("'v' is not one of its arguments: w, x, i",)),            # here
    (lambda: gc.grad(loss, wrt="i"), ("'i' is i32[3]", "float")),               # here
    (lambda: gc.grad(loss), ("say for which argument", "w, x")),                # here
    (lambda: gc.grad(loss, wrt=3), ("a name, a tuple of names, or a network",)),                # here
    (lambda: gc.grad(rows, wrt="w"), ("it returns f32[3]", "gc.sum or gc.mean", "gc.vjp")),     # here
    (lambda: gc.grad(pair, wrt="w"), ("it returns 2 arrays",)),                 # here
    (lambda: gc.grad(plain, wrt="w"), ("put @gc.graph above",)),                # here
    (lambda: gc.graph(3), ("traced from a Python function, got int",)),         # here
    (lambda: gc.jacobian(pair, wrt="w"), ("it returns 2 arrays",)),             # here
    (lambda: gc.vjp(only_by_choice, wrt="v"), ("'v' is not one",)),             # here
    (lambda: gc.grad(only_by_choice, wrt="w"), ("'w' reaches the result only through argmax",)),
    (lambda: loss(np.ones(4, np.float32)), ("needs 'x'",)),     # here
    (lambda: loss(1, 2, 3, 4), ("takes 3 arrays, got 4",)),     # here
    (lambda: loss(1, 2, 3, w=1), ("got 'w' twice",)),           # here
    (lambda: loss(1, 2, 3, v=1), ("no argument 'v'",)),         # here
    (lambda: loss(1, 2, 3, scale=2.0), ("'scale' of loss is a Python constant",)),              # here
]


@pytest.mark.parametrize("i", range(len(GRAD_MISTAKES)))
def test_graphs(i):
    f, fragments = GRAD_MISTAKES[i]
    with pytest.raises(gc.GraphError) as info:
        f()
    check(info.value, *fragments)


def test_choice_beside_another_path_is_no_mistake():
    gc.grad(by_choice, "w")


def test_inlining():
    with pytest.raises(gc.GraphError) as info:
        trace(lambda x: loss(x[0], x[:2], gc.arange(3).astype(gc.i32)), x=X)       # here
    check(info.value, "loss: argument 'x' is f32[3, 4], got f32[2, 4]")

    @gc.graph
    def same(a: gc.f32["N"], b: gc.f32["N"]):
        return a + b
    with pytest.raises(gc.GraphError) as info:
        trace(lambda x: same(x[0], x[:, 0]), x=X)                               # here
    check(info.value, "argument 'b' is f32[N], with N = 4, got f32[3]")


def test_custom_gradients():
    twice = gc.custom_vjp(lambda x: x * 2, lambda ins, out, g: (g, g))
    with pytest.raises(gc.GraphError) as info:
        trace(lambda x: twice(x), x=X)                          # here
    check(info.value, "returned 2 gradients for 1 float inputs")
    shape = gc.custom_vjp(lambda x: x * 2, lambda ins, out, g: g.sum())
    with pytest.raises(gc.GraphError) as info:
        trace(lambda x: shape(x), x=X)                          # here
    check(info.value, "gradient 0 is f32[], its input is f32[3, 4]")

    def outside(x):
        return gc.custom_vjp(lambda a: a + x, lambda ins, out, g: g)(x[0])     # here
    with pytest.raises(gc.GraphError) as info:
        trace(outside, x=X)
    check(info.value, "pass it as an argument")


def test_state_in_a_loop():
    from graphc.dsl.context import current_trace
    key = object()

    def step(c, row):
        trace = current_trace()
        w = trace.state(key, "mean", gc.f32[4])
        trace.update_state(key, w + row)                        # here
        return c, None
    with pytest.raises(gc.GraphError) as info:
        trace(lambda x: gc.scan(step, 0.0, x), x=X)
    check(info.value, "inside scan")


def test_endless_recursion():
    def f(x):
        return f(x + 1)
    with pytest.raises(gc.GraphError) as info:
        trace(f, x=X)
    assert "gc.while_loop" in info.value.text


def test_foreign_names_lead_to_public_functions():
    from graphc.dsl.foreign import FUNCTIONS, METHODS
    assert all(hasattr(gc, name) for name in [*FUNCTIONS.values(), *METHODS.values()])
