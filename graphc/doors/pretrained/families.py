"""Which networks a config may name, and how each is made."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from graphc import nn
from graphc.doors.pretrained.decoder import Decoder, DecoderClass, DecoderLanguage
from graphc.doors.pretrained.decoder_config import (
    gemma2_shape, gemma_shape, llama_shape, mistral_shape, qwen2_shape, qwen3_shape)
from graphc.doors.pretrained.encoder import Encoder, PooledEncoder, bert_shape, distil_shape
from graphc.doors.pretrained.encoder_heads import (
    BertClassHead, BertMaskedHead, DistilClassHead, DistilMaskedHead, EncoderHead, RobertaClassHead,
    RobertaMaskedHead, TokenClassHead)
from graphc.doors.pretrained.fields import Fields
from graphc.doors.pretrained.gpt2 import Gpt2, Gpt2Class, Gpt2Language, gpt2_shape
from graphc.records import dataclass

Build = Callable[[Any, int, bool], nn.Module]       # of a shape, the number of labels, and whether matrices are tied


@dataclass(frozen=True)
class Family:
    """One `model_type`. `base`: what names of the inner network begin with; `tied`: whether the matrix of the scores is
    that of the embedding, unless the config says; `blocks`: what names of layers begin with, within the base."""
    base: str
    blocks: str
    shape: Callable[[Fields], Any]
    architectures: Mapping[str, Build]
    tied: bool = True


def _encoder_head(base: str, head: type[EncoderHead]) -> Build:
    return lambda shape, labels, tied: head(base, shape, labels, tied)


def _encoder(base: str, name: str, shape: Callable[[Fields], Any], whole: type[Encoder],
             heads: tuple[type[EncoderHead], type[EncoderHead]], blocks: str) -> Family:
    masked, classes = heads
    return Family(base, blocks, shape, {
        f"{name}Model": lambda shape, labels, tied: whole(shape),
        f"{name}ForMaskedLM": _encoder_head(base, masked),
        f"{name}ForSequenceClassification": _encoder_head(base, classes),
        f"{name}ForTokenClassification": _encoder_head(base, TokenClassHead)})


def _decoder(name: str, shape: Callable[[Fields], Any], tied: bool = False) -> Family:
    return Family("model", "layers", shape, {
        f"{name}Model": lambda shape, labels, tied: Decoder(shape),
        f"{name}ForCausalLM": lambda shape, labels, tied: DecoderLanguage(shape, tied),
        f"{name}ForSequenceClassification": lambda shape, labels, tied: DecoderClass(shape, labels)}, tied)


FAMILIES: Mapping[str, Family] = {
    "bert": _encoder("bert", "Bert", lambda fields: bert_shape(fields, False), PooledEncoder,
                     (BertMaskedHead, BertClassHead), "encoder.layer"),
    "roberta": _encoder("roberta", "Roberta", lambda fields: bert_shape(fields, True), PooledEncoder,
                        (RobertaMaskedHead, RobertaClassHead), "encoder.layer"),
    "distilbert": _encoder("distilbert", "DistilBert", distil_shape, Encoder, (DistilMaskedHead, DistilClassHead),
                           "transformer.layer"),
    "gpt2": Family("transformer", "h", gpt2_shape, {
        "GPT2Model": lambda shape, labels, tied: Gpt2(shape),
        "GPT2LMHeadModel": lambda shape, labels, tied: Gpt2Language(shape, tied),
        "GPT2ForSequenceClassification": lambda shape, labels, tied: Gpt2Class(shape, labels)}),
    "llama": _decoder("Llama", llama_shape), "mistral": _decoder("Mistral", mistral_shape),
    "qwen2": _decoder("Qwen2", qwen2_shape), "qwen3": _decoder("Qwen3", qwen3_shape),
    "gemma": _decoder("Gemma", gemma_shape, tied=True), "gemma2": _decoder("Gemma2", gemma2_shape, tied=True),
}
