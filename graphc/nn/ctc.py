"""Connectionist temporal classification: the probability of a sequence of labels over all alignments."""
from __future__ import annotations

import graphc as gc
from graphc.dsl.array import Array, as_float
from graphc.dsl.form import formed
from graphc.errors import GraphError
from graphc.ir.convert import choice, flag, integer
from graphc.nn.padding import checked_lengths
from graphc.nn.reduction import REDUCTIONS, ids_of

IMPOSSIBLE = -1e30                  # a logarithm of a probability of 0 whose differences are no NaN


@formed
def ctc_loss(log_probs: Array, targets: Array, input_lengths: Array, target_lengths: Array, *, blank: int = 0,
             reduction: str = "mean", zero_infinity: bool = False) -> Array:
    """-log of the probability of the labels (Graves et al. 2006): log_probs [T, B, C] of `gc.log_softmax`, targets [B,
    S], class ids of which the first target_lengths [B] count, none of them `blank`, and of log_probs the first
    input_lengths [B] steps. "mean": of each loss divided by the length of its target, as in torch. Targets that no
    alignment fits have the loss infinity, with zero_infinity 0 and no gradient.
    """
    x, ids = as_float(log_probs), ids_of("ctc_loss", targets)
    reduction, blank = choice(reduction, "ctc_loss: reduction", tuple(REDUCTIONS)), integer(blank, "ctc_loss: blank", 0)
    if x.ndim != 3 or ids.ndim != 2 or x.shape[1] != ids.shape[0]:
        raise GraphError("ctc_loss takes log_probs [time, batch, classes] and targets [batch, labels], got "
                         f"{x.type} and {ids.type}")
    steps, labels = (checked_lengths("ctc_loss", n, x.shape[1]) for n in (input_lengths, target_lengths))
    real = gc.iota((ids.shape[1],), dtype=labels.dtype) < gc.expand_dims(labels, 1)
    last = _last_state(x, _with_blanks(gc.where(real, ids, blank), blank), steps, blank)
    ends = gc.take_along_axis(last, gc.stack([2 * labels, gc.maximum(2 * labels - 1, 0)], axis=1), axis=1)
    ends = gc.where(gc.stack([labels >= 0, labels > 0], axis=1), ends, IMPOSSIBLE)
    losses = -gc.logsumexp(ends, axis=1)
    possible = losses < -IMPOSSIBLE / 2
    losses = gc.where(possible, losses, 0.0 if flag(zero_infinity, "ctc_loss: zero_infinity") else float("inf"))
    if reduction == "mean":
        return gc.mean(losses / gc.maximum(labels, 1).astype(losses.dtype))
    return REDUCTIONS[reduction](losses)


def _with_blanks(ids: Array, blank: int) -> Array:
    """[B, 2 S + 1]: a blank before each label and behind the last."""
    pairs = gc.stack([gc.full_like(ids, blank), ids], axis=2).reshape(ids.shape[0], 2 * ids.shape[1])
    return gc.concat([pairs, gc.full((ids.shape[0], 1), blank, ids.dtype)], axis=1)


def _last_state(x: Array, states: Array, steps: Array, blank: int) -> Array:
    """The logarithm of the probability of all alignments that end in each state after the last real step, [B, 2 S + 1].

    A state is reached from itself, from the one before, and, if it is a label unlike the last label, past the blank
    between them.
    """
    batch, count = states.shape
    jumps = gc.full((batch, count), False)
    if count > 2:
        other = (states[:, 2:] != blank) & (states[:, 2:] != states[:, :-2])
        jumps = gc.concat([gc.full((batch, 2), False), other], axis=1)
    emitted = gc.take_along_axis(x, gc.broadcast_to(gc.expand_dims(states, 0), (x.shape[0], batch, count)), axis=2)
    first = gc.where(gc.iota((count,)) < 2, emitted[0], IMPOSSIBLE)

    def step(alpha: Array, inputs: tuple[Array, Array]) -> tuple[Array, None]:
        row, time = inputs
        past = [gc.pad(alpha, ((0, 0), (n, 0)), IMPOSSIBLE)[:, :count] for n in (1, 2)]
        ways = gc.stack([alpha, past[0], gc.where(jumps, past[1], IMPOSSIBLE)], axis=0)
        new = gc.maximum(gc.logsumexp(ways, axis=0) + row, IMPOSSIBLE)
        return gc.where(gc.expand_dims(time < steps, 1), new, alpha), None
    return gc.scan(step, first, (emitted[1:], gc.iota((x.shape[0] - 1,), dtype=steps.dtype) + 1))[0]
