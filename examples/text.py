"""Shared by the language models: a text that comes with Python, batches of it, and a model that counts."""
from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from math import log2
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np

IGNORED = -1                        # a target that does not count


@dataclass(frozen=True)
class Letters:
    """Characters and their ids: `letters[id]`."""
    letters: str

    @property
    def count(self) -> int:
        return len(self.letters)

    def decode(self, ids) -> str:
        return "".join(self.letters[i] for i in ids)

    def encode(self, text: str) -> np.ndarray:
        number = {c: i for i, c in enumerate(self.letters)}
        return np.array([number[c] for c in text], np.int32)


@dataclass(frozen=True)
class Text(Letters):
    """Training text and held-out text (the last tenth) as character ids."""
    train: np.ndarray
    held_out: np.ndarray


def python_topics(limit: int | None = None) -> Text:
    """The help topics of Python's own documentation, sorted by key; `limit`: the first so many characters only."""
    text = "\n".join(topics[key] for key in sorted(topics))[:limit]
    letters = "".join(sorted(set(text)))
    number = {c: i for i, c in enumerate(letters)}
    ids = np.array([number[c] for c in text], np.int32)
    cut = len(ids) * 9 // 10
    return Text(letters, ids[:cut], ids[cut:])


@dataclass(frozen=True)
class Words:
    """A text as numbers of words, -1 for those that are too rare: `words[id]`, the most frequent first."""
    words: tuple[str, ...]
    ids: np.ndarray

    def encode(self, words) -> np.ndarray:
        number = {word: i for i, word in enumerate(self.words)}
        return np.array([number.get(word, -1) for word in words], np.int64)


def python_words(at_least: int = 1) -> Words:
    """The words of the help topics, in small letters."""
    text = re.findall(r"[a-z_]+", "\n".join(topics[key] for key in sorted(topics)).lower())
    counts = sorted(Counter(text).items(), key=lambda item: (-item[1], item[0]))
    words = Words(tuple(word for word, n in counts if n >= at_least), np.empty(0, np.int64))
    return replace(words, ids=words.encode(text))


PIECE = re.compile(r"[A-Za-z]+|\d|[^\sA-Za-z\d]")
MODULES = ("argparse", "difflib", "ipaddress", "mailbox", "pickle", "tarfile", "turtle", "typing")
PADDING, UNKNOWN = 0, 1


@dataclass(frozen=True)
class Lines:
    """Lines of source as ids of their pieces: x [n, length] padded with PADDING, lengths [n], and the number of the
    module that each is from, y [n]."""
    x: np.ndarray
    lengths: np.ndarray
    y: np.ndarray

    def __getitem__(self, chosen) -> Lines:
        return Lines(self.x[chosen], self.lengths[chosen], self.y[chosen])

    def __len__(self) -> int:
        return len(self.y)

    def batches(self, size: int, steps: int, seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """`steps` batches of lines drawn at random."""
        random = np.random.default_rng(seed)
        for _ in range(steps):
            chosen = random.integers(0, len(self), size)
            yield self.x[chosen], self.lengths[chosen], self.y[chosen]


def module_source(module: str) -> str:
    """The source of a module of Python's library."""
    return Path(find_spec(module).origin).read_text()


def library_lines(length: int = 16, at_least: int = 3, most: int = 1000,
                  seed: int = 0) -> tuple[tuple[str, ...], Lines, Lines]:
    """Vocabulary, lines to train with and a fifth to judge by: at most so many lines of each of MODULES of Python's
    library, of five pieces or more, cut after `length`; none that occurs twice. A piece that occurs less often than
    `at_least` in the lines to train with is UNKNOWN."""
    random, lines = np.random.default_rng(seed), Counter()
    for number, module in enumerate(MODULES):
        text = {line.strip() for line in module_source(module).splitlines() if len(PIECE.findall(line)) >= 5}
        lines.update({line: (1 << 32) + number for line in random.permutation(sorted(text))[:most]})
    found = [(PIECE.findall(line)[:length], count & 0xffff) for line, count in lines.items() if count >> 32 == 1]
    found = [found[i] for i in random.permutation(len(found))]
    cut = len(found) * 4 // 5
    counts = Counter(piece for pieces, _ in found[:cut] for piece in pieces)
    words = ("", "?", *sorted(piece for piece, n in counts.items() if n >= at_least))
    number = {word: i for i, word in enumerate(words)}
    x = np.full((len(found), length), PADDING, np.int32)
    for row, (pieces, _) in zip(x, found):
        row[:len(pieces)] = [number.get(piece, UNKNOWN) for piece in pieces]
    every = Lines(x, np.array([len(pieces) for pieces, _ in found], np.int32),
                  np.array([y for _, y in found], np.int32))
    return words, every[:cut], every[cut:]


def random_windows(ids: np.ndarray, batch: int, length: int, steps: int,
                   seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`steps` batches (x, y) [batch, length] of windows at random places; y is x one character later."""
    random = np.random.default_rng(seed)
    for _ in range(steps):
        starts = random.integers(0, len(ids) - length, batch)
        windows = ids[starts[:, None] + np.arange(length + 1)]
        yield windows[:, :-1].copy(), windows[:, 1:].copy()


def every_window(ids: np.ndarray, batch: int, length: int, context: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches (x, y) [batch, length] that together ask for every character after the first once: a window moves on by
    `length - context`; y is IGNORED where a character serves as context only. Each batch asks for something."""
    starts = range(0, max(len(ids) - context - 1, 1), length - context)
    padded = np.concatenate([ids, np.zeros(length + 1, ids.dtype)])
    rows = [_window(padded, len(ids), s, length, context if s else 0) for s in starts]
    rows += [(rows[0][0], np.full_like(rows[0][1], IGNORED))] * (-len(rows) % batch)
    for i in range(0, len(rows), batch):
        yield tuple(np.stack(part) for part in zip(*rows[i:i + batch]))


def _window(padded: np.ndarray, count: int, start: int, length: int, context: int) -> tuple[np.ndarray, np.ndarray]:
    asked = (np.arange(length) >= context) & (start + 1 + np.arange(length) < count)
    following = np.where(asked, padded[start + 1:start + length + 1], IGNORED)
    return padded[start:start + length], following.astype(padded.dtype)


@dataclass(frozen=True)
class Counted:
    """Bits per held-out character of n-gram models. `likeliest`: of maximum likelihood, count(h, c) / count(h), over
    the characters that ever followed their history; the share `unseen` never did, so that all of them together would
    take infinitely many bits."""
    interpolated: float
    likeliest: float
    unseen: float


def ngrams(train: np.ndarray, held_out: np.ndarray, letters: int, order: int = 5) -> Counted:
    """The `order`-gram model of maximum likelihood, and that interpolated with all shorter ones (Witten and Bell 1991):
    p(c | h) = (count(h, c) + kinds(h) p(c | h')) / (count(h) + kinds(h)), h' one character shorter,
    uniform at the end."""
    counts = [_counts(train, n) for n in range(order)]
    text = tuple(held_out.tolist())
    bits, known = 0.0, []
    for i in range(1, len(text)):
        p, longest = 1.0 / letters, 0.0
        for n in range(min(order, i + 1)):
            after = counts[n].get(text[i - n:i])
            if after is None:
                longest = 0.0
                break
            total, kinds, count = after[None], len(after) - 1, after.get(text[i], 0)
            p, longest = (count + kinds * p) / (total + kinds), count / total
        bits -= log2(p)
        known.append(longest)
    seen = [p for p in known if p]
    return Counted(bits / max(len(known), 1), -sum(map(log2, seen)) / max(len(seen), 1),
                   1 - len(seen) / max(len(known), 1))


def _counts(ids: np.ndarray, n: int) -> dict[tuple, dict]:
    """For each context of `n` characters: how often each character follows; under None the sum."""
    text = tuple(ids.tolist())
    table: dict[tuple, Counter] = defaultdict(Counter)
    for i in range(n, len(text)):
        after = table[text[i - n:i]]
        after[text[i]] += 1
        after[None] += 1
    return table


def sample(next_logits, start: np.ndarray, count: int, temperature: float = 0.8, seed: int = 0) -> np.ndarray:
    """`count` characters after `start`: `next_logits(ids)` gives the scores of the next one."""
    random = np.random.default_rng(seed)
    ids = list(start)
    for _ in range(count):
        scores = np.asarray(next_logits(np.array(ids, np.int32)), np.float64) / temperature
        p = np.exp(scores - scores.max())
        ids.append(int(random.choice(len(p), p=p / p.sum())))
    return np.array(ids[len(start):], np.int32)
