"""What networks that quantise as they go give by definition, and how far rounding alone moves them.

An operator that quantises dynamically takes its scale from the numbers themselves: a number near the middle of two
steps goes up or down with its last bit, and one step is 1/255 of the range. Two right programs may therefore differ by
a step, and what follows by more. Here is the definition of such networks in numpy, by onnx's reference evaluator, with
gates in f64; and the same with each state of a recurrence moved by a unit in its last place.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

DRAWS = 4
UNIT = 2.0 ** -23                   # of the last place of f32
OPSET = 19                          # from which on the evaluator has all operators of these files


def quantises(model: onnx.ModelProto) -> bool:
    """Whether the model takes scales from numbers that it computes."""
    return any(node.op_type.startswith("DynamicQuantize") for node in model.graph.node)


def results(model: onnx.ModelProto, inputs: Mapping[str, np.ndarray], draw: int = 0) -> list[np.ndarray]:
    """The outputs of the model. `draw`: 0 for those of the definition, others for states moved in their last place."""
    newer = onnx.ModelProto.FromString(model.SerializeToString())
    for entry in newer.opset_import:
        if not entry.domain and entry.version < OPSET:
            entry.version = OPSET
    kept = [entry for entry in newer.opset_import if entry.domain in ("", "com.microsoft", "ai.onnx.ml")]
    del newer.opset_import[:]
    newer.opset_import.extend(kept)
    random = np.random.default_rng(draw)

    def moved(state: np.ndarray) -> np.ndarray:
        return state * (1 + UNIT * random.uniform(-1, 1, state.shape)) if draw else state
    return ReferenceEvaluator(newer, new_ops=[_lstm(moved)]).run(None, dict(inputs))


def roundings(model: onnx.ModelProto, inputs: Mapping[str, np.ndarray]) -> Iterator[list[np.ndarray]]:
    """The outputs of the definition, and of it with states moved in their last place."""
    return (results(model, inputs, draw) for draw in range(DRAWS))


def _quantised(x: np.ndarray) -> tuple[np.ndarray, np.float32, int]:
    """x as u8 over its range with 0 in it; scale and zero point."""
    low, high = np.minimum(x.min(), np.float32(0)), np.maximum(x.max(), np.float32(0))
    scale = (high - low) / np.float32(255) or np.float32(1)
    zero = int(np.clip(np.rint(-low / scale), 0, 255))
    return np.clip(np.rint(x / scale) + zero, 0, 255).astype(np.float64), scale, zero


def _product(x: np.ndarray, weights: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> np.ndarray:
    """x, quantised, times weights of small integers (f64, in which their sums are exact)."""
    q, own, offset = _quantised(x)
    return (q - offset) @ (weights - zero) * np.float64(own * scale)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _lstm(moved: Callable[[np.ndarray], np.ndarray]) -> type[OpRun]:
    class DynamicQuantizeLSTM(OpRun):
        """The LSTM of com.microsoft with the usual activations. The whole input is quantised at once, a state at each
        step."""
        op_domain = "com.microsoft"

        def _run(self, x: np.ndarray, w: np.ndarray, r: np.ndarray, bias: np.ndarray, lengths: None, h: np.ndarray,
                 c: np.ndarray, peepholes: None, *scales: np.ndarray, **attributes: Any) -> tuple[np.ndarray, ...]:
            used = attributes["direction"]
            parts = []
            for i in range(len(w)):
                backwards = used == "reverse" or i == 1
                products = [(weights[i].astype(np.float64), scale[i], zero[i].astype(np.float64))
                            for weights, scale, zero in ((w, *scales[:2]), (r, *scales[2:]))]
                parts.append(_direction(x[::-1] if backwards else x, products, bias[i], (h[i], c[i]), moved))
                if backwards:
                    parts[-1][0] = parts[-1][0][::-1]
            y, last, cells = zip(*parts)
            return np.stack(y, 1), np.stack(last), np.stack(cells)
    return DynamicQuantizeLSTM


def _direction(x: np.ndarray, products: Sequence[tuple[np.ndarray, ...]], bias: np.ndarray,
               state: tuple[np.ndarray, np.ndarray], moved: Callable[[np.ndarray], np.ndarray]) -> list[np.ndarray]:
    """States of all steps [T, B, H], the last and its cell. Gates stand in the order i, o, f, c."""
    h, c = state[0], state[1].astype(np.float64)
    steps, batch = x.shape[:2]
    given = _product(x.reshape(steps * batch, -1), *products[0]).reshape(steps, batch, -1)
    given = given + bias.reshape(2, -1).astype(np.float64).sum(0)
    found = []
    for x_of_step in given:
        i, o, forget, new = np.split(x_of_step + _product(h, *products[1]), 4, -1)
        c = _sigmoid(forget) * c + _sigmoid(i) * np.tanh(new)
        h = moved(_sigmoid(o) * np.tanh(c)).astype(np.float32)
        found.append(h)
    return [np.stack(found), h, c.astype(np.float32)]
