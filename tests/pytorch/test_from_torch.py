"""`gc.from_torch` against PyTorch: results, training, state, errors, documentation."""
from __future__ import annotations

import copy
import sys
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim
from graphc.errors import GraphError
from graphc.ir.interp import evaluate
from graphc.nn.network import trace_network

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.peers
T, F = torch.nn, torch.nn.functional


class Net(T.Module):
    """Convolutions with running statistics, a recurrent layer, attention, a table whose row 0 is padding."""

    def __init__(self):
        super().__init__()
        self.embed, self.conv, self.norm = T.Embedding(11, 8, padding_idx=0), T.Conv1d(8, 8, 3, padding=1, bias=False), T.BatchNorm1d(8)
        self.layer, self.attend = T.GRU(8, 4, batch_first=True, bidirectional=True), T.MultiheadAttention(8, 2, batch_first=True)
        self.scale, self.out = T.LayerNorm(8), T.Linear(8, 3)

    def forward(self, ids):
        y = F.gelu(self.norm(self.conv(self.embed(ids).transpose(1, 2)))).transpose(1, 2)
        y, _ = self.layer(y)
        y = self.scale(y + self.attend(y, y, y, need_weights=False)[0])
        return self.out(y.mean(1))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


IDS = torch.tensor(np.random.default_rng(0).integers(0, 11, (5, 7)))
LABELS = torch.tensor([0, 2, 1, 1, 0])


def close(a, b, **tolerance):
    np.testing.assert_allclose(np.asarray(a), b.detach().numpy(), **{"rtol": 1e-4, "atol": 1e-5, **tolerance})


def test_inference(net):
    close(gc.compile(gc.from_torch(net.eval(), IDS))(IDS), net(IDS))


@pytest.mark.parametrize("given", [lambda ids: ids, torch.clone, lambda ids: ids.numpy()], ids=["ordinary", "made in it", "numpy"])
def test_inference_mode(net, given):
    with torch.inference_mode():
        for module in (net.eval(), copy.deepcopy(net)):         # made outside, and in it
            read = gc.from_torch(module, given(IDS))
            close(gc.compile(read)(IDS), net(IDS))
    assert any(one.trained for one in read.program(True).own)


def test_named_sizes(net):
    run = gc.compile(gc.from_torch(net.eval(), IDS, dynamic={"ids": {0: "B", 1: "T"}}))
    for shape in ((5, 7), (2, 4), (1, 9)):
        ids = torch.randint(0, 11, shape)
        close(run(ids), net(ids))


@pytest.mark.parametrize("make", [
    lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, dampening=0.2, nesterov=False, weight_decay=0.1),
    lambda p: torch.optim.Adam(p, 1e-2, amsgrad=True, weight_decay=0.1), lambda p: torch.optim.AdamW(p, 1e-2),
    lambda p: torch.optim.RMSprop(p, 1e-3, momentum=0.5, centered=True)], ids=["SGD", "Adam", "AdamW", "RMSprop"])
def test_training_goes_on_with_the_optimizers_moments_and_back(net, make):
    net.train()
    optimizer = make([{"params": net.out.parameters()}, {"params": [p for n, p in net.named_parameters() if not n.startswith("out.")],
                                                         "weight_decay": 0.01}])

    def train(model, optimizer, steps):
        for _ in range(steps):
            loss = F.cross_entropy(model(IDS), LABELS)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss

    train(net, optimizer, 3)
    step = gc.train_step(gc.from_torch(net, IDS), loss=nn.cross_entropy, optimizer=optim.from_torch(optimizer, net),
                         y=gc.i64[5])
    other = copy.deepcopy(net)
    losses = [step(IDS, LABELS) for _ in range(4)]
    close(losses[-1], train(net, optimizer, 4))
    step.to_torch(other)
    left, right = other.state_dict(), net.state_dict()
    for name in right:                                      # the gradient of the keys' bias is rounding alone: softmax
        if name != "attend.in_proj_bias":
            close(left[name], right[name], atol=1e-4)
    other.eval(), net.eval()
    close(gc.compile(step.model)(IDS), net(IDS), rtol=1e-3, atol=1e-3)


def test_first_and_second_gradients_follow_pytorch(net):
    net = net.double().eval()
    net.layer = T.GRU(8, 4, batch_first=True, bidirectional=True).double()
    x = torch.randn(2, 5, 8, dtype=torch.float64, requires_grad=True)

    class Part(T.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.scale = net.layer, net.scale

        def forward(self, x):
            return (self.scale(self.layer(x)[0]) ** 3).sum()
    part = Part().eval()
    network = gc.from_torch(part, x)

    @gc.graph
    def total(x: gc.f64[2, 5, 8]):
        return network(x)
    first, = torch.autograd.grad(part(x), x, create_graph=True)
    v = torch.randn_like(x)
    second, = torch.autograd.grad((first * v).sum(), x)
    state = {k: p.detach().numpy() for k, p in part.state_dict().items()}
    state = {f"network.{k}": p for k, p in state.items()} | state
    close(gc.compile(gc.grad(total), state=state)(x.detach()), first, rtol=1e-8)
    close(gc.compile(gc.hvp(total), state=state)(x.detach(), v), second, rtol=1e-7)


class Of(T.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *arrays):
        return self.function(*arrays)


def wide(*shape):
    return torch.tensor(np.random.default_rng(sum(shape)).standard_normal(shape), requires_grad=True)


LETTERS = torch.tensor([[1, 2, 1], [3, 3, 2]])
FUNCTIONS = {
    "ctc": (lambda x: F.ctc_loss(x, LETTERS, (5, 6), (2, 3)), wide(6, 2, 4)),
    "ctc of one": (lambda x: F.ctc_loss(x, LETTERS[0], torch.tensor(5), torch.tensor(3), reduction="none"), wide(6, 4)),
    "ctc of none": (lambda x: F.ctc_loss(x, LETTERS, (2, 6), (2, 0), reduction="sum", zero_infinity=True), wide(6, 2, 4)),
    "pinv": (lambda a, b: torch.linalg.pinv(a @ b.mT), wide(2, 4, 2), wide(2, 3, 2)),
    "pinv of symmetric": (lambda a: torch.linalg.pinv(a @ a.mT, hermitian=True), wide(4, 2)),
    "pinv of a triangle": (lambda a: torch.linalg.pinv(a, hermitian=True), wide(4, 4)),
    "cov": (lambda x: torch.cov(x, correction=2, fweights=LETTERS[0].repeat(2), aweights=torch.arange(1., 7).double()), wide(3, 6)),
    "gaussian_nll": (lambda x, v: F.gaussian_nll_loss(x, x.detach() + 1, v.abs(), True, 0.5, "none"), wide(3, 4), wide(3)),
    "corrcoef": (lambda x: x.corrcoef(), wide(3, 5)),
    "nextafter": (lambda x, y: torch.nextafter(x.round(), y), wide(3, 4), wide(4)),
    "norm": (lambda x: torch.linalg.vector_norm(x.relu(), 0), wide(3, 4)), "cdist": (lambda x, y: torch.cdist(x, y, 0.0), wide(3, 2), wide(4, 2)),
    **{mode: (lambda x, mode=mode: F.interpolate(x, (3, 9), mode=mode, antialias=True), wide(1, 2, 7, 5)) for mode in ("bilinear", "bicubic")},
    "corners": (lambda x: F.interpolate(x, scale_factor=(0.6, 1.4), mode="bilinear", align_corners=True, antialias=True), wide(1, 2, 7, 5))}
if hasattr(F, "linear_cross_entropy"):
    CHUNKS = T.LinearCrossEntropyOptions(batch_chunk_size=2)
    FUNCTIONS |= {f"linear_cross_entropy {how}": (lambda x, w, how=how: F.linear_cross_entropy(
        x, w, LETTERS[0], options=CHUNKS, reduction=how, ignore_index=2), wide(3, 5), wide(4, 5)) for how in ("mean", "none")}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_and_their_gradients(name):
    function, *arrays = FUNCTIONS[name]
    net = gc.from_torch(Of(function), *arrays)
    wanted = function(*arrays)
    close(gc.compile(net, threads=1)(*(a.detach() for a in arrays)), wanted, rtol=1e-9)
    graph = gc.vjp(trace_network(net, False, **net.declared_inputs()), tuple(net.declared_inputs()))
    seed = torch.ones(wanted.shape, dtype=torch.float64).cumsum(0) if wanted.ndim else torch.tensor(2.0).double()
    towards = torch.autograd.grad(wanted, arrays, seed, allow_unused=True, materialize_grads=True)
    for found, right in zip(evaluate(graph.graph, [a.detach().numpy() for a in arrays] + [seed.numpy()]), towards):
        close(found, right, rtol=1e-7, atol=1e-9)


def test_an_optimizer_of_other_parameters_is_refused(net):
    optimizer = torch.optim.AdamW(net.out.parameters())
    with pytest.raises(GraphError, match="does not have .*weight, which the step would train"):
        gc.train_step(gc.from_torch(net, IDS), loss=nn.cross_entropy, optimizer=optim.from_torch(optimizer), y=gc.i64[5])
    step = gc.train_step(gc.from_torch(net, IDS), loss=nn.cross_entropy, optimizer=optim.from_torch(optimizer),
                         trainable=lambda name: name.startswith("out."), y=gc.i64[5])
    step(IDS, LABELS)


def test_tied_weights_are_one_parameter():
    class Tied(T.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.out = T.Embedding(9, 4), T.Linear(4, 9, bias=False)
            self.out.weight = self.embed.weight

        def forward(self, ids):
            return self.out(torch.tanh(self.embed(ids)))
    model, ids = Tied(), torch.tensor([1, 5, 2])
    step = gc.train_step(gc.from_torch(model, ids), loss=nn.cross_entropy, optimizer=optim.SGD(0.5), y=gc.i64[3])
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    for _ in range(3):
        loss = F.cross_entropy(model(ids), ids)
        close(step(ids, ids), loss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert sum("weight" in name for name in step.state) == 1


def test_frozen_parameters_and_no_grad_stay():
    class Part(T.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = T.Linear(3, 3), T.Linear(3, 2)
            self.first.weight.requires_grad_(False)

        def forward(self, x):
            with torch.no_grad():
                y = self.first(x)
            return self.second(y) + self.second(x.detach() * 2)
    model, x = Part(), torch.randn(4, 3)
    before = copy.deepcopy(model.state_dict())
    step = gc.train_step(gc.from_torch(model, x), loss=nn.mse, optimizer=optim.SGD(0.1), y=gc.f32[4, 2])
    step(x, np.zeros((4, 2), np.float32))
    close(step.state["first.bias"], before["first.bias"], atol=0)
    assert not np.allclose(step.state["second.weight"], before["second.weight"])


def test_results_have_the_modules_names():
    class Named(T.Module):
        def forward(self, x, *, double: bool):
            return {"y": x * (2 if double else 1), "parts": [x + 1, (x - 1, None)]}
    x = torch.ones(3)
    found = gc.compile(gc.from_torch(Named(), x, double=True))(x)
    assert list(found) == ["y", "parts.0", "parts.1.0"] and found["y"][0] == 2


def test_an_exported_program():
    model, x = T.Linear(3, 2), torch.randn(4, 3)
    exported = torch.export.export(model, (x,), dynamic_shapes={"input": {0: torch.export.Dim("rows")}})
    close(gc.compile(gc.from_torch(exported))(x[:2].contiguous()), model(x[:2]))


def test_everything_that_lacks_is_listed_with_lines_of_the_module():
    class Odd(T.Module):
        def forward(self, x):
            a = torch.special.bessel_j0(x)
            return torch.linalg.svdvals(a) + x[x > 0].sum()
    with pytest.raises(GraphError) as raised:
        gc.from_torch(Odd(), torch.randn(3, 3))
    text = str(raised.value)
    assert "bessel_j0" in text and "svd" in text and "test_from_torch.py" in text and "a = torch.special.bessel_j0(x)" in text


def test_mistakes_are_named(net):
    with pytest.raises(GraphError, match="torch.nn.Module or an ExportedProgram"):
        gc.from_torch(lambda x: x, IDS)
    with pytest.raises(GraphError, match="dynamic= names idz"):
        gc.from_torch(net, IDS, dynamic={"idz": {0: "B"}})
    with pytest.raises(GraphError, match="optim.from_torch takes SGD"):
        optim.from_torch(torch.optim.Adagrad(net.parameters()))
    with pytest.raises(GraphError, match="without names"):
        optim.from_torch(torch.optim.SGD([{"params": [p]} for p in net.parameters()], 0.1))

    class Writes(T.Module):
        def forward(self, x):
            return x.add_(1)
    with pytest.raises(GraphError, match="writes into its argument"):
        gc.from_torch(Writes(), torch.ones(2))


def test_modes_of_the_module_are_as_before(net):
    net.train()
    net.norm.eval()
    gc.compile(gc.from_torch(net, IDS))
    assert net.training and not net.norm.training and net.layer.training


def test_the_table_of_core_operators_is_current():
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "docs"))
    import make_pytorch
    assert make_pytorch.PAGE.read_text() == make_pytorch.text(), "run python docs/make_pytorch.py"
    taken = [name for name in make_pytorch.core() if any(name in m.RULES for m in make_pytorch.ROOMS.values())]
    assert len([n for n in taken if n not in make_pytorch.REFUSED]) >= 185


def test_rules_have_names_of_operators():
    import torch._inductor.inductor_prims                    # declares one that PyTorch's decompositions call
    from graphc.doors.torch import own_gradients, recurrent  # declare graphc's own
    import torch.nn.modules.linear_cross_entropy             # declares its own, which the function loads when it is called
    from graphc.doors.torch.rules.table import RULES
    assert recurrent.OPERATORS and own_gradients.LIBRARY
    for name in RULES:
        space, packet, overload = name.split(".") if name.count(".") == 2 else ("aten", *name.split("."))
        assert hasattr(getattr(getattr(torch.ops, space), packet), overload), name


def test_numbers_that_are_drawn_lie_as_pytorchs():
    class Drawn(T.Module):
        def forward(self, x):
            return torch.stack([torch.normal(x, 0.5), torch.normal(1.0, x), torch.normal(x, x), torch.empty_like(x).cauchy_(1, 2),
                                torch.empty_like(x).log_normal_(0.1, 0.4), torch.empty_like(x).geometric_(0.3)])
    x = torch.linspace(0, 2, 20_000)
    torch.manual_seed(0)
    ends = [0.07, 0.33, 0.61, 0.91]
    found = gc.compile(gc.from_torch(Drawn(), x), seed=0)(x)
    np.testing.assert_allclose(np.quantile(found, ends, 1), np.quantile(Drawn()(x), ends, 1), rtol=0.05, atol=0.1)
