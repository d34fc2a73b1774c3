"""Fourier transforms."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import graphc as gc
from graphc.doors.onnx.call import Call
from graphc.doors.onnx.known import computable
from graphc.doors.onnx.rule import Float, Int, Unsupported
from graphc.dsl.array import Array
from graphc.ir.types import normalize_axis


def dft(x: Array, dft_length: Int | None = None, axis: Int = -2, *, inverse: int = 0, onesided: int = 0) -> Array:
    """Of real [..., 1] or complex [..., 2]."""
    axis = normalize_axis(axis, x.ndim)
    return _transformed(x, dft_length, axis, bool(inverse), bool(onesided))


def _transformed(x: Array, length: Any, axis: int, inverse: bool, onesided: bool) -> Array:
    real = x.shape[-1] == 1
    if onesided and inverse:                # from the first half to real numbers
        y = gc.irfft(x, length, axis)
        return gc.expand_dims(y, y.ndim)
    if onesided:
        return gc.rfft(x[..., 0], length, axis)
    pairs = gc.concat([x, gc.zeros_like(x)], x.ndim - 1) if real else x
    return gc.ifft(pairs, length, axis) if inverse else gc.fft(pairs, length, axis)


def dft_17(x: Array, dft_length: Int | None = None, *, axis: int = 1, inverse: int = 0, onesided: int = 0) -> Array:
    return dft(x, dft_length, axis, inverse=inverse, onesided=onesided)


def stft(x: Array, frame_step: Int, window: Array | None = None, frame_length: Int | None = None, *,
         onesided: int = 1) -> Array:
    """[batch, frames, numbers, 2] of real or complex pieces."""
    length: Any = window.shape[0] if frame_length is None and window is not None else frame_length
    if x.ndim == 3 and x.shape[2] == 2:
        raise Unsupported("complex signals")
    x = x if x.ndim == 2 else x[..., 0]
    return gc.swapaxes(gc.stft(x, length, frame_step, window, center=False, onesided=bool(onesided)), 1, 2)


def mel_weight_matrix(num_mel_bins: Int, dft_length: Int, sample_rate: Int, lower: Float, upper: Float, *,
                      output_datatype: int = 1, call: Call) -> np.ndarray:
    """Triangles over the frequencies of a spectrum, equally wide in mel = 2595 log10(1 + f / 700)."""
    dtype = call.importer.dtype(output_datatype)
    bins = dft_length // 2 + 1
    computable(bins * num_mel_bins)
    ends = 2595 * np.log10(1 + np.array([lower, upper]) / 700)
    mels = np.arange(num_mel_bins + 2) * (ends[1] - ends[0]) / (num_mel_bins + 2) + ends[0]
    edges = 700 * (10 ** (mels / 2595) - 1)
    at = ((dft_length + 1) * edges // sample_rate).astype(int)
    weights = np.zeros((bins, num_mel_bins))
    for i in range(num_mel_bins):
        low, middle, high = at[i:i + 3]
        rising = middle - low
        if rising == 0:
            weights[middle, i] = 1
        for j in range(low, middle + 1):
            if rising:
                weights[j, i] = (j - low) / rising
        for j in range(middle, high):
            weights[j, i] = (high - j) / (high - middle)
    return weights.astype(dtype.np)


RULES: Mapping[str, Callable[..., Any]] = {"DFT": dft, "STFT": stft, "MelWeightMatrix": mel_weight_matrix}
