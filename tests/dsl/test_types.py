"""Element types as a user meets them: what sums become, which numbers fit, what mixes, what calls and files take."""
from __future__ import annotations

import copy
import ctypes
import pickle
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

import graphc as gc
from graphc import nn
from graphc.checkpoint import load_arrays, save_arrays
from graphc.ir.types import DTYPES, TensorType, common, dtype_of, includes

BF = ml_dtypes.bfloat16
I8, U8, H, B = np.int8([100, 100, -3]), np.uint8([200, 100, 3]), np.float16([1, 2, 3]), np.array([1, 2, 3], BF)


def run(f, *arrays):
    """f on symbolic arrays of these types, then on these."""
    names = "xyz"[:len(arrays)]
    scope = {"f": f, **{f"T{n}": TensorType(dtype_of(a), a.shape) for n, a in zip(names, arrays)}}
    exec(f"def traced({', '.join(f'{n}: T{n}' for n in names)}): return f({', '.join(names)})", scope)
    return gc.compile(gc.graph(scope["traced"]))(*arrays)


RESULTS = [
    ("sum of i8", lambda x: gc.sum(x), (I8,), np.int64(197)), ("sum of u8", lambda x: x.sum(), (U8,), np.uint64(303)),
    ("prod", lambda x: gc.prod(x), (I8,), np.int64(-30000)), ("cumsum", lambda x: gc.cumsum(x), (I8,), np.int64([100, 200, 197])),
    ("sum of u32", lambda x: gc.sum(x), (np.uint32([2 ** 32 - 1, 2]),), np.uint32(1)),
    ("mean of u8", lambda x: gc.mean(x), (U8,), np.float32(101)), ("mean of bf16", lambda x: gc.mean(x), (B,), np.array(2, BF)),
    ("u8 + int", lambda x: x + 100, (U8,), np.uint8([44, 200, 103])), ("-u8", lambda x: -x, (U8,), np.uint8([56, 156, 253])),
    ("u8 / int", lambda x: x / 2, (U8,), np.float32([100, 50, 1.5])), ("u8 // 0", lambda x: x // 0, (U8,), np.uint8([0, 0, 0])),
    ("~u8", lambda x: ~x, (U8,), np.uint8([55, 155, 252])), ("u8 >> int", lambda x: x >> 1, (U8,), np.uint8([100, 50, 1])),
    ("i8 >> int", lambda x: x >> 1, (I8,), np.int8([50, 50, -2])), ("u8 << 8", lambda x: x << 8, (U8,), np.uint8([0, 0, 0])),
    ("u8 < u8", lambda x: x < 128, (U8,), np.array([False, True, True])), ("clip", lambda x: gc.clip(x, 10, 150), (U8,), np.uint8([150, 100, 10])),
    ("bf16 * float", lambda x: x * 1.5, (B,), np.array([1.5, 3, 4.5], BF)), ("bf16 * scalar", lambda x: x * BF(2), (B,), np.array([2, 4, 6], BF)),
    ("array * bf16 in numpy", lambda x: x + B, (B,), np.array([2, 4, 6], BF)),
    ("sigmoid of u8", lambda x: gc.sigmoid(x * 0), (U8,), np.float32([0.5] * 3)), ("where", lambda x: gc.where(x > 1, x, 0), (B,), np.array([0, 2, 3], BF)),
    ("index", lambda x, i: x[i], (B, np.uint8([2, 0])), np.array([3, 1], BF)), ("one_hot", lambda i: gc.one_hot(i, 2, gc.bf16), (np.uint8([1]),), np.array([[0, 1]], BF)),
    ("negative index", lambda x, i: x[i], (B, np.int8([-1])), np.array([3], BF)),
    ("matmul", lambda x, y: x @ y, (I8, I8), np.int8(20009 - (20009 + 128) // 256 * 256)),
    ("matmul in i32", lambda x, y: gc.matmul(x, y, dtype=gc.i32), (I8, U8), np.int32(29991)),
    ("einsum in i64", lambda x, y: gc.einsum("i,i->i", x, y, dtype="i64"), (I8, U8), np.int64([20000, 10000, -9])),
    ("matmul of bf16 in f32", lambda x, y: gc.matmul(x, y, dtype=np.float32), (B, B), np.float32(14)),
    ("sort", lambda x: gc.sort(x), (np.uint32([3, 2 ** 32 - 1, 0, 2 ** 31]),), np.uint32([0, 3, 2 ** 31, 2 ** 32 - 1])),
    ("argmax", lambda x: gc.argmax(x), (np.uint64([3, 2 ** 64 - 1, 2 ** 63]),), np.int64(1)),
    ("arange", lambda x: gc.arange(3, dtype=gc.u8) + x, (U8,), np.uint8([200, 101, 5])), ("full", lambda x: gc.full((3,), 1.1, gc.bf16), (B,), np.array([1.1] * 3, BF)),
]


@pytest.mark.parametrize("f, arrays, expected", [pytest.param(*row[1:], id=row[0]) for row in RESULTS])
def test_results(f, arrays, expected):
    found = run(f, *arrays)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


REFUSED = [
    (lambda x: x + 300, U8, "300 does not fit the u8 array"), (lambda x: x + -1, U8, "-1 does not fit the u8 array"),
    (lambda x: x * 1.5, U8, r"1.5 does not fit the u8 array beside it: convert the array first, for example x.astype\(gc.f32\)"),
    (lambda x: x + 70000, H, "70000 does not fit the f16 array beside it: the largest f16 is 65504"), (lambda x: x + 1e39, B, "the largest bf16 is 3.389"),
    (lambda x: x + I8, H, r"add of f16 and i8: convert one side, for example with .astype\(f16\)"),
    (lambda x: x + np.ones(3, np.float32), B, r"add of bf16 and f32: convert one side, for example with .astype\(f32\)"),
    (lambda x: x @ I8, U8, r"matmul of u8 and i8: convert one side, for example x.astype\(i16\), or multiply in 32 bits: dtype=gc.i32"),
    (lambda x: gc.matmul(x, I8, dtype=gc.u16), U8, r"matmul with dtype=u16: not every i8 is one of u16; convert it with .astype\(u16\)"),
    (lambda x: gc.einsum("i,i", x, I8, dtype=gc.bf16), np.int16([1, 2, 3]), "not every i16 is one of bf16"),
    (lambda x: x.astype("i8"), B, "'i8' has 8 bits here and 64 in numpy: write gc.i8, or gc.i64"), (lambda x: x.astype("f128"), B, "is not a dtype of graphc"),
    (lambda x: gc.arange(300, dtype=gc.u8), B, "299 does not fit"),
]


@pytest.mark.parametrize("f, array, message", REFUSED)
def test_what_would_be_another_number_is_an_error(f, array, message):
    with pytest.raises(gc.GraphError, match=message) as info:
        run(f, array)
    assert info.value.loc.file == __file__


@gc.graph
def mixed(w: gc.bf16[2, 3], n: gc.u8[()]):
    return w.astype(gc.f32) * 2, n + 1


def test_arguments():
    w = np.arange(6).reshape(2, 3).astype(BF)
    call = gc.compile(mixed)
    for _ in range(40):                                     # through Python first, then by native code
        doubled, more = call(w, 250)
        np.testing.assert_array_equal(doubled, 2 * w.astype(np.float32))
        assert more.dtype == np.uint8 and more == 251
    np.testing.assert_array_equal(call(w.T.copy().T, np.uint8(7))[0], doubled)
    for n, message in ((256, "256 does not fit into u8"), (-1, "-1 does not fit into u8")):
        with pytest.raises(gc.GraphError, match=message):
            call(w, n)
    with pytest.raises(gc.GraphError, match=r"must be bf16\[2, 3\] \(numpy bfloat16\), got dtype float32; convert it: w.astype\(ml_dtypes.bfloat16\)"):
        call(w.astype(np.float32), 1)


class Exporter:
    """Another library's array of bf16: numpy's export of 16-bit integers, which says that it is bf16."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **options):
        capsule = self.array.view(np.uint16).__dlpack__()
        point = ctypes.pythonapi.PyCapsule_GetPointer
        point.restype, point.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
        ctypes.cast(point(capsule, b"dltensor"), ctypes.POINTER(ctypes.c_uint8))[20] = 4
        return capsule

    def __dlpack_device__(self):
        return 1, 0


def test_arrays_of_other_libraries():
    w = np.arange(6).reshape(2, 3).astype(BF)
    np.testing.assert_array_equal(gc.compile(mixed)(Exporter(w), 1)[0], 2 * w.astype(np.float32))


def test_files(tmp_path):
    arrays = {d.name: np.arange(6).reshape(2, 3).astype(d.np) for d in DTYPES}
    save_arrays(tmp_path / "all.safetensors", arrays)
    found = load_arrays(tmp_path / "all.safetensors")
    assert all(found[n].dtype == a.dtype and found[n].tobytes() == a.tobytes() for n, a in arrays.items())


@pytest.mark.parametrize("stored", [BF, np.float16])
def test_weights_in_16_bits_are_read_into_f32(stored):
    weights = {"weight": np.array([[1, 2, 3], [4, 5, 6]], stored), "bias": np.zeros(2, stored)}
    found = gc.compile(nn.Linear(2), state=weights, x=gc.f32[1, 3])(np.ones((1, 3), np.float32))
    np.testing.assert_array_equal(found, [[6, 15]])
    with pytest.raises(gc.GraphError, match=r"weight is float64\[2, 3\], the network wants float32"):
        gc.compile(nn.Linear(2), state={n: a.astype(np.float64) for n, a in weights.items()}, x=gc.f32[1, 3])


def test_gradients_and_their_check():
    @gc.graph
    def loss(w: gc.bf16[3], x: gc.f16[3]):
        return gc.sum(gc.tanh(w * x.astype(gc.bf16)))
    assert gc.check_gradients(loss)
    dw = gc.compile(gc.grad(loss, "w"))(B, H)
    assert dw.dtype == BF
    np.testing.assert_allclose(dw.astype(np.float64), (1 - np.tanh(np.float64([1, 4, 9])) ** 2) * [1, 2, 3], rtol=0.02, atol=1e-2)


def test_a_chain_rounds_where_its_operators_are():
    """Whatever is fused: each of the user's operators rounds its result."""
    @gc.graph
    def chain(x: gc.bf16[1000]):
        return gc.exp(gc.sin(x) * 3) / 7
    x = (np.arange(1000) / 100).astype(BF)
    exact = x.astype(np.float32)
    for step in (np.sin, lambda v: v * np.float32(3), np.exp, lambda v: v / np.float32(7)):
        exact = step(exact).astype(BF).astype(np.float32)
    found = gc.compile(chain)(x).astype(np.float32)
    assert (found != exact).mean() < 0.01 and np.abs(found / exact - 1).max() < 2 ** -7       # functions differ in f32's last bits
    text = gc.compile(chain).dump("simplified")
    assert text.count("{dtype=bf16}") == 4 and gc.compile(chain).dump("fused").count("fused(") == 1


@pytest.mark.parametrize("dtype", [gc.f16, gc.bf16], ids=str)
def test_layers_train_in_f32(dtype):
    with pytest.raises(gc.GraphError, match=rf"Linear would have weight in {dtype}, .*: convert the input, x.astype\(gc.f32\); .*store=\"{dtype}\"") as info:
        gc.compile(nn.Linear(2), seed=0, x=dtype[1, 3])
    assert info.value.loc.file == __file__
    net = nn.Linear(2)

    def converted(x):
        return net(x.astype(gc.f32)).astype(dtype)
    assert gc.compile(converted, seed=0, x=dtype[1, 3])(np.ones((1, 3), dtype.np)).dtype == dtype.np


def test_a_nan_in_16_bits_is_found(monkeypatch):
    monkeypatch.setenv("GRAPHC_CHECK_NAN", "1")

    @gc.graph
    def f(x: gc.bf16[40]):
        return gc.log(x) * 2
    run = gc.compile(f)
    run(np.ones(40, BF))
    with pytest.raises(gc.GraphError, match="log"):
        run(-np.ones(40, BF))


def test_texts_and_copies():
    for d in DTYPES:
        assert pickle.loads(pickle.dumps(d)) is d is copy.deepcopy(d)
        assert d.np.itemsize == d.itemsize and dtype_of(np.zeros(1, d.np)) is d
        if d.is_int:
            assert d.range == (np.iinfo(d.np).min, np.iinfo(d.np).max)
        if d.is_float:
            assert d.range[1] == float(ml_dtypes.finfo(d.np).max)
    w = np.ones((2, 3), BF)
    np.testing.assert_array_equal(gc.compile(gc.parse(str(mixed)))(w, 1)[0], 2 * w.astype(np.float32))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_which_type_has_the_numbers_of_another(dtype):
    """Against all numbers of 16 bits, or the ends of the others."""
    for other in DTYPES:
        if "bool" in (dtype.kind, other.kind):
            assert includes(dtype, other) is (dtype is other)
            continue
        if other.bits <= 16:
            x = np.arange(1 << other.bits, dtype=f"u{other.itemsize}").view(other.np)
            x = x[np.isfinite(x.astype(np.float64))]
        else:
            x = np.array(other.range).astype(other.np) if other.is_float else np.array([other.range[0], other.range[1], other.range[1] - 1], other.np)
            x = np.concatenate([x, np.array([0.1, 1e-30], other.np)]) if other.is_float else x
        with np.errstate(all="ignore"):
            there = x.astype(dtype.np)
            same = [type(b)(a) == b and a == type(a)(b) for a, b in zip(plain(x), plain(there))] if dtype.is_float or other.is_int else [False]
        assert includes(dtype, other) == all(same), (dtype, other)


def plain(x: np.ndarray) -> list:
    """Python's numbers."""
    return (x.astype(np.float64) if dtype_of(x).is_storage else x).tolist()


def test_common():
    named = {d.name: d for d in DTYPES}
    for names, wanted in {"i8 u8": "i16", "u16 i16": "i32", "bf16 f16": "f32", "f16 i8": "f16", "f32 f64": "f32", "bf16 f32": "f32", "u8 u16": "u16"}.items():
        assert common([named[n] for n in names.split()]) is named[wanted], names


def test_importing_graphc_loads_no_bf16():
    code = "import sys, graphc; graphc.f32[2]; print('ml_dtypes' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
