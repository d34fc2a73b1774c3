"""What `torch.compile(model, backend="graphc")` returns: which tensors share memory, how they lie, and what numbers and
random numbers come to."""
from __future__ import annotations

import warnings

import pytest

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.peers, pytest.mark.usefixtures("compiled_anew")]
T, F = torch.nn, torch.nn.functional


def views_of_a_result(x):
    y = x + 1
    return y, y[0], y.t(), y.clone(), y[::2]


def views_of_an_argument(x):
    return x[1:], x.t(), x, x.clone()


def parts_without_the_whole(x):
    y = x * 2
    return *y.unbind(1), y.diagonal()


def other_orders(x):
    return x.permute(1, 0) * 2, (x * 2).t(), x.t() @ x


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("f", [views_of_a_result, views_of_an_argument, parts_without_the_whole, other_orders])
def test_results_share_memory_and_lie_as_in_pytorch(f, dynamic):
    run = torch.compile(f, backend="graphc", dynamic=dynamic)
    memory = torch.randn(40)
    for shape, strides, start in (((4, 4), (4, 1), 0), ((4, 5), (5, 1), 7), ((4, 5), (1, 4), 0), ((4, 5), (10, 2), 1)):
        pairs = []
        for function in (run, f):
            x = memory.clone().as_strided(shape, strides, start)
            results = function(x)
            for i, t in enumerate(results):
                t.add_(i + 1)
            pairs.append((*results, x))
        for a, b in zip(*pairs):
            assert a.stride() == b.stride()
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_what_is_kept_for_the_backward_pass_is_the_argument_itself():
    layer = T.Linear(4, 4)
    y = torch.compile(layer, backend="graphc")(torch.randn(3, 4, requires_grad=True))
    with torch.no_grad():
        layer.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_sizes_and_numbers_that_change():
    def f(x, k):
        return x * k, x[:1].repeat(k % 5, 1) if k > 20 else x + (k - 1), torch.full((2,), k)
    run = torch.compile(f, backend="graphc")
    for k in (2, 3, 7, 21, 22, -4):
        x = torch.randn(4, 2)
        for a, b in zip(run(x, k), f(x, k)):
            torch.testing.assert_close(a, b)
    model = T.Sequential(T.Linear(6, 8), T.ReLU(), T.Linear(8, 2))
    run = torch.compile(model, backend="graphc", dynamic=True)
    for rows in (3, 5):
        x = torch.randn(rows, 6)
        run(x).sum().backward()
        found, model[0].weight.grad = model[0].weight.grad, None
        model(x).sum().backward()
        torch.testing.assert_close(found, model[0].weight.grad)
        model[0].weight.grad = None


def test_random_numbers_follow_pytorchs_generator():
    first, second = (torch.compile(m, backend="graphc") for m in (T.Dropout(0.5), T.Sequential(T.Dropout(0.5))))
    x = torch.ones(256)
    a, b = first(x), second(x)
    assert 0.3 < float((a == b).float().mean()) < 0.7           # not the same mask
    torch.manual_seed(3)
    c = first(x)
    torch.manual_seed(3)
    assert torch.equal(first(x), c) and not torch.equal(a, c)


def test_negated_views_and_constants_in_a_graph():
    def f(x):
        y = x.clone()
        y[y > 0] = -1
        return y * 2, x + torch.tensor([1., 2.])
    run, z = torch.compile(f, backend="graphc", dynamic=True), torch.randn(3, 2, dtype=torch.complex64)
    x = z.conj().imag
    assert x.is_neg()
    for a, b in zip(run(x), f(x)):
        torch.testing.assert_close(a, b)


def test_dropout_in_a_checkpoint_is_drawn_alike_twice():
    layer = T.Sequential(T.Linear(16, 16, bias=False), T.Dropout(0.5))
    with torch.no_grad():
        layer[0].weight.copy_(torch.eye(16))
    x = torch.ones(8, 16, requires_grad=True)

    def f(x):
        return torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False)
    with pytest.warns(UserWarning, match="rng_state"):
        y = torch.compile(f, backend="graphc")(x)
        y.sum().backward()
    assert torch.equal(x.grad, y)


def test_autocast_keeps_layers_whole():
    model = T.Sequential(T.Conv1d(2, 4, 3), T.BatchNorm1d(4), T.LayerNorm(6), T.GroupNorm(2, 4))
    x = torch.randn(3, 2, 8)

    def f(x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return model(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")                          # nothing runs eagerly
        found = torch.compile(f, backend="graphc")(x)
    found.float().sum().backward()
    wanted = f(x)
    assert found.dtype == wanted.dtype
    torch.testing.assert_close(found, wanted, rtol=0.05, atol=0.05)


def whole(x, y):
    return torch.tanh(x) * y, x.t()


def with_an_eager_part(x, y):
    return torch.special.bessel_j0(x.detach()) * torch.exp(y) + x, y * 2


@pytest.mark.filterwarnings("ignore:a graph of torch.compile")
@pytest.mark.parametrize("f", [whole, with_an_eager_part])
def test_tangents_of_forward_mode_are_not_lost(f):
    ad = torch.autograd.forward_ad
    run, x, y, t = torch.compile(f, backend="graphc"), *torch.randn(3, 3, 2)
    run(x, y)
    with ad.dual_level():
        for args in ((ad.make_dual(x, t), y), (x, ad.make_dual(y, t)), (x, y)):
            for a, b in zip(run(*args), f(*args)):
                found, wanted = ad.unpack_dual(a), ad.unpack_dual(b)
                torch.testing.assert_close(found.primal, wanted.primal)
                assert (found.tangent is None) == (wanted.tangent is None)
                if wanted.tangent is not None:
                    torch.testing.assert_close(found.tangent, wanted.tangent)


ROW = torch.tensor([[False] * 4, [True, False, True, False], [True] * 4])


@pytest.mark.parametrize("mask", [ROW, torch.where(ROW, 0.3, -torch.inf), ROW[:1], ROW.expand(2, 1, 3, 4)])
def test_attention_that_sees_nothing_is_zero_and_fewer_heads_are_repeated(mask):
    def f(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
    run, q, k, v = torch.compile(f, backend="graphc"), torch.randn(2, 4, 3, 8), torch.randn(2, 2, 4, 8), torch.randn(2, 2, 4, 8)
    pairs = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")                          # nothing runs eagerly
        for g in (run, f):
            inputs = [t.clone().requires_grad_() for t in (q, k, v)]
            y = g(*inputs)
            pairs.append((y, *torch.autograd.grad((y * torch.arange(8)).sum(), inputs)))
        pairs += [(run(q, k, v),), (f(q, k, v),)]
    for a, b in (*zip(*pairs[:2]), *zip(*pairs[2:])):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_linear_algebra_stays_compiled():
    def f(x):
        return torch.linalg.solve(a := x @ x.mT + 2 * torch.eye(3), x), torch.linalg.cholesky(a)
    run, x = torch.compile(f, backend="graphc"), torch.randn(3, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")                          # checks, whose order PyTorch keeps, are not made
        for a, b in zip(run(x), f(x)):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
