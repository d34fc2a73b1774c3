"""`compute="bf16"`: products of factors that are rounded to bf16, in pairs where the CPU has an instruction for them."""
from __future__ import annotations

import re

import ml_dtypes
import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim
from graphc.bf16_products import SLOW_PAIRS, WIDENED
from graphc.codegen.llvm.host import can_run, host_target
from graphc.schedule.target import SAPPHIRERAPIDS, TARGETS

pairs = pytest.mark.skipif(not host_target().multiplies_pairs, reason="this CPU multiplies f32 as fast")
TYPES = [name for name in ("", "avx512_bf16", "avx2", "sse2") if not name or can_run(TARGETS[name])]
# rows, steps, columns: of each family of schedules, odd sums, sums of one and two terms, rows and columns that are left over
SIZES = [(1, 64, 48), (1, 513, 1), (3, 2, 300), (7, 1, 5), (8, 96, 10), (33, 77, 50), (64, 256, 96), (130, 40, 31), (300, 515, 65), (5, 4096, 17)]


def rounded(x: np.ndarray) -> np.ndarray:
    return x.astype(ml_dtypes.bfloat16).astype(np.float64)


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(np.float32)


def close(actual: np.ndarray, x: np.ndarray, y: np.ndarray, product=np.matmul) -> None:
    """Of rounded factors, exactly but for the rounding of an f32 sum."""
    x, y = rounded(x), rounded(y)
    exact, size = product(x, y), product(np.abs(x), np.abs(y))
    assert (np.abs(actual - exact) <= 4 * np.finfo(np.float32).eps * size * np.sqrt(x.shape[-1])).all()


@pytest.mark.parametrize("target", TYPES)
@pytest.mark.parametrize("m,k,n", SIZES)
def test_products(m, k, n, target, monkeypatch):
    monkeypatch.setenv("GRAPHC_TARGET", target)
    x, w = drawn(m, k), drawn(n, k)

    @gc.graph
    def f(x: gc.f32[m, k], w: gc.f32[n, k], v: gc.f32[k, n]):
        return x @ w.T, x @ v
    run = gc.compile(f, compute="bf16", threads=1)
    for y in run(x, w, np.ascontiguousarray(w.T)):
        close(y, x, w.T)
    again = gc.compile(f, compute="bf16", threads=2)(x, w, np.ascontiguousarray(w.T))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(run(x, w, np.ascontiguousarray(w.T)), again))
    assert ("bf16x2" in run.dump("planned")) == host_target().multiplies_pairs


@pytest.mark.parametrize("equation,x,y", [
    ("bik,bkj->bij", (2, 5, 34), (2, 34, 7)), ("bkhi,bkhj->bhij", (2, 9, 3, 5), (2, 9, 3, 4)), ("ik,jk->ij", (6, 33), (8, 33)),
    ("...k,k->...", (3, 4, 16), (16,)), ("ki,kj->ji", (12, 5), (12, 6)), ("bij,bij->b", (3, 4, 5), (3, 4, 5))])
def test_einsums(equation, x, y):
    a, b = drawn(*x), drawn(*y, seed=1)
    run = gc.compile(lambda x, y: gc.einsum(equation, x, y), x=gc.f32[x], y=gc.f32[y], compute="bf16")
    exact = np.einsum(equation, rounded(a), rounded(b))
    assert np.allclose(run(a, b), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not can_run(SAPPHIRERAPIDS), reason="this CPU has no AVX512-BF16")
def test_where_the_instruction_is_slow_factors_are_widened(monkeypatch):
    """The same rounded factors, by f32's multiply-adds, and stored in bf16 where few rows read them; convolutions stay f32. Both are said."""
    net, x = nn.Conv2d(16, 3) >> nn.relu >> nn.Flatten() >> nn.Linear(48), drawn(40, 8, 9, 9)
    runs = {}
    for name in ("sapphirerapids", "avx512_bf16"):
        monkeypatch.setenv("GRAPHC_TARGET", name)
        runs[name] = run = gc.compile(net, x=gc.f32[x.shape], seed=0, compute="bf16")
        assert ("vdpbf16ps" in run.dump("asm")) == (name == "avx512_bf16")
    slow, fast = runs.values()
    assert [p.bits for p in slow.quantisation().products] == [32, 16] and np.allclose(slow(x), fast(x), atol=2e-2)
    assert f"stays f32: {SLOW_PAIRS}" in slow.explain() and f"{SLOW_PAIRS}: {WIDENED}" in slow.explain()
    assert SLOW_PAIRS not in fast.explain()
    monkeypatch.setenv("GRAPHC_TARGET", "sapphirerapids")
    few, many = (gc.compile(nn.Linear(96), x=gc.f32[rows, 64], seed=0, compute="bf16") for rows in (4, 40))
    assert '"derived.0": bf16[96, 64]' in few.dump("planned") and '"derived.0": bf16' not in many.dump("planned")
    y = few(x := drawn(40, 64)[:4])
    assert np.allclose(many(drawn(40, 64))[:4], y, atol=1e-5) and (y != gc.compile(nn.Linear(96), x=gc.f32[4, 64], seed=0)(x)).any()


@pairs
def test_weights_are_packed_once_and_read_in_pairs():
    net = nn.Linear(96) >> nn.relu >> nn.Linear(17)
    run = gc.compile(net, x=gc.f32[40, 64], seed=0, compute="bf16")
    planned = run.dump("planned")
    main = planned.split('\n\ngraph "prepare')[0]
    assert main.count("{dtype=f32}") == 2 and "copy(" not in main and "bf16[96, 64]" in planned
    plain = gc.compile(net, x=gc.f32[40, 64], seed=0)
    x = drawn(40, 64)
    assert np.allclose(run(x), plain(x), atol=2e-2) and (run(x) != plain(x)).any()
    assert "dpbf16ps" in run.dump("asm")


@pairs
@pytest.mark.parametrize("layer", [nn.LSTM(24), nn.GRU(24), nn.RNN(23)], ids=lambda layer: layer.kind)
def test_what_loops_capture_is_packed_before_them(layer):
    types = {"x": gc.f32[6, 3, 16]}
    run, plain = (gc.compile(layer, seed=0, compute=c, **types) for c in ("bf16", None))
    x = drawn(6, 3, 16)
    assert np.allclose(run(x), plain(x), atol=2e-2)
    body = run.dump("planned").split('\n\ngraph "prepare')[0].split("# body of scan")[-1]
    assert "bf16x2" in body and "= copy(" not in body


@pairs
def test_branches_and_bounded_loops():
    @gc.graph
    def f(x: gc.f32[8, 16], w: gc.f32[16, 16], p: gc.bool_[()]):
        y = gc.cond(p, lambda: x @ w, lambda: x @ w.T)
        _, (_, z) = gc.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, gc.tanh(c[1] @ w)), (0, y), max_trips=5)
        return y, z
    x, w = drawn(8, 16), drawn(16, 16) / 4
    for p in (True, False):
        y, z = gc.compile(f, compute="bf16")(x, w, np.bool_(p))
        close(y, x, w if p else w.T)
        expect = y
        for _ in range(3):
            expect = np.tanh(rounded(expect) @ rounded(w))
        assert np.allclose(z, expect, atol=1e-2)


@pytest.mark.parametrize("steps", [{"B": 5}, {"B": 1}])
def test_named_sizes(steps):
    net = nn.Linear(33) >> nn.tanh >> nn.Linear(4)
    run = gc.compile(net, x=gc.f32["B", 20], seed=0, compute="bf16")
    x = drawn(steps["B"], 20)
    assert np.allclose(run(x), gc.compile(net, x=gc.f32["B", 20], seed=0)(x), atol=2e-2)

    @gc.graph
    def outer(x: gc.f32["K", 3], y: gc.f32["K", 5]):
        return x.T @ y
    x, y = drawn(7, 3), drawn(7, 5)
    close(gc.compile(outer, compute="bf16")(x, y), x.T, y)


def test_training_follows_f32():
    """Parameters, gradients and the update stay f32; losses differ by what rounding of factors makes."""
    net = nn.Linear(64) >> nn.relu >> nn.Linear(10)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((128, 32)).astype(np.float32), rng.integers(0, 10, 128).astype(np.int32)
    losses = []
    for compute in (None, "bf16"):
        step = gc.train_step(net, loss=nn.cross_entropy, optimizer=optim.AdamW(1e-2), x=gc.f32[128, 32], y=gc.i32[128],
                             seed=0, state="own", compute=compute)
        losses.append([step(x, y) for _ in range(60)])
        assert all(step.state[name].dtype == np.float32 for name in ("0.weight", "optim.exp_avg.0.weight"))
    plain, low = map(np.asarray, losses)
    assert plain[-1] < 0.5 * plain[0] and (plain != low).any()
    assert (np.abs(plain - low) <= 0.02 * plain + 2e-3).all()


@pairs
@pytest.mark.parametrize("layer", [nn.LSTM(24), nn.GRU(24)], ids=lambda layer: layer.kind)
def test_all_products_of_recurrent_training_are_of_pairs(layer):
    """Those of each step, and the gradients of weights, which are made of all steps after the loop: what loops keep for them is bf16."""
    net = layer >> nn.Linear(5)
    x, y = drawn(6, 4, 16), np.random.default_rng(0).integers(0, 5, (6, 4)).astype(np.int32)

    def trained(compute):
        step = gc.train_step(net, loss=nn.cross_entropy, optimizer=optim.SGD(0.5), x=gc.f32[6, 4, 16], y=gc.i32[6, 4], seed=0, state="own",
                             compute=compute)
        return step, [step(x, y) for _ in range(8)]
    (step, losses), (_, plain) = trained("bf16"), trained(None)
    products = [line for line in step.dump("planned").splitlines() if "matmul(" in line and "=" in line]
    assert len(products) >= 8 and all("dtype=f32" in line for line in products)
    assert np.allclose(losses, plain, rtol=0.01) and losses != plain and losses[-1] < losses[0]


@pairs
@pytest.mark.parametrize("rows", [64, 33, 2])
def test_sums_over_rows_are_of_halves(rows):
    """x^T g as gradients of weights are: nothing is transposed, an odd number of rows gets one of zeros."""
    x, g, w = drawn(rows, 20), drawn(rows, 7), drawn(7, 20, seed=3)

    @gc.graph
    def f(x: gc.f32[rows, 20], g: gc.f32[rows, 7], w: gc.f32[7, 20]):
        x, g = gc.tanh(x), gc.tanh(g)
        return g.T @ x, gc.einsum("tbi,tbj->ij", gc.reshape(x, (1, rows, 20)), gc.reshape(g, (1, rows, 7))), x @ w.T
    run = gc.compile(f, compute="bf16")
    x_, g_ = (run_tanh(a) for a in (x, g))
    for y, left, right in zip(run(x, g, w), (g_.T, x_.T, x_), (x_, g_, w.T)):
        close(y, left, right)
    assert run.dump("planned").count("pack_pair(") == 2


def kernels(run) -> list[list[str]]:
    """The operators of each kernel."""
    blocks = run.dump("fused").split("\n  %")[1:]
    return [[name for name in re.findall(r"= (\w+)\(", block) if name not in ("fused", "constant")] for block in blocks]


@pairs
def test_roundings_are_epilogues_beside_sums_of_the_same_array():
    """What a product reads behind a view is no business of the nest that sums the array."""
    @gc.graph
    def f(x: gc.f32[64, 32], w: gc.f32[48, 32], v: gc.f32[20, 48]):
        y = gc.tanh(x @ w.T)
        return gc.sum(y, axis=0), gc.reshape(y, (8, 8, 48)) @ v.T
    run, x, w, v = gc.compile(f, compute="bf16"), drawn(64, 32), drawn(48, 32), drawn(20, 48)
    assert ["matmul", "tanh", "cast"] in kernels(run)
    sums, z = run(x, w, v)
    y = run_tanh(np.float32(rounded(x) @ rounded(w).T))
    np.testing.assert_allclose(sums, y.sum(0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(z.reshape(64, 20), rounded(y) @ rounded(v).T, rtol=1e-2, atol=1e-2)


@pairs
def test_what_is_transposed_and_reshaped_is_rounded_as_it_is_copied():
    """As heads of attention are joined, for the product that follows and for the gradient of its weights."""
    @gc.graph
    def f(x: gc.f32[4, 16, 32], w: gc.f32[10, 128], g: gc.f32[16, 6]):
        heads = gc.cumsum(x, axis=1)
        joined = gc.reshape(gc.transpose(heads, (1, 0, 2)), (16, 128))
        return joined @ w.T, gc.tanh(g).T @ joined
    run, x, w, g = gc.compile(f, compute="bf16"), drawn(4, 16, 32), drawn(10, 128), drawn(16, 6)
    assert sum(names == ["cast"] for names in kernels(run)) == 2 and "copy(" not in run.dump("planned")
    joined = np.cumsum(x, 1).transpose(1, 0, 2).reshape(16, 128)
    for y, left, right in zip(run(x, w, g), (joined, run_tanh(g).T), (w.T, joined)):
        close(y, left, right)


def run_tanh(x: np.ndarray) -> np.ndarray:
    return gc.compile(gc.tanh, x=gc.f32[x.shape])(x)


def test_what_is_wrong_is_said():
    with pytest.raises(gc.GraphError, match="compute= takes 'bf16', products of factors rounded to bf16, or 'int8', .* got 'int7'"):
        gc.compile(nn.Linear(3), x=gc.f32[2, 3], seed=0, compute="int7")
    with pytest.raises(gc.GraphError, match="has no product of f32 .* that would be one of bf16"):
        gc.compile(lambda x: x + 1, x=gc.f32[2], compute="bf16")
