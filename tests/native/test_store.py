"""Weights in 16 bits: products that read their operands as they are stored, and `store=` of gc.compile and gc.generate."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim
from graphc.codegen.llvm.host import can_run
from graphc.compiler import Compilation
from graphc.dsl.array import emit
from graphc.ir.interp import evaluate
from graphc.ir.ops.blocks import BlockProduct
from graphc.ir.parser import parse
from graphc.ir.types import BY_NAME
from graphc.nn.network import entries, trace_network
from graphc.runtime.executable import Executable
from graphc.schedule.target import AVX2, AVX512, NEON, SSE2

RNG = np.random.default_rng(0)
SHAPES = [(1, 300, 200), (2, 130, 257), (7, 33, 17), (64, 256, 128), (130, 300, 260), (5, 1, 40), (40, 64, 1)]


def numbers(shape, name: str) -> np.ndarray:
    dtype = BY_NAME[name]
    if dtype.is_float:
        return RNG.standard_normal(shape).astype(np.float32).astype(dtype.np)
    return RNG.integers(*dtype.range, shape, dtype=dtype.np, endpoint=True)


PRODUCTS = [("f32 bf16 f32", turned) for turned in ("", "x", "w")] + [("i8 u8 i32", turned) for turned in ("", "x", "w")] + [
    ("bf16 f32 f32", "w"), ("f16 f16 f32", ""), ("bf16 f16 f64", "w"), ("u8 i8 i64", "x"), ("i16 i8 i32", "w")]


@pytest.mark.parametrize("types, turned", PRODUCTS)
def test_products_of_two_types(types, turned):
    """Rows, columns and sums of every schedule: few rows, many, tails, operands that are contiguous along the sum or not."""
    x_type, w_type, sums = types.split()
    for m, k, n in SHAPES:
        x, w = numbers((k, m) if turned == "x" else (m, k), x_type), numbers((n, k) if turned == "w" else (k, n), w_type)
        views = "".join(f"  %{v} = transpose({v}) {{perm=(1, 0)}} : {t}[{s}]\n" for v, t, s in
                        (("x", x_type, f"{m}, {k}"), ("w", w_type, f"{k}, {n}")) if v == turned)
        text = (f"graph f(x: {x_type}{list(x.shape)}, w: {w_type}{list(w.shape)}) {{\n{views}"
                f"  %p = matmul({'%' * (turned == 'x')}x, {'%' * (turned == 'w')}w) {{dtype={sums}}} : {sums}[{m}, {n}]\n  return %p\n}}")
        graph = parse(text)
        found = Executable(Compilation(graph).build.program, 2).slow(x, w)
        wide = [a.astype(np.float64 if BY_NAME[sums].is_float else np.int64) for a in (x.T if turned == "x" else x, w.T if turned == "w" else w)]
        exact = wide[0] @ wide[1]
        if BY_NAME[sums].is_int:
            np.testing.assert_array_equal(found, exact.astype(BY_NAME[sums].np))
        else:
            bound = np.abs(wide[0]) @ np.abs(wide[1])
            assert (np.abs(found - exact) <= 3e-7 * bound + 1e-30).all(), (m, k, n)
        np.testing.assert_allclose(found.astype(np.float64), evaluate(graph, (x, w))[0].astype(np.float64), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("target", [SSE2, AVX2, AVX512, NEON], ids=lambda t: t.name)
def test_a_stored_operand_is_loaded_as_it_is(target):
    text = """graph f(x: f32[8, 64], w: bf16[64, 64]) {
  %0 = matmul(x, w) {dtype=f32} : f32[8, 64]
  return %0
}"""
    loops = Compilation(parse(text), target).text("loops")
    assert "widen" in loops and "bf16[64, 64]" in loops


BEFORE = """graph f(h: f32[2, 6], x: f32[5, 2, 6], w: bf16[6, 6], e: bf16[9, 6], ids: i64[3]) {
  %w = cast(w) {dtype=f32} : f32[6, 6]
  %t = transpose(%w) {perm=(1, 0)} : f32[6, 6]
  %p = matmul(h, %t) : f32[2, 6]
  %e = cast(e) {dtype=f32} : f32[9, 6]
  %rows = take(%e, ids) {axis=0} : f32[3, 6]
  %last, %all = scan(%p, x, %w) {body={
    graph step(c: f32[2, 6], x: f32[2, 6], w: f32[6, 6]) {
      %0 = matmul(c, w) : f32[2, 6]
      %1 = add(%0, x) : f32[2, 6]
      return (%1, %1)
    }
  }, carries=1, xs=1, length=5} : f32[2, 6], f32[5, 2, 6]
  return (%last, %all, %rows)
}"""


def test_conversions_go_into_products_lookups_and_loops():
    graph = parse(BEFORE)
    simplified = Compilation(graph).text("simplified")
    assert simplified.count("matmul(") == simplified.count("{dtype=f32} : f32[2, 6]") == 2
    assert "take(e, ids) {axis=0} : bf16[3, 6]" in simplified
    assert simplified.count("cast(") == 1, simplified                      # of the rows that are looked up
    arrays = [numbers(v.type.shape, v.type.dtype.name) if v.name != "ids" else np.array([8, 0, 3]) for v in graph.inputs]
    found = Executable(Compilation(graph).build.program, 2).slow(*arrays)
    for a, b in zip(found, evaluate(graph, arrays), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("dtype", ["bf16", "f16", "i8", "u8"])
@pytest.mark.parametrize("sizes", [(18, 1, 32, 192), (5, 2, 8, 33), (3, 7, 16, 40)])
def test_products_of_two_types_in_a_batch(sizes, dtype, turned):
    """Of one row each, too, whose terms are unrolled along the columns."""
    g, t, k, n = sizes

    @gc.graph
    def product(x: gc.f32[g, t, k], w: BY_NAME[dtype][(g, n, k) if turned else (g, k, n)]):
        wide = w.astype(gc.f32)
        return x @ (gc.swapaxes(wide, -1, -2) if turned else wide)
    x, w = numbers((g, t, k), "f32"), RNG.integers(0, 100, product.graph.inputs[1].type.shape).astype(BY_NAME[dtype].np)
    wide = w.astype(np.float32)
    wanted = x @ (np.swapaxes(wide, -1, -2) if turned else wide)
    run = gc.compile(product)
    assert "cast(" not in run.dump("fused")
    np.testing.assert_allclose(run(x, w), wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())


def as_integers(a: np.ndarray) -> np.ndarray:
    scale = np.maximum(np.abs(a).max(axis=1, keepdims=True), np.float32(1e-30)) / np.float32(127)
    return np.rint(a / scale).astype(np.int8) * scale


def rounded(state, store: str) -> dict[str, np.ndarray]:
    if store == "int8":
        return {n: as_integers(a) if a.ndim == 2 and a.dtype == np.float32 else a for n, a in state.items()}
    return {n: a.astype(BY_NAME[store].np).astype(np.float32) if a.ndim == 2 and a.dtype == np.float32 else a for n, a in state.items()}


NETS = {
    "mlp": (nn.Linear(64) >> nn.relu >> nn.Linear(40), {"x": gc.f32[1, 48]}),
    "rows": (nn.Linear(64) >> nn.tanh >> nn.Linear(40), {"x": gc.f32[70, 48]}),
    "lstm": (nn.LSTM(32, layers=2), {"x": gc.f32[9, 1, 24]}),
    "gru": (nn.GRU(32), {"x": gc.f32[9, 3, 24]}),
    "blocks": (nn.Embedding(50, 32) >> nn.TransformerBlock(heads=2, causal=True) >> nn.Linear(50), {"x": gc.i64[2, 7]}),
}


@pytest.mark.parametrize("store", ["bf16", "f16", "int8"])
@pytest.mark.parametrize("name", NETS)
def test_the_network_is_that_of_the_rounded_weights(name, store):
    net, types = NETS[name]
    (name, type), = types.items()
    x = RNG.integers(0, 50, type.shape) if type.dtype.is_int else RNG.standard_normal(type.shape).astype(np.float32)
    state = {e.name: e.initial(0) for e in entries(trace_network(net, False, **{name: type}))}
    kept = gc.compile(net, state=state, store=store, **types)
    full = gc.compile(net, state=rounded(state, store), **types)
    for a, b in zip(flat(kept(x)), flat(full(x)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    weights = sum(a.nbytes for a in state.values() if a.ndim == 2)
    assert kept.memory.state + kept.memory.derived < 0.6 * weights + sum(a.nbytes for a in state.values() if a.ndim != 2) + 8192


@pytest.mark.parametrize("form", [
    lambda w, x: x @ w, lambda w, x: x @ w.T, lambda w, x: w @ x.T, lambda w, x: w.T @ x.T, lambda w, x: w @ x[0],
    lambda w, x: w.T @ x[0], lambda w, x: x[0] @ w, lambda w, x: gc.stack([x, -x]) @ w.T, lambda w, x: w @ gc.stack([x.T, x.T]),
    lambda w, x: w.T @ gc.stack([x.T, x.T]), lambda w, x: w @ w, lambda w, x: w.T @ w + x[:1] @ w, lambda w, x: gc.sum(w * 2, axis=0) + x,
    lambda w, x: gc.embedding(w, gc.argmax(x, axis=1)), lambda w, x: gc.take(w, gc.argmax(x, axis=1), axis=1)])
def test_integers_in_every_place_of_a_product(form):
    class One(nn.Module):
        def forward(self, x):
            return form(self.parameter("w", (12, 12), nn.Normal(1.0)), x)
    w, x = numbers((12, 12), "f32") * np.float32(10) ** np.arange(12, dtype=np.float32)[:, None] / 1e6, numbers((3, 12), "f32")
    w[5] = 0
    kept, full = (gc.compile(One(), x=gc.f32[3, 12], state={"w": a}, store=store) for a, store in ((w, "int8"), (as_integers(w), None)))
    np.testing.assert_allclose(kept(x), full(x), rtol=1e-4, atol=1e-5 * np.abs(full(x)).max())


BLOCKS = {"int4": gc.IntegerBlocks("int4"), "4 minima": gc.IntegerBlocks("int4", 16, True), "8": gc.IntegerBlocks("int8", 64), "8 minima": gc.IntegerBlocks("int8", 32, True)}


def in_blocks(a: np.ndarray, kind: gc.IntegerBlocks) -> np.ndarray:
    """The numbers that the codes of the blocks of each row stand for."""
    if a.ndim != 2 or a.dtype != np.float32 or a.shape[1] % kind.size:
        return a
    x, levels = a.reshape(len(a), -1, kind.size), 1 << (4 if kind.kind == "int4" else 8)
    low = x.min(2, keepdims=True) if kind.minimum else np.float32(0)
    most = (x.max(2, keepdims=True) - low) / np.float32(levels - 1) if kind.minimum else np.abs(x).max(2, keepdims=True) / np.float32(levels // 2 - 1)
    scale = np.maximum(most, np.float32(1e-30))
    return (np.rint((x - low) / scale) * scale + low).reshape(a.shape)


BLOCK_NETS = {
    "mlp": (nn.Linear(64) >> nn.relu >> nn.Linear(40), {"x": gc.f32[1, 128]}),
    "rows": (nn.Linear(64) >> nn.tanh >> nn.Linear(40), {"x": gc.f32[3, 128]}),
    "many": (nn.Linear(64) >> nn.tanh >> nn.Linear(40), {"x": gc.f32[9, 64]}),
    "named": (nn.Linear(64) >> nn.tanh >> nn.Linear(40), {"x": gc.f32["B", 64]}),
    "lstm": (nn.LSTM(64, layers=2), {"x": gc.f32[9, 1, 64]}),
    "gru": (nn.GRU(64), {"x": gc.f32[9, 2, 64]}),
    "blocks": (nn.Embedding(50, 64) >> nn.TransformerBlock(heads=2, causal=True) >> nn.Linear(50), {"x": gc.i64[1, 3]}),
}


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("name", BLOCK_NETS)
def test_the_network_is_that_of_the_weights_in_blocks(name, kind):
    """Products of few rows, those in loops too, read codes; all give the numbers that these stand for."""
    net, types = BLOCK_NETS[name]
    (x_name, type), = types.items()
    shape = tuple(5 if n == "B" else n for n in map(lambda d: d if isinstance(d, int) else "B", type.shape))
    x = RNG.integers(0, 50, shape) if type.dtype.is_int else RNG.standard_normal(shape).astype(np.float32)
    state = {e.name: e.initial(0) for e in entries(trace_network(net, False, **types))}
    kept = gc.compile(net, state=state, store="int4" if kind == "int4" else BLOCKS[kind], **types)
    full = gc.compile(net, state={n: in_blocks(a, BLOCKS[kind]) for n, a in state.items()}, **types)
    for a, b in zip(flat(kept(x)), flat(full(x)), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)
    if name in ("mlp", "rows", "lstm", "gru", "blocks"):
        assert "block_product" in kept.dump("fused")
    if name in ("mlp", "rows", "blocks"):
        count, chosen = sum(a.size for a in state.values() if a.ndim == 2), BLOCKS[kind]
        each = (0.5 if chosen.kind == "int4" else 1) + 4 * (1 + chosen.minimum) / chosen.size
        assert kept.memory.derived <= 1.02 * count * each + 4096


@pytest.mark.parametrize("arguments, message", [(("i4",), 'IntegerBlocks are of "int4" or "int8"'), (("int4", 24), "IntegerBlocks have 16, 32")])
def test_blocks_that_are_wrong(arguments, message):
    with pytest.raises(gc.GraphError, match=message):
        gc.IntegerBlocks(*arguments)


def flat(result):
    return result if isinstance(result, tuple) else (result,)


def test_a_step_goes_on_training_the_f32_weights():
    net = nn.Linear(16) >> nn.Linear(1)
    step = gc.train_step(net, loss=nn.mse, optimizer=optim.SGD(0.1), x=gc.f32[4, 3], y=gc.f32[4, 1], seed=0)
    predict, full = (gc.compile(step.model, x=gc.f32[4, 3], store=store) for store in ("bf16", None))
    x, y = numbers((4, 3), "f32"), numbers((4, 1), "f32")
    before = predict(x)
    for _ in range(5):
        step(x, y)
    after = predict(x)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, full(x), rtol=0.02, atol=0.02)
    assert (after != full(x)).any() and step.state["0.weight"].dtype == np.float32


def test_generate():
    net = gc.models.gpt(50, 32, 2, 2, context=32)
    generator = gc.Generator(net, seed=0, store="bf16")
    generator.check(np.arange(4)[None], 6)
    assert "bf16" in generator.dump()
    assert gc.generate(net, [1, 2, 3], 4, seed=0, store=gc.f16).shape == (4,)


def test_plan():
    types = {"x": gc.f32[1, 64]}
    full, kept = (gc.plan(nn.Linear(1000), store=store, **types) for store in (None, "bf16"))
    assert (kept.parameters, kept.flops > 0) == (full.parameters, True)
    assert kept.memory.derived == 64 * 1000 * 2 and "bf16" in kept.text
    with pytest.raises(gc.GraphError, match="leave out training= and outputs=, and store="):
        gc.plan(nn.Linear(8), store="bf16", optimizer=optim.SGD(0.1), loss=nn.mse, y=gc.f32[1, 8], **types)


def test_named_sizes():
    run = gc.compile(nn.Linear(8), seed=0, store="bf16", x=gc.f32["B", 4])
    full = gc.compile(nn.Linear(8), seed=0, x=gc.f32["B", 4])
    for size in (1, 5):
        x = numbers((size, 4), "f32")
        np.testing.assert_allclose(run(x), full(x), rtol=0.02, atol=0.02)


def test_each_weight_as_its_name_says():
    """The first pattern that matches counts: a parameter's, or a layer's for all in it; what none matches stays f32."""
    net, types = nn.Embedding(50, 32) >> nn.TransformerBlock(heads=2, causal=True) >> nn.Linear(50), {"x": gc.i64[2, 7]}
    state = {e.name: e.initial(0) for e in entries(trace_network(net, False, **types))}
    choice = {"2": "bf16", "1": "int8", "*": None}
    kept = gc.compile(net, state=state, store=choice, **types)
    assert "bf16" in kept.dump("fused") and "i8" in kept.dump("fused")
    matrices = {n for n, a in state.items() if a.ndim == 2}
    parts = {"2.weight": "bf16", "0.weight": None, **dict.fromkeys(matrices - {"0.weight", "2.weight"}, "int8")}
    expected = {n: rounded({n: a}, parts[n])[n] if parts.get(n) else a for n, a in state.items()}
    assert len([p for p in parts.values() if p == "int8"]) >= 4
    x = RNG.integers(0, 50, (2, 7))
    np.testing.assert_allclose(kept(x), gc.compile(net, state=expected, **types)(x), rtol=1e-5, atol=1e-5)
    generator = gc.Generator(gc.models.gpt(50, 32, 2, 2, context=32), seed=0, store={"*": "int8"})
    assert generator([1, 2, 3], 4).shape == (4,)
    generator.check(np.arange(4)[None], 3)


@pytest.mark.parametrize("store, message", [
    ({"heads": "bf16"}, "store=: no f32 parameter with two axes is called 'heads'; there are 0.weight, 1.weight"),
    ({"0": "i3"}, r"store=\['0'\] keeps weights as f16, bf16, int8 or int4, or gc.IntegerBlocks, got 'i3'"),
    ({"0": "int4"}, r"rows of 0.weight, f32\[8, 4\], are no whole blocks"), ("int4", "no f32 parameter with rows of whole blocks"), ({0: "bf16"}, "takes patterns")])
def test_names_that_are_wrong(store, message):
    with pytest.raises(gc.GraphError, match=message) as info:
        gc.compile(nn.Linear(8) >> nn.Linear(3), seed=0, store=store, x=gc.f32[1, 4])
    assert info.value.loc.file == __file__


@pytest.mark.parametrize("store", ["f32", "i8", "half", 16, gc.f32])
def test_other_types_are_no_storage(store):
    with pytest.raises(gc.GraphError, match="store= keeps weights as f16, bf16, int8 or int4, or gc.IntegerBlocks, got") as info:
        gc.compile(nn.Linear(8), seed=0, store=store, x=gc.f32[1, 4])
    assert info.value.loc.file == __file__
    with pytest.raises(gc.GraphError, match="store= keeps weights as f16, bf16, int8 or int4, or gc.IntegerBlocks, got"):
        gc.Generator(nn.Linear(8), store=store)


def test_a_network_without_matrices_has_nothing_to_store():
    with pytest.raises(gc.GraphError, match="has no f32 parameter with two axes to keep so"):
        gc.compile(nn.LayerNorm(), seed=0, store="bf16", x=gc.f32[2, 4])


@pytest.mark.parametrize("store", ["int4", "int8", BLOCKS["4 minima"], {"0": "int4"}])
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_integers_cannot_stand_for_what_is_not_finite(bad, store):
    net, types = nn.Linear(32) >> nn.Linear(32), {"x": gc.f32[1, 32]}
    state = {e.name: e.initial(0) for e in entries(trace_network(net, False, **types))}
    state["0.weight"][3, 7] = bad
    with pytest.raises(gc.GraphError, match=rf"store=: weight '0.weight' of \w+ holds {bad} \(1 of its 1024 numbers") as info:
        gc.compile(net, state=state, store=store, **types)
    assert info.value.loc.file == __file__
    gc.compile(net, state=state, store={"1": "int4"}, **types)


def test_generators_say_which_weight_is_not_finite():
    net = gc.models.gpt(50, 32, 2, 2, context=32)
    state = {e.name: e.initial(0) for e in entries(trace_network(net, False, ids=gc.i64[1, 4]))}
    state["0.weight"][1, 1] = np.nan
    with pytest.raises(gc.GraphError, match="store=: weight '0.weight' of .* holds nan"):
        gc.Generator(net, store="int4", state=state)([1, 2, 3], 2)


@pytest.mark.parametrize("rows", [1, 9])
@pytest.mark.parametrize("store", ["int4", "int8", BLOCKS["4 minima"], BLOCKS["8"]])
def test_what_becomes_infinite_later_gives_nan(store, rows):
    """Whatever the signs: a code of infinity has none."""
    step = gc.train_step(nn.Linear(3, bias=False), loss=nn.mse, optimizer=optim.SGD(0.1), x=gc.f32[4, 64], y=gc.f32[4, 3], seed=0)
    predict = gc.compile(step.model, x=gc.f32[rows, 64], store=store)
    weights = step.state["weight"]
    weights[1] = np.inf
    step.state["weight"] = weights
    y = predict(np.ones((rows, 64), np.float32))
    assert np.isnan(y[:, 1]).all() and np.isfinite(y[:, [0, 2]]).all()


def test_the_errors_of_weights():
    net, types = nn.Linear(64) >> nn.Linear(40) >> nn.Linear(3) >> nn.Linear(5), {"x": gc.f32["B", 128]}
    state = {e.name: e.initial(0) for e in entries(trace_network(net, False, **types))}
    state["2.weight"][0, :2] = 1e5, -1e6
    store = {"0": BLOCKS["int4"], "1": "int8", "2": "f16", "3": None}
    report = gc.compile(net, state=state, store=store, **types).quantisation()
    rows = {r.name: r for r in report.weights}
    assert set(rows) == set(state) and not report.products
    for name, kept in (("0.weight", in_blocks(state["0.weight"], BLOCKS["int4"])), ("1.weight", as_integers(state["1.weight"]))):
        errors = np.abs(kept.astype(np.float64) - state[name])
        np.testing.assert_allclose((rows[name].largest, rows[name].rms), (errors.max(), np.sqrt(np.square(errors).mean())), rtol=1e-5)
        assert rows[name].largest > 1e-4
    assert [rows[n].kept_bytes for n in ("0.weight", "1.weight", "2.weight", "3.weight")] == [64 * 128 // 2 + 64 * 4 * 4, 40 * 64 + 160, 240, 60]
    assert rows["2.weight"].note == "2 numbers are beyond f16 and became infinite" and rows["2.weight"].largest == np.inf
    assert rows["3.weight"].note == "store= says so" and rows["0.bias"].note.startswith("no matrix")
    assert "int4 in 32s" in str(report) and "int8 by row" in str(report)
    both = gc.compile(net, seed=0, store="int4", compute="bf16", **types).quantisation()
    assert len(both.products) == 4 and {r.name: r.note for r in both.weights}["2.weight"] == "rows of 40 are no whole blocks"


@pytest.mark.parametrize("kind", ["int4", "8 minima"])
def test_many_rows_have_the_bits_of_the_numbers(kind):
    """With what follows in the same kernel, and tails of rows and columns; no f32 copy is kept."""
    net, types = nn.Linear(70) >> nn.tanh >> nn.Linear(64), {"x": gc.f32[130, 192]}
    state = {e.name: e.initial(0) for e in entries(trace_network(nn.Linear(70) >> nn.tanh >> nn.Linear(64), False, **types))}
    store = {"0": BLOCKS[kind]}
    kept = gc.compile(net, state=state, store=store, **types)
    assert "packed-per-tile" in kept.dump("planned") and 'kind="contraction"' in kept.dump("fused")
    assert kept.memory.derived < 70 * 192 * 2 + 70 * 64 * 4 + 8192
    full = gc.compile(net, state=state | {"0.weight": in_blocks(state["0.weight"], BLOCKS[kind])}, **types)
    x = numbers((130, 192), "f32")
    np.testing.assert_array_equal(kept(x), full(x))


@pytest.mark.parametrize("rows", [3, 9, 40])
def test_rows_of_codes_and_what_follows(rows):
    net, types = nn.Linear(37) >> nn.silu >> nn.Linear(8), {"x": gc.f32[rows, 64]}
    state = {e.name: e.initial(0) for e in entries(trace_network(net, False, **types))}
    x, (kept, full) = numbers((rows, 64), "f32"), (gc.compile(net, state=state | {"0.weight": w}, store=store, **types) for w, store in (
        (state["0.weight"], {"0": BLOCKS["4 minima"]}), (in_blocks(state["0.weight"], BLOCKS["4 minima"]), None)))
    np.testing.assert_allclose(kept(x), full(x), rtol=1e-4, atol=1e-5)


LONG_ROWS = ((16, 11 * 16, 1), (32, 7 * 32, 2), (32, 18 * 32, 1), (64, 5 * 64, 1), (128, 3 * 128, 1), (256, 2 * 256, 3), (8, 5 * 8, 1), (48, 3 * 48, 1))


@pytest.mark.parametrize("target", [AVX2, AVX512], ids=lambda t: t.name)
@pytest.mark.parametrize("bits, zero", [(4, 8), (4, 0), (8, 0), (8, -128)])
def test_rows_of_codes_in_blocks_of_every_size(target, bits, zero):
    """Blocks that fill a vector of words, several that do together and the rest of a row, and longer ones; f16 scales with minima, f32
    without; rows of x far apart in memory."""
    if not can_run(target):
        pytest.skip(f"this CPU has no {target.name}")
    for block, columns, rows in LONG_ROWS:
        scales, minima = ("f16", ", m") if zero <= 0 else ("f32", "")
        codes = RNG.integers(0, 256, (9, columns * bits // 8)).astype(np.uint8)
        codes = codes if bits == 4 else codes.view(np.int8)
        parts = [numbers((9, columns // block), scales) for _ in range(1 + bool(minima))]
        part = f"{scales}[9, {columns // block}]"
        graph = parse(f"""graph f(x: f32[{rows}, {columns}], c: {"u8" if bits == 4 else "i8"}{list(codes.shape)}, s: {part}{", m: " + part if minima else ""}) {{
  %0 = block_product(x, c, s{minima}) {{block={block}, bits={bits}, zero={zero}}} : f32[{rows}, 9]
  return %0
}}""")
        x, op = numbers((rows, columns), "f32"), BlockProduct(block, bits, zero)
        found = Executable(Compilation(graph, target).build.program, 2).slow(x, codes, *parts)
        wide = [p.astype(np.float64).repeat(block, 1) for p in parts]
        least = wide[1] if minima else 0
        whole = op.whole(codes, np.ones((9, columns // block), np.float32), ()).astype(np.float64) * wide[0] + least
        most = (np.abs(op.whole(codes, np.ones((9, columns // block), np.float32), ()) + zero) + abs(zero)) * np.abs(wide[0]) + np.abs(least)
        assert (np.abs(found - x.astype(np.float64) @ whole.T) <= 1e-6 * (np.abs(x) @ most.T)).all(), (block, columns, rows)


@pytest.mark.parametrize("target", [SSE2, AVX2, AVX512, NEON], ids=lambda t: t.name)
@pytest.mark.parametrize("bits", [4, 8])
def test_panels_of_codes_on_every_target(target, bits):
    """The loops' verifier sees all accesses."""
    text = f"""graph f(x: f32[200, 192], c: {"u8[500, 96]" if bits == 4 else "i8[500, 192]"}, s: f32[500, 6]) {{
  %0 = block_product(x, c, s) {{block=32, bits={bits}}} : f32[200, 500]
  return %0
}}"""
    assert "packed_b" in Compilation(parse(text), target).text("loops")


@pytest.mark.parametrize("target", [SSE2, AVX2, AVX512, NEON], ids=lambda t: t.name)
def test_few_rows_of_codes_on_every_target(target):
    """Likewise: of four streams of rows the last is shorter, and a row ends within a vector of words."""
    text = """graph f(x: f32[1, 160], c: u8[50, 80], s: f16[50, 5], m: f16[50, 5]) {
  %0 = block_product(x, c, s, m) {block=32, bits=4, zero=8} : f32[1, 50]
  return %0
}"""
    assert "arranged" in Compilation(parse(text), target).text("loops")


def test_the_gradient_of_a_product_by_codes():
    """That of x, as if the matrix were numbers; twice."""
    op = BlockProduct(32, 4, 8)
    codes, scale = RNG.integers(0, 256, (5, 32)).astype(np.uint8), np.abs(numbers((5, 2), "f32"))
    w = op.whole(codes, scale, ())

    @gc.graph
    def loss(x: gc.f32[3, 64], c: gc.u8[5, 32], s: gc.f32[5, 2]):
        return gc.sum(emit("block_product", x, c, s, block=32, bits=4, zero=8) ** 3)
    first = gc.grad(loss, wrt="x")

    @gc.graph
    def of_gradient(x: gc.f32[3, 64], c: gc.u8[5, 32], s: gc.f32[5, 2]):
        return gc.sum(first(x, c, s) ** 2)
    x = numbers((3, 64), "f32")
    y = x @ w.T
    np.testing.assert_allclose(gc.compile(first)(x, codes, scale), 3 * y ** 2 @ w, rtol=1e-3, atol=1e-2)
    second = 36 * ((3 * y ** 2 @ w) @ w.T * y / 3) @ w
    np.testing.assert_allclose(gc.compile(gc.grad(of_gradient, wrt="x"))(x, codes, scale), second, rtol=1e-3, atol=1e-3 * np.abs(second).max())
