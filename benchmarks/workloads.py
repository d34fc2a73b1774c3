"""What is measured: networks, sizes, and how far ahead of the best peer graphc is meant to be."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np

from benchmarks.arrays import Array
from benchmarks.operators import FAMILIES

INFER, TRAIN, GRADIENTS = "infer", "train", "gradients"
BATCHES = 4                     # different inputs, used in turn
DRAWN_BYTES = 32 << 20          # of a drawn operator: to make more takes longer than to run it
# of SGD. Batch norm after many layers makes the second loss depend on rounding when steps are large
RATE, NORMED_RATE = 0.1, 0.00001


@dataclass(frozen=True)
class Workload:
    """A network of `networks*.py` with its options, a batch size and a mode. `reach`: the wanted time of graphc / time
    of the best peer.

    `drawn`: its sizes come from a seed; `neighbour` names the workload that its ratio is compared with.
    """
    network: str
    batch: int
    mode: str
    reach: float
    options: Mapping[str, object] = field(default_factory=dict)
    title: str = ""
    drawn: bool = False
    neighbour: str = ""

    @property
    def name(self) -> str:
        return f"{self.title or self.network} b{self.batch} {self.mode}"

    @property
    def arrays(self) -> tuple[Array, ...]:
        """One batch: the network's inputs and, for training, the target."""
        inputs, target = ARRAYS[self.network](self.batch, **self.options)
        extra = {INFER: (), TRAIN: (target,), GRADIENTS: (target,)}
        return inputs + extra[self.mode]

    @property
    def is_operator(self) -> bool:
        """Whether it is a function of arrays without parameters of its own."""
        return self.network == "attention" or self.network in FAMILIES

    @property
    def rate(self) -> float:
        return NORMED_RATE if self.network in ("resnet", "mobilenet") else RATE

    def batches(self, seed: int = 0) -> list[tuple[np.ndarray, ...]]:
        rng, count = np.random.default_rng(seed), BATCHES
        if self.is_operator and self.drawn:
            nbytes = sum(4 * prod(a.shape) for a in self.arrays)
            count = min(BATCHES, max(1, DRAWN_BYTES // nbytes))
        return [tuple(a.draw(rng) for a in self.arrays) for _ in range(count)]


def _rows(batch, sizes):
    return (Array((batch, sizes[0])),), Array((batch,), sizes[-1])


def _images(batch, channels=3, size=224, classes=1000, **_):
    return (Array((batch, channels, size, size)),), Array((batch,), classes)


def _digits(batch, channels=(32, 64), size=28):
    return _images(batch, 1, size, 10)


def _steps(batch, length=64, vocabulary=1000, **_):
    return (Array((length, batch), vocabulary),), Array((length, batch), vocabulary)


def _tokens(batch, length, vocabulary, **_):
    return (Array((batch, length), vocabulary),), Array((batch, length), vocabulary)


def _heads(batch, heads, size, length, causal=False):
    one = Array((batch, heads, length, size))
    return (one, one, one), one


ARRAYS = {"mlp": _rows, "lenet": _digits, "alexnet": _images, "resnet": _images, "mobilenet": _images, "rnn": _steps,
          "lstm": _steps, "gru": _steps,
          "bert": _tokens, "gpt": _tokens, "attention": _heads,
          **{name: family.workload_arrays for name, family in FAMILIES.items()}}

TINY, MIDDLE = {"sizes": (8, 10, 7, 3)}, {"sizes": (784, 512, 512, 10)}
RESNET18, RESNET50 = {"blocks": (2, 2, 2, 2)}, {"blocks": (3, 4, 6, 3), "bottleneck": True}
SEQUENCE = {"hidden": 512, "layers": 2, "length": 64, "vocabulary": 1000}
BERT = {"width": 768, "layers": 12, "heads": 12, "length": 128, "vocabulary": 30522}
GPT = {"width": 384, "layers": 6, "heads": 6, "length": 256, "vocabulary": 65}
LENGTHS = (256, 512, 1024, 2048, 4096, 8192)


def _attention(length: int, mode: str) -> Workload:
    return Workload("attention", 1, mode, 0.8, {"heads": 8, "size": 64, "length": length}, f"attention 8x64 T{length}")


WORKLOADS = (
    Workload("mlp", 1, INFER, 0.1, TINY, "mlp 8-10-7-3"),
    Workload("mlp", 1, TRAIN, 0.1, TINY, "mlp 8-10-7-3"),
    Workload("mlp", 1, INFER, 0.75, MIDDLE, "mlp 784-512-512-10"),
    Workload("mlp", 64, INFER, 0.75, MIDDLE, "mlp 784-512-512-10"),
    Workload("mlp", 64, TRAIN, 0.5, MIDDLE, "mlp 784-512-512-10"),
    Workload("lenet", 64, INFER, 0.6, {}, "lenet 28x28"),
    Workload("lenet", 64, TRAIN, 0.5, {}, "lenet 28x28"),
    Workload("alexnet", 1, INFER, 0.95),
    Workload("resnet", 1, INFER, 0.7, RESNET18, "resnet18"),
    Workload("resnet", 16, TRAIN, 0.6, RESNET18, "resnet18"),
    Workload("resnet", 1, INFER, 0.85, RESNET50, "resnet50"),
    Workload("resnet", 8, INFER, 0.9, RESNET50, "resnet50"),
    Workload("resnet", 8, TRAIN, 0.6, RESNET50, "resnet50"),
    Workload("mobilenet", 1, INFER, 0.9),
    Workload("mobilenet", 8, TRAIN, 0.5),
    Workload("rnn", 8, INFER, 0.8, SEQUENCE, "rnn 2x512 T64"),
    Workload("rnn", 32, TRAIN, 0.6, SEQUENCE, "rnn 2x512 T64"),
    Workload("lstm", 1, INFER, 0.85, SEQUENCE, "lstm 2x512 T64"),
    Workload("lstm", 32, INFER, 0.85, SEQUENCE, "lstm 2x512 T64"),
    Workload("lstm", 32, TRAIN, 0.7, SEQUENCE, "lstm 2x512 T64"),
    Workload("gru", 8, INFER, 0.75, SEQUENCE, "gru 2x512 T64"),
    Workload("gru", 32, TRAIN, 0.6, SEQUENCE, "gru 2x512 T64"),
    Workload("bert", 1, INFER, 0.85, BERT, "bert-base T128"),
    Workload("bert", 8, INFER, 0.9, BERT, "bert-base T128"),
    Workload("gpt", 1, INFER, 0.75, GPT, "gpt 6x384 T256"),
    Workload("gpt", 12, TRAIN, 0.65, GPT, "gpt 6x384 T256"),
    *(_attention(length, mode) for length in LENGTHS for mode in (INFER, GRADIENTS)),
)
BY_NAME = {w.name: w for w in WORKLOADS}
QUICK_LENGTHS = (512, 4096)


def quick(workloads: tuple[Workload, ...]) -> tuple[Workload, ...]:
    """Fewer lengths of attention."""
    return tuple(w for w in workloads if w.network != "attention" or w.options["length"] in QUICK_LENGTHS)


def drawn(seed: int) -> tuple[Workload, ...]:
    """One workload of each family whose sizes nobody chose."""
    rng = np.random.default_rng(seed)
    number = lambda low, high, step=1: int(rng.integers(low // step, high // step, endpoint=True)) * step
    heads, hidden = number(3, 9), number(100, 600)
    changes = (
        ("mlp 784-512-512-10 b64 train", number(8, 100),
         {"sizes": (number(100, 900), number(100, 700), number(100, 700), number(3, 40))}),
        ("lenet 28x28 b64 train", number(8, 80),
         {"channels": (number(10, 50), number(20, 90)), "size": number(20, 40, 2)}),
        ("alexnet b1 infer", number(2, 4), {"size": number(180, 260)}),
        ("resnet18 b16 train", number(2, 12), {"width": number(24, 80), "size": number(120, 240)}),
        ("resnet50 b1 infer", number(1, 4), {"width": number(32, 80), "size": number(120, 240)}),
        ("mobilenet b8 train", number(2, 12), {"width": number(16, 40), "size": number(120, 240)}),
        ("rnn 2x512 T64 b32 train", number(3, 40), {"hidden": hidden, "length": number(20, 100)}),
        ("lstm 2x512 T64 b32 train", number(3, 40), {"hidden": hidden, "length": number(20, 100)}),
        ("gru 2x512 T64 b32 train", number(3, 40), {"hidden": hidden, "length": number(20, 100)}),
        ("bert-base T128 b8 infer", number(1, 6),
         {"width": heads * number(40, 100), "heads": heads, "layers": 3, "length": number(30, 300)}),
        ("gpt 6x384 T256 b12 train", number(2, 12),
         {"width": heads * number(30, 80), "heads": heads, "layers": 3, "length": number(30, 300)}),
        ("attention 8x64 T1024 b1 gradients", number(1, 3),
         {"heads": heads, "size": number(24, 128), "length": number(200, 2000)}),
    )
    return tuple(_changed(BY_NAME[name], batch, options) for name, batch, options in changes)


def _changed(w: Workload, batch: int, options: Mapping) -> Workload:
    text = " ".join(f"{k}={'-'.join(map(str, v)) if isinstance(v, tuple) else v}" for k, v in options.items())
    kind = "resnet50" if w.options.get("bottleneck") else "resnet18" if w.network == "resnet" else w.network
    return replace(w, batch=batch, options={**w.options, **options}, title=f"{kind} drawn {text}", drawn=True,
                   neighbour=w.name)
