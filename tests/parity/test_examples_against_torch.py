"""The three examples' networks in PyTorch: the same weights and batches, dropout off: first gradients and twenty losses."""
import math
from dataclasses import replace

import char_lstm
import char_transformer
import numpy as np
import pytest
import torch
from text import python_topics, random_windows

import graphc as gc
from graphc import demo, nn, optim

pytestmark = pytest.mark.peers
STEPS = 20
BATCH, LENGTH = 4, 16
TEXT = python_topics(20_000)
LETTERS = len(TEXT.letters)


def digit_batches():
    data = demo.digits()
    return [(data.x[i:i + 16], data.y[i:i + 16]) for i in range(0, 16 * STEPS, 16)]


def torch_digits():
    def block(inside, outside):
        return torch.nn.Conv2d(inside, outside, 3, padding=1), torch.nn.BatchNorm2d(outside), torch.nn.ReLU()
    pool, drop = torch.nn.MaxPool2d(2), torch.nn.Dropout(0)
    return torch.nn.Sequential(*block(1, 32), *block(32, 64), pool, drop, *block(64, 64), pool, drop, torch.nn.Flatten(), torch.nn.Linear(256, 10))


class FirstOf(torch.nn.LSTM):
    def forward(self, x):
        return super().forward(x)[0]


class Positions(torch.nn.Module):
    def forward(self, x):
        angles = torch.arange(x.shape[1])[:, None] * torch.exp(-torch.arange(0, x.shape[2], 2) / x.shape[2] * math.log(10000.0))
        return x + torch.stack([torch.sin(angles), torch.cos(angles)], -1).flatten(1)


class CausalBlocks(torch.nn.Sequential):
    def forward(self, x):
        mask = torch.nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        for block in self:
            x = block(x, src_mask=mask, is_causal=True)
        return x


def torch_lstm(settings):
    return torch.nn.Sequential(torch.nn.Embedding(LETTERS, 64), FirstOf(64, settings.hidden, batch_first=True), torch.nn.Dropout(0),
                               torch.nn.Linear(settings.hidden, LETTERS))


def torch_transformer(settings):
    width = settings.hidden
    blocks = [torch.nn.TransformerEncoderLayer(width, char_transformer.HEADS, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
              for _ in range(char_transformer.LAYERS)]
    return torch.nn.Sequential(torch.nn.Embedding(LETTERS, width), Positions(), CausalBlocks(*blocks), torch.nn.LayerNorm(width),
                               torch.nn.Linear(width, LETTERS))


def case(name):
    """(graphc network, PyTorch network, batches, types of the inputs)."""
    if name == "digits":
        return demo.network((0.0, 0.0)), torch_digits(), digit_batches(), {"x": gc.f32[16, 1, 8, 8], "y": gc.i32[16]}
    example, make = {"lstm": (char_lstm, torch_lstm), "transformer": (char_transformer, torch_transformer)}[name]
    settings = replace(example.DEFAULTS, hidden=64, batch=BATCH, length=LENGTH, dropout=0.0)
    batches = list(random_windows(TEXT.train, BATCH, LENGTH, STEPS, seed=0))
    return example.network(LETTERS, settings), make(settings), batches, {"x": gc.i32[BATCH, LENGTH], "y": gc.i32[BATCH, LENGTH]}


def torch_loss(net, x, y):
    x = torch.tensor(x) if x.dtype == np.float32 else torch.tensor(x).long()
    scores = net(x)
    return torch.nn.functional.cross_entropy(scores.reshape(-1, scores.shape[-1]), torch.tensor(y).long().reshape(-1))


def take_weights(step, peer):
    """PyTorch's network starts with graphc's parameters; every name must be known to both."""
    values = {n: torch.tensor(step.state[n]) for n in step.state if not n.startswith(("optim.", "step", "random"))}
    found = peer.load_state_dict(values, strict=False)
    assert not found.unexpected_keys and all(n.endswith("num_batches_tracked") for n in found.missing_keys)


@pytest.mark.parametrize("name", ["digits", "lstm", "transformer"])
def test_first_gradients(name, engine):
    net, peer, batches, types = case(name)
    step = gc.train_step(net, loss=nn.cross_entropy, optimizer=optim.SGD(0.0, momentum=0.9), seed=0, **types)
    take_weights(step, peer)
    torch_loss(peer, *batches[0]).backward()
    step(*batches[0])                   # the momentum after one step is the gradient
    pairs = [(step.state["optim.momentum." + n], p.grad.numpy()) for n, p in peer.named_parameters()]
    norm = np.sqrt(sum((b.astype(np.float64) ** 2).sum() for _, b in pairs))
    error = np.sqrt(sum(((a - b).astype(np.float64) ** 2).sum() for a, b in pairs))
    assert error <= 1e-5 * norm


def largest_difference(name, seed):
    """Of twenty losses, relative."""
    net, peer, batches, types = case(name)
    step = gc.train_step(net, loss=nn.cross_entropy, optimizer=optim.AdamW(1e-3, clip_norm=1.0), seed=seed, **types)
    take_weights(step, peer)
    optimizer, differences = torch.optim.AdamW(peer.parameters(), lr=1e-3), []
    for x, y in batches:
        loss = torch_loss(peer, x, y)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(peer.parameters(), 1.0)
        optimizer.step()
        differences.append(abs(step(x, y) / float(loss.detach()) - 1))
    return max(differences)


@pytest.mark.parametrize("name", ["digits", "lstm", "transformer"])
def test_twenty_steps(name, engine, monkeypatch):
    """Median of 3 seeds: now and then one of two million pre-activations is within rounding of ReLU's kink and gets the other derivative
    (PyTorch in f32 differs from PyTorch in f64 by 1e-4 and more for three seeds of six); a wrong formula is wrong for every seed.

    By direct convolutions, whose rounding is PyTorch's: three times the error of Winograd's form meets three times as many kinks."""
    monkeypatch.setenv("GRAPHC_WINOGRAD", "0")
    assert np.median([largest_difference(name, seed) for seed in range(3)]) <= 1e-4
