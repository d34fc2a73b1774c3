"""Networks of sequence layers learn from padded batches, through native training steps."""
import numpy as np

import graphc as gc
from graphc import nn, optim


def padded(random, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids [T, B] of 1 … 9 with zeros behind, T of 6, 9 or 12, and lengths [B]."""
    steps = int(random.choice([6, 9, 12]))
    lengths = random.integers(2, steps + 1, batch).astype(np.int32)
    ids = np.where(np.arange(steps)[:, None] < lengths, random.integers(1, 10, (steps, batch)), 0)
    return ids.astype(np.int32), lengths


def test_many_to_one_with_named_sizes():
    """Does a 7 occur in the first half? The classifier reads the last real step."""
    random = np.random.default_rng(0)

    def batch(count):
        ids, lengths = padded(random, count)
        return ids, lengths, ((ids == 7) & (np.arange(len(ids))[:, None] < lengths / 2)).any(0).astype(np.int32)
    net = nn.Embedding(10, 12) >> nn.GRU(24, bidirectional=True) >> nn.Collapse("last") >> nn.Linear(2)
    step = gc.train_step(net, loss=nn.cross_entropy, optimizer=optim.Adam(5e-3), x=gc.i32["T", "B"],
                         lengths=gc.i32["B"], y=gc.i32["B"], seed=0)
    for _ in range(400):
        step(*batch(48))
    assert step.evaluate([batch(200) for _ in range(3)], accuracy=nn.accuracy)["accuracy"] > 0.97


def test_an_encoder_and_a_decoder_learn_to_reverse():
    encoder = nn.Embedding(10, 24) >> nn.SinusoidalPosition() >> nn.TransformerBlock(2, pre_norm=True)
    decoder = nn.Embedding(11, 24) >> nn.SinusoidalPosition() >> nn.DecoderBlock(2, pre_norm=True) >> nn.Linear(11)
    random = np.random.default_rng(0)

    def loss(x, lengths, y):
        scores = decoder(y[:, :-1], memory=encoder(x, lengths=lengths), memory_lengths=lengths)
        return nn.sequence_loss(scores, y[:, 1:], ignore_index=0,
                                batch_first=True), {"right": nn.accuracy(scores, y[:, 1:], ignore_index=0)}

    def batch(count):
        lengths = random.integers(2, 6, count).astype(np.int32)
        x = np.where(np.arange(5) < lengths[:, None], random.integers(1, 10, (count, 5)), 0).astype(np.int32)
        y = np.zeros((count, 6), np.int32)
        y[:, 0] = 10
        for row, ids, n in zip(y, x, lengths):
            row[1:n + 1] = ids[:n][::-1]
        return x, lengths, y
    step = gc.train_step(loss, optimizer=optim.Adam(5e-3), x=gc.i32[64, 5], lengths=gc.i32[64], y=gc.i32[64, 6], seed=0)
    for _ in range(500):
        step(*batch(64))
    assert step.evaluate([batch(300)])["right"] > 0.95
