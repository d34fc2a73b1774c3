"""Fourier transforms: any length, their accuracy (the table of docs/numerics.md), stft and istft, gradients, mistakes."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.ir.dft import roots

RNG = np.random.default_rng(9)
# of the root mean square, relative: the greatest found in f32 and f64 among lengths up to each
MEASURED = {64: (2.5e-7, 4.5e-16), 1024: (3.5e-7, 6.5e-16), 4096: (4e-7, 7e-16)}
LENGTHS = {64: (2, 3, 7, 16, 31, 64), 1024: (65, 100, 127, 211, 331, 1000, 1024), 4096: (1999, 4096)}


def complex_of(x):
    return x[..., 0] + 1j * x[..., 1]


@pytest.mark.parametrize("most", LENGTHS)
def test_error(most):
    for n in LENGTHS[most]:
        for dtype, limit in zip((np.float32, np.float64), MEASURED[most]):
            z, x = RNG.standard_normal((3, n, 2)).astype(dtype), RNG.standard_normal((3, n)).astype(dtype)
            kind = gc.f32 if dtype == np.float32 else gc.f64
            run = gc.compile(lambda z, x: (gc.fft(z), gc.ifft(z), gc.rfft(x), gc.irfft(gc.rfft(x), x.shape[-1])), z=kind[3, n, 2], x=kind[3, n])
            full, back, half, again = run(z, x)
            wide = complex_of(z.astype(np.longdouble))
            for got, want in ((full, np.fft.fft(wide)), (back, np.fft.ifft(wide)), (half, np.fft.rfft(x.astype(np.longdouble)))):
                off = complex_of(got.astype(np.longdouble)) - want
                assert np.sqrt(np.mean(abs(off) ** 2) / np.mean(abs(want) ** 2)) <= limit, (n, dtype)
            np.testing.assert_allclose(again, x, rtol=0, atol=20 * limit)


def test_roots_are_exact_at_eighths_of_a_turn():
    cos, sin = roots(np.arange(8), 8, 1)
    r = np.sqrt(0.5)
    np.testing.assert_allclose(cos, [1, r, 0, -r, -1, -r, 0, r], rtol=1e-15, atol=0)
    np.testing.assert_allclose(sin, [0, r, 1, r, 0, -r, -1, -r], rtol=1e-15, atol=0)


def test_long_transforms_take_far_fewer_operations_than_a_product():
    @gc.graph
    def f(x: gc.f32[4096, 2]):
        return gc.fft(x)
    (node,) = (n for n in f.graph.nodes if n.op.name == "dft")
    assert node.op.cost(node.inputs[0].type).flops < 4096 ** 2 / 2


def test_gradients():
    """First and second, of a power spectrum."""
    x, z = RNG.standard_normal((2, 12)), RNG.standard_normal((10, 2))

    def f(x, z):
        y = gc.stft(x, 8, 4, np.hanning(8))
        return gc.sum(gc.sum(y * y, -1) ** 2) + gc.sum(gc.ifft(gc.fft(z) ** 3) ** 2)
    gc.check_gradients(f, raises=True, x=x, z=z)


def test_istft_is_the_inverse():
    x, window = RNG.standard_normal((2, 50)), np.hanning(18)[1:-1]

    @gc.graph
    def f(x: gc.f64[2, 50], w: gc.f64[16]):
        return (gc.istft(gc.stft(x, 16, 4, w), 16, 4, w, length=50), gc.istft(gc.stft(x, 16, 4), 16, 4, length=48),
                gc.istft(gc.stft(x, 16, 5, w, center=False), 16, 5, w, center=False))
    centred, plain, uncentred = gc.compile(f)(x, window)
    np.testing.assert_allclose(centred, x[:, :50], atol=1e-12)
    np.testing.assert_allclose(plain, x[:, :48], atol=1e-12)
    np.testing.assert_allclose(uncentred, x[:, :uncentred.shape[1]], atol=1e-12)


@pytest.mark.peers
@pytest.mark.parametrize("options", ({}, {"center": False}, {"pad_mode": "constant"}, {"onesided": False}, {"win_length": 10}))
def test_stft_of_torch(options):
    torch = pytest.importorskip("torch")
    x = RNG.standard_normal((2, 60))
    size = options.get("win_length", 16)
    window = np.hanning(size + 2)[1:-1]
    want = torch.stft(torch.tensor(x), 16, 4, window=torch.tensor(window), return_complex=True, **options)
    mine = {"padding" if k == "pad_mode" else k: v for k, v in options.items() if k != "win_length"}
    got = gc.compile(lambda x: gc.stft(x, 16, 4, window, **mine), x=gc.f64[2, 60])(x)
    np.testing.assert_allclose(got, torch.view_as_real(want).numpy(), atol=1e-12)
    if options in ({}, {"win_length": 10}):
        back = torch.istft(want, 16, 4, window=torch.tensor(window), length=55, **options).numpy()
        again = gc.compile(lambda z: gc.istft(z, 16, 4, window, length=55), z=gc.f64[got.shape])(got)
        np.testing.assert_allclose(again, back, atol=1e-12)


MISTAKES = (
    (lambda x: gc.fft(x), r"gc\.rfft"), (lambda x: gc.rfft(x, n=0), ">= 1"), (lambda x: gc.rfft(x, norm="unit"), "one of backward"),
    (lambda x: gc.stft(x, 40), "reflection needs more"), (lambda x: gc.stft(x, 40, center=False), "less than one piece"),
    (lambda x: gc.stft(x, 8, window=gc.ones((9,))), "1 to 8 numbers"), (lambda x: gc.istft(gc.rfft(x), 8), "istft takes x"),
    (lambda x: gc.rfft(x, axis=2), "axis"), (lambda x: gc.irfft(gc.zeros((3, 1, 2))), "give n"))


@pytest.mark.parametrize("f, says", MISTAKES)
def test_mistakes(f, says):
    with pytest.raises(gc.GraphError, match=says) as caught:
        gc.compile(lambda x: f(x), x=gc.f32[3, 16])
    assert caught.value.loc.file == __file__


def test_a_length_that_is_a_name_is_refused():
    with pytest.raises(gc.GraphError, match="needs the size T of axis 0 as an int"):
        gc.compile(lambda x: gc.rfft(x), x=gc.f32["T"])
