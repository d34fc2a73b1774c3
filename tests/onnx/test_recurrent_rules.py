"""RNN, GRU and LSTM of ONNX with all their attributes: against ONNX Runtime where it has them, and gradients."""
from __future__ import annotations

import numpy as np
import pytest
from one_node import floats, in_graphc, model_of, same

import graphc as gc

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
T, N, I, H = 4, 3, 5, 6


def operands(op: str, directions: int, lengths=None, states: bool = True, peepholes: bool = False) -> dict:
    rows = GATES[op] * H
    given = {"x": floats(T, N, I), "w": floats(directions, rows, I, seed=1), "r": floats(directions, rows, H, seed=2, scale=0.5),
             "b": floats(directions, 2 * rows, seed=3),
             "lens": None if lengths is None else np.array(lengths, np.int32),
             "h": floats(directions, N, H, seed=4) if states else None}
    if op == "LSTM":
        given |= {"c": floats(directions, N, H, seed=5) if states else None,
                  "p": floats(directions, 3 * H, seed=6) if peepholes else None}
    return given


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("direction", ("forward", "reverse", "bidirectional"))
@pytest.mark.parametrize("lengths", (None, (4, 2, 3)))
def test_directions_and_lengths(op, direction, lengths):
    given = operands(op, 2 if direction == "bidirectional" else 1, lengths)
    same(op, given, 3 if op == "LSTM" else 2, constants=("w", "r", "b"), direction=direction, hidden_size=H, tolerance=2e-5)


def test_without_bias_and_states():
    for op in GATES:
        given = operands(op, 1, states=False) | {"b": None}
        same(op, given, 1, constants=("w", "r"), hidden_size=H, tolerance=2e-5)


def test_gru_with_the_reset_gate_behind_the_product():
    for direction in ("forward", "bidirectional"):
        given = operands("GRU", 2 if direction == "bidirectional" else 1, (4, 1, 3))
        same("GRU", given, 2, constants=("w", "r", "b"), direction=direction, hidden_size=H, linear_before_reset=1,
             tolerance=2e-5)


def test_lstm_with_peepholes_and_coupled_gates():
    given = operands("LSTM", 1, peepholes=True)
    same("LSTM", given, 3, constants=("w", "r", "b", "p"), hidden_size=H, tolerance=2e-5)
    same("LSTM", operands("LSTM", 1), 3, constants=("w", "r", "b"), hidden_size=H, input_forget=1, tolerance=2e-5)


@pytest.mark.parametrize("names, alphas, betas", (
    (("Relu",), (), ()), (("Affine",), (0.5,), (0.1,)), (("LeakyRelu",), (0.2,), ()), (("ThresholdedRelu",), (0.3,), ()),
    (("ScaledTanh",), (0.7,), (1.3,)), (("HardSigmoid",), (0.3,), (0.4,)), (("Elu",), (0.8,), ()), (("Softsign",), (), ()),
    (("Softplus",), (), ())))
def test_activations(names, alphas, betas):
    more = {k: v for k, v in (("activation_alpha", alphas), ("activation_beta", betas)) if v}
    same("RNN", operands("RNN", 1), 2, constants=("w", "r", "b"), activations=names, hidden_size=H, tolerance=1e-4, **more)


def test_several_activations_with_numbers_of_their_own():
    """Numbers go to the activations that have some, in order."""
    given = operands("LSTM", 2)
    names = ("HardSigmoid", "Tanh", "LeakyRelu", "Sigmoid", "ScaledTanh", "Tanh")
    same("LSTM", given, 3, constants=("w", "r", "b"), activations=names, activation_alpha=(0.3, 0.1, 0.9),
         activation_beta=(0.4, 1.1), direction="bidirectional", hidden_size=H, tolerance=1e-4)


def test_clip():
    for op in GATES:
        same(op, operands(op, 1), 2, constants=("w", "r", "b"), clip=0.3, hidden_size=H, tolerance=2e-5)


@pytest.mark.parametrize("op", GATES)
def test_layout(op):
    """With the batch first it is the same as with time first."""
    given = operands(op, 1)
    turned = {n: a.swapaxes(0, 1).copy() if n in ("x", "h", "c") and a is not None else a for n, a in given.items()}
    outputs = 3 if op == "LSTM" else 2
    first = in_graphc(model_of(op, given, outputs, hidden_size=H), given)
    other = in_graphc(model_of(op, turned, outputs, hidden_size=H, layout=1), turned)
    np.testing.assert_allclose(other[0], first[0].transpose(2, 0, 1, 3), rtol=1e-6)
    for a, b in zip(other[1:], first[1:]):
        np.testing.assert_allclose(a, b.swapaxes(0, 1), rtol=1e-6)


@pytest.mark.parametrize("op", GATES)
def test_gradients(op):
    given = {n: None if a is None else a[:, :2] if n in ("x", "h", "c") else a
             for n, a in operands(op, 1, peepholes=True).items()} | {"lens": np.array([3, 4], np.int32)}
    wide = {n: a.astype(np.float64) if a is not None and a.dtype.kind == "f" else a for n, a in given.items()}
    wide = {n: a for n, a in wide.items() if a is not None}
    layer = {n: wide.pop(n).astype(np.float32) for n in "wrbp" if n in wide}
    single = {n: a.astype(np.float32) if a.dtype.kind == "f" else a for n, a in wide.items()}
    order = {n: {**single, **layer}.get(n) for n in given}
    net = gc.from_onnx(model_of(op, order, constants=tuple(layer), hidden_size=H))
    types = {n: (gc.f32 if a.dtype.kind == "f" else gc.i32)[a.shape] for n, a in wide.items()}
    assert gc.check_gradients(net, lens=single["lens"], **{n: t for n, t in types.items() if n != "lens"}, samples=6, directions=1)
