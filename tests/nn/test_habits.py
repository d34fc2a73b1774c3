"""What users of PyTorch write by habit is what they mean, or an error that says the right form: for every layer, loss, activation and optimizer."""
import inspect
import re

import numpy as np
import pytest
from network import normal, run

import graphc as gc
from graphc import nn, optim

CONV = [("(3, 16, 3)", "(16, 3)"), ("(3, 16, 3, 2, 1)", "(16, 3, stride=2, padding=1)"), ("(3, 16, kernel_size=3, bias=False)", "(16, 3, bias=False)"),
        ("(in_channels=3, out_channels=16, kernel_size=5)", "(16, 5)"), ("(3, 16, 3, padding_mode='circular')", "(16, 3, padding_mode='circular')")]
TRANSPOSED = [*CONV[:4], ("(3, 16, 3, 2, 1, 1)", "(16, 3, output_padding=1, stride=2, padding=1)"), ("(3, 16, 3, padding_mode='reflect')", "(16, 3) without padding_mode")]
RECURRENT = [("(10, 20)", "(20)"), ("(10, 20, 2)", "(20, layers=2)"), ("(20, num_layers=2)", "(20, layers=2)"),
             ("(10, 20, num_layers=2, batch_first=True, dropout=0.5)", "(20, layers=2, batch_first=True, dropout=0.5)"),
             ("(input_size=10, hidden_size=20)", "(20)")]
BATCH_NORM = [("(64)", "()"), ("(64, 1e-3)", "(eps=0.001)"), ("(num_features=64, momentum=0.2)", "(momentum=0.2)"),
              ("(64, track_running_stats=False)", "(track_running_stats=False)")]
MAX_POOL = [("(3, 2, 1, 1, False, True)", "(3, 2, 1, 1, return_indices=False, ceil_mode=True)"), ("(kernel_size=3, stride=2)", "(3, 2)")]
AVG_POOL = [("(3, 2, 1, True)", "(3, 2, 1, ceil_mode=True)"), ("(kernel_size=3, count_include_pad=False)", "(3, count_include_pad=False)")]
BLOCK = [("(512, 8)", "(8)"), ("(512, 8, 2048)", "(8, hidden=2048)"), ("(d_model=512, nhead=8, dim_feedforward=64, norm_first=True, batch_first=True)",
                                                                       "(8, hidden=64, pre_norm=True)")]
ADAM = [("(NET.parameters(), lr=1e-3)", "(0.001)"), ("(NET.parameters(), 1e-3, (0.9, 0.99))", "(0.001, betas=(0.9, 0.99))"),
        ("(1e-3, (0.9, 0.99))", "(0.001, betas=(0.9, 0.99))")]
HABITS = {
    "Linear": [("(3, 4)", "(4)"), ("(3, 4, False)", "(4, bias=False)"), ("(in_features=3, out_features=4)", "(4)")],
    "Embedding": [("(100, 32, 0)", "(100, 32) without padding_idx"), ("(num_embeddings=100, embedding_dim=32)", "(100, 32)")],
    "Flatten": [("(1, -1)", "(1)"), ("(1, 2)", "(1) without end_dim"), ("(start_dim=2)", "(2)")],
    **{f"{name}{axes}d": rows for axes in (1, 2, 3) for name, rows in {
        "Conv": CONV, "ConvTranspose": TRANSPOSED, "MaxPool": MAX_POOL, "AvgPool": AVG_POOL, "LPPool": [("(2, 3, 2, True)", "(2, 3, 2, ceil_mode=True)"), ("(norm_type=2, kernel_size=3)", "(2, 3)")],
        "AdaptiveAvgPool": [("(output_size=3)", "(3)")], "AdaptiveMaxPool": [("(3, True)", "(3, return_indices=True)")],
        "MaxUnpool": [("(kernel_size=3)", "(3)")]}.items()},
    "BatchNorm1d": BATCH_NORM, "BatchNorm2d": BATCH_NORM,
    "LayerNorm": [("(64)", "()"), ("((64,))", "()"), ("((8, 64))", "(axes=2)"), ("([8, 64], 1e-6)", "(axes=2, eps=1e-06)"),
                  ("(64, elementwise_affine=False)", "(affine=False)"), ("(normalized_shape=64, bias=False)", "() without bias")],
    "RMSNorm": [("(64)", "()"), ("(64, eps=1e-5)", "(eps=1e-05)"), ("((64,), 1e-5)", "(eps=1e-05)")],
    "GroupNorm": [("(8, 64)", "(8)"), ("(num_groups=8, num_channels=64)", "(8)"), ("(8, 64, 1e-3)", "(8, eps=0.001)")],
    "Dropout": [("(p=0.2)", "(0.2)"), ("(0.2, True)", "(0.2)")],
    "RNN": [*RECURRENT, ("(10, 20, nonlinearity='relu')", "(20, activation='relu')")], "LSTM": RECURRENT, "GRU": RECURRENT,
    "MultiHeadAttention": [("(512, 8)", "(8)"), ("(512, 8, 0.1)", "(8) without dropout"), ("(embed_dim=512, num_heads=8, batch_first=True)", "(8)")],
    "TransformerBlock": BLOCK, "DecoderBlock": BLOCK,
    "SGD": [("(NET.parameters(), lr=0.1)", "(0.1)"), ("(NET.parameters(), 0.1, 0.9)", "(0.1, momentum=0.9)"), ("(0.1, 0.9)", "(0.1, momentum=0.9)"),
            ("(NET.parameters(), lr=0.1, nesterov=True, dampening=0.5)", "(0.1, dampening=0.5, nesterov=True)")],
    "Adam": ADAM, "AdamW": ADAM, "RMSprop": [("(NET.parameters(), lr=0.1, momentum=0.9)", "(0.1, momentum=0.9)")],
    **{name: [("(NET.parameters(), lr=0.1)", "(0.1)"), ("(NET.parameters(), 0.1, weight_decay=0.5)", "(0.1, weight_decay=0.5)")]
       for name in "ASGD Adadelta Adafactor Adagrad Adamax Muon NAdam RAdam Rprop Lion LAMB ScheduleFreeSGD ScheduleFreeAdamW".split()},
    "LBFGS": [("(NET.parameters(), lr=0.1)", "(0.1)"), ("(NET.parameters(), 1, 20, None, 1e-7, 1e-9, 50, 'strong_wolfe')",
                                                    "(1, history_size=50, tolerance_change=1e-09) without max_iter, line_search_fn")],
    "cross_entropy": [("(Y, T, W)", "(<ndarray>, <ndarray>, weight=<ndarray>)"), ("(Y, T, size_average=True, label_smoothing=0.1)",
                                                                            "(<ndarray>, <ndarray>, label_smoothing=0.1) without size_average")],
    "mse": [("(Y, T, size_average=False)", "(<ndarray>, <ndarray>) without size_average")],
    "bce": [("(Y, T, W)", "(<ndarray>, <ndarray>, weight=<ndarray>)"), ("(Y, T, W, None, None, 'sum', W)", "(<ndarray>, <ndarray>, weight=<ndarray>, pos_weight=<ndarray>, reduction='sum')")],
    **{name: [("(Y, T, True)", "(<ndarray>, <ndarray>) without size_average"), ("(Y, T, None, None, 'sum')", "(<ndarray>, <ndarray>, reduction='sum')")]
       for name in ("l1_loss", "smooth_l1_loss", "kl_div", "soft_margin_loss", "multilabel_margin_loss")},
    "huber_loss": [("(Y, T, 'sum', 0.5)", "(<ndarray>, <ndarray>, reduction='sum', delta=0.5)")],
    "nll_loss": [("(Y, T, W, None, -1)", "(<ndarray>, <ndarray>, <ndarray>, ignore_index=-1)")],
    "poisson_nll_loss": [("(Y, T, False, True)", "(<ndarray>, <ndarray>, log_input=False, full=True)")],
    "gaussian_nll_loss": [("(Y, T, W, True)", "(<ndarray>, <ndarray>, <ndarray>, full=True)")],
    **{name: [("(Y, T, W, None, None, 'sum')", "(<ndarray>, <ndarray>, <ndarray>, reduction='sum')")]
       for name in ("binary_cross_entropy", "multilabel_soft_margin_loss")},
    "hinge_embedding_loss": [("(Y, T, 0.5)", "(<ndarray>, <ndarray>, margin=0.5)")],
    **{name: [("(Y, Y, T, 0.5)", "(<ndarray>, <ndarray>, <ndarray>, margin=0.5)")] for name in ("margin_ranking_loss", "cosine_embedding_loss", "triplet_margin_loss")},
    "multi_margin_loss": [("(Y, T, 2, 0.5, W)", "(<ndarray>, <ndarray>, p=2, margin=0.5, weight=<ndarray>)")],
    "sigmoid_focal_loss": [("(Y, T, 0.5)", "(<ndarray>, <ndarray>, alpha=0.5)")],
    "triplet_margin_with_distance_loss": [("(Y, Y, T, None)", None)], "log_cosh_loss": [("(Y, T, 'sum')", None)], "dice_loss": [("(Y, T, 1.0)", None)],
    **{name: [("(inplace=True)", "()")] for name in ("relu6", "selu", "mish", "hardsigmoid", "hardswish")},
    "celu": [("(1.5)", ""), ("(alpha=1.5, inplace=True)", "(alpha=1.5)")], "hardtanh": [("(0.0, 1.0)", ""), ("(min_val=0.0, inplace=True)", "(min_val=0.0)")],
    "threshold": [("(0.1, 2.0)", "")], "softmin": [("(1)", ""), ("(dim=1)", "(axis=1)")], "glu": [("(1)", ""), ("(dim=1)", "(axis=1)")],
    "hardshrink": [("(0.1)", "")], "softshrink": [("(0.1)", "")],
    "relu": [("(inplace=True)", "()")], "silu": [("(inplace=True)", "()")], "elu": [("(1.5)", ""), ("(alpha=1.5, inplace=True)", "(alpha=1.5)")],
    "leaky_relu": [("(0.2)", ""), ("(negative_slope=0.2)", "(slope=0.2)"), ("(0.2, True)", "")], "gelu": [("('tanh')", "")],
    "softplus": [("(2)", ""), ("(beta=2, threshold=10)", "(beta=2) without threshold")],
    "softmax": [("(1)", ""), ("(dim=1)", "(axis=1)")], "log_softmax": [("(dim=-1)", "(axis=-1)")],
}
HABITS |= {
    "Flatten": [("(start_dim=2)", "(2)"), ("(start_dim=1, end_dim=2)", "(1, 2)")],
    "Embedding": [("(num_embeddings=100, embedding_dim=32, padding_idx=0)", "(100, 32, padding_idx=0)"), ("(100, 32, 0)", "(100, 32, padding_idx=0)")],
    "EmbeddingBag": [("(100, 32, None, 2.0, False, 'sum')", "(100, 32, mode='sum')"), ("(num_embeddings=100, embedding_dim=32)", "(100, 32)")],
    **{f"InstanceNorm{n}d": [("(64)", "()"), ("(64, 1e-3)", "(eps=0.001)"), ("(num_features=64, affine=True)", "(affine=True)")] for n in (1, 2, 3)},
    "BatchNorm3d": BATCH_NORM, **{f"Dropout{n}d": [("(p=0.2)", "(0.2)"), ("(0.2, True)", "(0.2)")] for n in (1, 2, 3)},
    "AlphaDropout": [("(p=0.2)", "(0.2)"), ("(0.2, True)", "(0.2)")], "FeatureAlphaDropout": [("(p=0.2)", "(0.2)"), ("(0.2, True)", "(0.2)")],
    "RNNCell": [("(10, 20)", "(20)"), ("(10, 20, False, 'relu')", "(20, bias=False, activation='relu')")],
    **{name: [("(10, 20)", "(20)"), ("(input_size=10, hidden_size=20, bias=False)", "(20, bias=False)")] for name in ("LSTMCell", "GRUCell")},
    "Bilinear": [("(10, 20, 30)", "(30)"), ("(in1_features=3, in2_features=4, out_features=5)", "(5)")],
    "CosineSimilarity": [("(dim=2)", "(2)")], "PairwiseDistance": [("(keepdim=True)", "(keepdims=True)")],
    "RReLU": [("(inplace=True)", "()"), ("(0.1, 0.2, True)", "(0.1, 0.2)")], "Unflatten": [("(dim=1, unflattened_size=(2, 3))", "(1, (2, 3))")],
    "Unfold": [("(3, 1, 1, 2)", "(3, dilation=1, padding=1, stride=2)"), ("(kernel_size=3)", "(3)")],
    "Fold": [("(8, 3, 1, 1, 2)", "(8, 3, dilation=1, padding=1, stride=2)"), ("(output_size=8, kernel_size=3)", "(8, 3)")],
}
OURS = {                        # what torch has not: calls that are right, each of which refuses one argument more
    "Module": "()", "FractionalMaxPool2d": "(2)", "FractionalMaxPool3d": "(2)", "AdaptiveLogSoftmaxWithLoss": None, "Sequential": None, "FeedForward": "(3, 'tanh')", "GlobalAvgPool2d": "()", "AddNorm": "(NET)", "Attention": "(3)",
    "Collapse": "('last')", "LearnedPosition": "(3)", "RelativePosition": "(8)", "RotaryPosition": "()", "SinusoidalPosition": "()",
    "GenerateToken": "(nn.Embedding(3, 4))", "LanguageModel": "(nn.Embedding(3, 4), NET, 'last', NET)", "Seq2Seq": "(NET, NET, None)", "AttendTo": "(3)",
    "Residual": "(NET)", "Identity": None, "PixelShuffle": "(2)", "PixelUnshuffle": "(2)", "ChannelShuffle": "(2)", "LocalResponseNorm": None, "PReLU": None,
    "Upsample": None, "UpsamplingNearest2d": None, "UpsamplingBilinear2d": None, "ctc_loss": None, "Eye": None, "Dirac": "(2)", "Sparse": None, "TruncNormal": None,
    "XavierNormal": "(0.5)", "KaimingNormal": None, "KaimingUniform": None, "LecunNormal": "(0.5)", "Orthogonal": "(0.5)", "calculate_gain": None, "LoRA": "(NET, 2)",
    **{f"ConstantPad{n}d": "(1, 0.5)" for n in (1, 2, 3)}, **{f"{kind}Pad{n}d": "(1)" for kind in ("Zero", "Reflection", "Replication", "Circular") for n in (1, 2, 3)}, "Constant": "(0.5)", "Normal": "(0.5)", "Uniform": "(0.5)", "Value": "((1,))", "XavierUniform": "(0.5)", "Optimizer": "(0.1)"}
UNLIKE = {"weight_norm", "spectral_norm", "sigmoid", "from_torch", "add_lora", "tanh", "logsigmoid", "softsign", "tanhshrink", "residual", "sample", "likeliest", "decoding", "accuracy", "log_likelihood", "sequence_loss", "Group", "Item", "Slots",
          "Parameter", "apply", "as_like", "averages", "constant", "cosine", "cosine_restarts", "cyclic", "inverse_sqrt", "linear", "multi_step", "one_cycle", "polynomial", "sequential",
          "exponential", "global_norm", "group", "hyperparameters", "is_schedule", "no_decay", "schedule", "step_decay", "warmup"}    # functions of our own
NAMES = {"nn": nn, "optim": optim, "NET": nn.Linear(3), "Y": normal(3, 4), "T": np.zeros(3, np.int32), "W": normal(4)}


def public(module):
    """Classes and functions of the module that are graphc's own."""
    return {n for n, v in ((n, getattr(module, n)) for n in dir(module)) if not n.startswith("_") and not inspect.ismodule(v) and callable(v)
            and (isinstance(v, nn.Module) or getattr(v, "__module__", "").startswith("graphc.nn" if module is nn else "graphc.optim"))}


def called(name, arguments):
    return eval(f"{'nn' if hasattr(nn, name) else 'optim'}.{name}{arguments}", NAMES)


def test_every_layer_and_function_is_in_the_tables():
    assert public(nn) | public(optim) == HABITS.keys() | OURS.keys() | UNLIKE


@pytest.mark.parametrize("name, arguments, here", [(n, *case) for n, cases in HABITS.items() for case in cases])
def test_a_habit_is_refused_with_the_right_form(name, arguments, here):
    with pytest.raises(gc.GraphError) as caught:
        called(name, arguments)
    if here is None:                    # nothing of torch's fits, but the form is said
        assert re.search(rf"{name}\(.*; the form is {name}\(", caught.value.text)
        return
    if not here:
        assert re.search(rf"{name}\(.*\): options are given by name: nn.{name}\(\w+=", caught.value.text)
        return
    found = re.search(r"here it is \w+(\(.*?\)(?: without [\w, ]+?)?)(?:, which it does not have)?; the form is ", caught.value.text)
    assert found, caught.value.text
    assert found[1] == here and caught.value.loc.file == "<string>"
    if "<" not in here:
        called(name, here.partition(" without")[0])                     # which can be called


@pytest.mark.parametrize("name, arguments", [(n, a) for n, a in OURS.items() if a])
def test_our_own_layers_say_their_form(name, arguments):
    called(name, arguments)
    more = arguments[:-1] + (", 7)" if len(arguments) > 2 else "7)")
    for wrong in (more, arguments[:-1] + (", " if len(arguments) > 2 else "") + "no_such_option=3)"):
        with pytest.raises(gc.GraphError, match=rf"^{name}\(.*; the form is {name}\(") as caught:
            called(name, wrong)
        assert caught.value.loc.file == "<string>"


@pytest.mark.parametrize("name, arguments", [("Adam", "(NET.parameters())"), ("SGD", "(NET)"), ("AdamW", "(p for p in [])"), ("SGD", "('0.1')"), ("SGD", "(None)")])
def test_an_optimizer_is_not_given_parameters(name, arguments):
    with pytest.raises(gc.GraphError, match=rf"{name}\(.*\): lr is a number or a schedule.* the training step finds them: optim.{name}\(1e-3\)"):
        called(name, arguments)


def test_what_both_call_alike_means_the_same():
    """Pools, dropout and flatten by position, as in torch."""
    for ours, wanted in ((nn.MaxPool2d(3, 2, 1), {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1)}), (nn.Dropout(0.2), {"rate": 0.2}),
                         (nn.AvgPool1d(4), {"kernel": (4,), "stride": (4,), "padding": (0,)}), (nn.Flatten(2), {"start_axis": 2}),
                         (nn.Conv2d(16, 3), {"channels": 16, "kernel": (3, 3)}), (nn.Embedding(9, 4), {"count": 9, "features": 4})):
        assert {n: getattr(ours, n) for n in wanted} == wanted


@pytest.mark.parametrize("call, here", [
    ("dropout(x, 0.5, True)", r"dropout\(<Array>, 0.5\);"), ("dropout(x, 0.5, False)", "dropout.* without training"),
    ("dropout(x, p=0.5)", r"dropout\(<Array>, 0.5\);"),
    ("attention(x, x, x, None, 0.0, True)", r"attention\(<Array>, <Array>, <Array>, None, causal=True\);"),
    ("attention(x, x, x, None, 0.1, True)", r".*causal=True\) without dropout_p"),
    ("avg_pool2d(x, 2, 2, 0, True)", r"avg_pool2d\(<Array>, 2, 2, 0, ceil_mode=True\);"),
    ("avg_pool1d(x, 2, 2, 0, False)", r"avg_pool1d\(<Array>, 2, 2, 0, ceil_mode=False\);"),
    ("max_pool3d(x, 2, 2, 0, 1, True)", r"max_pool3d\(<Array>, 2, 2, 0, 1, ceil_mode=True\);"),
    ("layer_norm(x, (8, 8), w, w, 1e-6)", r"layer_norm\(<Array>, <Array>, <Array>, axes=2, eps=1e-06\);"),
    ("rms_norm(x, (8,), w, 1e-6)", r"rms_norm\(<Array>, <Array>, eps=1e-06\);"),
    ("group_norm(x, 4, w, w)", r"group_norm\(<Array>, <Array>, <Array>, groups=4\);"),
    ("batch_norm_inference(x, w, w, w, w)", ""), ("softmax(x, dim=1)", r"softmax\(<Array>, 1\);")])
def test_functions_of_arrays_do_not_take_one_argument_for_another(call, here):
    """Where torch has another argument at the place of one that would take its value."""
    with pytest.raises(gc.GraphError, match=rf"here it is {here}.* the form is|too many positional arguments; the form is"):
        gc.compile(lambda x, w: eval(f"gc.{call}", {"gc": gc, "x": x, "w": w}), x=gc.f32[2, 8, 8, 8], w=gc.f32[8])


def test_options_of_activations_by_position():
    """Behind the array, as in torch.nn.functional."""
    x = normal(2, 3)
    run = gc.compile(lambda x: (nn.leaky_relu(x, 0.2), nn.softmax(x, 0), nn.elu(x, 2.0)), x=gc.f32[2, 3])
    same = gc.compile(lambda x: (nn.leaky_relu(x, slope=0.2), nn.softmax(x, axis=0), nn.elu(x, alpha=2.0)), x=gc.f32[2, 3])
    assert all(map(np.array_equal, run(x), same(x)))
    with pytest.raises(gc.GraphError, match=r"relu\(<Array>, True\): here it is relu\(<Array>\)"):
        gc.compile(lambda x: nn.relu(x, True), x=gc.f32[2, 3])


def test_a_layer_of_the_users_own_is_refused_by_the_name_of_its_base():
    class Mine(nn.LSTM):
        def __init__(self):
            super().__init__(10, 20)            # the line

    class Inherits(nn.Linear):
        pass

    class Broken(nn.Module):
        def __init__(self, size):
            super().__init__()
            self.size = size + "1"
    with pytest.raises(gc.GraphError, match=r"^LSTM\(10, 20\): here it is LSTM\(20\)") as caught:
        Mine()
    assert "# the line" in caught.value.loc.code
    with pytest.raises(gc.GraphError, match=r"^Inherits\(3, 4\): "):
        Inherits(3, 4)
    with pytest.raises(TypeError, match="unsupported operand"):         # a mistake inside is theirs to read
        Broken(1)


# the order of batch and time

T = 4
X = normal(T, T, 3)


@pytest.mark.parametrize("make", [
    lambda **o: nn.GRU(5, batch_first=True) >> nn.Collapse("last", **o),
    lambda **o: nn.GRU(5, batch_first=True) >> nn.LayerNorm() >> nn.Linear(4) >> nn.relu >> (lambda y: y * 2 + 1) >> nn.Collapse("first", **o),
    lambda **o: nn.LSTM(5, batch_first=True) >> nn.Dropout(0.5) >> nn.RNN(4, **o),
    lambda **o: nn.SinusoidalPosition() >> nn.TransformerBlock(3) ** 2 >> nn.Collapse("average", **o),
    lambda **o: nn.LearnedPosition() >> nn.Residual(nn.Linear(3)) >> nn.GRU(5, **o),
    lambda **o: nn.Sequential(nn.Sequential(nn.MultiHeadAttention(1)), nn.AddNorm(nn.Linear(3))) >> nn.Collapse("last", **o),
    lambda **o: nn.Attention(3) >> nn.Collapse("last", **o),
    lambda **o: nn.GRU(5) >> (lambda y: y.transpose(1, 0, 2)) >> nn.Collapse("last", **o)])
def test_batch_first_travels_along_a_chain(make):
    """Where batch and time are of one size nothing else would tell."""
    told, state = run(make(batch_first=True), X)
    untold, _ = run(make(), X, state=state)
    assert np.array_equal(told, untold)
    with pytest.raises(gc.GraphError, match=r"takes \[time, batch, …\], and what it gets is \[batch, time, …\]"):
        run(make(batch_first=False), X)


@pytest.mark.parametrize("make", [
    lambda: nn.GRU(4) >> nn.TransformerBlock(2), lambda: nn.GRU(4) >> nn.Linear(6) >> nn.SinusoidalPosition(), lambda: nn.LSTM(4) >> nn.LearnedPosition(),
    lambda: nn.RNN(4) >> nn.Attention(), lambda: nn.GRU(4, batch_first=False) >> nn.GRU(4, batch_first=True)])
def test_time_first_is_not_taken_for_batch_first(make):
    with pytest.raises(gc.GraphError, match=r"takes \[batch, time, …\], and what it gets is \[time, batch, …\]"):
        run(make(), X)


def test_nothing_said_is_time_first():
    y, _ = run(nn.Linear(2) >> nn.Collapse("last"), X)
    whole, _ = run(nn.Linear(2), X)
    np.testing.assert_allclose(y, run(nn.Sequential(nn.Linear(2)), X[-1:])[0][0], rtol=1e-5)


def test_losses_of_sequences_know_the_order():
    lengths, target = np.int32([1, 2, 3, 4]), np.zeros((T, T), np.int32)
    net = nn.GRU(5, batch_first=True)

    def loss(x, t, n, **options):
        return nn.sequence_loss(net(x), t, lengths=n, reduction="none", **options), nn.accuracy(net(x), t, lengths=n, **options)
    arrays = {"x": gc.f32[T, T, 3], "t": gc.i32[T, T], "n": gc.i32[T]}
    told = gc.compile(lambda x, t, n: loss(x, t, n, batch_first=True), seed=0, **arrays)(X, target, lengths)
    untold = gc.compile(lambda x, t, n: loss(x, t, n), seed=0, **arrays)(X, target, lengths)
    assert all(map(np.array_equal, told, untold))
    with pytest.raises(gc.GraphError, match=r"sequence_loss takes \[time, batch, …\]"):
        gc.compile(lambda x, t, n: loss(x, t, n, batch_first=False), seed=0, **arrays)


def test_classes_that_may_be_on_either_axis():
    arrays = {"y": gc.f32[2, 5, 5], "t": gc.i32[2, 5]}
    with pytest.raises(gc.GraphError, match="classes may be on axis 1, as always in torch, or on the last; give axis=1 or axis=-1"):
        gc.compile(lambda y, t: nn.cross_entropy(y, t), **arrays)
    gc.compile(lambda y, t: nn.cross_entropy(y, t, axis=1), **arrays)
    gc.compile(lambda y, t: nn.cross_entropy(y, t), y=gc.f32[2, 5, 4], t=gc.i32[2, 5])
    gc.compile(lambda y, t: nn.cross_entropy(nn.GRU(5, batch_first=True)(y), t), seed=0, **arrays)          # those of sequences are last


# names of arguments

def test_arguments_called_like_options():
    cell = nn.Linear(3)

    def one(x, state, seed, threads, training, outputs):
        return cell(x) + state * 2 + seed * 3 + threads * 5 + training * 7 + outputs * 11
    names = ("x", "state", "seed", "threads", "training", "outputs")
    arrays = [np.full(3, i, np.float32) for i in range(6)]
    with pytest.raises(gc.GraphError, match='give state="file.safetensors" or seed=0'):
        gc.compile(one, **dict.fromkeys(names, gc.f32[3]))
    assert np.array_equal(gc.compile(lambda f, function, net: f + function * net, f=gc.f32[3], function=gc.f32[3], net=gc.f32[3])(*arrays[:3]), arrays[2])
    plain = gc.compile(lambda x, state, seed: x + state * 2 + seed * 3, seed=gc.f32[3], state=gc.f32[3], x=gc.f32[3])
    assert np.array_equal(plain(*arrays[:3]), np.full(3, 8)) and np.array_equal(plain(state=arrays[1], x=arrays[0], seed=arrays[2]), np.full(3, 8))
    with_seed = gc.compile(lambda x, state: cell(x) + state, x=gc.f32[3], state=gc.f32[3], seed=0)
    assert np.array_equal(with_seed(arrays[1], arrays[2]) - with_seed(arrays[1], arrays[0]), np.full(3, 2))
    assert gc.plan(lambda x, training, loss: x + training + loss, x=gc.f32[3], training=gc.f32[3], loss=gc.f32[3]).parameters == 0
    assert gc.check_gradients(lambda x, seed, step: x * seed + step, x=gc.f32[3], seed=gc.f32[3], step=np.ones(3, np.float32))


def test_a_step_has_inputs_called_like_options():
    """State, action, as in reinforcement learning."""
    policy, state, action = nn.Linear(2), normal(8, 3), np.zeros(8, np.int32)
    step = gc.train_step(lambda state, action: nn.cross_entropy(policy(state), action), optimizer=optim.SGD(0.1), action=gc.i32[8], state=gc.f32[8, 3])
    other = gc.train_step(policy, loss=nn.cross_entropy, optimizer=optim.SGD(0.1), state=gc.f32[8, 3], action=gc.i32[8])
    assert step(state, action) > 0 and step(action=action, state=state) > 0
    assert list(other._types) == ["state", "action"]


def test_an_argument_called_out_is_given_by_position():
    run = gc.compile(lambda x, out: x + out, x=gc.f32[2], out=gc.f32[2])
    assert np.array_equal(run(np.ones(2, np.float32), np.ones(2, np.float32)), [2, 2])
    with pytest.raises(gc.GraphError, match="an argument called 'out' is given by position"):
        run(x=np.ones(2, np.float32), out=np.ones(2, np.float32))
