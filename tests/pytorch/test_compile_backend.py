"""`torch.compile(model, backend="graphc")` against eager PyTorch."""
from __future__ import annotations

import copy
import sys
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.peers, pytest.mark.usefixtures("compiled_anew")]
T, F = torch.nn, torch.nn.functional


def cnn():
    return T.Sequential(T.Conv2d(1, 4, 3), T.BatchNorm2d(4), T.ReLU(), T.MaxPool2d(2), T.Flatten(), T.Linear(4 * 3 * 3, 5))


def encoder():
    return T.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)


MODELS = {"cnn": (cnn, lambda: torch.randn(3, 1, 8, 8)), "encoder": (encoder, lambda: torch.randn(2, 5, 8)),
          "mlp": (lambda: T.Sequential(T.Linear(4, 8), T.GELU(), T.LayerNorm(8), T.Linear(8, 2)), lambda: torch.randn(3, 4))}


@pytest.mark.parametrize("name", MODELS)
def test_inference_sees_parameters_that_change(name):
    make, inputs = MODELS[name]
    model, x = make().eval(), inputs()
    run = torch.compile(model, backend="graphc")
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(run(x), model(x), rtol=1e-4, atol=1e-5)
            for p in model.parameters():
                p.mul_(1.1)
        for p in model.parameters():                        # other memory altogether
            p.data = p.data.clone() + 0.01
        torch.testing.assert_close(run(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_training(name):
    make, inputs = MODELS[name]
    model = make().train()
    other, x = copy.deepcopy(model), inputs()
    run = torch.compile(model, backend="graphc")
    optimizers = [torch.optim.SGD(m.parameters(), 0.02) for m in (model, other)]
    for _ in range(4):
        losses = []
        for f, optimizer in zip((run, other), optimizers):
            loss = ((f(x) - 1) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-5)
    for a, b in zip(model.state_dict().values(), other.state_dict().values()):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_the_string_is_enough(monkeypatch):
    monkeypatch.delitem(sys.modules, "graphc.doors.torch.backend", raising=False)       # PyTorch loads it
    x = torch.randn(3, 4)
    torch.testing.assert_close(torch.compile(lambda x: x + 1, backend="graphc")(x), x + 1)


def test_symbolic_sizes_compile_once():
    model, made = T.Sequential(T.Linear(4, 8), T.ReLU(), T.Linear(8, 2)).eval(), []
    from graphc.doors.torch.backend import graphc

    def counted(module, inputs):
        made.append(1)
        return graphc(module, inputs)
    run = torch.compile(model, backend=counted, dynamic=True)
    with torch.no_grad():
        for rows in (3, 5, 8):
            x = torch.randn(rows, 4)
            torch.testing.assert_close(run(x), model(x), rtol=1e-5, atol=1e-6)
    assert len(made) == 1


def test_what_is_not_supported_runs_eagerly_with_one_warning():
    class Odd(T.Module):
        def __init__(self):
            super().__init__()
            self.first = T.Linear(4, 4)

        def forward(self, x):
            y = torch.relu(self.first(x)) + 1
            a = torch.special.bessel_j0(y)
            b = torch.special.bessel_j0(a * 2)
            return F.softmax(b + y, -1)
    model, x = Odd().eval(), torch.randn(3, 4)
    with warnings.catch_warnings(record=True) as found, torch.no_grad():
        warnings.simplefilter("always")
        torch.testing.assert_close(torch.compile(model, backend="graphc")(x), model(x), rtol=1e-5, atol=1e-6)
    said = [str(w.message) for w in found if "graphc does not take" in str(w.message)]
    assert len(said) == 1 and "special_bessel_j0.default, 2 times" in said[0] and "test_compile_backend.py" in said[0]


@pytest.mark.parametrize("dynamic", [False, True])          # the backward pass is compiled when it is run, and before
def test_forward_and_backward_that_run_eagerly_in_part_are_one_warning(dynamic):
    def f(x):
        return torch.special.zeta(torch.full((3,), 2.0), x.sigmoid() + 1)[:, None] * torch.i0(x * 2).sin()
    run, said = torch.compile(f, backend="graphc", dynamic=dynamic), []
    for _ in range(2):
        x = torch.randn(3, requires_grad=True)
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            got, = torch.autograd.grad(run(x).sum(), x)
        wanted, = torch.autograd.grad(f(x).sum(), x)
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)
        said += [str(w.message) for w in found if "graphc does not take" in str(w.message)]
    assert len(said) == 1 and "special_zeta.default, 2 times" in said[0]


class Tagger(T.Module):
    def __init__(self, layer, width):
        super().__init__()
        self.embed, self.layer, self.out = T.Embedding(20, 8), layer, T.Linear(width, 3)

    def forward(self, ids):
        return self.out(self.layer(self.embed(ids))[0])


RECURRENT = {"lstm": lambda: Tagger(T.LSTM(8, 12, batch_first=True), 12),
             "lstm of two layers and directions": lambda: Tagger(T.LSTM(8, 12, 2, bidirectional=True), 24),
             "lstm with projections": lambda: Tagger(T.LSTM(8, 12, proj_size=5), 5),
             "gru": lambda: Tagger(T.GRU(8, 12), 12), "rnn": lambda: Tagger(T.RNN(8, 12, bias=False), 12)}


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers_stay_whole_forward_and_backward(name):
    from graphc.doors.torch.backend import graphc
    targets = []

    def seen(module, inputs):
        compiled = graphc(module, inputs)
        targets.extend(str(n.target) for n in module.graph.nodes)
        return compiled
    model, ids = RECURRENT[name](), torch.randint(0, 20, (2, 7))
    other, run = copy.deepcopy(model), torch.compile(model, backend=seen)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*graphc")
        with torch.no_grad():
            torch.testing.assert_close(run(ids), other(ids))
        for f in (run, other):
            (f(ids) ** 2).sum().backward()
    for a, b in zip(model.parameters(), other.parameters()):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5)
    assert sum(t.startswith("graphc.") for t in targets) == 2           # of inference and of training


@pytest.mark.parametrize("make", [lambda: T.GRU(8, 12, 3, dropout=0.5, bidirectional=True),
                                  lambda: T.LSTM(8, 12, 2, dropout=0.5, batch_first=True)])
def test_dropout_between_recurrent_layers_is_the_same_in_both_passes(make):
    layer, x = make(), torch.randn(2, 7, 8, requires_grad=True)
    run = torch.compile(layer, backend="graphc")
    y, _ = run(x)
    assert not torch.equal(y, run(x)[0])                    # masks are drawn
    weight, direction, losses = torch.randn(y.shape), torch.randn(x.shape), []
    for h in (0.0, 1e-2, -1e-2):                            # with the same masks: PyTorch's generator draws their key
        torch.manual_seed(5)
        y, _ = torch.compile(layer, backend="graphc")(moved := (x.detach() + h * direction).requires_grad_())
        losses.append((y * weight).sum())
        if not h:
            slope = (torch.autograd.grad(losses[0], moved)[0] * direction).sum()
    torch.testing.assert_close((losses[1] - losses[2]) / 2e-2, slope, rtol=1e-2, atol=1e-3)
    layer.eval()
    torch._dynamo.reset()
    for a, b in zip(*(torch.utils._pytree.tree_leaves(f(x)) for f in (torch.compile(layer, backend="graphc"), layer))):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_inputs_that_are_written_and_results_that_are_views():
    def f(x, y):
        x.add_(1)
        z = x * 2
        return z.t(), x[0], y
    run = torch.compile(f, backend="graphc")
    a, b, y = torch.ones(2, 3), torch.ones(2, 3), torch.zeros(2)
    left, right = run(a, y), f(b, y)
    torch.testing.assert_close(a, b)
    for p, q in zip(left, right):
        torch.testing.assert_close(p, q)
    left[1].zero_()                                         # a view of the argument
    assert a[0].sum() == 0 and left[2] is y


def test_masks_of_dropout_are_those_of_the_forward_pass():
    x = torch.ones(64, 64, requires_grad=True)
    y = torch.compile(lambda x: F.dropout(x, 0.25), backend="graphc")(x)
    y.sum().backward()
    torch.testing.assert_close(x.grad, y.detach())
    assert 0.15 < float((y == 0).float().mean()) < 0.35


def test_second_derivatives_raise_and_are_not_wrong():
    model = torch.compile(T.Sequential(T.Linear(3, 3), T.Tanh()), backend="graphc")
    x = torch.randn(2, 3, requires_grad=True)
    with pytest.raises(RuntimeError, match="double backward"):
        first, = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        ((first ** 2).sum() + (x ** 2).sum()).backward()


def test_tensors_that_do_not_lie_row_by_row_and_other_types():
    model = torch.compile(lambda x, i: (x.t() @ x, i + 1, x.to(torch.bfloat16) * 2), backend="graphc")
    x, i = torch.randn(4, 6).t(), torch.arange(3, dtype=torch.int32)
    for a, b in zip(model(x, i), (x.t() @ x, i + 1, x.to(torch.bfloat16) * 2)):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    assert np.array_equal(i, [0, 1, 2])


def test_sizes_that_agree_by_a_guard_alone_are_compiled_each():
    model = cnn().eval()
    run = torch.compile(model, backend="graphc", dynamic=True)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")                      # nothing runs eagerly
        for rows in (3, 5):
            x = torch.randn(rows, 1, 8, 8)
            torch.testing.assert_close(run(x), model(x), rtol=1e-4, atol=1e-5)
