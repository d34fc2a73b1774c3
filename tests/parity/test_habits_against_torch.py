"""The orders of torch's arguments, by which errors translate a call of its layers, are torch's."""
import inspect

import pytest

from graphc.dsl.foreign import ORDERS

torch = pytest.importorskip("torch")
F = torch.nn.functional
OTHER = {"MultiHeadAttention": torch.nn.MultiheadAttention, "TransformerBlock": torch.nn.TransformerEncoderLayer,
         "DecoderBlock": torch.nn.TransformerDecoderLayer, "mse": F.mse_loss, "bce": F.binary_cross_entropy_with_logits}
# words of our own at places where arrays stand
OURS = {"x": "input", "y": "input", "logits": "input", "gamma": "weight", "beta": "bias"}
# which tell no signature
BUILT_IN = ("gelu", "softplus", "attention", "avg_pool1d", "avg_pool2d")


def peer(name):
    return OTHER.get(name) or next(getattr(m, name) for m in (torch.nn, torch.optim, F) if hasattr(m, name))


@pytest.mark.parametrize("name", [n for n in ORDERS if n not in BUILT_IN])
def test_the_order_is_torchs(name):
    its = [n for n, p in inspect.signature(peer(name)).parameters.items() if p.kind is not p.VAR_KEYWORD]
    if name in ("RNN", "LSTM", "GRU"):          # declared as *args: those of the base, with the size of the input first
        its = list(inspect.signature(torch.nn.RNNBase).parameters)[1:]
        its = its[:3] + ["nonlinearity"] * (name == "RNN") + its[3:]
    ours = [OURS.get(n, n) for n in ORDERS[name].split()]
    assert [n for n in its if not n.startswith("_")][:len(ours)] == ours
