"""`gc.from_pretrained`: a folder of the library transformers as a network with its weights."""
from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphc import nn
from graphc.contained import contained
from graphc.doors.pretrained.families import FAMILIES, Family
from graphc.doors.pretrained.fields import Fields
from graphc.doors.pretrained.parts import matrices
from graphc.doors.pretrained.safetensors_map import json_file, mapped_folder
from graphc.doors.pretrained.stored import WholeStorage
from graphc.dsl.context import user_loc
from graphc.dsl.form import formed
from graphc.errors import GraphError
from graphc.given import shown
from graphc.ir.types import DType, f32, i64, of_numpy
from graphc.nn.network import entries, trace_network
from graphc.state import Model, State

CONFIG = "config.json"
# arrays that files of older versions hold beside the parameters; each follows from the config
IGNORED = re.compile(r"(.*\.)?(position_ids|rotary_emb\.inv_freq|attn\.(masked_)?bias)")
# a second copy of what another name holds, in files of networks whose matrices are tied
DOUBLES = {"cls.predictions.decoder.bias": "cls.predictions.bias", "lm_head.decoder.bias": "lm_head.bias"}
TIED = ("lm_head.weight", "cls.predictions.decoder.weight", "lm_head.decoder.weight", "vocab_projector.weight")
TABLES = ("embeddings.word_embeddings.weight", "wte.weight", "embed_tokens.weight")
OLDER = ((".LayerNorm.weight", ".LayerNorm.gamma"), (".LayerNorm.bias", ".LayerNorm.beta"),
         (".decoder.bias", ".bias"))


@formed
def from_pretrained(folder: str | os.PathLike[str], *, architecture: str | None = None,
                    dtype: DType | str | None = None, ignore: Sequence[str] = ()) -> Model:
    """The network of a folder of the library transformers, with its weights: for gc.compile, gc.generate, gc.plan.

    folder: holds config.json and *.safetensors (with an index, if there are several). Known are BERT, RoBERTa,
    DistilBERT, GPT-2, Llama, Mistral, Qwen 2 and 3, Gemma 1 and 2, with the heads that their classes have
    (…ForCausalLM, …ForMaskedLM, …ForSequenceClassification, …ForTokenClassification, or none). architecture: such a
    class's name, instead of the one that the config names.

    The network takes input_ids, integers [B, T], and attention_mask [B, T] (0 for padding; may be left out), BERT and
    RoBERTa also token_type_ids; sizes may be named: `gc.compile(model, input_ids=gc.i64["B", "T"])`. It gives logits:
    [B, T, vocabulary], of classes [B, labels] or [B, T, labels]; without a head [B, T, E], or a dict with
    pooler_output, too. Parameters have the names that transformers gives them.

    The weights stay mapped: the file is not copied. Matrices of f16 and bf16 stay so and are widened as they are read,
    which changes no bit of a computation in f32; they are not trained. dtype: "f32" widens all now, for training. There
    is no dropout.

    Raises GraphError for what the folder lacks, and for each field of the config that is not known: it might change the
    numbers. ignore: fields of which you know that they do not.
    """
    if not isinstance(folder, (str, os.PathLike)):
        raise GraphError(f"from_pretrained takes the path of a folder, got {shown(folder)}", user_loc())
    path = Path(folder)
    if not path.is_dir():
        raise GraphError(f"there is no folder {path}; from_pretrained downloads nothing", user_loc())
    return _loaded(path, architecture, _widened(dtype), ignore)


@contained
def _loaded(path: Path, architecture: str | None, widened: bool, ignore: Sequence[str]) -> Model:
    config = json_file(path / CONFIG)
    family, name = _chosen(path / CONFIG, config, architecture)
    fields = Fields(str(path / CONFIG), config, ignore)
    shape, tied = family.shape(fields), fields.flag("tie_word_embeddings", family.tied)
    fields.finish()
    net = family.architectures[name](shape, _labels(config), tied)
    arrays = mapped_folder(path)
    _check_doubles(path, arrays, tied)
    return bound_model(net, NamedArrays(arrays, family), str(path), widened)


class NamedArrays(Mapping[str, np.ndarray]):
    """The arrays of a file under the names of the network: with or without what names of the inner network begin with,
    and older names of norms."""

    def __init__(self, arrays: Mapping[str, np.ndarray], family: Family):
        self._arrays, self._base, self._blocks = arrays, f"{family.base}.", family.blocks
        self._used: set[str] = set()

    def __getitem__(self, name: str) -> np.ndarray:
        for other in self._others(name):
            if other in self._arrays:
                self._used.add(other)
                return self._arrays[other]
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and any(other in self._arrays for other in self._others(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def check_rest(self, where: str) -> None:
        """GraphError for an array of a layer that the network does not use: the config does not fit the file."""
        layer = re.compile(rf"({re.escape(self._base)})?{re.escape(self._blocks)}\.\d+\.")
        homes = {name.rpartition(".")[0] for name in self._used}
        rest = sorted(name for name in self._arrays.keys() - self._used - DOUBLES.keys() if not IGNORED.fullmatch(name)
                      and (layer.match(name) or name.rpartition(".")[0] in homes))
        if rest:
            raise GraphError(f"{where} has {rest[0]}, for which the network that config.json describes has no place",
                             user_loc())

    def _others(self, name: str) -> Iterator[str]:
        for whole in (name, self._base + name, name.removeprefix(self._base)):
            yield whole
            for new, old in OLDER:
                if whole.endswith(new):
                    yield whole.removesuffix(new) + old


def bound_model(net: nn.Module, arrays: NamedArrays, where: str, widened: bool) -> Model:
    """The network on these arrays, in their types where it can read them. GraphError for what is missing."""
    for name, layer in matrices(net):
        found = of_numpy(arrays[name].dtype) if name in arrays else None
        if found is not None and found.is_storage and not widened:
            layer.stored = WholeStorage(found)
    function = trace_network(net, input_ids=i64["B", "T"])
    state = State.create(entries(function), None, arrays, where, mapped=True)
    arrays.check_rest(where)
    return Model(net, state)


def _check_doubles(path: Path, arrays: Mapping[str, np.ndarray], tied: bool) -> None:
    """GraphError where the file has two arrays, which differ, for what the config says is one."""
    table = next((name for name in arrays if name.endswith(TABLES)), "")
    for copy, original in [*DOUBLES.items(), *((name, table) for name in TIED)] if tied else ():
        if copy in arrays and original in arrays and not np.array_equal(arrays[copy], arrays[original]):
            raise GraphError(f"{path}: {copy} differs from {original}, which the config says it is; if both are meant, "
                             "set tie_word_embeddings to false in config.json", user_loc())


def _chosen(path: Path, config: Mapping[str, Any], architecture: str | None) -> tuple[Family, str]:
    """The family and the class of the network that a config names."""
    family = FAMILIES.get(str(config.get("model_type")))
    if family is None:
        raise GraphError(f"{path}: model_type {config.get('model_type')!r} is not supported; known are "
                         f"{', '.join(FAMILIES)}", user_loc())
    named = config.get("architectures") or []
    name = architecture or (named[0] if isinstance(named, list) and len(named) == 1 else None)
    if name is None or name not in family.architectures:
        raise GraphError((f"{path}: architecture {name} is not supported" if name else f"{path} names no architecture")
                         + f"; give architecture= one of {', '.join(family.architectures)}", user_loc())
    return family, name


def _labels(config: Mapping[str, Any]) -> int:
    labels = config.get("id2label")
    return len(labels) if isinstance(labels, dict) else config.get("num_labels") or 2


def _widened(dtype: DType | str | None) -> bool:
    name = dtype.name if isinstance(dtype, DType) else dtype
    if name in (None, f32.name):
        return name is not None
    raise GraphError(f"dtype is \"f32\", or None: as the file has them; got {shown(dtype)}", user_loc())
