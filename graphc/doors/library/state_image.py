"""The state of a library as it lies in memory: a safetensors file. Every array begins at a cache line; what is between
two of them is an array too, since the format has no holes."""
from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate

import numpy as np

from graphc.ir.types import DTYPES, TensorType, of_numpy
from graphc.records import dataclass
from graphc.runtime.instances.instance_memory import TensorFacts
from graphc.runtime.instances.making_ir import LENGTH_BYTES, OFFSETS_KEY
from graphc.runtime.memory import round_up
from graphc.schedule.target import ALIGNMENT

PADDING = "graphc.padding"


@dataclass(frozen=True, eq=False)
class StateArray:
    """An array of the state, and its value. `optional`: files have it only where it is not as declared."""
    name: str
    value: np.ndarray
    optional: bool = False

    @property
    def type(self) -> TensorType:
        dtype = of_numpy(self.value.dtype)
        return TensorType(dtype or DTYPES[0], self.value.shape)

    def entry(self, begin: int) -> str:
        """In the header, up to where it ends."""
        return self.entry_start + f"{begin},{begin + self.value.nbytes}]}}"

    @property
    def entry_start(self) -> str:
        shape = json.dumps(list(self.value.shape), separators=(",", ":"))
        return f'{json.dumps(self.name)}:{{"dtype":"{self.type.dtype.name.upper()}","shape":{shape}{OFFSETS_KEY}'


@dataclass(frozen=True, eq=False)
class StateImage:
    """The state's arrays, one after the other."""
    arrays: tuple[StateArray, ...]

    @cached_property
    def _begins(self) -> list[int]:
        """Of each array, from the first on."""
        return list(accumulate([round_up(a.value.nbytes) for a in self.arrays[:-1]], initial=0))

    @cached_property
    def header(self) -> bytes:
        """With its length; a whole number of cache lines."""
        entries = []
        for n, (array, begin) in enumerate(zip(self.arrays, self._begins)):
            entries.append(array.entry(begin))
            gap = -array.value.nbytes % ALIGNMENT
            if gap and array is not self.arrays[-1]:
                padding = StateArray(f"{PADDING}.{n}", np.zeros(gap, np.uint8))
                entries.append(padding.entry(begin + array.value.nbytes))
        text = ("{" + ",".join(entries) + "}").encode()
        text += b" " * (-(len(text) + LENGTH_BYTES) % ALIGNMENT)
        return len(text).to_bytes(LENGTH_BYTES, "little") + text

    @property
    def offsets(self) -> list[int]:
        """Of the arrays in the image."""
        return [len(self.header) + begin for begin in self._begins]

    @property
    def nbytes(self) -> int:
        return self.offsets[-1] + self.arrays[-1].value.nbytes if self.arrays else 0

    def content(self) -> bytes:
        """With the values that the arrays have."""
        image = np.zeros(self.nbytes, np.uint8)
        image[:len(self.header)] = np.frombuffer(self.header, np.uint8)
        for array, offset in zip(self.arrays, self.offsets):
            flat = np.ascontiguousarray(array.value).reshape(-1).view(np.uint8)
            image[offset:offset + flat.size] = flat
        return image.tobytes()

    def facts(self) -> bytes:
        """The records that `load_image` reads, and the texts that they name."""
        texts = [array.entry_start.encode() for array in self.arrays]
        begins = accumulate(map(len, texts), initial=TensorFacts.size * len(texts))
        rows = [(begin, len(text), offset, a.value.nbytes, a.optional)
                for begin, text, offset, a in zip(begins, texts, self.offsets, self.arrays)]
        return np.array(rows, "<i8").tobytes() + b"".join(texts)


def joined(sources: Sequence[Sequence[StateArray]]) -> tuple[StateImage, list[tuple[int, ...]]]:
    """One image of the arrays of several functions, and the numbers of each one's arrays: those that are one piece of
    memory are one array of it."""
    found: dict[int, int] = {}
    arrays: list[StateArray] = []
    numbers = []
    for source in sources:
        for array in source:
            if found.setdefault(id(array.value), len(arrays)) == len(arrays):
                arrays.append(array)
        numbers.append(tuple(found[id(array.value)] for array in source))
    return StateImage(tuple(arrays)), numbers
