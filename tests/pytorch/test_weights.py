"""Weights that change between calls, in every way that PyTorch has: a compiled module reads them as they are, a network of
`gc.from_torch` as they were when it was compiled."""
from __future__ import annotations

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")
prune = pytest.importorskip("torch.nn.utils.prune")
import graphc as gc  # noqa: E402

pytestmark = [pytest.mark.peers, pytest.mark.usefixtures("compiled_anew")]
T = torch.nn


class Net(T.Module):
    """Large enough for weights that a program would rather pack."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = T.Conv2d(3, 16, 3), T.BatchNorm2d(16)
        self.square, self.out = T.Linear(16 * 16, 16 * 16), T.Linear(16 * 16, 40)

    def forward(self, x):
        y = torch.relu(self.norm(self.conv(x)))
        return self.out(torch.tanh(self.square(y.flatten(2).transpose(1, 2).reshape(-1, 256))))


def inputs():
    return torch.randn(2, 3, 18, 18)


def each(model, write):
    with torch.no_grad():
        for p in model.parameters():
            write(p)


def gradients(model):
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    return list(model.parameters())


def stepped(model, kind, **options):
    kind(gradients(model), lr=0.1, **options).step()
    for p in model.parameters():
        p.grad = None


def loaded(model, **options):
    model.load_state_dict({name: t * 0.9 for name, t in model.state_dict().items()}, **options)


def exchanged(model):
    torch.utils.swap_tensors(model.square.weight, T.Parameter(torch.randn(256, 256) / 16))


def by_vector(model):
    vector = T.utils.parameters_to_vector(model.parameters()).detach() * 0.9
    T.utils.vector_to_parameters(vector, model.parameters())


def turned(model):
    """The same memory, read the other way."""
    model.square.weight.data = model.square.weight.data.t()


def by_inference(model):
    with torch.inference_mode():
        model.out.bias.add_(1)
        model.square.weight.mul_(0.7)


WRITES = {                          # those that leave the module as it was compiled
    "in place": lambda m: each(m, lambda p: p.mul_(0.9)),
    "one element": lambda m: each(m, lambda p: p.view(-1)[:1].add_(0.3)),
    "data": lambda m: each(m, lambda p: p.data.mul_(0.9)),
    "an element of data": lambda m: each(m, lambda p: p.data.view(-1)[-1:].add_(0.7)),
    "other data": lambda m: each(m, lambda p: setattr(p, "data", p.data * 0.9)),
    "data in another order": lambda m: setattr(m.square.weight, "data", (m.square.weight.data.t() * 0.8).t()),
    "the same data, transposed": turned,
    "detached": lambda m: each(m, lambda p: p.detach().add_(0.01)),
    "numpy": lambda m: each(m, lambda p: np.multiply(p.numpy(), 0.9, out=p.numpy())),
    "dlpack": lambda m: each(m, lambda p: torch.from_dlpack(p.detach()).mul_(0.9)),
    "storage": lambda m: each(m, lambda p: p.untyped_storage().copy_((p * 0.9).untyped_storage())),
    "set_": lambda m: each(m, lambda p: p.set_((p * 0.9).detach())),
    "init": lambda m: (T.init.normal_(m.square.weight, std=0.1), T.init.zeros_(m.out.bias), T.init.orthogonal_(m.out.weight)),
    "apply": lambda m: m.apply(lambda part: part.reset_parameters() if hasattr(part, "reset_parameters") else None),
    "foreach": lambda m: torch._foreach_mul_([p.data for p in m.parameters()], 0.9),
    "SGD, foreach": lambda m: stepped(m, torch.optim.SGD, foreach=True),
    "AdamW, one by one": lambda m: stepped(m, torch.optim.AdamW, foreach=False),
    "AdamW, fused": lambda m: stepped(m, torch.optim.AdamW, fused=True),
    "state_dict": lambda m: loaded(m), "state_dict, assigned": lambda m: loaded(m, assign=True),
    "a tensor of state_dict": lambda m: m.state_dict()["square.weight"].mul_(0.9),
    "one vector": by_vector, "exchanged tensors": exchanged,
    "another parameter": lambda m: setattr(m.out, "weight", T.Parameter(torch.randn(40, 256))),
    "inference mode": by_inference,
    "statistics": lambda m: (m.norm.running_mean.data.add_(0.3), m.norm.running_var.numpy().__imul__(1.7)),
    "shared memory": lambda m: (m.share_memory(), m.square.weight.detach().numpy().__imul__(0.8)),
    "a hook's": lambda m: m.square.register_parameter("weight", T.Parameter(m.square.weight.detach() * 0.6)),
}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Net().eval()


def agree(run, model, x, way):
    with torch.no_grad():
        torch.testing.assert_close(run(x), model(x), rtol=1e-4, atol=1e-4, msg=lambda text: f"{way}: {text}")


def restored(model, first):
    """The numbers that it began with, which is a write that PyTorch's version counters do not show, too."""
    for p in model.parameters():
        p.data = p.data.contiguous()
    for name, t in model.state_dict().items():
        t.data.copy_(first[name])


def test_a_compiled_module_sees_all_writes(model):
    run, x, first = torch.compile(model, backend="graphc"), inputs(), copy.deepcopy(model.state_dict())
    agree(run, model, x, "at first")
    with torch.no_grad():
        before = model(x)
    for way, write in WRITES.items():
        write(model)
        with torch.no_grad():
            assert (model(x) - before).abs().max() > 2e-3, f"{way} changed next to nothing"
        agree(run, model, x, way)
        restored(model, first)
        agree(run, model, x, f"{way}, and back")


CHANGES = {                         # those that make another module of it
    "bfloat16": lambda m: m.bfloat16(), "double": lambda m: m.double(),
    "pruned": lambda m: prune.l1_unstructured(m.square, "weight", 0.5),
    "weight norm": lambda m: T.utils.parametrizations.weight_norm(m.square),
    "spectral norm": lambda m: T.utils.parametrizations.spectral_norm(m.square),
    "tied": lambda m: setattr(m.conv, "bias", m.norm.bias),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_compiled_module_sees_that_it_has_changed(model, change):
    run, x = torch.compile(model, backend="graphc"), inputs()
    agree(run, model, x, "at first")
    CHANGES[change](model.eval())
    model.eval()
    x = x.to(next(model.parameters()).dtype)
    for _ in range(2):
        with torch.no_grad():
            torch.testing.assert_close(run(x), model(x), rtol=3e-2 if change == "bfloat16" else 1e-4, atol=3e-2 if change == "bfloat16" else 1e-4)
        for p in model.parameters():
            p.data.mul_(0.9)
        for name, mask in model.named_buffers():
            if "mask" in name:
                mask.data[:3] = 0


def test_parts_of_other_parameters(model):
    """torch.func.functional_call, an average of models, a copy."""
    other, x = copy.deepcopy(model), inputs()
    each(other, lambda p: p.mul_(0.7))
    run = torch.compile(lambda weights, x: torch.func.functional_call(model, weights, (x,)), backend="graphc")
    with torch.no_grad():
        for weights in (dict(model.named_parameters()), dict(other.named_parameters())):
            torch.testing.assert_close(run(weights, x), torch.func.functional_call(model, weights, (x,)), rtol=1e-4, atol=1e-4)
    mean = torch.optim.swa_utils.AveragedModel(model)
    run = torch.compile(mean, backend="graphc")
    for _ in range(3):
        agree(run, mean, x, "an average")
        each(model, lambda p: p.data.mul_(0.8))
        mean.update_parameters(model)


def test_freezing_follows_the_version_counters(model):
    run, x = torch.compile(model, backend="graphc", options={"freezing": True}), inputs()
    for _ in range(3):
        agree(run, model, x, "freezing")
        each(model, lambda p: p.mul_(0.9))
    for p in model.parameters():
        p.data = p.data * 0.9
    agree(run, model, x, "other data")


@pytest.mark.parametrize("options", [{"mode": "max-autotune"}, {"options": {"max_autotune": True}}])
def test_what_is_asked_of_another_backend_is_an_error(model, options):
    with pytest.raises(Exception, match="not one of graphc's"), torch.no_grad():
        torch.compile(model, backend="graphc", **options)(inputs())


@pytest.mark.parametrize("way", ["other data", "state_dict, assigned", "data", "another parameter", "data in another order"])
def test_a_network_starts_with_the_weights_of_when_it_is_compiled(model, way):
    x = inputs()
    net = gc.from_torch(model, x)
    WRITES[way](model)
    run = gc.compile(net, threads=1)
    with torch.no_grad():
        wanted = model(x).numpy()
    np.testing.assert_allclose(run(x), wanted, rtol=1e-4, atol=1e-4)
    for write in ("data", "numpy", "state_dict"):
        WRITES[write](model)
    np.testing.assert_allclose(run(x), wanted, rtol=1e-4, atol=1e-4)


def test_a_network_whose_module_has_other_types_is_an_error(model):
    net = gc.from_torch(model, inputs())
    model.double()
    with pytest.raises(gc.GraphError, match="conv.weight was f32.*read it again"):
        gc.compile(net)
    model.float()
    del model.out.bias
    with pytest.raises(gc.GraphError, match="has no out.bias any more"):
        gc.compile(net)
