"""`gc.from_gguf`: a language model from one file."""
from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from graphc.contained import contained
from graphc.doors.gguf.blocks import KINDS, Quantised, decoded
from graphc.doors.gguf.config import ROPE_FACTORS, gguf_shape, network_names
from graphc.doors.gguf.read import GgufFile, read_gguf
from graphc.doors.pretrained.decoder import DecoderLanguage
from graphc.doors.pretrained.parts import matrices
from graphc.doors.pretrained.stored import BlockStorage, WholeStorage
from graphc.dsl.context import user_loc
from graphc.dsl.form import formed
from graphc.errors import GraphError
from graphc.extra import missing
from graphc.given import shown
from graphc.ir.types import BY_NAME, DType, bf16, f16, f32, i64, of_numpy
from graphc.nn.entry import Entry
from graphc.nn.module import Module
from graphc.nn.network import entries, trace_network
from graphc.once import once_property
from graphc.recalled import Recalled, keep, named, recall_key, recalled
from graphc.runtime.copies import LaterCopies
from graphc.runtime.memory import SharedBlocks
from graphc.state import Model, State

if TYPE_CHECKING:
    from graphc.doors.gguf.text import ModelText

OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
STORES = (f32, bf16, f16)
INFINITE = np.uint16(0x7C00)            # the exponent of an f16 that is infinite or no number


class GgufModel(Model):
    """A language model and the file that it is from."""
    file: GgufFile

    def __init__(self, net: DecoderLanguage, arrays: State, file: GgufFile, traced: bool):
        """traced: whether layers have parameters, of which the state knows the owners."""
        vars(self).update(file=file, _bare=(net, arrays), _traced=traced)

    def bare(self) -> tuple[Module, State]:
        net, arrays = vars(self)["_bare"]
        return net, arrays

    @once_property
    def net(self) -> Module:                # a field of others, given when asked for
        return self._owned()[0]

    @once_property
    def state(self) -> State:
        return self._owned()[1]

    def _owned(self) -> tuple[Module, State]:
        """With parameters in the layers, and owners of the arrays: somebody may do something with them now."""
        net, arrays = self.bare()
        if not vars(self)["_traced"]:
            arrays.name_owners(_entries(net))
            vars(self)["_traced"] = True
        return net, arrays

    @once_property
    def text(self) -> ModelText:
        """`model.text.encode("…")`, `decode(ids)`, `chat(messages)`: text as the model's tokens. GraphError where the
        extra `llm` is not installed."""
        try:
            module = import_module("graphc.doors.gguf.text")
        except ImportError as error:
            raise missing("text", "the packages tokenizers and jinja2", "llm", error, user_loc()) from None
        return module.ModelText(self.file.fields, str(self.file.path))


@formed
def from_gguf(path: str | os.PathLike[str], *, store: DType | str | None = None) -> GgufModel:
    """The language model of a GGUF file: for gc.generate, gc.Generator, gc.compile; `graphc chat path` talks to it.

    Known are the architectures Llama (Mistral, SmolLM …), Qwen 2 and 3, Gemma 1 to 3, and the types F32, F16, BF16,
    Q8_0, Q4_0, Q4_1, Q4_K, Q5_K and Q6_K. The network takes input_ids, integers [B, T], and gives the logits of the
    next token [B, T, vocabulary]. Parameters are called as in transformers ("model.layers.0.mlp.up_proj.weight").

    The file is mapped, whole numbers stay so. Integers of few bits become 4 or 8 bits without a loss, and all products
    read these, with f32 sums: those of few rows convert them in registers, others while they pack them. store: "f32",
    "bf16" or "f16" makes all matrices numbers of this type now; bf16 and f16 round.

    Raises GraphError for a file that is damaged, or has types or fields that are not known, and for numbers beyond f16.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise GraphError(f"from_gguf takes the path of a file, got {shown(path)}", user_loc())
    name = store.name if isinstance(store, DType) else store
    if name is not None and name not in [d.name for d in STORES]:
        raise GraphError(f"store= is {', '.join(d.name for d in STORES)}, or None: as the file has them; got "
                         f"{shown(store)}", user_loc())
    return _loaded(Path(path), BY_NAME[name] if name else None)


@contained
def _loaded(path: Path, store: DType | None) -> GgufModel:
    file = read_gguf(path, {number: (kind.elements, kind.nbytes) for number, kind in KINDS.items()})
    names, copies = _names(file), LaterCopies()
    memory = SharedBlocks(later=copies if store is None else None)
    found = {theirs: decoded(file.tensors[theirs], memory) for theirs in names.values() if store is None}
    with copies:                        # made while Python is busy with the network
        net = DecoderLanguage(gguf_shape(file), tied="output.weight" not in file.tensors)
        arrays: dict[str, np.ndarray] = {}
        layers = dict(matrices(net))
        for ours, theirs in names.items():
            array = found[theirs] if theirs in found else decoded(file.tensors[theirs], memory)
            if isinstance(array, Quantised) and ours in layers and store is None:
                layers[ours].stored, parts = _blocks(array)
                arrays |= {f"{ours}.{part}": a for part, a in parts.items()}
                continue
            if isinstance(array, Quantised):
                copies.finish()
            whole = _whole(array, theirs, path)
            if ours not in layers:
                arrays[ours] = whole
            else:
                arrays[ours] = whole if store is None else _rounded(whole, store, theirs, path)
                layers[ours].stored = WholeStorage(_float_type(arrays[ours]))
        key = recall_key(net, "entries")
        known = recalled(key)
        needed = known.entries if known else _entries(net)
        if known is None:
            keep(key, Recalled(*named(needed)))
        if unused := sorted(arrays.keys() - {e.name for e in needed}):
            raise GraphError(f"{path} has {names.get(unused[0], unused[0])}, for which the network has no place",
                             user_loc())
    for name, array in found.items():
        _check_finite(array, name, path)
    return GgufModel(net, State.create(needed, None, arrays, str(path), mapped=True), file, known is None)


def _entries(net: Module) -> tuple[Entry, ...]:
    """The arrays that the network needs."""
    return entries(trace_network(net, input_ids=i64["B", "T"]))


def _whole(array: np.ndarray | Quantised, name: str, path: Path) -> np.ndarray:
    """The numbers of the array."""
    _check_finite(array, name, path)
    return array.whole() if isinstance(array, Quantised) else array


def _check_finite(array: np.ndarray | Quantised, name: str, path: Path) -> None:
    """GraphError if integers have a scale that is not finite: products that add up a block before they multiply by it
    would give infinities where the numbers give NaN."""
    parts = (array.scale, array.minimum) if isinstance(array, Quantised) else ()
    if not all(part is None or _is_finite(part) for part in parts):
        raise GraphError(f"{path} is damaged: {name} has blocks with a scale or minimum that is not finite", user_loc())


def _is_finite(part: np.ndarray) -> bool:
    """Of f16 by its bits, which takes a third of the time."""
    if part.dtype == np.float16:
        return bool(((part.view(np.uint16) & INFINITE) != INFINITE).all())
    return bool(np.isfinite(part).all())


def _rounded(whole: np.ndarray, store: DType, name: str, path: Path) -> np.ndarray:
    """GraphError for numbers that become infinite."""
    with np.errstate(over="ignore"):
        rounded = whole.astype(store.np, copy=False)
    if rounded is not whole and (np.isinf(rounded) & np.isfinite(whole)).any():
        raise GraphError(f'{path}: numbers of {name} are beyond {store.name}; store="bf16" has room for them',
                         user_loc())
    return rounded


def _names(file: GgufFile) -> Mapping[str, str]:
    """The names of the file's arrays, by those of the network."""
    inner = network_names(file.fields["general.architecture"])
    found = {}
    for name in file.tensors:
        match name.split("."):
            case ["blk", layer, part, kind] if part in inner:
                found[f"model.layers.{layer}.{inner[part]}.{kind}"] = name
            case [part, kind] if part in OUTER:
                found[f"{OUTER[part]}.{kind}"] = name
            case _ if name != ROPE_FACTORS:
                raise GraphError(f"{file.path} has {name}, which is not known", user_loc())
    return found


def _blocks(array: Quantised) -> tuple[BlockStorage, dict[str, np.ndarray]]:
    """How a matrix [N, K] is kept, and its arrays (see `BlockStorage`): scales and minima as the file has them."""
    parts = {name: a for name, a in (("scale", array.scale), ("minimum", array.minimum)) if a is not None}
    bits, least = (8, 0) if array.least is None else (4, array.least)
    stored = BlockStorage(array.block, bits, -least, array.minimum is not None, _float_type(array.scale))
    return stored, {"codes": array.codes, **parts}


def _float_type(array: np.ndarray) -> DType:
    found = of_numpy(array.dtype)
    assert found is not None
    return found
